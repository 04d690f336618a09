# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports in a store of the page's tests: those that went out, about the mail that is there, and those that came in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import msgspec

from assay.config.reports import ReportsSection
from assay.protocol.report.received import (
    AggregateRow,
    AppliedPolicy,
    PolicyReason,
    Received,
    ReceivedAggregate,
    ReceivedFailure,
    ReceivedTls,
    ReportedSignature,
    ReportedSpf,
    ReportSender,
    TlsFailure,
    TlsPolicy,
)
from assay.store import incidents, outbox, received, report_deliveries, suppressions
from assay.store.database import Database
from assay.store.outbox import DAY_SECONDS, Candidate, OutgoingReport, ReportState
from assay.store.report_deliveries import ReportDelivery
from assay.store.rows import IncidentRow, MessageRow
from assay.store.suppressions import Suppression
from report_world import with_failure

SECTION = ReportsSection(organization="Example Ltd", contact="dmarc@example.org")
DAYS = 10
REPORTERS = ("google.com", "Enterprise Outlook", "Yahoo", "mail.ru", "AMAZON-SES")
#: What became of reports, by their number.
_ENDS = (
    (ReportState.SENT, ""),
    (ReportState.SENT, ""),
    (ReportState.SENT, ""),
    (ReportState.REFUSED, "550 5.7.1 no reports here"),
    (ReportState.GIVEN_UP, "451 4.3.0 try again later"),
    (ReportState.BOUNCED, "it came back"),
    (ReportState.WAITING, ""),
)


def fill_reports(database: Database, end: int, ours: Sequence[str], texts: Sequence[str]) -> None:
    """Reports about the last days, and what strangers write into them.

    :param end: Unix milliseconds.
    :param texts: of strangers, for every field that they have influence on.
    """
    today = end // 1000 // DAY_SECONDS
    with database.writing() as connection:
        for day in range(today - DAYS, today):
            now = (day + 1) * DAY_SECONDS + 3600
            found = sorted(outbox.candidates(connection, day), key=lambda each: each.published)
            ended = [_planned(each, number, day, now) for number, each in enumerate(found)]
            outbox.plan(connection, day, ended, now=now, dry_run=False)
            report_deliveries.replace_deliveries(
                connection, "", (), [_delivery(each, f"dmarc@{each.domain}") for each in ended if not each.why]
            )
        hostile = [
            OutgoingReport(f"attack{number}", today, text, (), ReportState.REFUSED, text, 0, 0, 0, 1, 0)
            for number, text in enumerate(texts)
        ]
        outbox.plan(connection, today, hostile, now=end // 1000, dry_run=False)
        report_deliveries.replace_deliveries(
            connection, "", (), [_delivery(each, each.why, each.why) for each in hostile]
        )
        failed = [_failed(number, text, end) for number, text in enumerate(texts)]
        policies = {row.dmarc.published: 0 for row in failed if row.dmarc is not None}
        incidents.add(connection, failed, policies, end // 1000)
        for text in texts:
            suppressions.suppress(connection, Suppression(text, 0, text, end // 1000))
        suppressions.suppress(
            connection, Suppression("d@example.com", end // 1000 + 86_400, "it refused a report", end // 1000)
        )
        for sender, report in itertools.chain(_arrivals(today, ours), _attacks(today, texts)):
            received.keep(connection, sender, report, now=end / 1000)
        for text in texts:
            content = f"{text} is no report".encode()
            received.keep_unreadable(connection, ReportSender(text, "fail"), text, content, now=end / 1000)


def _planned(candidate: Candidate, number: int, day: int, now: int) -> OutgoingReport:
    state, why = _ENDS[number % len(_ENDS)]
    if not candidate.passing:
        state = ReportState.NOT_SENT
        why = f"none of its messages passed DMARC, and {candidate.messages} is less than reports.min_messages (100)"
    identifier = f"{day:x}{number:08x}"
    of = (candidate.published,)
    return OutgoingReport(identifier, day, candidate.domain, of, state, why, now, now, now, candidate.messages, 2000)


def _delivery(report: OutgoingReport, address: str, why: str = "250 2.0.0 Ok: queued") -> ReportDelivery:
    return ReportDelivery(
        report.id, address, report.domain, report.state, why, 1, report.due, report.changed, f"token of {report.id}"
    )


def _failed(number: int, text: str, end: int) -> MessageRow:
    incident = IncidentRow(text, text, text, text, (), True, (text, text, text), text)
    return msgspec.structs.replace(
        with_failure(number), time=end, queue=text, client=text, author_domain=text, incident=incident
    )


def _arrivals(today: int, ours: Sequence[str]) -> Iterator[tuple[ReportSender, Received]]:
    for day, (number, domain) in itertools.product(range(today - DAYS, today), enumerate(ours)):
        begin = day * DAY_SECONDS
        for place, reporter in enumerate(REPORTERS):
            rows = [
                AggregateRow("192.0.2.77", 40 + place, "none", True, True, domain),
                *(
                    AggregateRow(
                        f"203.0.{113 - count % 7}.{(day + 7 * count) % 250}", 1 + count % 3, "reject", False, False,
                        domain, domain, "", (PolicyReason("local_policy", "arc=fail"),),
                        (ReportedSignature(domain, "r2026", "fail"),), (ReportedSpf(domain, "mfrom", "fail"),),
                    )
                    for count in range(20)
                ),
            ]  # fmt: skip
            report = ReceivedAggregate(
                reporter, f"noreply@{place}.example", f"{day}.{number}", domain, begin, begin + DAY_SECONDS - 1,
                AppliedPolicy(p="reject", adkim="r", aspf="r"), tuple(rows),
            )  # fmt: skip
            yield ReportSender(f"{place}.example", ("pass", "fail", "")[place % 3]), report
        policy = TlsPolicy(
            domain, "sts", 900 + day % 50, 3, (TlsFailure("certificate-expired", 3, "192.0.2.9", "", "mx1." + domain),)
        )
        yield (
            ReportSender(),
            ReceivedTls("google.com", "", f"t{day}", domain, begin, begin + DAY_SECONDS - 1, (policy,)),
        )
    yield (
        ReportSender("reporter.example", "pass"),
        ReceivedFailure(
            "reporter.example", "", "<f@reporter.example>", ours[0], today * DAY_SECONDS, today * DAY_SECONDS,
            "203.0.113.9", ("dmarc",), ("none",), "reject", "mx.reporter.example; dmarc=fail", ours[0], "s9", ours[0],
            ours[0], f"<1@{ours[0]}>",
        ),
    )  # fmt: skip


def _attacks(today: int, texts: Sequence[str]) -> Iterator[tuple[ReportSender, Received]]:
    begin = today * DAY_SECONDS
    for text in texts:
        sender = ReportSender(text, "fail")
        row = AggregateRow(
            text, 1, text, False, False, text, text, text, (PolicyReason(text, text),),
            (ReportedSignature(text, text, text),), (ReportedSpf(text, text, text),),
        )  # fmt: skip
        policy = AppliedPolicy(*[text] * len(AppliedPolicy.__struct_fields__))
        yield (
            sender,
            ReceivedAggregate(text, text, text, text, begin, begin, policy, (row,), text, (text,), 1, text),
        )
        several = (text,)
        yield (
            sender,
            ReceivedFailure(
                text, text, text, text, begin, begin, text, several, several, text, text, text, text, text, text, text
            ),
        )
        failure = TlsFailure(text, 1, text, text, text, text)
        yield sender, ReceivedTls(text, text, text, text, begin, begin, (TlsPolicy(text, text, 1, 1, (failure,)),))
