# SPDX-License-Identifier: GPL-3.0-or-later
"""The statements that write, in the fastest form that each database has.

They are text for the driver: SQLAlchemy would take longer to prepare each row than SQLite to write it. PostgreSQL gets
new rows by COPY, and sums as arrays in one statement.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from sqlalchemy import BigInteger, Boolean, Connection, Integer, LargeBinary, SmallInteger, Table, Text, exc
from sqlalchemy.dialects import postgresql, sqlite

from assay.store import schema
from assay.store.database import Database
from assay.store.tallies import Values

_MAX_PARAMETERS = 999  # of one statement, whatever SQLite's version (https://sqlite.org/limits.html)
_POSTGRESQL_TYPES = {
    BigInteger: "bigint",
    Boolean: "boolean",
    Integer: "integer",
    LargeBinary: "bytea",
    SmallInteger: "smallint",
    Text: "text",
}
_ADD_COUNT = "ON CONFLICT (day, kind, subject, source, word) DO UPDATE SET count = counts.count + excluded.count"
_ADD_GROUP = (
    "ON CONFLICT (day, published, id) DO UPDATE SET count = report_groups.count + excluded.count, "
    "report_mail = report_groups.report_mail + excluded.report_mail"
)
_WIDEN = (
    "ON CONFLICT (id) DO UPDATE SET first_seen = {least}(published.first_seen, excluded.first_seen), "
    "last_seen = {greatest}(published.last_seen, excluded.last_seen)"
)


class Statements(ABC):
    """What a writer needs of a database. Empty sequences of rows do nothing."""

    @abstractmethod
    def see(self, connection: Connection, identities: Sequence[bytes], day: int) -> set[bytes]:
        """Add ids to `seen`. Returns those that were not there.

        :param identities: in their order, each once.
        :param day: today.
        """

    @abstractmethod
    def insert(self, connection: Connection, table: Table, rows: Sequence[Values]) -> None:
        """Insert new rows, with values in the order of the table's columns."""

    @abstractmethod
    def _upsert(self, connection: Connection, table: Table, rows: Sequence[Values], conflict: str) -> None:
        """Insert rows, or do what the conflict clause says."""

    #: The functions for the smaller and the larger of two values.
    _least: str
    _greatest: str

    def add_counts(self, connection: Connection, rows: Sequence[Values]) -> None:
        """Add to `counts`."""
        self._upsert(connection, schema.counts, rows, _ADD_COUNT)

    def add_groups(self, connection: Connection, rows: Sequence[Values]) -> None:
        """Add to `report_groups`."""
        self._upsert(connection, schema.report_groups, rows, _ADD_GROUP)

    def merge_published(self, connection: Connection, rows: Sequence[Values]) -> None:
        """Add to `published`, or widen the time of what is there."""
        self._upsert(connection, schema.published, rows, _WIDEN.format(least=self._least, greatest=self._greatest))


class SqliteStatements(Statements):
    """For SQLite: one writer at a time."""

    _least, _greatest = "min", "max"

    def see(self, connection: Connection, identities: Sequence[bytes], day: int) -> set[bytes]:
        known = set()
        for start in range(0, len(identities), _MAX_PARAMETERS):
            some = tuple(identities[start : start + _MAX_PARAMETERS])
            places = ",".join("?" * len(some))
            known |= {
                identity
                for (identity,) in connection.exec_driver_sql(
                    f"SELECT id FROM seen WHERE id IN ({places})",  # noqa: S608  # question marks
                    some,
                )
            }
        new = [identity for identity in identities if identity not in known]
        self.insert(connection, schema.seen, [(identity, day) for identity in new])
        return set(new)

    def insert(self, connection: Connection, table: Table, rows: Sequence[Values]) -> None:
        self._upsert(connection, table, rows, "")

    def _upsert(self, connection: Connection, table: Table, rows: Sequence[Values], conflict: str) -> None:
        # As many rows in one statement as it takes, since to run one costs as much as to insert a short row. The rest
        # one by one: the driver keeps two statements for each table, and not one for each number of rows.
        many = _MAX_PARAMETERS // len(table.columns)
        whole = len(rows) - len(rows) % many
        joined = [tuple(chain.from_iterable(rows[at : at + many])) for at in range(0, whole, many)]
        self._run(connection, table, many, joined, conflict)
        self._run(connection, table, 1, rows[whole:], conflict)

    def _run(self, connection: Connection, table: Table, many: int, rows: Sequence[Values], conflict: str) -> None:
        """Run a statement, each time with the values of so many rows."""
        if rows:
            places = ",".join([f"({','.join('?' * len(table.columns))})"] * many)
            # OR FAIL: SQLite need not be able to undo a statement alone, since the whole transaction is rolled back.
            connection.exec_driver_sql(
                f"INSERT OR FAIL INTO {table.name} VALUES {places} {conflict}",  # noqa: S608  # names of ours
                list(rows),
            )


class PostgresqlStatements(Statements):
    """For PostgreSQL: hosts write at the same time."""

    _least, _greatest = "least", "greatest"

    def see(self, connection: Connection, identities: Sequence[bytes], day: int) -> set[bytes]:
        found = connection.exec_driver_sql(
            "INSERT INTO seen (id, day) SELECT id, %s FROM unnest(%s::bytea[]) AS id ON CONFLICT DO NOTHING "
            "RETURNING id",
            (day, list(identities)),
        )
        return {bytes(identity) for (identity,) in found}

    def insert(self, connection: Connection, table: Table, rows: Sequence[Values]) -> None:
        if not rows:
            return
        columns = ", ".join(f'"{column.name}"' for column in table.columns)
        driver: Any = connection.connection.driver_connection
        statement = f"COPY {table.name} ({columns}) FROM STDIN"
        with _errors_as_of(statement), driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)

    def _upsert(self, connection: Connection, table: Table, rows: Sequence[Values], conflict: str) -> None:
        if rows:
            columns = ", ".join(f'"{column.name}"' for column in table.columns)
            arrays = ", ".join(f"%s::{_POSTGRESQL_TYPES[type(column.type)]}[]" for column in table.columns)
            connection.exec_driver_sql(
                f"INSERT INTO {table.name} ({columns}) SELECT * FROM unnest({arrays}) {conflict}",  # noqa: S608  # ours
                tuple(map(list, zip(*rows, strict=True))),
            )


def statements_of(database: Database) -> Statements:
    """Those of a database."""
    return SqliteStatements() if database.is_sqlite else PostgresqlStatements()


def insert_into(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can have ON CONFLICT, for a few rows: it is not the fastest form."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


@contextlib.contextmanager
def _errors_as_of(statement: str) -> Iterator[None]:
    """Raise the driver's errors as SQLAlchemy does for the statements that it executes itself.

    :raises sqlalchemy.exc.DBAPIError: the statement has failed.
    """
    import psycopg  # not installed where SQLite is the database

    try:
        yield
    except psycopg.Error as error:
        raise exc.DBAPIError(statement, None, error) from error
