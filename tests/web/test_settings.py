# SPDX-License-Identifier: GPL-3.0-or-later
"""The line of each key in a configuration file, and each value in force."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from assay.config import Configuration, load, sample
from assay.web.settings import _worries, lines, values

FILE = '''\
# a comment with = and [section]
[milter] # workers = 3
workers = 2

[ identity ]
authserv_id = "mx = [odd]"
strip = [
    "a.example", # strip = 1
    "b.example",
]
[dkim]
min_rsa_bits = 2048
[lists]
"odd name" = "/l"
[replies.texts]
dmarc = """
workers = 5
"""
[[rule]]
name = "one"
when = \'\'\'
action = "x"
\'\'\'
action = "tag"
[[rule]]
name = "two"
'''


def test_each_key_has_its_line() -> None:
    assert lines(FILE) == {
        "milter.workers": 3,
        "identity.authserv_id": 6,
        "identity.strip": 7,
        "dkim.min_rsa_bits": 12,
        "lists.odd name": 14,
        "replies.texts.dmarc": 16,
        "rule 1.name": 20,
        "rule 1.when": 21,
        "rule 1.action": 24,
        "rule 2.name": 26,
    }


@pytest.mark.parametrize("text", ["", "[", "a = [\n" * 50, 'a = """', "\x00", "[[[]]]\n= 1"])
def test_what_is_no_configuration_has_no_lines_or_some(text: str) -> None:
    assert isinstance(lines(text), dict)


def test_each_value_in_force_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "assay.toml"
    path.write_text('[milter]\nworkers = 2\n[[rule]]\nname = "r"\nwhen = "true"\naction = "tag"\n')
    listed = dict(values(load(path)))
    assert listed["milter.workers"] == "2"
    assert listed["rule 1.action"] == '"tag"'
    sections = [field.name for field in msgspec.structs.fields(Configuration)]
    assert {key.partition(".")[0] for key in listed} >= {*sections} - {"rule", "lists"}
    assert set(lines(sample().replace("#", ""))) >= {"milter.workers", "web.listen"}


def test_a_file_that_is_not_in_force_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "assay.toml"
    path.write_text("[milter]\nworkers = 2\n")
    configuration = load(path)

    def told(fault: str = "") -> list[str]:
        return [remark.text for remark in _worries(path, path.read_text(), configuration, fault)]

    assert told() == []
    assert told("odd") == ["The last reload failed, and the old configuration is in force: odd"]
    path.write_text("[milter]\nworkers = 3\n")
    assert told() == ["The file has changed since it was read. A reload puts it in force."]
    path.write_text("[milter]\nworkers = 'x'\n")
    (text,) = told()
    assert text.startswith("The file has changed since it was read, and cannot be used: ")
