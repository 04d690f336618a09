# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports to the service manager, by the protocol of sd_notify(3): ready, reloading, stopping, status and watchdog.

Without a service manager, nothing is sent. The socket is removed from the environment, so that no child reports.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

#: Reports of the watchdog in each period that the service manager demands (sd_watchdog_enabled(3) advises two).
_REPORTS = 3


class Manager:
    """The service manager, if there is one. Make it once, before the first fork."""

    def __init__(self) -> None:
        path = os.environ.pop("NOTIFY_SOCKET", "")
        period, process = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        self._path = "\0" + path[1:] if path.startswith("@") else path
        self._status = ""
        #: Seconds between two reports that the daemon works; 0 if the service manager asks for none.
        self.period = 0.0
        if period.isdigit() and process in ("", str(os.getpid())):
            self.period = int(period) / 1_000_000 / _REPORTS
        self._next = 0.0

    def ready(self) -> None:
        """Workers serve, for the first time or with a new configuration."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A new configuration is read."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """No new connection is served."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """What the daemon does, in one line."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def alive(self) -> None:
        """The daemon works. More reports than the service manager needs are not sent."""
        if self.period and time.monotonic() >= self._next:
            self._next = time.monotonic() + self.period / 2
            self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._path:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.setblocking(False)
            sending.sendto(text.encode(), self._path)
