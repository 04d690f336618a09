# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay check --outgoing``: what signs a message of ours and by which row, or why nothing does, and which row nearly
would; and what the MTA may change in it afterwards."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from assay.model.message import Header
from assay.model.name import Domain
from assay.protocol import dkim
from assay.protocol.dkim.hazards import MEANING
from assay.session import Settings, Verdict

_NO_TABLE = "nothing is configured to sign; write a [[sign.domain]] with its keys"
_INBOUND = "the message is from outside: the client is not in clients.internal and has not logged in"


class Explanation(Struct, frozen=True):
    """Why a message is signed or not.

    `sign` and `why` are the words of the log. `steps` are the rows that match, and those that would but for one thing.
    `hazards` say why a signature may not survive, `changes` what an MTA changes without harm.
    """

    sign: str
    why: str = ""
    steps: tuple[str, ...] = ()
    hazards: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()


def explain(settings: Settings, header: Header, verdict: Verdict) -> Explanation:
    """Explain the verdict on a message.

    :param settings: those of the verdict.
    :param header: as received.
    """
    if settings.signing is None:
        return Explanation("none", _NO_TABLE)
    signed, assessment = verdict.signed, verdict.assessment
    if signed is None:
        return Explanation("none", _INBOUND)
    rule = signed.decision.sign
    if rule is False:  # no row was looked at
        steps: tuple[str, ...] = ()
    else:
        domain = rule if isinstance(rule, Domain) else None
        chosen = settings.signing.choose(header, assessment.client, assessment.envelope, domain=domain, explained=True)
        steps = (f"{signed.decision.by}: sign as {domain}", *chosen.steps) if domain is not None else chosen.steps
    return Explanation(
        signed.word,
        signed.why,
        steps,
        tuple(MEANING[hazard] for hazard in signed.hazards),
        tuple(dkim.harmless_changes(header)) if signed.signers else (),
    )


def narrate(explanation: Explanation) -> Iterator[str]:
    """The explanation for people."""
    yield f"sign     {explanation.sign}" + (f": {explanation.why}" if explanation.why else "")
    yield from (f"row      {step}" for step in explanation.steps)
    yield from (f"hazard   {hazard}" for hazard in explanation.hazards)
    yield from (f"change   {change}" for change in explanation.changes)
