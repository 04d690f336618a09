# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of faults in docs/reliability.md."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from faults.account import OUTCOMES
from faults.scenarios import SCENARIOS
from mta.base import MTA, PROJECT
from mta.postfix import Postfix
from mta.sendmail import Sendmail

PAGE: Final = PROJECT / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: table -->", "<!-- end -->"


class Accepting(Sendmail):
    """A Sendmail that accepts mail while no milter answers."""

    def _milter_line(self) -> str:
        return super()._milter_line().replace(", F=T", "")


#: The MTAs of the columns, and how each is configured.
COLUMNS: dict[str, tuple[type[MTA], dict[str, Any]]] = {
    "Postfix, tempfail": (Postfix, {}),
    "Postfix, accept": (Postfix, {"extra": {"milter_default_action": "accept"}}),
    "Sendmail, `F=T`": (Sendmail, {}),
    "Sendmail, no `F=`": (Accepting, {}),
}
HEAD = [f"| what fails | {' | '.join(COLUMNS)} |", f"|---{'|---' * len(COLUMNS)}|"]
CELL = re.compile(r"(?:\d[\d,]* (?:{})(?:, (?!$)|$))+".format("|".join(OUTCOMES)))


def cell(found: Counter[str]) -> str:
    """What became of the messages of one run."""
    return ", ".join(f"{found[name]:,} {name}" for name in OUTCOMES if found[name])


def rows(measured: Mapping[str, Mapping[str, Counter[str]]]) -> list[str]:
    """The lines of the table.

    :param measured: by scenario and column.
    """
    return HEAD + [
        f"| {scenario.text} | {' | '.join(cell(measured[name][column]) for column in COLUMNS)} |"
        for name, scenario in SCENARIOS.items()
    ]


def table(page: str) -> list[str]:
    """The lines of the table in the page."""
    return page.partition(BEGIN)[2].partition(END)[0].strip().splitlines()


def replaced(page: str, lines: list[str]) -> str:
    """The page with another table."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{rest.partition(END)[2]}"
