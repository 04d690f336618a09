# SPDX-License-Identifier: GPL-3.0-or-later
"""Work in a process of its own, beside an event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from assay.daemon.forked import ForkedError, forked


def children() -> set[int]:
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


@pytest.fixture(autouse=True)
def no_child_is_left() -> object:
    before = children()
    yield
    assert children() == before


def test_it_returns_what_the_function_does_while_the_loop_goes_on() -> None:
    async def both() -> tuple[bytes, float]:
        began = time.monotonic()
        work = asyncio.create_task(forked(lambda: time.sleep(0.5) or b"x" * 1_000_000, 20))  # type: ignore[func-returns-value]
        await asyncio.sleep(0.01)
        return await work, time.monotonic() - began

    answer, seconds = asyncio.run(both())
    assert answer == b"x" * 1_000_000
    assert seconds < 10


def test_it_has_nothing_that_this_process_has_open() -> None:
    ours, theirs = socket.socketpair()

    def look() -> bytes:
        try:
            os.fstat(ours.fileno())
        except OSError:
            return b"closed"
        return b"open"

    with ours, theirs:
        assert asyncio.run(forked(look, 20)) == b"closed"


def test_an_exception_a_death_and_too_long_a_time_are_told() -> None:
    with pytest.raises(ForkedError, match="ZeroDivisionError"):
        asyncio.run(forked(lambda: bytes(1 // 0), 20))
    with pytest.raises(ForkedError, match="its process died"):
        asyncio.run(forked(lambda: bytes(os.kill(os.getpid(), signal.SIGKILL) or 0), 20))  # type: ignore[func-returns-value]
    with pytest.raises(ForkedError, match=r"it took longer than 0\.1 s"):
        asyncio.run(forked(lambda: bytes(signal.pause() or 0), 0.1))  # type: ignore[func-returns-value]


def test_who_does_not_wait_any_more_ends_it() -> None:
    async def leave() -> None:
        work = asyncio.create_task(forked(lambda: bytes(signal.pause() or 0), 20))  # type: ignore[func-returns-value]
        await asyncio.sleep(0.05)
        work.cancel()
        await asyncio.wait([work])
        assert work.cancelled()

    asyncio.run(leave())


def test_those_that_it_has_forked_end_with_it() -> None:
    """Otherwise a client that leaves in the middle of each mail would leave a process for each."""
    reading, writing = os.pipe()

    def fork() -> bytes:
        inner, outer = os.pipe()
        if os.fork():
            os.read(inner, 1)  # what it has forked runs
            signal.pause()
        descriptor = os.open(f"/proc/{parent}/fd/{writing}", os.O_WRONLY)  # open for as long as it lives
        os.write(descriptor, b"x")
        os.write(outer, b"x")
        signal.pause()
        os._exit(os.EX_OK)

    parent = os.getpid()
    with pytest.raises(ForkedError, match=r"it took longer than 1 s"):
        asyncio.run(forked(fork, 1))
    os.close(writing)
    with open(reading, "rb") as file:
        assert file.read() == b"x", "the end is seen"


def test_half_an_answer_is_none() -> None:
    def die_while_writing() -> bytes:
        whole = os.write

        def half(descriptor: int, octets: memoryview) -> int:
            whole(descriptor, octets[:10])
            os.kill(os.getpid(), signal.SIGKILL)
            return 0

        os.write = half  # type: ignore[assignment]
        return b"x" * 1000

    with pytest.raises(ForkedError, match="its process died: Killed"):
        asyncio.run(forked(die_while_writing, 20))
