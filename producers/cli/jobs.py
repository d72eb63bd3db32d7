"""One command a job, generated from its message."""

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
LARGEST_STDIN_BYTES = 1024 * 1024
_LONGEST_ARGUMENT = 40
_METAVARS = {"string": "TEXT", "integer": "INTEGER", "boolean": None}


@dataclass(frozen=True, slots=True)
class Common:
    """The options of every job's command."""

    redis_url: options.RedisUrl = None
    queue: options.Queue = options.DEFAULT_QUEUE
    timeout: options.Timeout = options.TIMEOUT_SECONDS
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Makes the job's id: the same command with the same key is accepted once. Default: a fresh one.",
            rich_help_panel="The job",
        ),
    ] = None
    ordering_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Jobs with one key run one at a time, in order. Default: the message's own.",
            rich_help_panel="The job",
        ),
    ] = None
    defer_by: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Run it no sooner than this long from now.", rich_help_panel="The job"),
    ] = None
    wait: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Wait this long for the outcome, and print it.", rich_help_panel="The job"
        ),
    ] = None


def add_command(app: typer.Typer, message: type[Message[Any]]) -> None:
    """Add the command of a message to the application."""
    app.command(
        message.job.replace("_", "-"),
        help=inspect.getdoc(message),
        epilog=_examples(message),
        # Refused by the command itself, which does not quote them.
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

    # typer reads the signature and the hints: they are what a hand-written command would have.
    parameters = [
        inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *(_parameter(field) for field in fields.values()),
        *(
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(Common).parameters.values()
        ),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _parameter(field: FlatField) -> inspect.Parameter:
    option = _option(field.name)
    hint: Any = str | None
    if field.kind == "boolean":
        option, hint = f"{option}/--no-{option[2:]}", bool | None
    # Integers, too, are taken as text: typer's errors quote what was given.
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
        data = sys.stdin.buffer.read(LARGEST_STDIN_BYTES + 1)
        if len(data) > LARGEST_STDIN_BYTES:
            raise Failure(f"standard input holds more than {LARGEST_STDIN_BYTES} bytes", Exit.USAGE)
        try:
            # The line break that `echo` and editors put at the end is not meant.
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
    """Say of an option what a problem says of a field."""
    path, _, text = problem.partition(": ")
    name = path.rpartition(".")[2]
    fields = flat_fields(message)
    if name in fields:
        return f"{_option(name)}: {text}"
    within = [_option(field.name) for field in fields.values() if field.within == path]
    return f"{text}: {', '.join(within)}" if within else problem


def _examples(message: type[Message[Any]]) -> str:
    """Examples for the help, from those of the contract."""
    fields = list(flat_fields(message).values())
    shown = [field for field in fields if field.required and field.within is None]
    shown += [field for field in fields if field.within is not None][:1]
    words, source = f"python -m producers {message.job.replace('_', '-')}", ""
    for field in shown:
        value = shlex.quote(field.example)
        if len(value) > _LONGEST_ARGUMENT:
            # A hash is better not an argument: any user of the machine can list those.
            value, source = STDIN, f" < {field.name}.txt"
        words += f" {_option(field.name)} {value}"
    return (
        f"Examples:\n\n{words}{source}\n\n{words} --wait 5{source}\n\n"
        f"The value {STDIN} is read from standard input, and appears in no list of processes."
    )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
