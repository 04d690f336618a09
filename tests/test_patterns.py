# SPDX-License-Identifier: GPL-3.0-or-later
"""No regular expression of ours takes more than linear time, whatever it is given.

Every pattern that a module keeps is tried with pumped text made of its own letters and of what mail is made of.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import assay

SIZE = 1500  # characters; the larger text has four times as many
MAX_GROWTH = 9  # linear is 4, quadratic 16
NOISE = 0.004  # seconds that say nothing on a shared machine

PUMPS = [
    *" \t\r\n;:,.=?@()<>[]\"'\\/%{}*-_!+~0a\x00\xff",
    "a.",
    "\\a",
    "=?",
    "a ",
    "a=",
    "()",
    '""',
    "\r\n ",
    "1.",
    "::",
    "%{",
    "a@",
]


SOURCE = "\n".join(path.read_text() for path in Path(assay.__file__).parent.rglob("*.py"))


def patterns() -> Iterator[tuple[str, re.Pattern[Any], bool]]:
    """(name, pattern, whether it is looked for anywhere in a text, or only where the text begins)."""
    for module in pkgutil.walk_packages(assay.__path__, "assay."):
        if module.name.endswith("__main__") or module.name.startswith("assay.config"):  # what an operator writes
            continue
        if module.name == "assay.store.migrations.env":  # only Alembic can run it
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, re.Pattern):
                ways = re.findall(
                    rf"\b{name}\.(\w+)", Path(importlib.import_module(module.name).__file__ or "").read_text()
                )
                passed = re.search(rf"[(,] ?{name}[),]", SOURCE) is not None  # to a function that takes it from there
                yield (
                    f"{module.name}.{name}",
                    value,
                    bool({*ways} - {"match", "fullmatch", "pattern"}) or (not ways and not passed),
                )


def heads(pattern: re.Pattern[Any]) -> list[str]:
    """Beginnings that may bring the pattern to its repetitions: its own literal words."""
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    return ["", *dict.fromkeys(re.findall(r"[A-Za-z]{2,}[:=]?", text)), "a", '"', "(", "<", "=?a?q?"][:12]


def seconds(pattern: re.Pattern[Any], text: str, anywhere: bool) -> float:
    data: Any = text if isinstance(pattern.pattern, str) else text.encode("latin-1")
    best = 1.0
    for _ in range(2):
        begun = time.process_time()
        pattern.match(data)
        pattern.fullmatch(data)
        if anywhere:
            for _ in pattern.finditer(data):
                pass
        best = min(best, time.process_time() - begun)
        if best < NOISE:
            break
    return best


@pytest.mark.parametrize(("name", "pattern", "anywhere"), [pytest.param(*one, id=one[0]) for one in patterns()])
def test_a_pattern_takes_linear_time(name: str, pattern: re.Pattern[Any], anywhere: bool) -> None:
    for head in heads(pattern):
        for pump in PUMPS:
            for tail in ("", "\x01"):
                large = seconds(pattern, head + pump * (4 * SIZE // len(pump)) + tail, anywhere)
                if large > NOISE:
                    small = seconds(pattern, head + pump * (SIZE // len(pump)) + tail, anywhere)
                    assert large < MAX_GROWTH * small + NOISE, (name, head, pump, small, large)


def possessive(parsed: Any) -> Iterator[Any]:
    """What is repeated possessively, wherever it is in a parsed pattern."""
    for operation, arguments in parsed:
        if str(operation) == "POSSESSIVE_REPEAT":
            yield arguments[2]
        for argument in arguments if isinstance(arguments, tuple) else (arguments,):
            for part in argument if isinstance(argument, list) else (argument,):
                if hasattr(part, "getwidth"):
                    yield from possessive(part)


@pytest.mark.parametrize(("name", "pattern"), [pytest.param(name, found, id=name) for name, found, _ in patterns()])
def test_only_single_characters_are_repeated_possessively(name: str, pattern: re.Pattern[Any]) -> None:
    """Python before 3.11.5, as in Debian 12, keeps what a last repetition has read before it failed.

    ``(?:ab?c)*+`` matches all of "aca" there. ``(?>(?:ab?c)*)`` is right everywhere.
    """
    parser = importlib.import_module("re._parser")
    for repeated in possessive(parser.parse(pattern.pattern, pattern.flags)):
        assert repeated.getwidth() == (1, 1), f"{name}: write (?>(?:...)*) for a group"
