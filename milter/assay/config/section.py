# SPDX-License-Identifier: GPL-3.0-or-later
"""What all sections of the configuration file share."""

from __future__ import annotations

from typing import Any, get_args, get_origin

import msgspec


class SettingError(ValueError):
    """A key has a value that it cannot have. The message quotes the value and says what to write.

    :ivar key: the key, below its section.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[section]`` of the file."""


def row_type(hint: Any) -> type[Section] | None:
    """The section that each table of a ``[[section]]`` is; None for the type of any other key."""
    if get_origin(hint) is not tuple:
        return None
    row = get_args(hint)[0]
    return row if isinstance(row, type) and issubclass(row, Section) else None
