# SPDX-License-Identifier: GPL-3.0-or-later
"""``docs/diagnostics.md`` lists every message that an operator can see, collected from the source."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "diagnostics.md").read_text()
COLLECTED = runpy.run_path(str(ROOT / "contrib" / "write-diagnostics.py"))


def test_every_line_of_the_log_has_a_row() -> None:
    listed = re.findall(r"^\| (error|warning|info|debug) \| `(.+?)` \| \S.* \|$", PAGE, re.MULTILINE)
    assert len(listed) == len(set(listed))
    lines = COLLECTED["log_lines"]()
    assert lines - set(listed) == set(), "write a row for each into docs/diagnostics.md"
    assert set(listed) - lines == set(), "delete the row of each from docs/diagnostics.md"


def test_every_other_message_is_listed() -> None:
    assert COLLECTED["listing"]() in PAGE, "run: python contrib/write-diagnostics.py"


def test_the_collection_sees_messages_of_all_kinds() -> None:
    """One that is logged with a level, one that the resolver reports, and one each that is raised, printed, yielded."""
    lines = COLLECTED["log_lines"]()
    assert ("info", "reloaded") in lines
    assert ("warning", "nameserver ... answers again") in lines
    texts = COLLECTED["messages"]()
    assert "assay reload: not reloaded, the old configuration stays: ..." in texts
    assert "another daemon serves on it" in texts
    assert "... = '...': mail is lost when the DNS does not answer; write tempfail or accept" in texts
