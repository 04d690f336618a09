# SPDX-License-Identifier: GPL-3.0-or-later
"""The two strands of a transaction: which message has which, and that both see the same fields and body."""

from __future__ import annotations

from typing import Any

import pytest

from assay.inquiry import Driver
from assay.keys import Signing
from assay.memory import Memory
from assay.model.message import Header, HeaderField, split_message
from assay.model.name import ReversePath
from assay.model.network import Networks
from assay.model.smtp import Client, Envelope, parse_address
from assay.policy import Course, Trust
from assay.session import Settings, Transaction
from assay.session.inquiries import Inquiries, Unbounded
from assay.session.origin import Origin
from assay.session.outgoing import Outgoing, Signed
from assay.session.transaction import MAX_RECIPIENTS
from sending import MESSAGE, ROWS
from signing import sign_rsa
from talking import NOW
from zone import Zone

TRUST = Trust(
    internal=Networks.parse(["10.0.0.0/8", "127.0.0.0/8"]),
    relays=Networks.parse(["192.0.2.99"]),
    trusted_results=Networks.parse(["127.0.0.1"]),
)


def transaction(address: str, login: str = "") -> Transaction:
    zone = Zone(ROWS)

    def driver(_: float | None = None) -> Driver:
        return zone

    course = Course(Settings().policy, TRUST)
    client = Client(parse_address(address))
    course.connect(client.address, "")
    course.mail("joe@example.org", login)
    inquiries, memory = Inquiries(driver, Unbounded()), Memory()
    return Transaction(
        Settings(signing=Signing()),
        inquiries,
        memory,
        client,
        Envelope(ReversePath.parse("joe@example.org")),
        Origin(Settings(), inquiries, memory, "mx.example.net"),
        course,
        authserv_id="mx.example.net",
        now=NOW,
    )


def feed(one: Transaction, octets: bytes) -> Header:
    header, body = split_message(octets)
    for field in header:
        one.header(field)
    one.end_of_header()
    one.body(body)
    return header


@pytest.mark.parametrize(
    ("address", "login", "judged", "outgoing"),
    [
        pytest.param("192.0.2.1", "", True, False, id="a stranger"),
        pytest.param("192.0.2.1", "joe", False, True, id="a user of ours"),
        pytest.param("10.0.0.1", "", False, True, id="a host of ours"),
        pytest.param("127.0.0.1", "", False, False, id="a content filter that hands mail back"),
        pytest.param("192.0.2.99", "", True, False, id="a relay, before it is known whose mail it is"),
    ],
)
def test_which_strands_a_message_has(address: str, login: str, judged: bool, outgoing: bool) -> None:
    one = transaction(address, login)
    assert (one.judging is not None, one.outgoing is not None) == (judged, outgoing)


def test_our_own_mail_through_a_relay_goes_to_the_other_strand(monkeypatch: Any) -> None:
    one = transaction("192.0.2.99")
    received = HeaderField(b"Received", b" from h.example (h.example [10.1.1.1]) by relay.example; now")
    one.header(received)
    assert one.judging is None
    header = feed(one, MESSAGE)
    assert one.outgoing is not None
    seen = []
    monkeypatch.setattr(Outgoing, "sign", lambda _self, header, *_: seen.append(header) or Signed())
    one.end_of_message(queue_id="4A", now=NOW, draw=0.0)
    assert seen == [Header((received, *header))], "with the fields above the one that told"


def test_the_judging_strand_verifies_what_arrived() -> None:
    one = transaction("192.0.2.1")
    feed(one, sign_rsa(MESSAGE))
    for _ in range(MAX_RECIPIENTS + 1):
        one.recipient("<ann@example.net>")
    found = one.end_of_message(queue_id="4A", now=NOW, draw=0.0).assessment
    assert [str(each.result) for each in found.dkim] == ["pass"]
    assert (found.envelope.queue_id, len(found.envelope.recipients)) == ("4A", MAX_RECIPIENTS)
