# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Postfix, its smtpd in a chroot, that cannot reach the socket or does not use it: what it logs, what
``config check --postconf`` says, and that following it helps."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import smtplib
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from assay.config import Configuration
from assay.config.postconf import differences, parse
from mta.base import MTAS, PROJECT, UnavailableError, fields, free_port, library_path
from mta.postfix import OWNER, Postfix
from running import Daemon
from sending import ROWS
from signing import pem, rsa_key

TROUBLE = (PROJECT / "docs" / "trouble.md").read_text()
MESSAGE = b"From: joe@example.org\nSubject: x\n\nhello\n"


class Chrooted(Postfix):
    """Its smtpd is in a chroot, as Debian has it, and it takes mail of the sendmail command."""

    services = "pickup unix n - n 60 1 pickup\n"

    def configure(self) -> None:
        super().configure()
        master = self.directory / "etc" / "master.cf"
        master.write_text(re.sub(r" n - n - - smtpd$", " n - y - - smtpd", master.read_text(), flags=re.MULTILINE))

    def said(self, socket: str, **sections: Any) -> list[str]:
        """What `differences` says of its configuration, as its own postconf prints it."""
        printed = "".join(
            subprocess.run(
                [MTAS / "postfix/usr/sbin/postconf", "-c", self.directory / "etc", *arguments],
                capture_output=True,
                text=True,
                check=True,
                env={"LD_LIBRARY_PATH": library_path()},
            ).stdout
            for arguments in ([], ["-F", "*/inet/chroot"])
        )
        configuration = msgspec.convert({"milter": {"socket": socket}, **sections}, Configuration)
        return list(differences(configuration, parse(printed)))

    def post(self, message: bytes) -> None:
        """Send a message with the sendmail command."""
        command = MTAS / "postfix/usr/sbin/sendmail"
        subprocess.run(
            [command, "-C", self.directory / "etc", "-f", "joe@example.org", "reader@example.org"],
            input=message,
            check=True,
            env=self.environment(),
        )

    def reload(self, milters: str, name: str = "smtpd_milters") -> None:
        """Write ``smtpd_milters``, or another parameter, and start again as ``postfix reload`` does for smtpd."""
        self._stop()
        self.extra = {**(self.extra or {}), name: milters}  # type: ignore[dict-item]  # it is a mapping
        self._start()


@pytest.fixture
def mta() -> Iterator[Chrooted]:
    try:
        Chrooted.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    extra = {"smtpd_sasl_auth_enable": "no", "export_environment": "TZ LANG=C MAIL_CONFIG LD_LIBRARY_PATH"}
    with Chrooted("unix:/nowhere", extra=extra) as one:
        folder = one.directory / "queue" / "assay"
        folder.mkdir()
        os.chown(folder, 0, pwd.getpwnam(OWNER).pw_gid)
        folder.chmod(0o2750)
        yield one


def test_an_absolute_path_is_another_file_in_a_chroot(tmp_path: Path, mta: Chrooted) -> None:
    path = mta.directory / "queue" / "assay" / "assay.sock"
    with Daemon(tmp_path, ROWS, socket=f"unix:{path}"):
        mta.reload(f"unix:{path}")
        with pytest.raises(smtplib.SMTPResponseException) as refused:
            mta.submit(MESSAGE, sender="joe@example.org")
        assert refused.value.smtp_code == 451
        assert f"connect to Milter service unix:{path}: No such file or directory" in mta.log()
        assert "connect to Milter service unix:...: No such file or directory" in TROUBLE

        (chroot,) = (text for text in mta.said(f"unix:{path}") if "in a chroot" in text)
        (fix,) = re.findall(r"path; write (\S+)\.", chroot)
        mta.reload(fix)
        assert not any("chroot" in text or "socket" in text for text in mta.said(f"unix:{path}"))
        mta.submit(MESSAGE, sender="joe@example.org")
        (stored,) = mta.wait_for(1)
        assert fields(stored)[0][0] == "Authentication-Results"


def test_a_socket_that_the_chroot_may_not_use(tmp_path: Path, mta: Chrooted) -> None:
    """The socket is root's alone, and the advice is to give it Postfix's group."""
    path = mta.directory / "queue" / "assay" / "assay.sock"
    path.parent.chmod(0o755)  # without the setgid bit, the socket has the group of root
    os.chown(path.parent, 0, 0)
    mta.reload("unix:assay/assay.sock")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with Daemon(tmp_path / "a", ROWS, socket=f"unix:{path}"):
        with pytest.raises(smtplib.SMTPResponseException):
            mta.submit(MESSAGE, sender="joe@example.org")
        assert "connect to Milter service unix:assay/assay.sock: Permission denied" in mta.log()
        (text,) = (text for text in mta.said(f"unix:{path}") if "may not" in text)
        (group,) = re.findall(r'set milter\.socket_group = "(\w+)"', text)
    with Daemon(tmp_path / "b", ROWS, socket=f"unix:{path}", milter={"socket_group": group}):
        assert not any("may not" in text for text in mta.said(f"unix:{path}"))
        mta.submit(MESSAGE, sender="joe@example.org")
        mta.wait_for(1)


#: What ``smtpd_milters`` has, and Postfix's words, which docs/trouble.md repeats.
NOTATIONS = {
    "Sendmail's notation": ("inet:{port}@127.0.0.1", "garbage after numerical service"),
    "Sendmail's notation of IPv6": ("inet6:{port}@::1", "invalid transport name: inet6 in Milter service"),
    "a path alone": ("/run/assay/assay.sock", "Milter service needs transport:endpoint instead of"),
}


@pytest.mark.parametrize(("written", "words"), NOTATIONS.values(), ids=NOTATIONS)
def test_a_wrong_notation(tmp_path: Path, mta: Chrooted, written: str, words: str) -> None:
    port = free_port()
    host = "::1" if "inet6" in written else "127.0.0.1"
    socket = f"{'inet6' if ':' in host else 'inet'}:{port}@{host}"
    with Daemon(tmp_path, ROWS, socket=socket):
        with contextlib.suppress(AssertionError):  # the harness waits for a greeting
            mta.reload(written.format(port=port))
        with pytest.raises((smtplib.SMTPResponseException, OSError)):
            mta.submit(MESSAGE, sender="joe@example.org")
        assert words in mta.log()
        assert words in TROUBLE

        (text,) = (text for text in mta.said(socket) if "is not in Postfix's notation" in text)
        (fix,) = re.findall(r"; write smtpd_milters = (\S+),", text)
        mta.reload(fix)
        mta.submit(MESSAGE, sender="joe@example.org")
        (stored,) = mta.wait_for(1)
        assert fields(stored)[0][0] == "Authentication-Results"


class Mute(socketserver.BaseRequestHandler):
    """A program that says nothing and closes."""

    greeting = b""

    def handle(self) -> None:
        self.request.sendall(self.greeting)


class Talkative(Mute):
    """One that speaks first, and another protocol."""

    greeting = b"220 mx.example.org ESMTP\r\n"


@pytest.mark.parametrize(
    ("program", "words"),
    [(Mute, "read error in initial handshake"), (Talkative, "unexpected reply ... in initial handshake")],
)
def test_another_program_has_the_port(tmp_path: Path, mta: Chrooted, program: type[Mute], words: str) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), program) as other:
        threading.Thread(target=other.serve_forever).start()
        port = other.server_address[1]
        try:
            mta.reload(f"inet:127.0.0.1:{port}")
            with pytest.raises(smtplib.SMTPResponseException) as refused:
                mta.submit(MESSAGE, sender="joe@example.org")
            with pytest.raises(AssertionError, match=f"Address already in use; find .* 'sport = :{port}'"):
                Daemon(tmp_path, ROWS, socket=f"inet:{port}@127.0.0.1").__enter__()
        finally:
            other.shutdown()
    assert refused.value.smtp_code == 451
    assert re.search(words.replace("...", '"."'), mta.log())
    assert f"`{words}`" in TROUBLE


def test_mail_of_the_sendmail_command_is_signed_only_by_non_smtpd_milters(tmp_path: Path, mta: Chrooted) -> None:
    (tmp_path / "key.pem").touch(0o600)
    (tmp_path / "key.pem").write_bytes(pem(rsa_key()))
    row = {"domain": "example.org", "selectors": ("key",), "key_directory": str(tmp_path)}
    sign = {"domain": (row,), "unpublished": "sign"}
    path = mta.directory / "queue" / "assay" / "assay.sock"
    usual = {"milter": {"socket_mode": "0666"}, "clients": {"internal": ("127.0.0.0/8",)}}
    with Daemon(tmp_path, ROWS, socket=f"unix:{path}", sign=sign, **usual):
        mta.reload("unix:assay/assay.sock")
        mta.post(MESSAGE)
        (stored,) = mta.wait_for(1)
        assert "DKIM-Signature" not in dict(fields(stored))

        (text,) = (text for text in mta.said(f"unix:{path}", sign=sign) if "non_smtpd_milters" in text)
        (fix,) = re.findall(r"is not signed; write non_smtpd_milters = (\S+),", text)
        mta.reload(fix, "non_smtpd_milters")
        assert not any("non_smtpd_milters" in text for text in mta.said(f"unix:{path}", sign=sign))
        mta.post(MESSAGE)
        _, stored = mta.wait_for(2)
        assert "DKIM-Signature" in dict(fields(stored))
