# SPDX-License-Identifier: GPL-3.0-or-later
"""How many DNS questions one message can make us ask. Whoever sends it chooses whom they hit (RFC 7208, 11.1), and they
compete with those of honest mail; so the worst that we could think of is counted here, and held."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

import pytest

from assay.inquiry import MX, Answer, Outcome, Question, RecordType
from assay.model.message import HeaderField
from assay.policy import Trust
from assay.session import Session, Settings
from talking import NOW
from zone import Zone

#: Ten mechanisms that ask for ten names each, and an explanation that asks for the client's.
COSTLY = "v=spf1 " + " ".join(f"mx:m{number}.%{{d}}" for number in range(10)) + " exp=%{p}.%{d} -all"
LABELS = "a.b.c.d.e.f.g.example"  # nine labels below it: the longest walk of all


class Hostile(Zone):
    """A zone that has whatever makes us ask for more, under any name, and never what would end a search."""

    def answer(self, question: Question) -> Answer:
        self.asked.append(question)
        match question.type:
            case RecordType.PTR:
                return found(*(f"p{number}.{number}.example" for number in range(20)))
            case RecordType.MX:
                return found(*(MX(number, f"x{number}.{question.name}") for number in range(10)))
            case RecordType.A:
                return found(ip_address("198.51.100.1"))
            case RecordType.TXT if "spf" in question.name and not question.name.startswith("_dmarc"):
                return found(COSTLY.encode())
        return Answer(Outcome.NXDOMAIN)


def found(*records: object) -> Answer:
    return Answer(Outcome.FOUND, records, ttl=300)  # type: ignore[arg-type]  # of the type that was asked for


def signature(domain: str) -> HeaderField:
    return HeaderField(b"DKIM-Signature", f" v=1; a=rsa-sha256; d={domain}; s=s; h=from; bh=AAAA; b=AAAA".encode())


def arc_set(number: int) -> list[HeaderField]:
    cv = "none" if number == 1 else "pass"
    tags = f"i={number}; a=rsa-sha256; s=s; b=AAAA"
    return [
        HeaderField(b"ARC-Seal", f" {tags}; d=seal{number}.example; cv={cv}".encode()),
        HeaderField(b"ARC-Message-Signature", f" {tags}; d=set{number}.example; h=from; bh=AAAA".encode()),
        HeaderField(b"ARC-Authentication-Results", f" i={number}; x.example; none".encode()),
    ]


def kind(question: Question) -> str:
    """What asked it."""
    name = question.name
    if name.startswith("_dmarc."):
        return "DMARC"
    if "._domainkey." in name:
        return "ARC" if name.startswith("s._domainkey.se") else "DKIM"
    if question.type is RecordType.PTR or name[0] == "p":
        return "IPREV"
    return "SPF of HELO" if "helo" in name else "SPF of MAIL FROM" if "from" in name else "other"


@pytest.fixture
def asked() -> list[Question]:
    """All that the worst message makes us ask, each question once, as the cache would have it."""
    zone = Hostile({})
    session = Session(Settings(), Trust(), lambda: zone)
    session.connect(ip_address("192.0.2.7"), "")
    session.helo(f"spf.helo.{LABELS}")
    session.mail(f"<joe@spf.from.{LABELS}>", now=NOW)
    session.rcpt("<ann@example.net>")
    for number in range(1000):  # they look related to the author: the walks from them are worth something
        session.header(signature(f"k.{'.'.join(f'{label}{number}' for label in 'abcdef')}.g.example"))
    for number in range(1, 51):
        for field in arc_set(number):
            session.header(field)
    session.header(HeaderField(b"From", f" joe@author.{LABELS}".encode()))
    for number in range(2):
        session.header(signature(f"k{number}.author.{LABELS}"))  # these are, and are tried in place of two others
    session.end_of_header()
    session.end_of_message(queue_id="", now=NOW)
    return list(dict.fromkeys(zone.asked))


def test_a_message_can_ask_no_more_than_so_many(asked: list[Question]) -> None:
    assert Counter(kind(question) for question in asked) == {
        "IPREV": 1 + 10,
        "SPF of HELO": 1 + 10 * (1 + 10) + 1,
        "SPF of MAIL FROM": 1 + 10 * (1 + 10) + 1,
        "DKIM": 10 + 2,
        "ARC": 2 * 50,
        "DMARC": 57,  # two walks of 8 and 8 more, of which names are shared; and never more than 10 * 8 + 1
    }
    assert len(asked) == 404
