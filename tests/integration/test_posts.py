"""The functions for posts, on the real tables and in the expected number of statements."""

from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from producers.messages import CreatePost, CreateUser, PostChanges
from worker.database import posts, users
from worker.database.session import session_scope

HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZSBzYWx0IGhlcmU$bm90IGEgcmVhbCBoYXNoLCBvbmx5IGl0cyBmb3Jt"
Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
async def author_id(sessions: Sessions) -> int:
    async with session_scope(sessions) as session:
        user = CreateUser(email="ada@example.com", username="ada", hashed_password=HASH)
        return (await users.create_user(session, user)).id


async def create(sessions: Sessions, author_id: int, title: str = "On engines") -> int:
    async with session_scope(sessions) as session:
        post = CreatePost(author_id=author_id, title=title, content="They weave.")
        return (await posts.create_post(session, post)).id


async def test_create_is_one_insert(sessions: Sessions, author_id: int, statements: list[str], sql: Any) -> None:
    statements.clear()
    async with session_scope(sessions) as session:
        post = await posts.create_post(
            session, CreatePost(author_id=author_id, title="On engines", content="They weave.")
        )
        assert (post.id, post.title, post.content, post.author_id) == (1, "On engines", "They weave.", author_id)
        assert [statement.split()[0] for statement in statements] == ["INSERT"]
        # Flushed, not committed: the caller commits.
        assert await sql("SELECT count(*) FROM posts") == 0
    assert await sql("SELECT count(*) FROM posts") == 1


async def test_create_raises_for_a_missing_author(sessions: Sessions, author_id: int, sql: Any) -> None:
    with pytest.raises(IntegrityError, match="fk_posts_author_id"):
        async with session_scope(sessions) as session:
            await posts.create_post(session, CreatePost(author_id=author_id + 1, title="On engines", content="…"))
    assert await sql("SELECT count(*) FROM posts") == 0


async def test_the_longest_title_and_content_fit(sessions: Sessions, author_id: int, sql: Any) -> None:
    async with session_scope(sessions) as session:
        widest = "\N{GRINNING FACE}"
        post = CreatePost(author_id=author_id, title=widest * 200, content=widest * 65_536)
        await posts.create_post(session, post)
    assert await sql("SELECT octet_length(content) FROM posts") == 4 * 65_536


async def test_get_post_returns_the_post_without_the_author_or_none(
    sessions: Sessions, author_id: int, statements: list[str]
) -> None:
    post_id = await create(sessions, author_id)
    statements.clear()

    async with sessions() as session:
        post = await posts.get_post(session, post_id)
        assert await posts.get_post(session, post_id + 1) is None
        assert post is not None
        assert post.title == "On engines"
        with pytest.raises(InvalidRequestError, match="raise"):
            _ = post.author
    assert len(statements) == 2


async def test_get_post_with_author_is_two_queries(sessions: Sessions, author_id: int, statements: list[str]) -> None:
    post_id = await create(sessions, author_id)
    statements.clear()

    async with sessions() as session:
        post = await posts.get_post_with_author(session, post_id)
        assert post is not None
        assert post.author.username == "ada"
        assert len(statements) == 2
        assert await posts.get_post_with_author(session, post_id + 1) is None


async def test_get_posts_returns_pages_in_the_order_of_ids(sessions: Sessions, author_id: int) -> None:
    for number in range(5):
        await create(sessions, author_id, title=f"post {number}")
    async with session_scope(sessions) as session:
        # The update moves the row to the end of the table, where an unordered scan finds it.
        await posts.update_post(session, 1, PostChanges(title="changed"))

    async with sessions() as session:
        assert [post.id for post in await posts.get_posts(session)] == [1, 2, 3, 4, 5]
        assert [post.id for post in await posts.get_posts(session, skip=1, limit=2)] == [2, 3]
        assert list(await posts.get_posts(session, skip=5)) == []


async def test_update_sets_only_the_given_fields_in_one_statement(
    sessions: Sessions, author_id: int, statements: list[str], sql: Any
) -> None:
    post_id = await create(sessions, author_id)
    statements.clear()

    async with session_scope(sessions) as session:
        post = await posts.update_post(session, post_id, PostChanges(title="On looms"))
        assert post is not None
        assert (post.title, post.content, post.author_id) == ("On looms", "They weave.", author_id)

    assert len(statements) == 1
    assigned = statements[0].partition(" SET ")[2].partition(" WHERE ")[0]
    assert [part.split("=")[0].strip() for part in assigned.split(",")] == ["title"]
    assert await sql("SELECT title || content FROM posts") == "On loomsThey weave."


async def test_update_returns_none_for_a_missing_post(sessions: Sessions) -> None:
    async with sessions() as session:
        assert await posts.update_post(session, 7, PostChanges(title="On looms")) is None


async def test_update_can_set_an_empty_content(sessions: Sessions, author_id: int, sql: Any) -> None:
    post_id = await create(sessions, author_id)
    async with session_scope(sessions) as session:
        await posts.update_post(session, post_id, PostChanges(content=""))
    assert await sql("SELECT content FROM posts") == ""


async def test_delete_returns_whether_the_post_existed(
    sessions: Sessions, author_id: int, statements: list[str], sql: Any
) -> None:
    post_id = await create(sessions, author_id)
    other_id = await create(sessions, author_id)
    statements.clear()

    async with session_scope(sessions) as session:
        assert await posts.delete_post(session, post_id) is True
        assert await posts.delete_post(session, post_id) is False

    assert len(statements) == 2
    assert await sql("SELECT array_agg(id) FROM posts") == [other_id]
    assert await sql("SELECT count(*) FROM users") == 1
