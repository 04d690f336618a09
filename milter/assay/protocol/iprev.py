# SPDX-License-Identifier: GPL-3.0-or-later
"""IPREV: does the client's address have a name, and does that name lead back to the address? (RFC 8601, 3)

A pass says that the owner of the address block and the owner of the name agree. It says nothing about the message. The
HELO name plays no part.

Invariants: two rounds of questions at most, one for the PTR records and one for all forward lookups; the record type of
the latter follows the client's address family, since only that one can confirm it.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from assay.inquiry import PENDING, Answer, Brief, Eager, Grounds, Inquiry, Outcome, Question, RecordType, grounds
from assay.model.smtp import Address, canonical_address

MAX_PTR_NAMES = 10  # RFC 7208, 4.6.4 has this bound for SPF's "ptr"; RFC 8601 leaves one to us


class Result(StrEnum):
    """RFC 8601, 2.7.3. There is no "none": a client that was not looked up has no result."""

    PASS = "pass"
    FAIL = "fail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


class Evaluation(Struct, frozen=True):
    """What the reverse and forward lookups gave.

    `name` is the first confirmed name, else the first name the address has, else empty. `names` are all that were
    looked up, as the DNS gave them: a stranger writes them, so escape them wherever they are shown. `confirmed` are
    those of them that have the address; not those whose servers are slow to answer, if there is another. The owner of
    the reverse zone can write any name into it, so only the confirmed names say whose client this is. `grounds` are of
    the PTR answer and, for a pass, that of `name`.
    """

    result: Result
    address: Address
    name: str
    names: tuple[str, ...]
    confirmed: tuple[str, ...]
    reason: str
    grounds: Grounds = Grounds.UNPROVEN


def evaluate(address: Address) -> Inquiry[Evaluation]:
    """Evaluate a client's address (RFC 8601, 3)."""
    address = canonical_address(address)
    (pointers,) = yield [Question(address.reverse_pointer, RecordType.PTR)]
    if pointers.outcome is Outcome.TEMPFAIL:
        return Evaluation(Result.TEMPERROR, address, "", (), (), f"PTR lookup of {address} failed: {pointers.reason}")
    # Each name is looked up once, in the order of the answer. The root is not a host name.
    names = tuple(dict.fromkeys(name for name in pointers.names if name))[:MAX_PTR_NAMES]
    if pointers.outcome is not Outcome.FOUND or not names:
        reason = f"{address} has no PTR record"
        return Evaluation(Result.PERMERROR, address, "", (), (), reason, grounds((pointers,)))
    kind = RecordType.A if address.version == 4 else RecordType.AAAA
    answers: dict[str, Answer] = {}
    confirmed: tuple[str, ...] = ()
    while missing := [name for name in names if name not in answers]:
        # One confirmed name is a pass. The others are wanted too, but not from servers that do not answer.
        asked = (Brief if confirmed else Eager)(Question(name, kind) for name in missing)
        found = dict(zip(missing, (yield asked), strict=True))
        answers |= {name: answer for name, answer in found.items() if answer is not PENDING or confirmed}
        confirmed = tuple(name for name in names if name in answers and address in answers[name].addresses)
    if confirmed:
        reason = f"{confirmed[0]} has the address {address}"
        rests_on = grounds((pointers, answers[confirmed[0]]))
        return Evaluation(Result.PASS, address, confirmed[0], names, confirmed, reason, rests_on)
    for name in names:
        answer = answers[name]
        if answer.outcome is Outcome.TEMPFAIL:  # the name that we could not look up may be the right one
            reason = f"{kind} lookup of {name} failed: {answer.reason}"
            return Evaluation(Result.TEMPERROR, address, names[0], names, (), reason)
    rests_on = grounds((pointers, *answers.values()))
    return Evaluation(Result.FAIL, address, names[0], names, (), _mismatch(address, names, kind), rests_on)


def _mismatch(address: Address, names: tuple[str, ...], kind: RecordType) -> str:
    if len(names) == 1:
        return f"{names[0]}, the name of {address}, has no {kind} record with that address"
    return f"none of the {len(names)} names of {address} has an {kind} record with that address"
