# SPDX-License-Identifier: GPL-3.0-or-later
"""Write rows into a database: all of a batch or nothing, and each row once, however often it comes.

The ids of all rows go into the table `seen` in the same transaction. Two hosts that write the same row at the same time
wait for each other there, and the second finds it written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import msgspec
from sqlalchemy import Connection

from assay.model.printable import without_surrogates
from assay.store import incidents, report_days, schema
from assay.store.database import Database
from assay.store.feeding import UnwritableError
from assay.store.rows import MessageRow
from assay.store.statements import statements_of
from assay.store.tallies import DAY_MILLISECONDS, Tallies, Values, as_json, result_of

_DRAWN = 1 << 32


class Writer:
    """Writes batches. Only one thread may use it at a time."""

    def __init__(
        self,
        database: Database,
        sample: float = 1.0,
        clock: Callable[[], float] = time.time,
        *,
        failure_reports: bool = True,
    ) -> None:
        """
        :param sample: the share of messages that are kept one by one, 0 to 1.
        :param clock: Unix time in seconds.
        :param failure_reports: whether any are made. If not, headers that a spool still has for them are dropped.
        """
        self._database = database
        self._kept = int(sample * _DRAWN)
        self._clock = clock
        self._failure_reports = failure_reports
        self._statements = statements_of(database)

    def write(self, rows: Sequence[MessageRow]) -> int:
        """Write rows in one transaction, except those that were written before.

        :returns: how many were new.
        :raises UnavailableError: the database cannot be used now; nothing was written.
        :raises UnwritableError: a value cannot be stored; nothing was written.
        """
        try:
            return self._write(rows)
        except UnwritableError:  # it may be text, which strangers write; a look at all text of all rows takes longer
            sound_rows = [_storable(row) for row in rows]
            if sound_rows == list(rows):
                raise
            return self._write(sound_rows)

    def _write(self, rows: Sequence[MessageRow]) -> int:
        by_id = {row.id: row for row in rows}
        with self._database.writing() as connection:
            day = int(self._clock() * 1000) // DAY_MILLISECONDS
            new = self._statements.see(connection, sorted(by_id), day)
            if new:
                self._add(connection, [row for identity, row in by_id.items() if identity in new])
            return len(new)

    def _add(self, connection: Connection, rows: Sequence[MessageRow]) -> None:
        days = {row.time // DAY_MILLISECONDS for row in rows if row.dmarc is not None}
        tallies = Tallies(rows, report_days.supplements(connection, days, self._clock()))
        samples = [row for row in rows if self._is_sampled(row)]
        insert = self._statements.insert
        insert(connection, schema.messages, [message_values(row, tallies) for row in samples])
        insert(connection, schema.findings, [finding for row in samples for finding in finding_values(row)])
        insert(connection, schema.addresses, [address for row in samples for address in _addresses(row)])
        insert(connection, schema.answers, [answers for row in samples for answers in _answers(row)])
        self._statements.merge_published(connection, tallies.published)
        self._statements.add_counts(connection, tallies.counts)
        self._statements.add_groups(connection, tallies.report_groups)
        failing = [row for row in rows if row.incident is not None] if self._failure_reports else []
        if failing:
            incidents.add(connection, failing, tallies.identities, int(self._clock()))

    def _is_sampled(self, row: MessageRow) -> bool:
        """By random bits of the id, so that it is the same if the row comes again."""
        return int.from_bytes(row.id[-4:], "big") < self._kept


def message_values(row: MessageRow, tallies: Tallies) -> Values:
    """A row of the table `messages`, in the order of its columns.

    Truth values are numbers, since Python's driver for SQLite takes long to convert a bool.
    """
    dmarc = row.dmarc
    return (
        row.id,
        row.time,
        row.host,
        row.queue,
        row.stage,
        row.direction,
        row.client,
        row.client_name,
        row.helo,
        1 if row.null_sender else 0,
        row.sender_domain,
        row.author_domain,
        row.organizational_domain,
        row.message_id,
        row.recipient_count,
        as_json(row.recipient_domains),
        row.exempt,
        row.action,
        row.by,
        row.reason,
        row.override,
        row.reply,
        as_json(row.watched),
        row.signed,
        row.sealed,
        row.rewritten,
        row.milliseconds,
        as_json(row.waits),
        row.further_findings,
        result_of(row, "dmarc"),
        *(
            (None, "", "", 0, 0, "")
            if dmarc is None
            else (
                tallies.identities[dmarc.published],
                dmarc.policy,
                dmarc.disposition,
                1 if dmarc.dkim_aligned else 0,
                1 if dmarc.spf_aligned else 0,
                as_json(dmarc.reasons),
            )
        ),
        1 if row.report_mail else 0,
        row.sender,
        row.author,
        row.login,
        row.subject,
        tallies.group_of(row),
    )


def finding_values(row: MessageRow) -> Iterable[Values]:
    """Its rows of the table `findings`."""
    identity = row.id
    for number, found in enumerate(row.findings):
        yield (
            identity,
            number,
            found.method,
            found.key,
            found.result,
            found.domain,
            found.selector,
            1 if found.aligned else 0,
            found.reason,
        )


def _addresses(row: MessageRow) -> Iterable[Values]:
    for role, address in (("sender", row.sender), ("author", row.author), ("login", row.login)):
        if address:
            yield (row.id, role, 0, address, folded(address))
    for number, address in enumerate(row.recipients):
        yield (row.id, "recipient", number, address, folded(address))


def _answers(row: MessageRow) -> Iterable[Values]:
    if row.answers or row.further_answers:
        yield (row.id, as_json(row.answers), row.further_answers)


def folded(address: str) -> str:
    """An address as it is searched for: in lower case, without angle brackets."""
    return address.strip("<> ").lower()


def _storable(row: MessageRow) -> MessageRow:
    """The row with ``\\xNN`` for octets that are not UTF-8, and U+FFFD for NUL, which PostgreSQL does not store."""
    return msgspec.convert(_storable_value(msgspec.to_builtins(row, builtin_types=(bytes,))), MessageRow)


def _storable_value(value: object) -> object:
    if isinstance(value, str):
        return without_surrogates(value).replace("\0", "\N{REPLACEMENT CHARACTER}")
    return [_storable_value(item) for item in value] if isinstance(value, list | tuple) else value
