# SPDX-License-Identifier: GPL-3.0-or-later
"""On whose behalf the DNS is asked, and what is asked first: the resolver shares its places by it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TypeVar

from assay.inquiry import ANYBODY, Answer, Asker, Inquiry, Question, Urgency
from assay.model.message import split_message
from assay.model.smtp import Address
from sending import BAD, GOOD, OUR_ID, ROWS, message
from talking import NOW, configured, greet, talk
from zone import Solved, Zone

T = TypeVar("T")
RELAY = "192.0.2.200"
SIGNATURE = "DKIM-Signature: v=1; a=rsa-sha256; d=other.example; s=sel; h=from; bh=AAAA; b=AAAA"
SEAL = "ARC-Seal: i=1; a=rsa-sha256; d=list.example; s=sel; cv=none; b=AAAA"


class Watching:
    """A zone that notes who asks for each name, and how urgently at most."""

    def __init__(self) -> None:
        self.zone = Zone(ROWS)
        self.askers: dict[str, set[Asker]] = {}
        self.urgencies: dict[str, Urgency] = {}

    def start(self, inquiry: Inquiry[T], asker: Asker = ANYBODY, urgency: Urgency = Urgency.EVIDENCE) -> Solved[T]:
        def answer(question: Question) -> Answer:
            self.askers.setdefault(question.name, set()).add(asker)
            self.urgencies[question.name] = min(urgency, self.urgencies.get(question.name, urgency))
            return self.zone.answer(question)

        try:
            batch = next(inquiry)
            while True:
                batch = inquiry.send([answer(question) for question in batch])
        except StopIteration as end:
            return Solved(end.value)

    def clients(self) -> set[Address | None]:
        """Of all that was asked."""
        return {asker.client for askers in self.askers.values() for asker in askers}


def test_all_is_asked_on_behalf_of_the_client() -> None:
    dns = Watching()
    one = configured({}, dns)
    greet(one, BAD)
    talk(one, message("joe@example.org", SIGNATURE))
    assert dns.clients() == {ip_address(BAD)}
    one.connect(ip_address(GOOD), "", mta_name=OUR_ID)
    dns.askers.clear()
    one.helo("x.example")
    talk(one)
    assert dns.clients() == {ip_address(GOOD)}


def test_each_message_asks_for_itself_and_the_connection_too() -> None:
    dns = Watching()
    one = configured({}, dns)
    greet(one)
    for number in range(2):
        talk(one, message(f"joe@m{number}.example"), path=f"<joe@p{number}.example>")
    (connection,) = dns.askers["1.2.0.192.in-addr.arpa"]
    messages = []
    for number in range(2):
        (asker,) = dns.askers[f"_dmarc.m{number}.example"]
        assert dns.askers[f"p{number}.example"] == {asker}
        messages.append(asker)
    assert len({connection, *messages}) == 3


def test_behind_a_relay_the_client_that_it_names_asks() -> None:
    dns = Watching()
    one = configured({"clients": {"relays": (RELAY,)}}, dns)
    greet(one, RELAY)
    talk(one, message("joe@example.org", f"Received: from x (x.example [{BAD}]) by relay", SIGNATURE))
    assert dns.clients() == {ip_address(BAD)}


def test_what_the_verdict_hangs_on_comes_first() -> None:
    dns = Watching()
    one = configured({}, dns)
    greet(one, helo="helo.example")
    header, _ = split_message(message("joe@author.example", SEAL, SIGNATURE))
    one.mail("<joe@path.author.example>", now=NOW)
    for field in header:
        one.header(field)
    one.end_of_header()
    urgencies = {
        "helo.example": Urgency.VERDICT,
        "path.author.example": Urgency.VERDICT,
        "_dmarc.author.example": Urgency.VERDICT,
        "sel._domainkey.other.example": Urgency.EVIDENCE,
        "1.2.0.192.in-addr.arpa": Urgency.EVIDENCE,
        "sel._domainkey.list.example": Urgency.AHEAD,
        "_dmarc.path.author.example": Urgency.AHEAD,
    }
    assert {name: dns.urgencies.get(name) for name in urgencies} == urgencies
