# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables, ratios and plots of one run, for the terminal and for docs/performance.md."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plot
import tables
from tables import number, table

Row = dict[str, Any]
_ASSAY, _RSPAMD = "assay", "rspamd"
_PAIR = "pair: OpenDKIM, OpenDMARC with its own SPF"
_CHAIN = "chain: pyspf-milter, OpenDKIM, OpenDMARC"
_FLAT = 0.15  # of the whole: what figures of this machine vary by
_HASH = "pymilter that takes SHA-256 of the body"


def text(report: Row) -> str:
    """Everything in Markdown."""
    return tables.text(_tables(report))


def write(report: Row, docs: Path) -> None:
    """Put tables between their markers in performance.md, and the plots beside it."""
    tables.fill(docs / "performance.md", _tables(report))
    folder = docs / "performance"
    folder.mkdir(exist_ok=True)
    for name, picture in _plots(report["rows"]).items():
        (folder / f"{name}.svg").write_text(picture)


def _tables(report: Row) -> dict[str, str]:
    rows = report["rows"]
    return {
        "machine": tables.about(report),
        "goals": _goals(rows),
        "warm": _warm(rows),
        "stages": _stages(rows),
        "sessions": table(
            ("socket", "connections", "CPU ms", "messages/s", "p50 ms", "p99 ms"),
            [
                [
                    row["target"],
                    row["connections"],
                    number(row["cpu_ms"]),
                    number(row["rate"]),
                    number(row["p50_ms"]),
                    number(row["p99_ms"]),
                ]
                for row in _of(rows, "sessions")
            ],
        ),
        "cold": table(
            ("", "DNS answers after", "SMTP client's turns take", "it waits, p50 ms", "p90 ms", "questions"),
            [
                [row["target"], f"{row['delay_ms']:g} ms", f"{row['turn_ms']:g} ms"]
                + [number(row.get(key)) for key in ("p50_ms", "p90_ms", "questions")]
                for row in _of(rows, "cold")
            ],
        ),
        "large": table(
            ("", "CPU ms", "p50 ms", "RSS of a worker, MiB"),
            [
                [row["target"], *(number(row.get(key)) for key in ("cpu_ms", "p50_ms")), _memory(row)]
                for row in _of(rows, "large")
            ],
        ),
        "sign": _signing(rows),
        "judge": table(("", "CPU ms"), [[row["target"], number(row["cpu_ms"])] for row in _of(rows, "judge")]),
        "memory": table(
            ("body, octets", "connections", "RSS of a worker, MiB", "most ever", "all processes, shared pages once"),
            [
                [
                    f"{row['body']:,}",
                    row["connections"],
                    number(row["worker"]),
                    number(row["peak"]),
                    number(row["proportional"]),
                ]
                for row in _of(rows, "memory")
            ],
        ),
        "growth": table(
            ("", "amount", "CPU ms"),
            [[row["what"], row["amount"], number(row["cpu_ms"])] for row in _of(rows, "growth")],
        ),
        "cache": table(
            ("dns.cache_entries", "domains", "questions a message, empty cache", "hit rate", "RSS empty, MiB", "full"),
            [
                [
                    f"{row['entries']:,}",
                    f"{row['domains']:,}",
                    number(row["questions"]),
                    f"{row['hit_rate']:.0%}",
                    number(row["empty_mib"]),
                    number(row["full_mib"]),
                ]
                for row in _of(rows, "cache")
            ],
        ),
    }


def _signing(rows: list[Row]) -> str:
    """CPU of each signer by size, and of OpenDKIM's and rspamd's with the same keys; OpenDKIM takes no two."""
    found = {(row["body"], row["target"]): row.get("cpu_ms") for row in _of(rows, "sign")}
    lines = []
    for row in _of(rows, "sign"):
        keys = row["target"].partition(", ")[2]
        own = row.get("cpu_ms")
        peers = [found.get((row["body"], f"{peer}, {keys}")) for peer in ("OpenDKIM", "rspamd")]
        ratios = [number(own / peer if own and peer else None) for peer in peers]
        lines.append([f"{row['body']:,}", row["target"], number(own), number(row.get("p50_ms")), *ratios])
    return table(("body, octets", "", "CPU ms", "p50 ms", "CPU, of OpenDKIM's", "of rspamd's"), lines)


def _warm(rows: list[Row]) -> str:
    lines = []
    for target in dict.fromkeys(row["target"] for row in _of(rows, "warm")):
        by = {row["connections"]: row for row in _of(rows, "warm") if row["target"] == target}
        failed = next((row["failed"] for row in by.values() if "failed" in row), "")
        one = by.get(1, {})
        lines.append(
            [
                target,
                *(number(by.get(n, {}).get("cpu_ms")) for n in (1, 10, 100)),
                *(number(by.get(n, {}).get("rate")) for n in (1, 10, 100)),
                number(one.get("p50_ms")),
                number(one.get("p99_ms")),
                *(number(by.get(n, {}).get(key)) for n in (10, 100) for key in ("p50_ms", "p99_ms")),
                _memory(one),
                number(one.get("generator_cpu_ms")) + (f" ({failed})" if failed else ""),
            ]
        )
    head = (
        "",
        "CPU ms, 1 conn.",
        "10",
        "100",
        "messages/s, 1 conn.",
        "10",
        "100",
        "p50 ms, 1 conn.",
        "p99",
        "p50, 10",
        "p99",
        "p50, 100",
        "p99",
        "RSS MiB",
        "generator's CPU ms",
    )
    return table(head, lines)


#: What happens in each event of a message.
_EVENTS = {
    "connect": "start a session; IPREV",
    "HELO": "SPF of the HELO identity",
    "MAIL, RCPT": "SPF of MAIL FROM",
    "DKIM-Signature": "parse it, look up its key",
    "From": "parse it, discover the DMARC record",
    "other fields": "keep them",
    "end of header": "choose the signatures to verify",
    "body": "canonicalize and hash 4 KiB",
    "end of message": "verify (RSA), DMARC, policy, three fields, edits, log line",
    "close": "end the session",
}


def _stages(rows: list[Row]) -> str:
    found = {row["event"]: row["microseconds"] for row in _of(rows, "stages")}
    whole = sum(found.values())
    return table(
        ("event", "what happens in it", "us", "of the whole"),
        [
            [event, what, number(found[event]), f"{found[event] / whole:.0%}"]
            for event, what in _EVENTS.items()
            if event in found
        ]
        + ([["**all**", "", number(whole), ""]] if found else []),
    )


#: The most of rspamd's CPU that a message may take, by the number of connections.
_CPU_OF_RSPAMD = {1: 0.9, 10: 0.9, 100: 1.0}
_P99_OF_P50 = 2.0


def _goals(rows: list[Row]) -> str:
    """Each goal's ratio, as far as this run has its figures."""
    found: list[list[object]] = []

    def enter(goal: str, ratios: Sequence[float], wanted: float, *, least: bool = False) -> None:
        if not ratios:
            return
        value = statistics.median(ratios)
        met = value >= wanted if least else value <= wanted
        low, high = _quartiles(ratios)
        spread = f"{low:.3f} to {high:.3f}" if len(ratios) > 1 else ""
        wish = f"{'at least' if least else 'at most'} {wanted:g}"
        found.append([goal, f"{value:.3f}", spread, wish, "yes" if met else "**no**"])

    def ratio(goal: str, ours: float | None, theirs: float | None, wanted: float) -> None:
        if ours is not None and theirs:
            enter(goal, [ours / theirs], wanted)

    for connections in (1, 10, 100):
        for name, target, wanted in (
            ("rspamd", _RSPAMD, _CPU_OF_RSPAMD[connections]),
            ("the pair", _PAIR, 0.5),
            ("the usual chain", _CHAIN, 0.2),
        ):
            ratios = _by_turn(rows, "cpu_ms", connections, target)
            enter(f"1. CPU, {connections} connections, of {name}'s", ratios, wanted)
    for connections in (10, 100):
        for name, target, wanted in (
            ("rspamd", _RSPAMD, 1.0),
            ("the pair", _PAIR, 2.5),
            ("the usual chain", _CHAIN, 7.0),
        ):
            ratios = _by_turn(rows, "rate", connections, target)
            enter(f"2. Throughput, {connections} connections, of {name}'s", ratios, wanted, least=True)
    waits = [turn["p99_ms"] / turn["p50_ms"] for turn in _turns(rows, _ASSAY, 100)]
    enter("2. p99 of the latency, 100 connections, of its p50", waits, _P99_OF_P50)
    for delay, turn in itertools.product((20.0, 50.0), (0.0, 20.0)):
        where = {"delay_ms": delay, "turn_ms": turn}
        what = f"3. Latency, DNS after {delay:g} ms, SMTP client after {turn:g} ms"
        ours = _value(rows, "cold", _ASSAY, "p50_ms", **where)
        ratio(f"{what}, of the usual chain's", ours, _value(rows, "cold", _CHAIN, "p50_ms", **where), 0.25)
        ratio(f"{what}, of rspamd's", ours, _value(rows, "cold", _RSPAMD, "p50_ms", **where), 0.5)
        if not turn:
            ratio(f"{what}, of the longest path ({delay * 2:g} ms)", ours, delay * 2, 1.15)
    ratio(
        "4. CPU at 5 MiB, of a pymilter that hashes",
        _value(rows, "large", _ASSAY, "cpu_ms"),
        _value(rows, "large", _HASH, "cpu_ms"),
        1.3,
    )
    memory = _of(rows, "memory")
    if memory:
        ratio("4. Memory of a worker, largest body, of the smallest's", memory[-1]["worker"], memory[0]["worker"], 1.1)
    for connections in (1, 10):
        ratio(
            f"5. CPU over inet, of a unix socket's, {connections} connections",
            _value(rows, "sessions", "inet socket", "cpu_ms", connections=connections),
            _value(rows, "sessions", "unix socket", "cpu_ms", connections=connections),
            1.3,
        )
        ratio(
            f"5. Latency over inet, of a unix socket's, {connections} connections",
            _value(rows, "sessions", "inet socket", "p50_ms", connections=connections),
            _value(rows, "sessions", "unix socket", "p50_ms", connections=connections),
            1.3,
        )
    for what in dict.fromkeys(row["what"] for row in _of(rows, "growth")):
        points = [(row["amount"], row["cpu_ms"]) for row in _of(rows, "growth") if row["what"] == what]
        if len(points) >= 3:
            (x0, y0), (x1, y1), (x2, y2) = points[0], points[len(points) // 2], points[-1]
            whole = (y2 - y0) / (x2 - x0)
            if abs(y2 - y0) < _FLAT * y0:  # a ratio of two such slopes would be one of noise
                found.append([f"6. Slope of CPU by {what}", "flat", "", "at most 1.3", "yes"])
                continue
            ratio(f"6. Slope of CPU by {what}, second half, of the whole's", (y2 - y1) / (x2 - x1), whole, 1.3)
    return table(("goal", "ratio", "spread", "wanted", "met"), found)


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]


def _turns(rows: list[Row], target: str, connections: int) -> list[Row]:
    for row in _of(rows, "warm"):
        if row["target"] == target and row["connections"] == connections:
            return row.get("turns", [])
    return []


def _by_turn(rows: list[Row], key: str, connections: int, target: str) -> list[float]:
    """assay's figure as a ratio of another program's, for each pair of turns."""
    ours, theirs = (_turns(rows, name, connections) for name in (_ASSAY, target))
    return [our[key] / their[key] for our, their in zip(ours, theirs, strict=False)]


def _plots(rows: list[Row]) -> dict[str, str]:
    plots = {}
    warm = [row for row in _of(rows, "warm") if "cpu_ms" in row]
    if warm:
        names = list(dict.fromkeys(row["target"] for row in warm))
        for name, title, unit, key, many in (
            ("cpu", "CPU of one message, warm DNS, 4 KiB", "ms", "cpu_ms", (1, 10)),
            ("throughput", "Throughput", "messages/s", "rate", (10, 100)),
        ):
            plots[name] = plot.bars(
                title,
                unit,
                {
                    target: {
                        f"{row['connections']} connections": row[key]
                        for row in warm
                        if row["target"] == target and row["connections"] in many
                    }
                    for target in names
                },
            )
    cold = [row for row in _of(rows, "cold") if "p50_ms" in row]
    if cold:
        names = list(dict.fromkeys(row["target"] for row in cold))
        plots["latency"] = plot.bars(
            "How long the SMTP client waits, nothing in any cache, DNS answers after 50 ms",
            "ms, median",
            {
                target: {
                    f"client's turns take {row['turn_ms']:g} ms": row["p50_ms"]
                    for row in cold
                    if row["target"] == target and row["delay_ms"] == 50.0
                }
                for target in names
            },
        )
    for what in dict.fromkeys(row["what"] for row in _of(rows, "growth")):
        points = [(row["amount"], row["cpu_ms"]) for row in _of(rows, "growth") if row["what"] == what]
        plots["growth-" + what.replace(" ", "-").lower()] = plot.lines(f"CPU by {what}", what, "ms", {"assay": points})
    cache = _of(rows, "cache")
    if cache:
        plots["cache"] = plot.lines(
            f"Hit rate by size of the cache, {cache[0]['domains']:,} sender domains",
            "dns.cache_entries",
            "per cent",
            {"assay": [(row["entries"], row["hit_rate"] * 100) for row in cache]},
        )
    return plots


def _of(rows: list[Row], scenario: str) -> list[Row]:
    return [row for row in rows if row["scenario"] == scenario]


def _value(rows: list[Row], scenario: str, target: str, key: str, **where: object) -> float | None:
    for row in _of(rows, scenario):
        if row["target"] == target and all(row.get(name) == value for name, value in where.items()):
            return row.get(key)
    return None


def _memory(row: Row) -> str:
    return number(max((one["worker"] for one in row["memory"]), default=0)) if "memory" in row else "-"
