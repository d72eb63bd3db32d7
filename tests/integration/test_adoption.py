"""Are tables that workers created taken over by `worker migrate`, and such as are somebody else's refused?"""

from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.schemas import SECOND, ask, dumped, release, run, tables_of
from worker.database.migrate import Foreign, migrate
from worker.database.version import HEAD, version_of


async def test_created_tables_are_adopted_with_all_that_they_hold(engine: AsyncEngine) -> None:
    before = tables_of(engine)
    await run(engine, "INSERT INTO users (email, username, hashed_password) VALUES ('e', 'u', 'h')")

    done = await migrate(engine)

    assert [(step.version, step.how) for step in done.steps] == [(HEAD, "adopted")]
    assert await ask(engine, "SELECT count(*) FROM users") == 1
    assert tables_of(engine) == before
    assert await version_of(engine) == HEAD
    assert (await migrate(engine)).steps == []


async def test_tables_that_an_earlier_release_created_are_adopted_and_brought_up(
    engine: AsyncEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(tmp_path / "later", monkeypatch, SECOND)

    done = await migrate(engine)

    assert [(step.version, step.how) for step in done.steps] == [
        ("0001_needs_0001", "adopted"),
        ("0002_needs_0001", "applied"),
    ]


async def test_what_somebody_tuned_is_adopted_and_kept(engine: AsyncEngine) -> None:
    await run(
        engine,
        "ALTER TABLE job_ledger SET (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.01)",
        "CREATE INDEX by_title ON posts (title)",
        "CREATE TABLE others (id bigint)",
    )
    before = tables_of(engine)

    await migrate(engine)

    assert tables_of(engine) == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("DROP TABLE posts", "missing: table posts"),
        ("ALTER TABLE users ALTER id TYPE integer", "not expected: column users.id integer NOT NULL BY DEFAULT"),
        ("ALTER TABLE users DROP inactive_since", "missing: column users.inactive_since timestamp with time zone"),
        ("ALTER TABLE users ADD phone text NOT NULL", "not expected: column users.phone text NOT NULL"),
        (
            "ALTER TABLE users ALTER is_active DROP DEFAULT",
            "missing: column users.is_active boolean NOT NULL DEFAULT true",
        ),
        ("ALTER TABLE users ALTER username DROP NOT NULL", "not expected: column users.username character varying(64)"),
        (
            'ALTER TABLE users ALTER username TYPE varchar(64) COLLATE "C"',
            "not expected: column users.username character",
        ),
        ("ALTER TABLE users ALTER id SET GENERATED ALWAYS", "not expected: column users.id bigint NOT NULL ALWAYS AS"),
        ("ALTER TABLE posts ALTER id SET INCREMENT 2", "not expected: sequence posts.id bigint START 1 INCREMENT 2"),
        ("ALTER TABLE job_ledger ALTER reply TYPE jsonb", "not expected: column job_ledger.reply jsonb"),
        ("ALTER TABLE users DROP CONSTRAINT uq_users_username", "missing: constraint users: uq_users_username UNIQUE"),
        ("ALTER TABLE users RENAME CONSTRAINT uq_users_username TO u", "not expected: constraint users: u UNIQUE"),
        ("ALTER TABLE posts ADD CHECK (title <> '')", "not expected: constraint posts: posts_title_check CHECK"),
        (
            "ALTER TABLE posts DROP CONSTRAINT fk_posts_author_id,"
            " ADD CONSTRAINT fk_posts_author_id FOREIGN KEY (author_id) REFERENCES users (id)",
            "missing: constraint posts: fk_posts_author_id FOREIGN KEY (author_id) REFERENCES users(id) ON DELETE",
        ),
        ("DROP INDEX ix_users_inactive_since", "missing: index CREATE INDEX ix_users_inactive_since ON users"),
        (
            "DROP INDEX ix_users_inactive_since; CREATE INDEX ix_users_inactive_since ON users (inactive_since)",
            "missing: index CREATE INDEX ix_users_inactive_since ON users USING btree (inactive_since) WHERE",
        ),
        ("CREATE UNIQUE INDEX one_title ON posts (title)", "not expected: unique index CREATE UNIQUE INDEX one_title"),
    ],
)
async def test_tables_that_are_not_ours_are_refused_and_left_as_they_are(
    engine: AsyncEngine, change: str, told: str
) -> None:
    await run(engine, *change.split("; "))
    before = dumped(engine)

    with pytest.raises(Foreign) as caught:
        await migrate(engine)

    assert [line for line in caught.value.differences if line.startswith(told)], caught.value.differences
    assert dumped(engine) == before


async def test_a_table_of_ours_that_was_partitioned_is_refused(engine: AsyncEngine) -> None:
    await run(engine, "DROP TABLE posts", "CREATE TABLE posts (id bigint) PARTITION BY HASH (id)")

    with pytest.raises(Foreign) as caught:
        await migrate(engine)

    assert "not expected: table posts, of the kind p" in caught.value.differences
