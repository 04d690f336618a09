# SPDX-License-Identifier: GPL-3.0-or-later
"""resolv.conf(5), followed while the resolver runs: DHCP, VPNs and people change it, and a daemon runs for months.

It is checked when a question is asked, in the loop's thread, at most once in `PAUSE` seconds: one stat(2). A file that
cannot be used changes nothing: it may be half written, and servers that answered are better than none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from assay.resolver.nameservers import RESOLV_CONF, Nameserver, named_in

#: Seconds between two checks: for at most as long, lookups go to servers that are gone.
PAUSE = 3.0


class ResolvConf:
    """Watches the file. `tell` is called with a line for the log if it cannot be used."""

    def __init__(self, tell: Callable[[str], None], path: Path = RESOLV_CONF) -> None:
        self._tell = tell
        self._path = path
        self._next_look = float("-inf")
        self._seen: object = None  # identifies the file and its version
        self._faulty = True  # a fault from the start has been reported already

    def changed(self, now: float) -> tuple[Nameserver, ...]:
        """The nameservers that the file names, at the first check and after each change; else none.

        :param now: seconds that never go back.
        """
        if now < self._next_look:
            return ()
        self._next_look = now + PAUSE
        try:
            status = self._path.stat()
            seen = status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
            if seen == self._seen:
                return ()
            self._seen = seen
            found = named_in(self._path.read_text("ascii", "replace"))
            fault = "" if found else "names no nameserver"
        except OSError as error:
            self._seen, found, fault = None, (), str(error.strerror)
        if fault and not self._faulty:
            self._tell(f"{self._path}: {fault}; the nameservers stay as they are")
        self._faulty = bool(fault)
        return found
