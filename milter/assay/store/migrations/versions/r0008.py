# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports that are too large for a destination go there in parts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Say of the reports that are there that they are whole."""
    for name in ("form", "part_of", "first_group", "last_group"):
        default = sa.text("'whole'" if name == "form" else "''")
        op.add_column("reports", sa.Column(name, sa.Text(), nullable=False, server_default=default))
    for name in ("part", "parts"):
        op.add_column("reports", sa.Column(name, sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.drop_index("reports_day", "reports")
    op.create_index("reports_day", "reports", ["day", "state", "form"])
    op.create_index("reports_part_of", "reports", ["part_of"])
    op.add_column("deliveries", sa.Column("max_octets", sa.BigInteger(), nullable=True))
