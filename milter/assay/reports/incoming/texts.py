# SPDX-License-Identifier: GPL-3.0-or-later
"""A stranger's texts, bounded and in one form: printable, and domains as A-labels in lower case."""

from __future__ import annotations

from typing import Any

from assay.model.name import Domain, InvalidNameError
from assay.model.printable import marked

MAX_TEXT = 255  # characters of a name, an identifier or a comment, our choice: as in the store


class UnreadableError(ValueError):
    """Ends reading; becomes an `Unreadable`."""


def text(value: Any) -> str:
    """A stranger's text. An element with attributes is a dict, and one that is repeated a list (xmltodict)."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        value = value.get("#text")
    return "" if value is None else marked(str(value)[:MAX_TEXT].strip())


def domain(value: Any) -> str:
    """A stranger's domain; empty if it is none."""
    try:
        return Domain.parse_host(text(value)).name
    except InvalidNameError:
        return ""
