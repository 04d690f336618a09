# SPDX-License-Identifier: GPL-3.0-or-later
"""Queries over TCP, each with its own connection (RFC 7766, 5).

They are for answers that did not fit into a datagram, and rare. Each takes a descriptor, so the caller must bound
their number.
"""

from __future__ import annotations

import asyncio
import os
import struct
from contextlib import suppress

from assay.resolver import wire
from assay.resolver.nameservers import Nameserver
from assay.resolver.statistics import Statistics
from assay.resolver.transport import Cause, Done, ExchangeFault, words


class Streams:
    """Asks over TCP."""

    def __init__(self, loop: asyncio.AbstractEventLoop, statistics: Statistics, authentic: bool) -> None:
        """
        :param authentic: ask for the AD bit.
        """
        self._loop = loop
        self._statistics = statistics
        self._authentic = authentic

    def ask(self, server: Nameserver, asked: bytes, patience: float, done: Done, extended: bool = True) -> Stream:
        """Send a query.

        :param asked: the question section.
        :param patience: seconds to wait for the answer.
        :param done: called once, later, with the message that answers, or why there is none.
        :param extended: the server supports EDNS.
        """
        self._statistics.streams += 1
        identifier = int.from_bytes(os.urandom(2), "big")
        message = wire.query(identifier, asked, self._authentic, extended)
        return Stream(self._loop.create_task(self._run(server, identifier, asked, message, patience, done)))

    async def _run(
        self, server: Nameserver, identifier: int, asked: bytes, message: bytes, patience: float, done: Done
    ) -> None:
        outcome: bytes | ExchangeFault
        try:
            async with asyncio.timeout(patience):
                outcome = await _exchange(server, message)
        except TimeoutError:
            self._statistics.timeouts += 1
            outcome = ExchangeFault(Cause.OTHER, f"did not answer over TCP within {patience:g} s")
        except asyncio.IncompleteReadError:
            outcome = ExchangeFault(Cause.OTHER, "closed the TCP connection without an answer")
        except OSError as error:
            outcome = ExchangeFault(Cause.OTHER, f"could not be asked over TCP ({words(error)})")
        else:
            if not wire.answers(outcome, identifier, asked):
                outcome = ExchangeFault(Cause.OTHER, "sent a message over TCP that is not an answer")
        done(outcome)


class Stream:
    """A query over TCP in flight."""

    __slots__ = ("_task",)

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def cancel(self) -> None:
        """Stop; `done` will not be called."""
        self._task.cancel()


async def _exchange(server: Nameserver, message: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server.address, server.port)
    try:
        writer.write(struct.pack("!H", len(message)) + message)  # RFC 1035, 4.2.2
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        return await reader.readexactly(length)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
