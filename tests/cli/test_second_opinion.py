# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay check --second-opinion``: whether dkimpy and authres agree, and if not, which section decides."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from assay.cli.opinion import compare_field
from assay.protocol import authres
from signing import KEY_NAME, MESSAGE, record, rsa_key, sign_rsa

GOLDEN = Path(__file__).parents[1] / "golden"


def check(folder: Path, message: bytes, *more: str, tags: str = "", configuration: str = "") -> str:
    text = " ".join(f'"{part}"' for part in re.findall(".{1,200}", record(rsa_key(), tags=tags)))
    (folder / "zone").write_text(f"{KEY_NAME}. TXT {text}\n" + (GOLDEN / "zone").read_text("utf-8"), "utf-8")
    (folder / "message").write_bytes(message)
    (folder / "assay.toml").write_text(
        '[identity]\nauthserv_id = "mx.example.net"\n'
        f'[dns]\nnameservers = "none"\nzone = "{folder}/zone"\n{configuration}'
    )
    envelope = ("--ip", "192.0.2.1", "--helo", "mail.example.org", "--mail-from", "ann@example.org")
    command = [
        sys.executable,
        "-m",
        "assay",
        "check",
        folder / "message",
        *envelope,
        "-c",
        folder / "assay.toml",
        *more,
    ]
    return subprocess.run(command, capture_output=True, timeout=60, check=True, text=True).stdout


def opinions(folder: Path, message: bytes, **options: str) -> list[str]:
    return check(folder, message, "--second-opinion", **options).rpartition("\n\n")[2].splitlines()


def golden(name: str) -> bytes:
    return (GOLDEN / name / "message").read_bytes()


@pytest.mark.parametrize(
    ("message", "tags", "expected"),
    [
        pytest.param(sign_rsa(), "", ["dkim     example.org/sel: both say pass", "arc      both say none"], id="good"),
        pytest.param(sign_rsa() + b"more", "", ["dkim     example.org/sel: both say fail"], id="changed"),
        pytest.param(MESSAGE, "", ["arc      both say none"], id="unsigned"),
        pytest.param(golden("mailing-list"), "", ["arc      both say pass"], id="a chain"),
        pytest.param(golden("mailing-list-broken-seal"), "", ["arc      both say fail"], id="a broken chain"),
        pytest.param(
            b"Subject: added\r\n" + sign_rsa(),
            "",
            [
                "dkim     example.org/sel: assay says policy, dkimpy says pass: verified, but 1 of 2 Subject fields is "
                "not signed; RFC 6376, 8.15 decides"
            ],
            id="a field that was added",
        ),
        pytest.param(
            sign_rsa(signature_algorithm=b"rsa-sha1"),
            "",
            [
                "dkim     example.org/sel: assay says permerror, dkimpy says pass: rsa-sha1 is not accepted any more; "
                "RFC 8301, 3.1 decides"
            ],
            id="SHA-1",
        ),
        pytest.param(
            sign_rsa(identity=b"ann@sub.example.org"),
            "t=s;",
            [
                "dkim     example.org/sel: assay says permerror, dkimpy says pass: i= is in a subdomain, which the key "
                f"does not allow (t=s) at {KEY_NAME}; RFC 6376, 3.6.1 decides"
            ],
            id="a subdomain that the key forbids",
        ),
    ],
)
def test_the_second_opinion(tmp_path: Path, message: bytes, tags: str, expected: list[str]) -> None:
    said = opinions(tmp_path, message, tags=tags)
    assert [line for line in expected if line not in said] == []
    assert said[-1].startswith("authres  ")


def field(b: str) -> str:
    properties = (authres.Property("header", "b", b), authres.Property("policy", "unsigned-field", "violated"))
    return authres.render("mx.example.net", [authres.MethodResult("dkim", "policy", properties=properties)])


def test_a_field_that_authres_reads_the_same() -> None:
    assert compare_field(field("AbCdEfGh")).line == "authres  both say 1 result of mx.example.net"


def test_a_value_that_authres_does_not_read() -> None:
    """A quoted-string before another property: RFC 8601, 2.2 allows it, and b= has a slash in every eighth field."""
    assert compare_field(field("Ab/dEfGh")).line == (
        "authres  assay says 1 result of mx.example.net, authres says 1 result of mx.example.net: it does not read "
        "header.b of dkim=policy; RFC 8601, 2.2 decides"
    )


def test_bare_line_feeds(tmp_path: Path) -> None:
    (line,) = (line for line in opinions(tmp_path, golden("bare-line-ends")) if line.startswith("dkim"))
    assert "assay says pass, dkimpy says fail" in line
    assert line.endswith("RFC 6376, 5.3 decides")


def test_json_has_the_second_opinion(tmp_path: Path) -> None:
    found = json.loads(check(tmp_path, sign_rsa(), "--second-opinion", "--json"))["second_opinion"]
    assert [(one["method"], one["library"], one["agrees"]) for one in found] == [
        ("dkim", "dkimpy", True),
        ("arc", "dkimpy", True),
        ("authres", "authres", True),
    ]


def test_without_the_option_there_is_no_second_opinion(tmp_path: Path) -> None:
    assert "both say" not in check(tmp_path, sign_rsa())
    assert "second_opinion" not in json.loads(check(tmp_path, sign_rsa(), "--json"))


def test_a_message_that_is_not_judged(tmp_path: Path) -> None:
    said = opinions(tmp_path, MESSAGE, configuration='[clients]\ninternal = ["192.0.2.0/24"]\n')
    assert said[-1] == "nothing to compare"


def test_dkimpy_is_imported_only_on_request() -> None:
    program = "import sys, assay.cli.main, assay.daemon.supervisor; print('dkim' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout == "False\n"
