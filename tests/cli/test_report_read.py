# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay report read``: reports from files and maildirs come into the store, each once."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from assay.cli.main import main
from assay.store import received
from assay.store.database import open_database
from assay.store.received import DAY_SECONDS, ReportSummary
from reports.incoming import shapes

DAY = shapes.BEGIN // DAY_SECONDS
BOMB = gzip.compress(bytes(100_000_000))
DOCTYPE = b'<?xml version="1.0"?><!DOCTYPE feedback [<!ENTITY a "b">]><feedback>&a;</feedback>'


class Shell:
    """The command with a configuration, and the store behind it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        self.configuration = folder / "assay.toml"
        (folder / "store").mkdir()
        self.configure("[reports.incoming]\ndomains = ['example.org']\n[identity]\nauthserv_id = 'mx.example.org'\n")

    def configure(self, text: str) -> None:
        self.configuration.write_text(f"[store]\ndirectory = '{self.folder}/store'\n{text}")

    def __call__(self, *paths: Path, code: int = 0) -> str:
        self._capsys.readouterr()
        assert main(["report", "read", "-c", str(self.configuration), *map(str, paths)]) == code
        out, err = self._capsys.readouterr()
        return (out + err).replace(f"{self.folder}/", "")

    def file(self, name: str, octets: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(octets)
        return path

    def maildir(self, **mails: bytes) -> Path:
        path = self.folder / "Maildir"
        for name in ("new", "cur", "tmp"):
            (path / name).mkdir(parents=True, exist_ok=True)
        for name, octets in mails.items():
            (path / "new" / name).write_bytes(octets)
        return path

    def stored(self) -> tuple[Sequence[ReportSummary], list[str]]:
        """The reports, and why the others were not used."""
        database = open_database(f"{self.folder}/store/store.sqlite", may_write=False)
        with database.reading() as connection:
            found = received.summaries(connection, DAY - 400, DAY + 400)
            reasons = [each.reason for each in received.unreadable(connection)]
        database.close()
        return found, reasons


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


def listing(maildir: Path) -> list[str]:
    return sorted(str(path.relative_to(maildir)) for path in maildir.rglob("*") if path.is_file())


def test_files_of_each_form(shell: Shell) -> None:
    paths = [
        shell.file("google.xml", shapes.GOOGLE.encode()),
        shell.file("again.xml.gz", gzip.compress(shapes.GOOGLE.encode())),
        shell.file("yahoo.zip", shapes.zipped(shapes.YAHOO.encode())),
        shell.file("tls.json", shapes.tls()),
        shell.file("failure.eml", shapes.failure_mail()),
    ]
    lines = shell(*paths).splitlines()
    assert lines[0].startswith(
        "google.xml: new: aggregate report 1234567890123456789 of google.com about example.org since "
        "2025-11-25 00:00 UTC: messages: 12 passed, 3 failed"
    )
    assert lines[1].startswith("again.xml.gz: known: aggregate report 1234567890123456789 of google.com")
    assert [line.partition(" of ")[0].rpartition(" report ")[0] for line in lines[2:]] == [
        "yahoo.zip: new: aggregate",
        "tls.json: new: TLS",
        "failure.eml: new: failure",
    ]
    assert len(shell.stored()[0]) == 4
    assert all(": known: " in line for line in shell(*paths).splitlines())
    assert len(shell.stored()[0]) == 4


def test_what_is_unreadable_is_named_with_the_reason(shell: Shell) -> None:
    hostile = [
        shell.file("bomb.gz", BOMB),
        shell.file("doctype.xml", DOCTYPE),
        shell.file("cut.gz", gzip.compress(shapes.GOOGLE.encode())[:-20]),
        shell.file("other.xml", shapes.GOOGLE.replace("example.org", "other.example").encode()),
        shell.folder / "missing.xml",
        shell.folder,
    ]
    with shell.file("large", b"").open("r+b") as file:
        file.truncate(100_000_000)
    text = shell(*hostile, shell.folder / "large", shell.file("google.xml", shapes.GOOGLE.encode()), code=66)
    assert "bomb.gz: unreadable: it is larger than 32 MiB when unpacked\n" in text
    assert "doctype.xml: unreadable: the XML has a DOCTYPE" in text
    assert "cut.gz: unreadable: the gzip file is cut off\n" in text
    assert "other.xml: unreadable: it is about other.example, which is none of our domains\n" in text
    assert "missing.xml: cannot be read: No such file or directory\n" in text
    assert "a directory, but not a maildir: it has no new/ and cur/\n" in text
    assert "large: unreadable: it is larger than 32 MiB\n" in text
    assert "google.xml: new: " in text
    found, reasons = shell.stored()
    assert (len(found), len(reasons)) == (1, 5)


def test_a_maildir_is_read_once(shell: Shell) -> None:
    good = shapes.mail(shapes.GOOGLE.encode())
    maildir = shell.maildir(**{"1.a.host": good, "2.b.host": b"Subject: lunch?\n\nAt noon.\n", ".hidden": b"x"})
    text = shell(maildir, code=65)
    assert "Maildir/new/1.a.host: new: aggregate report" in text
    assert "Maildir/new/2.b.host: unreadable: there is no report in it" in text
    assert listing(maildir) == ["cur/1.a.host:2,S", "cur/2.b.host:2,F", "new/.hidden"]
    assert shell(maildir) == ""


def test_what_is_no_file_in_a_maildir_is_left_alone(shell: Shell) -> None:
    maildir = shell.maildir()
    (maildir / "new" / "1.link.host").symlink_to(shell.file("secret", b"of another user"))
    (maildir / "new" / "2.nothing.host").symlink_to(shell.folder / "missing")
    (maildir / "new" / "3.folder.host").mkdir()
    os.mkfifo(maildir / "new" / "4.pipe.host")
    assert shell(maildir) == ""
    assert len(list((maildir / "new").iterdir())) == 4
    assert shell.stored() == ([], [])


def test_a_field_of_ours_counts_in_a_mail_that_was_delivered_and_not_in_a_file(shell: Shell) -> None:
    authenticated = b"Authentication-Results: mx.example.org; dmarc=pass header.from=reporter.example\r\n"
    mail = authenticated + shapes.mail(shapes.GOOGLE.encode())
    assert "dmarc=" not in shell(shell.file("a.eml", mail))
    yahoo = authenticated + shapes.mail(shapes.YAHOO.encode())
    assert ", dmarc=pass\n" in shell(shell.maildir(mail=yahoo))
    assert [each.sender_dmarc for each in shell.stored()[0]] in (["", "pass"], ["pass", ""])


def test_without_a_configured_name_no_field_is_believed(shell: Shell) -> None:
    shell.configure("[reports.incoming]\ndomains = ['example.org']\n")
    mail = f"Authentication-Results: {os.uname().nodename}; dmarc=pass\r\n".encode()
    assert "dmarc=" not in shell(shell.maildir(mail=mail + shapes.mail(shapes.GOOGLE.encode())))


def test_while_the_database_is_away_a_maildir_stays_as_it_is(shell: Shell) -> None:
    maildir = shell.maildir(mail=shapes.mail(shapes.GOOGLE.encode()))
    (shell.folder / "store" / "store.sqlite").mkdir()
    assert "store.sqlite: " in shell(maildir, code=69)
    assert listing(maildir) == ["new/mail"]


def test_without_domains(shell: Shell) -> None:
    shell.configure("")
    assert "assay.toml: reports.incoming.domains: not set; write the domains" in shell(shell.folder, code=78)


def test_without_the_library(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "parsedmarc", None)
    said = f"reports.incoming.domains: this needs Python packages; run: {sys.executable} -m pip install parsedmarc\n"
    assert shell(shell.file("mail", b""), code=78) == f"assay: assay.toml: {said}"
