# SPDX-License-Identifier: GPL-3.0-or-later
"""What comes after the reports about a day were planned is in a supplement."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Say of all that is there that it is in the first report about its day, and that this was planned."""
    for table in ("report_groups", "reports"):
        op.add_column(table, sa.Column("supplement", sa.Integer(), nullable=False, server_default=sa.text("0")))
    for name in ("closed", "noted"):
        op.add_column("report_days", sa.Column(name, sa.Integer(), nullable=False, server_default=sa.text("1")))
    op.add_column("report_days", sa.Column("late", sa.Boolean(), nullable=False, server_default=sa.false()))
