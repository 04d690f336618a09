# SPDX-License-Identifier: GPL-3.0-or-later
"""What reads rows in place of the recorder, when it has died and no process starts another.

That is so once the supervisor has ended: workers may outlive it, for minutes. It only spools. The recorder of the next
daemon takes over what it finds in a spool that no process uses.
"""

from __future__ import annotations

import time
from pathlib import Path

from assay.model.wording import counted
from assay.store.channel import Receiver, RowChannel
from assay.store.spool import Spool, SpoolFullError, take

_PAUSE_SECONDS = 0.02


class NotTakenError(Exception):
    """Rows cannot be spooled. The message says where and why. They stay in the socket."""


class StandIn:
    """Of one process that has both ends of the socket. One thread may call it."""

    def __init__(self, channel: RowChannel, directory: str, most: int) -> None:
        """
        :param directory: ``store.directory``; empty if results are no longer kept.
        :param most: see `Spool`.
        """
        self._channel = channel
        self._directory = directory
        self._most = most
        self._receiver: Receiver | None = None
        self._spool: Spool | None = None

    def read(self) -> None:
        """Spool what waits, unless another process reads. From then on, no other process does.

        :raises NotTakenError: the disk takes nothing, or the spool has reached its bound.
        """
        if self._receiver is None:
            self._receiver = self._channel.unread()
        if self._receiver is None or not self._receiver.look(1):
            return
        if not self._directory:
            raise NotTakenError("store.directory is no longer set")
        root = Path(self._directory) / "spool"
        try:
            if self._spool is None:
                self._spool = take(root, self._most, ())
            while rows := self._receiver.look(1):  # the spool may have a place for the first of some
                self._spool.append(*rows)
                self._receiver.take()
        except SpoolFullError:
            raise NotTakenError(f"{root} has reached store.spool_octets") from None
        except OSError as error:
            raise NotTakenError(f"{root}: {error.strerror}") from error

    def settle(self, seconds: float) -> str:
        """Leave no row behind, if no other process can send one. Call it just before this process ends.

        :param seconds: how long it may take, if another process reads or the disk takes nothing.
        :returns: how many rows are lost, and why; empty if none are.
        """
        if not self._channel.end_sending():
            return ""  # the others do it
        deadline = time.monotonic() + seconds
        fault = ""
        while self._channel.waits():
            try:
                self.read()
            except NotTakenError as error:
                fault = str(error)
            if time.monotonic() >= deadline:
                break
            time.sleep(_PAUSE_SECONDS)
        if self._spool is not None:
            self._spool.close()
        lost = self._receiver.discard() if self._receiver is not None else 0
        return f"{counted(lost, 'result')} lost: {fault}" if lost else ""
