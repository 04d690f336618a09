# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do with a message: an assessment and the operator's rules in, one decision out.

Every local override of what the protocols say has its place here and a name. The default follows RFC 9989, 7.4 and
8: evaluate everything, write it down, and refuse nothing until the operator says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from assay.assessment import Assessment
from assay.protocol import dmarc, iprev, spf


class Action(StrEnum):
    """What the MTA is told to do with the message, from the gentlest to the hardest."""

    ACCEPT = "accept"
    QUARANTINE = "quarantine"  #: Postfix: the hold queue. Sendmail: a quarantined queue item.
    TEMPFAIL = "tempfail"
    REJECT = "reject"


class OnError(StrEnum):
    """What to do with a message that a fault of our own keeps us from judging. Nothing harder would be safe."""

    ACCEPT = "accept"
    TEMPFAIL = "tempfail"


_HARDNESS = {action: rank for rank, action in enumerate(Action)}


@dataclass(frozen=True, slots=True)
class Rules:
    """The operator's rules: an action for each outcome that can be acted on, at end of message.

    `dmarc_none`, `dmarc_quarantine` and `dmarc_reject` apply to messages that fail DMARC, by what the author domain
    asks for (RFC 9989, 4.7), test mode already considered.
    """

    iprev_fail: Action = Action.ACCEPT
    spf_fail: Action = Action.ACCEPT
    dmarc_none: Action = Action.ACCEPT
    dmarc_quarantine: Action = Action.ACCEPT
    dmarc_reject: Action = Action.ACCEPT

    def for_dmarc(self, disposition: dmarc.Policy) -> Action:
        """The action for a message that fails DMARC."""
        match disposition:
            case dmarc.Policy.REJECT:
                return self.dmarc_reject
            case dmarc.Policy.QUARANTINE:
                return self.dmarc_quarantine
            case dmarc.Policy.NONE:
                return self.dmarc_none


@dataclass(frozen=True, slots=True)
class Reply:
    """An SMTP reply (RFC 5321, 4.2): code, enhanced status code (RFC 3463) and printable ASCII text on one line."""

    code: int
    status: str
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.status} {self.text}"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and why.

    `reply` is there when the action is REJECT or TEMPFAIL. `reason` is one clause for the log and for the MTA's
    quarantine; `key` is the configuration key that decided. Both are empty when nothing asked for more than ACCEPT.
    """

    action: Action = Action.ACCEPT
    reply: Reply | None = None
    reason: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class _Finding:
    """One method's outcome that the rules act on."""

    key: str
    action: Action
    status: str  # the part of the enhanced status code after the class
    text: str


_SEVERAL_FAILED = "7.26"  # RFC 7372, 3.4 and 4: to be used when more than one method failed


def decide(assessment: Assessment, rules: Rules) -> Decision:
    """Apply the rules to one message. The hardest action that any outcome asks for wins."""
    findings = [finding for finding in _findings(assessment, rules) if finding.action is not Action.ACCEPT]
    if not findings:
        return Decision()
    action = max((finding.action for finding in findings), key=_HARDNESS.__getitem__)
    deciding = [finding for finding in findings if finding.action is action]
    reason = "; ".join(finding.text for finding in deciding)
    return Decision(action, _reply(action, deciding, reason), reason, ", ".join(finding.key for finding in deciding))


def _reply(action: Action, deciding: list[_Finding], reason: str) -> Reply | None:
    status = deciding[0].status if len(deciding) == 1 else _SEVERAL_FAILED
    match action:
        case Action.REJECT:
            return Reply(550, f"5.{status}", reason)
        case Action.TEMPFAIL:
            return Reply(451, f"4.{status}", reason)
        case _:
            return None


def _findings(assessment: Assessment, rules: Rules) -> Iterator[_Finding]:
    if assessment.iprev is not None and assessment.iprev.result is iprev.Result.FAIL:
        text = f"reverse DNS of {assessment.client.address} does not point back to it"
        yield _Finding("iprev.fail", rules.iprev_fail, "7.25", text)  # RFC 7372, 3.3
    mail_from = assessment.spf_mail_from
    if mail_from is not None and mail_from.result is spf.Result.FAIL:
        text = f"SPF: {mail_from.domain} does not allow {assessment.client.address} to send for it"
        yield _Finding("spf.fail", rules.spf_fail, "7.23", text)  # RFC 7372, 3.2
    judged = assessment.dmarc
    if judged is not None and judged.result is dmarc.Result.FAIL:
        key = f"dmarc.{judged.disposition}"
        # RFC 9989, 7.2: the text of the reply should name DMARC. No code is assigned to it; 7.1 is the RFC's example.
        text = f"message fails the DMARC policy of {judged.author_domain}"
        yield _Finding(key, rules.for_dmarc(judged.disposition), "7.1", text)
