# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of an aggregate report that each message is in, so that the page shows which messages are behind it.

Messages that were written before have none, so the records of their reports lead to no messages.
"""

from __future__ import annotations

import sqlalchemy
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add it."""
    op.add_column("messages", sqlalchemy.Column("report_group", sqlalchemy.BigInteger))
