# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the configuration file. Each error is one sentence that names file, key and value, and the fix."""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from assay import files
from assay.config.configuration import Configuration
from assay.config.section import Section, SettingError, row_type
from assay.config.toml import key as toml_key
from assay.config.toml import toml

MAX_SHOWN = 80  # characters of a value in a message, our choice: the key stays on the same line


class ConfigError(Exception):
    """The configuration cannot be used. The message is complete, for the operator."""


def load(path: Path | None) -> Configuration:
    """Read and check a configuration file.

    :param path: the TOML file; None for the built-in defaults.
    :raises ConfigError: unreadable file, invalid TOML, unknown key, wrong type, value out of range.
    """
    if path is None:
        return Configuration()
    try:
        data = tomllib.loads(files.read_text(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: {files.not_text(error)}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}{_hint(str(error))}") from error
    except ValueError as error:  # sys.get_int_max_str_digits()
        raise ConfigError(f"{path}: not valid TOML: an integer with too many digits") from error
    except RecursionError as error:  # brackets in brackets, thousands deep
        raise ConfigError(f"{path}: not valid TOML: nested too deeply") from error
    try:
        return _converted(path, data)
    except RecursionError as error:  # tables in tables: a key with thousands of dots
        raise ConfigError(f"{path}: nested too deeply") from error


def _converted(path: Path, data: dict[str, Any]) -> Configuration:
    _refuse_unknown(path, data)
    for key, value in data.items():
        _refuse_nul(path, key, value)
    try:
        return msgspec.convert(data, Configuration)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_in_our_words(error, data)}") from error


def _refuse_nul(path: Path, place: str, value: Any) -> None:
    """Refuse strings that no name of a file, user or host can be: the system's calls end them at a NUL."""
    if isinstance(value, str) and "\0" in value:
        raise ConfigError(f"{path}: {place}: {_shown(value)} has a NUL; leave it out")
    items = value.items() if isinstance(value, dict) else enumerate(value, 1) if isinstance(value, list) else ()
    for name, inner in items:
        _refuse_nul(path, f"{place} {name}" if isinstance(name, int) else f"{place}.{name}", inner)


def _refuse_unknown(path: Path, data: dict[str, Any]) -> None:
    """Refuse misspelt sections and keys, and suggest the nearest known name."""
    sections = {field.name: field.type for field in msgspec.structs.fields(Configuration)}
    for name, content in data.items():
        if name not in sections:
            if homes := _sections_with(name, content, sections):
                raise ConfigError(f"{path}: {name} is outside any section; write it below {homes}")
            raise ConfigError(f"{path}: unknown section [{toml_key(name)}]{_nearest(name, sections)}")
        if row := row_type(sections[name]):
            _refuse_unknown_in_rows(path, name, content, row)
        elif not isinstance(content, dict):
            raise ConfigError(f"{path}: {_section_wanted(name, content)}")
        elif name != "lists":
            _refuse_unknown_keys(path, name, content, sections[name])


def _refuse_unknown_in_rows(path: Path, name: str, content: Any, row: type[Section]) -> None:
    """Refuse misspelt keys in the tables of ``[[name]]``."""
    if not isinstance(content, list) or not all(isinstance(table, dict) for table in content):
        raise ConfigError(
            f"{path}: {name} is an array of tables; write [[{name}]] on a line of its own for each "
            f"{name.rpartition('.')[2]}, not {name} = {_shown(content)}"
        )
    for number, table in enumerate(content, 1):
        _refuse_unknown_keys(path, f"{name} {number}", table, row)


def _refuse_unknown_keys(path: Path, place: str, table: Any, struct: Any) -> None:
    known = {field.name: field.type for field in msgspec.structs.fields(struct)}
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{path}: unknown key {place}.{toml_key(key)}{_nearest(key, known)}")
        if row := row_type(known[key]):
            _refuse_unknown_in_rows(path, f"{place}.{key}", value, row)
        elif isinstance(known[key], type) and issubclass(known[key], Section):
            if not isinstance(value, dict):
                raise ConfigError(f"{path}: {_section_wanted(f'{place}.{key}', value)}")
            _refuse_unknown_keys(path, f"{place}.{key}", value, known[key])


def _sections_with(key: str, value: Any, sections: dict[str, Any]) -> str:
    """The sections that a key above the first section may belong to, as text; empty if there is none."""
    if isinstance(value, dict):
        return ""
    homes = [
        f"[{name}]"
        for name, struct in sections.items()
        if isinstance(struct, type) and issubclass(struct, Section) and key in struct.__struct_fields__
    ]
    return " or ".join(filter(None, (", ".join(homes[:-1]), *homes[-1:])))


def _section_wanted(name: str, value: Any) -> str:
    return f"{name} is a section; write [{name}] on a line of its own, not {name} = {_shown(value)}"


def _shown(value: Any) -> str:
    """A value for a message, cut to a length that fits on a line."""
    text = repr(value) if isinstance(value, str) else toml(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def _hint(fault: str) -> str:
    """The usual cause of an error that TOML's parser does not explain."""
    if "Invalid value" in fault:
        return '; write text in "quotes", a switch as true or false'
    if "Expected '=' after a key" in fault:
        return '; write key = "value"'
    if "Cannot overwrite" in fault or fault.partition(" (at ")[0].endswith(" twice"):
        return "; write each section and each key once"
    return ""


def _nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"


def _in_our_words(error: msgspec.ValidationError, data: dict[str, Any]) -> str:
    """A message of msgspec, such as ``Expected `int`, got `str` - at `$.milter.workers```, in ours, such as
    ``milter.workers: expected an integer, not '2'``."""
    text, _, place = str(error).partition(" - at ")
    names = [name for name in re.split(r"[.\[\]]+", place.strip("`").removeprefix("$")) if name not in ("", "...")]
    key, shown = _place(names)
    if isinstance(cause := error.__cause__, SettingError):
        return f"{shown}.{cause.key}: {cause.message}"
    if match := _MISSING.fullmatch(text):
        return f"{shown}.{match[1]}: required, but missing"
    value = _value_at(data, names)
    if isinstance(value, dict) and place.endswith("[...]`"):  # msgspec does not name a key of [lists]
        name, value = next(item for item in value.items() if not isinstance(item[1], str))
        shown = f"{shown}.{toml_key(name)}"
    if match := _BAD_WORD.fullmatch(text):
        return f"{shown}: {match[1]} is not one of {', '.join(_words(key))}"
    if "out of range" in text:  # an integer beyond what a float can be
        return f"{shown}: out of range: {_shown(value)}"
    text = text.partition(", got ")[0].replace("Expected ", "expected ")
    fix = "; write [ and ] around it" if text == "expected `array`" and isinstance(value, str) else ""
    text = re.sub(r"`([^`]*)`", lambda quoted: _types(quoted[1]), text)
    return f"{shown}: {text}, not {_shown(value)}{fix}"


def _place(names: list[str]) -> tuple[str, str]:
    """The key at a place, and how to show it: ``sign.domain.selectors`` as ``sign.domain 1.selectors``.

    :param names: of sections and keys, and positions in arrays.
    """
    struct: Any = Configuration
    key, shown = "", ""
    for name in names:
        if name.isdecimal():
            if isinstance(struct, type):  # operators count the tables of a section from 1
                shown += f" {int(name) + 1}"
            continue
        key, shown = f"{key}.{name}".lstrip("."), f"{shown}.{name}".lstrip(".")
        hint = get_type_hints(struct).get(name) if isinstance(struct, type) and issubclass(struct, Section) else None
        struct = row_type(hint) or hint
    return key, shown


_MISSING = re.compile(r"Object missing required field `(.+)`")
_BAD_WORD = re.compile(r"Invalid enum value (.+)")
#: msgspec's names of types, in TOML's words.
_TYPES = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "an array",
    "object": "a table",
}


def _types(names: str) -> str:
    """``int >= 0`` as ``an integer >= 0``, ``str | array | null`` as ``a string or an array``: TOML has no null."""
    words = re.sub(r"[a-z]+", lambda word: _TYPES.get(word[0], word[0]), names.removesuffix(" | null"))
    return words.replace(" | ", " or ")


def _value_at(data: Any, names: list[str]) -> Any:
    for name in names:
        data = data[int(name)] if isinstance(data, list) else data[name]
    return data


def _words(key: str) -> list[str]:
    """The allowed words of a key with a fixed vocabulary."""
    struct: Any = Configuration
    *sections, name = key.split(".")
    for section in sections:
        hint = get_type_hints(struct)[section]
        struct = row_type(hint) or hint
    hint = get_type_hints(struct)[name]
    if isinstance(hint, UnionType):  # such as Action | None
        hint = next(choice for choice in get_args(hint) if choice is not NoneType)
    if get_origin(hint) is tuple:
        hint = get_args(hint)[0]
    return [member.value for member in hint]
