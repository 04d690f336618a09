# SPDX-License-Identifier: GPL-3.0-or-later
"""The findings of a message are a column of it: a row for each took a quarter of the time that a message costs."""

from __future__ import annotations

import itertools

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_STEP = 500  # messages at a time, so that memory does not grow with their number


def upgrade() -> None:
    """Move them."""
    op.add_column("messages", sa.Column("findings", sa.Text(), nullable=False, server_default=sa.text("''")))
    connection = op.get_bind()
    messages = sa.table("messages", sa.column("id"), sa.column("findings"))
    names = ("method", "key", "result", "domain", "selector", "aligned", "reason")
    columns: list[sa.ColumnClause[object]] = [sa.column("message"), sa.column("number"), *map(sa.column, names)]
    found = sa.table("findings", *columns)
    change = sa.update(messages).where(messages.c.id == sa.bindparam("whose")).values(findings=sa.bindparam("text"))
    last = b""
    while True:
        some = sa.select(found.c.message).distinct().where(found.c.message > last).order_by(found.c.message)
        identities = connection.execute(some.limit(_STEP)).scalars().all()
        if not identities:
            break
        last = bytes(identities[-1])
        rows = connection.execute(
            sa.select(*columns)
            .where(found.c.message >= identities[0], found.c.message <= last)
            .order_by(found.c.message, found.c.number)
        )
        texts = []
        for identity, of_message in itertools.groupby(rows, lambda row: bytes(row.message)):
            values = [[*row[2:7], bool(row.aligned), row.reason] for row in of_message]
            texts.append({"whose": identity, "text": msgspec.json.encode(values).decode()})
        connection.execute(change, texts)
    op.drop_table("findings")
