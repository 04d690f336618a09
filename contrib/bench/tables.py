# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables in Markdown, and their places in a page."""

from __future__ import annotations

import os
import platform
import re
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import members


def text(tables: dict[str, str]) -> str:
    """All tables with their titles, for the terminal."""
    return "\n\n".join(f"### {title}\n\n{content}" for title, content in tables.items() if content) + "\n"


def fill(page: Path, tables: dict[str, str]) -> None:
    """Put tables between their markers in a page; empty tables do not replace what is there."""
    content = page.read_text()
    for title, lines in tables.items():
        if lines:
            marker = re.escape(f"<!-- bench: {title} -->")
            content = re.sub(
                rf"({marker}\n).*?(\n<!-- end -->)",
                lambda found, lines=lines: f"{found[1]}\n{lines}\n{found[2]}",
                content,
                flags=re.DOTALL,
            )
    page.write_text(content)


def machine() -> dict[str, str]:
    """Where and when the measurement is made."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cores": str(len(os.sched_getaffinity(0))),
        "cpu": cpu,
        "kernel": platform.release(),
        "python": members.python_version(),
    }


def versions(peers: dict[str, str]) -> dict[str, str]:
    """The measured versions: ours, and those of Debian's packages."""
    own = {name: version(name) for name in ("assay", "pymilter", "dnspython", "cryptography")}
    return own | {name: value for name, value in peers.items() if name != "publicsuffix"}


def about(report: dict[str, Any]) -> str:
    """Machine and versions in a line."""
    where = report["machine"]
    return (
        f"{where['date']}, {where['cores']} cores ({where['cpu']}), Linux {where['kernel'].partition('-')[0]}, "
        f"Python {where['python']}; " + ", ".join(f"{name} {value}" for name, value in report["versions"].items())
    )


def number(value: float | None) -> str:
    """A figure with three digits at least; none is a hyphen."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(head: tuple[str, ...], lines: list[list[object]]) -> str:
    """A table, empty without lines. A column whose heading begins with "what" contains text."""
    if not lines:
        return ""
    rule = "|".join("---" if index == 0 or head[index].startswith("what") else "--:" for index in range(len(head)))
    return "\n".join([f"| {' | '.join(head)} |", f"|{rule}|", *(f"| {' | '.join(map(str, line))} |" for line in lines)])
