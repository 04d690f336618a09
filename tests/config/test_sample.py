# SPDX-License-Identifier: GPL-3.0-or-later
"""The sample and the code cannot drift, and what is shown can be loaded."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from assay.config import Configuration, load, sample, show

COMMITTED = Path(__file__).parents[2] / "docs" / "assay.toml.sample"


def loaded(folder: Path, text: str) -> Configuration:
    path = folder / "assay.toml"
    path.write_text(text, "utf-8")
    return load(path)


def test_the_sample_is_loadable_as_it_is(tmp_path: Path) -> None:
    assert loaded(tmp_path, sample()) == Configuration()


def test_uncommented_it_is_the_defaults(tmp_path: Path) -> None:
    text = re.sub(r"^#(?=\w)", "", sample(), flags=re.MULTILINE)
    assert text != sample()
    assert loaded(tmp_path, text) == Configuration()


def test_it_has_every_key_once(tmp_path: Path) -> None:
    keys = re.findall(r"^#(\w+) = ", sample(), flags=re.MULTILINE)
    known = [
        field.name
        for section in msgspec.structs.fields(Configuration)
        for field in msgspec.structs.fields(section.type)
    ]
    assert keys == known


def test_every_line_is_short_enough_to_read() -> None:
    assert max(map(len, sample().splitlines())) <= 120


def test_the_committed_sample_is_current() -> None:
    assert COMMITTED.read_text("utf-8") == sample(), "run: assay config sample > docs/assay.toml.sample"


ODD = {
    "milter": {"socket": 'unix:/tmp/a "b"\\c\té\x7f', "workers": 3, "dry_run": True, "drain_seconds": 0.00001},
    "identity": {"authserv_id": "mx.example.net", "strip": ("a.example", "b.example")},
    "clients": {"internal": ()},
    "dns": {"nameservers": ("192.0.2.53", "[2001:db8::53]:5353"), "zone": "/tmp/line\nbreak\r"},
    "dmarc": {"reject": "reject"},
}


@pytest.mark.parametrize("values", [{}, ODD], ids=["defaults", "odd characters"])
def test_what_is_shown_can_be_loaded_again(tmp_path: Path, values: dict[str, dict[str, object]]) -> None:
    configuration = msgspec.convert(values, Configuration)
    assert loaded(tmp_path, show(configuration)) == configuration
