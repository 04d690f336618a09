# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of an aggregate report that each message is in, so that the page shows which messages are behind it.

Messages of before have none: their records lead to no messages, until they are older than reports are made of.
"""

from __future__ import annotations

import sqlalchemy
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add it."""
    op.add_column("messages", sqlalchemy.Column("report_group", sqlalchemy.BigInteger))
