# SPDX-License-Identifier: GPL-3.0-or-later
"""The domains of ours, and for each the records that it needs, as our resolver sees them."""

from __future__ import annotations

from assay.web.lookups import DomainReport
from assay.web.parts import Code, Column, DataTable, Link, Moment, Part, Remark, Tone, WebPage, Word
from assay.web.records import RecordState
from assay.web.site import NotFoundError, Site, WebQuery, address

PATIENCE_SECONDS = 1.0  # that a page waits for the DNS at most
ROWS = 50

_TONES = {
    RecordState.GOOD: Tone.GOOD,
    RecordState.DOUBT: Tone.DOUBT,
    RecordState.BAD: Tone.BAD,
    RecordState.UNKNOWN: Tone.PLAIN,
}
_KINDS = ("MX", "SPF", "DKIM", "DMARC", "reports", "PTR")
_NAME = Column("domain", "domain")
_NOT_YET = Word("not looked up yet")


def page(site: Site, query: WebQuery) -> WebPage:
    """All domains of ours: the worst that is known of each kind of record."""
    start = query.number("from", 0, 0, 10**6)
    domains = site.domains[start : start + ROWS]
    reports = site.lookups.reports(domains, PATIENCE_SECONDS)
    rows = []
    for domain in domains:
        report = reports.get(domain)
        link = Link(domain, f"/domains/{domain}")
        rows.append((link, *(_worst(report, kind) for kind in _KINDS), None if report is None else _at(report)))
    further = address("/domains", **{"from": start + ROWS}) if len(site.domains) > start + ROWS else ""
    table = DataTable(
        "domains",
        "Records by domain",
        (
            Column("domain", "domain"),
            *(Column(kind.lower(), kind) for kind in _KINDS),
            Column("looked_up", "looked up"),
        ),
        rows,
        note="The worst of each kind. Records are looked up in the background and kept for five minutes.",
        empty="No domain is configured as ours: set web.domains.",
        further=further,
    )
    return WebPage("Domains", (*_waiting(len(domains) - len(reports)), table), "Our own domains.")


def one_domain(site: Site, query: WebQuery) -> WebPage:
    """One domain: every record, expected against found."""
    if query.item not in site.domains:
        raise NotFoundError(f"{query.item} is not a domain of ours")
    report = site.lookups.reports((query.item,), PATIENCE_SECONDS).get(query.item)
    title = f"Domain {query.item}"
    if report is None:
        return WebPage(title, tuple(_waiting(1)))
    rows = [
        (
            checked.what,
            Word(checked.state, _TONES[checked.state]),
            checked.name,
            checked.expected,
            Code(checked.found) if checked.found else None,
            checked.why,
        )
        for checked in report.checked
    ]
    columns = (
        Column("record", "record"),
        Column("state", "state"),
        Column("name", "name", wide=True),
        Column("expected", "expected"),
        Column("found", "found", wide=True),
        Column("why", "why"),
    )
    parts: list[Part] = [
        DataTable("records", "Records", columns, rows, note=f"As the resolver of {site.host} sees them.")
    ]
    terms = [(Code(term), whose, count) for checked in report.checked for whose, term, count in checked.terms]
    if terms:
        of_terms = (Column("term", "term"), Column("whose", "record of"), Column("counts", "counts as"))
        note = "In the order in which a receiver looks at them. Ten may ask the DNS (RFC 7208, 4.6.4)."
        parts.append(DataTable("spf", "Terms of SPF", of_terms, terms, note=note))
    missing = [checked for checked in report.checked if checked.publish]
    if missing:
        parts.append(Remark("To publish:", "\n".join(checked.publish for checked in missing), Tone.DOUBT))
    parts.append(Remark("Ask every server of the zone about the keys:", f"assay keys check {query.item}"))
    wrong = sum(checked.state is RecordState.BAD for checked in report.checked)
    verdict = (
        f"{wrong} of {len(rows)} records {'is' if wrong == 1 else 'are'} wrong." if wrong else "No record is wrong."
    )
    return WebPage(title, tuple(parts), verdict)


def _worst(report: DomainReport | None, kind: str) -> Word | None:
    if report is None:
        return _NOT_YET
    found = [checked.state for checked in report.checked if checked.what == kind]
    order = (RecordState.BAD, RecordState.DOUBT, RecordState.UNKNOWN, RecordState.GOOD)
    worst = next((state for state in order if state in found), None)
    return None if worst is None else Word(worst, _TONES[worst])


def _at(report: DomainReport) -> Moment:
    return Moment(int(report.at * 1000))


def _waiting(count: int) -> tuple[Part, ...]:
    if not count:
        return ()
    what = "The records" if count == 1 else f"The records of {count} domains"
    return (Remark(f"{what} are being looked up. Load this page again in a moment."),)
