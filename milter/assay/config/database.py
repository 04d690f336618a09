# SPDX-License-Identifier: GPL-3.0-or-later
"""Open what ``[store]`` names. The libraries are loaded here, in the processes that need them, and in no other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from assay import files, secrets
from assay.config.configuration import Configuration
from assay.config.store import StoreSection
from assay.store.feeding import UnavailableError
from assay.store.rows import MessageRow

if TYPE_CHECKING:
    from assay.store.database import Database


def open_store(section: StoreSection, *, may_write: bool = True) -> Database:
    """Open the database, whose tables are those of this version.

    :raises UnavailableError: it cannot be used now; the message says why, and what to do.
    """
    from assay.store.database import open_database

    return open_database(section.location, read_password(section.password_file), may_write=may_write)


#: After the start of the host, until which nothing is removed, our choice. Until it is set from the network, a clock
#: without a battery may be years ahead, and everything would be too old.
SETTLED_SECONDS = 3600.0


class StoreBackend:
    """The database, for the process that fills it (`assay.store.feeding.Backend`)."""

    def __init__(self, configuration: Configuration) -> None:
        """:raises UnavailableError: it cannot be used now."""
        from assay.store.folding import Folding
        from assay.store.retention import Retention
        from assay.store.writer import Writer

        section = configuration.store
        self._database = open_store(section)
        failure_reports = configuration.reports.failure.enabled
        self._writer = Writer(self._database, section.sample, failure_reports=failure_reports)
        self._folding = Folding(self._database, configuration.own_domains)
        self._retention = Retention(section.messages_days, section.counts_days, section.received_days)

    def write(self, rows: Sequence[MessageRow]) -> None:
        """Write rows, those that are there already once."""
        self._writer.write(rows)
        self._folding.after(rows)

    def tidy(self, now: float) -> None:
        """Remove what is older than the operator wants, and bound the counts of the days that are over."""
        from assay.store.retention import prune

        if time.monotonic() >= SETTLED_SECONDS:  # it counts from the start of the host
            prune(self._database, self._retention, now)
        self._folding.fold(now)

    def close(self) -> None:
        """Close the connection."""
        self._database.close()


def read_password(name: str) -> str:
    """The first line of a file; empty without a file.

    :raises UnavailableError: it cannot be used now; the message says why, and what to do.
    """
    if not name:
        return ""
    try:
        return secrets.read(Path(name)).decode().strip().splitlines()[0]
    except secrets.SecretError as error:
        raise UnavailableError(str(error)) from error
    except UnicodeDecodeError as error:
        raise UnavailableError(f"{name}: {files.not_text(error)}") from error
