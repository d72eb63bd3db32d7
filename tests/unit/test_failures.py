"""Does every exception mean for the job what the table says, and is it told without its text?"""

import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from worker.jobs import Rejection
from worker.model.failures import classify, describe
from worker.model.outcome import Rejected, Release, Retry

SECRET = "ada@example.com"


class ServerError(Exception):
    """As asyncpg has them."""

    def __init__(self, sqlstate: object, constraint: str | None = None, table: str | None = None) -> None:
        super().__init__(f"Key (email)=({SECRET}) already exists")
        self.sqlstate = sqlstate
        self.constraint_name = constraint
        self.table_name = table


class DriverError(Exception):
    """As SQLAlchemy's adapter of asyncpg has them."""


def wrapped(error: ServerError, *, lost: bool = False) -> DBAPIError:
    """As a session raises it: SQLAlchemy's error, whose `orig` is the adapter's, whose cause is the server's."""
    orig = DriverError(str(error))
    orig.__cause__ = error
    return DBAPIError("INSERT …", {"email": SECRET}, orig, connection_invalidated=lost)


@pytest.mark.parametrize(
    ("sqlstate", "code"),
    [
        ("23505", "conflict"),
        ("23P01", "conflict"),
        ("23503", "not_found"),
        ("23502", "invalid"),
        ("23514", "invalid"),
        ("22000", "invalid"),
        ("22001", "invalid"),
        ("22003", "invalid"),
        ("22021", "invalid"),
        ("22P02", "invalid"),
    ],
)
def test_what_a_request_cannot_have_is_rejected(sqlstate: str, code: str) -> None:
    for error in (wrapped(ServerError(sqlstate)), ServerError(sqlstate)):
        attempt = classify(error)
        assert isinstance(attempt, Rejected)
        assert attempt.code == code
        assert SECRET not in attempt.detail


@pytest.mark.parametrize(
    "sqlstate",
    [
        "08000", "08001", "08003", "08004", "08006", "08P01",
        "57P01", "57P02", "57P03", "57P05",
        "53100", "53300",
        "58000", "58030", "58P01",
        "25006",
        "28000", "28P01",
        "3D000",
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_server_is_no_try(sqlstate: str) -> None:
    for error in (wrapped(ServerError(sqlstate)), ServerError(sqlstate)):
        attempt = classify(error)
        assert isinstance(attempt, Release)
        assert attempt.detail.endswith(f"(SQLSTATE {sqlstate})")
        assert SECRET not in attempt.detail


@pytest.mark.parametrize(
    "sqlstate",
    [
        "53200", "XX000", "XX001",  # no memory left, a row that cannot be read
        "40001", "40P01",  # serialization failure, deadlock
        "55P03", "57014",  # a lock not had in time, a statement ended for its length
        "25P02", "25P03",  # a failed transaction used on, a transaction left idle
        "42601", "42P01", "42703", "42501",  # wrong statements, missing tables, missing rights
        "0A000", "21000", "23000", "23001", "25001", "2F005", "P0001",
    ],
)  # fmt: skip
def test_all_else_is_a_failure(sqlstate: str) -> None:
    for error in (wrapped(ServerError(sqlstate)), ServerError(sqlstate)):
        attempt = classify(error)
        assert isinstance(attempt, Retry)
        assert attempt.code == "failed"
        assert f"[{sqlstate}]" in attempt.detail
        assert SECRET not in attempt.detail


@pytest.mark.parametrize(
    ("constraint", "table", "detail"),
    [
        ("uq_users_username", "users", "username is already taken"),
        ("ix_users_email", "users", "email is already taken"),
        ("uq_users_hashed_password", "users", "hashed_password is already taken"),
        ("pk_job_ledger", "job_ledger", "a unique value is already taken"),
        ("somebody_elses", "users", "a unique value is already taken"),
        (None, None, "a unique value is already taken"),
    ],
)
def test_a_conflict_names_the_column_and_not_the_value(constraint: str | None, table: str | None, detail: str) -> None:
    assert classify(wrapped(ServerError("23505", constraint, table))) == Rejected("conflict", detail)


def test_other_rejections_name_the_column_too() -> None:
    error = wrapped(ServerError("23503", "fk_posts_author_id", "posts"))
    assert classify(error) == Rejected("not_found", "author_id names nothing that exists")
    error = wrapped(ServerError("23514", "ck_users_age", "users"))
    assert classify(error) == Rejected("invalid", "age is not one that the database takes")


def test_a_connection_that_was_lost_is_no_try_whatever_the_driver_says() -> None:
    assert isinstance(classify(wrapped(ServerError(None), lost=True)), Release)
    assert isinstance(classify(wrapped(ServerError("57014"), lost=True)), Release)


def test_an_error_of_the_driver_on_a_whole_connection_is_a_failure() -> None:
    # As when a statement is given too few arguments: to try it for ever would help nobody.
    assert isinstance(classify(wrapped(ServerError(None))), Retry)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Rejection("not_found", "there is no such user"), Rejected("not_found", "there is no such user")),
        (PoolTimeoutError(SECRET), Release("no connection of the pool became free in time")),
        (TimeoutError(SECRET), Retry("timeout", "TimeoutError")),
        (LookupError(SECRET), Retry("failed", "LookupError")),
        (InvalidRequestError(SECRET), Retry("failed", "InvalidRequestError")),
        (ConnectionRefusedError(SECRET), Retry("failed", "ConnectionRefusedError")),
        (IntegrityError(SECRET, None, DriverError(SECRET)), Retry("failed", "IntegrityError from DriverError")),
    ],
    ids=repr,
)  # fmt: skip
def test_errors_without_a_state_of_the_servers(error: Exception, expected: object) -> None:
    assert classify(error) == expected


def test_a_state_counts_wherever_it_is_in_the_chain() -> None:
    error = LookupError(SECRET)
    error.__cause__ = wrapped(ServerError("23505", "ix_users_email", "users"))
    assert classify(error) == Rejected("conflict", "email is already taken")
    # What was being dealt with when something else went wrong is no cause.
    error = LookupError(SECRET)
    error.__context__ = wrapped(ServerError("23505"))
    assert isinstance(classify(error), Retry)


@pytest.mark.parametrize("hide", ["from", "while handled", "in a group", "in a nested group", "behind a cause"])
def test_an_outage_counts_wherever_it_is_in_the_chain(hide: str) -> None:
    outage = wrapped(ServerError("57P01"))
    error: Exception = LookupError(SECRET)
    match hide:
        case "from":
            error.__cause__ = outage
        case "while handled":
            error.__context__ = outage
        case "in a group":
            error = ExceptionGroup(SECRET, [LookupError(SECRET), outage])
        case "in a nested group":
            error.__context__ = ExceptionGroup(SECRET, [ExceptionGroup(SECRET, [outage])])
        case _:
            error.__cause__ = ValueError(SECRET)
            error.__cause__.__context__ = outage
    assert classify(error) == Release("the database is shutting down (SQLSTATE 57P01)")


def test_errors_with_strange_attributes_are_failures() -> None:
    class Strange(Exception):
        orig = "not an exception"
        sqlstate = 23505

    error = Strange(SECRET)
    assert classify(error) == Retry("failed", "Strange")
    error.__cause__ = error
    assert classify(error) == Retry("failed", "Strange")


# How an exception is told


def test_an_exception_is_told_by_its_types_and_its_place() -> None:
    def look_up() -> None:
        try:
            _ = dict[str, str]()[SECRET]
        except KeyError as error:
            raise LookupError(SECRET) from error

    with pytest.raises(LookupError) as caught:
        look_up()

    line = look_up.__code__.co_firstlineno + 4
    assert describe(caught.value) == f"LookupError from KeyError at test_failures.py:{line} in look_up"


def test_the_place_is_in_our_code_and_not_in_a_librarys() -> None:
    def connect() -> None:
        make_url(SECRET)

    with pytest.raises(ArgumentError) as caught:
        connect()
    assert "site-packages" in str(caught.traceback[-1].path)
    assert describe(caught.value).endswith(" in connect")


def test_no_text_note_or_attribute_is_told() -> None:
    error = wrapped(ServerError("23505"))
    error.add_note(SECRET)
    group = ExceptionGroup(SECRET, [error])
    for told in (
        describe(error),
        describe(group),
        describe(UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET)),
    ):
        assert SECRET not in told
    assert describe(error) == "DBAPIError from DriverError from ServerError[23505]"


def test_a_chain_without_end_is_told_up_to_a_bound() -> None:
    first, second = LookupError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert describe(first) == "LookupError from KeyError"
    error: Exception = LookupError()
    for _ in range(10_000):
        outer = LookupError()
        outer.__cause__ = error
        error = outer
    assert len(describe(error)) < 1000
