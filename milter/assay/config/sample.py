# SPDX-License-Identifier: GPL-3.0-or-later
"""Write configurations: the annotated sample with all defaults, and the values in force."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, get_type_hints

import msgspec

from assay.config.configuration import Configuration
from assay.config.methods import ArcSealSection
from assay.config.responses import RuleSection
from assay.config.section import Section, row_type
from assay.config.sign import SignDomainSection
from assay.config.toml import key as toml_key
from assay.config.toml import toml

_WIDTH = 100
_HEAD = """\
# Every configuration key of assay, with its default. All keys are optional.
# After a change: "assay config check -c FILE", then reload the daemon (SIGHUP).
"""


_LISTS = """
# Lists in which rules can look up names and addresses, as name = "file". A file has one entry per line, as described in
# [addresses]; "#" begins a comment. A reload reads the files again.
[lists]

# Example:
#     partners = "/etc/assay/partners"
"""


def sample() -> str:
    """The annotated sample: every section and key with its purpose and its default, commented out."""
    parts = []
    for name, value in _sections(Configuration()):
        match value:
            case msgspec.Struct():
                parts.append(_section(name, value, annotated=True))
            case dict():
                parts.append(_LISTS)
            case _:
                parts.append(_rows_sample(RuleSection))
    return _HEAD + "\n".join(parts)


def show(configuration: Configuration) -> str:
    """The values in force, as a file that `load` accepts."""
    parts = []
    for name, value in _sections(configuration):
        match value:
            case msgspec.Struct():
                parts.append(_section(name, value, annotated=False))
            case dict():
                parts.append(
                    f"[{name}]\n" + "".join(f"{toml_key(key)} = {toml(item)}\n" for key, item in value.items())
                )
            case _:
                parts.extend(_rows(name, configuration.rule))
    return "\n".join(parts)


def _sections(configuration: Configuration) -> Iterator[tuple[str, object]]:
    for field in msgspec.structs.fields(Configuration):
        yield field.name, getattr(configuration, field.name)


def _section(name: str, section: msgspec.Struct, *, annotated: bool) -> str:
    lines = ["", *_comment(type(section).__doc__ or "")] if annotated else []
    lines.append(f"[{name}]")
    inner = []
    for field in msgspec.structs.fields(type(section)):
        value = getattr(section, field.name)
        if row := row_type(field.type):
            inner += [_rows_sample(row)] if annotated else _rows(f"{name}.{field.name}", value)
        elif isinstance(value, msgspec.Struct):
            inner.append(_section(f"{name}.{field.name}", value, annotated=annotated))
        elif annotated:
            lines += ["", *_description(type(section), field.name), *_sample_value(field.name, value)]
        elif value is not None:
            lines.append(f"{field.name} = {toml(value)}")
    return "\n".join(["\n".join(lines) + "\n", *inner])


def _rows(name: str, rows: tuple[Section, ...]) -> list[str]:
    """The tables of a ``[[section]]``."""
    return [_section(name, row, annotated=False).replace(f"[{name}]", f"[[{name}]]", 1) for row in rows]


def _rows_sample(row: type[Section]) -> str:
    """The tables of a ``[[section]]`` have no defaults: the sample describes their keys and gives one example."""
    lines = ["", *_comment(row.__doc__ or "")]
    for field in msgspec.structs.fields(row):
        lines += [
            "",
            *(
                f"# {field.name}: {line[2:]}" if not at else line
                for at, line in enumerate(_description(row, field.name))
            ),
        ]
    return "\n".join(lines) + _EXAMPLES[row]


_RULE_EXAMPLE = """

# Example:
#     [[rule]]
#     name = "no mail from nowhere"
#     stage = "mail"
#     when = 'iprev.result == "permerror" && spf.mailfrom.result != "pass"'
#     action = "reject"
#     reason = "neither name nor SPF"
"""
_SIGN_EXAMPLE = """

# Example:
#     [[sign.domain]]
#     domain = "example.org"
#     selectors = ["r2026", "e2026"]
#     key_files = ["/etc/assay/keys/r2026.pem", "/etc/assay/keys/e2026.pem"]
"""
_SEAL_EXAMPLE = """

# Example:
#     [[arc.seal]]
#     domain = "example.org"
#     selector = "arc2026"
#     key_file = "/etc/assay/keys/arc2026.pem"
"""
_EXAMPLES = {ArcSealSection: _SEAL_EXAMPLE, RuleSection: _RULE_EXAMPLE, SignDomainSection: _SIGN_EXAMPLE}


def _description(section: type, key: str) -> list[str]:
    hint = get_type_hints(section, include_extras=True)[key]
    (meta,) = hint.__metadata__
    return _comment(meta.description + _choices(hint))


def _sample_value(key: str, value: object) -> list[str]:
    """The default, commented out. A key that takes its default from another key has no value to show."""
    if value is None:
        return [f"# {key} is not set"]
    line = f"#{key} = {toml(value)}"
    if len(line) <= _WIDTH or not isinstance(value, tuple):
        return [line]
    indent = "#" + " " * 4
    # textwrap also breaks at a space inside a member. No default of this length has one.
    members = textwrap.wrap(
        toml(value)[1:-1], _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return [f"#{key} = [", *members, "#]"]


def _choices(hint: Any) -> str:
    """The allowed words of a key with a fixed vocabulary."""
    words = getattr(hint.__origin__, "__members__", None)
    if words is None:
        return ""
    return " One of: " + ", ".join(member.value for member in words.values()) + "."


def _comment(text: str) -> list[str]:
    return ["# " + line for line in textwrap.wrap(" ".join(text.split()), _WIDTH - 2)]
