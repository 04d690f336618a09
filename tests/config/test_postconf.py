# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay config check --postconf``: what in Postfix's configuration does not fit ours."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from assay.cli.main import main
from assay.config import Configuration
from assay.config.postconf import PostconfError, differences, parse
from mta.base import MTAS, library_path
from mta.postfix import SNIPPET

PATH = {"milter": {"socket": "unix:/var/spool/postfix/assay/assay.sock"}}
INET = {"milter": {"socket": "inet:8890@127.0.0.1"}}
INET6 = {"milter": {"socket": "inet6:8890@::1"}}
OURS = "smtpd_milters = unix:assay/assay.sock\n"
EARLY = {"rule": [{"name": "x", "stage": "mail", "when": "true", "action": "reject"}]}

FITTING: dict[str, tuple[dict[str, Any], str]] = {
    "below the queue directory": (PATH, OURS),
    "an absolute path": (PATH, "smtpd_milters = unix:/var/spool/postfix/assay/assay.sock\n"),
    "another queue directory": (
        {"milter": {"socket": "unix:/q/a"}},
        "queue_directory = /q\nsmtpd_milters = unix:a\n",
    ),
    "a port": (INET, "smtpd_milters = inet:127.0.0.1:8890\n"),
    "a port by IPv6": (INET6, "smtpd_milters = inet:[::1]:8890\n"),
    "the first of several": (PATH, "smtpd_milters = unix:assay/assay.sock, inet:localhost:11332\n"),
    "with parameters of its own": (
        PATH,
        "milter_content_timeout = 10s\nmilter_default_action = accept\n"
        "smtpd_milters = { unix:assay/assay.sock, content_timeout = 60s, default_action=tempfail }, unix:x\n",
    ),
    "in minutes": (PATH, OURS + "milter_content_timeout = 5m\n"),
    "a short command_timeout that does not matter": (PATH, OURS + "milter_command_timeout = 1s\n"),
    "the protocol with a suffix": (PATH, OURS + "milter_protocol = 6 no_reply\n"),
}

#: Configuration, output of postconf, and the beginning of the only warning.
DIFFERING: dict[str, tuple[dict[str, Any], str, str]] = {
    "no milter": (
        PATH,
        "smtpd_milters =\n",
        "smtpd_milters = (empty): not the socket of this configuration; write smtpd",
    ),
    "not set": (PATH, "myhostname = a\n", "smtpd_milters = (empty): "),
    "another path": (
        PATH,
        "smtpd_milters = unix:/run/assay/assay.sock\n",
        "smtpd_milters = unix:/run/assay/assay.sock: not the socket of this configuration; write smtpd_milters = "
        "unix:assay/assay.sock,",
    ),
    "Sendmail's notation": (INET, "smtpd_milters = inet:8890@127.0.0.1\n", "smtpd_milters = inet:8890@127.0.0.1: not "),
    "another port": (INET6, "smtpd_milters = inet:[::1]:8891\n", "smtpd_milters = inet:[::1]:8891: not the socket"),
    "not the first": (
        PATH,
        "smtpd_milters = inet:localhost:1 unix:assay/assay.sock\n",
        "smtpd_milters: assay is not the",
    ),
    "maps": (PATH, OURS + "smtpd_milter_maps = cidr:/x\n", "smtpd_milter_maps replaces smtpd_milters for some"),
    "local mail": (PATH, OURS + "non_smtpd_milters = unix:assay/assay.sock\n", "non_smtpd_milters has assay: "),
    "accept": (PATH, OURS + "milter_default_action = accept\n", "milter_default_action = accept: while assay does not"),
    "reject": (PATH, OURS + "milter_default_action = reject\n", "milter_default_action = reject: mail is lost or kept"),
    "an old protocol": (PATH, OURS + "milter_protocol = 2\n", "milter_protocol = 2: octets of header fields change"),
    "a short time-out": (
        PATH,
        OURS + "milter_content_timeout = 49s\n",
        "milter_content_timeout = 49s: assay may take 50 s (dns.budget_seconds = 40); write milter_content_timeout = ",
    ),
    "a short time-out before": (
        PATH | EARLY,
        OURS + "milter_command_timeout = 10s\n",
        "milter_command_timeout = 10s: ",
    ),
    "a long time-out": (
        PATH,
        OURS + "milter_content_timeout = 10m\n",
        "milter.drain_seconds = 330: shorter than milter_",
    ),
    "not a time": (PATH, OURS + "milter_content_timeout = soon\n", "milter_content_timeout = soon: not a time"),
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


@pytest.mark.parametrize("text", ["", "hello\n", "postconf: fatal: open main.cf\n", "\0\xff\n"])
def test_what_is_not_the_output_of_postconf(text: str) -> None:
    with pytest.raises(PostconfError, match="run: postconf"):
        parse(text)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "postconf").write_text("smtpd_milters = unix:x\n")
    assert main(["config", "check", "--postconf", str(tmp_path / "postconf")]) == 0
    assert "warning: smtpd_milters = unix:x: not the socket" in capsys.readouterr().err
    (tmp_path / "postconf").write_text("nothing\n")
    assert main(["config", "check", "--postconf", str(tmp_path / "postconf")]) == 65
    assert "'nothing' is not a line" in capsys.readouterr().err


def test_the_snippet_fits_as_the_real_postconf_prints_it(tmp_path: Path) -> None:
    program = MTAS / "postfix/usr/sbin/postconf"
    if not program.exists():
        pytest.skip(f"no Postfix in {MTAS}: run sh contrib/fetch.sh mta")
    (tmp_path / "main.cf").write_text(SNIPPET.read_text() + "compatibility_level = 3.6\n")
    (tmp_path / "master.cf").write_text("")
    ended = subprocess.run(
        [program, "-c", tmp_path], capture_output=True, text=True, check=True, env={"LD_LIBRARY_PATH": library_path()}
    )
    assert warnings(PATH, ended.stdout) == []
