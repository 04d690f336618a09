# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay report read``: reports that others sent about our domains, from files and maildirs."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from assay import files
from assay.cli.output import say
from assay.cli.serve import name
from assay.config import ConfigError, Configuration
from assay.config.database import open_store
from assay.config.section import SettingError, require

if TYPE_CHECKING:  # the libraries are loaded by this command only
    from assay.reports.incoming.taking import Taken, Taker
    from assay.store.database import Database


def read_reports(options: argparse.Namespace, configuration: Configuration) -> int:
    """Read reports from `options.paths`, and keep them.

    :returns: the exit code: EX_DATAERR if something is not a report that can be used, EX_NOINPUT if a file cannot be
        read.
    :raises ConfigError: it cannot be done.
    :raises UnavailableError: it cannot be done now; what was read before is kept.
    """
    where = name(options.config)
    if not configuration.reports.incoming.domains:
        raise ConfigError(f"{where}: reports.incoming.domains: not set; write the domains that reports may be about")
    try:
        require("reports.incoming.domains", {"parsedmarc": "parsedmarc"})
    except SettingError as error:
        raise ConfigError(f"{where}: {error}") from error
    from assay.reports.incoming.taking import Taker

    taker = Taker.of(configuration, lambda bug: say([f"a bug: {bug}"]))
    with contextlib.closing(open_store(configuration.store)) as database:
        reading = _Reading(taker, database)
        for path in options.paths:
            reading.read(path)
    return reading.code


class _Reading:
    """One run."""

    def __init__(self, taker: Taker, database: Database) -> None:
        self._taker = taker
        self._database = database
        self.code = os.EX_OK  #: the exit code

    def read(self, path: Path) -> None:
        """Read a file or a maildir."""
        from assay.reports.incoming.maildir import FLAGGED, SEEN, is_maildir, mark, new_mails

        with self._telling(path):
            if not path.is_dir():
                self._take(path, delivered=False)
                return
            if not is_maildir(path):
                self._tell(path, "a directory, but not a maildir: it has no new/ and cur/")
                return
            for mail in new_mails(path):
                with self._telling(mail):
                    mark(mail, SEEN if self._take(mail, delivered=True) else FLAGGED)

    def _take(self, path: Path, *, delivered: bool) -> bool:
        """Returns whether all in it was read.

        :raises OSError: the file cannot be read.
        """
        from assay.reports.incoming.read import MAX_MAIL_OCTETS

        with files.open_to_read(path) as file:
            octets = file.read(MAX_MAIL_OCTETS + 1)
        taken = self._taker.take(self._database, octets, now=time.time(), delivered=delivered)
        say(f"{path}: {report.text}" for report in taken)
        is_whole = not _unreadable(taken)
        if not is_whole:
            self.code = max(self.code, os.EX_DATAERR)
        return is_whole

    @contextlib.contextmanager
    def _telling(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._tell(path, f"cannot be read: {error.strerror or error}")

    def _tell(self, path: Path, what: str) -> None:
        say([f"{path}: {what}"])
        self.code = max(self.code, os.EX_NOINPUT)


def _unreadable(taken: Sequence[Taken]) -> bool:
    from assay.store.received import ReportOutcome

    return any(report.outcome is ReportOutcome.UNREADABLE for report in taken)
