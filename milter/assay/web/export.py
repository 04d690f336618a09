# SPDX-License-Identifier: GPL-3.0-or-later
"""A table of a page as CSV or JSON, for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from assay.model.printable import for_spreadsheet, without_surrogates
from assay.web.parts import Cell, Code, DataTable, Indented, Link, Moment, Press, Several, Share, Word


def as_csv(table: DataTable) -> bytes:
    """The rows as CSV in UTF-8, the names of the columns first.

    What does not print is escaped, and what a spreadsheet would take for a formula gets an apostrophe in front.
    """
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow([column.name for column in table.columns if column.name])
    writer.writerows([[_csv(cell) for _, cell in _named(table, row)] for row in table.rows])
    return written.getvalue().encode()


def as_json(table: DataTable) -> bytes:
    """The rows as a JSON array of objects, in ASCII. Times are Unix milliseconds."""
    rows = [{name: _json(cell) for name, cell in _named(table, row)} for row in table.rows]
    return json.dumps(rows, indent=1).encode() + b"\n"


def _named(table: DataTable, row: tuple[Cell, ...]) -> Iterator[tuple[str, Cell]]:
    """The cells of a row with the names of their columns, without buttons."""
    for column, cell in zip(table.columns, row, strict=True):
        if column.name:
            yield column.name, cell


def time_text(milliseconds: int) -> str:
    """A time in UTC, to the second, as 2026-11-26T14:30:00Z."""
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _csv(cell: Cell) -> str | int | float | None:
    value = _value(cell)
    if isinstance(cell, Moment):
        return time_text(cell.milliseconds)
    if isinstance(value, list):
        value = " ".join(map(str, value))
    if isinstance(value, int | float | None):
        return value
    return for_spreadsheet(str(value))


def _json(cell: Cell) -> Any:
    value = _value(cell)
    return without_surrogates(value) if isinstance(value, str) else value


def _value(cell: Cell) -> Any:
    match cell:
        case Link(value=value):
            return value
        case Word(text=text) | Code(text=text) | Indented(text=text):
            return text
        case Moment(milliseconds=milliseconds):
            return milliseconds
        case Share(part=part):
            return part
        case Press():
            return None
        case Several(members=members):
            return [_json(member) for member in members]
        case _:
            return cell
