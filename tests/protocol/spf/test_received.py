# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
from ipaddress import ip_address

import pytest

from assay.model.name import Domain
from assay.protocol import spf

#: The grammar of RFC 7208, 9.1, written anew: what our field must be, whatever goes in.
ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]"
VALUE = rf'(?:{ATEXT}+(?:\.{ATEXT}+)*|"(?:[^"\\\r\n]|\\["\\])*")'
FIELD = re.compile(
    rf"(?P<result>[a-z]+)\s+\((?:[^()\\]|\\[()\\])*\)(?P<pairs>(?:\s+[a-z-]+={VALUE};)+)",
)
PAIR = re.compile(rf"\s+(?P<key>[a-z-]+)=(?P<value>{VALUE});")


def evaluation(
    result: spf.Result = spf.Result.PASS, mechanism: str = "ip4:192.0.2.1", reason: str = "because"
) -> spf.Evaluation:
    return spf.Evaluation(
        result, spf.Identity.MAILFROM, Domain("example.com"), "user@example.com", mechanism=mechanism, reason=reason
    )


def render(**changes: str) -> str:
    inputs = {"helo": "mail.example.com", "envelope_from": "user@example.com", "receiver": "mx.receiver.example"}
    return spf.render(evaluation(), client_address=ip_address("192.0.2.1"), **(inputs | changes))


def pairs(value: str) -> dict[str, str]:
    match = FIELD.fullmatch(value)
    assert match is not None, value
    return {pair["key"]: pair["value"] for pair in PAIR.finditer(match["pairs"])}


def test_field_has_all_keys_and_quotes_only_where_needed() -> None:
    assert pairs(render()) == {
        "client-ip": "192.0.2.1",
        "envelope-from": '"user@example.com"',
        "helo": "mail.example.com",
        "receiver": "mx.receiver.example",
        "identity": "mailfrom",
        "mechanism": '"ip4:192.0.2.1"',
    }


def test_field_is_folded_before_the_margin() -> None:
    lines = ("Received-SPF: " + render()).split("\r\n")
    assert len(lines) > 1
    assert all(len(line) <= 78 for line in lines)
    assert all(line.startswith("\t") for line in lines[1:])


def test_ipv6_address_is_quoted() -> None:
    value = spf.render(
        evaluation(), client_address=ip_address("2001:db8::1"), helo="", envelope_from="", receiver="mx.example"
    )
    assert pairs(value)["client-ip"] == '"2001:db8::1"'
    assert pairs(value)["helo"] == '""'
    assert pairs(value)["envelope-from"] == '""'


@pytest.mark.parametrize("result", [spf.Result.TEMPERROR, spf.Result.PERMERROR])
def test_error_reports_its_problem(result: spf.Result) -> None:
    value = spf.render(
        evaluation(result, "", 'bad "term" (\\)'),
        client_address=ip_address("192.0.2.1"),
        helo="mail.example.com",
        envelope_from="",
        receiver="mx.example",
    )
    found = pairs(value)
    assert found["problem"] == '"bad ?term? ???"'
    assert "mechanism" not in found


@pytest.mark.parametrize(
    "hostile",
    [
        'a" identity=forged; x="',
        "a\\",
        'a\\"',
        "a)\r\nReceived-SPF: pass",
        "a\nb\rc\0d\te\x7f",
        "\udcff\udc80",
        "é" * 5000,
        "a" * 5000,
        '"' * 5000,
        "\\" * 5000,
        "\U0001f4a9" * 5000,
        "a\u2028b\u202ec\u0085d",
        "a b  c",
        "=?utf-8?q?x?=",
        "a..b",
        ".",
        ";",
        "()",
    ],
)
@pytest.mark.parametrize("where", ["helo", "envelope_from", "receiver"])
def test_nothing_breaks_out(where: str, hostile: str) -> None:
    value = render(**{where: hostile})
    found = pairs(value)
    assert found["identity"] == "mailfrom"
    assert found["client-ip"] == "192.0.2.1"
    assert len(found) == 6
    assert all(line.isprintable() for line in value.replace("\t", " ").split("\r\n"))
    assert all(len(line.encode()) <= 998 for line in value.split("\r\n"))
    assert not re.search(r"\r\n(?!\t)", value)


def test_utf8_is_kept() -> None:
    assert pairs(render(envelope_from="jürgen@example.com"))["envelope-from"] == '"jürgen@example.com"'
