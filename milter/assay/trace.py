# SPDX-License-Identifier: GPL-3.0-or-later
"""The trace header fields of one message: what was found, as fields to insert, and forged ones, as fields to remove.

One Authentication-Results with every result (RFC 8601) and a Received-SPF for each SPF identity that was checked
(RFC 7208, 9.1). All of it is data: the filter performs the edits at end of message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from assay.assessment import Assessment
from assay.model.edits import AddRecipient, Change, Edit, Insert, Remove
from assay.model.message import Header, HeaderField
from assay.policy import Action, Decision, Edits
from assay.protocol import arc, authres, dkim, dmarc, iprev, senderid, spf


class Forgeries(Struct, frozen=True):
    """Recognises fields that claim to be ours, and those that no stranger may send, one field after another."""

    authserv_ids: tuple[str, ...]

    def claims(self, field: HeaderField) -> bool:
        """Whether the field must be removed because only we may write it (RFC 8601, 5; RFC 7208, 9.1).

        Whoever claims them, results of a version that we do not know go too: RFC 8601, 5 has it as a MUST for what
        comes from outside, since readers behind us might take such a field for anything.
        """
        match field.key:
            case b"authentication-results":
                return authres.claims(field.value, self.authserv_ids) or authres.is_of_another_version(field.value)
            case b"received-spf":
                return authres.forged_received_spf(field.value, self.authserv_ids)
            case _:
                return False


def remove_edits(header: Header, names: Iterable[str], forged: Iterable[tuple[str, int]]) -> tuple[Remove, ...]:
    """Edits that remove fields, of each name the last occurrence first.

    MTAs renumber the fields of a name after each removal, so a removal from the top would hit the wrong field of the
    next one (CVE-2022-48521).

    :param header: the message's header as received.
    :param names: fields to remove, all of each name.
    :param forged: (name, occurrence) of single fields to remove.
    """
    pairs = {(name.lower(), occurrence): name for name, occurrence in forged}
    for name in names:
        pairs |= {(name.lower(), occurrence): name for occurrence in range(1, len(header.all(name)) + 1)}
    ordered = sorted(pairs.items(), key=lambda item: -item[0][1])
    return tuple(Remove(name, occurrence) for (_, occurrence), name in ordered)


def decision_edits(header: Header, edits: Edits) -> Iterator[Edit]:
    """The other edits that a decision asks for."""
    if edits.subject_tag:
        yield _tagged_subject(header, edits.subject_tag)
    for name, value in edits.add:
        yield Insert(name, value)
    for path in edits.recipients:
        yield AddRecipient(path)


def _tagged_subject(header: Header, tag: str) -> Edit:
    """The tag in front of the Subject, unless it is there already; a Subject of its own for a message without one."""
    subjects = header.all("Subject")
    if not subjects:
        return Insert("Subject", tag.rstrip())
    text = subjects[0].unfolded.decode("utf-8", "replace")
    return Change("Subject", 1, text if text.startswith(tag) else tag + text)


def insert_edits(
    assessment: Assessment, decision: Decision, authserv_id: str, *, received_spf: bool
) -> tuple[Insert, ...]:
    """The fields that tell what was found, in the order in which to insert them: the last one ends up on top."""
    fields = [Insert("Authentication-Results", authres.render(authserv_id, _results(assessment, decision)))]
    client = assessment.client
    for evaluation in (assessment.spf_mail_from, assessment.spf_helo):
        if received_spf and evaluation is not None and client.address is not None:
            value = spf.render(
                evaluation,
                client_address=client.address,
                helo=client.helo,
                envelope_from=assessment.envelope.reverse_path.text,
                receiver=authserv_id,
            )
            fields.append(Insert("Received-SPF", value))
    return tuple(reversed(fields))


def _results(assessment: Assessment, decision: Decision) -> Sequence[authres.MethodResult]:
    """All results, in the order in which the facts arrived."""
    results: list[authres.MethodResult] = []
    if assessment.iprev is not None:
        results.append(_iprev(assessment.iprev))
    results.extend(_spf(assessment))
    told = _worth_telling(assessment.dkim)
    prefix = _b_prefix(one.b for one in told)
    results.extend(_dkim(evaluation, prefix) for evaluation in told)
    if not assessment.dkim:
        results.append(authres.MethodResult("dkim", dkim.Result.NONE))
    if assessment.arc is not None and assessment.arc.result is not arc.Result.NONE:
        results.append(_arc(assessment, assessment.arc))
    if assessment.sender_id is not None:
        results.append(_sender_id(assessment.sender_id))
    if assessment.dmarc is not None:
        results.append(_dmarc(assessment.dmarc, decision))
    return results


def _iprev(evaluation: iprev.Evaluation) -> authres.MethodResult:
    return authres.MethodResult(
        "iprev",
        evaluation.result,
        reason="" if evaluation.result is iprev.Result.PASS else evaluation.reason,
        comment=evaluation.name,
        properties=(authres.Property("policy", "iprev", str(evaluation.address)),),  # RFC 8601, 2.7.3
    )


def _spf(assessment: Assessment) -> Iterator[authres.MethodResult]:
    """RFC 8601, 2.7.2: one result for each identity, and never one that could be read as the other's.

    With a null reverse-path the MAIL FROM identity is postmaster at the HELO name (RFC 7208, 2.4), so one result
    under smtp.helo tells both.
    """
    mail_from, helo = assessment.spf_mail_from, assessment.spf_helo
    if mail_from is not None and not assessment.envelope.reverse_path.is_null:
        domain = str(mail_from.domain) if mail_from.domain else assessment.envelope.reverse_path.text
        # RFC 7208, 9.2: the local part stays out unless the record looked at it.
        identity = mail_from.sender if mail_from.domain and mail_from.uses_local_part else domain
        yield _spf_result(mail_from, "mailfrom", identity)
    elif helo is None and mail_from is not None:
        helo = mail_from
    if helo is not None:
        yield _spf_result(helo, "helo", assessment.client.helo)


def _spf_result(evaluation: spf.Evaluation, name: str, identity: str) -> authres.MethodResult:
    return authres.MethodResult(
        "spf",
        evaluation.result,
        reason="" if evaluation.result is spf.Result.PASS else evaluation.reason,
        comment="best guess" if evaluation.guessed else "",
        properties=(authres.Property("smtp", name, identity),),
    )


def _dkim(evaluation: dkim.Evaluation, prefix: int) -> authres.MethodResult:
    properties = [
        authres.Property("header", name, value)
        for name, value in (
            ("d", str(evaluation.domain or "")),
            ("i", evaluation.identity),
            ("s", evaluation.selector),
            ("a", evaluation.algorithm),
            ("b", evaluation.b[:prefix]),
        )
        if value
    ]
    if evaluation.policy:
        properties.append(authres.Property("policy", evaluation.policy, "violated"))  # RFC 8601, 2.4
    return authres.MethodResult(
        "dkim",
        evaluation.result,
        reason="" if evaluation.result is dkim.Result.PASS else evaluation.reason,
        comment="test mode" if evaluation.testing else "",
        properties=tuple(properties),
    )


#: Our choice: with as many as the default of dkim.max_signatures lets through, a hostile field stays below 40 KiB.
MAX_SIGNATURES = 20


def _worth_telling(evaluations: Sequence[dkim.Evaluation]) -> Sequence[dkim.Evaluation]:
    """As many signatures' evaluations as one field may hold: where there are more, those that passed come first."""
    if len(evaluations) <= MAX_SIGNATURES:
        return evaluations
    return sorted(evaluations, key=lambda one: one.result is not dkim.Result.PASS)[:MAX_SIGNATURES]


MAX_B_PREFIX = 64  # our choice: what still is equal behind that was made so, and would cost more than it tells


def _b_prefix(signatures: Iterable[str]) -> int:
    """How many characters of b= tell the signatures apart: eight, more where those are equal (RFC 6008, 4)."""
    different = {b for b in signatures if b}
    length = 8
    while length < MAX_B_PREFIX and len({b[:length] for b in different}) < len(different):
        length += 1
    return length


def _arc(assessment: Assessment, evaluation: arc.Evaluation) -> authres.MethodResult:
    properties = []
    if evaluation.oldest_pass is not None:
        properties.append(authres.Property("header", "oldest-pass", str(evaluation.oldest_pass)))  # RFC 8617, 10.2
    if assessment.client.address is not None:
        properties.append(authres.Property("smtp", "remote-ip", str(assessment.client.address)))
    return authres.MethodResult(
        "arc",
        evaluation.result,
        reason="" if evaluation.result is arc.Result.PASS else evaluation.reason,
        properties=tuple(properties),
    )


def _sender_id(evaluation: senderid.Evaluation) -> authres.MethodResult:
    properties: tuple[authres.Property, ...] = ()
    if evaluation.field:
        properties = (authres.Property("header", evaluation.field, evaluation.sender),)
    return authres.MethodResult(
        "sender-id",
        evaluation.result,
        reason="" if evaluation.result is senderid.Result.PASS else evaluation.reason,
        properties=properties,
    )


def _dmarc(evaluation: dmarc.Evaluation, decision: Decision) -> authres.MethodResult:
    properties = []
    if evaluation.author_domain is not None:
        properties.append(authres.Property("header", "from", str(evaluation.author_domain)))
    if evaluation.policy is not None:
        # RFC 9989, 9.1: the policy as it was applied, all local options considered.
        properties.append(authres.Property("policy", "dmarc", _applied(evaluation, decision)))
    return authres.MethodResult(
        "dmarc",
        evaluation.result,
        reason="" if evaluation.result is dmarc.Result.PASS else evaluation.reason,
        comment=_dmarc_comment(evaluation, decision),
        properties=tuple(properties),
    )


def _dmarc_comment(evaluation: dmarc.Evaluation, decision: Decision) -> str:
    """What was published, and the local override of a failure, where there is one (RFC 9989, 5.4; RFC 8617, 7.2.1).

    A rule of the operator's is told whatever DMARC says, for no other result would.
    """
    published = f"p={evaluation.policy}" if evaluation.policy is not None else ""
    by_rule = decision.by.startswith("rule ")
    if not decision.override or (evaluation.result is not dmarc.Result.FAIL and not by_rule):
        return published
    return f"{published}, {decision.override}" if published else decision.override


def _applied(evaluation: dmarc.Evaluation, decision: Decision) -> str:
    # What another method's rule decided is not DMARC's policy.
    if evaluation.result is not dmarc.Result.FAIL or not any(
        key.startswith("dmarc.") for key in decision.by.split(", ")
    ):
        return dmarc.Policy.NONE
    match decision.action:
        case Action.REJECT | Action.TEMPFAIL | Action.DISCARD:
            return dmarc.Policy.REJECT
        case Action.QUARANTINE:
            return dmarc.Policy.QUARANTINE
        case _:
            return dmarc.Policy.NONE
