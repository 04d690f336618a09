# SPDX-License-Identifier: GPL-3.0-or-later
"""From a verdict to the row that is kept of it (`assay.store.rows`).

Addresses of people are left out unless the operator wants them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from assay.assessment import Assessment
from assay.inquiry import MX, Record
from assay.model.name import Domain, InvalidNameError, Mailbox
from assay.policy import ACCEPTED, Action, Decision, Direction, Override
from assay.protocol import dkim, dmarc, report, spf
from assay.session import Verdict
from assay.store.rows import (
    MAX_ADDRESSES,
    MAX_ANSWER_RECORDS,
    MAX_ANSWER_TEXT,
    MAX_ANSWERS,
    MAX_ANSWERS_TEXT,
    MAX_DOMAINS,
    MAX_FINDINGS,
    MAX_RECORD,
    MAX_TEXT,
    AnswerRow,
    DmarcRow,
    FindingRow,
    MessageRow,
    PublishedRow,
    most_telling,
)

_VERSION_7 = 0x7 << 76 | 0b10 << 62  # and the variant, as bits of the whole
_DRAWN_BITS = (1 << 80) - 1 ^ (0xF << 76 | 0b11 << 62)


class Keeping(Struct, frozen=True):
    """What the operator wants to be kept.

    :ivar host: the authserv-id.
    :ivar addresses: whole addresses, and not only their domains.
    :ivar subjects: the Subject.
    :ivar report_addresses: ours for reports and their bounces, in lower case.
    :ivar failure_octets: of the header in a failure report; 0 if no such reports are made.
    """

    host: str
    addresses: bool = False
    subjects: bool = False
    report_addresses: tuple[str, ...] = ()
    failure_octets: int = 0


def new_id(milliseconds: int) -> bytes:
    """A UUID of version 7: 48 bits of time, and the rest random (RFC 9562, 5.7).

    :param milliseconds: Unix time.
    """
    drawn = random.getrandbits(80) & _DRAWN_BITS  # ids are no secrets, and each process has a seed of its own
    return ((milliseconds & 0xFFFFFFFFFFFF) << 80 | _VERSION_7 | drawn).to_bytes(16, "big")


def message_row(verdict: Verdict, keeping: Keeping, *, now: float, waits: Mapping[str, float]) -> MessageRow:
    """The row of a verdict.

    :param now: Unix time in seconds.
    :param waits: seconds that the MTA waited for us, by stage.
    """
    assessment, decision = verdict.assessment, verdict.decision
    envelope, client, author = assessment.envelope, assessment.client, assessment.author
    recipients = envelope.recipients
    milliseconds = int(now * 1000)
    path = envelope.reverse_path
    judged = assessment.dmarc
    author_domain = judged.author_domain if judged is not None else author.domain if author is not None else None
    organizational = judged.organizational_domain if judged is not None else None
    identifiers = assessment.header.all("Message-ID")
    subjects = assessment.header.all("Subject") if keeping.subjects else ()
    return MessageRow(
        new_id(milliseconds),
        milliseconds,
        keeping.host,
        envelope.queue_id[:MAX_TEXT],
        verdict.stage,
        _OUTBOUND if assessment.exempt or envelope.authenticated else _INBOUND,  # logged in: judged or not, as in facts
        client.text,
        _client_name(verdict),
        client.helo[:MAX_TEXT],
        path.is_null,
        _domain_of(path.mailbox, path.text),
        "" if author_domain is None else author_domain.name,
        "" if organizational is None else organizational.name,
        _text(identifiers[0].unfolded) if identifiers else "",
        len(recipients) + envelope.further_recipients,
        _domains(recipients),
        assessment.exempt[:MAX_TEXT],
        verdict.action,
        decision.by,
        decision.reason[:MAX_TEXT],
        decision.override[:MAX_TEXT],
        "" if verdict.reply is None else str(verdict.reply)[:MAX_TEXT],
        _watched(verdict) if decision is not ACCEPTED else (),
        verdict.signed.word[:MAX_TEXT] if verdict.signed is not None and verdict.signed.signers else "",
        "" if verdict.sealed is None else verdict.sealed.by[:MAX_TEXT],
        "" if verdict.rewritten is None else _kept_address(verdict.rewritten.sender, keeping),
        round(sum(waits.values()) * 1000),
        tuple([(stage, milliseconds) for stage, wait in waits.items() if (milliseconds := round(wait * 1000))]),
        most_telling(_findings(verdict), MAX_FINDINGS),
        max(0, len(verdict.findings) - MAX_FINDINGS),
        _dmarc(verdict),
        report.report_mail(envelope, assessment.header, keeping.report_addresses) is not None,
        path.text[:MAX_TEXT] if keeping.addresses else "",
        author.mailbox[:MAX_TEXT] if keeping.addresses and author is not None else "",
        envelope.authenticated[:MAX_TEXT] if keeping.addresses else "",
        tuple([path[:MAX_TEXT] for path in recipients[:MAX_ADDRESSES]]) if keeping.addresses else (),
        _text(subjects[0].unfolded) if subjects else "",
        *(_answers(verdict, keeping) if verdict.answers else ((), 0)),
    )


_OUTBOUND, _INBOUND = Direction.OUTBOUND.value, Direction.INBOUND.value


def _text(octets: bytes) -> str:
    return octets[: 4 * MAX_TEXT].decode("utf-8", "replace")[:MAX_TEXT]


def _client_name(verdict: Verdict) -> str:
    """The name that IPREV confirmed, else what the MTA resolved."""
    iprev = verdict.assessment.iprev
    return (iprev.name if iprev is not None and iprev.name else verdict.assessment.client.name)[:MAX_TEXT]


def _domain_of(mailbox: Mailbox | None, text: str) -> str:
    """The domain of an address, also of one that is not valid, as far as there is one."""
    if mailbox is not None:
        return mailbox.domain.name
    domain = text.rpartition("@")[2] if "@" in text else ""
    try:
        return Domain.parse(domain).name if domain else ""
    except InvalidNameError:
        return domain[:MAX_TEXT].lower()


def _domains(recipients: Sequence[str]) -> tuple[str, ...]:
    if len(recipients) == 1:  # as nearly always
        return (_recipient_domain(recipients[0]),)
    return tuple(dict.fromkeys(map(_recipient_domain, recipients)))[:MAX_DOMAINS]


def _recipient_domain(path: str) -> str:
    return path.rpartition("@")[2][:MAX_TEXT].lower() if "@" in path else ""


def _kept_address(address: str, keeping: Keeping) -> str:
    """An address, or only its domain."""
    return address[:MAX_TEXT] if keeping.addresses else address.rpartition("@")[2][:MAX_TEXT]


def _watched(verdict: Verdict) -> tuple[tuple[str, str], ...]:
    """What would have been done: by single keys and rules in dry run, or by the decision if all is a dry run."""
    decision = verdict.decision
    found = [(watched.action.value, watched.by) for watched in decision.watched]
    if decision.action is not verdict.action:
        found.insert(0, (decision.action.value, decision.by))
    return tuple(found)


def _findings(verdict: Verdict) -> tuple[FindingRow, ...]:
    """In one loop: each message comes here, a function for each finding would cost more than its work."""
    assessment = verdict.assessment
    judged = assessment.dmarc
    rows: list[FindingRow] = []
    for finding in verdict.findings:
        method, result, about, reason = finding.method, finding.result, finding.about, finding.reason
        domain = selector = ""
        aligned = False
        if method == "dkim":
            if "/" in about:
                domain, _, selector = about.partition("/")
            if judged is not None and result == _PASS:
                # SPF's identifier comes first. One that is aligned by aspf= may not be aligned by adkim=.
                for identifier in judged.aligned[judged.spf_aligned :]:
                    aligned = aligned or identifier.domain.name == domain
        elif about:
            domain = about.rpartition(" ")[2]
            if method == "spf":
                of_mail_from = finding.key == "spf.mailfrom"
                aligned = of_mail_from and judged is not None and judged.spf_aligned
                evaluation = assessment.spf_mail_from if of_mail_from else assessment.spf_helo
                if evaluation is not None and evaluation.guessed:  # the domain did not publish it, and reads reports
                    result = spf.Result.NONE
        if len(about) + len(reason) > MAX_TEXT:
            domain, selector, reason = domain[:MAX_TEXT], selector[:MAX_TEXT], reason[:MAX_TEXT]
        rows.append(FindingRow(method, finding.key, result, domain, selector, aligned, reason))
    return tuple(rows)


_PASS = dkim.Result.PASS


def _answers(verdict: Verdict, keeping: Keeping) -> tuple[tuple[AnswerRow, ...], int]:
    """What the DNS answered, and how many answers are left out."""
    hidden = _hidden(verdict.assessment, keeping)
    kept: dict[tuple[str, str], AnswerRow] = {}
    left_out, room = 0, MAX_ANSWERS_TEXT
    for noted in verdict.answers:
        question, answer = noted.question, noted.answer
        key = (question.name.lower(), question.type.value)
        if key in kept:
            continue
        row = AnswerRow(
            question.name[:MAX_TEXT],
            question.type.value,
            answer.outcome.value,
            tuple([_record(record)[:MAX_ANSWER_TEXT] for record in answer.records[:MAX_ANSWER_RECORDS]]),
            answer.secure,
            answer.stale,
            answer.ttl,
            answer.reason[:MAX_TEXT],
            round(noted.seconds * 1000),
        )
        size = len(row.name) + sum(map(len, row.records)) + len(row.reason)
        if size > room or len(kept) == MAX_ANSWERS or hidden.intersection(_WORDS.findall(key[0])):
            left_out += 1
            continue
        room -= size
        kept[key] = row
    return tuple(kept.values()), left_out


_WORDS = re.compile(r"[^\W_]+")


def _hidden(assessment: Assessment, keeping: Keeping) -> frozenset[str]:
    """Words that no name in the DNS may have, since they are of the sender's local part: what a macro such as ``%{l}``
    in an SPF record makes of it (RFC 7208, 7.3). Its delimiters are not letters."""
    checks = (assessment.spf_helo, assessment.spf_mail_from)
    if keeping.addresses or not any(check is not None and check.uses_macros for check in checks):
        return frozenset()
    return frozenset(_WORDS.findall(assessment.envelope.reverse_path.text.rpartition("@")[0].lower()))


def _record(record: Record) -> str:
    match record:
        case bytes():
            return record.decode("utf-8", "backslashreplace")
        case MX(preference, exchange):
            return f"{preference} {exchange or '.'}"
        case _:
            return str(record)


#: Results for which there was a record to evaluate against.
_EVALUATED = (dmarc.Result.PASS, dmarc.Result.FAIL, dmarc.Result.TEMPERROR)


def _dmarc(verdict: Verdict) -> DmarcRow | None:
    judged = verdict.assessment.dmarc
    if judged is None or judged.record is None or judged.policy_domain is None or judged.result not in _EVALUATED:
        return None
    policy = judged.policy or judged.record.p or dmarc.DmarcPolicy.NONE
    done = "" if verdict.action is Action.ACCEPT else _DONE[verdict.action]
    if verdict.action is Action.TEMPFAIL:  # it comes again, and counts once
        disposition = ""
    elif not done and judged.result is dmarc.Result.PASS:
        # RFC 9990, 3.1.1.9: it passed under a policy that asks for something
        disposition = "none" if policy is dmarc.DmarcPolicy.NONE else "pass"
    else:
        disposition = done or "none"
    return DmarcRow(
        PublishedRow(judged.policy_domain.name, judged.record.text[:MAX_RECORD], judged.method),
        policy,
        disposition,
        judged.dkim_aligned,
        judged.spf_aligned,
        _reasons(verdict, judged, policy, done or "none") if disposition else (),
    )


#: What an action is in the words of a report (RFC 9990, 3.1.1.9). A tag is what recipients' filters file mail by.
_DONE = {
    Action.TAG: "quarantine",
    Action.QUARANTINE: "quarantine",
    Action.TEMPFAIL: "",
    Action.DISCARD: "reject",
    Action.REJECT: "reject",
}


def _reasons(
    verdict: Verdict, judged: dmarc.Evaluation, policy: dmarc.DmarcPolicy, done: str
) -> tuple[tuple[str, str], ...]:
    """Why what was done is not what was published (RFC 9990, 3.1.1.9 and 3.1.6)."""
    decision = verdict.decision
    if judged.result is dmarc.Result.PASS:
        return () if done == "none" else (("local_policy", _comment(decision)),)
    if done == policy:
        return ()
    if done == judged.disposition and judged.testing:
        return (("policy_test_mode", ""),)
    if done == judged.disposition and judged.sampled_out:
        return (("other", "not drawn for the policy (pct)"),)
    if judged.result is dmarc.Result.TEMPERROR:
        return (("other", judged.reason[:MAX_TEXT]),)
    if decision.action is not verdict.action:
        return (("local_policy", "dry run"),)
    found = [(_REASONS[text], text) for text in decision.override.split("; ") if text in _REASONS]
    return tuple(found) or (("local_policy", _comment(decision)),)


_REASONS = {
    Override.TRUSTED_SEALERS.value: "trusted_forwarder",
    Override.TRUSTED_FORWARDER.value: "trusted_forwarder",
    Override.MAILING_LIST.value: "mailing_list",
    Override.STRICTER.value: "local_policy",
}


def _comment(decision: Decision) -> str:
    """Why we decided so, for the domain owner: a rule's reason, but not how the operator configures assay."""
    return (decision.override or decision.reason)[:MAX_TEXT]
