# SPDX-License-Identifier: GPL-3.0-or-later
"""CPU time and memory of a program and all its children, from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """`cpu` in seconds since the start; `resident` and `proportional` (shared pages by halves) in MiB, `worker` the
    resident memory of the largest process that the first one started, or of that one where it works alone; `peak` the
    most that one of these ever had."""

    cpu: float
    resident: float
    proportional: float
    worker: float
    peak: float


def tree(root: int) -> list[int]:
    """The process and its current descendants."""
    found, waiting = [], [root]
    while waiting:
        process = waiting.pop()
        found.append(process)
        for path in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                waiting += map(int, path.read_text().split())
            except OSError:
                continue
    return found


def cpu(root: int) -> float:
    """Seconds of CPU of the tree, system time included, ended children too."""
    ticks = 0
    for process in tree(root):
        try:
            stat = Path(f"/proc/{process}/stat").read_text()
        except OSError:
            continue
        ticks += sum(map(int, stat.rpartition(")")[2].split()[11:15]))
    return ticks / _TICKS


def worker(root: int) -> float:
    """Resident memory of the largest worker, as in `Usage`; fast enough to look every second."""
    resident = []
    for process in tree(root):
        try:
            resident.append(int(Path(f"/proc/{process}/statm").read_text().split()[1]))
        except OSError:
            continue
    return max(resident[1:] or resident, default=0) * os.sysconf("SC_PAGE_SIZE") / (1024 * 1024)


def usage(root: int) -> Usage:
    """All of it; slower than `cpu`."""
    resident, proportional, peaks = [], [], []
    for process in tree(root):
        try:
            status = _numbers(Path(f"/proc/{process}/status"))
            rollup = _numbers(Path(f"/proc/{process}/smaps_rollup"))
        except OSError:
            continue
        resident.append(status.get("VmRSS", 0))
        peaks.append(status.get("VmHWM", 0))
        proportional.append(rollup.get("Pss", 0))
    kib = 1024
    return Usage(
        cpu(root),
        sum(resident) / kib,
        sum(proportional) / kib,
        max(resident[1:] or resident, default=0) / kib,
        max(peaks[1:] or peaks, default=0) / kib,
    )


def _numbers(path: Path) -> dict[str, int]:
    return {
        name: int(value.split()[0])
        for name, _, value in (line.partition(":") for line in path.read_text().splitlines())
        if value.strip().endswith("kB")
    }
