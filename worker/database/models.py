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

from producers.ids import MAX_JOB_ID_LENGTH
from producers.messages import CONTENT_LENGTH, EMAIL_LENGTH, PASSWORD_HASH_LENGTH, TITLE_LENGTH, USERNAME_LENGTH

Outcome = Literal["done", "rejected", "dead"]


class JsonText(UserDefinedType[str]):
    """A `json` column that is written and read as the text it is: replies are encoded once, by their model."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "JSON"

    def column_expression(self, column: ColumnElement[str]) -> ColumnElement[str]:
        # Read as `json`, it would be parsed by the driver, and be another text when it is written again.
        return cast(column, Text)


class Base(DeclarativeBase):
    """Names every constraint after its columns, so that a violation can be told without quoting any value."""

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
    """Somebody who writes posts."""

    __tablename__ = "users"
    __table_args__ = (
        # Only inactive users are in it: the clean-up's question costs nothing while there are none.
        Index("ix_users_inactive_since", "inactive_since", postgresql_where=text("inactive_since IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    email: Mapped[str] = mapped_column(String(EMAIL_LENGTH), unique=True, index=True)
    username: Mapped[str] = mapped_column(String(USERNAME_LENGTH), unique=True)
    hashed_password: Mapped[str] = mapped_column(String(PASSWORD_HASH_LENGTH))
    is_active: Mapped[bool] = mapped_column(default=True, server_default="true")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    inactive_since: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """Since when `is_active` is false, as far as the CRUD functions set it; what the clean-up goes by."""

    # Loaded only when asked for; deleting a user leaves the posts to the foreign key.
    posts: Mapped[list["Post"]] = relationship(
        back_populates="author", lazy="raise", cascade="all, delete-orphan", passive_deletes=True
    )

    def __repr__(self) -> str:
        return f"<User {self.id}>"


class Post(Base):
    """Something that a user wrote."""

    __tablename__ = "posts"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    title: Mapped[str] = mapped_column(String(TITLE_LENGTH))
    content: Mapped[str] = mapped_column(String(CONTENT_LENGTH))
    author_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)

    author: Mapped[User] = relationship(back_populates="posts", lazy="raise")

    def __repr__(self) -> str:
        return f"<Post {self.id}>"


class LedgerRow(Base):
    """The one outcome of a job. Written in the transaction of the job's effect, so that neither is there alone."""

    __tablename__ = "job_ledger"
    __table_args__ = (
        # Finds what is past its retention, however often its pages have been used again.
        Index("ix_job_ledger_recorded_at", "recorded_at"),
        # Every row is updated once, with the reply, before its commit: room on its page keeps the indexes out of it.
        {"postgresql_with": {"fillfactor": 70}},
    )

    job_id: Mapped[str] = mapped_column(String(MAX_JOB_ID_LENGTH), primary_key=True)
    job: Mapped[str] = mapped_column(String(128))
    outcome: Mapped[Outcome] = mapped_column(String(16))
    code: Mapped[str | None] = mapped_column(String(32))
    detail: Mapped[str | None] = mapped_column(String)
    reply: Mapped[str | None] = mapped_column(JsonText)
    digest: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The fingerprint of the content: the same id with another content is another request."""
    recorded_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
