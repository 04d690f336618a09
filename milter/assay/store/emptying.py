# SPDX-License-Identifier: GPL-3.0-or-later
"""Empty the texts with an address in aggregate and TLS reports that came in: whom to ask, comments, and the like.

The reports stay, and so do the sums over them: they count messages and sessions, and are about no person.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Column, Connection, Row, Table, func, or_, select, update

from assay.store import received_counts
from assay.store.database import Database
from assay.store.schema import received_reports, received_rows
from assay.store.written_address import ascii_end, emptied, pattern

STEP_ROWS = 500  # of one transaction, our choice

_OF_REPORTS, _OF_ROWS = received_reports.c, received_rows.c
#: What a stranger writes freely, by table: texts, and JSON. The other columns are domains, numbers and words of ours.
_TEXTS: dict[Table, tuple[Column[str], ...]] = {
    received_reports: (_OF_REPORTS.organization, _OF_REPORTS.contact, _OF_REPORTS.report_id),
    received_rows: (_OF_ROWS.disposition,),
}
_JSON: dict[Table, tuple[Column[str], ...]] = {
    received_reports: (_OF_REPORTS.report,),
    received_rows: (_OF_ROWS.reasons, _OF_ROWS.dkim, _OF_ROWS.spf),
}


def count(connection: Connection, address: str) -> int:
    """How many reports have the address, which is folded."""
    return len({bytes(row[0]) for table in _TEXTS for row in _found(connection, table, address)})


def empty(database: Database, address: str) -> int:
    """Empty the texts with it, in steps.

    :returns: in how many reports.
    """
    reports = set()
    for table in _TEXTS:
        with database.reading() as connection:
            keys = [tuple(row)[: len(table.primary_key.columns)] for row in _found(connection, table, address)]
        reports |= {bytes(key[0]) for key in keys}
        for start in range(0, len(keys), STEP_ROWS):
            with database.writing() as connection:
                received_counts.lock(connection)  # before rows, as when reports are removed
                for key in keys[start : start + STEP_ROWS]:
                    _empty_row(connection, table, key, address)
    return len(reports)


def _found(connection: Connection, table: Table, address: str) -> list[Row[Any]]:
    """The keys of the rows that have it, and their texts."""
    columns = (*_TEXTS[table], *_JSON[table])
    may_have = or_(*(func.lower(column).contains(ascii_end(address), autoescape=True) for column in columns))
    query = select(*table.primary_key.columns, *columns).where(may_have)
    if table is received_reports:
        query = query.where(_OF_REPORTS.kind != "failure")  # these go whole
    found = connection.execute(query.execution_options(yield_per=STEP_ROWS))
    return [row for row in found if _changed(row, table, address)]


def _empty_row(connection: Connection, table: Table, key: tuple[object, ...], address: str) -> None:
    is_it = [column == value for column, value in zip(table.primary_key.columns, key, strict=True)]
    columns: tuple[Column[Any], ...] = (*_TEXTS[table], *_JSON[table])
    row = connection.execute(select(*columns).where(*is_it)).first()
    if row is not None and (changed := _changed(row, table, address)):
        connection.execute(update(table).where(*is_it).values(changed))


def _changed(row: Row[Any], table: Table, address: str) -> dict[str, str]:
    """The columns with the address, and what they have without it."""
    has_address = pattern(address)
    values = row._mapping
    found = {column.name: "" for column in _TEXTS[table] if has_address.search(values[column])}
    for column in _JSON[table]:
        value = json.loads(values[column])
        if (without := emptied(value, has_address.search)) != value:
            found[column.name] = json.dumps(without, ensure_ascii=False)
    return found
