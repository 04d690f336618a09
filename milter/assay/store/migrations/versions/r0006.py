# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes that have what the pages about reports add up and search for."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make them."""
    op.drop_index("reports_day", "reports")
    op.create_index("reports_day", "reports", ["day", "state"])
    op.create_index("received_reports_begin", "received_reports", ["begin", "kind", "good", "bad"])
    op.create_index("received_rows_source", "received_rows", ["source", "day"])
