# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 3: an assessment as one list of findings: each method's result, for everything that reports it.

Authentication-Results, the log line and ``assay check`` iterate over this list, and none of them knows a method by
name. A new method is a room in `assay.protocol`, a function here, a section of the configuration and its outcomes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from assay.assessment import Assessment
from assay.inquiry import Grounds
from assay.policy.decision import Stage
from assay.protocol import arc, dkim, spf
from assay.protocol.authres import Property


class Finding(Struct, frozen=True):
    """What one method found about one thing.

    `method` is registered (RFC 8601, 2.7), and so are `result` and `properties`. `about` is what the result
    is about, for people: an identity, a domain, a key; empty for the message. `comment` is for Authentication-Results,
    `reason` for all. `written` is False if Authentication-Results omits the finding.

    `key` and `word` are the log's: findings with the same key share one entry. `more` are further entries after it.
    `stage` is when the result becomes known, and the order in the log. `grounds` are of its answers.
    """

    method: str
    result: str
    about: str = ""
    reason: str = ""
    comment: str = ""
    properties: tuple[Property, ...] = ()
    written: bool = True
    key: str = ""
    word: str = ""
    more: tuple[tuple[str, object], ...] = ()
    stage: Stage = Stage.EOM
    grounds: Grounds = Grounds.UNPROVEN


def findings(assessment: Assessment) -> tuple[Finding, ...]:
    """All findings, in the order of Authentication-Results."""
    if assessment.exempt:
        return ()
    found: list[Finding] = []
    for method in METHODS:
        found += method(assessment)
    return tuple(found)


def _iprev(assessment: Assessment) -> Iterable[Finding]:
    evaluation = assessment.iprev
    if evaluation is None:
        return ()
    return (
        Finding(
            "iprev",
            evaluation.result,
            reason=evaluation.reason,
            comment=evaluation.name,
            properties=(Property("policy", "iprev", str(evaluation.address)),),  # RFC 8601, 2.7.3
            key="iprev",
            stage=Stage.CONNECT,
            grounds=evaluation.grounds,
        ),
    )


def _spf(assessment: Assessment) -> Iterable[Finding]:
    """RFC 8601, 2.7.2: one result for each identity, and never one that could be read as the other's.

    MAIL FROM's comes first: a reader of only one result takes the first. With a null reverse-path that identity
    is postmaster at the HELO name (RFC 7208, 2.4), so one result under smtp.helo stands for both.
    """
    mail_from, helo = assessment.spf_mail_from, assessment.spf_helo
    path = assessment.envelope.reverse_path
    found = []
    if mail_from is not None:
        if path.is_null:
            properties = (Property("smtp", "helo", assessment.client.helo),)
        else:
            # Without an @ there is no domain, and the text is a local part.
            domain = str(mail_from.domain or path.text.rpartition("@")[2] * ("@" in path.text))
            # RFC 7208, 9.2: the local part is omitted unless the record used it.
            identity = mail_from.sender if mail_from.domain and mail_from.uses_local_part else domain
            properties = (Property("smtp", "mailfrom", identity),)
        written = not path.is_null or helo is None
        found.append(_of_spf(mail_from, properties, Stage.MAIL, written=written))
    if helo is not None:
        found.append(_of_spf(helo, (Property("smtp", "helo", assessment.client.helo),), Stage.HELO, written=True))
    return found


def _of_spf(evaluation: spf.Evaluation, properties: tuple[Property, ...], stage: Stage, *, written: bool) -> Finding:
    return Finding(
        "spf",
        evaluation.result,
        about=f"{evaluation.identity} {evaluation.domain}" if evaluation.domain else "",
        reason=evaluation.reason,
        comment="best guess" if evaluation.guessed else "",
        properties=properties,
        written=written,
        key=f"spf.{evaluation.identity}",
        more=(("guessed", "yes"),) if evaluation.guessed else (),
        stage=stage,
        grounds=evaluation.grounds,
    )


def _dkim(assessment: Assessment) -> Iterable[Finding]:
    skipped = (("dkim.skipped", assessment.dkim_skipped),) if assessment.dkim_skipped else ()
    if not assessment.dkim:
        return (Finding("dkim", dkim.Result.NONE, about="no signature", key="dkim", more=skipped),)
    prefix = _b_prefix([evaluation.b for evaluation in assessment.dkim])
    found: list[Finding] = []
    for evaluation in assessment.dkim:
        where = f"{evaluation.domain}/{evaluation.selector}" if evaluation.domain else ""
        found.append(
            Finding(
                "dkim",
                evaluation.result,
                about=where,
                reason=evaluation.reason,
                comment="test mode" if evaluation.testing else "",
                properties=_dkim_properties(evaluation, prefix),
                key="dkim",
                word=f"{evaluation.result}:{where}" if where else "",
                more=skipped if not found else (),
                grounds=evaluation.grounds,
            )
        )
    return found


def _dkim_properties(evaluation: dkim.Evaluation, prefix: int) -> tuple[Property, ...]:
    values = (
        ("d", "" if evaluation.domain is None else evaluation.domain.name),
        ("i", evaluation.identity),
        ("s", evaluation.selector),
        ("a", evaluation.algorithm),
        ("b", evaluation.b[:prefix]),
    )
    properties = tuple([Property("header", name, value) for name, value in values if value])
    if evaluation.policy:
        return (*properties, Property("policy", evaluation.policy, "violated"))  # RFC 8601, 2.4
    return properties


MAX_B_PREFIX = 64  # our choice: longer equal prefixes are deliberate, and would cost more than they tell


def _b_prefix(signatures: Sequence[str]) -> int:
    """How many characters of b= distinguish the signatures: eight, or more if those are equal (RFC 6008, 4)."""
    length = 8
    if len(signatures) < 2:
        return length
    different = {b for b in signatures if b}
    while length < MAX_B_PREFIX and len({b[:length] for b in different}) < len(different):
        length += 1
    return length


def _arc(assessment: Assessment) -> Iterable[Finding]:
    evaluation = assessment.arc
    if evaluation is None:
        return ()
    properties = []
    if evaluation.oldest_pass is not None:
        properties.append(Property("header", "oldest-pass", str(evaluation.oldest_pass)))  # RFC 8617, 10.2
    if assessment.client.text:
        properties.append(Property("smtp", "remote-ip", assessment.client.text))
    return (
        Finding(
            "arc",
            evaluation.result,
            reason=evaluation.reason,
            properties=tuple(properties),
            written=evaluation.result is not arc.Result.NONE,
            key="arc",
            grounds=evaluation.grounds,
        ),
    )


def _sender_id(assessment: Assessment) -> Iterable[Finding]:
    evaluation = assessment.sender_id
    if evaluation is None:
        return ()
    return (
        Finding(
            "sender-id",
            evaluation.result,
            about=f"{evaluation.scope} {evaluation.domain}" if evaluation.domain else "",
            reason=evaluation.reason,
            properties=(Property("header", evaluation.field, evaluation.sender),) if evaluation.field else (),
            key="senderid",
            grounds=evaluation.grounds,
        ),
    )


def _dmarc(assessment: Assessment) -> Iterable[Finding]:
    evaluation = assessment.dmarc
    if evaluation is None:
        return ()
    properties = []
    if evaluation.author_domain is not None:
        properties.append(Property("header", "from", str(evaluation.author_domain)))
    published = evaluation.policy
    if published is not None:
        # RFC 9989, 9.1: what the owner asks for this message, all options of the record considered.
        properties.append(Property("policy", "dmarc", evaluation.disposition))
    return (
        Finding(
            "dmarc",
            evaluation.result,
            about=str(evaluation.author_domain or ""),
            reason=evaluation.reason,
            comment=f"p={published}" if published is not None else "",
            properties=tuple(properties),
            key="dmarc",
            more=(("p", published),) if published is not None else (),
            grounds=evaluation.grounds,
        ),
    )


#: The findings of each method.
METHODS: Sequence[Callable[[Assessment], Iterable[Finding]]] = (_iprev, _spf, _dkim, _arc, _sender_id, _dmarc)
