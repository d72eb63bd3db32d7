"""The `worker` command."""

import asyncio
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from redis.exceptions import RedisError

from producers.contract import asyncapi_json
from worker import app as worker_app
from worker import demo as worker_demo
from worker.commands import dead, job, migrate, status, top
from worker.commands.common import errors, settings_from, stop
from worker.observability import health, logs
from worker.settings import Settings
from worker.supervisor import MARGIN_SECONDS, Supervisor

app = typer.Typer(
    name="worker",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Run the user and post jobs of a Redis queue on PostgreSQL, each exactly once.

`worker demo` shows everything in one run. `worker dev` starts its own PostgreSQL and Valkey.
`worker run` is for production and reads `DATABASE_URL`, `REDIS_URL` and `WORKER_…` from the environment.""",
)

Concurrency = Annotated[int | None, typer.Option(help="Concurrent sessions; default: `WORKER_CONCURRENCY`, or 16.")]
BatchSize = Annotated[
    int | None, typer.Option(help="Jobs of one type that may share a session; default: `WORKER_BATCH_SIZE`, or 1.")
]
Burst = Annotated[bool, typer.Option("--burst", help="Stop when the queue is empty.")]
Ephemeral = Annotated[bool, typer.Option("--ephemeral", help="Use new servers and delete their data at the end.")]
Folder = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="The servers' data; default: a folder in your home.", show_default=False),
]


@app.command()
def run(
    concurrency: Concurrency = None,
    batch_size: BatchSize = None,
    burst: Burst = False,
    processes: Annotated[int, typer.Option(min=1, max=256, help="Processes, each with its own sessions.")] = 1,
) -> None:
    """Run jobs until SIGTERM. Requires `DATABASE_URL` and `REDIS_URL`.

    With `--processes`, a process that dies is replaced, and SIGTERM stops all of them.
    """
    settings = settings_from(concurrency=concurrency, batch_size=batch_size)
    if processes == 1:
        _run(settings, burst=burst)
    else:
        options = ["--burst"] * burst
        for name, value in (("--concurrency", concurrency), ("--batch-size", batch_size)):
            options += [] if value is None else [name, str(value)]
        raise typer.Exit(_supervise(settings, processes, options, once=burst))


@app.command()
def dev(
    concurrency: Concurrency = None,
    ephemeral: Ephemeral = False,
    folder: Folder = None,
) -> None:
    """Start a PostgreSQL and a Valkey, print their URLs for other terminals, and run jobs.

    The data is kept between runs, except with `--ephemeral`.
    """
    with ExitStack() as stack:
        urls = _embedded(stack, folder, ephemeral=ephemeral)
        settings = settings_from(
            concurrency=concurrency,
            DATABASE_URL=urls["DATABASE_URL"],
            REDIS_URL=urls["REDIS_URL"],
            log_format=None if "WORKER_LOG_FORMAT" in os.environ else _terminal_log_format(),
        )
        for name, url in urls.items():
            typer.echo(f"export {name}={url}")
        if sys.stdout.isatty():
            typer.echo("Paste these two lines into another terminal, then: python -m producers --help")
        sys.stdout.flush()
        _run(settings)


@app.command()
def demo(
    jobs: Annotated[int, typer.Option(min=20, max=1_000_000, help="Number of jobs, of all six types.")] = 2000,
    concurrency: Concurrency = None,
    ephemeral: Ephemeral = False,
    folder: Folder = None,
) -> None:
    """Run a mixed load of all six job types end to end on real servers, and check it against the database.

    Exits with 0 only if every job is accounted for.
    """
    with ExitStack() as stack:
        urls = _embedded(stack, folder, ephemeral=ephemeral)
        settings = settings_from(
            concurrency=concurrency, DATABASE_URL=urls["DATABASE_URL"], REDIS_URL=urls["REDIS_URL"]
        )
        accounted = worker_demo.run(settings, jobs, urls)
    raise typer.Exit(0 if accounted else 1)


@app.command()
def check() -> None:
    """Check that PostgreSQL, Redis and a worker of the queue answer. Exits with 0 when all do."""
    problems = asyncio.run(health.find_problems(settings_from()))
    for problem in problems:
        errors.print(problem, soft_wrap=True)
    if not problems:
        typer.echo("healthy")
    raise typer.Exit(1 if problems else 0)


@app.command()
def contract() -> None:
    """Print the contract as an AsyncAPI 3 document: every message, reply, key and code."""
    typer.echo(asyncapi_json(), nl=False)


@app.command()
def dashboard(
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but loopback requires `WORKER_DASHBOARD_TOKEN`.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8090,
    allow_actions: Annotated[
        bool, typer.Option("--allow-actions", help="Allow replaying and purging dead letters.")
    ] = False,
) -> None:
    """Serve a web page with the state of the queue: live figures, jobs, dead letters and the schedule.

    Anyone on this machine can open it, unless `WORKER_DASHBOARD_TOKEN` is set.
    """
    try:
        from worker.commands import dashboard as page  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as error:
        stop(f"the dashboard needs {error.name}, which is not installed: pip install 'userpost-worker[dashboard]'")
    page.serve(settings_from(), host, port, allow_actions=allow_actions)


app.command(name="status")(status.status)
app.command(name="top")(top.top)
app.command(name="job")(job.job)
app.command(name="migrate")(migrate.migrate)
app.add_typer(dead.app, name="dead")


def _run(settings: Settings, *, burst: bool = False) -> None:
    try:
        worker_app.run(settings, burst=burst)
    except RedisError as error:
        stop(f"Redis does not answer: {error}; no job is lost: start the worker again when Redis is back", code=1)


def _supervise(settings: Settings, processes: int, options: list[str], *, once: bool) -> int:
    logs.configure(settings.log_format, settings.log_level)
    command = [sys.executable, "-m", "worker", "run", *options]
    stop_seconds = settings.shutdown_grace_seconds + MARGIN_SECONDS
    return Supervisor(command, processes=processes, stop_seconds=stop_seconds, once=once).run()


def _embedded(stack: ExitStack, folder: Path | None, *, ephemeral: bool) -> dict[str, str]:
    from worker.embedded import EmbeddedError, EmbeddedServers  # noqa: PLC0415  # an extra, for development only

    if folder is not None and ephemeral:
        stop("give either --folder or --ephemeral: data is kept or deleted")
    # Until a worker handles the signal itself, exit by an exception, so that the servers are stopped and cleaned up.
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGHUP, _terminated)  # the terminal was closed
    try:
        urls = stack.enter_context(EmbeddedServers(folder, ephemeral=ephemeral)).urls
    except EmbeddedError as error:
        stop(str(error))
    return {"DATABASE_URL": urls.database, "REDIS_URL": urls.redis}


def _terminated(signum: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + signum)


def _terminal_log_format() -> str:
    return "console" if sys.stdout.isatty() else "json"
