# SPDX-License-Identifier: GPL-3.0-or-later
"""Results to and from an AMQP 0-9-1 broker, so that many hosts need no connection to a database.

Each message's results are one persistent AMQP message in JSON. Its ``message_id`` is the row's id: a broker delivers at
least once, and whoever stores rows recognizes one that comes again. The routing key is direction and action, such as
``inbound.reject``, in a topic exchange.

The broker must confirm each message before it counts as taken (publisher confirms), and return it if no queue is bound
that takes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import uuid
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage, AbstractQueue

from assay.store.feeding import UnavailableError
from assay.store.json_form import to_json
from assay.store.rows import MessageRow

CONNECT_SECONDS = 10.0
CONFIRM_SECONDS = 60.0  # for all messages of a batch
_TYPE = "assay.message"
_FAULTS = (aio_pika.exceptions.AMQPError, OSError, asyncio.TimeoutError, RuntimeError)
_ERRNO = re.compile(r"\[Errno -?\d+\] ")  # before the system's words; asyncio joins several such errors

# The libraries report each attempt; the log has what the operator needs, with its own bound.
for _library in ("aio_pika", "aiormq"):
    logging.getLogger(_library).addHandler(logging.NullHandler())
    logging.getLogger(_library).propagate = False

Value = TypeVar("Value")


class RowPublisher:
    """A connection that publishes. It has an event loop of its own, which runs only during a call."""

    def __init__(self, url: str, password: str, exchange: str) -> None:
        """
        :param url: amqp or amqps, without a password.
        :param password: empty for the broker's default.
        :raises UnavailableError: the broker cannot be used now.
        """
        self._loop = asyncio.new_event_loop()
        self._connection: AbstractConnection | None = None
        try:
            self._exchange = self._do(self._connect(url, password, exchange))
        except UnavailableError:
            self.close()
            raise

    def write(self, rows: Sequence[MessageRow]) -> None:
        """Publish rows.

        :raises UnavailableError: the broker has not confirmed all of them; some may be there.
        """
        self._do(self._publish(rows))

    def tidy(self, now: float) -> None:
        """Nothing has to be done."""

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            with contextlib.suppress(*_FAULTS):
                self._loop.run_until_complete(asyncio.wait_for(self._connection.close(), CONNECT_SECONDS))
            self._connection = None
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, Value]) -> Value:
        try:
            return self._loop.run_until_complete(work)
        except _FAULTS as error:
            raise UnavailableError(in_words(error)) from error

    async def _connect(self, url: str, password: str, exchange: str) -> AbstractExchange:
        # Between two calls nobody answers heartbeats. A dead connection is noticed by the next batch.
        self._connection = await connect(url, password, heartbeat=0)
        channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        return await declared(channel, exchange)

    async def _publish(self, rows: Sequence[MessageRow]) -> None:
        async with asyncio.timeout(CONFIRM_SECONDS):
            published = [self._exchange.publish(_message(row), f"{row.direction}.{row.action}") for row in rows]
            outcomes = await asyncio.gather(*published, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, aio_pika.exceptions.DeliveryError):
                raise UnavailableError(
                    f"no queue takes it; bind one to the exchange {self._exchange.name!r}, or run: assay store consume"
                )
            if isinstance(outcome, BaseException):
                raise outcome


def _message(row: MessageRow) -> aio_pika.Message:
    return aio_pika.Message(
        to_json(row),
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=str(uuid.UUID(bytes=row.id)),
        timestamp=row.time / 1000,
        type=_TYPE,
    )


class Consumer:
    """A connection that receives, in batches."""

    def __init__(self, connection: AbstractConnection, channel: AbstractChannel, queue: AbstractQueue) -> None:
        self._connection = connection
        self._channel = channel
        self._queue = queue

    async def batches(self, most: int, gather: float) -> AsyncIterator[list[AbstractIncomingMessage]]:
        """Messages as they come, not acknowledged.

        :param most: how many at a time.
        :param gather: seconds from the first to the end of a batch.
        :raises UnavailableError: the broker delivers no more; what is not acknowledged comes again.
        """
        waiting: asyncio.Queue[AbstractIncomingMessage | str] = asyncio.Queue()  # a text says why there is no more
        self._connection.close_callbacks.add(lambda *_: waiting.put_nowait("the broker has closed the connection"))
        self._channel.close_callbacks.add(lambda *_: waiting.put_nowait("the broker has closed the channel"))
        # When a queue is deleted, the connection and the channel stay.
        deliveries = await self._channel.get_underlay_channel()
        deliveries.on_consumer_cancel_callbacks.add(
            lambda _: waiting.put_nowait(f"the queue {self._queue.name!r} is no longer there")
        )
        await self._queue.consume(waiting.put)
        while not isinstance(message := await waiting.get(), str):
            batch = [message]
            with contextlib.suppress(asyncio.TimeoutError):
                async with asyncio.timeout(gather):
                    while len(batch) < most and not isinstance(message := await waiting.get(), str):
                        batch.append(message)
            if isinstance(message, str):
                break
            yield batch
        raise UnavailableError(message)

    async def close(self) -> None:
        """End the connection; what is not acknowledged is delivered again."""
        await _close(self._connection)


async def open_consumer(url: str, password: str, exchange: str, queue: str, most: int) -> Consumer:
    """Declare a durable queue for all results, and receive from it.

    :param most: how many may be delivered that are not acknowledged.
    :raises UnavailableError: the broker cannot be used now.
    """
    connection = None
    try:
        connection = await connect(url, password)
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=most)
        found = await channel.declare_queue(queue, durable=True)
        await found.bind(await declared(channel, exchange), "#")
    except _FAULTS as error:
        if connection is not None:
            await _close(connection)
        raise UnavailableError(f"broker: {in_words(error)}") from error
    return Consumer(connection, channel, found)


async def connect(url: str, password: str, *, heartbeat: int = 60) -> AbstractConnection:
    """Connect to a broker.

    :param heartbeat: seconds between two signs of life; 0 for none.
    """
    target = aio_pika.connection.make_url(url).update_query(heartbeat=heartbeat)
    if password:
        target = target.with_password(password)
    return await aio_pika.connect(target, timeout=CONNECT_SECONDS)


async def declared(channel: AbstractChannel, exchange: str) -> AbstractExchange:
    """The durable topic exchange."""
    return await channel.declare_exchange(exchange, aio_pika.ExchangeType.TOPIC, durable=True)


async def _close(connection: AbstractConnection) -> None:
    with contextlib.suppress(*_FAULTS):
        await asyncio.wait_for(connection.close(), CONNECT_SECONDS)


def in_words(error: BaseException) -> str:
    """What a library reports, on one line. It never contains the URL, and so no password."""
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    return " ".join(_ERRNO.sub("", str(error)).split()) or type(error).__name__
