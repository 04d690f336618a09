# SPDX-License-Identifier: GPL-3.0-or-later
"""The quickest wrong set-ups of Sendmail: what it does and logs, what ``assay config check --sendmail-cf`` says,
and that docs/trouble.md has Sendmail's words."""

from __future__ import annotations

import os
import smtplib
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from assay.config import Configuration, sendmail
from mta import base
from mta.base import HOST, PROJECT, UnavailableError, free_port
from mta.sendmail import SNIPPET, Sendmail
from running import Daemon
from sending import ROWS

TROUBLE = (PROJECT / "docs" / "trouble.md").read_text()
GOOD = "F=T, T=C:30s;S:30s;R:60s;E:5m"
MESSAGE = b"From: joe@example.org\nSubject: x\n\nhello\n"


@pytest.fixture(autouse=True)
def possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "START_ATTEMPTS", 1)  # what fails here fails again
    try:
        Sendmail.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    if os.geteuid() != 0:
        pytest.skip("Sendmail checks directories only when it runs as root")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that Sendmail finds safe, which those of pytest are not."""
    with tempfile.TemporaryDirectory(dir="/run", prefix="assay-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def listed(address: str, rest: str = GOOD, *, name: str = "assay", macro: str = "INPUT_MAIL_FILTER") -> str:
    """A line of a .mc file."""
    return f"{macro}(`{name}', `S={address}, {rest}')dnl\n"


class Seen:
    """What became of one message through Sendmail with these lines."""

    def __init__(self, lines: str, ours: str, **sections: Any) -> None:
        """:param ours: ``milter.socket``."""
        mta = Sendmail(extra=lines)
        self.code = 0  # it did not start
        try:
            with mta:
                self.code = 250
                try:
                    mta.submit(MESSAGE, sender="joe@example.org")
                except smtplib.SMTPResponseException as error:
                    self.code = error.smtp_code
                (self.log, cf) = mta.log(), (mta.directory / "sendmail.cf").read_text()
        except AssertionError as error:
            self.log = str(error)
            mta.directory = Path(tempfile.mkdtemp())
            mta.configure()
            cf = (mta.directory / "sendmail.cf").read_text()
        configuration = msgspec.convert({"milter": {"socket": ours}, **sections}, Configuration)
        self.said = list(sendmail.differences(configuration, sendmail.parse(cf)))


INET = "inet:8890@127.0.0.1"
#: Lines, our socket, the reply to a message (0: Sendmail does not start), Sendmail's words (empty: it logs
#: nothing), and a part of our message.
SETUPS: dict[str, tuple[str, str, int, str, str]] = {
    "Postfix's notation": (
        listed("inet:127.0.0.1:8890"),
        INET,
        0,
        "Xassay: bad address 127.0.0.1:8890 (expected port@host)",
        "or unix:PATH, here inet:8890@127.0.0.1",
    ),
    "an IPv6 literal": (
        listed("inet:8890@::1"),
        "inet6:8890@::1",
        0,
        "Xassay: Unknown host name ::1",
        "has an IPv6 address; write inet6:8890@::1",
    ),
    "an IPv6 literal in brackets": (
        listed("inet6:8890@[::1]"),
        "inet6:8890@::1",
        451,
        "Milter (assay): error connecting to filter: Invalid argument",
        "Sendmail cannot use it: write inet6:8890@::1, without brackets",
    ),
    "no filter": (
        "define(`confINPUT_MAIL_FILTERS', `assay')dnl\n",
        INET,
        0,
        "InputFilter assay not defined",
        "cf: no filter",
    ),
    "defined twice": (
        listed("inet:8891@127.0.0.1") + listed(INET),
        INET,
        0,
        "Xassay: duplicate filter definition",
        "Xassay is defined twice",
    ),
    "MAIL_FILTER": (listed(INET, macro="MAIL_FILTER"), INET, 250, "", "Xassay is not in InputMailFilters, so no "),
    "another list": (
        listed(INET) + "define(`confINPUT_MAIL_FILTERS', `')dnl\n",
        INET,
        250,
        "",
        "Xassay is not in InputMailFilters, so no ",
    ),
    "two names": (
        listed(INET) + listed(INET, name="again"),
        INET,
        451,
        "Milter (assay): error connecting to filter: Connection refused by",
        "InputMailFilters has assay and again, which are the same assay; remove all but the first",
    ),
    "no F=": (
        listed(INET, "T=C:30s;S:30s;R:60s;E:5m"),
        INET,
        250,
        "Milter (assay): error connecting to filter: Connection refused by",
        "Xassay has no F=T: while assay does not answer, mail passes unjudged",
    ),
    "F=R": (
        listed(INET, "F=R"),
        INET,
        0,  # the harness waits for a greeting
        "Milter: initialization failed, rejecting commands",
        "Xassay, F=R: mail is refused for good while assay does not answer; write F=T",
    ),
}


@pytest.mark.parametrize(("lines", "ours", "code", "words", "says"), SETUPS.values(), ids=SETUPS)
def test_what_is_wrong_in_the_file(lines: str, ours: str, code: int, words: str, says: str) -> None:
    seen = Seen(lines, ours)
    assert seen.code == code, seen.log
    assert words in seen.log
    assert sum(says in text for text in seen.said) == 1, seen.said
    assert not words or any(part in TROUBLE for part in (words, words.replace("127.0.0.1:8890", "..."))), words


@pytest.mark.parametrize(("mode", "who", "letter"), [(0o775, "group", "g"), (0o757, "others", "o")])
def test_a_directory_that_others_may_write_to(folder: Path, mode: int, who: str, letter: str) -> None:
    (folder / "open").mkdir()
    (folder / "open").chmod(mode)
    path = folder / "open" / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        seen = Seen(listed(f"unix:{path}"), f"unix:{path}")
        kind = "Group" if who == "group" else "World"
        assert f"unsafe: {kind} writable directory" in seen.log
        assert f"unsafe: {kind} writable directory" in TROUBLE
        (said,) = seen.said
        assert f"{who} may write to {path.parent} (root:root {mode:04o}); run: chmod {letter}-w {path.parent};" in said
        path.parent.chmod(0o755)
        seen = Seen(listed(f"unix:{path}"), f"unix:{path}")
        assert (seen.code, seen.said) == (451, []), "nothing accepts there"
        assert f"error connecting to filter: Connection refused by {path}" in seen.log


def test_no_socket(folder: Path) -> None:
    """The daemon is not running; the start of Sendmail says so, and later lines call the path unsafe."""
    seen = Seen(listed(f"unix:{folder}/s"), f"unix:{folder}/s")
    assert (seen.code, seen.said) == (451, [])
    for words in ("local socket name {} missing", "local socket name {} unsafe"):
        assert words.format(f"{folder}/s") in seen.log
        assert words.format("...") in TROUBLE


def test_another_program_has_the_port() -> None:
    with socket.create_server((HOST, 0)) as other:
        address = f"inet:{other.getsockname()[1]}@{HOST}"
        seen = Seen(listed(address, "F=T, T=C:1s;S:1s;R:1s;E:5m"), address)
    assert seen.code in (0, 451)
    assert "Milter (assay): timeout before data read, where=negotiate" in seen.log
    assert "timeout before data read, where=negotiate" in TROUBLE


def test_a_time_out_that_is_too_short(tmp_path: Path) -> None:
    address = f"inet:{free_port()}@{HOST}"
    with Daemon(tmp_path, ROWS, socket=address) as daemon:
        daemon.nameserver.delay = 2.0
        seen = Seen(listed(address, "F=T, T=E:1s"), address)
        assert seen.code == 451
        assert "milter_data(assay): EOM ACK/NAK timeout" in seen.log, seen.log
        assert "milter_data(assay): EOM ACK/NAK timeout" in TROUBLE
        (said,) = seen.said
        assert said == (
            "Xassay, T=E:1s: assay may take 50 s (dns.budget_seconds = 40); write E:50s or more, or a smaller "
            "dns.budget_seconds"
        )
        seen = Seen(listed(address, "F=T, T=E:50s"), address)
        assert (seen.code, seen.said) == (250, [])


def test_the_snippet_fits() -> None:
    """Its own socket, as m4 writes it; nothing listens there."""
    seen = Seen(SNIPPET.read_text(), "unix:/run/assay/assay.sock")
    assert (seen.code, seen.said) == (451, [])
