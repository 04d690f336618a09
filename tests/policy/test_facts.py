# SPDX-License-Identifier: GPL-3.0-or-later
"""The vocabulary: what the schema promises is what a message's facts hold, whatever was evaluated."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest
from msgspec.structs import replace

from assay.assessment import Assessment
from assay.model.message import Header, HeaderField
from assay.model.name import Domain, ReversePath
from assay.model.smtp import Client, Envelope
from assay.policy import SCHEMA, facts
from assay.policy.facts import KNOWN_FROM, MAX_FIELD_NAMES, MAX_FIELD_OCTETS, MAX_NAME_LENGTH, sound
from assay.protocol import arc, dkim, dmarc, iprev, senderid, spf

ADDRESS = ip_address("192.0.2.1")
AUTHOR, SENDER, LIST = Domain("author.example"), Domain("sender.example"), Domain("list.example")
SIGNATURE = HeaderField(b"DKIM-Signature", b" v=1")
VOUCHED = "list.example; dmarc=pass header.from=author.example"


def sealer(domain: Domain, payload: str = VOUCHED, instance: int = 1) -> arc.Sealer:
    return arc.Sealer(instance, domain, "s", arc.Result.NONE, payload)


EMPTY = Assessment(Client(), Envelope(ReversePath("")))
FULL = Assessment(
    Client(ADDRESS, "mail.sender.example", "helo.example", "smtpd"),
    Envelope(ReversePath.parse("joe@sender.example"), ("ann@example.net",), "4A", "joe"),
    author=dmarc.Author(AUTHOR, "joe@author.example"),
    iprev=iprev.Evaluation(iprev.Result.PASS, ADDRESS, "a.example", ("a.example", "b.example"), ("a.example",), "why"),
    spf_helo=spf.Evaluation(spf.Result.NONE, spf.Identity.HELO, None, "postmaster@helo.example", reason="no record"),
    spf_mail_from=spf.Evaluation(
        spf.Result.FAIL,
        spf.Identity.MAILFROM,
        SENDER,
        "joe@sender.example",
        mechanism="-all",
        reason="because",
        explanation="go away",
        all_matched=True,
        guessed=True,
    ),
    dkim=(
        dkim.Evaluation(
            dkim.Result.PASS, "", SIGNATURE, AUTHOR, "@author.example", "sel", "rsa-sha256", signed_fields=("from",)
        ),
        dkim.Evaluation(dkim.Result.NEUTRAL, "not readable", SIGNATURE),
    ),
    arc=arc.Evaluation(arc.Result.PASS, "whole", 1, 1, (sealer(LIST),)),
    sender_id=senderid.Evaluation(senderid.Result.PASS, senderid.Scope.PRA, SENDER, "joe@sender.example"),
    dmarc=dmarc.Evaluation(
        dmarc.Result.PASS,
        "aligned",
        AUTHOR,
        dmarc.Policy.REJECT,
        dkim_aligned=True,
        aligned=(dmarc.Identifier(AUTHOR, "pass"),),
        organizational_domain=AUTHOR,
    ),
    header=Header(
        (HeaderField(b"LIST-ID", b" <l.example>"), HeaderField(b"X-Two", b" 1"), HeaderField(b"x-two", b"2"))
    ),
)


def check(schema: Any, value: Any, path: str) -> None:
    if isinstance(schema, dict):
        assert isinstance(value, dict), path
        assert set(value) == set(schema), path
        for name, kind in schema.items():
            check(kind, value[name], f"{path}.{name}")
    elif isinstance(schema, list):
        assert isinstance(value, list), path
        for one in value:
            check(schema[0], one, f"{path}[]")
    else:
        assert type(value) is schema, f"{path}: {value!r}, and no subclass that JSON or CEL would show otherwise"


@pytest.mark.parametrize("assessment", [EMPTY, FULL], ids=["nothing evaluated", "everything evaluated"])
def test_the_schema_is_what_facts_are(assessment: Assessment) -> None:
    found = facts(assessment, header_names=("x-two", "x-none"))
    header = found.pop("header")
    assert set(header) == {"x-two", "x-none"}
    check({name: kind for name, kind in SCHEMA.items() if name != "header"}, found, "")


def test_every_fact_is_known_from_some_stage() -> None:
    known = {path.partition(".")[0] for path in KNOWN_FROM}
    assert known == set(SCHEMA)


def test_full_facts_tell_what_was_evaluated() -> None:
    found = facts(FULL, header_names=("x-two", "x-none"), trusted_sealers=(LIST,))
    assert found["client"] == {"address": "192.0.2.1", "name": "mail.sender.example", "daemon": "smtpd"}
    assert found["helo"] == "helo.example"
    assert found["mail_from"] == {
        "address": "joe@sender.example",
        "local_part": "joe",
        "domain": "sender.example",
        "authenticated": "joe",
    }
    assert found["rcpt"] == ["ann@example.net"]
    assert found["iprev"] == {
        "result": "pass",
        "name": "a.example",
        "names": ["a.example", "b.example"],
        "confirmed": ["a.example"],
        "reason": "why",
    }
    assert found["spf"]["helo"]["result"] == "none"
    assert found["spf"]["helo"]["domain"] == ""
    assert found["spf"]["mailfrom"] == {
        "result": "fail",
        "domain": "sender.example",
        "mechanism": "-all",
        "by_all": True,
        "guessed": True,
        "reason": "because",
        "explanation": "go away",
    }
    assert found["from"] == {"domain": "author.example", "address": "joe@author.example", "fault": ""}
    assert [one["aligned"] for one in found["dkim"]] == [True, False]
    assert found["dkim"][0]["fields"] == ["from"]
    assert found["arc"] == {"result": "pass", "sealers": ["list.example"], "trusted": True, "reason": "whole"}
    assert found["dmarc"]["policy"] == "reject"
    assert found["list"] == {"id": "<l.example>"}
    assert found["header"] == {"x-two": ["1", "2"], "x-none": []}


def test_what_does_not_pass_is_not_aligned() -> None:
    failing = replace(FULL.dkim[0], result=dkim.Result.FAIL)
    assert not facts(replace(FULL, dkim=(failing,)))["dkim"][0]["aligned"]


OTHER = Domain("other.example")
TRUST = [
    pytest.param((sealer(LIST),), arc.Result.PASS, True, id="its only sealer is trusted, and saw DMARC pass"),
    pytest.param((sealer(OTHER),), arc.Result.PASS, False, id="an unknown sealer"),
    pytest.param((sealer(LIST), sealer(OTHER, instance=2)), arc.Result.PASS, False, id="one of two is unknown"),
    pytest.param((sealer(LIST),), arc.Result.FAIL, False, id="a broken chain"),
    pytest.param(
        (sealer(LIST, "list.example; dmarc=fail header.from=author.example"),), arc.Result.PASS, False, id="fail"
    ),
    pytest.param(
        (sealer(LIST, "list.example; dmarc=pass header.from=b.example"),), arc.Result.PASS, False, id="another"
    ),
    pytest.param((sealer(LIST, "list.example; dmarc=pass"),), arc.Result.PASS, False, id="a pass of nobody"),
    pytest.param((sealer(LIST, "=;\x00"),), arc.Result.PASS, False, id="no results at all"),
]


@pytest.mark.parametrize(("sealers", "result", "trusted"), TRUST)
def test_a_chain_is_trusted_where_all_sealers_are_and_the_first_saw_a_pass(
    sealers: tuple[arc.Sealer, ...], result: arc.Result, trusted: bool
) -> None:
    chain = arc.Evaluation(result, "", len(sealers), 1, sealers)
    found = facts(replace(FULL, arc=chain), trusted_sealers=(LIST,))
    assert found["arc"]["trusted"] is trusted


def test_a_signature_has_its_fields_once_and_as_many_as_are_real() -> None:
    names = ("from", "subject", "from", "x" * (MAX_NAME_LENGTH + 1), *(f"x-{number}" for number in range(1000)))
    signature = replace(FULL.dkim[0], signed_fields=names, identity="a" * 100_000 + "@author.example")
    (found,) = facts(replace(FULL, dkim=(signature,)))["dkim"]
    assert found["fields"][:3] == ["from", "subject", "x-0"]
    assert len(found["fields"]) == MAX_FIELD_NAMES
    assert len(found["identity"]) == MAX_FIELD_OCTETS


def test_a_field_is_unfolded_and_bounded() -> None:
    long = HeaderField(b"X", b" a\r\n\tb" + b"c" * 2000 + b"\xff")
    (value,) = facts(replace(FULL, header=Header((long,))), header_names=("x",))["header"]["x"]
    assert value.startswith("a\tbc")
    assert len(value) == MAX_FIELD_OCTETS


def test_what_is_no_utf_8_becomes_readable() -> None:
    client = Client(ADDRESS, helo="caf\udce9", name="a\\b")
    found = facts(replace(FULL, client=client))
    assert sound(found)["helo"] == "caf\\xe9"
    assert sound(found)["client"]["name"] == "a\\b"
    json.dumps(sound(found)).encode("utf-8")
