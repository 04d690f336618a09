# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay check``: which key or rule decided, at which stage, and what only watches."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sending import BAD, MESSAGE

ZONE = """\
example.org. TXT "v=spf1 ip4:192.0.2.1 -all"
_dmarc.example.org. TXT "v=DMARC1; p=reject"
"""
REASON = f"example.org does not permit {BAD}, by -all"
REPLY = f"550 5.7.23 SPF of MAIL FROM: {REASON}"


def explain(folder: Path, configuration: str, *more: str) -> list[str]:
    """The output of a message from a client that may not send it."""
    (folder / "zone").write_text(ZONE)
    (folder / "message").write_bytes(MESSAGE)
    (folder / "assay.toml").write_text(f'[dns]\nnameservers = "none"\nzone = "{folder}/zone"\n{configuration}')
    envelope = ("--ip", BAD, "--helo", "mail.example.org", "--mail-from", "joe@example.org")
    ended = subprocess.run(
        [sys.executable, "-m", "assay", "check", folder / "message", *envelope, "-c", folder / "assay.toml", *more],
        capture_output=True,
        timeout=60,
        check=True,
        text=True,
    )
    return ended.stdout.splitlines()


@pytest.mark.parametrize(
    ("configuration", "reported", "ends"),
    [
        pytest.param("", ["decision accept"], None, id="no action configured"),
        pytest.param(
            '[spf.mailfrom]\nfail = "reject"\n',
            [f"decision reject, by spf.mailfrom.fail: {REASON}", f"reply    {REPLY}"],
            f"refused: {REPLY}",
            id="a key at the end of the message",
        ),
        pytest.param(
            '[spf.mailfrom]\nfail = "reject"\ndry_run = true\n',
            ["decision accept", f"watched  reject, by spf.mailfrom.fail: {REASON}"],
            None,
            id="a key in dry run",
        ),
        pytest.param(
            '[[rule]]\nname = "a"\nwhen = "true"\naction = "discard"\nreason = "why"\ndry_run = true\n'
            '[[rule]]\nname = "b"\nwhen = "true"\naction = "quarantine"\nreason = "because"\n',
            ["decision quarantine, by rule b: because", "watched  discard, by rule a: why"],
            "quarantined: rule b: because",
            id="a rule after one in dry run",
        ),
        pytest.param(
            '[milter]\ndry_run = true\n[spf.mailfrom]\nfail = "reject"\n',
            [f"decision reject, by spf.mailfrom.fail: {REASON} (dry run: not carried out)", f"reply    {REPLY}"],
            None,
            id="a global dry run",
        ),
        pytest.param(
            '[clients]\nexempt_senders = ["example.org"]\n[spf.mailfrom]\nfail = "reject"\n',
            ["decision accept: not acted on: exempt sender", f"watched  reject, by spf.mailfrom.fail: {REASON}"],
            None,
            id="an exempt sender",
        ),
    ],
)
def test_the_decision_and_its_origin(tmp_path: Path, configuration: str, reported: list[str], ends: str | None) -> None:
    lines = explain(tmp_path, configuration, "--explain")
    end = lines.index("")
    assert lines[end - len(reported) : end] == reported
    assert ends in lines[end:] if ends else not any(line.startswith(("refused", "quarantined")) for line in lines)


def test_an_earlier_stage_decides(tmp_path: Path) -> None:
    lines = explain(tmp_path, '[spf.mailfrom]\nfail = "reject"\nstage = "mail"\n', "--explain")
    assert f"decision reject at mail, by spf.mailfrom.fail: {REASON}" in lines
    assert any(line.startswith("dmarc    fail") for line in lines), "later results are reported as well"
    assert lines[-1] == f"refused at mail: {REPLY}"


RCPT_RULE = '[[rule]]\nname = "ann"\nstage = "rcpt"\nwhen = \'"ann@b.example" in rcpt\'\naction = "reject"\n'


@pytest.mark.parametrize(
    ("recipients", "refused"),
    [(("ann@b.example",), True), (("ann@b.example", "bob@b.example"), False), (("bob@b.example",), False)],
)
def test_each_recipient_is_reported(tmp_path: Path, recipients: tuple[str, ...], refused: bool) -> None:
    options = [option for one in recipients for option in ("--rcpt", one)]
    lines = explain(tmp_path, RCPT_RULE, "--explain", *options)
    assert ("decision reject at rcpt of ann@b.example, by rule ann" in lines) is ("ann@b.example" in recipients)
    assert lines[-1].startswith("refused at rcpt: 550 5.7.1 ") is refused


def test_json_has_the_stages_too(tmp_path: Path) -> None:
    lines = explain(tmp_path, RCPT_RULE, "--json", "--rcpt", "ann@b.example", "--rcpt", "bob@b.example")
    found = json.loads("\n".join(lines))
    assert (found["action"], found["stage"]) == ("accept", "eom")
    (earlier,) = found["earlier"]
    assert (earlier["stage"], earlier["action"], earlier["decision"]["by"]) == ("rcpt", "reject", "rule ann")
    assert found["assessment"]["dmarc"]["result"] == "fail"


def test_all_changes_of_a_message_are_printed(tmp_path: Path) -> None:
    (tmp_path / "secrets").touch(0o600)
    (tmp_path / "secrets").write_text("a secret for the tests")
    srs = f'[srs]\ndomain = "srs.example"\nsecrets_file = "{tmp_path}/secrets"\n'
    rule = '[[rule]]\nname = "a"\nwhen = "true"\ntag_subject = "[x] "\nadd_recipients = ["copy@example.net"]\n'
    lines = explain(tmp_path, srs + rule, "--rcpt", "ann@b.example")
    assert "changed: Subject, number 1: [x] x" in lines
    assert "recipient added: <copy@example.net>" in lines
    (sender,) = [line for line in lines if line.startswith("sender changed to: ")]
    (address,) = re.findall("<(SRS0=.*)>", sender)
    assert f"recipient removed: <{address}>" in explain(tmp_path, srs, "--rcpt", address)
