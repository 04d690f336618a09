# SPDX-License-Identifier: GPL-3.0-or-later
"""One message, one line: what the log says about a verdict, in the words of the configuration and the headers."""

from __future__ import annotations

from collections.abc import Iterator

from assay import log, trace
from assay.assessment import Assessment
from assay.protocol import dkim
from assay.transaction import Verdict

MAX_SIGNATURES = 5  # shown on the line; the header names them all


def message_line(verdict: Verdict, *, waited: float) -> str:
    """The line of one message.

    :param waited: seconds from the end of the message to the verdict.
    """
    assessment = verdict.assessment
    return log.pairs(
        (
            ("queue", assessment.envelope.queue_id or "-"),
            ("client", assessment.client.address or "-"),
            ("helo", assessment.client.helo or "-"),
            ("from", f"<{assessment.envelope.reverse_path.text}>"),
            ("rcpts", len(assessment.envelope.recipients)),
            *(_evaluations(assessment) if not assessment.exempt else (("exempt", assessment.exempt),)),
            ("action", verdict.action),
            ("dry_run", verdict.decision.action if verdict.decision.action is not verdict.action else None),
            ("reply", verdict.decision.reply),
            ("by", verdict.decision.key or None),
            ("reason", verdict.decision.reason if verdict.decision.reply is None and verdict.decision.reason else None),
            ("removed", _removed(verdict) or None),
            ("ms", round(waited * 1000)),
        )
    )


def _evaluations(assessment: Assessment) -> Iterator[tuple[str, object]]:
    if assessment.author is not None:
        yield "author", assessment.author.domain or "-"
    if assessment.iprev is not None:
        yield "iprev", assessment.iprev.result
    if assessment.spf_helo is not None:
        yield "spf.helo", assessment.spf_helo.result
    if assessment.spf_mail_from is not None:
        yield "spf.mailfrom", assessment.spf_mail_from.result
    signatures = ",".join(
        f"{one.result}:{one.domain}/{one.selector}" if one.domain else str(one.result)
        for one in assessment.dkim[:MAX_SIGNATURES]
    )
    yield "dkim", signatures or dkim.Result.NONE
    if assessment.arc is not None:
        yield "arc", assessment.arc.result
    if assessment.dmarc is not None:
        yield "dmarc", assessment.dmarc.result
        if assessment.dmarc.policy is not None:
            yield "p", assessment.dmarc.policy


def _removed(verdict: Verdict) -> int:
    return sum(isinstance(edit, trace.Remove) for edit in verdict.edits)
