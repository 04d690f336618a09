# SPDX-License-Identifier: GPL-3.0-or-later
"""What the resolver does over time, as the scripts in ``scripts/`` say. `scripted` describes their steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from resolver.scripted import SCRIPTS, Play


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.rpl")), ids=lambda path: path.stem)
def test_a_script_runs_to_its_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play(monkeypatch)
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        step = line.strip()
        if step and not step.startswith(";"):
            try:
                play.step(step)
            except (AssertionError, StopIteration, KeyError) as error:
                pytest.fail(f"{path.name}:{number}: {step}: {error}")
    play.end()


def test_there_are_scripts() -> None:
    assert len(list(SCRIPTS.glob("*.rpl"))) >= 8
