# SPDX-License-Identifier: GPL-3.0-or-later
"""What a query costs over UDP, over TLS and over HTTPS: CPU time of ours, and latency.

    python contrib/bench/transports.py

It asks the unbound that ``contrib/fetch.sh`` has unpacked, on the loopback, for answers that it has in memory.
The three take turns; each figure is the median of seven turns, with the least and the most.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / "milter"), str(TOP / "tests")]

from assay.inquiry import Question, RecordType
from assay.resolver import Nameserver, configured, contexts, wire
from assay.resolver.statistics import Statistics
from assay.resolver.transports import Transports
from certificates import CertificateAuthority
from nameserver import NameServer
from unbound import Unbound

NAMES = [f"n{number}.example.org" for number in range(200)]
ROWS = {name: [["TXT", ["v=spf1 ip4:192.0.2.0/24 include:_spf.example.org -all"]]] for name in NAMES}
TURNS = 7
QUERIES = 2_000  # a turn
AT_A_TIME = (1, 20)


class Asker:
    """Asks one nameserver in a loop of its own."""

    def __init__(self, server: Nameserver, ca_file: Path) -> None:
        self.server = server
        self.loop = asyncio.new_event_loop()
        self.transports = Transports(self.loop, Statistics(), False, contexts([server], str(ca_file)), False)
        self.sections = [section for name in NAMES if (section := wire.section(Question(name, RecordType.TXT)))]

    def run(self, count: int, at_a_time: int) -> list[float]:
        """Ask so many questions; the seconds that each took."""
        waits: list[float] = []
        asked = 0

        def ask() -> None:
            nonlocal asked
            if asked < count:
                asked += 1
                section = self.sections[asked % len(self.sections)]
                self.transports.ask(self.server, section, 9.0, done(time.perf_counter()))

        def done(began: float) -> Callable[[object], None]:
            def end(outcome: object) -> None:
                assert isinstance(outcome, bytes), outcome
                waits.append(time.perf_counter() - began)
                if len(waits) == count:
                    self.loop.stop()
                ask()

            return end

        for _ in range(at_a_time):
            ask()
        self.loop.run_forever()
        return waits

    def close(self) -> None:
        self.transports.close()
        self.loop.close()


def spread(values: list[float]) -> str:
    return f"{median(values) * 1e6:.0f} ({min(values) * 1e6:.0f} to {max(values) * 1e6:.0f})"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        authority = CertificateAuthority(Path(folder))
        with NameServer(ROWS) as zone, Unbound(Path(folder), zone, authority.issue(["a.example"])) as unbound:
            texts = {
                "UDP": f"127.0.0.1:{unbound.plain}",
                "TLS": f"tls://127.0.0.1:{unbound.tls}#a.example",
                "HTTPS": f"https://127.0.0.1:{unbound.https}/dns-query#a.example",
            }
            figures: dict[tuple[str, int], list[tuple[float, float]]] = {}
            for _ in range(TURNS):
                for way, text in texts.items():
                    asker = Asker(configured([text])[0], authority.certificate)
                    asker.run(len(NAMES), 1)
                    for at_a_time in AT_A_TIME:
                        began = time.process_time()
                        waits = asker.run(QUERIES, at_a_time)
                        cpu = (time.process_time() - began) / QUERIES
                        figures.setdefault((way, at_a_time), []).append((cpu, median(waits)))
                    asker.close()
    print("| transport | queries at a time | us of CPU a query | us until the answer |\n|---|---:|---:|---:|")
    for (way, at_a_time), turns in figures.items():
        cpu, wait = (list(column) for column in zip(*turns, strict=True))
        print(f"| {way} | {at_a_time} | {spread(cpu)} | {spread(wait)} |")


if __name__ == "__main__":
    main()
