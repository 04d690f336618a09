#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the store adds to the CPU time of a message, as a ratio to the same without a store.

::

    python contrib/bench/store.py                          # some minutes, with SQLite
    python contrib/bench/store.py --turns 11 --only signed

Two daemons with one worker each take turns: one has a store. Every answer of the DNS is cached, but for the messages of
the last case, each of which has a domain and a client of its own. The ratio of the workers is the median of the turns,
with the quartiles. That of all processes adds the recorder's time, from the first turn until the last row is in the
database.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "milter"), str(ROOT / "tests")]

from assay.cli.mta import Mta
from running import Daemon
from sending import greet, send
from signing import SELECTOR, ed25519_key, record, rsa_key, sign_ed25519, sign_rsa
from zone import Rows

SENDERS = 50
USUAL_OCTETS = 40_000
_PATIENCE = 60.0


class Sent(NamedTuple):
    """What a domain sends."""

    address: str  #: of its client
    domain: str
    octets: bytes  #: of the message


def zone(senders: Iterable[int] = range(SENDERS)) -> Rows:
    """What the senders publish, and the providers that sign for them."""
    rows: dict[str, list[list[object]]] = {}
    for number in senders:
        domain, address = _sender(number)
        rows |= {
            domain: [["TXT", [f"v=spf1 ip4:{address} -all"]]],
            f"_dmarc.{domain}": [["TXT", [f"v=DMARC1; p=reject; rua=mailto:dmarc@{domain}"]]],
            f"{SELECTOR}._domainkey.{domain}": [["TXT", [record(rsa_key())]]],
            f"{SELECTOR}._domainkey.{_provider(number)}": [["TXT", [record(ed25519_key())]]],
            f"mail.{domain}": [["A", address], ["TXT", ["v=spf1 a -all"]]],
            ip_address(address).reverse_pointer: [["PTR", f"mail.{domain}"]],
        }
    return rows


def _sender(number: int) -> tuple[str, str]:
    return f"sender{number}.example", str(ip_address("198.18.0.1") + number)


def _provider(number: int) -> str:
    return f"provider{number}.example"


def _message(number: int, domain: str, octets: int) -> bytes:
    """A message with a Message-ID of its own, and a body of some octets in lines."""
    line = b"A line of a letter that is about as long as the lines in letters tend to be.\r\n"
    header = (
        f"From: Sales <sales@{domain}>\r\nTo: <ann@example.net>\r\nSubject: Your order {number}\r\n"
        f"Date: Thu, 26 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{hash((number, octets)):016x}@{domain}>\r\n"
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    ).encode()
    return header + (line * (octets // len(line) + 1))[: max(octets, len(line)) - 2] + b"\r\n"


def short(numbers: Iterable[int]) -> Iterator[Sent]:
    """Messages of all senders in turn, not signed."""
    for number in numbers:
        domain, address = _sender(number % SENDERS)
        yield Sent(address, domain, _message(number, domain, 0))


def signed(numbers: Iterable[int]) -> Iterator[Sent]:
    """The same, with 4 KiB that are signed."""
    for number in numbers:
        domain, address = _sender(number % SENDERS)
        yield Sent(address, domain, sign_rsa(_message(number, domain, 4096), domain=domain))


def usual(numbers: Iterable[int]) -> Iterator[Sent]:
    """Each of a domain of its own, signed by it and by its provider."""
    for number in numbers:
        domain, address = _sender(number)
        message = sign_rsa(_message(number, domain, USUAL_OCTETS), domain=domain)
        yield Sent(address, domain, sign_ed25519(message, domain=_provider(number)))


def over_one_connection(daemon: Daemon, some: Sequence[Sent]) -> None:
    """Send messages as one client, whose domain each of them is said to be from."""
    with daemon.mta() as mta:
        _greet(mta, some[0])
        for number, sent in enumerate(some):
            _send(mta, sent, number)


def over_one_each(daemon: Daemon, some: Sequence[Sent]) -> None:
    """Send each message over a connection of its own, as its domain does."""
    for number, sent in enumerate(some):
        with daemon.mta() as mta:
            _greet(mta, sent)
            _send(mta, sent, number)


def _greet(mta: Mta, sent: Sent) -> None:
    greet(mta, sent.address, f"mail.{sent.domain}")


def _send(mta: Mta, sent: Sent, number: int) -> None:
    send(mta, sent.octets, path=f"sales@{sent.domain}", queue=f"4{number:08X}")


class Case(NamedTuple):
    """What is measured."""

    words: str
    messages: Callable[[Iterable[int]], Iterator[Sent]]
    act: Callable[[Daemon, Sequence[Sent]], None]
    known: bool = True  #: whether the messages of each turn are the same, so that all answers are cached


_CASES = {
    "short": Case("a few lines, not signed; all over one connection", short, over_one_connection),
    "signed": Case("4 KiB with one RSA-2048 signature; all over one connection", signed, over_one_connection),
    "each": Case("the same, each over a connection of its own", signed, over_one_each),
    "usual": Case(
        "40 KiB with an RSA-2048 and an Ed25519 signature, each over a connection of its own, nothing cached",
        usual,
        over_one_each,
        known=False,
    ),
}


class Measured:
    """A daemon, and what it has used."""

    def __init__(self, stack: contextlib.ExitStack, *, store: bool) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._store = folder / "store"
        self._store.mkdir()
        sections = {"store": {"directory": str(self._store)}} if store else {}
        daemon = Daemon(folder, zone(), milter={"workers": 1}, log={"level": "debug"}, **sections)
        self.daemon = stack.enter_context(daemon)
        (self._worker,) = {int(pid) for pid in re.findall(r"worker (\d+) started", daemon.log())} & daemon.workers()
        core = min(os.sched_getaffinity(0))  # the same for both, whatever else runs on it
        for thread in Path(f"/proc/{self._worker}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})

    def worker_seconds(self) -> float:
        """CPU time of the worker."""
        return _seconds(self._worker)

    def other_seconds(self) -> float:
        """CPU time of all other processes."""
        return sum(map(_seconds, {self.daemon.pid, *self.daemon.workers()} - {self._worker}))

    def wait_for_rows(self, count: int) -> None:
        """Wait until so many rows are in the database."""
        deadline = time.monotonic() + _PATIENCE
        while self._written() < count:
            assert time.monotonic() < deadline, "rows are missing"
            time.sleep(0.2)

    def _written(self) -> int:
        try:
            with contextlib.closing(
                sqlite3.connect(f"file:{self._store}/store.sqlite?mode=ro", uri=True)
            ) as connection:
                (count,) = connection.execute("SELECT sum(count) FROM counts WHERE kind = 'host'").fetchone()
        except sqlite3.OperationalError:  # the recorder has not made the file or its tables yet
            return 0
        return count or 0


def _seconds(pid: int) -> float:
    """CPU time of a process, of threads that have ended too: its clock as clock_getcpuclockid(3) names it."""
    return time.clock_gettime(~pid << 3 | 2)


def measure(case: Case, turns: int, count: int) -> str:
    """The row of the table."""
    warm_up = 2 * SENDERS
    first = tuple(case.messages(range(warm_up)))
    some = tuple(case.messages(range(count))) if case.known else ()
    seconds: dict[Measured, list[float]] = {}
    asked: list[int] = []
    with contextlib.ExitStack() as stack:
        without, with_store = (Measured(stack, store=store) for store in (False, True))
        for each in (without, with_store):
            each.daemon.nameserver.serve(zone(range(warm_up)))
            case.act(each.daemon, first)  # the answers, and the memory of evaluations
            seconds[each] = []
        with_store.wait_for_rows(len(first))
        others = [each.other_seconds() for each in (without, with_store)]
        for turn in range(turns):
            if not case.known:
                numbers = range(warm_up + turn * count, warm_up + (turn + 1) * count)
                some = tuple(case.messages(numbers))
                for each in (without, with_store):
                    each.daemon.nameserver.serve(zone(numbers))
            for each in (without, with_store)[:: 1 if turn % 2 else -1]:
                before, queries = each.worker_seconds(), each.daemon.nameserver.count()
                case.act(each.daemon, some)
                seconds[each].append(each.worker_seconds() - before)
                asked.append(each.daemon.nameserver.count() - queries)
        with_store.wait_for_rows(len(first) + turns * count)
        others = [each.other_seconds() - before for each, before in zip((without, with_store), others, strict=True)]
    print(f"queries a message: {min(asked) / count:.1f} to {max(asked) / count:.1f}", file=sys.stderr)
    ratios = [mine / alone for mine, alone in zip(seconds[with_store], seconds[without], strict=True)]
    alone = statistics.median(seconds[without])
    low, middle, high = statistics.quantiles(ratios, n=4)
    recorder = (others[1] - others[0]) / turns / alone
    return (
        f"| {case.words}: {alone / count * 1000:.2f} ms without a store | {middle:.3f} ({low:.3f} to {high:.3f}) "
        f"| {middle + recorder:.3f} |"
    )


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=61)
    parser.add_argument("--messages", type=int, default=400)
    parser.add_argument("--only", default=",".join(_CASES))
    options = parser.parse_args()
    print("| message | worker | all processes |")
    print("|---|--:|--:|")
    for case in options.only.split(","):
        print(measure(_CASES[case], options.turns, options.messages), flush=True)


if __name__ == "__main__":
    main()
