# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages of the store as JSON lines, as a broker gets them, or as CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TextIO

from assay.model.printable import for_spreadsheet
from assay.store.json_form import MEMBERS, as_object, to_json
from assay.store.rows import MessageRow


def write(rows: Iterable[MessageRow], form: str, output: TextIO) -> None:
    """Write rows as they come.

    :param form: json or csv.
    :raises OSError: the output takes no more.
    """
    if form == "json":
        for row in rows:
            output.write(to_json(row).decode() + "\n")
        return
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(MEMBERS)
    for row in rows:
        values = {**as_object(row), "time": _time(row.time)}
        writer.writerow([_cell(values[field]) for field in MEMBERS])


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def _cell(value: Any) -> str | int:
    """Lists and objects are JSON in ASCII. Strangers write many of the texts."""
    match value:
        case bool() | None:
            return "" if value is None else str(value).lower()
        case int():
            return value
        case str():
            text = value
        case _:
            text = json.dumps(value) if value else ""
    return for_spreadsheet(text)
