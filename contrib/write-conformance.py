#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Regenerate ``docs/conformance.md`` from a run of the published suites.

Needs the folder of the suites: beside the project, or in ``$ASSAY_CONFORMANCE``. Takes a few seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "milter"), str(ROOT / "tests")]

from conformance.answer_whole import Filter
from conformance.cases import FOLDER, load
from conformance.page import KINDS, PAGE, render


def main() -> int:
    """Write the page; returns the exit code."""
    if not load(*KINDS):
        print(f"no published cases in {FOLDER}: the page is unchanged", file=sys.stderr)
        return 1
    with Filter() as whole_filter:
        PAGE.write_text(render(whole_filter))
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
