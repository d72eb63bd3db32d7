"""One command for each job type, generated from its message."""

import inspect
import math
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from producers._encoding import Request, build
from producers.cli import options
from producers.cli.enqueue import Target, enqueue
from producers.cli.fields import FlatField, flat_fields, nest
from producers.cli.output import Exit, Failure
from producers.errors import InvalidMessage
from producers.messages import Message

STDIN = "-"
MAX_STDIN_BYTES = 1024 * 1024
_MAX_ARGUMENT_LENGTH = 40
_METAVARS = {"string": "TEXT", "integer": "INTEGER", "boolean": None}


def _job_option(metavar: str, text: str) -> Any:
    return typer.Option(metavar=metavar, help=text, rich_help_panel="The job")


@dataclass(frozen=True, slots=True)
class Common:
    """The options that the commands of all job types share."""

    redis_url: options.RedisUrl = None
    queue: options.Queue = options.DEFAULT_QUEUE
    timeout: options.Timeout = options.TIMEOUT_SECONDS
    idempotency_key: Annotated[
        str | None,
        _job_option("KEY", "The same command with the same key is accepted once. Default: a new key."),
    ] = None
    ordering_key: Annotated[
        str | None,
        _job_option("KEY", "Jobs with one key run one at a time, in order. Default: that of the message."),
    ] = None
    defer_by: Annotated[float | None, _job_option("SECONDS", "Delay the job by at least this long.")] = None
    wait: Annotated[float | None, _job_option("SECONDS", "Wait up to this long for the outcome and print it.")] = None


def add_command(app: typer.Typer, message: type[Message[Any]]) -> None:
    """Add the command for a message to the application."""
    app.command(
        message.job.replace("_", "-"),
        help=inspect.getdoc(message),
        epilog=_examples(message),
        # The command refuses extra arguments itself, without quoting them.
        context_settings={"allow_extra_args": True},
    )(_command(message))


def _command(message: type[Message[Any]]) -> Callable[..., None]:
    fields = flat_fields(message)

    def command(context: typer.Context, **given: Any) -> None:
        options.refuse_arguments(context)
        texts = {name: value for name in fields if (value := given.pop(name)) is not None}
        common = Common(**given)
        target = Target(options.redis_url(common.redis_url), common.queue, options.timeout_seconds(common.timeout))
        raise typer.Exit(enqueue(_request(message, _with_stdin(texts), common), target, common.wait))

    # typer reads the signature and the annotations of a command.
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("context", keyword, annotation=typer.Context),
        *(_parameter(field) for field in fields.values()),
        *(parameter.replace(kind=keyword) for parameter in inspect.signature(Common).parameters.values()),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _parameter(field: FlatField) -> inspect.Parameter:
    option = _option(field.name)
    hint: Any = str | None
    if field.kind == "boolean":
        option, hint = f"{option}/--no-{option[2:]}", bool | None
    # Integers are text as well, because typer's errors quote the value.
    info = typer.Option(
        option,
        metavar=_METAVARS[field.kind],
        help=field.description or None,
        show_default=False,
        rich_help_panel="The message",
    )
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if field.required else None,
        annotation=Annotated[hint, info],
    )


def _with_stdin(texts: dict[str, str | bool]) -> dict[str, str | bool]:
    names = [name for name, text in texts.items() if text == STDIN]
    if len(names) > 1:
        raise Failure("only one option can be read from standard input", Exit.USAGE)
    for name in names:
        data = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
        if len(data) > MAX_STDIN_BYTES:
            raise Failure(f"standard input holds more than {MAX_STDIN_BYTES} bytes", Exit.USAGE)
        try:
            # `echo` and editors end the text with a line break.
            texts[name] = data.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise Failure("standard input is not UTF-8", Exit.USAGE) from None
    return texts


def _request(message: type[Message[Any]], texts: dict[str, str | bool], common: Common) -> Request[Any]:
    if common.wait is not None and not (math.isfinite(common.wait) and common.wait >= 0):
        raise Failure("--wait must be 0 seconds or more", Exit.USAGE)
    try:
        return Request(
            build(message, nest(message, texts)),
            idempotency_key=common.idempotency_key,
            ordering_key=common.ordering_key,
            defer_by=common.defer_by,
        )
    except InvalidMessage as error:
        raise Failure("; ".join(_as_option(problem, message) for problem in error.problems), Exit.USAGE) from None
    except ValueError as error:
        raise Failure(str(error), Exit.USAGE) from None


def _as_option(problem: str, message: type[Message[Any]]) -> str:
    """Name the option instead of the field in a problem."""
    path, _, text = problem.partition(": ")
    name = path.rpartition(".")[2]
    fields = flat_fields(message)
    if name in fields:
        return f"{_option(name)}: {text}"
    within = [_option(field.name) for field in fields.values() if field.within == path]
    return f"{text}: {', '.join(within)}" if within else problem


def _examples(message: type[Message[Any]]) -> str:
    """Examples for the help, made from those of the contract."""
    fields = list(flat_fields(message).values())
    shown = [field for field in fields if field.required and field.within is None]
    shown += [field for field in fields if field.within is not None][:1]
    words, source = f"python -m producers {message.job.replace('_', '-')}", ""
    for field in shown:
        value = shlex.quote(field.example)
        if len(value) > _MAX_ARGUMENT_LENGTH:
            # A hash should not be an argument: every user of the machine can list those.
            value, source = STDIN, f" < {field.name}.txt"
        words += f" {_option(field.name)} {value}"
    return (
        f"Examples:\n\n{words}{source}\n\n{words} --wait 5{source}\n\n"
        f"The value {STDIN} is read from standard input, so it does not appear in the list of processes."
    )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
