"""pgbench: PostgreSQL's own load generator, with the statements of create_user. It shows the limit of the server."""

import re
import subprocess

from benchmarks.adapters.workload import PASSWORD_HASH
from benchmarks.results import NotMeasured
from worker.embedded.programs import postgres_programs

# The ledger row and the reply of a job are included. The hash and the reply are variables, since pgbench replaces every
# colon that precedes a name.
_SCRIPT = r"""
\set n random(1, 1000000000000000)
BEGIN;
INSERT INTO job_ledger (job_id, job, outcome, code, detail, reply, digest)
VALUES (CAST(:n AS text), 'create_user', 'done', NULL, NULL, NULL, '\x00112233445566778899aabbccddeeff')
ON CONFLICT (job_id) DO NOTHING;
INSERT INTO users (email, username, hashed_password, is_active, inactive_since)
VALUES ('job' || CAST(:n AS text) || '@example.com', 'job' || CAST(:n AS text), :hash, true, NULL)
RETURNING id, created_at;
UPDATE job_ledger SET reply = CAST(:reply AS json) WHERE job_id = CAST(:n AS text);
COMMIT;
"""
_REPLY = '{"id":1,"email":"job1@example.com","username":"job1","is_active":true,"created_at":"2026-01-01T00:00:00Z"}'


def transaction_rate(database_url: str, seconds: float) -> float:
    """Transactions per second, by 32 clients on 2 threads.

    Raises:
        NotMeasured: when pgbench is missing or fails.
    """
    program = postgres_programs(None) / "pgbench"
    if not program.exists():
        raise NotMeasured("not available: this PostgreSQL has no pgbench")
    load = ["-n", "-M", "prepared", "-c", "32", "-j", "2", "-T", str(max(1, round(seconds)))]
    variables = ["-D", f"reply={_REPLY}", "-D", f"hash={PASSWORD_HASH}"]
    done = subprocess.run(  # noqa: S603  # no shell
        [str(program), *load, *variables, "-f", "-", database_url],
        input=_SCRIPT,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    if (found := re.search(r"tps = ([\d.]+)", done.stdout)) is None:
        raise NotMeasured(f"pgbench gave no rate: {(done.stderr or done.stdout).strip()[-200:]}")
    return float(found[1])
