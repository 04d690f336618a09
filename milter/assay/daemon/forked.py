# SPDX-License-Identifier: GPL-3.0-or-later
"""Do something in a process of its own, while the event loop goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import traceback
from collections.abc import Callable
from functools import partial

from assay.forking import fork_for

_DONE, _FAILED = b"d", b"f"


class ForkedError(Exception):
    """The process did not do it. The message says why."""


async def forked(work: Callable[[], bytes], seconds: float) -> bytes:
    """Call a function in a new process, and return what it returns. If the caller is cancelled, the process ends,
    and so do those that it has forked.

    The function finds all modules and values, and no file, socket or pipe of this process: only what it opens itself.

    :param work: must not log, as the sockets of the log are closed too.
    :param seconds: how long it may take.
    :raises ForkedError: it raised an exception, took too long, or died.
    :raises OSError: there is no process or descriptor left.
    """
    process, reading = fork_for(partial(_done, work))
    with contextlib.suppress(OSError):  # it has ended, or done so itself
        os.setpgid(process, process)
    try:
        async with asyncio.timeout(seconds):
            answer = await _answer(reading)
    except TimeoutError:
        raise ForkedError(f"it took longer than {seconds:g} s") from None
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)  # it has answered, or is not to go on; nor are those that it has forked
        _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):  # what it wrote may be cut off
        raise ForkedError(f"its process died: {signal.strsignal(os.WTERMSIG(status))}")
    if answer[:1] == _DONE:
        return answer[1:]
    raise ForkedError(answer[1:].decode("utf-8", "replace") or "its process died")


async def _answer(reading: int) -> bytes:
    """What the process writes until it ends."""
    os.set_blocking(reading, False)
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(reading, readable.set)
    chunks: list[bytes] = []
    try:
        while True:
            await readable.wait()
            readable.clear()
            with contextlib.suppress(BlockingIOError):
                chunk = os.read(reading, 65_536)
                if not chunk:
                    return b"".join(chunks)
                chunks.append(chunk)
    finally:
        loop.remove_reader(reading)


def _done(work: Callable[[], bytes]) -> bytes:
    try:
        os.setpgid(0, 0)
        return _DONE + work()
    except BaseException:  # the parent reports it
        return _FAILED + traceback.format_exc(limit=-10).encode("utf-8", "replace")
