# SPDX-License-Identifier: GPL-3.0-or-later
"""The log: nothing that a stranger sent gets in unescaped or unbounded."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from assay.log import MAX_TEXT_LENGTH, MAX_VALUE_LENGTH, Level, Log, open_log, pairs, quote, sinks


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("<a@b.example>", "<a@b.example>"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("", '""'),
        ("a b", '"a b"'),
        ("a=b", '"a=b"'),
        ('a"b', r'"a\"b"'),
        ("a\\b", r'"a\\b"'),
        ("a\nb", r'"a\x0ab"'),
        ("a\r\nb\tc", r'"a\x0d\x0ab\x09c"'),
        ("\x00\x1b[2J\x7f\x85", r'"\x00\x1b[2J\x7f\x85"'),
        ("\udcff", r'"\xff"'),
        ("\ud800", r'"\ud800"'),
        ("\u2028\u202e", r'"\u2028\u202e"'),
        ("bücher", '"bücher"'),
        ("a;b'c(d)", '"a;b\'c(d)"'),
    ],
)
def test_quote(value: str, written: str) -> None:
    assert quote(value) == written


@pytest.mark.parametrize("value", ["x" * 10_000, "\n" * 10_000, "\udcff" * 10_000, "\U000e0001" * 10_000])
def test_a_value_is_bounded(value: str) -> None:
    written = quote(value)
    assert len(written) <= 10 * MAX_VALUE_LENGTH + 10
    assert written.rstrip('"').endswith("...")
    assert written.isprintable()
    written.encode()


def test_a_bound_does_not_cut_what_fits() -> None:
    assert quote("x" * MAX_VALUE_LENGTH) == "x" * MAX_VALUE_LENGTH


def test_pairs_leave_out_what_is_not_there() -> None:
    assert pairs((("a", 1), ("b", None), ("c", ""), ("d", "x y"))) == 'a=1 c="" d="x y"'


@pytest.mark.parametrize("code", [*range(0x300), 0x2028, 0x2029, 0xD800, 0xDC80, 0xFEFF, 0x1F600])
def test_no_character_ends_its_value(code: int) -> None:
    line = pairs((("a", f"x{chr(code)} b=1"), ("c", "y")))
    assert re.fullmatch(r'a="(?:[^"\\]|\\.)*" c=y', line)
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(("level", "heard"), [("error", 1), ("warning", 2), ("info", 3), ("debug", 4)])
def test_levels(level: str, heard: int) -> None:
    lines: list[tuple[Level, str]] = []
    log = Log(lambda at, text: lines.append((at, text)), Level[level.upper()])
    log.error("e")
    log.warning("w")
    log.info("i")
    log.debug("d")
    assert [text for _, text in lines] == ["e", "w", "i", "d"][:heard]
    assert [at for at, _ in lines] == [Level.ERROR, Level.WARNING, Level.INFO, Level.DEBUG][:heard]


@pytest.mark.parametrize("to", ["syslog", "journald"])
def test_no_line_is_too_long_for_a_datagram(to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is never taken would keep back all lines behind it."""
    path = str(tmp_path / "log")
    monkeypatch.setattr(sinks, to.upper(), path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(path)
        reader.settimeout(5.0)
        log = open_log(to, "mail", "info")
        log.error("\udcff" * 1_000_000, [(f"name{number}", "\udcff" * 10_000) for number in range(40)])
        log.info("next")
        assert log.flush()
        log.replace_by(log)
        assert len(reader.recv(1 << 20)) > MAX_TEXT_LENGTH
        assert b"next" in reader.recv(1 << 20)


def test_standard_error_gets_whole_lines(capfd: pytest.CaptureFixture[str]) -> None:
    log = open_log("stderr", "mail", "info")
    log.info("one")
    log.error("two \udcff")
    log.debug("three")
    assert re.fullmatch(r"assay\[\d+\]: one\nassay\[\d+\]: ERROR: two \\udcff\n", capfd.readouterr().err)


@pytest.mark.parametrize("facility", ["nowhere", "", "PID", "upto", "log_mail"])
def test_an_unknown_facility(facility: str) -> None:
    with pytest.raises(ValueError, match=r"log\.facility: .* is not one of .*mail"):
        open_log("syslog", facility, "info")
