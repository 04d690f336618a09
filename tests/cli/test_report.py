# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay report``: what an operator asks about reports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.cli import report
from assay.cli.main import main
from assay.config import show
from assay.store.incidents import COLLECT_SECONDS
from assay.store.writer import Writer
from nameserver import NameServer
from receiving import Receiver
from report_world import LATER, NEXT_DAY, ROWS, Reporting, failed, seen, with_failure
from store_rows import NOON


class Shell:
    """The command line with a configuration file, and the reports of a day behind it."""

    def __init__(self, reporting: Reporting, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.reporting = reporting
        self._path = path
        self._capsys = capsys

    def __call__(self, verb: str, *arguments: str, code: int = 0, err: bool = False) -> str:
        self._capsys.readouterr()
        assert main(["report", verb, "-c", str(self._path), *arguments]) == code
        said = self._capsys.readouterr()
        return said.err if err or code == 65 else said.out


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    with NameServer(ROWS) as nameserver, Receiver() as receiver:
        reporting = Reporting(tmp_path, nameserver, receiver)
        receiver.replies["d@refusing.example"] = "550 5.1.1 no such user"
        reporting.see(seen(1), seen(2, "refusing.example"), failed(3, "few.example"))
        reporting.run()
        path = tmp_path / "assay.toml"
        path.write_text(show(reporting.configuration))
        yield Shell(reporting, path, capsys)
        reporting.database.close()


def test_why(shell: Shell) -> None:
    assert "1 message: sent: d@example.com: 250" in shell("why", "example.com")
    assert "not sent: none of its messages passed DMARC, and 1 is less than" in shell("why", "FEW.example.")
    assert "no report was planned" in shell("why", "unknown.example")
    below = shell("why", "a.mail.example.com").splitlines()
    assert below[0].startswith("a.mail.example.com: no report was planned")
    assert below[1:] == ["its mail may be in the reports about example.com: ask for that domain"]


def test_why_of_several_destinations(shell: Shell) -> None:
    world = shell.reporting
    world.nameserver.rcodes["both.example._report._dmarc.reader.example"] = "SERVFAIL"
    with world.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM report_days WHERE dry_run = 0 AND planned > 0")
    world.see(seen(5, "both.example", "mailto:d@both.example,mailto:d@reader.example"))
    world.turn(NEXT_DAY)
    world.turn(LATER)
    first, sent, waiting = shell("why", "both.example").splitlines()
    assert "1 message: waiting, due 2023-11-16 08:0" in first
    assert sent.startswith("  d@both.example: sent, tried 1 time, last at")
    assert waiting.startswith("  mailto:d@reader.example: waiting, tried 1 time, last at")
    assert "TXT lookup of both.example._report._dmarc.reader.example failed" in waiting


def test_list(shell: Shell) -> None:
    assert len(shell("list").splitlines()) == 3
    (line,) = shell("list", "--state", "refused").splitlines()
    assert line.startswith("2023-11-15 refusing.example ")
    assert len(shell("list", "--day", "2023-11-15").splitlines()) == 3
    assert shell("list", "--day", "2023-11-16") == ""


def test_a_list_that_is_cut_says_so(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_MAX_LISTED", 2)
    lines = shell("list", err=True).splitlines()
    assert lines == ["assay report: only the newest 2 are listed; narrow it with --day or --state"]
    assert len(shell("list").splitlines()) == 2
    monkeypatch.setattr(report, "_MAX_LISTED", 3)
    assert shell("list", err=True) == ""


def test_failure_reports_are_there_too(shell: Shell) -> None:
    Writer(shell.reporting.database, clock=lambda: NOON / 1000).write([with_failure(9)])
    shell.reporting.turn(NOON // 1000 + COLLECT_SECONDS)
    line = "failure report, 1 message: not sent: reports.failure.enabled is false"
    assert line in shell("why", "example.com")
    (listed,) = [each for each in shell("list").splitlines() if line in each]
    assert line in shell("show", listed.split()[2])


def test_parts_and_error_reports_are_shown_as_such(shell: Shell) -> None:
    world = shell.reporting
    many = [
        seen(
            number,
            "large.example",
            "mailto:d@large.example!8k,mailto:e@large.example!1k",
            client=f"2001:db8::{number:x}",
        )
        for number in range(100, 1600)
    ]
    with world.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM report_days WHERE dry_run = 0 AND planned > 0")
    world.see(*many)
    for now in (NEXT_DAY, LATER, LATER + 20):
        world.turn(now)
    (whole,) = [each for each in world.all_reports() if each.domain == "large.example" and each.form == "whole"]
    lines = shell("show", whole.id).splitlines()
    parts = [line for line in lines if f"part 1 of 3 of {whole.id}, " in line]
    assert parts
    assert "messages: sent: d@large.example: 250" in parts[0]
    (error,) = [line for line in lines if f"error report about {whole.id}: sent: e@large.example: 250" in line]
    assert lines[0].endswith("1500 messages: divided: d@large.example: " + lines[1].partition("UTC: ")[2])
    assert "d@large.example: divided, tried 1 time, last at" in lines[1]
    assert "e@large.example: not sent, tried 1 time, last at" in lines[2]
    assert {*parts, error} <= set(shell("list").splitlines())


def test_list_of_an_unknown_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "assay.toml"
    path.write_text(f"[store]\ndirectory = '{tmp_path}'\n")
    assert main(["report", "list", "--state", "send", "-c", str(path)]) == 64
    error = capsys.readouterr().err
    assert "'send' is not the state of a report; write one of: waiting, sent, divided, not sent" in error


def test_show(shell: Shell) -> None:
    identifier = shell.reporting.reports()["refusing.example"].id
    text = shell("show", identifier)
    assert "d@refusing.example: refused, tried 1 time, last at" in text
    assert "550 5.1.1 no such user" in text
    assert "unknown: there is no such report; assay report list prints their ids" in shell("show", "unknown", code=65)


def test_suppress(shell: Shell) -> None:
    assert "d@refusing.example until 2023-12-1" in shell("suppress")
    assert "other.example for ever: by the operator" in shell("suppress", "Other.Example")
    assert "other.example for ever" in shell("suppress")
    assert "are sent again" in shell("suppress", "other.example", "--remove")
    assert "other.example: is not suppressed" in shell("suppress", "other.example", "--remove", code=65)
    assert " until " in shell("suppress", "d@other.example", "--days", "3")


def test_a_bounce(shell: Shell) -> None:
    ((path, _, _),) = shell.reporting.receiver.taken
    token = path.partition("+")[2].partition("@")[0]
    assert "d@example.com: gets no reports until" in shell("bounced", token.upper())
    assert shell.reporting.deliveries()["d@example.com"].state == "bounced"
    assert "1 message: bounced: d@example.com: it came back" in shell("list", "--state", "bounced")
    assert "a report came back" in shell("suppress")
    shell("suppress", "d@example.com")
    assert shell("bounced", token) == "d@example.com: gets no reports any more\n"
    assert "d@example.com for ever: by the operator" in shell("suppress")
    assert "unknown: no report has this token" in shell("bounced", "unknown", code=65)


def test_send(shell: Shell, tmp_path: Path) -> None:
    assert shell("send") == "reports dealt with: 0\n"
    directory = tmp_path / "store" / "reports"
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()
    directory.write_text("in the way")
    said = shell("send", code=75)
    assert said == f"reports: {directory}: File exists; nothing more was done\nreports dealt with: 0\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("why", "a..b"), "'a..b' is not a domain"),
        (("suppress", "d@example.com", "--days", "-5"), "'-5' is not a number of days"),
        (("suppress", "d@example.com", "--days", "0000000019999999"), "is not a number of days from 1 to 36,500"),
        (("suppress", "d@example.com", "--days", "99999999999"), "is not a number of days from 1 to 36,500"),
        (("list", "--day", "yesterday"), "'yesterday' is not a day; write one such as"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["report", *arguments])
    assert raised.value.code == 64
    assert words in capsys.readouterr().err


def test_without_a_store(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["list"], ["send"], ["read", "report.xml.gz"]):
        assert main(["report", *verb]) == 78
        assert "no configuration file, so there is no database; name one with -c FILE" in capsys.readouterr().err


def test_without_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "assay.toml"
    path.write_text(f"[store]\ndirectory = '{tmp_path}'\n")
    assert main(["report", "send", "-c", str(path)]) == 78
    assert ".toml: reports.organization: not set" in capsys.readouterr().err
