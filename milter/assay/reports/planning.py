# SPDX-License-Identifier: GPL-3.0-or-later
"""Which domains get a report about a day, when, and why the others get none.

A report that nobody wants hurts who sends it: it bounces, it is answered by a report, it makes us look like a sender of
spam. So each candidate has to pass what is here, and what `assay.reports.aggregate_dispatch` asks before it sends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from assay.config.reports import ReportsSection
from assay.model.name import Domain, InvalidNameError
from assay.policy.addresses import Entries
from assay.protocol import dmarc, report
from assay.reports.figures import ReportFigures, Withheld
from assay.store.outbox import DAY_SECONDS, Candidate, OutgoingReport, ReportState
from assay.store.report_days import LATE_DAYS

PLAN_SECONDS = 1800  # after midnight, before a day is planned: rows may still be in a spool


class ReportSubject(Struct, frozen=True):
    """What one report is about: records of a domain that say the same, the newest first."""

    policy: report.PolicyPublished
    record: dmarc.DmarcRecord
    candidates: tuple[Candidate, ...]


class Closed(Struct, frozen=True):
    """What a day is planned from: all that came, or what came late.

    :ivar candidates: the records that applied, with all mail of the day so far, which decides whether reports are sent.
    :ivar messages: how many of a record's messages the reports are about, by its id.
    :ivar supplement: which one to the report about the day; 0 for this.
    """

    candidates: Sequence[Candidate]
    messages: Mapping[int, int]
    supplement: int = 0


def subjects(candidates: Iterable[Candidate]) -> list[ReportSubject]:
    """Put together what belongs into one report: one policy domain and one policy configuration (RFC 9990, 3.1)."""
    found: dict[report.PolicyPublished, list[Candidate]] = {}
    for candidate in candidates:
        record = dmarc.parse(candidate.record.encode("ascii", "replace"))
        if record.p is not None:
            policy = report.published(candidate.domain, record, dmarc.DiscoveryMethod(candidate.method))
            found.setdefault(policy, []).append(candidate)
    return [_subject(policy, several) for policy, several in found.items()]


def _subject(policy: report.PolicyPublished, candidates: list[Candidate]) -> ReportSubject:
    candidates.sort(key=lambda candidate: (candidate.last_seen, candidate.published), reverse=True)
    return ReportSubject(policy, dmarc.parse(candidates[0].record.encode("ascii", "replace")), tuple(candidates))


def plan(
    closed: Closed,
    section: ReportsSection,
    listed: Entries,
    source: str,
    *,
    day: int,
    now: int,
    figures: ReportFigures,
) -> list[OutgoingReport]:
    """The reports about a day, or the supplements to them, those that are not sent included.

    :param listed: domains and addresses that no report is about or goes to.
    :param source: see `report.report_id`.
    :param now: Unix time in seconds.
    :param figures: counts them.
    """
    planned = []
    for subject in subjects(closed.candidates):
        begin = day * DAY_SECONDS
        receiver = section.receiver_domain
        identifier = report.report_id(receiver, subject.policy, begin, begin + DAY_SECONDS - 1, source=source)
        if closed.supplement:
            identifier = report.derived_id(identifier, "supplement", closed.supplement)
        withheld = why_not(subject, section, listed)
        if withheld is None:
            figures.planned += 1
        else:
            figures.withheld[withheld[0]] += 1
        planned.append(
            OutgoingReport(
                identifier,
                day,
                subject.policy.domain,
                tuple(candidate.published for candidate in subject.candidates),
                ReportState.NOT_SENT if withheld else ReportState.WAITING,
                withheld[1] if withheld else "",
                now + delay(identifier, section.spread_hours),
                now,
                now,
                sum(closed.messages[candidate.published] for candidate in subject.candidates),
                0,
                supplement=closed.supplement,
            )
        )
    return planned


def why_not(subject: ReportSubject, section: ReportsSection, listed: Entries) -> tuple[Withheld, str] | None:
    """Why there is no report about a domain, as figures have it and in one clause; None if there may be one."""
    domain = subject.policy.domain
    messages = sum(candidate.messages for candidate in subject.candidates)
    if not subject.record.rua:
        return Withheld.UNASKED, "its record asks for none (no rua)"
    if not messages:
        return Withheld.UNDECIDED, "no message was taken or refused for good"
    if messages == sum(candidate.report_mail for candidate in subject.candidates):
        return Withheld.REPORT_MAIL, "all its messages were reports or bounces"
    if not any(candidate.passing for candidate in subject.candidates) and messages < section.min_messages:
        least = section.min_messages
        return (
            Withheld.FEW,
            f"none of its messages passed DMARC, and {messages} is less than reports.min_messages ({least})",
        )
    if listed.hold(domain):
        return Withheld.SUPPRESSED, "listed in reports.suppress"
    try:
        Domain.parse_host(domain)
    except InvalidNameError as error:
        return Withheld.UNUSABLE, f"not a host name: {error}"
    return None


def delay(identifier: str, hours: float) -> int:
    """When a report is sent, in seconds after it was planned: anywhere in a span, and always the same."""
    return int(int(identifier[:8], 16) / 0x1_0000_0000 * hours * 3600)


def days_to_plan(planned: Iterable[int], now: int, most: int = 3) -> list[int]:
    """The days that have ended and were not planned, the oldest first.

    :param most: how many days back; reports about older ones would only surprise.
    """
    today = (now - PLAN_SECONDS) // DAY_SECONDS
    done = {day for day in planned if day < today}  # others are of a clock that was wrong
    first = max(done, default=today - 2) + 1
    return [day for day in range(max(first, today - most), today) if day not in done]


def supplements_to_plan(late: Iterable[int], now: int) -> list[int]:
    """Of the days that messages came late of, those that still get a supplement."""
    today = (now - PLAN_SECONDS) // DAY_SECONDS
    return sorted(day for day in late if today - LATE_DAYS <= day < today)
