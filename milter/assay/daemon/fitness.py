# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a worker can go on. One that cannot is replaced: a new process has memory and threads again.

Without memory libmilter accepts connections and never answers them, and pymilter loses events. A thread of ours that
has ended is missing for good.
"""

from __future__ import annotations

import mmap
import threading

from assay.daemon.capacity import FREE
from assay.daemon.connection import SessionCount


class UnfitError(Exception):
    """The worker cannot go on. The message says why."""


def check(sessions: SessionCount) -> None:
    """Check that the worker can go on.

    :raises UnfitError: it cannot.
    """
    if not sessions.given_up:
        try:
            mmap.mmap(-1, FREE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
        except (OSError, MemoryError):
            sessions.give_up("no memory is left (LimitAS=, LimitDATA=, ulimit -v, ulimit -d)")
    if sessions.given_up:
        raise UnfitError(sessions.given_up)


def watch_threads(sessions: SessionCount) -> None:
    """Give up when a thread of ours ends by an exception. Call it once in a process."""

    def ended(arguments: threading.ExceptHookArgs) -> None:
        sessions.give_up("a thread has ended")  # first: it needs no memory
        name = arguments.thread.name if arguments.thread else "unknown"
        sessions.given_up = f"the thread {name} has ended: {arguments.exc_value!r}"

    threading.excepthook = ended
