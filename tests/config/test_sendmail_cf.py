# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay config check --sendmail-cf``: what in Sendmail's configuration does not fit ours.

``tests/mta/test_wrong_sendmail.py`` tries the common ones with the real Sendmail.
"""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from assay.cli.main import main
from assay.config import Configuration
from assay.config.sendmail import SendmailError, differences, parse

INET = {"milter": {"socket": "inet:8890@127.0.0.1"}}
LISTED = "O InputMailFilters=assay\n"
LINE = "Xassay, S=inet:8890@127.0.0.1, F=T, T=C:30s;S:30s;R:60s;E:5m\n"
SIGNS = {"sign": {"domain": [{"domain": "example.org", "selectors": ["r"], "key_files": ["/r.pem"]}]}}
NO_TO = {"sign": SIGNS["sign"] | {"oversigned_fields": ["From"]}}
ADDS_TO = "O NoRecipientAction=add-to\n"
EARLY = {"rule": [{"name": "x", "stage": "mail", "when": "true", "action": "reject"}]}

FITTING: dict[str, tuple[dict[str, Any], str]] = {
    "To is added to mail that nothing signs": (INET, LISTED + LINE + ADDS_TO),
    "To is added, and the signature allows it": (INET | NO_TO, LISTED + LINE + ADDS_TO),
    "Bcc is added": (INET | SIGNS, LISTED + LINE + "O NoRecipientAction=add-bcc\n"),
    "the snippet": (INET, LISTED + LINE),
    "a list that is continued": (INET, "O InputMailFilters=assay,\n\tother\nXother, S=unix:/x\n" + LINE),
    "F=4": (INET, LISTED + LINE.replace("F=T", "F=4")),
    "no times": (INET, LISTED + "Xassay, S=inet:8890@127.0.0.1, F=T\n"),
    "a bare path": ({}, LISTED + "Xassay, S=/run/assay/assay.sock, F=T\n"),
    "a time-out as long as old workers drain": (INET, LISTED + LINE.replace("E:5m", "E:330")),
    "a time of several parts": (INET, LISTED + LINE.replace("E:5m", "E:1m30s")),
    "a daemon with its own list": (
        INET,
        LISTED + LINE + "O DaemonPortOptions=Name=MTA, Port=25, InputMailFilters=other; assay\n",
    ),
}
DIFFERING: dict[str, tuple[dict[str, Any], str, str]] = {
    "To is added after the signature": (
        INET | SIGNS,
        LISTED + LINE + ADDS_TO,
        "NoRecipientAction = add-to: a message without recipients in its header gets To after it is signed",
    ),
    "To with no address is added after the signature": (
        INET | SIGNS,
        LISTED + LINE + ADDS_TO.replace("add-to", "add-to-undisclosed"),
        "NoRecipientAction = add-to-undisclosed: a message without recipients in its header gets To after it is",
    ),
    "nothing": (INET, "O QueueLA=8\n", "sendmail.cf: no filter has the socket of this configuration; write INPUT_MAIL"),
    "another socket": (INET, LISTED + LINE.replace("8890", "9"), "sendmail.cf: no filter has the socket of this"),
    "any host": (
        {"milter": {"socket": "inet6:8890"}},
        LISTED,
        "sendmail.cf: no filter has the socket of this configuration; write INPUT_MAIL_FILTER(`assay', "
        "`S=inet6:8890@::1, F=T, T=",
    ),
    "not the first": (
        INET,
        "O InputMailFilters=spam, assay\nXspam, S=unix:/x\n" + LINE,
        "InputMailFilters = spam, assay: assay is not the first, so the others see forged",
    ),
    "a daemon with another list": (
        INET,
        LISTED + LINE + "O DaemonPortOptions=Name=MSA, Port=587, InputMailFilters=other, M=E\n",
        "DaemonPortOptions = Name=MSA, Port=587, InputMailFilters=other, M=E: InputMailFilters=other replaces Input",
    ),
    "no host": (INET, LISTED + LINE + "Xb, S=inet:9\n", "Xb, S=inet:9: Sendmail cannot use it: write inet:9@127.0.0.1"),
    "a relative path": (INET, LISTED + LINE + "Xb, S=unix:a/s\n", "Xb, S=unix:a/s: Sendmail cannot use it: write the"),
    "no socket": (INET, LISTED + LINE + "Xb, F=T\n", "Xb, S=: Sendmail cannot use it: '' is not a socket address; "),
    "a time-out for commands": (
        INET | EARLY,
        LISTED + "Xassay, S=inet:8890@127.0.0.1, F=T\n",
        "Xassay, T=R:10s (the default): assay may take 30 s (dns.budget_seconds = 40); write R:30s or more",
    ),
    "a time-out that is too short for both": (
        {"milter": INET["milter"] | {"drain_seconds": 30}},
        LISTED + LINE.replace("E:5m", "E:40s"),
        "Xassay, T=E:40s: assay may take 50 s (dns.budget_seconds = 40); write E:50s or more",
    ),
    "a long time-out": (
        INET,
        LISTED + LINE.replace("E:5m", "E:10m"),
        "milter.drain_seconds = 330: shorter than T=E:10m, so a restart may end a session in which Sendmail",
    ),
    "not a time": (INET, LISTED + LINE.replace("E:5m", "E:soon"), "Xassay, T=E:soon: not a time"),
    "a time with too many digits": (INET, LISTED + LINE.replace("5m", "9" * 5000), "Xassay, T=E:999"),
    # It once took twice as long with each further digit.
    "digits and no time": (INET, LISTED + LINE.replace("5m", "1" * 100 + "x"), "Xassay, T=E:111"),
}


def warnings(values: dict[str, Any], text: str) -> list[str]:
    return list(differences(msgspec.convert(values, Configuration), parse(text)))


@pytest.mark.parametrize(("values", "text"), FITTING.values(), ids=FITTING)
def test_what_fits(values: dict[str, Any], text: str) -> None:
    assert warnings(values, text) == []


@pytest.mark.parametrize(("values", "text", "begins"), DIFFERING.values(), ids=DIFFERING)
def test_what_differs(values: dict[str, Any], text: str, begins: str) -> None:
    (said,) = warnings(values, text)
    assert said.startswith(begins)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's permissions: run the tests as root")
def test_a_sendmail_that_is_not_root_needs_permission() -> None:
    with tempfile.TemporaryDirectory(dir="/run") as folder, socket.socket(socket.AF_UNIX) as listening:
        Path(folder).chmod(0o755)
        listening.bind(f"{folder}/s")
        Path(folder, "s").chmod(0o660)
        values = {"milter": {"socket": f"unix:{folder}/s"}}
        text = LISTED + LINE.replace("inet:8890@127.0.0.1", f"unix:{folder}/s")
        assert warnings(values, text) == []
        (said,) = warnings(values, text + "O RunAsUser=daemon:daemon\n")
        assert 'daemon may not write to it (root:root 0660); set milter.socket_group = "daemon"' in said


def test_what_sendmail_is_told_to_trust_is_not_unsafe(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    values = {"milter": {"socket": f"unix:{tmp_path}/s"}}
    text = LISTED + LINE.replace("inet:8890@127.0.0.1", f"unix:{tmp_path}/s")
    before = warnings(values, text + "O DontBlameSendmail=TrustStickyBit,GroupWritableDirPathSafe\n")
    tmp_path.chmod(0o1777)
    assert warnings(values, text + "O DontBlameSendmail=TrustStickyBit,GroupWritableDirPathSafe\n") == before
    tmp_path.chmod(0o775)
    assert warnings(values, text + "O DontBlameSendmail=TrustStickyBit,GroupWritableDirPathSafe\n") == before
    (said,) = warnings(values, text + "O DontBlameSendmail=TrustStickyBit\n")
    assert f"group may write to {tmp_path} " in said


def test_a_shared_directory_stays_open() -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:
        text = LISTED + LINE.replace("inet:8890@127.0.0.1", f"unix:{file.name}")
        (said,) = warnings({"milter": {"socket": f"unix:{file.name}"}}, text)[-1:]
        assert "; put the socket in a directory of its own, such as /run/assay" in said
        assert "chmod" not in said


@pytest.mark.parametrize("text", ["", "hello\n", "INPUT_MAIL_FILTER(`assay', `S=unix:/x')dnl\n", "\0\n"])
def test_what_is_no_sendmail_cf(text: str) -> None:
    with pytest.raises(SendmailError, match=r"not a sendmail\.cf"):
        parse(text)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sendmail.cf"
    file.write_text(LISTED)
    assert main(["config", "check", "--sendmail-cf", str(file)]) == 0
    assert "warning: sendmail.cf: no filter has the socket" in capsys.readouterr().err
    file.write_bytes(b"# f\xfcr alle\n" + LISTED.encode())
    assert main(["config", "check", "--sendmail-cf", str(file)]) == 0
    assert "warning: sendmail.cf: no filter has the socket" in capsys.readouterr().err
    file.write_text("dnl nothing\n")
    assert main(["config", "check", "--sendmail-cf", str(file)]) == 65
    assert f"{file}: not a sendmail.cf" in capsys.readouterr().err
