"""The tables: users, their posts, and the ledger of jobs."""

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    cast,
    func,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import UserDefinedType

from producers.fields import CONTENT_LENGTH, EMAIL_LENGTH, PASSWORD_HASH_LENGTH, TITLE_LENGTH, USERNAME_LENGTH
from producers.ids import MAX_JOB_ID_LENGTH

Outcome = Literal["done", "rejected", "dead"]


class JsonText(UserDefinedType[str]):
    """A `json` column that is read and written as text. A reply is encoded once, by its model."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "JSON"

    def column_expression(self, column: ColumnElement[str]) -> ColumnElement[str]:
        # Without the cast asyncpg would parse the JSON, and encoding it again may give another text.
        return cast(column, Text)


class Base(DeclarativeBase):
    """Names every constraint after its column, so that an error can name the column without quoting a value."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )


class User(Base):
    """An author of posts."""

    __tablename__ = "users"
    __table_args__ = (
        # Partial: the clean-up's query costs nothing while no user is inactive.
        Index("ix_users_inactive_since", "inactive_since", postgresql_where=text("inactive_since IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    email: Mapped[str] = mapped_column(String(EMAIL_LENGTH), unique=True, index=True)
    username: Mapped[str] = mapped_column(String(USERNAME_LENGTH), unique=True)
    hashed_password: Mapped[str] = mapped_column(String(PASSWORD_HASH_LENGTH))
    is_active: Mapped[bool] = mapped_column(default=True, server_default="true")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    inactive_since: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When `is_active` became false. The functions in `users` set it and the clean-up reads it."""

    # Loaded only on request. The foreign key deletes the posts of a deleted user.
    posts: Mapped[list["Post"]] = relationship(
        back_populates="author", lazy="raise", cascade="all, delete-orphan", passive_deletes=True
    )

    def __repr__(self) -> str:
        return f"<User {self.id}>"


class Post(Base):
    """A text by a user."""

    __tablename__ = "posts"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    title: Mapped[str] = mapped_column(String(TITLE_LENGTH))
    content: Mapped[str] = mapped_column(String(CONTENT_LENGTH))
    author_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)

    author: Mapped[User] = relationship(back_populates="posts", lazy="raise")

    def __repr__(self) -> str:
        return f"<Post {self.id}>"


class LedgerRow(Base):
    """The one outcome of a job, committed in the same transaction as the job's effect."""

    __tablename__ = "job_ledger"
    __table_args__ = (
        # A btree: pages are reused, so the order of rows on disk is not their order in time.
        Index("ix_job_ledger_recorded_at", "recorded_at"),
        # Most rows are updated once, with the reply. Free space on the page keeps that update out of the indexes.
        {"postgresql_with": {"fillfactor": 70}},
    )

    job_id: Mapped[str] = mapped_column(String(MAX_JOB_ID_LENGTH), primary_key=True)
    job: Mapped[str] = mapped_column(String(128))
    outcome: Mapped[Outcome] = mapped_column(String(16))
    code: Mapped[str | None] = mapped_column(String(32))
    detail: Mapped[str | None] = mapped_column(String)
    reply: Mapped[str | None] = mapped_column(JsonText)
    digest: Mapped[bytes | None] = mapped_column(LargeBinary)
    """A digest of the content. The same id with other content is another request."""
    recorded_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
