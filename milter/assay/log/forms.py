# SPDX-License-Identifier: GPL-3.0-or-later
"""The forms of a line: text with key=value pairs, JSON, and the journal's own.

A form gets a level, a text of ours and fields. The values of fields may be a stranger's: they are escaped and bounded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec

from assay.log.level import Level
from assay.log.text import bounded, pairs
from assay.model.printable import without_surrogates

Field = tuple[str, object]
Form = Callable[[Level, str, Sequence[Field]], str]


def as_pairs(_level: Level, text: str, fields: Sequence[Field]) -> str:
    """The text and the fields as key=value pairs, on one line."""
    line = text if not fields else f"{text} {pairs(fields)}" if text else pairs(fields)
    return line.replace("\n", "\\n") if "\n" in line else line


def as_marked_pairs(level: Level, text: str, fields: Sequence[Field]) -> str:
    """The same for a stream, which has neither process id nor level of its own."""
    mark = "" if level is Level.INFO else f"{level.name}: "
    return f"assay[{os.getpid()}]: {mark}{as_pairs(level, text, fields)}"


def as_json(level: Level, text: str, fields: Sequence[Field]) -> str:
    """A JSON object: time, level and process id, the text if there is one, and the fields. Numbers are numbers."""
    record: dict[str, object] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": level.name.lower(),
        "pid": os.getpid(),
    }
    if text:
        record["text"] = without_surrogates(text)
    for name, value in fields:
        if value is not None:
            record[name] = value if isinstance(value, int) else without_surrogates(bounded(str(value)))
    return msgspec.json.encode(record).decode()


def for_journal(facility: int, message: Form) -> Form:
    """An entry of the journal in its native protocol: one field a line, ours as ``ASSAY_`` and the field's name.

    :param facility: a number of ``syslog``.
    :param message: the form of MESSAGE, which ``journalctl`` shows.
    """
    identity = f"SYSLOG_IDENTIFIER=assay\nSYSLOG_FACILITY={facility >> 3}\n"

    def form(level: Level, text: str, fields: Sequence[Field]) -> str:
        lines = [f"MESSAGE={message(level, text, fields)}\nPRIORITY={level}\n{identity}"]
        for name, value in fields:
            if value is not None:
                # The form with "=" ends at a line feed; only the other one, with a length, could hold it.
                lines.append(f"{_journal_name(name)}={bounded(str(value))}".replace("\n", "\\n"))
        return "\n".join(lines).replace("\n\n", "\n") + "\n"

    return form


def _journal_name(name: str) -> str:
    """A field's name: capitals, digits and underscores (systemd.journal-fields(7))."""
    return "ASSAY_" + "".join(char if char.isalnum() else "_" for char in name.upper())
