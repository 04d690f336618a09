# SPDX-License-Identifier: GPL-3.0-or-later
"""The vocabulary: the facts of a message have the declared types, whatever was evaluated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from assay.assessment import Assessment
from assay.inquiry import Grounds
from assay.model.message import Header, HeaderField
from assay.model.name import Domain, Mailbox, ReversePath
from assay.model.smtp import Client, Envelope
from assay.policy import Facts, Stage, facts
from assay.policy.facts import MAX_FIELD_NAMES, MAX_FIELD_OCTETS, MAX_FIELDS, MAX_NAME_LENGTH, MAX_TEXT
from assay.policy.vocabulary import element, is_tree, known_from, members, sound
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
    author=dmarc.Author(AUTHOR, "joe@author.example", domains=(AUTHOR,)),
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
        grounds=Grounds.SECURE,
    ),
    dkim=(
        dkim.Evaluation(
            dkim.Result.PASS,
            "",
            SIGNATURE,
            AUTHOR,
            "@author.example",
            "sel",
            "rsa-sha256",
            signed_fields=("from",),
            grounds=Grounds.STALE,
        ),
        dkim.Evaluation(dkim.Result.NEUTRAL, "not readable", SIGNATURE),
    ),
    arc=arc.Evaluation(arc.Result.PASS, "whole", 1, 1, (sealer(LIST),)),
    sender_id=senderid.Evaluation(senderid.Result.PASS, senderid.Scope.PRA, SENDER, "joe@sender.example"),
    dmarc=dmarc.Evaluation(
        dmarc.Result.PASS,
        "aligned",
        AUTHOR,
        dmarc.DmarcPolicy.REJECT,
        dkim_aligned=True,
        aligned=(dmarc.Identifier(AUTHOR, "pass"),),
        organizational_domain=AUTHOR,
        grounds=Grounds.STALE,
    ),
    header=Header(
        (HeaderField(b"LIST-ID", b" <l.example>"), HeaderField(b"X-Two", b" 1"), HeaderField(b"x-two", b"2"))
    ),
)


def check(kind: Any, value: Any, path: str) -> None:
    if is_tree(kind):
        assert type(value) is kind, path
        for name, fact in members(kind).items():
            check(fact.kind, getattr(value, fact.attribute), f"{path}.{name}")
    elif element(kind) is not None:
        assert type(value) is tuple, path
        for one in value:
            check(element(kind), one, f"{path}[]")
    elif path == ".header":
        check(tuple[tuple[str, ...], ...], tuple(value.values()), "header")
    else:
        assert type(value) is kind, f"{path}: {value!r}, and no subclass that JSON or CEL would show otherwise"


@pytest.mark.parametrize("assessment", [EMPTY, FULL], ids=["nothing evaluated", "everything evaluated"])
def test_facts_have_their_declared_types(assessment: Assessment) -> None:
    found = facts(assessment, header_names=("x-two", "x-none"))
    assert set(found.header) == {"x-two", "x-none"}
    check(Facts, found, "")


def test_every_fact_has_a_first_stage() -> None:
    assert all(fact.stage is not None for fact in members(Facts).values())


KNOWN = {
    "client.name": ("client", Stage.CONNECT),
    "iprev": ("iprev", Stage.CONNECT),
    "helo": ("helo", Stage.HELO),
    "spf.helo.result": ("spf.helo", Stage.HELO),
    "mail_from.domain": ("mail_from", Stage.MAIL),
    "spf": ("spf", Stage.MAIL),
    "spf.mailfrom": ("spf.mailfrom", Stage.MAIL),
    "rcpt": ("rcpt", Stage.RCPT),
    **{name: (name, Stage.EOM) for name in ("from", "dkim", "arc", "senderid", "dmarc", "list", "header")},
}


@pytest.mark.parametrize(("path", "known"), KNOWN.items(), ids=KNOWN)
def test_the_first_stage_of_each_fact(path: str, known: tuple[str, Stage]) -> None:
    assert known_from(path) == known


#: The form of logs that exist. A name or a type here changes only for a reason given in the change log.
LOGGED = (
    '{"client":{"address":"192.0.2.1","name":"mail.sender.example","daemon":"smtpd"},"direction":"outbound","helo":"helo.example",'
    '"mail_from":{"address":"joe@sender.example","local_part":"joe","domain":"sender.example","authenticated":"joe"},'
    '"rcpt":["ann@example.net"],"iprev":{"result":"pass","name":"a.example","names":["a.example","b.example"],'
    '"confirmed":["a.example"],"reason":"why",'
    '"dnssec":false,"stale":false},"spf":{"helo":{"result":"none","domain":"","mechanism":"","by_all":false,"guessed":false,'
    '"reason":"no record","explanation":"",'
    '"dnssec":false,"stale":false},"mailfrom":{"result":"fail","domain":"sender.example","mechanism":"-all",'
    '"by_all":true,"guessed":true,"reason":"because","explanation":"go away",'
    '"dnssec":true,"stale":false}},"from":{"domain":"author.example",'
    '"domains":["author.example"],"address":"joe@author.example","fault":""},"dkim":[{"result":"pass","domain":"author.example","selector":"sel",'
    '"identity":"@author.example","algorithm":"rsa-sha256","testing":false,"aligned":true,"fields":["from"],'
    '"reason":"",'
    '"dnssec":false,"stale":true},{"result":"neutral","domain":"","selector":"","identity":"","algorithm":"","testing":false,'
    '"aligned":false,"fields":[],"reason":"not readable",'
    '"dnssec":false,"stale":false}],"arc":{"result":"pass","sealers":["list.example"],'
    '"trusted":true,"reason":"whole",'
    '"dnssec":false,"stale":false},"senderid":{"result":"pass","domain":"sender.example","reason":"","explanation":"",'
    '"dnssec":false,"stale":false},'
    '"dmarc":{"result":"pass","policy":"reject","disposition":"none","domain":"author.example",'
    '"organizational_domain":"author.example","spf_aligned":false,"dkim_aligned":true,"reason":"aligned",'
    '"dnssec":false,"stale":true},'
    '"list":{"id":"<l.example>"},"header":{"x-two":["1","2"],"x-none":[]}}'
)


def test_the_log_format_is_stable() -> None:
    found = facts(FULL, header_names=("x-two", "x-none"), trusted_sealers=(LIST,))
    assert msgspec.json.encode(found).decode() == LOGGED
    assert msgspec.json.decode(LOGGED, type=Facts) == found


def test_a_result_other_than_pass_is_not_aligned() -> None:
    failing = replace(FULL.dkim[0], result=dkim.Result.FAIL)
    assert not facts(replace(FULL, dkim=(failing,))).dkim[0].aligned


OTHER = Domain("other.example")
TRUST = [
    pytest.param((sealer(LIST),), arc.Result.PASS, True, id="its only sealer is trusted, and saw DMARC pass"),
    pytest.param((sealer(OTHER),), arc.Result.PASS, False, id="an unknown sealer"),
    pytest.param((sealer(LIST), sealer(OTHER, instance=2)), arc.Result.PASS, False, id="one of two sealers is unknown"),
    pytest.param((sealer(LIST),), arc.Result.FAIL, False, id="a broken chain"),
    pytest.param(
        (sealer(LIST, "list.example; dmarc=fail header.from=author.example"),), arc.Result.PASS, False, id="fail"
    ),
    pytest.param(
        (sealer(LIST, "list.example; dmarc=pass header.from=b.example"),), arc.Result.PASS, False, id="another"
    ),
    pytest.param((sealer(LIST, "list.example; dmarc=pass"),), arc.Result.PASS, False, id="a pass without a domain"),
    pytest.param((sealer(LIST, "=;\x00"),), arc.Result.PASS, False, id="no results at all"),
]


@pytest.mark.parametrize(("sealers", "result", "trusted"), TRUST)
def test_a_chain_is_trusted_if_all_sealers_are_and_the_first_recorded_a_pass(
    sealers: tuple[arc.Sealer, ...], result: arc.Result, trusted: bool
) -> None:
    chain = arc.Evaluation(result, "", len(sealers), 1, sealers)
    found = facts(replace(FULL, arc=chain), trusted_sealers=(LIST,))
    assert found.arc.trusted is trusted


def test_the_signed_fields_of_a_signature_are_unique_and_bounded() -> None:
    names = ("from", "subject", "from", "x" * (MAX_NAME_LENGTH + 1), *(f"x-{number}" for number in range(1000)))
    signature = replace(FULL.dkim[0], signed_fields=names)
    (found,) = facts(replace(FULL, dkim=(signature,))).dkim
    assert found.fields[:3] == ("from", "subject", "x-0")
    assert len(found.fields) == MAX_FIELD_NAMES


def test_a_field_is_unfolded_and_bounded() -> None:
    long = HeaderField(b"X", b" a\r\n\tb" + b"c" * 2000 + b"\xff")
    (value,) = facts(replace(FULL, header=Header((long,))), header_names=("x",)).header["x"]
    assert value.startswith("a\tbc")
    assert len(value) == MAX_FIELD_OCTETS


def test_octets_that_are_not_utf_8_become_readable() -> None:
    client = Client(ADDRESS, helo="caf\udce9", name="a\\b")
    found = sound(msgspec.to_builtins(facts(replace(FULL, client=client))))
    assert found["helo"] == "caf\\xe9"
    assert found["client"]["name"] == "a\\b"
    json.dumps(found).encode("utf-8")


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)


def test_envelope_values_are_bounded() -> None:
    long = "x" * 100_000
    path = ReversePath(f"{long}@sender.example", Mailbox(long, SENDER))
    found = facts(
        replace(
            FULL,
            client=Client(ADDRESS, long, long, "smtpd"),
            envelope=Envelope(path, (long, long), "4A", long),
            author=dmarc.Author(AUTHOR, long, long),
        )
    )
    assert max(map(len, texts(msgspec.to_builtins(found)))) == MAX_TEXT


def test_a_repeated_field_name_is_bounded() -> None:
    fields = tuple(HeaderField(b"X", b"%d" % number) for number in range(MAX_FIELDS + 1))
    values = facts(replace(FULL, header=Header(fields)), header_names=("x",)).header["x"]
    assert values == tuple(str(number) for number in range(MAX_FIELDS))
