#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time to make each page from a store of a million messages, and from one of ten million.

::

    python contrib/bench/page.py                                     # SQLite and PostgreSQL, 1,000,000 and 10,000,000
    python contrib/bench/page.py --rows 100000 --databases sqlite    # 100,000 and a million: a few minutes

The first store has the messages of ``tests/store_generator.py``, folded once as the recorder does, and reports of ten
days. The second has each message, each count and each report that came in so many times more, with ids of their own.
Each figure is the median of nine requests after a first, in this process, without a browser: of SQLite the CPU time,
which other work of the machine changes little, of PostgreSQL the time until the page is there. Each ratio is that of
the least. The stores take up to 2 GB and 20 GB in SQLite, and twice as much in PostgreSQL, below ``TMPDIR``; they are
removed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "milter"), str(ROOT / "tests")]

from sqlalchemy import text

from asking import Browser
from assay.config.store import StoreSection
from assay.store import schema
from assay.store.database import Database
from assay.store.folding import Folding
from postgresql import Postgresql
from store_generator import OURS, fill, generated
from web.judged import judged
from web.pages import opened, section_of, serving
from web.reports import fill_reports

TURNS = 9
DAYS = 30
#: The pages, and what each is called in the table. An item in braces is the first that the page before it lists.
PAGES: Mapping[str, str] = {
    "overview": "/overview",
    "newest messages": "/messages",
    "messages of a domain, author or sender": "/messages?q=example.org",
    "messages of an author domain": "/messages?author=example.org",
    "messages of a client": "/messages?client=192.0.2.77",
    "messages of an address": "/messages?q=ann%40example.org",
    "a queue id": "/messages?q=4c0000001",
    "a Message-ID": "/messages?q=%3C1.1%40example.org%3E",
    "messages of a day": "/messages?since={day}&until={day}",
    "one DMARC result of a domain, among 20,000 messages": "/messages?author=example.org&dmarc=temperror",
    "one result of a method, among 20,000 messages": "/messages?finding=spf.mailfrom&result=permerror",
    "an action that never occurs, among 20,000 messages": "/messages?action=discard",
    "messages in a report": "/messages?report={report}",
    "one message, explained": "{message}",
    "senders": "/senders",
    "senders of one domain": "/senders?domain=example.org",
    "reports sent": "/reports",
    "reports sent in one state": "/reports?state=sent",
    "one report that was sent": "/reports/{report}",
    "reports received": "/received",
    "reports received with a client": "/received?client=203.0.113.7",
    "reports received with an author domain": "/received?author=example.org",
    "one report that came in": "{received}",
    "dry run": "/dry-run",
    "DNS": "/dns",
    "domains": "/domains",
    "configuration": "/configuration",
}


def fill_store(database: Database, rows: int, end: int) -> None:
    """The first store."""
    began = time.monotonic()
    fill(database, generated(rows, days=DAYS, end=end))
    fill(database, [judged(end)])
    print_time(f"{rows:,} messages written", began)
    began = time.monotonic()
    Folding(database, OURS).fold(time.time())
    print_time("folded", began)
    fill_reports(database, end, OURS, ())
    analyze(database)


def multiply(database: Database, times: int) -> None:
    """Have everything that grows with mail so many times."""
    began = time.monotonic()
    last = times - 1
    numbers = f"(WITH RECURSIVE n(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n WHERE k < {last}) SELECT k FROM n) n"  # noqa: S608  # ours
    # Bytes in the middle: those of a message begin with its time and end with its number.
    if database.is_sqlite:
        changed = "CAST(substr({0}, 1, 7) || char(n.k) || '?#' || substr({0}, 11) AS BLOB)"
    else:
        changed = "overlay({0} placing set_byte('\\x003f23'::bytea, 0, n.k) from 8 for 3)"
    for table, identity, order in (
        (schema.messages, "id", "time"),
        (schema.findings, "message", "message"),
        (schema.addresses, "message", "message"),
        (schema.received_reports, "id", "received"),
        (schema.received_rows, "report", "report"),
    ):
        names = [f'"{column.name}"' for column in table.columns]
        values = [changed.format(f't."{identity}"') if name == f'"{identity}"' else f"t.{name}" for name in names]
        with database.writing() as connection:
            connection.execute(
                text(
                    f"INSERT INTO {table.name} ({', '.join(names)}) SELECT {', '.join(values)} "  # noqa: S608  # ours
                    f"FROM {table.name} t CROSS JOIN {numbers} ORDER BY t.{order}".replace("::", "\\:\\:")
                )
            )
        print_time(f"{table.name} multiplied", began)
    with database.writing() as connection:
        for table in (schema.counts, schema.report_groups):
            connection.execute(text(f'UPDATE {table.name} SET "count" = "count" * {times}'))  # noqa: S608  # ours
        for table, *names in ((schema.received_days, "good", "bad"), (schema.received_counts, "passed", "failed")):
            changes = ", ".join(f"{name} = {name} * {times}" for name in names)
            connection.execute(text(f"UPDATE {table.name} SET {changes}"))  # noqa: S608  # ours
    analyze(database)
    print_time("all of it", began)


def analyze(database: Database) -> None:
    """As autovacuum does in PostgreSQL. The recorder does nothing of the kind in SQLite."""
    if not database.is_sqlite:
        with database.writing() as connection:
            connection.execute(text("ANALYZE"))


def times_of(folder: Path, section: StoreSection, clock: Callable[[], float]) -> dict[str, list[float]]:
    """The milliseconds of each page, of each turn."""
    found = {}
    with serving(folder, section) as app:
        browser = Browser(app)
        browser.log_in()
        items = items_of(browser)
        for name, path in PAGES.items():
            asked = path.format(**items)
            taken = []
            for _ in range(TURNS + 1):
                began = clock()
                status = browser.get(asked).status
                taken.append((clock() - began) * 1000)
                assert status == 200, (asked, status)
            found[name] = taken[1:]
    return found


def items_of(browser: Browser) -> dict[str, str]:
    """What the addresses of single things need."""

    def first(path: str, pattern: str) -> str:
        listed = re.search(rf'href="({pattern})"', browser.get(path).text)
        assert listed is not None, path
        return html.unescape(listed[1])

    return {
        "day": str((datetime.now(UTC) - timedelta(days=3)).date()),
        "message": first("/messages?q=orders.example", "/messages/[0-9a-f]{32}"),
        "report": first("/reports?kind=aggregate&state=sent", '/reports/[^"]+').removeprefix("/reports/"),
        "received": first("/received?kind=aggregate", "/received/[0-9a-f]+"),
    }


def print_time(what: str, began: float) -> None:
    """Say how long something took."""
    print(f"  {what}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


@contextlib.contextmanager
def stores(kind: str, folder: Path) -> Iterator[tuple[StoreSection, Database]]:
    """An empty store."""
    with contextlib.nullcontext() if kind == "sqlite" else Postgresql() as server:
        section = section_of(folder, server)
        with opened(section) as database:
            yield section, database


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the first store")
    parser.add_argument("--times", type=int, default=10, help="how many times as much the second has; 2 to 100")
    parser.add_argument("--databases", default="sqlite,postgresql")
    options = parser.parse_args()
    end = (int(time.time()) // 600 - 1) * 600_000
    for kind in options.databases.split(","):
        print(f"{kind}:", file=sys.stderr, flush=True)
        clock = time.process_time if kind == "sqlite" else time.perf_counter
        with tempfile.TemporaryDirectory() as name, stores(kind, Path(name)) as (section, database):
            fill_store(database, options.rows, end)
            few = times_of(Path(name), section, clock)
            multiply(database, options.times)
            many = times_of(Path(name), section, clock)
        print(f"\n| {kind}: page | {options.rows:,} messages | {options.rows * options.times:,} messages | ratio |")
        print("|---|---:|---:|---:|")
        for page, taken in few.items():
            medians = (f"{statistics.median(each):.0f}" for each in (taken, many[page]))
            print(f"| {page} | {' | '.join(medians)} | {min(many[page]) / min(taken):.1f} |", flush=True)


if __name__ == "__main__":
    main()
