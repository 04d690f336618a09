# SPDX-License-Identifier: GPL-3.0-or-later
"""One MTA, and a new daemon for each scenario on the same socket."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.account import ROWS, Account
from faults.scenarios import Run, Scenario
from mta.base import MTA
from mta.postfix import Postfix
from running import Activated


class Limited(Activated):
    """A daemon whose processes may have few descriptors."""

    def __init__(self, files: int, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._files = files

    def start(self, *before: str, **options: Any) -> None:
        limit = ("sh", "-c", f'ulimit -n {self._files}; exec "$@"', "sh") if self._files else ()
        super().start(*before, *limit, **options)


@dataclass
class Site:
    """Where scenarios run, one after another."""

    mta: MTA
    folder: Path
    log: str = ""  #: of the latest daemon
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))  #: of all messages through this MTA

    def run(self, scenario: Scenario, seconds: float) -> Counter[str]:
        """Run a scenario under load.

        :returns: how many messages had each outcome.
        """
        work = Path(tempfile.mkdtemp(dir=self.folder))
        sections = {"dmarc": {"reject": "reject"}, "milter": {"workers": 2, "drain_seconds": 20.0}, **scenario.sections}
        account = Account(self.mta, xclient=isinstance(self.mta, Postfix), numbers=self.numbers)
        (self.folder / "s").unlink(missing_ok=True)
        with Limited(scenario.files, work, ROWS, socket=f"unix:{self.folder}/s", **sections) as daemon:
            with account.load():
                scenario.run(Run(daemon, self.mta, seconds))
            found = account.settle()
            self.log = daemon.log()
        return found


@contextmanager
def site(kind: type[MTA], **options: object) -> Iterator[Site]:
    """An MTA whose milter is at a socket of ours."""
    kind.check()
    # Not tmp_path: the MTA's unprivileged processes must have access to the socket.
    folder = Path(tempfile.mkdtemp(prefix="assay-faults-"))
    folder.chmod(0o755)
    try:
        with kind(f"unix:{folder}/s", **options) as mta:  # type: ignore[arg-type]  # passed on
            yield Site(mta, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
