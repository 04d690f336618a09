#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows a second that recorders write: one host into SQLite, one into PostgreSQL, and two at once into PostgreSQL.

::

    python contrib/bench/rows.py                   # about a minute
    python contrib/bench/rows.py --rows 200000

A row is what is kept of one message, with its findings and addresses (``tests/store_generator.py``). Each host is a
process that decodes its rows, as from a spool, and writes them in batches as large as the recorder's. The three take
turns, each time with an empty store; a figure is the median, with the least and the most. PostgreSQL has the same two
cores as its clients, and does not wait for the disk.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "milter"), str(ROOT / "tests")]

from assay.config.database import open_store
from assay.config.store import StoreSection
from assay.store.feeding import BATCH_ROWS
from assay.store.rows import decode, encode
from assay.store.writer import Writer
from postgresql import Postgresql
from store_generator import generated
from web.pages import opened, section_of

_FORK = multiprocessing.get_context("fork")


def host(number: int, section: StoreSection, count: int, starter: Connection) -> None:
    """Be a host: make rows, wait for the start, write them, and answer how many were new."""
    end = int(time.time() * 1000) + number  # each host has ids of its own
    spooled = [encode(row) for row in generated(count, days=1, end=end)]
    writer = Writer(open_store(section))
    starter.send(0)
    starter.recv()
    left = iter(spooled)
    written = 0
    while batch := [decode(octets) for octets in itertools.islice(left, BATCH_ROWS)]:
        written += writer.write(batch)
    starter.send(written)


def rows_a_second(server: Postgresql | None, hosts: int, count: int) -> float:
    """What so many hosts write together into an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        section = section_of(Path(folder), server)
        with opened(section):
            pass
        pipes = [_FORK.Pipe() for _ in range(hosts)]
        writing = [
            _FORK.Process(target=host, args=(number, section, count, theirs))
            for number, (_, theirs) in enumerate(pipes)
        ]
        for each in writing:
            each.start()
        ends = [ours for ours, _ in pipes]
        answers(ends)  # all are ready
        began = time.perf_counter()
        for each in ends:
            each.send(0)
        written = sum(answers(ends))
        seconds = time.perf_counter() - began
        for each in writing:
            each.join()
        assert written == hosts * count, f"{written} rows were written"
        return written / seconds


def answers(ends: Sequence[Connection]) -> list[int]:
    """The next answer of each host."""
    return [end.recv() for end in ends]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="of each host, in each turn")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    with Postgresql() as server:
        cases = {
            "SQLite, one host": (None, 1),
            "PostgreSQL, one host": (server, 1),
            "PostgreSQL, two hosts": (server, 2),
        }
        found: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(options.turns):
            for name, (where, hosts) in cases.items():
                found[name].append(rows_a_second(where, hosts, options.rows))
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    base = next(iter(medians.values()))
    print("| store | rows a second | ratio |")
    print("|---|--:|--:|")
    for name, rates in found.items():
        print(
            f"| {name} | {medians[name]:,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) | {medians[name] / base:.2f} |"
        )


if __name__ == "__main__":
    main()
