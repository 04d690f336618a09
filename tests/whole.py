# SPDX-License-Identifier: GPL-3.0-or-later
"""The law of a whole session: any connection, any message and any DNS end in a verdict that can be performed.

The input is a script in records that `SEPARATOR` ends. The first octet of a record tells what it is: C client address,
E HELO, F MAIL FROM, R recipient, H header field, B piece of the body, D a row of the DNS (``owner TYPE value``, where
the owner ``*`` stands for every name).
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec

import signing
from assay.config import Configuration
from assay.config.build import make_settings, make_trust
from assay.daemon.journal import event, facts_line, message_fields
from assay.inquiry import MX, Answer, Inquiry, Outcome, Question, Record, RecordType, solve
from assay.log import pairs
from assay.model.edits import Insert
from assay.model.message import field_from_milter, split_message
from assay.model.smtp import parse_address
from assay.policy import Action
from assay.protocol import authres
from assay.session import Session, Verdict
from assay.store.from_verdict import Keeping, message_row
from assay.store.json_form import from_json, to_json
from assay.store.rows import MAX_ROW_OCTETS, decode, encode
from laws import law
from signing import KEY_NAME, NOW, ed25519_key, sign_ed25519
from zone import Solved, T

SEPARATOR = b"\x1e"
MAX_RECORDS = 200
#: No message may ask more, repetitions included: IPREV, three SPF checks, the keys of ten signatures and of seven ARC
#: sets, two of each ahead, the author's walk, and those of related domains, ahead and at the end.
MAX_QUESTIONS = 11 + 3 * 160 + 12 + 16 + 9 + 12 + 16 + 20

#: An operator who wants to know everything and acts on it at every stage.
CONFIGURATION = {
    "identity": {"authserv_id": "mx.example.org"},
    "clients": {"relays": ["192.0.2.99"], "exempt_senders": ["spared.example"]},
    "headers": {"tag_subject": "[tag] "},
    "iprev": {"stage": "helo", "fail": "tempfail", "permerror": "tag"},
    "spf": {
        "helo": {"stage": "mail", "fail": "reject", "permerror": "tempfail"},
        "mailfrom": {"stage": "rcpt", "fail": "reject", "softfail": "quarantine", "permerror": "tag"},
    },
    "dkim": {"fail": "tag", "permerror": "quarantine", "unaligned": "discard"},
    "arc": {"fail": "reject", "trusted_sealers": ["a.example"]},
    "senderid": {"enabled": True, "fail": "reject", "permerror": "tempfail"},
    "dmarc": {
        **dict.fromkeys(("none", "permerror"), "tag"),
        **dict.fromkeys(("quarantine", "temperror"), "tempfail"),
        **dict.fromkeys(("reject", "malformed_from"), "reject"),
        "list_traffic": "quarantine",
    },
    "rule": [
        {"name": "helo", "stage": "helo", "when": 'helo.startsWith("x")', "action": "reject", "reply": "550 no {helo}"},
        {"name": "seen", "when": 'header("Subject") != "" || below(from.domain, "b")', "add_fields": ["X-Seen: yes"]},
        {"name": "good", "when": 'dkim.exists(s, s.aligned && s.domain == "good.example")', "action": "accept"},
    ],
}


class Script:
    """The DNS of a script: `Driver` and zone in one."""

    def __init__(self, rows: Sequence[bytes]) -> None:
        self.asked = 0
        self._rows: dict[tuple[str, str], list[bytes]] = {}
        for row in rows:
            owner, kind, value = (*row.split(b" ", 2), b"", b"")[:3]
            self._rows.setdefault((owner.decode("latin-1").lower(), kind.decode("latin-1")), []).append(value)
        self._owners = {owner for owner, _ in self._rows}

    def answer(self, question: Question) -> Answer:
        self.asked += 1
        name = question.name.lower()
        owner = name if name in self._owners else "*"
        values = self._rows.get((owner, question.type.value), [])
        if (owner, "SERVFAIL") in self._rows:
            return Answer(Outcome.TEMPFAIL, reason="SERVFAIL")
        if values:
            return Answer(Outcome.FOUND, tuple(_record(question.type, value) for value in values))
        return Answer(Outcome.NODATA if owner in self._owners else Outcome.NXDOMAIN)

    def start(self, inquiry: Inquiry[T], *_: object) -> Solved[T]:
        return Solved(solve(inquiry, self.answer))


def _record(kind: RecordType, value: bytes) -> Record:
    text = value.decode("utf-8", "surrogateescape")
    match kind:
        case RecordType.TXT:
            return value
        case RecordType.PTR:
            return text
        case RecordType.MX:
            preference, _, exchange = text.partition(" ")
            return MX(int(preference) if preference.isascii() and preference.isdigit() else 0, exchange)
        case RecordType.A | RecordType.AAAA:
            try:
                address = ip_address(text)
            except ValueError:
                address = IPv4Address(len(value))
            if kind is RecordType.A:
                return address if isinstance(address, IPv4Address) else IPv4Address(int(address) & 0xFFFFFFFF)
            return IPv6Address(int(address))


SETTINGS = make_settings(msgspec.convert(CONFIGURATION, Configuration))
TRUST = make_trust(msgspec.convert(CONFIGURATION, Configuration))


def play(script: bytes) -> tuple[list[Verdict], Script]:
    """Play a script to a session, refusals notwithstanding: all verdicts, the last one that of the message."""
    records = script.split(SEPARATOR)[:MAX_RECORDS]
    by_kind = {kind: [one[1:] for one in records if one[:1] == kind] for kind in (b"C", b"D", b"E", b"F", b"R")}
    dns = Script(by_kind[b"D"])
    session = Session(SETTINGS, TRUST, lambda: dns)
    client = by_kind[b"C"][0] if by_kind[b"C"] else b"192.0.2.1"
    verdicts = [session.connect(parse_address(client.decode("latin-1")), "", mta_name="mx.example.org")]
    verdicts += [session.helo(_text(helo)) for helo in by_kind[b"E"]]
    verdicts.append(session.mail(_text((by_kind[b"F"] or [b"<>"])[-1]), now=NOW))
    verdicts += [session.rcpt(_text(recipient)) for recipient in by_kind[b"R"]]
    for one in records:
        if one[:1] == b"H":
            name, _, value = one[1:].partition(b":")
            session.header(field_from_milter(name, value))
    session.end_of_header()
    for one in records:
        if one[:1] == b"B":
            session.body(one[1:])
    verdicts.append(session.end_of_message(queue_id="Q", now=NOW))
    session.close()
    assert verdicts[-1] is not None
    return [verdict for verdict in verdicts if verdict is not None], dns


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def script(*records: str | bytes) -> bytes:
    """Write a script."""
    return SEPARATOR.join(one.encode() if isinstance(one, str) else one for one in records)


_DKIM = " v=1; a=rsa-sha256; c=relaxed/relaxed; d=a.example; s=s; h=From:To; bh=QUJD; b=QUJDREVG"
_ARC = (
    "HARC-Seal: i=1; a=rsa-sha256; cv=none; d=a.example; s=s; b=QUJD",
    "HARC-Message-Signature: i=1; a=rsa-sha256; d=a.example; s=s; h=from; bh=QUJD; b=QUJD",
    "HARC-Authentication-Results: i=1; mx.example.org; none",
)
_KEY = "Ds._domainkey.a.example TXT v=DKIM1; k=ed25519; p=" + "A" * 43
_SIGNED, _BODY = split_message(sign_ed25519())
_SPF = "Da.example TXT v=spf1 a mx include:b.example exists:%{ir}.%{l}.a.example -all exp=e.a.example"
_DMARC = "D_dmarc.a.example TXT v=DMARC1; p=reject; sp=none; rua=mailto:a@b.example"


@law(
    script("C192.0.2.99", "F<a@a.example>", "HReceived: from h ([192.0.2.1])", "HFrom: a@a.example", "HSubject: x"),
    script("C192.0.2.1", "Email.a.example", "F<a@a.example>", "R<b@c.example>", "HFrom: A <a@a.example>", "Bx\r\n"),
    script("F<a@a.example>", "HFrom: a@x.a.example", _SPF, _DMARC, "D* A 192.0.2.7", "D* MX 1 a.example"),
    script("HDKIM-Signature:" + _DKIM, "HFrom: a@a.example", "HTo: b", "Bx", _KEY, _DMARC, "Da.example A 192.0.2.1"),
    script(*_ARC, "HFrom: a@a.example", "Bx\r\n\r\n", _KEY, "D* SERVFAIL"),
    script(
        "C2001:db8::1", "F<>", "Ea.example", "HAuthentication-Results: mx.example.org; spf=pass", "D* PTR a.example"
    ),
    script(
        *(b"H" + one.raw[:-2] for one in _SIGNED),
        b"B" + _BODY,
        f"D{KEY_NAME} TXT {signing.record(ed25519_key())}",
        "D_dmarc.example.org TXT v=DMARC1; p=reject; adkim=s",
    ),
    script("HReceived-SPF: pass (mx.example.org: x) receiver=mx.example.org;", "HFrom: a@b, c@d", "HFrom: e@f"),
    b"E\x80",  # a HELO that is not UTF-8, which CEL cannot take
    tokens="example From: DKIM-Signature: ARC-Seal: v=spf1 v=DMARC1; p=reject TXT MX PTR A SERVFAIL \x1eH \x1eD \x1eB",
)
def session(data: bytes) -> None:
    verdicts, dns = play(data)
    assert dns.asked <= MAX_QUESTIONS
    for verdict in verdicts:
        _can_be_performed(verdict)
        _can_be_recorded(verdict)
    assert play(data)[0] == verdicts


def _can_be_performed(verdict: Verdict) -> None:
    assert (verdict.reply is not None) == verdict.action.refuses
    if verdict.reply is not None:
        for line in verdict.reply.lines:
            assert line.isascii()
            assert line.isprintable()
            assert len(line) < 500
    assert {type(edit) for edit in verdict.edits} <= SETTINGS.possible_edits
    assert verdict.action is not Action.QUARANTINE or SETTINGS.may_quarantine
    for edit in verdict.edits:
        if isinstance(edit, Insert):
            _can_be_inserted(edit)


def _can_be_inserted(edit: Insert) -> None:
    lines = edit.value.split("\r\n")
    assert all(line.replace("\t", " ").isprintable() and len(line.encode()) < 998 for line in lines)
    assert all(line[0] in " \t" and line.strip() for line in lines[1:])
    if edit.name == "Authentication-Results":
        read = authres.parse(edit.value.encode())
        assert isinstance(read, authres.AuthenticationResults)
        assert read.authserv_id == "mx.example.org"
        assert not any(map(authres.unregistered, read.results))


def _can_be_recorded(verdict: Verdict) -> None:
    assert pairs(message_fields(verdict, waited=0.0)).isprintable()
    assert event(verdict, 32473).isprintable()
    assert msgspec.json.decode(facts_line(verdict, 0.0))
    for keeping in (Keeping("mx.example.org"), Keeping("mx.example.org", addresses=True, subjects=True)):
        octets = encode(message_row(verdict, keeping, now=NOW, waits={"eom": 0.01}))
        assert len(octets) <= MAX_ROW_OCTETS
        row = decode(octets)
        assert from_json(to_json(row)) == row
