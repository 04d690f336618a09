# SPDX-License-Identifier: GPL-3.0-or-later
"""Work in a process of its own, beside an event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from assay.daemon.forked import ForkedError, forked
from forking import killed, killed_while_writing, what_it_has_open


def children() -> set[int]:
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


@pytest.fixture(autouse=True)
def no_child_is_left() -> object:
    before = children()
    yield
    assert children() == before


def pause() -> bytes:
    signal.pause()
    return b""


def test_it_returns_what_the_function_does_while_the_loop_goes_on() -> None:
    def slow() -> bytes:
        time.sleep(0.5)
        return b"x" * 1_000_000

    async def both() -> tuple[bytes, float]:
        began = time.monotonic()
        work = asyncio.create_task(forked(slow, 20))
        await asyncio.sleep(0.01)
        return await work, time.monotonic() - began

    answer, seconds = asyncio.run(both())
    assert answer == b"x" * 1_000_000
    assert seconds < 10


def test_it_has_nothing_that_this_process_has_open() -> None:
    assert what_it_has_open(lambda look: asyncio.run(forked(look, 20))) == b"closed"


def test_an_exception_a_death_and_too_long_a_time_are_told() -> None:
    with pytest.raises(ForkedError, match="ZeroDivisionError"):
        asyncio.run(forked(lambda: bytes(1 // 0), 20))
    with pytest.raises(ForkedError, match="its process died"):
        asyncio.run(forked(killed, 20))
    with pytest.raises(ForkedError, match=r"it took longer than 0\.1 s"):
        asyncio.run(forked(pause, 0.1))


def test_who_does_not_wait_any_more_ends_it() -> None:
    async def leave() -> None:
        work = asyncio.create_task(forked(pause, 20))
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
    with pytest.raises(ForkedError, match="its process died: Killed"):
        asyncio.run(forked(killed_while_writing, 20))
