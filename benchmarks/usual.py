"""create_user as it is usually written: pre-ping, flush, refresh, and posts that load with their user."""

from datetime import datetime

from sqlalchemy import DateTime, ForeignKey, String, func
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """Tables of the benchmark's own."""


class UsualUser(Base):
    __tablename__ = "usual_users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(255), unique=True, index=True)
    username: Mapped[str] = mapped_column(String(64), unique=True)
    hashed_password: Mapped[str] = mapped_column(String(255))
    is_active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    posts: Mapped[list["UsualPost"]] = relationship(back_populates="author", lazy="selectin")


class UsualPost(Base):
    __tablename__ = "usual_posts"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(200))
    content: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("usual_users.id"), index=True)
    author: Mapped[UsualUser] = relationship(back_populates="posts")


async def create_user(sessions: async_sessionmaker[AsyncSession], email: str, username: str, password: str) -> int:
    """A session a job, commit or roll back."""
    async with sessions() as session:
        try:
            user = UsualUser(email=email, username=username, hashed_password=password)
            session.add(user)
            await session.flush()
            await session.refresh(user)
            await session.commit()
        except Exception:
            await session.rollback()
            raise
        return user.id
