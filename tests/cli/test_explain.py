# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay check``: which key or rule decided, at which stage, and what is only watched."""

from __future__ import annotations

import json
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
    ("configuration", "told", "ends"),
    [
        pytest.param("", ["decision accept"], None, id="nothing asks for anything"),
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
            id="a key that is only watched",
        ),
        pytest.param(
            '[[rule]]\nname = "a"\nwhen = "true"\naction = "discard"\nreason = "why"\ndry_run = true\n'
            '[[rule]]\nname = "b"\nwhen = "true"\naction = "quarantine"\nreason = "because"\n',
            ["decision quarantine, by rule b: because", "watched  discard, by rule a: why"],
            "quarantined: rule b: because",
            id="a rule behind one that is only watched",
        ),
        pytest.param(
            '[milter]\ndry_run = true\n[spf.mailfrom]\nfail = "reject"\n',
            [f"decision reject, by spf.mailfrom.fail: {REASON} (dry run: not carried out)", f"reply    {REPLY}"],
            None,
            id="a dry run of all",
        ),
        pytest.param(
            '[clients]\nexempt_senders = ["example.org"]\n[spf.mailfrom]\nfail = "reject"\n',
            ["decision accept: not acted on: exempt sender", f"watched  reject, by spf.mailfrom.fail: {REASON}"],
            None,
            id="an exempt sender",
        ),
    ],
)
def test_what_decided(tmp_path: Path, configuration: str, told: list[str], ends: str | None) -> None:
    lines = explain(tmp_path, configuration, "--explain")
    end = lines.index("")
    assert lines[end - len(told) : end] == told
    assert ends in lines[end:] if ends else not any(line.startswith(("refused", "quarantined")) for line in lines)


def test_a_stage_before_the_end_decides(tmp_path: Path) -> None:
    lines = explain(tmp_path, '[spf.mailfrom]\nfail = "reject"\nstage = "mail"\n', "--explain")
    assert f"decision reject at mail, by spf.mailfrom.fail: {REASON}" in lines
    assert any(line.startswith("dmarc    fail") for line in lines), "what comes behind is told all the same"
    assert lines[-1] == f"refused at mail: {REPLY}"


RCPT_RULE = '[[rule]]\nname = "ann"\nstage = "rcpt"\nwhen = \'"ann@b.example" in rcpt\'\naction = "reject"\n'


@pytest.mark.parametrize(
    ("recipients", "refused"),
    [(("ann@b.example",), True), (("ann@b.example", "bob@b.example"), False), (("bob@b.example",), False)],
)
def test_recipients_are_told_one_by_one(tmp_path: Path, recipients: tuple[str, ...], refused: bool) -> None:
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
