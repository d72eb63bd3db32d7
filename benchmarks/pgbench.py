"""What PostgreSQL itself can do: the statements of one create_user, sent by its own load generator, which is in C."""

import re
import subprocess
from pathlib import Path

from benchmarks.systems import NotMeasured
from worker.embedded.programs import postgres_programs

_SCRIPT = Path(__file__).parent / "create_user.sql"
# A variable, since pgbench would take every colon in the script for one.
_REPLY = '{"id":1,"email":"job1@example.com","username":"job1","is_active":true,"created_at":"2026-01-01T00:00:00Z"}'


def rate(database_url: str, seconds: float) -> float:
    """Transactions a second, by 32 clients on 2 threads.

    Raises:
        NotMeasured: when there is no pgbench, or it failed.
    """
    program = postgres_programs(None) / "pgbench"
    if not program.exists():
        raise NotMeasured("not available: this PostgreSQL comes without pgbench")
    load = ["-n", "-M", "prepared", "-c", "32", "-j", "2", "-T", str(max(1, round(seconds)))]
    done = subprocess.run(  # noqa: S603  # no shell, and the command is ours
        [str(program), *load, "-D", f"reply={_REPLY}", "-f", str(_SCRIPT), database_url],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    if (found := re.search(r"tps = ([\d.]+)", done.stdout)) is None:
        raise NotMeasured(f"pgbench failed: {done.stderr.strip()[-200:]}")
    return float(found[1])
