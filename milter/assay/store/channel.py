# SPDX-License-Identifier: GPL-3.0-or-later
"""From the workers to the recorder: a pair of sockets that outlives both.

The supervisor makes the pair before its first fork and keeps it. What a worker has sent waits in the kernel, so neither
the death of the worker nor that of the recorder loses it. The recorder looks at some rows, writes them to its spool,
and only then takes them from the socket. The process that reads has a lock on the socket, which ends with it, so that
workers that have outlived the supervisor see when none reads (`assay.store.stand_in`).

A worker never waits: what the socket does not take is kept in memory up to a bound, and offered again with the next row
and once a second. Beyond the bound rows are lost and counted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import termios
import threading
from collections import deque

from assay.store.rows import MAX_ROW_OCTETS

MAX_QUEUE_OCTETS = 8 * 1024 * 1024  # of rows that one worker keeps, our choice: ten thousand messages
_BUFFER_OCTETS = 4 * 1024 * 1024  # of the socket; the kernel cuts it to net.core.wmem_max without privileges
_INT = struct.Struct("i")
_SO_SNDBUFFORCE = 32  # <asm/socket.h>
_SO_PEEK_OFF = 42  # the same: where the next look begins (socket(7))
MAX_LOOK = 64  # rows that are looked at together, our choice: 8 MiB at most, 64 KiB of usual ones


class RowChannel:
    """The pair."""

    def __init__(self) -> None:
        """:raises OSError: no descriptor left."""
        self._maker = os.getpid()
        self._receiving, self._sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sending.setblocking(False)
        self._receiving.setblocking(False)
        for option in (socket.SO_SNDBUF, _SO_SNDBUFFORCE):
            with contextlib.suppress(PermissionError):
                self._sending.setsockopt(socket.SOL_SOCKET, option, _BUFFER_OCTETS)

    def sender(self) -> Sender:
        """The end of a worker. Call it in its process."""
        return Sender(self._sending)

    def receiver(self) -> Receiver:
        """The end of the recorder. Call it in its process. If another process still reads, wait for its end."""
        self._sending.close()
        fcntl.lockf(self._receiving, fcntl.LOCK_EX)
        return Receiver(self._receiving)

    def unread(self) -> Receiver | None:
        """The end of the recorder, for a process that has both ends; None if another process reads."""
        try:
            fcntl.lockf(self._receiving, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return None
        return Receiver(self._receiving)

    @property
    def orphaned(self) -> bool:
        """Whether the process that made the pair, and would start another recorder, has ended. For its children."""
        return os.getppid() != self._maker

    def end_sending(self) -> bool:
        """Close the sending end in this process.

        :returns: whether no other process has it.
        """
        self._sending.close()
        return _nobody_sends(self._receiving)

    def waits(self) -> bool:
        """Whether a row waits. For a process that may not read, and must not move what the other one looks at."""
        octets = bytearray(_INT.size)
        fcntl.ioctl(self._receiving, termios.FIONREAD, octets)
        return bool(_INT.unpack(octets)[0])

    def close(self) -> None:
        """Close both ends here, in a process that needs neither: whoever receives sees when all senders have ended."""
        self._sending.close()
        self._receiving.close()


class Sender:
    """A worker's end. Any thread may call it."""

    def __init__(self, sending: socket.socket) -> None:
        self._socket = sending
        self._lock = threading.Lock()
        self._queue: deque[bytes] = deque()
        self._octets = 0
        self.sent = 0  #: rows that the recorder gets, whatever happens to this process
        self.lost = 0  #: rows for which there was no place

    @property
    def waiting(self) -> int:
        """How many rows are in memory."""
        return len(self._queue)

    def send(self, row: bytes) -> bool:
        """Hand over a row, at once or later.

        :returns: whether there was a place for it.
        """
        with self._lock:
            if self._queue:
                self._flush()
            if not self._queue and self._offer(row):
                return True
            if self._octets + len(row) > MAX_QUEUE_OCTETS:
                self.lost += 1
                return False
            self._queue.append(row)
            self._octets += len(row)
            return True

    def flush(self) -> bool:
        """Offer again what waits.

        :returns: whether nothing waits any more.
        """
        with self._lock:
            self._flush()
            return not self._queue

    def end(self) -> int:
        """Send no more. Who calls `send` or `flush` from here on waits for the end of the process, which has to come
        soon: a message without a row gets no reply, so that the MTA offers it again.

        :returns: how many rows are lost.
        """
        self._lock.acquire()
        self.lost += len(self._queue)
        return len(self._queue)

    def _flush(self) -> None:
        while self._queue and self._offer(self._queue[0]):
            self._octets -= len(self._queue.popleft())

    def _offer(self, row: bytes) -> bool:
        try:
            self._socket.send(row)
        except BlockingIOError:
            return False
        except OSError:  # longer than the socket takes
            self.lost += 1
            return True
        self.sent += 1
        return True


class Receiver:
    """The recorder's end."""

    def __init__(self, receiving: socket.socket) -> None:
        self._socket = receiving
        self._buffer = bytearray(MAX_ROW_OCTETS)
        self._view = memoryview(self._buffer)

    @property
    def ended(self) -> bool:
        """Whether all senders have ended. Rows may still wait; what is looked for after this is all there is."""
        return _nobody_sends(self._socket)

    def fileno(self) -> int:
        """For select(2)."""
        return self._socket.fileno()

    def wait(self, seconds: float) -> None:
        """Wait until there is a row, or no sender is left."""
        select.select([self._socket], [], [], seconds)

    def look(self, most: int = MAX_LOOK) -> list[bytes]:
        """The next rows, in their order, which stay where they are; none if there are none now."""
        rows: list[bytes] = []
        # From the first row on, also after a process that looked at them and died. Each look begins after the last.
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, 0)
        while len(rows) < most:
            try:
                length = self._socket.recv_into(self._buffer, 0, socket.MSG_PEEK)
            except BlockingIOError:
                break
            if not length:  # all senders have ended
                break
            rows.append(bytes(self._view[:length]))
        return rows

    def take(self, count: int = 1) -> None:
        """Remove as many rows that `look` has shown."""
        for _ in range(count):
            self._socket.recv(1)

    def discard(self) -> int:
        """Take all that waits.

        :returns: how many rows that were.
        """
        count = 0
        while rows := self.look():
            self.take(len(rows))
            count += len(rows)
        return count

    def close(self) -> None:
        """Let another process read."""
        self._socket.close()


def _nobody_sends(receiving: socket.socket) -> bool:
    look = select.poll()
    look.register(receiving, 0)  # a hang-up is always reported
    return bool(look.poll(0))
