# SPDX-License-Identifier: GPL-3.0-or-later
"""Search: single messages by what is known of them, newest first."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from assay.model.smtp import parse_address
from assay.store import search
from assay.store.search import Criteria, Cursor, FoundMessages
from assay.web.parts import Cell, Choice, Column, DataTable, Link, Moment, Part, Remark, SearchForm, Tone, WebPage
from assay.web.periods import domain_of, word
from assay.web.site import Site, WebQuery, address

ROWS = 50
_NAMES = (
    "q", "since", "until", "author", "client", "host", "direction", "action", "by", "dmarc", "finding", "result",
    "watched", "disposition",
)  # fmt: skip
_ACTIONS = ("", "accept", "tag", "quarantine", "tempfail", "discard", "reject")
_RESULTS = ("", "pass", "fail", "none", "temperror", "permerror")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d)(?::\d\d)?)?Z?")


class TimeError(ValueError):
    """A text that is not a time."""


def page(site: Site, query: WebQuery) -> WebPage:
    """Search."""
    parts: list[Part] = [_form(query)]
    try:
        criteria = _criteria(query)
    except TimeError as error:
        parts.append(Remark(f"{error} is not a time; write 2026-11-26 or 2026-11-26 14:30 (UTC).", tone=Tone.BAD))
        return WebPage("Messages", tuple(parts))
    if criteria.address and not site.configuration.store.addresses:
        text = "Addresses are not kept (store.addresses), so only their domains can be searched for."
        parts.append(Remark(text, tone=Tone.DOUBT))
    found = search.find(site.store.database, criteria, after=Cursor.parse(query.text("after")), most=ROWS)
    if found.looked_at:
        parts.append(Remark(f"{found.looked_at:,} messages were looked at; the next rows are among older ones."))
    parts.append(_table(query, found))
    return WebPage("Messages", tuple(parts))


def _criteria(query: WebQuery) -> Criteria:
    """:raises TimeError: a time is none."""
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
    until = query.text("until")
    return Criteria(
        since=_moment(query.text("since"), end=False),
        until=_moment(until, end=True),
        queue=queue,
        message_id=message_id,
        address=person,
        domain=domain,
        author_domain=domain_of(query.text("author")),
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
    hint = "queue id, <message id>, address, domain or client"
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
