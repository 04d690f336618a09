# SPDX-License-Identifier: GPL-3.0-or-later
"""The database of the page: connections that only read, opened when they are first needed."""

from __future__ import annotations

import threading
import time

from assay.config.database import open_store
from assay.config.store import StoreSection
from assay.store.database import Database
from assay.store.feeding import UnavailableError

_AGAIN_SECONDS = 2.0  # after a failure, our choice: a page that waits for a dead server is of no use


class ReadStore:
    """Opens the database, again after a failure."""

    def __init__(self, section: StoreSection) -> None:
        self._section = section
        self._lock = threading.Lock()
        self._database: Database | None = None
        self._fault: UnavailableError | None = None
        self._since = 0.0

    @property
    def database(self) -> Database:
        """The database.

        :raises UnavailableError: it cannot be used now.
        """
        with self._lock:
            if self._database is None:
                if self._fault is not None and time.monotonic() - self._since < _AGAIN_SECONDS:
                    raise self._fault
                try:
                    self._database = open_store(self._section, may_write=False)
                except UnavailableError as error:
                    self._fault, self._since = error, time.monotonic()
                    raise
            return self._database

    def close(self) -> None:
        """Close all connections."""
        if self._database is not None:
            self._database.close()
