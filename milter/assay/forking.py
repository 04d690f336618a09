# SPDX-License-Identifier: GPL-3.0-or-later
"""A child process that answers once, and has nothing of its parent's but modules and values."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from typing import NoReturn

_FIRST_DESCRIPTOR = 3  # after those of input and output


def fork_for(answer: Callable[[], bytes]) -> tuple[int, int]:
    """Start a child that calls a function, writes what it returns to a pipe, and ends.

    It has no file, socket or pipe of this process but those for input and output: only what the function opens.

    :param answer: raises no exception, and does not log: the sockets of the log are closed too.
    :returns: the child, for ``waitpid``, and the descriptor to read from.
    :raises OSError: there is no process or descriptor left.
    """
    reading, writing = os.pipe()
    try:
        child = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    if not child:
        _answer(answer, writing)
    os.close(writing)
    return child, reading


def _answer(answer: Callable[[], bytes], writing: int) -> NoReturn:
    try:
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        os.closerange(_FIRST_DESCRIPTOR, writing)
        os.closerange(writing + 1, most)
        view = memoryview(answer())
        while view:
            view = view[os.write(writing, view) :]
    finally:
        os._exit(os.EX_OK)
