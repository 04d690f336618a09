# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay config check --postconf``: what in Postfix's configuration does not fit ours."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from assay.cli.main import main
from assay.config import Configuration
from assay.config.postconf import PostconfError, differences, parse
from mta.base import MTAS, library_path
from mta.postfix import SNIPPET
from signing import pem, rsa_key

PATH = {"milter": {"socket": "unix:/var/spool/postfix/assay/assay.sock"}}
INET = {"milter": {"socket": "inet:8890@127.0.0.1"}}
INET6 = {"milter": {"socket": "inet6:8890@::1"}}
OURS = "smtpd_milters = unix:assay/assay.sock\n"
EARLY = {"rule": [{"name": "x", "stage": "mail", "when": "true", "action": "reject"}]}

FITTING: dict[str, tuple[dict[str, Any], str]] = {
    "below the queue directory": (PATH, OURS),
    "an absolute path, and no chroot": (
        PATH,
        "smtpd_milters = unix:/var/spool/postfix/assay/assay.sock\nsmtp/inet/chroot = n\n1.2.3.4:25/inet/chroot = -\n",
    ),
    "local:": (PATH, "smtpd_milters = local:assay/assay.sock\n"),
    "by another parameter": (PATH, "assay = unix:assay/assay.sock\nsmtpd_milters = ${assay}, unix:x\n"),
    "a stage before the end, in Postfix's own time": (PATH | EARLY, OURS),
    "another queue directory": (
        {"milter": {"socket": "unix:/q/a"}},
        "queue_directory = /q\nsmtpd_milters = unix:a\n",
    ),
    "what looks like numbers": (
        PATH
        | {
            "arc": {
                "own_domains": ["example.org"],
                "seal": [{"domain": "example.org", "selector": "s", "key_file": "/s.pem"}],
            }
        },
        OURS + "milter_protocol = \N{SUPERSCRIPT TWO}\nsmtp_line_length_limit = \N{SUPERSCRIPT TWO}\n",
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
    "Sendmail's notation": (
        INET,
        "smtpd_milters = inet:8890@127.0.0.1\n",
        "smtpd_milters = inet:8890@127.0.0.1: 'inet:8890@127.0.0.1' is not in Postfix's notation (unix:PATH, ",
    ),
    "inet6": (INET6, "smtpd_milters = inet6:[::1]:8890\n", "smtpd_milters = inet6:[::1]:8890: 'inet6:[::1]:8890' is"),
    "a bare path": (PATH, "smtpd_milters = /assay.sock\n", "smtpd_milters = /assay.sock: '/assay.sock' is not in"),
    "an absolute path": (
        PATH,
        "smtpd_milters = unix:/var/spool/postfix/assay/assay.sock\n",
        "smtpd_milters = unix:/var/spool/postfix/assay/assay.sock: an smtpd in a chroot, as Debian has it, does not "
        "find an absolute path; write unix:assay/assay.sock. ",
    ),
    "a path outside of the chroot": (
        {},
        "smtpd_milters = unix:/run/assay/assay.sock\nsmtp/inet/chroot = y\nx/inet/chroot = n\n",
        "smtpd_milters = unix:/run/assay/assay.sock: an smtpd in a chroot, as Debian has it, does not find an absolute "
        "path; write milter.socket = 'unix:/var/spool/postfix/assay/assay.sock' and smtpd_milters = unix:assay/ass",
    ),
    "local mail by reference": (PATH, OURS + "non_smtpd_milters = $smtpd_milters\n", "non_smtpd_milters has assay: "),
    "another port": (INET6, "smtpd_milters = inet:[::1]:8891\n", "smtpd_milters = inet:[::1]:8891: not the socket"),
    "not the first": (
        PATH,
        "smtpd_milters = inet:localhost:1 unix:assay/assay.sock\n",
        "smtpd_milters: assay is not the",
    ),
    "maps": (PATH, OURS + "smtpd_milter_maps = cidr:/x\n", "smtpd_milter_maps replaces smtpd_milters for some"),
    "local mail in Sendmail's notation": (
        PATH,
        OURS + "non_smtpd_milters = inet:8890@127.0.0.1\n",
        "non_smtpd_milters = inet:8890@127.0.0.1: 'inet:8890@127.0.0.1' is not in Postfix's notation (unix:PATH, "
        "inet:HOST:PORT, inet:[ADDRESS]:PORT), and mail of the sendmail command waits in the queue; remove it there",
    ),
    "local mail": (PATH, OURS + "non_smtpd_milters = unix:assay/assay.sock\n", "non_smtpd_milters has assay: "),
    "accept": (PATH, OURS + "milter_default_action = accept\n", "milter_default_action = accept: while assay does not"),
    "reject": (PATH, OURS + "milter_default_action = reject\n", "milter_default_action = reject: mail is lost or kept"),
    "an old protocol": (PATH, OURS + "milter_protocol = 2\n", "milter_protocol = 2: octets of header fields change"),
    "an old protocol with flags": (PATH, OURS + "milter_protocol = 3, no_data\n", "milter_protocol = 3: octets of"),
    "a short line": (
        PATH
        | {
            "arc": {
                "own_domains": ["example.org"],
                "seal": [{"domain": "example.org", "selector": "s", "key_file": "/s.pem"}],
            }
        },
        OURS + "smtp_line_length_limit = 997\n",
        "smtp_line_length_limit = 997: longer lines are broken",
    ),
    "a short time-out": (
        PATH,
        OURS + "milter_content_timeout = 49s\n",
        "milter_content_timeout = 49s: assay may take 50 s (dns.budget_seconds = 40); write milter_content_timeout = ",
    ),
    "a short time-out before": (
        PATH | EARLY,
        OURS + "milter_command_timeout = 29s\n",
        "milter_command_timeout = 29s: assay may take 30 s (dns.budget_seconds = 40); ",
    ),
    "a long time-out": (
        PATH,
        OURS + "milter_content_timeout = 10m\n",
        "milter.drain_seconds = 330: shorter than milter_",
    ),
    "not a time": (PATH, OURS + "milter_content_timeout = soon\n", "milter_content_timeout = soon: not a time"),
    "too many digits": (PATH, OURS + f"milter_content_timeout = {'9' * 5000}\n", "milter_content_timeout = 999"),
}


def test_local_mail_is_signed_only_by_non_smtpd_milters(tmp_path: Path) -> None:
    (tmp_path / "s.pem").touch(0o600)
    (tmp_path / "s.pem").write_bytes(pem(rsa_key()))
    domain = {"domain": "example.org", "key_directory": str(tmp_path), "selectors": ["s"]}
    values = PATH | {"sign": {"domain": [domain]}}
    (said,) = warnings(values, OURS)
    assert said.startswith("non_smtpd_milters does not have assay: mail of the sendmail command is not signed; write ")
    assert warnings(values, OURS + "non_smtpd_milters = $smtpd_milters\n") == []
    (said,) = warnings(values, OURS + "non_smtpd_milters = /run/assay/assay.sock\n")
    assert said.endswith("waits in the queue; write non_smtpd_milters = unix:assay/assay.sock")
    (said,) = warnings(values, OURS + "non_smtpd_milters = unix:/var/spool/postfix/assay/assay.sock\n")
    assert said.startswith("non_smtpd_milters = unix:/var/spool/postfix/assay/assay.sock: a cleanup in a chroot, as ")
    assert "; write unix:assay/assay.sock." in said


#: Permissions of the directory and of the socket, and the fix for the user daemon, who owns neither.
PERMISSIONS: dict[str, tuple[int, int, str]] = {
    "open to all": (0o755, 0o666, ""),
    "a closed directory": (0o700, 0o666, "run: chgrp daemon {folder}; chmod g+x {folder}"),
    "a socket of root": (0o755, 0o660, 'set milter.socket_group = "daemon", or SocketGroup=daemon if assay.socket '),
    "a socket that may be read only": (0o755, 0o664, "daemon may not write to it (root:root 0664)"),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's permissions: run the tests as root")
@pytest.mark.parametrize(("folder_mode", "mode", "fix"), PERMISSIONS.values(), ids=PERMISSIONS)
def test_a_socket_that_postfix_may_not_use(folder_mode: int, mode: int, fix: str) -> None:
    # Not tmp_path, which nobody else may enter.
    with tempfile.TemporaryDirectory(dir="/run") as place, socket.socket(socket.AF_UNIX) as listening:
        folder = Path(place) / "assay"
        Path(place).chmod(0o755)
        folder.mkdir()
        listening.bind(str(folder / "assay.sock"))
        (folder / "assay.sock").chmod(mode)
        folder.chmod(folder_mode)
        text = f"queue_directory = {place}\nmail_owner = daemon\n" + OURS
        found = warnings({"milter": {"socket": f"unix:{folder}/assay.sock"}}, text)
        assert [fix.format(folder=folder) in said for said in found] == ([True] if fix else [])
        if fix:
            os.chown(folder, 0, pwd.getpwnam("daemon").pw_gid)
            os.chown(folder / "assay.sock", 0, pwd.getpwnam("daemon").pw_gid)
            folder.chmod(0o710)
            (folder / "assay.sock").chmod(0o660)
            assert warnings({"milter": {"socket": f"unix:{folder}/assay.sock"}}, text) == []


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


def real_postconf(folder: Path, *arguments: str) -> str:
    """What Postfix's own program prints of the configuration in a directory."""
    program = MTAS / "postfix/usr/sbin/postconf"
    if not program.exists():
        pytest.skip(f"no Postfix in {MTAS}: run sh contrib/fetch.sh mta")
    command = [program, "-c", folder, *arguments]
    environment = {"LD_LIBRARY_PATH": library_path()}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def test_the_snippet_fits_as_the_real_postconf_prints_it(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text(SNIPPET.read_text() + "compatibility_level = 3.6\n")
    (tmp_path / "master.cf").write_text("")
    assert warnings(PATH, real_postconf(tmp_path)) == []


@pytest.mark.parametrize(("chroot", "differs"), [("y", True), ("n", False)])
def test_the_chroot_as_the_real_postconf_prints_it(tmp_path: Path, chroot: str, differs: bool) -> None:
    text = "assay = unix:/run/assay/assay.sock\nsmtpd_milters = $assay\ncompatibility_level = 3.6\n"
    (tmp_path / "main.cf").write_text(text)
    (tmp_path / "master.cf").write_text(f"smtp inet n - {chroot} - - smtpd\n")
    printed = real_postconf(tmp_path) + real_postconf(tmp_path, "-F", "*/inet/chroot")
    assert ["in a chroot" in said for said in warnings({}, printed)] == [True] * differs


@pytest.mark.parametrize("option", ["--postconf", "--sendmail-cf"])
def test_a_file_of_the_mta_that_cannot_be_read(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file or directory")):
        assert main(["config", "check", option, str(path)]) == 66
        assert capsys.readouterr().err == f"assay config check: {path}: {why}\n"
