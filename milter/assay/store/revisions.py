# SPDX-License-Identifier: GPL-3.0-or-later
"""The revisions of the tables, known without Alembic, which would take memory in each process that uses the store."""

from __future__ import annotations

NEWEST = "0010"
#: The oldest first; each can be migrated.
OLDER: tuple[str, ...] = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009")
