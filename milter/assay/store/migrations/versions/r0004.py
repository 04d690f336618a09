# SPDX-License-Identifier: GPL-3.0-or-later
"""Failure reports that go out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table, and say of the reports that are there that they are aggregate reports."""
    op.add_column("reports", sa.Column("kind", sa.Text(), nullable=False, server_default="aggregate"))
    op.create_table(
        "incidents",
        sa.Column("report", sa.Text(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("report"),
        sqlite_with_rowid=False,
    )
