# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay srs``: what it prints, and how it ends."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from assay.cli.main import main
from assay.protocol import srs

SECRETS = (b"a secret for the tests", b"an older secret")
DAY = 86_400


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    secrets = tmp_path / "secrets"
    secrets.touch(0o600)
    secrets.write_bytes(b"\n".join(SECRETS))
    path = tmp_path / "assay.toml"
    path.write_text(f'[srs]\ndomain = "srs.example"\nsecrets_file = "{secrets}"\nown_domains = ["ours.example"]\n')
    return path


def old(days: int, secret: bytes = SECRETS[1]) -> str:
    return srs.forward("ann@a.example", srs.Scheme("srs.example", (secret,)), time.time() - days * DAY)


def test_there_and_back(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["srs", "forward", "-c", str(configuration), '<"a b"@a.example>']) == os.EX_OK
    ours = capsys.readouterr().out.strip()
    assert ours.startswith('"SRS0=')
    assert main(["srs", "reverse", "-c", str(configuration), ours]) == os.EX_OK
    assert capsys.readouterr().out == '"a b"@a.example\n'


def test_it_says_what_the_answer_depends_on(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["srs", "forward", "-c", str(configuration), "ann@a.example"]) == os.EX_OK
    assert capsys.readouterr().err == "assay srs: provided that no recipient is in srs.own_domains (--rcpt)\n"
    assert main(["srs", "forward", "-c", str(configuration), "ann@a.example", "--rcpt", "<bob@b.example>"]) == os.EX_OK
    assert not capsys.readouterr().err


#: What is set, what the command line says of it, and the condition that decides.
CONDITIONS = {
    'sender_domains = ["b.example"]': ([], [], "sender is not in srs.sender_domains"),
    'recipient_domains = ["b.example"]': (
        ["--rcpt", "bob@b.example"],
        ["--rcpt", "bob@c.example"],
        "a recipient is not in srs.recipient_domains",
    ),
    'networks = ["192.0.2.0/24"]': (["--ip", "192.0.2.1"], ["--ip", "198.51.100.1"], "client is not in srs.networks"),
    'daemon_names = ["out"]': (
        ["--daemon-name", "out"],
        ["--daemon-name", "in"],
        "service is not in srs.daemon_names",
    ),
    'logins = ["ann"]': (["--login", "ann"], ["--login", "bob"], "login is not in srs.logins"),
    "": (["--rcpt", "bob@b.example"], ["--rcpt", "<bob@ours.example>"], "recipient bob@ours.example is ours"),
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_each_condition_decides_as_in_the_daemon(
    configuration: Path, capsys: pytest.CaptureFixture[str], condition: str
) -> None:
    configuration.write_text(f"{configuration.read_text()}{condition}\n")
    holds, fails, why = CONDITIONS[condition]
    command = ["srs", "forward", "-c", str(configuration), "ann@a.example"]
    assert main([*command, *fails]) == 1
    assert capsys.readouterr() == ("ann@a.example\n", f"assay srs: {why}, so it is not rewritten\n")
    if holds:
        assert main([*command, *holds]) == os.EX_OK
        printed = capsys.readouterr()
        assert printed.out.startswith("SRS0=")
        key = condition.partition(" ")[0]
        assert not key or f"srs.{key}" not in printed.err
        assert main(command) == os.EX_OK
        assert (f"srs.{key}" if key else "srs.own_domains") in capsys.readouterr().err


def test_it_names_the_rules_that_may_decide(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = '[[rule]]\nname = "lists"\nwhen = "true"\nforward = false\n'
    configuration.write_text(configuration.read_text() + rule)
    assert main(["srs", "forward", "-c", str(configuration), "ann@a.example", "--rcpt", "b@b.example"]) == os.EX_OK
    assert capsys.readouterr().err == "assay srs: provided that no rule decides otherwise (lists)\n"


@pytest.mark.parametrize(
    ("address", "stays", "why"),
    [
        ("ann@ours.example", "ann@ours.example", "sender domain ours.example is ours"),
        ("ann@below.OURS.example", "ann@below.OURS.example", "sender domain below.ours.example is ours"),
        ("<>", "<>", "null sender"),
        ("ann", "ann", "sender is not a mailbox"),
        ('<""@a.example>', '""@a.example', "sender has an empty local part"),
        ("SRS0=x=y=z=ann@SRS.example", "SRS0=x=y=z=ann@SRS.example", "sender is already rewritten"),
    ],
)
def test_what_is_not_rewritten(
    configuration: Path, capsys: pytest.CaptureFixture[str], address: str, stays: str, why: str
) -> None:
    assert main(["srs", "forward", "-c", str(configuration), address]) == 1
    assert capsys.readouterr() == (f"{stays}\n", f"assay srs: {why}, so it is not rewritten\n")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ann", "domain: not a mailbox: no @ in the address"),
        ("ann@a.example", "domain: not ours: the domain is not srs.example"),
        ("ann@srs.example", "form: not an SRS address"),
        (old(0, b"none of ours"), "hash: hash is not valid for any of the secrets"),
        (old(30), "age: address is 30 days old"),
        ("SRS0=\x1b[31m@srs.example", "form: no date in the SRS0 address"),
    ],
)
def test_an_error_names_the_check(
    configuration: Path, capsys: pytest.CaptureFixture[str], address: str, message: str
) -> None:
    assert main(["srs", "reverse", "-c", str(configuration), address]) == 1
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.startswith(f"assay srs: {message}")


@pytest.mark.parametrize(
    ("address", "forward", "reverse", "code"),
    [
        ("ann@a.example", "SRS0=", "domain: not ours", os.EX_OK),
        (old(5), f"{old(5)} (sender is already rewritten", "ann@a.example", os.EX_OK),
        (f"{'a' * 60}@a.example", "SRS0=", "domain: not ours", os.EX_OK),
        ("ann@srs.example", "ann@srs.example (sender is already rewritten", "form: not an SRS", 1),
        ("ann@ours.example", "ann@ours.example (sender domain ours.example is ours", "domain: not ours", 1),
        ("ann", "ann (sender is not a mailbox", "domain: not a mailbox", 1),
    ],
)
def test_test_shows_both_ways(
    configuration: Path, capsys: pytest.CaptureFixture[str], address: str, forward: str, reverse: str, code: int
) -> None:
    assert main(["srs", "test", "-c", str(configuration), address]) == code
    head, there, back = capsys.readouterr().out.splitlines()
    assert head == "domain   srs.example, 2 secrets, valid for 21 days"
    assert there.startswith(f"forward  {forward}")
    assert back.startswith(f"reverse  {reverse}")
    assert there.endswith("(local part of 83 octets, and some hosts refuse more than 64)") is (len(address) > 64)


def test_forward_warns_of_a_long_local_part(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--rcpt", "bob@b.example"]
    assert main(["srs", "forward", "-c", str(configuration), f"{'a' * 60}@a.example", *arguments]) == os.EX_OK
    printed = capsys.readouterr()
    assert printed.out.startswith("SRS0=")
    assert printed.err == "assay srs: warning: local part of 83 octets, and some hosts refuse more than 64\n"


def test_it_needs_a_domain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.toml").touch()
    assert main(["srs", "forward", "-c", str(tmp_path / "empty.toml"), "ann@a.example"]) == os.EX_CONFIG
    assert "srs.domain: not set" in capsys.readouterr().err


def test_secrets_that_others_can_read_are_refused(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (configuration.parent / "secrets").chmod(0o644)
    assert main(["srs", "forward", "-c", str(configuration), "ann@a.example"]) == os.EX_CONFIG
    assert f"{configuration}: srs.secrets_file: {configuration.parent}/secrets: anyone can read it" in (
        capsys.readouterr().err
    )


def test_a_domain_in_u_labels_is_rewritten_as_the_daemon_does(
    configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["srs", "forward", "-c", str(configuration), "ann@BÜCHER.example."]) == os.EX_OK
    assert capsys.readouterr().out.endswith("=xn--bcher-kva.example=ann@srs.example\n")
    assert main(["srs", "reverse", "-c", str(configuration), old(1).replace("srs.example", "SRS.example.")]) == os.EX_OK


def test_secrets_with_crlf_and_duplicates(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (configuration.parent / "secrets").write_bytes(b"%b\r\n\r\n%b\r\n%b\r\n" % (SECRETS[0], SECRETS[0], SECRETS[1]))
    assert main(["srs", "test", "-c", str(configuration), old(1)]) == os.EX_OK
    assert "2 secrets" in capsys.readouterr().out
