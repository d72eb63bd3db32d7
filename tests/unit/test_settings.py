"""The environment is read, and refused with a line that helps and holds no secret."""

import os
import pickle

import pytest
from pydantic import ValidationError

from worker.settings import Settings, SettingsError, allowed, variable

DATABASE_URL = "postgresql://worker:s3cret-d@db:5432/app"
REDIS_URL = "redis://:s3cret-r@redis:6379/0"

# Every variable and its default.
DEFAULTS = {
    "WORKER_QUEUE": "arq:queue",
    "WORKER_CONCURRENCY": 16,
    "WORKER_BATCH_SIZE": 1,
    "WORKER_LEASE_SECONDS": 10,
    "WORKER_MAX_TRIES": 5,
    "WORKER_JOB_TIMEOUT_SECONDS": 30,
    "WORKER_SHUTDOWN_GRACE_SECONDS": 25,
    "WORKER_MAX_PAYLOAD_BYTES": 1024 * 1024,
    "WORKER_RESULT_TTL_SECONDS": 3600,
    "WORKER_LEDGER_RETENTION_DAYS": 14,
    "WORKER_DEAD_LETTER_RETENTION_DAYS": 30,
    "WORKER_INACTIVE_USER_DAYS": 0,
    "WORKER_TIMEZONE": "UTC",
    "WORKER_HTTP_HOST": "127.0.0.1",
    "WORKER_HTTP_PORT": 0,
    "WORKER_DASHBOARD_TOKEN": None,
    "WORKER_CREATE_TABLES": True,
    "WORKER_LOG_FORMAT": "json",
    "WORKER_LOG_SUCCESS_SAMPLE": 1,
    "WORKER_LOG_LEVEL": "info",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which only the two URLs are set."""
    for name in os.environ:
        if name.upper().startswith("WORKER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", DATABASE_URL)
    monkeypatch.setenv("REDIS_URL", REDIS_URL)
    return monkeypatch


def refusal() -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert "s3cret" not in str(caught.value)
    return str(caught.value).splitlines()


def test_defaults_match_the_table() -> None:
    settings = Settings.load()
    found = {variable(name): getattr(settings, name) for name in Settings.model_fields}
    assert found.pop("DATABASE_URL").get_secret_value() == DATABASE_URL
    assert found.pop("REDIS_URL").get_secret_value() == REDIS_URL
    assert found == DEFAULTS


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("WORKER_QUEUE", "emails:queue", "emails:queue"),
        ("WORKER_CONCURRENCY", "1", 1),
        ("WORKER_CONCURRENCY", "1000", 1000),
        ("WORKER_BATCH_SIZE", "64", 64),
        ("WORKER_LEASE_SECONDS", "2.5", 2.5),
        ("WORKER_MAX_TRIES", "1", 1),
        ("WORKER_JOB_TIMEOUT_SECONDS", "0.5", 0.5),
        ("WORKER_SHUTDOWN_GRACE_SECONDS", "0", 0),
        ("WORKER_MAX_PAYLOAD_BYTES", "2048", 2048),
        ("WORKER_RESULT_TTL_SECONDS", "60", 60),
        ("WORKER_LEDGER_RETENTION_DAYS", "365", 365),
        ("WORKER_DEAD_LETTER_RETENTION_DAYS", "0", 0),
        ("WORKER_INACTIVE_USER_DAYS", "30", 30),
        ("WORKER_LOG_FORMAT", "console", "console"),
        ("WORKER_LOG_LEVEL", "debug", "debug"),
    ],
)
def test_each_variable_is_read(environment: pytest.MonkeyPatch, name: str, given: str, value: object) -> None:
    environment.setenv(name, given)
    assert getattr(Settings.load(), name.removeprefix("WORKER_").lower()) == value


def test_given_values_override_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("WORKER_CONCURRENCY", "2")
    settings = Settings.load(concurrency=3, DATABASE_URL="postgres://elsewhere/app")
    assert settings.concurrency == 3
    assert settings.database_url.get_secret_value() == "postgres://elsewhere/app"


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
def test_a_missing_url_is_reported(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.delenv(name)
    assert refusal() == [f"{name} is not set: export {name}=…, or run `worker dev`, which starts both servers"]


WHOLE = "expected a whole number from"


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("WORKER_QUEUE", "a queue", "expected the queue's name, which is also its Redis key"),
        ("WORKER_QUEUE", "q" * 65, "expected the queue's name, which is also its Redis key"),
        ("WORKER_CONCURRENCY", "0", f"{WHOLE} 1 to 1000"),
        ("WORKER_CONCURRENCY", "1001", f"{WHOLE} 1 to 1000"),
        ("WORKER_CONCURRENCY", "2.5", f"{WHOLE} 1 to 1000"),
        ("WORKER_CONCURRENCY", "many", f"{WHOLE} 1 to 1000"),
        ("WORKER_CONCURRENCY", "", f"{WHOLE} 1 to 1000"),
        ("WORKER_LEASE_SECONDS", "1.9", "expected a number from 2 to 3600"),
        ("WORKER_LEASE_SECONDS", "nan", "expected a number from 2 to 3600"),
        ("WORKER_LEASE_SECONDS", "inf", "expected a number from 2 to 3600"),
        ("WORKER_MAX_TRIES", "101", f"{WHOLE} 1 to 100"),
        ("WORKER_JOB_TIMEOUT_SECONDS", "0", "expected a number above 0 and up to 86400"),
        ("WORKER_SHUTDOWN_GRACE_SECONDS", "-1", "expected a number from 0 to 3600"),
        ("WORKER_MAX_PAYLOAD_BYTES", "1 MiB", f"{WHOLE} 1024 to 67108864"),
        ("WORKER_RESULT_TTL_SECONDS", "0", f"{WHOLE} 1 to 2678400"),
        ("WORKER_LEDGER_RETENTION_DAYS", "0", f"{WHOLE} 1 to 3650"),
        ("WORKER_DEAD_LETTER_RETENTION_DAYS", "for ever", f"{WHOLE} 0 to 36500"),
        ("WORKER_INACTIVE_USER_DAYS", "-1", f"{WHOLE} 0 to 36500"),
        ("WORKER_LOG_FORMAT", "xml", "expected json or console"),
        ("WORKER_LOG_LEVEL", "INFO?", "expected debug or info or warning or error"),
    ],
)
def test_a_wrong_value_is_reported_in_one_line(
    environment: pytest.MonkeyPatch, name: str, given: str, expected: str
) -> None:
    environment.setenv(name, given)
    (line,) = refusal()
    assert line == f"{name}={given[:60]!r} is not allowed: {expected}"


def test_every_wrong_value_has_its_line(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("WORKER_MAX_TRIES", "0")
    environment.setenv("WORKER_LOG_LEVEL", "loud")
    environment.delenv("REDIS_URL")
    assert sorted(line.partition("=")[0].partition(" ")[0] for line in refusal()) == [
        "REDIS_URL", "WORKER_LOG_LEVEL", "WORKER_MAX_TRIES",
    ]  # fmt: skip


def test_a_value_of_several_lines_is_reported_in_one(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("WORKER_LOG_LEVEL", "info\nDATABASE_URL is fine")
    assert len(refusal()) == 1


@pytest.mark.parametrize(
    "given",
    [
        "",
        "s3cret",
        "mysql://u:s3cret@db/app",
        "db:5432/app?password=s3cret",
        "postgresql://u:@[s3cret:s3cret@db/app",
        "postgresql://u:p@db:s3cret/app",
    ],
)
def test_a_wrong_database_url_is_not_repeated(environment: pytest.MonkeyPatch, given: str) -> None:
    environment.setenv("DATABASE_URL", given)
    (line,) = refusal()
    assert line.startswith("DATABASE_URL=…: ")
    assert "postgresql://" in line


@pytest.mark.parametrize(
    "given",
    [
        "",
        "s3cret",
        "localhost:6379",
        "http://:s3cret@redis:6379/0",
        # Passwords that are not escaped: a part of them is parsed as a port or a host.
        "redis://:s3cret/more@redis:6379/0",
        "redis://user:s3cret#more@redis:6379/0",
        "redis://:p@[s3cret]@redis/0",
        "redis://:s3cret℀@redis:6379/0",
        "redis://redis:99999",
    ],
)
def test_a_wrong_redis_url_is_not_repeated(environment: pytest.MonkeyPatch, given: str) -> None:
    environment.setenv("REDIS_URL", given)
    (line,) = refusal()
    assert line.startswith("REDIS_URL=…: ")
    assert "redis://" in line


@pytest.mark.parametrize(
    "given", ["redis://redis", "rediss://user:p%2Fw@redis:6380/3", "unix:///run/redis.sock?db=2", "redis://[::1]:6379"]
)
def test_all_forms_of_a_redis_url_are_accepted(environment: pytest.MonkeyPatch, given: str) -> None:
    environment.setenv("REDIS_URL", given)
    assert Settings.load().redis_url.get_secret_value() == given


def test_secrets_are_masked_when_settings_are_shown() -> None:
    settings = Settings.load()
    for shown in (str(settings), repr(settings), f"{settings}", str(settings.model_dump()), settings.model_dump_json()):
        assert "s3cret" not in shown


def test_settings_are_immutable() -> None:
    settings = Settings.load()
    with pytest.raises(ValidationError):
        settings.concurrency = 2  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301  # for worker processes


def test_every_variable_has_allowed_values_and_a_description() -> None:
    for name in Settings.model_fields:
        assert allowed(name), name
        assert Settings.model_fields[name].description, name


def test_database_limits_are_shorter_than_the_lease_and_the_job_limit() -> None:
    for lease, timeout in [(10, 30), (2, 0.5), (60, 600), (2, 3600)]:
        settings = Settings.load(lease_seconds=lease, job_timeout_seconds=timeout)
        limits = settings.timeouts
        # A frozen worker's transaction ends before another worker claims its job.
        assert limits.idle_in_transaction_seconds < settings.lease_seconds
        # The server ends a statement before the job's own limit, and the client gives up only after the server.
        assert limits.lock_seconds <= limits.statement_seconds < settings.job_timeout_seconds
        assert limits.statement_seconds < limits.answer_seconds
