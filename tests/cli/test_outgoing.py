# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay check --outgoing``: which row signs, which nearly would, and what may still change."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from assay.cli.main import main
from signing import pem, rsa_key

MESSAGE = "From: joe@{domain}\nTo: ann@example.net\nSubject: x\n\n{body}\n"
CONFIGURATION = """
[dns]
nameservers = "none"
[[sign.domain]]
domain = "example.org"
selectors = ["r2026"]
key_files = ["{folder}/key"]
[sign]
key_table = "csl:net=example.net:n2026:{folder}/key,any=%:a:{folder}/%.private"
signing_table = "refile:{folder}/SigningTable"
[[rule]]
name = "no"
when = 'header("X-No") != ""'
sign = false
[[rule]]
name = "list"
when = 'header("List-Id") != ""'
sign = "example.org"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_bytes(pem(rsa_key()))
    (tmp_path / "SigningTable").write_text("info@example.net  net\n*@example.com  any\n")
    text = CONFIGURATION.replace("{folder}", str(tmp_path))
    head, _, tables = text.partition("[[sign.domain]]")
    row, _, sign = tables.partition("[sign]")
    keys, _, rules = sign.partition("[[rule]]")
    (tmp_path / "assay.toml").write_text(f"{head}[sign]{keys}[[sign.domain]]{row}[[rule]]{rules}")
    return tmp_path


def check(folder: Path, *arguments: str, domain: str = "example.org", body: str = "hello", head: str = "") -> None:
    (folder / "message").write_text(head + MESSAGE.format(domain=domain, body=body), "utf-8")
    code = main(["check", "--outgoing", "-c", str(folder / "assay.toml"), *arguments, str(folder / "message")])
    assert code == os.EX_OK


@pytest.mark.parametrize(
    ("domain", "lines"),
    [
        (
            "example.org",
            [
                "sign     example.org/r2026",
                "row      author domain example.org: sign.domain 1 signs as example.org with r2026",
                "change   there is no Date; the signature allows the MTA to add it",
                "change   there is no Message-ID; the signature allows the MTA to add it",
                "",
                "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=r2026;",
            ],
        ),
        (
            "sub.example.org",
            [
                "sign     none: author domain sub.example.org is in no table; nearest: example.org",
                "row      author domain sub.example.org is in no table; nearest: example.org",
                "row      sign.domain 1 (example.org) does not sign for subdomains",
            ],
        ),
        (
            "example.net",
            [
                "sign     none: no row for author domain example.net matches joe@example.net",
                "row      no row for author domain example.net matches joe@example.net",
                "row      {folder}/SigningTable:1 is for info@example.net, and the local part is 'joe'",
            ],
        ),
        (
            "example.com",
            [
                "sign     none: no row for author domain example.com matches joe@example.com",
                "row      no row for author domain example.com matches joe@example.com",
                "row      {folder}/SigningTable:2 matches, but {folder}/%.private has no file for example.com",
            ],
        ),
    ],
)
def test_the_row(folder: Path, domain: str, lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    check(folder, domain=domain)
    said = capsys.readouterr().out.replace(str(folder), "{folder}").splitlines()
    assert said[: len(lines)] == lines


def test_what_an_mta_may_change(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(folder, body="Grüße\n" + "x" * 999, head="Bcc: x@example.net\nCc: joe\n")
    said = capsys.readouterr().out.splitlines()
    assert "hazard   the body has 8-bit octets: an MTA converts it if the next hop does not offer 8BITMIME" in said
    assert "hazard   a line of the body or of a signed field has more than 998 octets: MTAs break it" in said
    assert "hazard   an address in From, Sender, Reply-To, To or Cc has no domain: Sendmail adds its own" in said
    assert "change   the MTA removes Bcc; the signature does not cover it" in said


def test_a_rule(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(folder, head="X-No: 1\n")
    assert capsys.readouterr().out.rstrip() == "sign     none: rule no"  # no row was looked at
    check(folder, head="List-Id: <l.example.net>\n", domain="example.net")
    assert capsys.readouterr().out.splitlines()[:3] == [
        "sign     example.org/r2026",
        "row      rule list: sign as example.org",
        "row      domain of the rule example.org: sign.domain 1 signs as example.org with r2026",
    ]


def test_a_client_that_is_not_ours(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(folder, "--ip", "192.0.2.1")
    said = capsys.readouterr().out
    assert said.startswith("sign     none: the message is from outside: the client is not in clients.internal and")
    check(folder, "--ip", "192.0.2.1", "--login", "joe")
    assert capsys.readouterr().out.startswith("sign     example.org/r2026\n")


def test_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(folder, "--json")
    found = json.loads(capsys.readouterr().out)["sign"]
    assert (found["sign"], found["why"], found["hazards"]) == ("example.org/r2026", "", [])


def test_without_tables(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "assay.toml").write_text('[dns]\nnameservers = "none"\n')
    check(folder)
    assert capsys.readouterr().out.startswith("sign     none: nothing is configured to sign; write a [[sign.domain]]")


def test_the_address_is_required_for_mail_from_outside(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", str(folder / "key")])
    assert ended.value.code == os.EX_USAGE
    assert "the address of the client is required: write --ip, or --outgoing" in capsys.readouterr().err
