# SPDX-License-Identifier: GPL-3.0-or-later
"""What the DNS publishes for a key of ours, server by server, and in which way it differs from the key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from assay.inquiry import Outcome
from assay.protocol import dkim


class ServerAnswer(Struct, frozen=True):
    """What one authoritative server answered for the name of a key.

    `server` is its name and address for a message. `truncated`: the answer over UDP was cut, so verifiers need TCP.
    `reason` says why a TEMPFAIL is not an answer.
    """

    server: str
    outcome: Outcome
    texts: tuple[bytes, ...] = ()
    truncated: bool = False
    reason: str = ""


class Sight(StrEnum):
    """Where a key is published, so that verifiers can use it."""

    EVERYWHERE = "everywhere"  #: every authoritative server answers with it
    PARTLY = "partly"  #: some do
    NOWHERE = "nowhere"  #: all servers answer, and none with it
    UNKNOWN = "unknown"  #: none answers with it, and some do not answer at all


class Difference(Struct, frozen=True):
    """In which way a server's answer is not what it should be; `text` is a clause with the fix.

    `fatal`: a signature with the key does not verify, or not everywhere.
    """

    server: str
    text: str
    fatal: bool = True


class Publication(Struct, frozen=True):
    """What all servers of a zone say about one key."""

    sight: Sight
    differences: tuple[Difference, ...] = ()


def compare(
    record: str,
    answers: Sequence[ServerAnswer],
    *,
    signs_below: bool = False,
    others: Mapping[str, str] | None = None,
) -> Publication:
    """Compare a key with what is published.

    :param record: the key record that should be published, of `dkim.record_of`.
    :param answers: one for each authoritative server.
    :param signs_below: whether the domain in i= may be below that in d=, which t=s forbids.
    :param others: other keys of ours that may have been published by mistake: their records by selector.
    """
    differences: list[Difference] = []
    having = 0
    for answer in answers:
        found = tuple(_differences(record, answer, signs_below=signs_below, others=others or {}))
        differences += found
        having += not any(difference.fatal for difference in found)
    silent = sum(answer.outcome is Outcome.TEMPFAIL for answer in answers)
    if answers and having == len(answers):
        sight = Sight.EVERYWHERE
    elif having:
        sight = Sight.PARTLY
    else:
        sight = Sight.NOWHERE if answers and not silent else Sight.UNKNOWN
    return Publication(sight, tuple(differences))


def still_there(answers: Sequence[ServerAnswer]) -> Sight:
    """Where any key record is left at the name of a retired key. A revoked one (an empty p=) counts as gone."""
    keys = [[dkim.parse_key(text) for text in answer.texts] for answer in answers]
    there = sum(any(isinstance(key, dkim.Key) for key in of) for of in keys)
    if there:
        return Sight.EVERYWHERE if there == len(answers) else Sight.PARTLY
    silent = not answers or any(answer.outcome is Outcome.TEMPFAIL for answer in answers)
    return Sight.UNKNOWN if silent else Sight.NOWHERE


def _differences(
    record: str, answer: ServerAnswer, *, signs_below: bool, others: Mapping[str, str]
) -> Iterator[Difference]:
    server = answer.server
    match answer.outcome:
        case Outcome.TEMPFAIL:
            yield Difference(server, answer.reason or "no answer")
            return
        case Outcome.NXDOMAIN | Outcome.NODATA:
            missing = "the name does not exist" if answer.outcome is Outcome.NXDOMAIN else "no TXT record at the name"
            yield Difference(server, f"{missing}; publish the record")
            return
    if len(answer.texts) > 1:  # RFC 6376, 3.6.2.2: the results are undefined
        yield Difference(
            server, f"{len(answer.texts)} TXT records at the name, of which a verifier may take any; leave only the key"
        )
    keys = [dkim.parse_key(text) for text in answer.texts]
    ours = dkim.parse_key(record.encode())
    same = next((key for key in keys if isinstance(key, dkim.Key) and _is_same(ours, key)), None)
    if same is None:
        yield Difference(server, _why_not(ours, keys, others))
        return
    if same.hash_names is not None and "sha256" not in same.hash_names:
        yield Difference(server, "h= does not allow sha256, which we sign with; remove h=")
    if same.testing:  # RFC 6376, 3.6.1, t=y
        yield Difference(server, "t=y: verifiers treat our mail as unsigned; remove t=y when the test is over", False)
    if same.strict and signs_below:  # RFC 6376, 3.6.1, t=s
        yield Difference(
            server, "t=s forbids signatures whose i= is in a subdomain of d=, and we make such; remove t=s"
        )
    if answer.truncated:
        yield Difference(
            server, "the answer is too long for UDP, and some verifiers cannot ask over TCP; use a shorter key", False
        )


def _is_same(ours: dkim.Key | dkim.KeyFault, key: dkim.Key | dkim.KeyFault) -> bool:
    return isinstance(ours, dkim.Key) and isinstance(key, dkim.Key) and dkim.same_key(ours, key)


def _why_not(
    ours: dkim.Key | dkim.KeyFault, keys: Sequence[dkim.Key | dkim.KeyFault], others: Mapping[str, str]
) -> str:
    """Why none of the published records is our key."""
    for key in keys:
        if isinstance(key, dkim.KeyFault):
            continue
        if isinstance(ours, dkim.Key) and key.type != ours.type:
            return f"k= says {key.type}, but our key is {ours.type}; publish the record"
        for selector, record in others.items():
            if _is_same(dkim.parse_key(record.encode()), key):
                return f"publishes the key of selector {selector}; publish that of this one"
        return "publishes another key; publish the record, or sign with the key that belongs to it"
    reasons = [key.reason for key in keys if isinstance(key, dkim.KeyFault)]
    if "key revoked" in reasons:
        return "the key is revoked (p= is empty); rotate to a new key, or publish the record"
    return f"{reasons[0] if reasons else 'no record'}; publish the record"
