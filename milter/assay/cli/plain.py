# SPDX-License-Identifier: GPL-3.0-or-later
"""Convert our types to values for JSON."""

from __future__ import annotations

from enum import Enum
from typing import Any

from msgspec import Struct

from assay.model.message import Header, HeaderField
from assay.model.name import Domain, Mailbox
from assay.model.printable import without_surrogates

_MEANS = frozenset(("public_suffix", "program"))


def plain(value: object) -> Any:
    """Values of ours as objects, enums as their words, bytes as text with ``\\xNN`` for what is not UTF-8.

    Header fields are left out of the objects that hold them, for they are the message's and not the evaluation's, and
    so is what is not evidence but a means to find it.
    """
    match value:
        case None | bool() | int() | float():
            return value
        case Enum():
            return plain(value.value)
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case str():
            return without_surrogates(value)
        case Domain() | Mailbox():
            return plain(str(value))
        case tuple() | list() | set() | frozenset():
            return [plain(item) for item in value]
        case dict():
            return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, Struct):
        return {
            name: plain(item)
            for name in value.__struct_fields__
            if name not in _MEANS and not isinstance(item := getattr(value, name), HeaderField | Header)
        }
    return str(value)
