# SPDX-License-Identifier: GPL-3.0-or-later
"""A database with the tables of `assay.store.schema`: SQLite in a file, or PostgreSQL.

One process writes an SQLite file, others read it at the same time (write-ahead log). Nobody else administers it, so it
is created and migrated when it is opened for writing, under its own lock. Tables in PostgreSQL are shared by hosts that
may run different versions of assay, so only ``assay store migrate`` changes them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, Table, create_engine, event, exc, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import QueuePool

from assay import files
from assay.packages import command
from assay.store.failures import translated
from assay.store.feeding import UnavailableError, UnwritableError
from assay.store.revisions import NEWEST, OLDER

BUSY_SECONDS = 5.0  # to wait for another writer, our choice: a batch takes some 60 ms
CONNECT_SECONDS = 10
_CACHE_KIB = 16 * 1024  # of SQLite's pages, for inserts into the indexes; our choice
#: Pages in the write-ahead log before they are moved to the file, our choice: 16 MiB. What several batches change is
#: moved once.
_LOG_PAGES = 4096
_MODE = 0o640
_MIGRATION_LOCK = 0x61737361790001  # of PostgreSQL's advisory locks: "assay" and a number

# The libraries report each connection that breaks, some with a traceback; the log has what the operator needs, with its
# own bound.
for _library in ("psycopg", "sqlalchemy"):
    logging.getLogger(_library).addHandler(logging.NullHandler())
    logging.getLogger(_library).propagate = False


class Database:
    """An open database. It may be used by several threads."""

    def __init__(self, engine: Engine, name: str, *, may_write: bool) -> None:
        """Use `open_database`."""
        self.engine = engine
        self.name = name  #: the file, or the URL without a password; for messages
        self.may_write = may_write
        self._lock = threading.RLock()
        self._file = _identity(name) if self.is_sqlite else None  #: that is open
        self._log: tuple[int, int] | None = None  #: the write-ahead log of it
        if self.is_sqlite:
            event.listen(engine, "connect", self._note_log)

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file."""
        return self.engine.dialect.name == "sqlite"

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of all tables and changes nothing.

        :raises UnavailableError: the database cannot be used now.
        """
        self._follow()
        with translated(self.name), self.engine.connect() as connection:
            if not self.is_sqlite:
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is committed at the end, unless an exception leaves it.

        :raises UnavailableError: the database cannot be used now; nothing was written.
        :raises UnwritableError: the values cannot be stored; nothing was written.
        """
        self._follow()
        with translated(self.name), self.engine.connect() as connection:
            connection.execution_options(assay_writes=True)
            with connection.begin():
                yield connection

    def _follow(self) -> None:
        """Open the file again if an operator has moved it away or put another in its place.

        A connection stays with the old file: what is written there is lost with it, and nobody is told.
        """
        if not self.is_sqlite or _identity(self.name) == self._file:
            return
        with self._lock:
            if _identity(self.name) == self._file:
                return  # another thread has done it
            self._leave_log()
            self.engine.dispose()
            _ensure_file(self.name, may_write=self.may_write)
            before, self._file = self._file, _identity(self.name)
            with contextlib.ExitStack() as unless_checked:
                unless_checked.callback(setattr, self, "_file", before)  # the next transaction looks again
                unless_checked.callback(setattr, self, "_log", None)
                unless_checked.callback(self.engine.dispose)  # so that the log goes with the file
                self.bring_up()
                unless_checked.pop_all()

    def _leave_log(self) -> None:
        """See to it that the log of the old file is not beside the new one: SQLite would take it for that of the new.

        :raises UnavailableError: it is still there, and this is not the process that removes it.
        """
        log, index = Path(f"{self.name}-wal"), Path(f"{self.name}-shm")
        if self._log is None or _identity(log) != self._log:
            return
        if not self.may_write:
            raise UnavailableError(f"{self.name} was replaced; the daemon opens it when it next writes")
        is_empty = self._has_idle_connection() and self._moved_log()
        with translated(self.name), files.locked(log.parent):
            if _identity(log) == self._log:  # another process may have done it, and opened the new file
                index.unlink(missing_ok=True)
                if is_empty:
                    log.unlink()
                else:  # an operator can put it beside the old file
                    log.rename(f"{log}.old")

    def _has_idle_connection(self) -> bool:
        return isinstance(self.engine.pool, QueuePool) and self.engine.pool.checkedin() > 0

    def _moved_log(self) -> bool:
        """Move what is in the log into the file that is open. Returns whether it is all there."""
        try:
            return self._checkpoint()
        except (UnavailableError, UnwritableError):
            return False

    def _note_log(self, connection: Any, _: object) -> None:
        """Which file is the log. It is there as long as a connection that has read is open."""
        connection.execute("PRAGMA schema_version").fetchone()
        self._log = _identity(f"{self.name}-wal")

    def bring_up(self) -> None:
        """Check the tables. Those of SQLite are made or migrated if they may be written.

        :raises UnavailableError: they cannot be used; the message says why, and what to do.
        """
        if self.is_sqlite and self.may_write and self.revision() != NEWEST:
            self.migrate()
        self.check()

    def revision(self) -> str:
        """The revision of the tables; empty if there are none.

        :raises UnavailableError: the database cannot be used now.
        """
        with self.reading() as connection:
            return _revision(connection)

    def migrate(self) -> str:
        """Bring the tables to the newest revision. Whoever else does so at the same time is waited for.

        :returns: the revision before.
        :raises UnavailableError: it cannot be done now, or the tables are newer than this version of assay.
        """
        with self.writing() as connection:
            if not self.is_sqlite:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            before = _revision(connection)
            if before not in ("", *OLDER, NEWEST):
                raise UnavailableError(self._too_new(before))
            if before != NEWEST:
                from assay.store.migrations import upgrade  # Alembic takes memory, and is needed seldom

                upgrade(connection)
            return before

    def check(self) -> None:
        """:raises UnavailableError: the tables are not those of this version of assay, or cannot be read."""
        found = self.revision()
        if found == NEWEST:
            return
        if found in OLDER or not found:
            state = f"has the tables of an older assay (revision {found})" if found else "has no tables yet"
            raise UnavailableError(f"{self.name}: {state}; run: assay store migrate")
        raise UnavailableError(self._too_new(found))

    def _too_new(self, found: str) -> str:
        return f"{self.name}: has the tables of a newer assay (revision {found}); upgrade assay on this host"

    def can_change(self, table: Table) -> bool:
        """Whether rows of a table can be added, changed and removed: by the rights of a file or of a user.

        :raises UnavailableError: the database cannot be used now.
        """
        if self.is_sqlite:
            path = Path(self.name)
            return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
        query = text(
            "SELECT NOT pg_is_in_recovery() AND current_setting('default_transaction_read_only') = 'off' "
            "AND has_table_privilege(:name, 'INSERT') AND has_table_privilege(:name, 'UPDATE') "
            "AND has_table_privilege(:name, 'DELETE')"
        )
        with self.reading() as connection:
            return bool(connection.execute(query, {"name": table.name}).scalar())

    def empty_log(self) -> None:
        """Move what is in SQLite's write-ahead log into the file, so that nothing removed is left there.

        :raises UnavailableError: the database cannot be used now.
        """
        if self.is_sqlite:
            self._checkpoint()

    def _checkpoint(self) -> bool:
        """Move the log into the file. Returns whether all of it was moved: a transaction that reads prevents it."""
        driver: Any = self.engine.dialect.loaded_dbapi
        with translated(self.name), contextlib.closing(self.engine.raw_connection()) as connection:
            cursor = connection.cursor()
            try:
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # not in a transaction
                ((busy, *_),) = cursor.fetchall()
                return not busy
            except driver.Error as error:
                raise exc.DBAPIError(None, None, error) from error

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def open_database(where: str, password: str = "", *, may_write: bool = True) -> Database:
    """Connect, and check that the tables are those of this version. SQLite is created or migrated if it may be written.

    :param where: the path of an SQLite file, or the URL of a PostgreSQL database.
    :param password: of the database; never in a message.
    :param may_write: False for connections that only read.
    :raises UnavailableError: it cannot be used now; the message says why, and what to do.
    """
    with contextlib.ExitStack() as unless_checked:
        database = connect(where, password, may_write=may_write)
        unless_checked.callback(database.close)
        database.bring_up()
        unless_checked.pop_all()
    return database


def connect(where: str, password: str = "", *, may_write: bool = True) -> Database:
    """The same, whatever its tables are.

    :raises UnavailableError: the driver is not installed, or the file cannot be made.
    """
    if "://" in where:
        return Database(_postgresql(where, password), where, may_write=may_write)
    _ensure_file(where, may_write=may_write)
    return Database(_sqlite(Path(where), may_write=may_write), where, may_write=may_write)


def _postgresql(url: str, password: str) -> Engine:
    try:
        import psycopg  # only those who have a PostgreSQL need it
    except ImportError as error:  # or it is there, and finds no libpq
        raise UnavailableError(f"PostgreSQL needs Python packages; run: {command('psycopg[binary]')}") from error
    location = make_url(url).set(drivername="postgresql+psycopg")
    if password:
        location = location.set(password=password)
    options: dict[str, Any] = {"application_name": "assay", "connect_timeout": CONNECT_SECONDS}
    # A server that is gone without a word is noticed in a minute and not in two hours.
    options |= {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
    options = {name: value for name, value in options.items() if name not in location.query}
    return create_engine(location, connect_args=options, pool_pre_ping=True, module=psycopg)


def _sqlite(path: Path, *, may_write: bool) -> Engine:
    # Otherwise a connection made just after the file was moved away would make one that others can read.
    only_opened = {"mode": "rw", "uri": "true"}
    location = URL.create("sqlite", database=f"file:{quote(str(path))}", query=only_opened)
    engine = create_engine(location, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None  # transactions begin below, and not where the driver thinks
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        if may_write:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            # For `assay store forget`. By every writer, or SQLite leaves copies where it has moved rows within a page.
            connection.execute("PRAGMA secure_delete = ON")
        else:
            connection.execute("PRAGMA query_only = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that first reads and then writes could not get the lock when another has written in between.
        writes = connection.get_execution_options().get("assay_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _identity(where: str | Path) -> tuple[int, int] | None:
    """Which file has this name now; None if there is none, or it cannot be reached."""
    try:
        found = os.stat(where)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _ensure_file(where: str, *, may_write: bool) -> None:
    """:raises UnavailableError: there is no file, and none can be made."""
    with translated(where):
        if may_write:
            make_file(Path(where))
        else:
            _must_exist(Path(where))


def _must_exist(path: Path) -> None:
    """
    :raises UnavailableError: there is no file yet.
    :raises OSError: there cannot be one, such as in a directory that does not exist.
    """
    try:
        path.stat()
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise
        raise UnavailableError(f"{path}: there is no database yet; it is made when the daemon starts") from None


def make_file(path: Path) -> None:
    """Make the file with the right permissions; what SQLite keeps beside it gets the same.

    If root does so, the owner of the directory gets it, who is the daemon's user.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    except FileExistsError:
        return
    try:
        folder = path.parent.stat()
        if os.geteuid() == 0 and (folder.st_uid, folder.st_gid) != (0, 0):  # fchown(2) may be forbidden
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
        mode = _MODE if folder.st_mode & stat.S_IRGRP else _MODE & ~stat.S_IRGRP
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _revision(connection: Connection) -> str:
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")
