# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the configuration file. Every fault ends in one sentence that names the file, the key and the mend."""

from __future__ import annotations

import difflib
import re
import tomllib
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

import msgspec

from assay import files
from assay.config.configuration import Configuration
from assay.config.responses import RuleSection
from assay.config.section import Section


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
        data = tomllib.loads(files.read_text(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no UTF-8 text (octet {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is no TOML: {error}{_hint(str(error))}") from error
    except RecursionError as error:  # brackets in brackets, thousands deep
        raise ConfigError(f"{path}: is no TOML: nested too deeply") from error
    _refuse_unknown(path, data)
    try:
        return msgspec.convert(data, Configuration)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_in_our_words(str(error))}") from error


def _refuse_unknown(path: Path, data: dict[str, Any]) -> None:
    """Name each misspelt section and key, with the nearest known one."""
    sections = {field.name: field.type for field in msgspec.structs.fields(Configuration)}
    for name, content in data.items():
        if name not in sections:
            raise ConfigError(f"{path}: unknown section [{name}]{_nearest(name, sections)}")
        if name == "rule":
            if not isinstance(content, list):
                raise ConfigError(f"{path}: rules are several: write [[rule]] for each")
            for number, rule in enumerate(content, 1):
                if not isinstance(rule, dict):
                    raise ConfigError(f"{path}: rules are several: write [[rule]] for each")
                _refuse_unknown_keys(path, f"rule {number}", rule, RuleSection)
        elif not isinstance(content, dict):
            raise ConfigError(f"{path}: {name} is a section: write [{name}] on a line of its own")
        elif name != "lists":
            _refuse_unknown_keys(path, name, content, sections[name])


def _refuse_unknown_keys(path: Path, place: str, table: Any, struct: Any) -> None:
    known = {field.name: field.type for field in msgspec.structs.fields(struct)}
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{path}: unknown key {place}.{key}{_nearest(key, known)}")
        if isinstance(known[key], type) and issubclass(known[key], Section):
            if not isinstance(value, dict):
                raise ConfigError(f"{path}: {place}.{key} is a section: write [{place}.{key}] on a line of its own")
            _refuse_unknown_keys(path, f"{place}.{key}", value, known[key])


def _hint(fault: str) -> str:
    """What is usually meant by a fault that TOML's own words leave dark."""
    if "Invalid value" in fault:
        return '; write text in "quotes", a switch as true or false'
    if "Expected '=' after a key" in fault:
        return '; write key = "value"'
    return ""


def _nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"


def _in_our_words(message: str) -> str:
    """Turn msgspec's ``Expected `int`, got `str` - at `$.milter.workers``` into ``milter.workers: expected int...``."""
    text, _, place = message.partition(" - at ")
    place = place.strip("`").removeprefix("$").removeprefix(".")
    key = re.sub(r"\[\.\.\.\]|\[\d+\]", "", place)
    text = text.replace("`", "") + _words(key)
    if number := re.match(r"rule\[(\d+)\]", place):  # operators count from 1
        key = f"rule {int(number[1]) + 1}{key.removeprefix('rule')}"
    return f"{key}: {text[0].lower()}{text[1:]}" if key else text


def _words(key: str) -> str:
    """The words that a key with a fixed vocabulary takes."""
    struct: Any = Configuration
    *sections, name = key.split(".")
    for section in sections:
        struct = RuleSection if section == "rule" else get_type_hints(struct).get(section)
        if not (isinstance(struct, type) and issubclass(struct, Section)):
            return ""
    hint = get_type_hints(struct).get(name)
    if isinstance(hint, UnionType):  # such as Action | None
        hint = next((one for one in get_args(hint) if one is not NoneType), None)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "; known are " + ", ".join(member.value for member in hint)
    return ""
