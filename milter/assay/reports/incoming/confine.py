# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the code that reads a stranger's file in a child process that can use little, and open nothing.

The child inherits all modules, so a report costs a fork and not a start of Python. It has no descriptor of its parent's
but those for output, and cannot get a new one: no file, no socket, no program. What it takes too much of ends it, and
not its parent.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

from assay.forking import fork_for
from assay.reports.incoming.texts import UnreadableError

MAX_MEMORY_MIB = 512  # on top of what the parent has; measured: 300 for a report of `scan.MAX_RECORDS`
MAX_CPU_SECONDS = 60  # our choice; measured: 7 for such a report
MAX_WAIT_SECONDS = 300  # for a child that waits for a busy machine
MAX_RESULT_OCTETS = 64 * 1024 * 1024  # our choice: the values take less than the report

_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_FROM_OUTSIDE = (*_STOPS, signal.SIGKILL)  # the kernel sends the last when the memory of the unit is used up
_DONE, _TOO_LARGE, _BUG = b"d", b"m", b"b"


def confined(work: Callable[[], bytes]) -> bytes:
    """Call a function in a child process, and return what it returns.

    Call it in a process with one thread, and import before what the function needs.

    :raises UnreadableError: it took more than the bounds allow.
    :raises RuntimeError: it raised an exception, which is a bug; the message is its traceback.
    :raises OSError: there is no process or descriptor left, or somebody has ended the child.
    """
    child, reading = fork_for(partial(_done, work))
    try:
        answer = _answer(reading)
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # it has answered, or is not to go on
        _, status = os.waitpid(child, 0)
    if answer is None:
        raise UnreadableError(f"reading it takes longer than {MAX_WAIT_SECONDS} s")
    kind, result = answer[:1], answer[1:]
    if os.WIFSIGNALED(status) and kind != _TOO_LARGE:  # what it wrote may be cut off
        kind, number = b"", os.WTERMSIG(status)
        if number == signal.SIGXCPU:
            raise UnreadableError(f"reading it takes more than {MAX_CPU_SECONDS} s of CPU")
        if number in _FROM_OUTSIDE:
            raise ChildProcessError(f"the process that reads it was ended: {signal.strsignal(number)}")
    if kind == _DONE:
        return result
    if kind == _BUG:
        raise RuntimeError(result.decode("utf-8", "replace"))
    raise UnreadableError(f"reading it takes more than {MAX_MEMORY_MIB} MiB of memory")  # also where a library aborted


def _answer(reading: int) -> bytes | None:
    """What the child writes until it ends; None for one that takes too long."""
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    chunks: list[bytes] = []
    size = 0
    while select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
        chunk = os.read(reading, 1 << 20)
        size += len(chunk)
        if not chunk or size > MAX_RESULT_OCTETS:
            return b"".join(chunks) if not chunk else _TOO_LARGE
        chunks.append(chunk)
    return None


def _done(work: Callable[[], bytes]) -> bytes:
    try:
        for number in _STOPS:
            signal.signal(number, signal.SIG_DFL)
        warnings.simplefilter("ignore")
        os.environ["TZ"] = "UTC"
        time.tzset()
        _confine()
        return _DONE + work()
    except (MemoryError, SystemError):  # expat raises the latter too when there is no memory
        return _TOO_LARGE
    except BaseException:  # a bug of ours: the parent reports it
        return _BUG + traceback.format_exc(limit=-10).encode("utf-8", "replace")


def _confine() -> None:
    """Set the bounds of this process. Only those of memory and CPU differ from what it needs."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for what, most in (
        (resource.RLIMIT_AS, used + MAX_MEMORY_MIB * 1048576),
        (resource.RLIMIT_CPU, MAX_CPU_SECONDS),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # The bound of CPU is that of SIGXCPU, which comes from nowhere else. SIGKILL would follow a second later.
        later = most + 1 if what == resource.RLIMIT_CPU and hard != most else most
        resource.setrlimit(what, (most, later))
