# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration in force: each value, and where it comes from.

Secrets are in files of their own, of which the configuration has only the names.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from assay import files
from assay.config import ConfigError, Configuration, load
from assay.config.section import row_type
from assay.config.toml import toml
from assay.daemon.status import status
from assay.web.parts import Code, Column, DataTable, Part, Remark, Tone, WebPage
from assay.web.site import Site, WebQuery

_HEADER = re.compile(r"[ \t]*+(\[\[?)([^\[\]#\n]++)\]\]?[ \t\r]*+(?:#.*+)?")
_KEY = re.compile(r"""[ \t]*+([A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+=""")
_COLUMNS = (Column("key", "key"), Column("value", "value", wide=True), Column("source", "source"))


def page(site: Site, _: WebQuery) -> WebPage:
    """The configuration."""
    now = status(site.figures, site.history)
    path = Path(now.configuration)
    try:
        text = files.read_text(path)
    except (OSError, UnicodeDecodeError):
        text = ""
    at = lines(text)
    written: list[tuple[str, Code, str]] = []
    usual: list[tuple[str, Code, str]] = []
    for key, value in values(site.configuration):
        line = at.get(key)
        row = (key, Code(value), "default" if line is None else f"{path.name}, line {line}")
        (usual if line is None else written).append(row)
    parts: list[Part] = [*_worries(path, text, site.configuration, now.fault)]
    parts.append(DataTable("written", "Set in the file", _COLUMNS, written, empty="Nothing is set: all are defaults."))
    parts.append(DataTable("defaults", "Defaults", _COLUMNS, usual))
    return WebPage(
        "Configuration",
        tuple(parts),
        f"In force on {site.host}, from {now.configuration or 'built-in defaults'}. Secrets are in files of their own, "
        "which are not shown.",
    )


def _worries(path: Path, text: str, configuration: Configuration, fault: str) -> Iterator[Part]:
    if fault:
        yield Remark(f"The last reload failed, and the old configuration is in force: {fault}", tone=Tone.BAD)
    if not text:
        return
    try:
        if load(path) != configuration:
            yield Remark("The file has changed since it was read. A reload puts it in force.", tone=Tone.DOUBT)
    except ConfigError as error:
        yield Remark(f"The file has changed since it was read, and cannot be used: {error}", tone=Tone.BAD)


def values(section: msgspec.Struct, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each key that has a value, with it, as TOML has them. Rows of a ``[[section]]`` are counted from 1."""
    for field in msgspec.structs.fields(type(section)):
        value: Any = getattr(section, field.name)
        key = f"{prefix}{field.name}"
        if row_type(field.type):
            for number, row in enumerate(value, 1):
                yield from values(row, f"{key} {number}.")
        elif isinstance(value, msgspec.Struct):
            yield from values(value, f"{key}.")
        elif key == "lists":
            yield from ((f"lists.{name}", toml(file)) for name, file in value.items())
        elif value is not None:
            yield key, toml(value)


def lines(text: str) -> dict[str, int]:
    """The line of each key in a configuration file, by the key as in `values`."""
    found: dict[str, int] = {}
    section = ""
    counts: dict[str, int] = {}
    rows = text.split("\n")
    number = 0
    while number < len(rows):
        row, start = rows[number], number + 1
        number += 1
        if header := _HEADER.fullmatch(row):
            section = header[2].strip()
            if header[1] == "[[":
                counts[section] = counts.get(section, 0) + 1
                section = f"{section} {counts[section]}"
        elif match := _KEY.match(row):
            found[f"{section}.{match[1].strip(chr(34) + chr(39))}".lstrip(".")] = start
            number += _further_lines(row, rows[number:])
    return found


_MAX_VALUE_LINES = 10_000  # our choice: a list of addresses that is written into the file


def _further_lines(row: str, rest: list[str]) -> int:
    """How many more lines a value takes."""
    if _is_whole(row):
        return 0
    for count in range(1, min(len(rest), _MAX_VALUE_LINES) + 1):
        # An array or a long text ends in a line with one of these.
        if any(end in rest[count - 1] for end in ("]", '"""', "'''")) and _is_whole("\n".join((row, *rest[:count]))):
            return count
    return 0


def _is_whole(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True
