# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of the DNS, by what the workers of this host count."""

from __future__ import annotations

from collections.abc import Iterator

from assay.daemon.status import Period, status
from assay.metrics import Figures, read
from assay.store import overview
from assay.store.feeding import UnavailableError
from assay.store.overview import Sum
from assay.web.parts import Cell, Column, DataTable, Part, Remark, Tone, WebPage, Word
from assay.web.periods import last_days, link, today
from assay.web.site import Site, WebQuery

#: Outcomes of queries after which nothing is known.
_FAILURES = ("tempfail", "timeout", "unreachable", "other")
_WORRYING = 0.05  # of all queries of an hour, our choice
_MINUTE = "minute"
_SOURCES = {
    "local": "local zone",
    "cache": "cache",
    "shared": "a query of another message in flight",
    "asked": "asked",
    "refused": "not asked: too many at a time",
    "spent": "not asked: no time left",
}


def page(site: Site, _: WebQuery) -> WebPage:
    """The health of the DNS."""
    now = status(site.figures, site.history)
    figures = read(site.figures.all)
    return WebPage(
        "DNS",
        (
            *_worries(now.nameservers, now.hour),
            _servers(figures, now.nameservers),
            *_periods(now.minute, now.hour),
            _slow(now.slowest),
            _unanswered(site),
        ),
        f"What the processes of {site.host} have counted since the start of the daemon.",
    )


def _worries(servers: dict[str, int], hour: Period) -> Iterator[Part]:
    down = [server for server, workers in servers.items() if not workers]
    if down:
        yield Remark(f"No worker gets an answer from: {', '.join(down)}.", tone=Tone.BAD)
    queries = sum(hour.queries.values())
    failed = sum(hour.queries.get(word, 0) for word in _FAILURES)
    if queries and failed / queries > _WORRYING:
        yield Remark(
            f"{failed:,} of {queries:,} queries of the last {_minutes(hour.seconds)} had no usable answer. Their "
            "messages get temperror.",
            tone=Tone.DOUBT,
        )
    if not queries:
        yield Remark(f"No query in the last {_minutes(hour.seconds)}.")


def _servers(figures: Figures, up: dict[str, int]) -> DataTable:
    waits = {server: wait for (server,), wait in figures.waits("dns_query_seconds").items()}
    queries: dict[str, dict[str, int]] = {}
    for (server, _, outcome), count in figures.of("dns_queries").items():
        of = queries.setdefault(server, {})
        of[outcome] = of.get(outcome, 0) + count
    rows = []
    for server in sorted({*up, *queries}):
        counted = queries.get(server, {})
        failed = sum(counted.get(word, 0) for word in _FAILURES)
        wait = waits.get(server)
        rows.append(
            (
                server,
                Word("answers", Tone.GOOD) if up.get(server) else Word("silent", Tone.BAD),
                sum(counted.values()),
                failed,
                None if wait is None else round(wait.quantile(0.5) * 1000, 1),
                None if wait is None else round(wait.quantile(0.99) * 1000, 1),
            )
        )
    columns = (
        Column("nameserver", "nameserver"),
        Column("state", "state"),
        Column("queries", "queries", numeric=True),
        Column("failed", "without usable answer", numeric=True),
        Column("half_ms", "half within ms", numeric=True),
        Column("most_ms", "99 % within ms", numeric=True),
    )
    return DataTable("nameservers", "Nameservers", columns, rows, empty="No nameserver has been asked yet.")


def _periods(minute: Period, hour: Period) -> Iterator[Part]:
    words = sorted({*minute.queries, *hour.queries})
    longer = _minutes(hour.seconds)
    columns = (
        Column("minute", "last minute", numeric=True),
        # Of a young daemon it is the same minute: in CSV and JSON alone.
        Column("hour", "" if longer == _MINUTE else f"last {longer}", numeric=True),
    )
    yield DataTable(
        "queries",
        "Queries by outcome",
        (
            Column("outcome", "outcome"),
            *columns,
        ),
        [
            (
                Word(word, Tone.DOUBT) if word in _FAILURES else word,
                minute.queries.get(word, 0),
                hour.queries.get(word, 0),
            )
            for word in words
        ],
        empty="No query yet.",
    )
    yield DataTable(
        "questions",
        "Questions by where the answer came from",
        (
            Column("source", "source"),
            *columns,
        ),
        [
            (text, minute.questions.get(source, 0), hour.questions.get(source, 0))
            for source, text in _SOURCES.items()
            if source in minute.questions or source in hour.questions
        ],
        empty="No question yet.",
    )


def _slow(slowest: tuple[tuple[str, float, int], ...]) -> Part:
    columns = (
        Column("domain", "domain"),
        Column("milliseconds", "slowest ms", numeric=True),
        Column("queries", "queries", numeric=True),
    )
    rows = [(domain, round(seconds * 1000), count) for domain, seconds, count in slowest]
    return DataTable("slow", "Slow domains of the last minute", columns, rows, empty="No domain was slow.")


def _unanswered(site: Site) -> Part:
    """The results that the DNS had no answer for."""
    days, now = last_days(site), (today(site),)
    try:
        month = overview.sums(site.store.database, "result", days)
        day = {each.subject: each.count for each in overview.sums(site.store.database, "result", now) if _failed(each)}
    except UnavailableError:
        return Remark("The store cannot be read now, so the messages without an answer are not listed.")
    rows: list[tuple[Cell, ...]] = [
        (
            each.subject,
            link(day.get(each.subject, 0), now, finding=each.subject, result=each.word),
            link(each.count, days, finding=each.subject, result=each.word),
        )
        for each in month
        if _failed(each)
    ]
    columns = (
        Column("method", "method"),
        Column("today", "today", numeric=True),
        Column("days", "30 days", numeric=True),
    )
    note = "Of all hosts that share the store."
    return DataTable("temperror", "Messages with temperror", columns, rows, note=note, empty="None in 30 days.")


def _failed(each: Sum) -> bool:
    return each.word == "temperror"


def _minutes(seconds: float) -> str:
    if seconds >= 3500:
        return "hour"
    minutes = round(seconds / 60)
    return _MINUTE if minutes <= 1 else f"{minutes} min"
