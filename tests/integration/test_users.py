"""The functions for users, on the real tables and in the expected number of statements."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import inspect
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker

from producers.messages import CreatePost, CreateUser, UserChanges
from worker.database import posts, users
from worker.database.models import LedgerRow, Post, User
from worker.database.session import session_scope

HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZSBzYWx0IGhlcmU$bm90IGEgcmVhbCBoYXNoLCBvbmx5IGl0cyBmb3Jt"
OTHER_HASH = "$2b$12$" + "a" * 53
Sessions = async_sessionmaker[AsyncSession]


def named(name: str, *, is_active: bool = True) -> CreateUser:
    return CreateUser(email=f"{name}@example.com", username=name, hashed_password=HASH, is_active=is_active)


@pytest.fixture
async def session(sessions: Sessions) -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


async def create(sessions: Sessions, name: str, *, is_active: bool = True) -> int:
    async with session_scope(sessions) as session:
        return (await users.create_user(session, named(name, is_active=is_active))).id


async def stored(sessions: Sessions, user_id: int) -> User:
    async with sessions() as session:
        user = await users.get_user(session, user_id)
    assert user is not None
    return user


# Create


async def test_create_is_one_insert_that_returns_the_defaults(
    session: AsyncSession, statements: list[str], sql: Any
) -> None:
    before = await sql("SELECT now()")

    user = await users.create_user(session, named("ada"))

    # Every field of the reply is loaded: reading one that is not would raise.
    assert (user.id, user.email, user.username, user.is_active) == (1, "ada@example.com", "ada", True)
    assert before <= user.created_at <= await sql("SELECT now()")
    assert user.created_at.tzinfo is not None
    assert user.hashed_password == HASH
    assert user.inactive_since is None
    assert [statement.split()[0] for statement in statements] == ["INSERT"]
    # Flushed, not committed: the caller commits.
    assert await sql("SELECT count(*) FROM users") == 0
    await session.commit()
    assert await sql("SELECT count(*) FROM users") == 1


async def test_create_sets_inactive_since_for_an_inactive_user(session: AsyncSession, statements: list[str]) -> None:
    user = await users.create_user(session, named("ada", is_active=False))

    assert user.is_active is False
    assert user.inactive_since is not None
    assert abs(user.inactive_since - user.created_at) < timedelta(minutes=1)
    assert len(statements) == 1


@pytest.mark.parametrize(
    ("other", "constraint"),
    [
        (CreateUser(email="ada@example.com", username="bob", hashed_password=HASH), "ix_users_email"),
        (CreateUser(email="bob@example.com", username="ada", hashed_password=HASH), "uq_users_username"),
    ],
    ids=["email", "username"],
)
async def test_create_raises_and_leaves_nothing_for_a_duplicate(
    sessions: Sessions, sql: Any, other: CreateUser, constraint: str
) -> None:
    await create(sessions, "ada")

    async def create_another() -> None:
        async with session_scope(sessions) as session:
            await users.create_user(session, named("carl"))
            await users.create_user(session, other)

    with pytest.raises(IntegrityError, match=constraint) as caught:
        await create_another()

    assert "@example.com" not in str(caught.value)
    assert await sql("SELECT string_agg(username, ',') FROM users") == "ada"


# Read


async def test_get_user_returns_the_user_without_posts_or_none(sessions: Sessions, statements: list[str]) -> None:
    user_id = await create(sessions, "ada")
    statements.clear()

    async with sessions() as session:
        user = await users.get_user(session, user_id)
        assert await users.get_user(session, user_id + 1) is None

        assert user is not None
        assert user.username == "ada"
        assert len(statements) == 2
        with pytest.raises(InvalidRequestError, match="raise"):
            _ = user.posts
    assert len(statements) == 2


async def test_get_user_with_posts_is_two_queries(sessions: Sessions, statements: list[str]) -> None:
    user_id = await create(sessions, "ada")
    other_id = await create(sessions, "bob")
    async with session_scope(sessions) as session:
        for author_id, title in [(user_id, "one"), (other_id, "not mine"), (user_id, "two")]:
            await posts.create_post(session, CreatePost(author_id=author_id, title=title, content="…"))
    statements.clear()

    async with sessions() as session:
        user = await users.get_user_with_posts(session, user_id)
        assert user is not None
        assert sorted(post.title for post in user.posts) == ["one", "two"]
        assert len(statements) == 2

        # It is read again even when the session knows the user.
        async with session_scope(sessions) as other:
            await posts.create_post(other, CreatePost(author_id=user_id, title="three", content="…"))
        again = await users.get_user_with_posts(session, user_id)
        assert again is user
        assert sorted(post.title for post in user.posts) == ["one", "three", "two"]

        assert await users.get_user_with_posts(session, other_id + 1) is None


async def test_get_user_with_posts_returns_an_empty_list_when_there_are_none(sessions: Sessions) -> None:
    user_id = await create(sessions, "ada")
    async with sessions() as session:
        user = await users.get_user_with_posts(session, user_id)
        assert user is not None
        assert user.posts == []


async def test_get_users_returns_pages_in_the_order_of_ids(sessions: Sessions, statements: list[str]) -> None:
    async with session_scope(sessions) as session:
        for number in range(105):
            await users.create_user(session, named(f"user{number}"))
        # The update moves the row to the end of the table, where an unordered scan finds it.
        await users.update_user(session, 1, UserChanges(is_active=False))
    statements.clear()

    async with sessions() as session:
        assert [user.id for user in await users.get_users(session)] == list(range(1, 101))
        assert [user.id for user in await users.get_users(session, skip=98, limit=5)] == [99, 100, 101, 102, 103]
        assert [user.id for user in await users.get_users(session, skip=103)] == [104, 105]
        assert list(await users.get_users(session, skip=105)) == []
        assert list(await users.get_users(session, limit=0)) == []
    assert len(statements) == 5


# Update


async def test_update_sets_only_the_given_fields_in_one_statement(sessions: Sessions, statements: list[str]) -> None:
    user_id = await create(sessions, "ada")
    before = await stored(sessions, user_id)
    statements.clear()

    async with session_scope(sessions) as session:
        user = await users.update_user(session, user_id, UserChanges(username="countess", hashed_password=OTHER_HASH))
        assert user is not None
        assert (user.username, user.email, user.is_active) == ("countess", "ada@example.com", True)

    assert len(statements) == 1
    assigned = statements[0].partition(" SET ")[2].partition(" WHERE ")[0]
    assert sorted(part.split("=")[0].strip() for part in assigned.split(",")) == ["hashed_password", "username"]
    after = await stored(sessions, user_id)
    assert (after.username, after.hashed_password) == ("countess", OTHER_HASH)
    assert (after.email, after.is_active, after.created_at) == (before.email, before.is_active, before.created_at)


async def test_update_refreshes_the_object_in_the_session(sessions: Sessions) -> None:
    user_id = await create(sessions, "ada")
    async with session_scope(sessions) as session:
        known = await users.get_user(session, user_id)
        updated = await users.update_user(session, user_id, UserChanges(email="countess@example.com"))
        assert updated is known
        assert known is not None
        assert known.email == "countess@example.com"


async def test_update_returns_none_for_a_missing_user(session: AsyncSession) -> None:
    assert await users.update_user(session, 7, UserChanges(is_active=False)) is None


async def test_update_raises_and_changes_nothing_for_a_taken_name(sessions: Sessions) -> None:
    await create(sessions, "ada")
    user_id = await create(sessions, "bob")

    with pytest.raises(IntegrityError, match="uq_users_username"):
        async with session_scope(sessions) as session:
            await users.update_user(session, user_id, UserChanges(username="ada", is_active=False))

    assert (await stored(sessions, user_id)).username == "bob"
    assert (await stored(sessions, user_id)).is_active is True


async def test_inactive_since_follows_is_active(sessions: Sessions) -> None:
    user_id = await create(sessions, "ada")

    async def change(changes: UserChanges) -> datetime | None:
        async with session_scope(sessions) as session:
            user = await users.update_user(session, user_id, changes)
        assert user is not None
        assert user.inactive_since == (await stored(sessions, user_id)).inactive_since
        return user.inactive_since

    # Other fields do not change it.
    assert await change(UserChanges(username="countess")) is None
    # A deactivation sets it to now.
    first = await change(UserChanges(is_active=False))
    assert first is not None
    assert timedelta(0) <= datetime.now(UTC) - first < timedelta(minutes=1)
    # It keeps its value while the user is inactive.
    assert await change(UserChanges(is_active=False)) == first
    assert await change(UserChanges(username="ada")) == first
    # An activation clears it, and the next deactivation sets a later time.
    assert await change(UserChanges(is_active=True)) is None
    second = await change(UserChanges(is_active=False))
    assert second is not None
    assert second > first


# Delete


async def test_delete_removes_the_posts_without_loading_them(
    sessions: Sessions, statements: list[str], sql: Any
) -> None:
    user_id = await create(sessions, "ada")
    other_id = await create(sessions, "bob")
    async with session_scope(sessions) as session:
        for author_id in (user_id, user_id, other_id):
            await posts.create_post(session, CreatePost(author_id=author_id, title="On engines", content="…"))
    statements.clear()

    async with session_scope(sessions) as session:
        assert await users.delete_user(session, user_id) is True
    assert len(statements) == 1
    assert statements[0].startswith("DELETE FROM users")
    assert await sql("SELECT array_agg(author_id) FROM posts") == [other_id]

    async with session_scope(sessions) as session:
        assert await users.delete_user(session, user_id) is False
    assert await sql("SELECT count(*) FROM users") == 1


async def test_the_unit_of_work_leaves_the_posts_to_the_foreign_key(
    sessions: Sessions, statements: list[str], sql: Any
) -> None:
    user_id = await create(sessions, "ada")
    async with session_scope(sessions) as session:
        await posts.create_post(session, CreatePost(author_id=user_id, title="On engines", content="…"))
    statements.clear()

    async with session_scope(sessions) as session:
        await session.delete(await session.get_one(User, user_id))

    assert [statement.split()[0] for statement in statements] == ["SELECT", "DELETE"]
    assert await sql("SELECT count(*) FROM posts") == 0


# Representations


def test_repr_contains_no_value() -> None:
    user = User(id=7, email="ada@example.com", username="ada", hashed_password=HASH)
    post = Post(id=8, title="On engines", content="They weave", author_id=7)
    row = LedgerRow(job_id="a", job="create_user", outcome="done", reply='{"email":"ada@example.com"}')

    assert (repr(user), repr(post)) == ("<User 7>", "<Post 8>")
    assert repr(User(email="ada@example.com")) == "<User None>"
    for shown in (repr(user), str(user), repr(post), str(post), repr(row), str(row)):
        for secret in ("ada", HASH, "engines", "weave"):
            assert secret not in shown


# The tables


async def columns(engine: AsyncEngine, table: str) -> dict[str, tuple[str, bool]]:
    """The type and the nullability of each column, from the catalog."""
    async with engine.connect() as connection:
        found = await connection.run_sync(lambda sync: inspect(sync).get_columns(table))
    return {column["name"]: (str(column["type"]), column["nullable"]) for column in found}


async def test_tables_have_the_columns_of_the_contract(engine: AsyncEngine) -> None:
    assert await columns(engine, "users") == {
        "id": ("BIGINT", False),
        "email": ("VARCHAR(254)", False),
        "username": ("VARCHAR(64)", False),
        "hashed_password": ("VARCHAR(255)", False),
        "is_active": ("BOOLEAN", False),
        "created_at": ("TIMESTAMP", False),
        "inactive_since": ("TIMESTAMP", True),
    }
    assert await columns(engine, "posts") == {
        "id": ("BIGINT", False),
        "title": ("VARCHAR(200)", False),
        "content": ("VARCHAR(65536)", False),
        "author_id": ("BIGINT", False),
    }
    assert await columns(engine, "job_ledger") == {
        "job_id": ("VARCHAR(257)", False),
        "job": ("VARCHAR(128)", False),
        "outcome": ("VARCHAR(16)", False),
        "code": ("VARCHAR(32)", True),
        "detail": ("VARCHAR", True),
        "reply": ("JSON", True),
        "digest": ("BYTEA", True),
        "recorded_at": ("TIMESTAMP", False),
    }


async def test_times_have_a_time_zone_and_a_server_default(sql: Any) -> None:
    zoned = "SELECT count(*) FROM information_schema.columns WHERE data_type = 'timestamp with time zone'"
    assert await sql(f"{zoned} AND table_name IN ('users', 'job_ledger')") == 3
    default = "SELECT column_default FROM information_schema.columns WHERE table_name = $1 AND column_name = $2"
    assert await sql(default, "users", "created_at") == "now()"
    assert await sql(default, "job_ledger", "recorded_at") == "now()"
    assert await sql(default, "users", "is_active") == "true"


async def test_tables_have_the_constraints_and_indexes_of_the_models(engine: AsyncEngine, sql: Any) -> None:
    def indexes(connection: Any) -> dict[str, tuple[list[str | None], bool]]:
        found = [
            index for table in ("users", "posts", "job_ledger") for index in inspect(connection).get_indexes(table)
        ]
        return {str(index["name"]): (index["column_names"], index["unique"]) for index in found}

    async with engine.connect() as connection:
        assert await connection.run_sync(indexes) == {
            "ix_users_email": (["email"], True),
            "uq_users_username": (["username"], True),
            "ix_users_inactive_since": (["inactive_since"], False),
            "ix_posts_author_id": (["author_id"], False),
            "ix_job_ledger_recorded_at": (["recorded_at"], False),
        }
        (foreign_key,) = await connection.run_sync(lambda sync: inspect(sync).get_foreign_keys("posts"))
    assert foreign_key["name"] == "fk_posts_author_id"
    assert foreign_key["constrained_columns"] == ["author_id"]
    assert (foreign_key["referred_table"], foreign_key["referred_columns"]) == ("users", ["id"])
    assert foreign_key["options"] == {"ondelete": "CASCADE"}
    primary = "SELECT array_agg(conname::text ORDER BY conname) FROM pg_constraint WHERE contype = 'p'"
    assert await sql(f"{primary} AND connamespace = 'public'::regnamespace") == [
        "pk_job_ledger", "pk_posts", "pk_users", "worker_alembic_version_pkc",
    ]  # fmt: skip


@pytest.mark.parametrize("column", ["email", "username", "hashed_password", "is_active"])
async def test_the_database_refuses_null(session: AsyncSession, column: str) -> None:
    connection: AsyncConnection = await session.connection()
    fields = {"email": "'e'", "username": "'u'", "hashed_password": "'h'", "is_active": "true"} | {column: "NULL"}
    with pytest.raises(DBAPIError, match="null value in column"):
        await connection.exec_driver_sql(
            f"INSERT INTO users ({', '.join(fields)}) VALUES ({', '.join(fields.values())})"  # noqa: S608  # from here
        )
