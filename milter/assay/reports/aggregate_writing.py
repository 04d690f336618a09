# SPDX-License-Identifier: GPL-3.0-or-later
"""An aggregate report from what the store has: read group by group, written as a compressed file in constant memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from assay import __version__
from assay.config.reports import ReportsSection
from assay.protocol import dkim, dmarc, report, spf
from assay.store import outbox
from assay.store.outbox import DAY_SECONDS, Connection, Group, OutgoingReport

_GENERATOR = f"assay {__version__}"
_SPF_RESULTS = {str(result): result for result in spf.Result}
_DKIM_RESULTS = {str(result): result for result in dkim.Result}


class VanishedError(Exception):
    """The records that a report is about are no longer in the store."""


def describe(connection: Connection, planned: OutgoingReport, section: ReportsSection) -> report.AggregateReport:
    """What a report says, without its records.

    :raises VanishedError: the store no longer has it.
    """
    domain, text, method = outbox.record_of(connection, planned.published[0])
    record = dmarc.parse(text.encode("ascii", "replace"))
    if not domain or record.p is None:
        raise VanishedError
    begin = planned.day * DAY_SECONDS
    return report.AggregateReport(
        report.ReportMetadata(
            section.organization,
            section.contact,
            planned.id,
            begin,
            begin + DAY_SECONDS - 1,  # RFC 9990, 3.1.1.4: periods do not overlap
            section.contact_info,
            record.notes,
            _GENERATOR,
        ),
        report.published(domain, record, dmarc.DiscoveryMethod(method)),
        planned.part,
        planned.parts,
    )


def write(
    connection: Connection,
    planned: OutgoingReport,
    described: report.AggregateReport,
    schema: report.Schema,
    path: Path,
) -> int:
    """Write the file, at once or not at all.

    :returns: its size in octets.
    :raises VanishedError: there is no record left.
    :raises OSError: it cannot be written.
    """
    unfinished = path.with_name(f".unfinished-{path.name}")
    with contextlib.ExitStack() as stack:
        stack.callback(unfinished.unlink, missing_ok=True)
        with unfinished.open("wb") as file:
            found = records(outbox.groups(connection, planned))
            for piece in report.compressed(report.render(described, found, schema)):
                file.write(piece)
            size = file.tell()
        os.rename(unfinished, path)
    return size


def records(groups: Iterable[Group]) -> Iterator[report.ReportRecord]:
    """The records of a report.

    :raises VanishedError: there is none: a report has at least one (RFC 9990, 3.1.1.2).
    """
    empty = True
    for group in groups:
        empty = False
        yield record(group)
    if empty:
        raise VanishedError


def record(group: Group) -> report.ReportRecord:
    """One record."""
    envelope_from = group.sender_domain or ("" if group.null_sender else None)
    return report.ReportRecord(
        group.client,
        group.count,
        report.Disposition(group.disposition),
        group.dkim_aligned,
        group.spf_aligned,
        group.author_domain,
        envelope_from,
        tuple(report.OverrideReason(report.OverrideType(kind), comment) for kind, comment in group.reasons),
        report.reported_signatures(
            (
                report.DkimResult(domain, selector, _DKIM_RESULTS[result], why)
                for domain, selector, result, why, _ in group.dkim
                if result in _DKIM_RESULTS
            ),
            group.author_domain,
            frozenset(domain for domain, _, _, _, aligned in group.dkim if aligned),
        ),
        _spf(group),
    )


def _spf(group: Group) -> report.SpfResult | None:
    if group.spf is None or group.spf[1] not in _SPF_RESULTS:
        return None
    domain, result, why = group.spf
    return report.SpfResult(domain, _SPF_RESULTS[result], why)
