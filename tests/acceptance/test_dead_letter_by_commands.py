"""A dead letter is found, understood, replayed and done, by the command line alone."""

import json
from typing import Any

from tests.acceptance.commands import HASH, PRODUCERS, WORKER, Running, eventually, run
from tests.acceptance.conftest import Place

EMAIL = "late@example.com"
BREAK = (
    "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken'; END $$",
    "CREATE TRIGGER fail BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION fail()",
)


def test_a_dead_letter_is_found_understood_replayed_and_done(place: Place) -> None:
    def lines(*words: str) -> list[Any]:
        done = run(*WORKER, *words, variables=place.variables)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def ask(*words: str) -> Any:
        (answer,) = lines(*words)
        return answer

    variables = {**place.variables, "WORKER_MAX_TRIES": "2"}
    with Running((*WORKER, "run"), variables) as worker:
        worker.wait_for("worker_started")

        # Given a job that fails in each attempt
        for statement in BREAK:
            place.sql(statement)
        fields = ("--email", EMAIL, "--username", "late", "--hashed-password", HASH)
        enqueued = run(*PRODUCERS, "create-user", *fields, variables=place.variables)
        assert enqueued.returncode == 0, enqueued.stderr

        # Then it is found
        eventually(lambda: ask("status")["jobs"]["dead"] == 1)
        letter = ask("dead", "list")
        assert (letter["job"], letter["code"], letter["attempts"]) == ("create_user", "failed", 2)
        job_id = letter["id"]
        assert job_id == json.loads(enqueued.stdout)["job_id"]

        # And understood, without showing any of its values
        shown = run(*WORKER, "dead", "show", job_id, variables=place.variables)
        assert "RaiseError" in shown.stdout
        assert "email" in shown.stdout
        assert EMAIL not in shown.stdout
        report = ask("job", job_id)
        assert (report["status"], report["job"], report["attempts"]) == ("dead", "create_user", 2)
        assert "Kept as a dead letter." in report["headline"]

        # When the cause is mended and the letter is replayed
        place.sql("DROP FUNCTION fail CASCADE")
        assert ask("dead", "replay", job_id)["replayed"] == 1

        # Then it is done under the same id, and its effect is there once
        eventually(lambda: ask("job", job_id)["status"] == "done")
        report = ask("job", job_id)
        assert report["headline"] == "Its effect is committed."
        assert report["reply"]["email"] == f"text, {len(EMAIL)} characters"
        assert ask("status")["jobs"]["dead"] == 0
        assert lines("dead", "list") == []
        assert place.sql("SELECT email FROM users") == [(EMAIL,)]


def test_job_reports_an_unknown_id(place: Place) -> None:
    with Running((*WORKER, "run"), place.variables) as worker:
        worker.wait_for("worker_started")
        done = run(*WORKER, "job", "unknown", variables=place.variables)

    assert done.returncode == 1
    assert json.loads(done.stdout)["status"] == "unknown"
