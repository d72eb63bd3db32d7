"""The settings of a worker, read from the environment and checked. Their defaults are here."""

from datetime import UTC, tzinfo
from typing import Annotated, Any, Literal, Self, get_args, get_origin
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from producers import keys
from producers._redis import connect
from worker.database.session import Timeouts, database_url

SHORTEST_TOKEN = 16


class SettingsError(Exception):
    """A variable is wrong. The text has one line for each: its name, its value and what is allowed."""


def _redis_url(url: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(url.get_secret_value())
        _ = parts.port  # parsed only when it is read
    except ValueError:
        # The text of the error repeats a host or port, which is a part of the password if that was not escaped.
        raise ValueError("not a Redis URL: redis://:password@host:6379/0") from None
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("must be a redis://, rediss:// or unix:// URL")
    try:
        connect(url.get_secret_value(), queue=keys.DEFAULT_QUEUE)  # parses the options, opens no connection
    except ValueError:
        raise ValueError("not a Redis URL, or it has an unknown option") from None
    return url


def _database_url(url: SecretStr) -> SecretStr:
    database_url(url.get_secret_value())
    return url


def _token(token: SecretStr | None) -> SecretStr | None:
    if token is not None and len(token.get_secret_value()) < SHORTEST_TOKEN:
        raise ValueError(f"must have {SHORTEST_TOKEN} characters or more: openssl rand -hex 24")
    return token


def _timezone(name: str) -> str:
    try:
        zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is not a time zone of this machine") from None
    return name


def zone(name: str) -> tzinfo:
    """The time zone of this name. UTC needs no time zone database."""
    return UTC if name == "UTC" else ZoneInfo(name)


class Settings(BaseSettings):
    """The settings, read by `Settings.load()`. The README's table is generated from the descriptions."""

    model_config = SettingsConfigDict(env_prefix="WORKER_", frozen=True, extra="ignore", hide_input_in_errors=True)

    database_url: Annotated[SecretStr, AfterValidator(_database_url)] = Field(
        validation_alias="DATABASE_URL", description="PostgreSQL: `postgresql://user:password@host:5432/database`"
    )
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] = Field(
        validation_alias="REDIS_URL", description="Redis or Valkey: `redis://:password@host:6379/0`"
    )
    queue: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$")] = Field(
        keys.DEFAULT_QUEUE, description="the queue's name, which is also its Redis key"
    )
    concurrency: Annotated[int, Field(ge=1, le=1000)] = Field(16, description="concurrent sessions in each process")
    batch_size: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="jobs of one type that may share a session and its transaction"
    )
    lease_seconds: Annotated[float, Field(ge=2, le=3600)] = Field(
        10, description="seconds that a claim lasts unless renewed"
    )
    max_tries: Annotated[int, Field(ge=1, le=100)] = Field(
        5, description="limit on attempts: a job whose last attempt fails is dead"
    )
    job_timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = Field(30, description="time limit of one attempt")
    shutdown_grace_seconds: Annotated[float, Field(ge=0, le=3600)] = Field(
        25, description="time for running jobs to finish after SIGTERM"
    )
    max_payload_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = Field(
        1024 * 1024, description="the largest payload that is read"
    )
    result_ttl_seconds: Annotated[int, Field(ge=1, le=31 * 86_400)] = Field(
        3600, description="how long Redis keeps a result; the ledger has a retention of its own"
    )
    ledger_retention_days: Annotated[int, Field(ge=1, le=3650)] = Field(
        14, description="how long the ledger keeps an outcome"
    )
    dead_letter_retention_days: Annotated[int, Field(ge=0, le=36_500)] = Field(
        30, description="delete dead letters after this many days; 0: never"
    )
    inactive_user_days: Annotated[int, Field(ge=0, le=36_500)] = Field(
        0, description="delete users inactive for longer than this many days; 0: never"
    )
    timezone: Annotated[str, AfterValidator(_timezone)] = Field(
        "UTC", description="the time zone of the schedule, such as `Europe/Paris`"
    )
    http_host: Annotated[str, Field(min_length=1, max_length=255)] = Field(
        "127.0.0.1", description="the address of `/livez`, `/readyz` and `/metrics`"
    )
    http_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        0, description="port for these endpoints; 0 disables them. With `--processes`, only one process answers."
    )
    dashboard_token: Annotated[SecretStr | None, AfterValidator(_token)] = Field(
        None, description="the log-in token of `worker dashboard`, 16 characters or more; required beyond loopback"
    )
    create_tables: bool = Field(
        True,
        description="create the tables of an empty database at the start; `false`: wait for `worker migrate`",
    )
    log_format: Literal["json", "console"] = Field("json", description="`json` or `console`")
    log_success_sample: Annotated[float, Field(ge=0, le=1)] = Field(
        1,
        description=(
            "share of ordinary `job_done` lines to log; slow, retried and redelivered jobs and all other events are "
            "always logged"
        ),
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="`debug`, `info`, `warning` or `error`"
    )

    @classmethod
    def load(cls, **values: Any) -> Self:
        """Read the environment. `values`, by the names of fields or URLs, override it.

        Raises:
            SettingsError: naming each invalid variable, its value and what is allowed. Secrets are masked.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise SettingsError("\n".join(_line(problem) for problem in error.errors(include_url=False))) from None

    @property
    def timeouts(self) -> Timeouts:
        """Time limits of every database connection, none longer than the lease or the job's time limit."""
        # asyncpg needs twice its limit to give up on a silent server. That must happen before the job's own time limit,
        # which would count as a failed attempt.
        statement_seconds = min(8.0, self.job_timeout_seconds / 4)
        return Timeouts(
            lock_seconds=min(5.0, statement_seconds),
            statement_seconds=statement_seconds,
            idle_in_transaction_seconds=self.lease_seconds * 0.8,
            answer_seconds=statement_seconds + 2,
        )


def variable(field: str) -> str:
    """The environment variable of a field.

    >>> variable("database_url"), variable("max_tries")
    ('DATABASE_URL', 'WORKER_MAX_TRIES')
    """
    return field.upper() if field in {"database_url", "redis_url"} else f"WORKER_{field.upper()}"


def allowed(field: str) -> str:
    """The allowed values of a field, in words.

    >>> allowed("concurrency"), allowed("log_format")
    ('a whole number from 1 to 1000', 'json or console')
    >>> allowed("create_tables")
    'true or false'
    """
    info = Settings.model_fields[field]
    if info.annotation is bool:
        return "true or false"
    if get_origin(info.annotation) is Literal:
        return " or ".join(get_args(info.annotation))
    bounds = {name: bound for item in info.metadata for name in ("ge", "gt", "le") if (bound := _bound(item, name))}
    if "le" in bounds:
        kind = "a whole number" if info.annotation is int else "a number"
        low = f"from {bounds['ge']} to" if "ge" in bounds else f"above {bounds.get('gt', 0)} and up to"
        return f"{kind} {low} {bounds['le']}"
    return info.description or ""


def _bound(item: object, name: str) -> str | None:
    bound = getattr(item, name, None)
    return None if bound is None else f"{bound:.12g}"


def _line(problem: Any) -> str:
    name = str(problem["loc"][0])
    field = name.lower().removeprefix("worker_")
    name = variable(field)
    if problem["type"] == "missing":
        return f"{name} is not set: export {name}=…, or run `worker dev`, which starts both servers"
    if field not in Settings.model_fields:
        return f"{name} is not a setting of this worker"
    if problem["type"] == "value_error":
        return f"{name}=…: {problem['msg'].removeprefix('Value error, ')}"
    given = "…" if name.endswith("_URL") else repr(str(problem.get("input"))[:60])
    return f"{name}={given} is not allowed: expected {allowed(field)}"
