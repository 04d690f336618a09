# SPDX-License-Identifier: GPL-3.0-or-later
"""A table for the answers of the DNS."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "answers",
        sa.Column("message", sa.LargeBinary(length=16), nullable=False),
        sa.Column("answers", sa.Text(), nullable=False),
        sa.Column("further_answers", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("message"),
        sqlite_with_rowid=False,
    )
