# SPDX-License-Identifier: GPL-3.0-or-later
"""One list of findings: every report has all of them, also of a method that is added."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay import findings
from assay.assessment import Assessment
from assay.cli.main import main
from assay.daemon.journal import message_fields
from assay.findings import Finding
from assay.log import pairs
from assay.protocol.authres import Property
from sending import GOOD, MESSAGE
from talking import deliver, inserted


def toy(assessment: Assessment) -> Iterator[Finding]:
    """A method that believes whoever says HELO nicely (it borrows the registered name of another)."""
    result = "pass" if assessment.client.helo else "fail"
    where = (Property("header", "md", "toy.example"),)
    yield Finding("vbr", result, about="toy", reason="it said HELO", properties=where, key="toy")


@pytest.fixture
def with_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "METHODS", (*findings.METHODS, toy))


def test_a_new_method_is_in_the_header_and_in_the_log(with_toy: None) -> None:
    (verdict,) = deliver({}, client=GOOD, helo="mail.example.org", mail_from="<joe@example.org>")
    assert "vbr=pass header.md=toy.example" in " ".join(inserted(verdict)[0].split())
    assert " toy=pass " in pairs(message_fields(verdict, waited=0.0))


def test_a_new_method_is_explained(with_toy: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "message").write_bytes(MESSAGE)
    (tmp_path / "toml").write_text('[dns]\nnameservers = "none"\n')
    command = ["check", str(tmp_path / "message"), "--ip", GOOD, "--helo", "h.example", "-c", str(tmp_path / "toml")]
    main([*command, "--mail-from", "joe@example.org", "--explain"])
    assert "vbr      pass (toy): it said HELO" in capsys.readouterr().out
    main([*command, "--mail-from", "joe@example.org", "--json"])
    (found,) = [one for one in json.loads(capsys.readouterr().out)["findings"] if one["method"] == "vbr"]
    assert (found["result"], found["about"]) == ("pass", "toy")


def test_sender_id_is_explained_like_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "message").write_bytes(MESSAGE)
    (tmp_path / "toml").write_text('[dns]\nnameservers = "none"\n[senderid]\nenabled = true\n')
    command = ["check", str(tmp_path / "message"), "--ip", GOOD, "--helo", "h.example", "-c", str(tmp_path / "toml")]
    main([*command, "--mail-from", "joe@example.org", "--explain"])
    assert "sender-id" in capsys.readouterr().out
