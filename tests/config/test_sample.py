# SPDX-License-Identifier: GPL-3.0-or-later
"""The sample cannot diverge from the code, and the output of ``show`` can be loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from assay.config import Configuration, load, sample, show
from assay.config.section import row_type

COMMITTED = Path(__file__).parents[2] / "docs" / "assay.toml.sample"


def loaded(folder: Path, text: str) -> Configuration:
    path = folder / "assay.toml"
    path.write_text(text, "utf-8")
    return load(path)


def test_the_sample_can_be_loaded_unchanged(tmp_path: Path) -> None:
    assert loaded(tmp_path, sample()) == Configuration()


def test_the_uncommented_sample_equals_the_defaults(tmp_path: Path) -> None:
    text = re.sub(r"^#(?=\w|    \"|\])", "", sample(), flags=re.MULTILINE)
    assert text != sample()
    assert loaded(tmp_path, text) == Configuration()


def keys(struct: type) -> Iterator[str]:
    """The keys of a section in the order of the sample: its own, then those of its subsections."""
    inner = []
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            inner.append(field.type)
        elif row_type(field.type):
            continue
        elif field.default is not None:
            yield field.name
    for section in inner:
        yield from keys(section)


def test_it_has_every_key_once() -> None:
    found = re.findall(r"^#(\w+) = ", sample(), flags=re.MULTILINE)
    known = [
        key
        for section in msgspec.structs.fields(Configuration)
        if isinstance(section.type, type) and issubclass(section.type, msgspec.Struct)
        for key in keys(section.type)
    ]
    assert found == known


def test_every_line_is_short_enough_to_read() -> None:
    assert max(map(len, sample().splitlines())) <= 120


def test_the_committed_sample_is_current() -> None:
    assert COMMITTED.read_text("utf-8") == sample(), "run: assay config sample > docs/assay.toml.sample"


ODD = {
    "milter": {"socket": 'unix:/tmp/a "b"\\c\té\x7f', "workers": 3, "dry_run": True, "drain_seconds": 0.00001},
    "identity": {"authserv_id": "mx.example.net", "strip": ("a.example", "b.example")},
    "clients": {"internal": ()},
    "dns": {"nameservers": ("192.0.2.53", "[2001:db8::53]:5353"), "zone": "/tmp/line\nbreak\r"},
    "spf": {"mailfrom": {"fail": "reject", "fail_all": "tag"}},
    "dmarc": {"reject": "reject"},
    "replies": {"texts": {"spf.mailfrom": "no {reason}"}},
    "lists": {"a b": "/tmp/a", "c": "/tmp/c"},
    "rule": ({"name": 'a "rule"', "when": "true"}, {"name": "b", "when": "helo == ''", "action": "reject"}),
}


@pytest.mark.parametrize("values", [{}, ODD], ids=["defaults", "odd characters"])
def test_the_output_of_show_can_be_loaded(tmp_path: Path, values: dict[str, dict[str, object]]) -> None:
    configuration = msgspec.convert(values, Configuration)
    assert loaded(tmp_path, show(configuration)) == configuration
