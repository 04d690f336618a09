# SPDX-License-Identifier: GPL-3.0-or-later
"""One domain that does everything right, and the shortest way to send a message to a daemon as its MTA would."""

from __future__ import annotations

from ipaddress import ip_address

from assay.cli.mta import FilterOutcome, Mta, apply
from assay.model.message import HeaderField, split_message
from signing import record, rsa_key

GOOD, BAD = "192.0.2.1", "192.0.2.66"  # the one that may send for example.org, and one that may not
OUR_ID = "mx.example.net"
RECEIVED = HeaderField(b"Received", b" by mx.example.net id 4ABC")

#: example.org is in order; the others fail DMARC from everywhere, each with its own policy.
ROWS = {
    "example.org": [["TXT", ["v=spf1 ip4:192.0.2.1 -all"]]],
    "_dmarc.example.org": [["TXT", ["v=DMARC1; p=reject"]]],
    "sel._domainkey.example.org": [["TXT", [record(rsa_key())]]],
    "mail.example.org": [["A", GOOD], ["TXT", ["v=spf1 a -all"]]],
    "1.2.0.192.in-addr.arpa": [["PTR", "mail.example.org"]],
    "66.2.0.192.in-addr.arpa": [["PTR", "mail.example.org"]],  # which has not that address
    "_dmarc.quarantine.example": [["TXT", ["v=DMARC1; p=quarantine"]]],
    "_dmarc.none.example": [["TXT", ["v=DMARC1; p=none"]]],
    "_dmarc.testing.example": [["TXT", ["v=DMARC1; p=reject; t=y"]]],
    "_dmarc.reject.example": [["TXT", ["v=DMARC1; p=reject"]]],
}
MESSAGE = b"From: joe@example.org\r\nSubject: x\r\n\r\nhello\r\n"


def message(author: str = "joe@example.org", *fields: str) -> bytes:
    """A message from this author with further fields on top."""
    return "".join(f"{one}\r\n" for one in (*fields, f"From: {author}", "Subject: x", "", "hello")).encode()


def greet(mta: Mta, ip: str = GOOD, helo: str | bytes = "mail.example.org", **macros: str) -> None:
    """Connect and HELO."""
    mta.connect("unknown", ip_address(ip), **({"j": OUR_ID, "client_addr": ip} | macros))
    mta.helo(helo)


def send(
    mta: Mta,
    octets: bytes = MESSAGE,
    *parameters: str,
    path: str | bytes = "joe@example.org",
    queue: str = "4ABC",
    **macros: str,
) -> FilterOutcome:
    """One message from MAIL to its end. The macros are MAIL's, to which Postfix always adds j where it is asked to."""
    mta.mail(path, *parameters, j=OUR_ID, **macros)
    mta.rcpt("ann@example.net", i=queue)
    return mta.message(*split_message(octets), i=queue)


def results(outcome: FilterOutcome) -> str:
    """The Authentication-Results field that was inserted, on one line; empty for none."""
    for index, name, value in outcome.edits:
        if name == b"Authentication-Results" and value is not None:
            assert index == 0
            return " ".join(value.decode().split())
    return ""


def half_a_message(mta: Mta) -> None:
    """A message up to its header, on a connection of its own."""
    greet(mta)
    mta.mail("joe@example.org", j=OUR_ID)
    mta.rcpt("ann@example.net")
    for one in split_message(MESSAGE)[0]:
        mta.header(one)


def other_half(mta: Mta, queue: str = "4L1") -> str:
    """The rest of it; the Authentication-Results field."""
    mta.command(b"N", b"", {})
    mta.command(b"B", b"hello\r\n", {})
    return results(mta.end_of_message(i=queue))


def written(outcome: FilterOutcome, octets: bytes) -> list[tuple[bytes, bytes]]:
    """The fields as the MTA would write them, its own Received included."""
    header, _ = split_message(octets)
    return [(one.name, one.value) for one in apply(outcome.edits, header, RECEIVED)]


def lines_of(log: str, queue: str) -> list[str]:
    """The log lines about a message, without the time-dependent part."""
    return [line.partition(": ")[2].rpartition(" ms=")[0] for line in log.splitlines() if f"queue={queue} " in line]
