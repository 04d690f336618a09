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


def test_an_address_of_ours_is_not_rewritten(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["srs", "forward", "-c", str(configuration), "ann@ours.example"]) == os.EX_OK
    printed = capsys.readouterr()
    assert printed.out == "ann@ours.example\n"
    assert printed.err == "assay srs: ours.example is one of our domains, so it is not rewritten\n"


@pytest.mark.parametrize(
    ("verb", "address", "message"),
    [
        ("forward", "ann", "domain: no domain in the address"),
        ("reverse", "ann@a.example", "domain: not ours: the domain is not srs.example"),
        ("reverse", "ann@srs.example", "form: not an SRS address"),
        ("reverse", old(0, b"none of ours"), "hash: hash is not valid for any of the secrets"),
        ("reverse", old(30), "age: address is 30 days old"),
        ("reverse", "SRS0=\x1b[31m@srs.example", "form: no date in the SRS0 address"),
    ],
)
def test_an_error_names_the_check(
    configuration: Path, capsys: pytest.CaptureFixture[str], verb: str, address: str, message: str
) -> None:
    assert main(["srs", verb, "-c", str(configuration), address]) == 1
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.startswith(f"assay srs: {message}")


@pytest.mark.parametrize(
    ("address", "forward", "reverse", "code"),
    [
        ("ann@a.example", "SRS0=", "domain: not ours", os.EX_OK),
        (old(5), "SRS0=", "ann@a.example", os.EX_OK),
        ("ann@srs.example", "ann@srs.example (srs.example is one of our domains", "form: not an SRS", os.EX_OK),
        ("ann", "domain: no domain", "domain: no domain", 1),
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
