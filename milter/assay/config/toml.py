# SPDX-License-Identifier: GPL-3.0-or-later
"""Values as TOML writes them (TOML 1.0), for `config show`, the sample, the page, and messages about a wrong value."""

from __future__ import annotations

import datetime

#: Bits of an integer that is written in decimal. Python refuses to write very long ones so; TOML has hexadecimal ones.
_MAX_DECIMAL_BITS = 256


def toml(value: object) -> str:
    """A value in TOML syntax, on one line.

    :param value: what `tomllib` reads, or what a key of the configuration has.
    """
    match value:
        case bool():
            return str(value).lower()
        case int() if value.bit_length() > _MAX_DECIMAL_BITS:
            return hex(value)
        case int() | float():
            return str(value)
        case str():
            return '"' + "".join(map(_escape, value)) + '"'
        case datetime.date() | datetime.time():  # also a date with a time
            return value.isoformat()
        case dict():
            return "{" + ", ".join(f"{key(name)} = {toml(item)}" for name, item in value.items()) + "}"
        case tuple() | list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case _:
            raise TypeError(f"cannot write {value!r} as TOML")


def key(name: str) -> str:
    """A key, in quotes where TOML requires them."""
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else toml(name)


def _escape(character: str) -> str:
    """A character of a basic string, escaped if it is special or not printable."""
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"
