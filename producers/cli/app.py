"""The application: all commands, and errors as one line and an exit code."""

from collections.abc import Sequence
from typing import cast

import typer

from producers.cli.jobs import add_command
from producers.cli.load_command import EXAMPLES, HELP, load
from producers.cli.output import Exit, Failure, print_error, print_line
from producers.contract import asyncapi_json
from producers.messages import MESSAGES

PROGRAM = "python -m producers"

_HELP = """\
Enqueue jobs that create, update and delete users and posts.

The result is formatted on a terminal, and one JSON object per line in a pipe. Exit codes: 0 accepted (with --wait: \
done); 1 rejected, dead, cancelled or not accepted; 2 the command or the message is wrong, nothing was sent; 3 Redis \
does not answer, or the outcome is unknown."""

_EXAMPLES = """\
Examples:

export REDIS_URL=redis://localhost:6379/0

python -m producers create-user --email ada@example.com --username ada --hashed-password - --wait 5 < hash.txt

python -m producers update-user --user-id 42 --no-is-active

python -m producers load users.csv --idempotency-prefix import-7

python -m producers contract > asyncapi.json"""

app = typer.Typer(
    help=_HELP,
    epilog=_EXAMPLES,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for message in MESSAGES.values():
    add_command(app, message)
app.command("load", help=HELP, epilog=EXAMPLES)(load)


@app.command()
def contract() -> None:
    """Print the contract as an AsyncAPI 3 document: every message, reply, key and code."""
    print_line(asyncapi_json().removesuffix("\n"))


# typer does not export the base class of its usage errors, of which BadParameter is one.
_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.mro()[1])


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    try:
        return int(app(args=list(arguments) or ["--help"], prog_name=PROGRAM, standalone_mode=False) or Exit.OK)
    except _UsageError as error:
        print_error(f"{error.format_message()} (see {PROGRAM} --help)")
        return Exit.USAGE
    except Failure as failure:
        print_error(str(failure))
        return failure.code
    except (KeyboardInterrupt, typer.Abort):
        print_error("interrupted")
        return Exit.INTERRUPTED
