"""users, posts and the ledger of jobs

Numbers are written out: a step keeps its values when the models change.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001_needs_0001"
down_revision = None


def upgrade() -> None:
    """Create the three tables."""
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("username", sa.String(64), nullable=False),
        sa.Column("hashed_password", sa.String(255), nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("inactive_since", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("username", name="uq_users_username"),
    )
    op.create_index("ix_users_email", "users", ["email"], unique=True)
    op.create_index(
        "ix_users_inactive_since",
        "users",
        ["inactive_since"],
        postgresql_where=sa.text("inactive_since IS NOT NULL"),
    )
    op.create_table(
        "posts",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("content", sa.String(65_536), nullable=False),
        sa.Column("author_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_posts"),
        sa.ForeignKeyConstraint(["author_id"], ["users.id"], name="fk_posts_author_id", ondelete="CASCADE"),
    )
    op.create_index("ix_posts_author_id", "posts", ["author_id"])
    op.create_table(
        "job_ledger",
        sa.Column("job_id", sa.String(257), nullable=False),
        sa.Column("job", sa.String(128), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("code", sa.String(32)),
        sa.Column("detail", sa.String()),
        sa.Column("reply", sa.JSON()),
        sa.Column("digest", sa.LargeBinary()),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_job_ledger"),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index("ix_job_ledger_recorded_at", "job_ledger", ["recorded_at"])
