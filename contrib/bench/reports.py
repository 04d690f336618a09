#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time and memory to make the aggregate reports of a day: planned, written, signed and given to an SMTP server.

::

    python contrib/bench/reports.py                        # 5 million rows, 10,000 domains, SQLite and PostgreSQL
    python contrib/bench/reports.py --rows 100000 --domains 200 --databases sqlite

Before that, with a quarter and a half of the rows and domains. Each row is a record of its own in a report, which is
the worst day there can be. The DNS answers at once, and the SMTP server keeps nothing.

::

    python contrib/bench/reports.py --message

What a message costs a worker with reports, as a ratio to that with the store alone: the median of the turns.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "milter"), str(ROOT / "tests")]

from aiosmtpd.smtp import SMTP, Envelope, Session
from msgspec.structs import replace
from sqlalchemy import text

from assay.config.correspondence import reports_signing
from assay.inquiry import solve
from assay.policy.addresses import Entries
from assay.reports.aggregate_dispatch import AggregateDispatch
from assay.reports.correspondence import Correspondence
from assay.reports.relay import Relay
from assay.resolver.driver import Solved
from assay.store import report_deliveries
from nameserver import NameServer
from postgresql import Postgresql
from receiving import Receiver
from report_world import LATER, NEXT_DAY, Reporting
from running import Daemon
from sending import ROWS, greet, send
from signing import pem, rsa_key
from store_rows import DAY
from zone import Zone

_PUBLISHED = """
INSERT INTO published (id, domain, record, method, first_seen, last_seen)
WITH RECURSIVE number(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < :domains - 1)
SELECT n, 'd' || n || '.example', 'v=DMARC1; p=reject; rua=mailto:d@d' || n || '.example', 'treewalk', 0, 0 FROM number
"""
_GROUPS = """
INSERT INTO report_groups (day, published, id, client, author_domain, null_sender, sender_domain, policy, disposition,
    dkim_aligned, spf_aligned, reasons, dkim, spf, count, report_mail)
WITH RECURSIVE domain(d) AS (SELECT 0 UNION ALL SELECT d + 1 FROM domain WHERE d < :domains - 1),
    source(s) AS (SELECT 0 UNION ALL SELECT s + 1 FROM source WHERE s < :each - 1)
SELECT :day, d, s, '192.0.' || s / 250 || '.' || s % 250, 'd' || d || '.example', false, 'd' || d || '.example',
    'reject', 'pass', true, true, '', '[["d' || d || '.example","s1","pass","",true]]',
    '["d' || d || '.example","pass",""]', 1, 0
FROM domain, source
"""


class Sink(Receiver):
    """Takes everything and keeps nothing."""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's
        return "250 2.0.0 Ok: queued"


class AtOnce:
    """A DNS that has no records, without a wait."""

    def start(self, inquiry: Any, *_: object) -> Any:
        """Run it to its end."""
        return Solved(solve(inquiry, Zone({}).answer))


def measure(folder: Path, database: str, rows: int, domains: int, results: Any) -> None:
    """One run, in a process of its own, whose memory is that of the run."""
    with NameServer({}) as nameserver:
        world = Reporting(folder, nameserver, Receiver(), database=database)
    began = time.monotonic()
    with world.database.writing() as connection:
        connection.execute(text(_PUBLISHED), {"domains": domains})
        connection.execute(text(_GROUPS), {"domains": domains, "each": rows // domains, "day": DAY})
    filled = time.monotonic() - began
    relay, ready = multiprocessing.Pipe()
    sink = multiprocessing.Process(target=_serve, args=(ready,), daemon=True)
    sink.start()
    port = relay.recv()
    configuration = world.configuration
    section = replace(configuration.reports, max_a_day=1_000_000)
    (folder / "store" / "reports").mkdir(exist_ok=True)
    correspondence = Correspondence(
        section,
        reports_signing(configuration),
        Entries(),
        folder / "store" / "reports",
        "",
        AtOnce,
        lambda: Relay("127.0.0.1", port, implicit_tls=False, tls=section.relay_tls, name="mx.receiver.example"),
    )
    lines: list[str] = []
    dispatch = AggregateDispatch(world.database, correspondence, lines.append)
    before = _memory()
    began, cpu = time.monotonic(), time.process_time()
    dispatch.plan(NEXT_DAY)
    planned, planned_cpu = time.monotonic() - began, time.process_time() - cpu
    while dispatch.send_due(LATER):
        pass
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    with world.database.reading() as connection:
        sent = sum(report_deliveries.taken_by_organization(connection, 0).values())
    assert (sent, lines) == (domains, []), (sent, lines)
    results.send(
        {
            "rows": rows, "domains": domains, "filled": filled, "planned": planned, "planned_cpu": planned_cpu,
            "seconds": seconds, "cpu": cpu, "before": before, "memory": _memory(),
        }
    )  # fmt: skip


def _serve(ready: Any) -> None:
    with Sink() as sink:
        ready.send(sink.port)
        ready.recv()


def _memory() -> int:
    """The most that this process had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def runs(kind: str, rows: int, domains: int) -> Iterable[dict[str, Any]]:
    """A quarter, a half and the whole, each in a database of its own."""
    server = Postgresql().__enter__() if kind == "postgresql" else None
    for share in (4, 2, 1):
        with tempfile.TemporaryDirectory() as folder:
            mine, its = multiprocessing.Pipe()
            database = server.create() if server is not None else "sqlite"
            arguments = (Path(folder), database, rows // share, domains // share, its)
            process = multiprocessing.Process(target=measure, args=arguments)
            process.start()
            its.close()
            yield mine.recv()
            process.join()
    if server is not None:
        server.__exit__(None, None, None)


def message_cost(turns: int = 9, messages: int = 1500) -> None:
    """Print the CPU time of a message with reports on, as a ratio to that without."""
    with contextlib.ExitStack() as stack:
        daemons = []
        for reports in ({}, {"organization": "Receiver Ltd", "contact": "dmarc@receiver.example"}):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            (folder / "store").mkdir()
            (folder / "key.pem").touch(0o600)
            (folder / "key.pem").write_bytes(pem(rsa_key()))
            signing = {"domain": "receiver.example", "selectors": ("s1",), "key_files": (str(folder / "key.pem"),)}
            daemon = Daemon(
                folder,
                ROWS,
                milter={"workers": 1},
                log={"level": "debug"},
                store={"directory": str(folder / "store")},
                sign={"domain": (signing,)},
                reports=reports,
            )
            daemons.append(stack.enter_context(daemon))
        ratios = []
        for _ in range(turns):
            without, with_reports = (_worker_seconds(daemon, messages) for daemon in daemons)
            ratios.append(with_reports / without)
        quartiles = statistics.quantiles(ratios, n=4)
        print(f"{statistics.median(ratios):.2f}, quartiles {quartiles[0]:.2f} and {quartiles[2]:.2f}")


def _worker_seconds(daemon: Daemon, messages: int) -> float:
    """CPU time of the worker for so many messages over one connection."""
    (worker,) = {int(pid) for pid in re.findall(r"worker (\d+) started", daemon.log())} & daemon.workers()

    def used() -> int:
        return sum(map(int, Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[11:13]))

    with daemon.mta() as mta:
        greet(mta)
        send(mta)
        before = used()
        for _ in range(messages):
            send(mta)
        return (used() - before) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--domains", type=int, default=10_000)
    parser.add_argument("--databases", default="sqlite,postgresql")
    parser.add_argument("--message", action="store_true")
    options = parser.parse_args()
    if options.message:
        message_cost()
        return
    print("| database | rows | reports | planning s | reports/s | rows/s | CPU, ratio to the row above | MiB |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for kind in options.databases.split(","):
        last = 0.0
        for run in runs(kind, options.rows, options.domains):
            ratio = f"{run['cpu'] / last:.2f}" if last else ""
            last = run["cpu"]
            print(
                f"| {kind} | {run['rows']:,} | {run['domains']:,} | {run['planned']:.1f} "
                f"| {run['domains'] / (run['seconds'] - run['planned']):.1f} | {run['rows'] / run['seconds']:,.0f} "
                f"| {ratio} | {run['memory'] / 1024:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
