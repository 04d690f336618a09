# SPDX-License-Identifier: GPL-3.0-or-later
"""Write configurations: the annotated sample with every default, and the values in force."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, get_type_hints

import msgspec

from assay.config.settings import Configuration

_WIDTH = 100
_HEAD = """\
# Every key of assay's configuration with its default. All of it may be left out.
# After a change: "assay config check -c FILE", then reload the daemon (SIGHUP).
"""


def sample() -> str:
    """The annotated sample: every section and key, what it is for, its default commented out."""
    return _HEAD + "\n".join(_section(name, value, annotated=True) for name, value in _sections(Configuration()))


def show(configuration: Configuration) -> str:
    """The values in force, as a file that could be loaded again."""
    return "\n".join(_section(name, value, annotated=False) for name, value in _sections(configuration))


def _sections(configuration: Configuration) -> Iterator[tuple[str, msgspec.Struct]]:
    for field in msgspec.structs.fields(Configuration):
        yield field.name, getattr(configuration, field.name)


def _section(name: str, section: msgspec.Struct, *, annotated: bool) -> str:
    lines = []
    if annotated:
        lines += ["", *_comment(type(section).__doc__ or "")]
    lines.append(f"[{name}]")
    hints = get_type_hints(type(section), include_extras=True)
    for field in msgspec.structs.fields(type(section)):
        value = f"{field.name} = {toml(getattr(section, field.name))}"
        if annotated:
            (meta,) = hints[field.name].__metadata__
            lines += ["", *_comment(meta.description + _choices(hints[field.name])), f"#{value}"]
        else:
            lines.append(value)
    return "\n".join(lines) + "\n"


def _choices(hint: Any) -> str:
    """The words that a key with a fixed vocabulary takes."""
    words = getattr(hint.__origin__, "__members__", None)
    if words is None:
        return ""
    return " One of: " + ", ".join(member.value for member in words.values()) + "."


def _comment(text: str) -> list[str]:
    return ["# " + line for line in textwrap.wrap(" ".join(text.split()), _WIDTH - 2)]


def toml(value: object) -> str:
    """A value as TOML writes it; only the kinds that the settings use."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case str():
            return '"' + "".join(map(_escape, value)) + '"'
        case tuple():
            return "[" + ", ".join(toml(item) for item in value) + "]"
        case _:
            raise TypeError(f"no TOML form for {value!r}")


def _escape(character: str) -> str:
    """A character of a basic string (TOML 1.0): what is special or does not print is escaped."""
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"
