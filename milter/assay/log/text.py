# SPDX-License-Identifier: GPL-3.0-or-later
"""Values for the log: escaped and bounded, so that a stranger's text is never mistaken for ours."""

from __future__ import annotations

import re
from collections.abc import Iterable

from assay.model.printable import escape, escaped, without_claims

MAX_VALUE_LENGTH = 256  # characters of one value; a longer one is cut and marked
_PLAIN = re.compile(r"[a-zA-Z0-9@._:/+\-<>\[\]%,~!#$&*?^{}|]+")


def pairs(items: Iterable[tuple[str, object]]) -> str:
    """Write key=value pairs on one line; a value that is not plain is quoted and escaped. None is omitted."""
    return " ".join([f"{key}={quote(str(value))}" for key, value in items if value is not None])


def quote(value: str) -> str:
    """One value for the log: bounded, printable, and in double quotes unless it is plain.

    Backslash and quote are escaped with a backslash. Unprintable characters are escaped as in `assay.model.printable`,
    and so is the ``=`` of text that reads as a word of the line: a search for ``dmarc=pass`` finds no stranger's HELO.
    """
    if len(value) > MAX_VALUE_LENGTH:
        value = bounded(value)
    if _PLAIN.fullmatch(value):
        return value
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{without_claims(escaped(quoted), escape("="))}"'


def bounded(value: str) -> str:
    """A value of at most `MAX_VALUE_LENGTH` characters, and a mark if it was longer."""
    return value if len(value) <= MAX_VALUE_LENGTH else value[:MAX_VALUE_LENGTH] + "..."
