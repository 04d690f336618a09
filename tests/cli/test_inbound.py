# SPDX-License-Identifier: GPL-3.0-or-later
"""Inputs from public bug reports, each through ``assay check --explain``.

They are read in place: ``../shared/cases`` beside the project, or ``$ASSAY_CASES``; their README describes them.
"""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from assay.cli.main import main

FOLDER = Path(os.environ.get("ASSAY_CASES", Path(__file__).resolve().parents[3] / "shared" / "cases"))

#: Cases that still fail, with the reason.
EXPECTED_FAILURES: dict[str, str] = {}


def cases() -> list[Any]:
    file = FOLDER / "inbound.jsonl"
    if not file.is_file():
        return [pytest.param({}, marks=pytest.mark.skip(reason=f"no cases in {FOLDER}"))]
    found = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return [
        pytest.param(
            case,
            id=case["id"],
            marks=[pytest.mark.xfail(reason=EXPECTED_FAILURES[case["id"]], strict=True)]
            if case["id"] in EXPECTED_FAILURES
            else [],
        )
        for case in found
    ]


@pytest.mark.parametrize("case", cases())
def test_a_reported_input(case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in case["files"].items():
        (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "message").write_bytes(base64.b64decode(case["message_b64"]))
    configuration = tmp_path / "assay.toml"
    configuration.write_text(case["config"].replace("@/", f"{tmp_path}/"), "utf-8")
    arguments = ["check", str(tmp_path / "message"), *case["args"], "-c", str(configuration), "--explain"]
    assert main(arguments) == os.EX_OK
    reported = re.sub(r"\n[ \t]+", " ", capsys.readouterr().out)
    for text in case["expect"]:
        assert text in reported, case["why"]
    for text in case["unwanted"]:
        assert text not in reported, case["why"]
