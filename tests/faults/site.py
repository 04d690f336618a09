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

from faults.account import ROWS, Account
from faults.logs import Logged
from faults.run import Run, Scenario
from mta.base import MTA
from mta.postfix import Postfix


@dataclass
class Site:
    """Where scenarios run, one after another."""

    mta: MTA
    folder: Path
    log: str = ""  #: of the latest daemon
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))  #: of all messages through this MTA

    def run(self, scenario: Scenario, seconds: float, *, long: bool = False) -> Counter[str]:
        """Run a scenario under load.

        :param long: see `Run`.
        :returns: how many messages had each outcome.
        """
        work = Path(tempfile.mkdtemp(dir=self.folder))
        sections = {"dmarc": {"reject": "reject"}, "milter": {"workers": 2, "drain_seconds": 20.0}, **scenario.sections}
        account = Account(self.mta, xclient=isinstance(self.mta, Postfix), numbers=self.numbers)
        (self.folder / "s").unlink(missing_ok=True)
        place = f"unix:{self.folder}/s"
        with Logged(scenario.files, scenario.log, work, ROWS, socket=place, **sections) as daemon:
            with account.load():
                scenario.run(Run(daemon, self.mta, account, seconds, long))
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
