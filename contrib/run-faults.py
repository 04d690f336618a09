# SPDX-License-Identifier: GPL-3.0-or-later
"""Send numbered messages through Postfix and Sendmail while something fails, and say what became of each.

    python contrib/run-faults.py [--seconds 10] [--write] [SCENARIO ...]

The scenarios are those of tests/faults, which run for a second each, and with smaller
numbers. With --write the table in
docs/reliability.md is replaced. The columns of the table run at the same time. Needs root and the MTAs
that contrib/fetch.sh unpacks.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from faults.account import NEVER
from faults.page import COLUMNS, PAGE, cell, replaced, rows
from faults.scenarios import SCENARIOS
from faults.site import site


def measure(column: str, names: Sequence[str], seconds: float) -> dict[str, Counter[str]]:
    """Run scenarios with the MTA of a column.

    :returns: by scenario, how many messages had each outcome.
    """
    kind, how = COLUMNS[column]
    measured = {}
    with site(kind, **how) as place:
        for name in names:
            measured[name] = place.run(SCENARIOS[name], seconds, long=True)
            print(f"{column}: {name}: {cell(measured[name])}", flush=True)
    return measured


def main() -> int:
    parser = argparse.ArgumentParser(description="Account for every message while something fails.")
    parser.add_argument("scenario", nargs="*", help="by default all: " + ", ".join(SCENARIOS))
    parser.add_argument("--seconds", type=float, default=10.0, help="of each scenario, roughly")
    parser.add_argument("--write", action="store_true", help="replace the table in docs/reliability.md")
    options = parser.parse_args()
    names = options.scenario or list(SCENARIOS)
    with ProcessPoolExecutor(len(COLUMNS)) as pool:
        running = {column: pool.submit(measure, column, names, options.seconds) for column in COLUMNS}
        columns = {column: one.result() for column, one in running.items()}
    measured = {name: {column: columns[column][name] for column in COLUMNS} for name in names}
    if options.write and not options.scenario:
        PAGE.write_text(replaced(PAGE.read_text(), rows(measured)))
    return any(NEVER & set(found) for by_column in measured.values() for found in by_column.values())


if __name__ == "__main__":
    sys.exit(main())
