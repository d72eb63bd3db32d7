"""Every exception means for its job what the table of failures has for it."""

from collections.abc import Callable

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from worker.jobs import Rejection
from worker.model.failures import classify
from worker.model.outcome import Rejected, Release, Retry

SECRET = "ada@example.com"
Raised = Callable[["ServerError"], Exception]


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


def caused(error: Exception, cause: BaseException | None = None, context: BaseException | None = None) -> Exception:
    error.__context__ = context
    if cause is not None:
        error.__cause__ = cause
    return error


either = pytest.mark.parametrize("raised", [wrapped, lambda error: error], ids=["by-a-session", "by-asyncpg"])


# SQLSTATEs


@either
@pytest.mark.parametrize(
    ("sqlstate", "code"),
    [
        ("23505", "conflict"), ("23P01", "conflict"), ("23503", "not_found"),
        *((sqlstate, "invalid") for sqlstate in ("23502", "23514", "22000", "22001", "22003", "22021", "22P02")),
    ],
)  # fmt: skip
def test_a_violation_is_a_rejection(raised: Raised, sqlstate: str, code: str) -> None:
    result = classify(raised(ServerError(sqlstate)))
    assert isinstance(result, Rejected)
    assert result.code == code
    assert SECRET not in result.detail


@either
@pytest.mark.parametrize(
    "sqlstate",
    [
        "08000", "08001", "08003", "08004", "08006", "08P01", "57P01", "57P02", "57P03", "57P05", "53100", "53300",
        "58000", "58030", "58P01", "25006", "28000", "28P01", "3D000",
    ],
)  # fmt: skip
def test_a_fault_of_the_server_is_a_release(raised: Raised, sqlstate: str) -> None:
    result = classify(raised(ServerError(sqlstate)))
    assert isinstance(result, Release)
    assert result.detail.endswith(f"(SQLSTATE {sqlstate})")
    assert SECRET not in result.detail


@either
@pytest.mark.parametrize(
    "sqlstate",
    [
        "53200", "XX000", "XX001",  # out of memory, an unreadable row
        "40001", "40P01",  # serialization failure, deadlock
        "55P03", "57014",  # lock timeout, statement timeout
        "25P02", "25P03",  # a failed transaction used on, a transaction left idle
        "42601", "42P01", "42703", "42501",  # wrong statements, missing tables, missing privileges
        "0A000", "21000", "23000", "23001", "25001", "2F005", "P0001",
    ],
)  # fmt: skip
def test_every_other_state_is_a_failure(raised: Raised, sqlstate: str) -> None:
    result = classify(raised(ServerError(sqlstate)))
    assert isinstance(result, Retry)
    assert result.code == "failed"
    assert f"[{sqlstate}]" in result.detail
    assert SECRET not in result.detail


@pytest.mark.parametrize(
    ("sqlstate", "constraint", "table", "rejected"),
    [
        ("23505", "uq_users_username", "users", Rejected("conflict", "username is already taken")),
        ("23505", "ix_users_email", "users", Rejected("conflict", "email is already taken")),
        ("23505", "uq_users_hashed_password", "users", Rejected("conflict", "hashed_password is already taken")),
        ("23505", "pk_job_ledger", "job_ledger", Rejected("conflict", "a unique value is already taken")),
        ("23505", "another_name", "users", Rejected("conflict", "a unique value is already taken")),
        ("23505", None, None, Rejected("conflict", "a unique value is already taken")),
        ("23503", "fk_posts_author_id", "posts", Rejected("not_found", "author_id names nothing that exists")),
        ("23514", "ck_users_age", "users", Rejected("invalid", "age is not one that the database takes")),
    ],
)
def test_a_rejection_names_the_column_and_not_the_value(
    sqlstate: str, constraint: str | None, table: str | None, rejected: Rejected
) -> None:
    assert classify(wrapped(ServerError(sqlstate, constraint, table))) == rejected


@pytest.mark.parametrize("sqlstate", [None, "57014"])
def test_a_lost_connection_is_a_release_whatever_the_driver_reports(sqlstate: str | None) -> None:
    assert isinstance(classify(wrapped(ServerError(sqlstate), lost=True)), Release)


def test_an_error_of_the_driver_on_an_intact_connection_is_a_failure() -> None:
    # As when a statement gets too few arguments: released, it would come back for ever.
    assert isinstance(classify(wrapped(ServerError(None))), Retry)


# Other exceptions, and chains


class Strange(Exception):
    orig = "not an exception"
    sqlstate = 23505


ITS_OWN_CAUSE = Strange(SECRET)
ITS_OWN_CAUSE.__cause__ = ITS_OWN_CAUSE


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
        (Strange(SECRET), Retry("failed", "Strange")),
        (ITS_OWN_CAUSE, Retry("failed", "Strange")),
        # A violation counts as an explicit cause, not when it was only being handled.
        (
            caused(LookupError(SECRET), wrapped(ServerError("23505", "ix_users_email", "users"))),
            Rejected("conflict", "email is already taken"),
        ),
        (
            caused(LookupError(SECRET), None, wrapped(ServerError("23505"))),
            Retry("failed", "LookupError from DBAPIError from DriverError from ServerError[23505]"),
        ),
    ],
    ids=repr,
)
def test_an_error_without_a_state_of_its_own_is_classified_by_its_type_and_cause(
    error: Exception, expected: object
) -> None:
    assert classify(error) == expected


OUTAGE = wrapped(ServerError("57P01"))


@pytest.mark.parametrize(
    "error",
    [
        caused(LookupError(SECRET), OUTAGE),
        caused(LookupError(SECRET), None, OUTAGE),
        ExceptionGroup(SECRET, [LookupError(SECRET), OUTAGE]),
        caused(LookupError(SECRET), None, ExceptionGroup(SECRET, [ExceptionGroup(SECRET, [OUTAGE])])),
        caused(LookupError(SECRET), caused(ValueError(SECRET), None, OUTAGE)),
    ],
    ids=["from", "while handled", "in a group", "in a nested group", "behind a cause"],
)
def test_an_outage_counts_wherever_it_is_in_the_chain(error: Exception) -> None:
    assert classify(error) == Release("the database is shutting down (SQLSTATE 57P01)")
