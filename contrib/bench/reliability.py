# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of docs/reliability.md."""

from __future__ import annotations

from typing import Any

import tables
from tables import number, table

Row = dict[str, Any]
_SLOWER, _LARGER = 2.0, 1.5  # the limits, as ratios to the figures without attack


def tables_of(report: Row) -> dict[str, str]:
    """All tables by their names."""
    rows = report["rows"]
    mixed = [row for row in rows if row["attack"] == "mix"]
    return {"machine": tables.about(report), "law": _law(mixed), "attacks": _attacks(rows)}


def _law(rows: list[Row]) -> str:
    """The limits that an attack must not exceed, for the mix of all attacks."""
    lines = []
    for row in rows:
        wrong = sum(row["attacked"]["faults"].values())
        slower, larger = (_ratio(row, key) for key in ("p99_ms", "worker_mib"))
        for what, value, wanted, met in (
            ("honest messages with a wrong outcome", str(wrong), "0", not wrong),
            ("p99 latency, ratio to that without attack", f"{slower:.2f}", f"at most {_SLOWER:g}", slower <= _SLOWER),
            ("memory of a worker, ratio to that without", f"{larger:.2f}", f"at most {_LARGER:g}", larger <= _LARGER),
        ):
            lines.append(
                [row["addresses"], row["attacked"]["seconds"], what, value, wanted, "yes" if met else "**no**"]
            )
    return table(("attacking addresses", "seconds", "what", "measured", "wanted", "met"), lines)


def _attacks(rows: list[Row]) -> str:
    head = (
        "attack",
        "addresses",
        "its sessions",
        "its MB",
        "honest messages",
        "wrong outcomes",
        "p50 ms, quiet",
        "attacked",
        "p99 ms, quiet",
        "attacked",
        "worker MiB, quiet",
        "attacked",
        "CPU, quiet",
        "attacked",
    )
    return table(head, [_line(row) for row in rows])


def _line(row: Row) -> list[object]:
    quiet, attacked, did = row["quiet"], row["attacked"], row["did"]
    wrong = [f"{count} {fault}" for fault, count in sorted(attacked["faults"].items())]
    if did["accepted"]:
        wrong.append(f"{did['accepted']} of the attack accepted")
    figures = [number(one[key]) for key in ("p50_ms", "p99_ms", "worker_mib") for one in (quiet, attacked)]
    return [
        row["attack"],
        row["addresses"],
        f"{did['sessions']:,}",
        number(did["octets"] / 1e6),
        f"{attacked['sent']:,}",
        ", ".join(wrong) or "nothing",
        *figures,
        *(f"{one['cpu']:.0%}" for one in (quiet, attacked)),
    ]


def _ratio(row: Row, key: str) -> float:
    return row["attacked"][key] / row["quiet"][key]
