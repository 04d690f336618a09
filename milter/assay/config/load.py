# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the configuration file. Every fault ends in one sentence that names the file, the key and the mend."""

from __future__ import annotations

import difflib
import re
import tomllib
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from assay.config.settings import Configuration


class ConfigError(Exception):
    """The configuration cannot be used. The message is for the operator, complete."""


def load(path: Path | None) -> Configuration:
    """Read and check a configuration file.

    :param path: the TOML file; None for the defaults.
    :raises ConfigError: unreadable file, TOML syntax, unknown key, wrong type, value out of range.
    """
    if path is None:
        return Configuration()
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no UTF-8 text (octet {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is no TOML: {error}") from error
    _refuse_unknown(path, data)
    try:
        return msgspec.convert(data, Configuration)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_in_our_words(str(error))}") from error


def _sections() -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(Configuration)}


def _refuse_unknown(path: Path, data: dict[str, Any]) -> None:
    """Name each misspelt section and key, with the nearest known one."""
    sections = _sections()
    for section, table in data.items():
        if section not in sections:
            raise ConfigError(f"{path}: unknown section [{section}]{_nearest(section, sections)}")
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {section} is a section: write [{section}] on a line of its own")
        known = [field.name for field in msgspec.structs.fields(sections[section])]
        for key in table:
            if key not in known:
                raise ConfigError(f"{path}: unknown key {section}.{key}{_nearest(key, known)}")


def _nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"


def _in_our_words(message: str) -> str:
    """Turn msgspec's ``Expected `int`, got `str` - at `$.milter.workers``` into ``milter.workers: expected int...``."""
    text, _, place = message.partition(" - at ")
    key = re.sub(r"\[\.\.\.\]|\[(\d+)\]", "", place.strip("`")).removeprefix("$").removeprefix(".")
    text = text.replace("`", "") + _words(key)
    return f"{key}: {text[0].lower()}{text[1:]}" if key else text


def _words(key: str) -> str:
    """The words that a key with a fixed vocabulary takes."""
    section, _, name = key.partition(".")
    hint = get_type_hints(_sections()[section]).get(name) if section in _sections() else None
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "; known are " + ", ".join(member.value for member in hint)
    return ""
