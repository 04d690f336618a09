# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay store export`` and ``forget``, and a real PostgreSQL, as an operator runs them."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from pathlib import Path

import pytest

from assay.cli.main import main
from assay.store.database import open_database
from assay.store.json_form import from_json
from assay.store.writer import Writer
from postgresql import PASSWORD, Postgresql
from store_rows import row


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "assay.toml"
    path.write_text(f'[store]\ndirectory = "{tmp_path}"\n')
    return path


def filled(configuration: Path, *numbers: int, **members: object) -> None:
    with contextlib.closing(open_database(str(configuration.parent / "store.sqlite"))) as database:
        Writer(database).write([row(number, **members) for number in numbers])


def run(capsys: pytest.CaptureFixture[str], verb: str, configuration: Path, *arguments: str) -> tuple[int, str, str]:
    code = main(["store", verb, "-c", str(configuration), *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_password_that_is_wrong_is_not_shown(
    tmp_path: Path, postgresql: Postgresql, capsys: pytest.CaptureFixture[str]
) -> None:
    url, secret = postgresql.create(), tmp_path / "password"
    path = tmp_path / "assay.toml"
    path.write_text(f'[store]\ndirectory = "{tmp_path}"\ndatabase = "{url}"\npassword_file = "{secret}"\n')
    secret.write_text("a wrong one\n")
    secret.chmod(0o600)
    code, out, err = run(capsys, "migrate", path)
    assert code == os.EX_UNAVAILABLE
    assert "password authentication failed" in err
    assert "check the user, pg_hba.conf and store.password_file" in err
    assert "a wrong one" not in out + err
    secret.write_text(f"{PASSWORD}\n")
    code, _, err = run(capsys, "check", path)
    assert (code, "has no tables yet; run: assay store migrate" in err) == (os.EX_UNAVAILABLE, True)
    assert run(capsys, "migrate", path)[0] == os.EX_OK
    code, out, _ = run(capsys, "check", path)
    assert (code, "0 messages" in out) == (os.EX_OK, True)


class TestExport:
    def test_json_is_what_a_broker_gets(self, configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
        filled(configuration, 1, 2)
        code, out, _ = run(capsys, "export", configuration)
        assert code == os.EX_OK
        assert [from_json(line.encode()) for line in out.splitlines()] == [row(2), row(1)]

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--queue", "4Q000007"),
            ("--message-id", "<7@example.com>"),
            ("--domain", "Seven.example"),
            ("--sender-domain", "seven.example"),
            ("--address", "ann@seven.example"),
            ("--client", "2001:db8:0:0::7"),
            ("--action", "reject"),
            ("--dmarc", "none"),
            ("--since", "2023-11-15T12:00:00.007"),
            ("--since", "2023-11-15T13:00:00.007+01:00", "--until", "2023-11-15T13:00:00.008+01:00"),
        ],
    )
    def test_filters(self, configuration: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
        filled(configuration, 1, 2, 3)
        filled(
            configuration,
            7,
            sender_domain="seven.example",
            sender="<ann@seven.example>",
            client="2001:db8::7",
            action="reject",
            findings=(),
        )
        _, out, _ = run(capsys, "export", configuration, *arguments)
        assert [from_json(line.encode()).queue for line in out.splitlines()] == ["4Q000007"]

    def test_csv_starts_no_formula(self, configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
        filled(configuration, 1, helo='=cmd|"/c calc"!A1', subject="a\nb\x1b[2J", reason="a; =1+1")
        _, out, _ = run(capsys, "export", configuration, "--format", "csv")
        (found,) = csv.DictReader(io.StringIO(out))
        assert found["time"] == "2023-11-15T12:00:00.001+00:00"
        assert found["helo"] == '\'=cmd|"/c calc"!A1'
        assert found["reason"] == "a;' =1+1", "also where a semicolon separates cells"
        assert found["subject"] == "a\\x0ab\\x1b[2J"
        assert found["watched"] == '[["reject", "rule strict"]]'

    @pytest.mark.parametrize("arguments", [("--action", "rejct"), ("--dmarc", "failed")])
    def test_a_word_that_is_none(
        self, configuration: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
    ) -> None:
        with pytest.raises(SystemExit):
            run(capsys, "export", configuration, *arguments)
        assert f"invalid choice: '{arguments[1]}'" in capsys.readouterr().err

    def test_a_time_that_is_none(self, configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            run(capsys, "export", configuration, "--since", "yesterday")
        assert "'yesterday' is not a time; write one such as 2026-11-26T14:30" in capsys.readouterr().err


class TestForget:
    def test_counts_first_and_removes_when_told(self, configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
        filled(configuration, 1, 2)
        filled(configuration, 3, sender="<ann@example.org>")
        _, out, _ = run(capsys, "forget", configuration, "--address", "Ann@example.org")
        assert "would be removed: messages: 1" in out
        assert "reports that came in and could not be read, all that example.org sent" in out
        assert "store.addresses is false" in out
        assert "to remove it, add --yes" in out
        assert len(run(capsys, "export", configuration)[1].splitlines()) == 3
        _, out, _ = run(capsys, "forget", configuration, "--address", "Ann@example.org", "--yes")
        assert "removed: messages: 1" in out
        assert f"what is not written yet in {configuration.parent}/spool" in out
        assert len(run(capsys, "export", configuration)[1].splitlines()) == 2

    def test_a_domain(self, configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
        filled(configuration, 1)
        _, out, _ = run(capsys, "forget", configuration, "--domain", "example.com", "--yes")
        assert "removed: counts: 2" in out
        assert run(capsys, "export", configuration)[1] == ""

    @pytest.mark.parametrize(
        "arguments",
        [
            (),
            ("--domain", "a..b"),
            ("--domain", ""),
            ("--domain", "a.example", "--address", "a@b.c"),
            *(("--address", text) for text in ("", " ", "<>", "@", "@example.org", "ann@")),
        ],
    )
    def test_whom_has_to_be_clear(
        self, configuration: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
    ) -> None:
        filled(configuration, 1, null_sender=True, sender_domain="", rewritten="")
        with pytest.raises(SystemExit):
            run(capsys, "forget", configuration, *arguments, "--yes")
        assert run(capsys, "export", configuration)[1]


def test_what_a_stranger_wrote_does_not_control_the_terminal(
    configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(configuration, 1, subject="\x1b[2J")
    assert "\x1b" not in run(capsys, "export", configuration)[1]
