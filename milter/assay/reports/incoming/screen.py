# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the reports that can be read are kept: those about our domains, for a period that can be true."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from assay.model.name import Domain
from assay.protocol.report.received import Received, ReceivedAggregate, ReceivedTls, Unreadable

CLOCK_SECONDS = 86_400  # how far the end may lie ahead, our choice: some reporters write the end of a day that goes on
MAX_PERIOD_SECONDS = 40 * 86_400  # our choice: most report once a day, a few once a week or a month
#: Messages or sessions in a report, our choice: a day of the largest provider. Pages add up many reports, and a
#: database cannot count beyond 63 bits.
MAX_TOTAL = 10**12


def screen(report: Received, ours: Collection[Domain], *, now: float) -> Received | Unreadable:
    """The report, or why it is not kept.

    :param ours: our domains, each with all domains below it; empty for any domain.
    :param now: Unix time.
    """
    if report.end < report.begin:
        return Unreadable("the period ends before it begins")
    if report.end > now + CLOCK_SECONDS:
        return Unreadable(f"the period ends in the future, on {datetime.fromtimestamp(report.end, UTC):%Y-%m-%d}")
    if report.end - report.begin > MAX_PERIOD_SECONDS:
        return Unreadable(f"the period is longer than {MAX_PERIOD_SECONDS // 86_400} days")
    if _total(report) > MAX_TOTAL:
        return Unreadable(f"it counts more than {MAX_TOTAL:,} in all")
    subjects = [report.domain]
    if isinstance(report, ReceivedTls):
        subjects += [policy.domain for policy in report.policies]
    for subject in subjects:
        if ours and not any(Domain(subject).is_at_or_below(own) for own in ours):
            return Unreadable(f"it is about {subject}, which is none of our domains")
    return report


def _total(report: Received) -> int:
    match report:
        case ReceivedAggregate():
            return report.messages
        case ReceivedTls():
            return sum(policy.successful + policy.failed for policy in report.policies)
        case _:
            return report.incidents
