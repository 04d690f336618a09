# SPDX-License-Identifier: GPL-3.0-or-later
"""The published suites, read where they lie: ``../shared/conformance`` beside the project, or ``$ASSAY_CONFORMANCE``.

A case is the JSON object as its README describes it. Suites are facts to meet: nothing in ``milter/`` knows them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(os.environ.get("ASSAY_CONFORMANCE", Path(__file__).resolve().parents[3] / "shared" / "conformance"))
Case = dict[str, Any]


def load(*kinds: str) -> list[Case]:
    """All cases of these kinds, in the order of the files; none where the folder is absent."""
    cases = (
        json.loads(line) for path in sorted(FOLDER.glob("*.jsonl")) for line in path.read_text().splitlines() if line
    )
    return [case for case in cases if case["kind"] in kinds]


def parameters(*kinds: str) -> list[Any]:
    """The undisputed cases as pytest parameters, one test id a case; one skipped parameter without the folder."""
    cases = [pytest.param(case, id=case["id"]) for case in load(*kinds) if not case.get("disputed")]
    return cases or [pytest.param({}, marks=pytest.mark.skip(reason=f"no published cases in {FOLDER}"))]
