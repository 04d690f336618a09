# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of several processes on one database does what only one may do. It ends with its process or its connection."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from sqlalchemy import Connection, text

from assay.store.database import Database, make_file
from assay.store.failures import translated

#: Of PostgreSQL's advisory locks: "assay" and a number.
_REPORTS_LOCK = 0x61737361790003
#: A host that is gone without a word loses the lock after two minutes; by default, the server notices after two hours.
_KEEPALIVES = ("SET tcp_keepalives_idle = 60", "SET tcp_keepalives_interval = 20", "SET tcp_keepalives_count = 3")


class Leadership:
    """The right to send reports. With PostgreSQL all hosts compete for it, with SQLite the processes of this one."""

    def __init__(self, database: Database, directory: Path) -> None:
        """
        :param directory: of the store.
        """
        self._database = database
        self._path = directory / "reports.lock"
        self._descriptor = -1
        self._connection: Connection | None = None

    def held(self) -> bool:
        """Whether this process has it, or gets it now.

        :raises UnavailableError: the database cannot be used, and with it the lock may be lost.
        """
        return self._file_is_locked() if self._database.is_sqlite else self._row_is_locked()

    def _file_is_locked(self) -> bool:
        if self._descriptor >= 0:
            return True
        with translated(str(self._path)):
            make_file(self._path)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
        self._descriptor = descriptor
        return True

    def _row_is_locked(self) -> bool:
        """By a session of its own: the server gives the lock to another when it ends, however it ends."""
        with contextlib.ExitStack() as unless_well:
            unless_well.callback(self.release)
            with translated(self._database.name):
                if self._connection is None:
                    self._connection = self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                    for setting in _KEEPALIVES:
                        self._connection.execute(text(setting))
                    statement = text(f"SELECT pg_try_advisory_lock({_REPORTS_LOCK})")
                else:
                    statement = text("SELECT true")  # the session, and so the lock, still is there
                has_it = bool(self._connection.execute(statement).scalar())
            if has_it:
                unless_well.pop_all()
        return has_it

    def release(self) -> None:
        """Give it up."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._connection is not None:
            # Closed and not given back to the pool, where the lock would stay.
            self._connection.invalidate()
            self._connection.close()
            self._connection = None
