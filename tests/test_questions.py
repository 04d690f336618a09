# SPDX-License-Identifier: GPL-3.0-or-later
"""How many DNS questions one message can make us ask. Whoever sends it chooses whom they hit (RFC 7208, 11.1), and they
compete with those of honest mail; so the worst that we could think of is counted here, and held."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from hashlib import sha256
from ipaddress import ip_address

from assay.inquiry import MX, Answer, Outcome, Question, RecordType
from assay.model.message import HeaderField
from assay.policy import Trust
from assay.protocol.dkim.canonical import Canonicalization, canonical_field, canonical_signature_field
from assay.protocol.dkim.sign import sign_digest
from assay.session import Session, Settings
from signing import ed25519_key, record
from talking import NOW
from zone import Zone

#: Ten mechanisms that ask for ten names each, and an explanation that asks for the client's.
COSTLY = "v=spf1 " + " ".join(f"mx:m{number}.%{{d}}" for number in range(10)) + " exp=%{p}.%{d} -all"
ORDINARY = "v=spf1 -all"
LABELS = "a.b.c.d.e.f.g.example"  # nine labels below it: the longest walk of all
KEY = ed25519_key()
#: As near to the author that walks from it may matter, and with as many names of its own as are asked ahead.
MAIL_FROM = "spf.from.x.y.g.example"


class Hostile(Zone):
    """A zone that has whatever makes us ask for more, under any name, and never what would end a search."""

    def __init__(self, spf: str) -> None:
        super().__init__({})
        self.spf = spf.encode()

    def answer(self, question: Question) -> Answer:
        self.asked.append(question)
        name = question.name
        match question.type:
            case RecordType.PTR:
                return found(*(f"p{number}.{number}.example" for number in range(20)))
            case RecordType.MX:
                return found(*(MX(number, f"x{number}.{name}") for number in range(10)))
            case RecordType.A if name.startswith("author"):
                return Answer(Outcome.NXDOMAIN)
            case RecordType.A:
                return found(ip_address("198.51.100.1"))
            case RecordType.TXT if name == "_dmarc.g.example":
                return found(b"v=DMARC1; p=reject; np=none")  # which applies to all of them
            case RecordType.TXT if ".arc." in name:
                return found(record(KEY).encode())
            case RecordType.TXT if "._domainkey." in name:
                return Answer(Outcome.TEMPFAIL)  # so it might have passed
            case RecordType.TXT if "spf" in name and not name.startswith("_dmarc"):
                return found(self.spf)
        return Answer(Outcome.NXDOMAIN)


def found(*records: object) -> Answer:
    return Answer(Outcome.FOUND, records, ttl=300)  # type: ignore[arg-type]  # of the type that was asked for


def signature(domain: str) -> HeaderField:
    return HeaderField(b"DKIM-Signature", f" v=1; a=rsa-sha256; d={domain}; s=s; h=from; bh=AAAA; b=AAAA".encode())


def signed(field: HeaderField, *over: HeaderField) -> HeaderField:
    """A field whose last tag, b=, is still empty, signed over itself and others."""
    octets = b"".join(canonical_field(one, Canonicalization.RELAXED) for one in over)
    octets += canonical_signature_field(field, Canonicalization.RELAXED)
    return HeaderField(field.name, field.value + b64encode(sign_digest(KEY, sha256(octets).digest())))


def chain(length: int, author: HeaderField) -> list[HeaderField]:
    """A chain of which only the newest set is true, each signature and each seal with a key of its own."""
    fields: list[HeaderField] = []
    for number in range(1, length + 1):
        tags = f" i={number}; a=ed25519-sha256; s=s; d={{}}{number}.arc.example; "
        body = b64encode(sha256(b"").digest()).decode()
        results = HeaderField(b"ARC-Authentication-Results", f" i={number}; x.example; none".encode())
        message = HeaderField(
            b"ARC-Message-Signature", (tags.format("set") + f"c=relaxed/relaxed; h=from; bh={body}; b=").encode()
        )
        seal = HeaderField(b"ARC-Seal", (tags.format("seal") + f"cv={'none' if number == 1 else 'pass'}; b=").encode())
        if number == length:
            message = signed(message, author)
            seal = signed(seal, *fields, results, message)
        else:
            message, seal = (HeaderField(one.name, one.value + b"AAAA") for one in (message, seal))
        fields += [results, message, seal]
    return fields


def kind(question: Question) -> str:
    """What asked it."""
    name = question.name
    if name.startswith(("_dmarc.", "author.")):
        return "DMARC"
    if "._domainkey." in name:
        return "ARC" if ".arc." in name else "DKIM"
    if question.type is RecordType.PTR or name[0] == "p":
        return "IPREV"
    return "SPF of HELO" if "helo" in name else "SPF of MAIL FROM" if "from" in name else "other"


def asked(spf: str, sets: int) -> list[Question]:
    """All that the worst message makes us ask, each question once, as the cache would have it."""
    zone = Hostile(spf)
    session = Session(Settings(), Trust(), lambda: zone)
    session.connect(ip_address("192.0.2.7"), "")
    session.helo(f"spf.helo.{LABELS}")
    session.mail(f"<joe@{MAIL_FROM}>", now=NOW)
    session.rcpt("<ann@example.net>")
    author = HeaderField(b"From", f" joe@author.{LABELS}".encode())
    for number in range(100):  # whose keys are asked for before it is known that others matter more
        session.header(signature(f"junk{number}.example"))
    for field in reversed(chain(sets, author)):
        session.header(field)
    session.header(author)
    # These may have the author's organizational domain: the walks from the first two are all that may be asked.
    session.header(signature("k.a0.b0.c0.d0.e0.f0.g.example"))
    for number in range(100):
        session.header(signature(f"k{number}.q.g.example"))
    session.end_of_header()
    session.end_of_message(queue_id="", now=NOW)
    return list(dict.fromkeys(zone.asked))


def test_a_message_asks_no_more_than_so_many() -> None:
    """With the sender's SPF records as they usually are: everything else is at its worst."""
    questions = asked(ORDINARY, sets=Settings().arc_max_sets)
    assert Counter(map(kind, questions)) == {
        "IPREV": 1 + 10,
        "SPF of HELO": 1,
        "SPF of MAIL FROM": 1,
        "DKIM": 2 + 10,  # those asked for ahead, and those tried
        "ARC": 2 * 7,
        "DMARC": 8 + 1 + 4 + 8,  # the author's walk, whether it exists, walks ahead, and those of what passed
    }
    assert len(questions) == 60


def test_spf_has_a_bound_of_its_own() -> None:
    """RFC 7208, 4.6.4 grants each record ten terms, and each mx ten hosts: it is the owner of the names who pays."""
    questions = asked(COSTLY, sets=Settings().arc_max_sets)
    found = Counter(map(kind, questions))
    assert found["SPF of HELO"] == found["SPF of MAIL FROM"] == 1 + 10 * (1 + 10) + 1
    assert len(questions) == 60 + 2 * (10 * (1 + 10) + 1)


def test_a_chain_that_is_too_long_asks_only_what_was_asked_before_it_was_seen() -> None:
    assert Counter(map(kind, asked(ORDINARY, sets=50)))["ARC"] == 2
