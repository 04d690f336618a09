# SPDX-License-Identifier: GPL-3.0-or-later
"""From a broker into a database: what many hosts publish, written in batches and acknowledged when it is written.

A message that is written and not acknowledged, because a process died in between, comes again. It is not written again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence

from aio_pika.abc import AbstractIncomingMessage

from assay.log import Log
from assay.store.broker import in_words, open_consumer
from assay.store.feeding import GATHER_SECONDS, TIDY_SECONDS, Backend, UnavailableError, write_all
from assay.store.json_form import from_json
from assay.store.rows import MessageRow

FIRST_WAIT_SECONDS = 1.0  # after a failure; doubled up to the longest
LONGEST_WAIT_SECONDS = 30.0
_BATCH_ROWS = 500  # our choice: twice as many are in memory, and another program may have made them longer than we do


class Consuming:
    """Consumes until it is cancelled."""

    def __init__(self, url: str, password: str, exchange: str, queue: str, backend: Backend, log: Log) -> None:
        """
        :param url: of the broker, without a password.
        :param backend: writes; in a thread, so that the connection stays alive meanwhile.
        """
        self.written = 0  #: rows, those that came again included
        self._where = url, password, exchange, queue
        self._backend = backend
        self._log = log
        self._wait = FIRST_WAIT_SECONDS
        self._tidy_at = 0.0

    async def run(self) -> None:
        """Consume, and connect again whenever the broker or the database was away."""
        while True:
            try:
                await self._consume()
            except UnavailableError as error:
                self._log.warning(f"store: {error}; consuming again in {self._wait:g} s")
            await asyncio.sleep(self._wait)
            self._wait = min(2 * self._wait, LONGEST_WAIT_SECONDS)

    async def _consume(self) -> None:
        consumer = await open_consumer(*self._where, 2 * _BATCH_ROWS)
        try:
            async for batch in consumer.batches(_BATCH_ROWS, GATHER_SECONDS):
                if time.monotonic() >= self._tidy_at:
                    await asyncio.to_thread(self._backend.tidy, time.time())
                    self._tidy_at = time.monotonic() + TIDY_SECONDS
                rows = [row for message in batch if (row := self._row(message)) is not None]
                if rows:
                    self.written += await asyncio.to_thread(write_all, self._backend, rows, self._refuse)
                await _acknowledge(batch)
                self._wait = FIRST_WAIT_SECONDS
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await consumer.close()

    def _row(self, message: AbstractIncomingMessage) -> MessageRow | None:
        try:
            return from_json(message.body)
        except ValueError as error:
            self._refuse(f"message {message.message_id}: {error}")
            return None

    def _refuse(self, why: str) -> None:
        self._log.error(f"store: a result cannot be written and is left out: {why}")


async def _acknowledge(batch: Sequence[AbstractIncomingMessage]) -> None:
    """:raises UnavailableError: the connection has ended; what was written comes again."""
    try:
        await batch[-1].ack(multiple=True)
    except (OSError, RuntimeError) as error:
        raise UnavailableError(in_words(error) if str(error) else "the broker closed the connection") from error
