# SPDX-License-Identifier: GPL-3.0-or-later
"""Each subcommand ends with the code that `assay --help` and docs/trouble.md promise, and none waits for ever."""

from __future__ import annotations

import argparse
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay import __main__ as program
from assay import files
from assay.cli import main as command_line
from assay.cli.main import main, make_parser

Leaf = tuple[str, ...]
PAGE = (Path(__file__).parents[2] / "docs" / "trouble.md").read_text()
GENERAL = {0, 64, 66, 69, 70, 74, 77, 78, 130}  #: what they mean does not depend on the subcommand


def leaves(parser: argparse.ArgumentParser, path: Leaf = ()) -> Iterator[tuple[Leaf, argparse.ArgumentParser]]:
    """All subcommands."""
    for action in parser._actions:  # argparse does not name them otherwise
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from leaves(inner, (*path, name))
            return
    yield path, parser


LEAVES = dict(leaves(make_parser()))

#: What is wrong, and the code. The configuration comes by itself.
ROWS: dict[Leaf, list[tuple[str, int]]] = {
    ("serve",): [],
    ("status",): [("", 69)],
    ("reload",): [("", 69)],
    ("log-level",): [("debug", 69), ("loud", 64)],
    ("check",): [
        *((f"{name} --ip 192.0.2.1", 66) for name in ("missing", "pipe", ".")),
        ("junk --ip nobody", 64),
        ("junk", 64),
        ("", 64),
    ],
    ("policy", "try"): [("missing", 66), ("pipe", 66), (".", 66), ("junk", 65), ("", 64)],
    ("probe",): [
        ("inet:1@127.0.0.1 missing --ip 192.0.2.1", 66),
        ("inet:1@127.0.0.1 pipe --ip 192.0.2.1", 66),
        ("unix:nobody junk --ip 192.0.2.1", 69),
        ("nowhere junk --ip 192.0.2.1", 64),
        ("unix:nobody junk", 64),
    ],
    ("spfquery",): [("", 64), ("-i nobody -s a@example.org", 64), ("-i 192.0.2.1 -s a@example.org", 6)],
    ("keys", "create"): [("example.org --bits 100", 64), ("a..b", 64)],
    ("keys", "list"): [("unknown.example", 66)],
    ("keys", "check"): [("unknown.example", 66)],
    ("keys", "rotate"): [("unknown.example", 66)],
    ("keys", "retire"): [("unknown.example s1", 66), ("unknown.example", 64)],
    ("keys", "import"): [("example.org s1 missing", 66), ("", 64), ("--key-table missing", 66)],
    ("srs", "forward"): [("junk", 1), ("<>", 1), ("ann@a.example --ip 192.0.2.1", 0), ("", 64)],
    ("srs", "reverse"): [("junk", 1), ("ann@a.example", 1), ("", 64)],
    ("srs", "test"): [("junk", 1), ("ann@a.example", 0), ("", 64)],
    ("store", "check"): [("-c missing.toml", 78), ("-c no-store.toml", 69)],
    ("store", "migrate"): [("-c no-store.toml", 69)],
    ("store", "consume"): [("", 78)],
    ("store", "export"): [
        ("-c no-store.toml", 69),
        ("--since yesterday", 64),
        ("--action rejected", 64),
        ("--dmarc failed", 64),
    ],
    ("store", "forget"): [("", 64), ("-c no-store.toml --domain a.example", 69)],
    ("report", "list"): [("--state send", 64), ("--day yesterday", 64), ("-c no-store.toml", 69)],
    ("report", "show"): [("unknown", 65), ("", 64), ("unknown -c no-store.toml", 69)],
    ("report", "why"): [("a..b", 64), ("a.example -c no-store.toml", 69)],
    ("report", "send"): [("", 78)],
    ("report", "suppress"): [
        ("junk@", 64),
        ("a.example --remove", 65),
        ("--remove", 64),
        ("--days 3", 64),
        ("a.example --days 3 --remove", 64),
        ("-c no-store.toml", 69),
    ],
    ("report", "bounced"): [("unknown", 65), ("", 64), ("unknown -c no-store.toml", 69)],
    ("report", "read"): [
        ("missing", 66),
        ("pipe", 66),
        (".", 66),
        ("junk", 65),
        ("junk missing", 66),
        ("missing junk", 66),
        ("", 64),
        ("junk -c no-store.toml", 69),
    ],
    ("config", "check"): [
        ("--postconf missing", 66),
        ("--postconf pipe", 66),
        ("--postconf .", 66),
        ("--sendmail-cf missing", 66),
        ("--sendmail-cf pipe", 66),
        ("--sendmail-cf junk", 65),
        ("--postconf junk", 65),
    ],
    ("config", "show"): [],
    ("config", "sample"): [],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a configuration, a file that is nothing and a pipe without a writer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "PIPE_SECONDS", 0)
    (tmp_path / "junk").write_text("junk\n")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "keys").mkdir()
    (tmp_path / "secrets").touch(0o600)
    (tmp_path / "secrets").write_text("a secret for the tests\n")
    text = (
        '[dns]\nnameservers = "none"\n[keys]\ndirectory = "{0}/keys"\n[control]\nsocket = "unix:{0}/control.sock"\n'
        '[srs]\ndomain = "srs.example"\nsecrets_file = "{0}/secrets"\n[reports.incoming]\ndomains = ["example.org"]\n'
        '[store]\ndirectory = "{0}{1}"\n'
    )
    (tmp_path / "assay.toml").write_text(text.format(tmp_path, ""))
    (tmp_path / "no-store.toml").write_text(text.format(tmp_path, "/missing"))
    return tmp_path


def code(leaf: Leaf, *arguments: str) -> int:
    """With what a subcommand ends."""
    options = LEAVES[leaf]._option_string_actions
    configured = "-c" in options and "-c" not in arguments
    try:
        return main([*leaf, *(("-c", "assay.toml") if configured else ()), *arguments])
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.mark.parametrize(
    ("leaf", "arguments", "expected"),
    [pytest.param(leaf, text, end, id=f"{' '.join(leaf)} {text}") for leaf, rows in ROWS.items() for text, end in rows],
)
def test_what_is_wrong_ends_with_its_code(folder: Path, leaf: Leaf, arguments: str, expected: int) -> None:
    assert code(leaf, *arguments.split()) == expected


@pytest.mark.parametrize("leaf", LEAVES, ids=" ".join)
def test_what_is_the_same_for_all(folder: Path, leaf: Leaf) -> None:
    assert leaf in ROWS, "write a row"
    assert code(leaf, "--bogus") == 64
    assert code(leaf, "--help") == 0
    assert LEAVES[leaf].description, "the help says what it is for"
    if "-c" in LEAVES[leaf]._option_string_actions:
        required = {
            ("log-level",): ("debug",), ("check",): ("junk", "--ip", "192.0.2.1"), ("policy", "try"): ("junk",),
            ("spfquery",): ("-i", "192.0.2.1", "-s", "a@example.org"), ("keys", "create"): ("a.example",),
            ("keys", "retire"): ("a.example", "s"), ("srs", "forward"): ("a",), ("srs", "reverse"): ("a",),
            ("srs", "test"): ("a",), ("store", "forget"): ("--domain", "a.example"), ("report", "show"): ("a",),
            ("report", "why"): ("a.example",), ("report", "bounced"): ("a",), ("report", "read"): ("junk",),
        }  # fmt: skip
        for unusable in ("missing.toml", "pipe", ".", "junk"):
            assert code(leaf, *required.get(leaf, ()), "-c", unusable) == 78, unusable


@pytest.mark.parametrize(
    "command",
    ["keys list", "keys check", "report suppress", "report read junk", "store check", "srs test a@b.example"],
)
def test_output_that_takes_no_more_is_not_blamed_on_what_was_read(
    folder: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code(("keys", "create"), "a.example")
    code(("report", "suppress"), "a.example")
    capsys.readouterr()
    with open("/dev/full", "w", buffering=1) as full:  # by lines, as a terminal: it fails within the command
        monkeypatch.setattr(sys, "stdout", full)
        ended = main([*command.split(), "-c", "assay.toml"])
        monkeypatch.undo()
    assert (ended, capsys.readouterr().err) == (74, "assay: output: No space left on device\n")


@pytest.mark.parametrize(
    "command",
    [
        "config show -c", "serve -c", "policy try junk -c", "policy try -c assay.toml", "report read -c assay.toml",
        "keys import a.example s", "check --ip 192.0.2.1", "probe inet:1@127.0.0.1 --ip 192.0.2.1",
        "config check -c assay.toml --postconf", "config check -c assay.toml --sendmail-cf",
    ],
)  # fmt: skip
def test_a_variable_of_a_shell_that_is_not_set(folder: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main([*command.split(), ""])
    assert raised.value.code == 64
    assert capsys.readouterr().err.endswith(": empty; write the name of a file\n")


def explained() -> tuple[dict[int, str], dict[int, str]]:
    """The codes of the page and those of the help, each with its text."""
    page = {int(number): text for number, text in re.findall(r"^\| (\d+) \| (.+) \|$", PAGE, re.MULTILINE)}
    found = re.findall(r"^ *(\d+)  (.+(?:\n {6}.+)*)", command_line._EXIT_CODES, re.MULTILINE)
    return page, {int(number): text for number, text in found}


def test_the_page_and_the_help_have_the_same_codes() -> None:
    page, shown = explained()
    assert set(page) == set(shown)


def test_a_code_of_few_subcommands_is_explained_for_each() -> None:
    for texts in explained():
        for leaf, rows in ROWS.items():
            for _, end in rows:
                if end not in GENERAL and leaf != ("spfquery",):
                    assert " ".join(leaf) in texts[end].replace("`", "") or leaf[0] in texts[end], (leaf, end)


def test_a_bug_ends_with_70_and_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def bug() -> int:
        raise KeyError("a bug")

    monkeypatch.setattr(command_line, "main", bug)
    assert program.main() == 70
    assert "KeyError: 'a bug'" in capsys.readouterr().err


def test_a_pipe_with_a_writer_is_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in ``assay check <(command)``."""
    for leaf, arguments, expected in (
        (("check",), ("--ip", "192.0.2.1"), 0),
        (("report", "read"), (), 65),
        (("policy", "try"), (), 65),
    ):
        reading, writing = os.pipe()
        os.write(writing, b"junk\n")
        os.close(writing)
        assert code(leaf, f"/dev/fd/{reading}", *arguments) == expected
        os.close(reading)


def test_what_does_not_answer_as_a_daemon(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("control.sock")
        assert code(("status",)) == 69
