# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of one message: a verdict as a flat, self-contained row that survives a crash of any process.

A worker makes a row (`assay.store.from_verdict`) and encodes it; what writes it into a database or reads it from a
broker decodes it. Its `id` is drawn once, so a row that is written twice is recognized. All text is bounded, since
strangers write most of it.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from assay.policy.vocabulary import sound

# Bounds, all our choice: longer texts are cut, further items are left out and counted.
MAX_TEXT = 255  # characters of a name, an identifier or a reason
MAX_RECORD = 4096  # characters of a DMARC record
MAX_FINDINGS = 100  # of one message; RFC 9990, 3.1.3 wants no more than 100 signatures in a report
MAX_DOMAINS = 20  # of recipients
MAX_ADDRESSES = 100  # of recipients
MAX_ROW_OCTETS = 128 * 1024  # what a socket takes at once by default; rows of real messages take one
MAX_ANSWERS = 200  # questions of a message; real ones have twenty
MAX_ANSWER_RECORDS = 20  # of one answer
MAX_ANSWER_TEXT = 1000  # characters of a record; a key has some 400
MAX_ANSWERS_TEXT = 16_000  # characters of all names, records and reasons of a message
_FEW = 20  # findings and recipients of a message whose row would be longer


class FindingRow(Struct, frozen=True, array_like=True, gc=False):
    """One finding.

    `key` is the log's word for what was checked: iprev, spf.helo, spf.mailfrom, dkim, arc, senderid, dmarc. `domain` is
    what the result is about, as an A-label, empty if there is none; `selector` is a signature's. `aligned` is
    whether this identifier passed and is aligned with the author domain.
    """

    method: str
    key: str
    result: str
    domain: str = ""
    selector: str = ""
    aligned: bool = False
    reason: str = ""


def most_telling(findings: tuple[FindingRow, ...], most: int) -> tuple[FindingRow, ...]:
    """What is left of too many findings, in their order: only signatures can be too many, and a stranger adds them.

    Those that fail go first, and those that made DMARC pass last (RFC 9990, 3.1.3).
    """
    if len(findings) <= most:
        return findings

    def rank(position: int) -> int:
        finding = findings[position]
        if finding.method != "dkim" or finding.aligned:
            return 0
        return 1 if finding.result == "pass" else 2

    kept = sorted(range(len(findings)), key=rank)[:most]
    return tuple([findings[position] for position in sorted(kept)])


class AnswerRow(Struct, frozen=True, array_like=True):
    """One question to the DNS and its answer.

    :ivar type: A, AAAA, MX, PTR or TXT.
    :ivar outcome: found, nodata, nxdomain or tempfail.
    :ivar records: as text, at most `MAX_ANSWER_RECORDS`.
    :ivar secure: whether DNSSEC proved it; `stale` whether it had expired.
    :ivar ttl: for how many seconds it was valid when it arrived.
    :ivar milliseconds: how long the evaluation waited for it.
    """

    name: str
    type: str
    outcome: str
    records: tuple[str, ...] = ()
    secure: bool = False
    stale: bool = False
    ttl: int = 0
    reason: str = ""
    milliseconds: int = 0


class PublishedRow(Struct, frozen=True, array_like=True, gc=False):
    """The DMARC policy record that applied.

    :ivar domain: the policy domain: where the record is (RFC 9989, 3.2.11).
    :ivar record: its text.
    :ivar method: how organizational domains were found: "treewalk" or "psl".
    """

    domain: str
    record: str
    method: str


class DmarcRow(Struct, frozen=True, array_like=True):
    """What an aggregate report needs of one message, besides its findings (RFC 9990, 3.1.1).

    :ivar policy: what the record asks for this very name: none, quarantine or reject.
    :ivar disposition: what was done: none, pass, quarantine or reject; empty for a message that was not taken (4xx)
        and comes again, so that it is counted once.
    :ivar reasons: why that is not what was published, as pairs of type and comment (RFC 9990, 3.1.6).
    """

    published: PublishedRow
    policy: str
    disposition: str
    dkim_aligned: bool
    spf_aligned: bool
    reasons: tuple[tuple[str, str], ...] = ()


class IncidentRow(Struct, frozen=True, array_like=True):
    """What a failure report needs of one message, besides its row (RFC 9991, 4; RFC 6591, 3.2).

    It goes to the database only, never to a broker, and is removed after a day.

    :ivar failure: `assay.protocol.report.AuthFailure`, and `delivery` is a `DeliveryResult`.
    :ivar results: the value of an Authentication-Results field.
    :ivar mail_from: the reverse-path; None if it is longer than `MAX_TEXT`.
    :ivar header: name and value of each field, as received.
    :ivar complete: whether all fields are there.
    :ivar signature: d=, s= and i= of a signature that failed.
    :ivar spf_domain: where the SPF record is, by which MAIL FROM failed.
    """

    failure: str
    delivery: str
    results: str
    mail_from: str | None
    header: tuple[tuple[bytes, bytes], ...]
    complete: bool = True
    signature: tuple[str, str, str] | None = None
    spf_domain: str = ""


class MessageRow(Struct, frozen=True, array_like=True):
    """One verdict: a message, or a refusal before its end.

    :ivar id: 16 octets: a UUID of version 7 (RFC 9562, 5.7), so that rows sort by time.
    :ivar time: Unix time in milliseconds.
    :ivar host: the authserv-id of the host that handled it.
    :ivar stage: connect, helo, mail, rcpt or eom.
    :ivar direction: inbound or outbound, as in rules.
    :ivar client: the address as text, empty if there is none; `client_name` is its confirmed or MTA-given name.
    :ivar sender_domain: of the reverse-path as an A-label; empty for the null reverse-path, and `null_sender` is true.
    :ivar sender: the whole reverse-path; `author` the address in From; `login` the user; `recipients` the addresses:
        all empty unless addresses are kept. `subject` likewise.
    :ivar recipient_count: how many recipients there were.
    :ivar author_domain: the author domain of DMARC.
    :ivar organizational_domain: of the author domain.
    :ivar exempt: why the message was not judged.
    :ivar by: the configuration key or rule that decided.
    :ivar watched: what would have been done, by keys and rules in dry run: pairs of action and key or rule.
    :ivar signed: what signed it; `sealed` and `rewritten` likewise. Empty if nothing did.
    :ivar report_mail: it is a report or a bounce itself, so it never causes a report.
    :ivar milliseconds: how long the MTA waited for us, in all; `waits` by stage, for those that took any time.
    :ivar further_findings: how many findings are left out.
    :ivar answers: of the DNS, if the operator wants them kept; `further_answers` is how many of them are left out.
    :ivar incident: what a failure report is made of, if the author's domain wants one.
    """

    id: bytes
    time: int
    host: str
    queue: str
    stage: str
    direction: str
    client: str
    client_name: str
    helo: str
    null_sender: bool
    sender_domain: str
    author_domain: str
    organizational_domain: str
    message_id: str
    recipient_count: int
    recipient_domains: tuple[str, ...]
    exempt: str
    action: str
    by: str
    reason: str
    override: str
    reply: str
    watched: tuple[tuple[str, str], ...]
    signed: str
    sealed: str
    rewritten: str
    milliseconds: int
    waits: tuple[tuple[str, int], ...]
    findings: tuple[FindingRow, ...]
    further_findings: int = 0
    dmarc: DmarcRow | None = None
    report_mail: bool = False
    sender: str = ""
    author: str = ""
    login: str = ""
    recipients: tuple[str, ...] = ()
    subject: str = ""
    answers: tuple[AnswerRow, ...] = ()
    further_answers: int = 0
    incident: IncidentRow | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(MessageRow)


def encode(row: MessageRow) -> bytes:
    """The octets of a row as the spool carries them (MessagePack), at most `MAX_ROW_OCTETS`."""
    try:
        octets = _encoder.encode(row)
    except UnicodeEncodeError:  # octets of a stranger that are not UTF-8
        return encode(msgspec.convert(sound(msgspec.to_builtins(row, builtin_types=(bytes,))), MessageRow))
    if len(octets) <= MAX_ROW_OCTETS:
        return octets
    if row.answers:
        return encode(replace(row, answers=(), further_answers=row.further_answers + len(row.answers)))
    return _encoder.encode(
        replace(
            row,
            findings=most_telling(row.findings, _FEW),
            further_findings=row.further_findings + len(row.findings[_FEW:]),
            recipients=row.recipients[:_FEW],
            incident=None,
        )
    )


def decode(octets: bytes) -> MessageRow:
    """The row.

    :raises ValueError: the octets are not a row.
    """
    return _decoder.decode(octets)
