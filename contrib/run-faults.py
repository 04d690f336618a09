# SPDX-License-Identifier: GPL-3.0-or-later
"""Send numbered messages through Postfix and Sendmail while something fails, and say what became of each.

    python contrib/run-faults.py [--seconds 10] [--write] [SCENARIO ...]

The scenarios are those of tests/faults, which run for a second and a half each. With --write the table in
docs/reliability.md is replaced. Needs root and the MTAs that contrib/fetch.sh unpacks.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from faults.account import NEVER
from faults.page import COLUMNS, PAGE, cell, replaced, rows
from faults.scenarios import SCENARIOS
from faults.site import site


def main() -> int:
    parser = argparse.ArgumentParser(description="Account for every message while something fails.")
    parser.add_argument("scenario", nargs="*", help="by default all: " + ", ".join(SCENARIOS))
    parser.add_argument("--seconds", type=float, default=10.0, help="of each scenario, roughly")
    parser.add_argument("--write", action="store_true", help="replace the table in docs/reliability.md")
    options = parser.parse_args()
    measured: dict[str, dict[str, Counter[str]]] = defaultdict(dict)
    bad = False
    for column, (kind, how) in COLUMNS.items():
        with site(kind, **how) as place:
            for name in options.scenario or SCENARIOS:
                found = measured[name][column] = place.run(SCENARIOS[name], options.seconds)
                bad |= bool(NEVER & set(found))
                print(f"{column}: {name}: {cell(found)}", flush=True)
    if options.write and not options.scenario:
        PAGE.write_text(replaced(PAGE.read_text(), rows(measured)))
    return bad


if __name__ == "__main__":
    sys.exit(main())
