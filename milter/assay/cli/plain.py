# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn our types into values that JSON knows."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any

from assay.model.message import HeaderField
from assay.model.name import Domain, Mailbox


def plain(value: object) -> Any:
    """Dataclasses as objects, enums as their words, bytes as text with ``\\xNN`` for what is no UTF-8.

    Header fields are left out of the objects that hold them: they are the message's, not the evaluation's.
    """
    match value:
        case None | bool() | int() | float():
            return value
        case Enum():
            return plain(value.value)
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case str():
            return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        case Domain() | Mailbox():
            return plain(str(value))
        case tuple() | list() | set() | frozenset():
            return [plain(item) for item in value]
        case dict():
            return {str(plain(key)): plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        return {
            field.name: plain(item)
            for field in dataclasses.fields(value)
            if field.repr and not isinstance(item := getattr(value, field.name), HeaderField)
        }
    return str(value)
