# SPDX-License-Identifier: GPL-3.0-or-later
"""Search: single messages by what is known of them, newest first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from assay.model.smtp import parse_address
from assay.store import outbox, reporting, search
from assay.store.outbox import ReportKind
from assay.store.search import Criteria, Cursor, FoundMessages
from assay.web.parts import Cell, Choice, Column, DataTable, Link, Moment, Part, Remark, SearchForm, Tone, WebPage
from assay.web.periods import DAY_MILLISECONDS, domain_of, word
from assay.web.site import NotFoundError, Site, WebQuery, address, rows_of

ROWS = 50
_NAMES = (
    "q", "since", "until", "author", "client", "host", "direction", "action", "by", "dmarc", "finding", "result",
    "watched", "would", "disposition", "ours", "reported", "report", "group", "rows",
)  # fmt: skip
_ACTIONS = ("", "accept", "tag", "quarantine", "tempfail", "discard", "reject")
_RESULTS = ("", "pass", "fail", "none", "temperror", "permerror")
_GROUP = re.compile(r"-?[0-9]{1,19}")
#: Criteria without a field in the form, and how they are worded.
_UNSEEN = {
    "host": "host {0}", "direction": "direction {0}", "disposition": "disposition {0}",
    "would": "dry run would {0}", "ours": "an author domain of ours", "reported": "in an aggregate report ({0})",
    "report": "in report {0}", "group": "in one record of it",
}  # fmt: skip
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d)(?::\d\d)?)?Z?")


class TimeError(ValueError):
    """A text that is not a time."""


def page(site: Site, query: WebQuery) -> WebPage:
    """Search."""
    parts: list[Part] = [_form(query)]
    try:
        criteria = _criteria(site, query)
    except TimeError as error:
        parts.append(Remark(f"{error} is not a time; write 2026-11-26 or 2026-11-26 14:30 (UTC).", tone=Tone.BAD))
        return WebPage("Messages", tuple(parts))
    if criteria.address and not site.configuration.store.addresses:
        text = "Addresses are not kept (store.addresses), so only their domains can be searched for."
        parts.append(Remark(text, tone=Tone.DOUBT))
    parts += _unseen(query)
    found = _find(site, query, criteria)
    if not found.messages and found.further is None and site.configuration.store.addresses:
        name = criteria.queue or (criteria.domain and query.text("q"))
        if name:  # of a user; it need not have an @
            found = _find(site, query, replace(criteria, queue="", domain="", address=name))
    if found.looked_at:
        parts.append(Remark(f"{found.looked_at:,} messages were looked at; the next rows are among older ones."))
    parts.append(_table(query, found))
    return WebPage("Messages", tuple(parts))


def _find(site: Site, query: WebQuery, criteria: Criteria) -> FoundMessages:
    after, most = Cursor.parse(query.text("after")), rows_of(query, ROWS)
    return search.find(site.store.database, criteria, after=after, most=most)


def _unseen(query: WebQuery) -> Iterator[Part]:
    """What else is asked for, by a link, without a field in the form."""
    asked = [title.format(query.text(name)) for name, title in _UNSEEN.items() if query.text(name)]
    if asked:
        yield Remark(f"Only with: {', '.join(asked)}.")


def _criteria(site: Site, query: WebQuery) -> Criteria:
    """
    :raises TimeError: a time is none.
    :raises NotFoundError: the report is not there.
    """
    asked = query.text("q")
    queue = message_id = domain = client = person = ""
    if parse_address(asked) is not None:
        client = str(parse_address(asked))
    elif asked.startswith("<") and asked.endswith(">"):
        message_id = asked
    elif "@" in asked:
        person = asked
    elif "." in asked:
        domain = domain_of(asked)
    else:
        queue = asked
    since, until = _moment(query.text("since"), end=False), _moment(query.text("until"), end=True)
    published: tuple[int, ...] = ()
    author = domain_of(query.text("author"))
    if query.text("report"):
        with site.store.database.reading() as connection:
            report = outbox.report(connection, query.text("report"))
            if report is None or report.kind is not ReportKind.AGGREGATE or not report.published:
                raise NotFoundError("there is no such aggregate report")
            author = author or reporting.author_domain(connection, report)
        published = report.published
        since = max(since, report.day * DAY_MILLISECONDS)
        until = min(until or since + DAY_MILLISECONDS, (report.day + 1) * DAY_MILLISECONDS)
    group = query.text("group")
    return Criteria(
        since=since,
        until=until,
        queue=queue,
        message_id=message_id,
        address=person,
        domain=domain,
        author_domain=author,
        client=query.text("client") or client,
        host=query.text("host"),
        direction=query.text("direction"),
        action=query.text("action"),
        by=query.text("by"),
        dmarc=query.text("dmarc"),
        disposition=query.text("disposition"),
        finding=query.text("finding"),
        result=query.text("result"),
        watched=query.text("watched"),
        would=query.text("would"),
        author_domains=site.domains if query.text("ours") else (),
        reported=query.text("reported"),
        published=published,
        group=int(group) if _GROUP.fullmatch(group) and abs(int(group)) < 1 << 63 else None,
    )


def _moment(text: str, *, end: bool) -> int:
    """A time in Unix milliseconds; of a day alone its beginning or its end. 0 for no time."""
    if not text:
        return 0
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        moment = datetime.fromisoformat(f"{match[1]}T{match[2] or '00:00'}").replace(tzinfo=UTC)
        if end:
            moment += timedelta(minutes=1) if match[2] else timedelta(days=1)
    except (ValueError, OverflowError):  # the second: after the year 9999
        raise TimeError(text) from None
    return max(1, int(moment.timestamp() * 1000))  # no message is older than 1970


def _form(query: WebQuery) -> SearchForm:
    hint = "queue id, <message id>, address, login name, domain or client"
    return SearchForm(
        "/messages",
        "Search messages",
        (
            Choice("q", "What", query.text("q"), hint),
            Choice("since", "From (UTC)", query.text("since"), "2026-11-26 14:30"),
            Choice("until", "Until (UTC)", query.text("until"), "2026-11-26"),
            Choice("author", "Author domain", query.text("author"), "example.org"),
            Choice("client", "Client", query.text("client"), "192.0.2.1"),
            Choice("action", "Action", query.text("action"), options=_ACTIONS),
            Choice("dmarc", "DMARC", query.text("dmarc"), options=_RESULTS),
            Choice("by", "Decided by", query.text("by"), "dmarc.reject"),
            Choice("finding", "Method", query.text("finding"), "spf.mailfrom"),
            Choice("result", "Its result", query.text("result"), "softfail"),
            Choice("watched", "Dry run of", query.text("watched"), "iprev.fail"),
        ),
        "Search",
    )


def _table(query: WebQuery, found: FoundMessages) -> DataTable:
    rows: list[tuple[Cell, ...]] = [
        (
            Moment(each.time),
            Link(each.queue or "no queue id", f"/messages/{each.id.hex()}"),
            word(each.action),
            each.by,
            word(each.dmarc) if each.dmarc else None,
            each.author or each.author_domain or each.sender or each.sender_domain,
            each.client,
            each.subject,
        )
        for each in found.messages
    ]
    columns = (
        Column("time", "time (UTC)"),
        Column("queue", "queue id"),
        Column("action", "action"),
        Column("by", "decided by"),
        Column("dmarc", "DMARC"),
        Column("author", "author"),
        Column("client", "client"),
        Column("subject", "subject", wide=True),
    )
    further = ""
    if found.further is not None:
        further = address("/messages", **{name: query.text(name) for name in _NAMES}, after=str(found.further))
    return DataTable("messages", "Newest first", columns, rows, empty="No message.", further=further)
