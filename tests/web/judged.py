# SPDX-License-Identifier: GPL-3.0-or-later
"""A message as a worker judges it, with all that it asked the DNS."""

from __future__ import annotations

import itertools

import msgspec
from msgspec.structs import replace

from assay.config import Configuration, make_settings, make_trust
from assay.model.message import split_message
from assay.model.smtp import parse_address
from assay.session import Session
from assay.session.delivery import Delivery, deliver
from assay.store.from_verdict import Keeping, message_row
from assay.store.rows import MessageRow
from signing import SELECTOR, record, rsa_key, sign_rsa
from zone import Rows, Zone

CLIENT = "198.51.100.7"
QUEUE = "4d0JUDGED"
ROWS: Rows = {
    "orders.example": [["TXT", ["v=spf1 mx include:_spf.provider.example ~all"]], ["MX", [10, "in.orders.example"]]],
    "in.orders.example": [["A", "192.0.2.40"]],
    "_spf.provider.example": [["TXT", ["v=spf1 ip4:198.51.100.0/24 -all"]]],
    f"{SELECTOR}._domainkey.orders.example": [["TXT", [record(rsa_key())]]],
    "_dmarc.orders.example": [["TXT", ["v=DMARC1; p=reject; rua=mailto:dmarc@orders.example"]]],
    "7.100.51.198.in-addr.arpa": [["PTR", "out7.provider.example"]],
    "out7.provider.example": [["A", CLIENT], ["TXT", ["v=spf1 a -all"]]],
}
MESSAGE = (
    b"From: Orders <ann@orders.example>\r\nTo: bob@example.org\r\nSubject: Your order\r\n"
    b"Message-ID: <order-4711@orders.example>\r\n\r\nThank you.\r\n"
)


def judged(end: int, *, addresses: bool = True, rows: Rows = ROWS, sender: str = "ann@orders.example") -> MessageRow:
    """Its row.

    :param end: when it came, in Unix milliseconds.
    """
    configuration = msgspec.convert({"identity": {"authserv_id": "mx1.example.org"}}, Configuration)
    zone = Zone(rows)
    clock = itertools.count(0, 0.004).__next__
    session = Session(make_settings(configuration), make_trust(configuration), lambda: zone, clock=clock)
    header, body = split_message(sign_rsa(MESSAGE, domain="orders.example"))
    delivery = Delivery(
        parse_address(CLIENT),
        header.fields,
        body,
        helo="out7.provider.example",
        mail_from=f"<{sender}>",
        recipients=("<bob@example.org>",),
        queue_id=QUEUE,
        now=end // 1000,
    )
    keeping = Keeping("mx1.example.org", addresses=addresses, subjects=addresses)
    row = message_row(deliver(session, delivery)[-1], keeping, now=end / 1000, waits={"mail": 0.009, "eom": 0.031})
    return replace(row, id=end.to_bytes(6, "big") + b"judged-one")
