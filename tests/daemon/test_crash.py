# SPDX-License-Identifier: GPL-3.0-or-later
"""libmilter crashes on a macro without a value: what it costs the sessions of others, and that the daemon recovers."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from contextlib import ExitStack
from pathlib import Path

import pytest

from assay.cli.mta import MilterError
from assay.config.endpoint import Endpoint
from faults.wire import MACROS, SESSION, packet
from running import PATIENCE, Daemon
from sending import ROWS, greet, results, send

ODD = b"".join(packet(b"D", b"Cj\0mx.example.org\0{x}\0") if each == MACROS else each for each in SESSION)
TIMES = 200  #: whether it crashes depends on what is in memory beyond the list
OTHERS = 8  #: open sessions, of which each worker has some


def crash(daemon: Daemon) -> bool:
    """Send what libmilter crashes on until it does."""
    for _ in range(TIMES):
        with contextlib.suppress(OSError), Endpoint.parse(daemon.socket).connect(PATIENCE) as connection:
            connection.sendall(ODD)
            while connection.recv(4096):
                pass
        if "died (signal" in daemon.log():
            return True
    return False


def test_a_crash_ends_the_sessions_of_its_worker_and_nothing_else(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    directory.mkdir()
    with (
        Daemon(tmp_path, ROWS, store={"directory": str(directory)}, log={"level": "debug"}) as daemon,
        ExitStack() as stack,
    ):
        before = daemon.workers()
        others = [stack.enter_context(daemon.mta()) for _ in range(OTHERS)]
        for number, mta in enumerate(others):
            greet(mta)
            send(mta, queue=f"Q{number}")
        if not crash(daemon):
            pytest.skip("this libmilter does not crash")
        cut = []
        for number, mta in enumerate(others, OTHERS):
            try:
                assert "dmarc=pass" in results(send(mta, queue=f"Q{number}")), "no session has another's results"
            except MilterError:
                cut.append(number)
        with daemon.mta() as mta:
            greet(mta)
            assert "dmarc=pass" in results(send(mta, queue="Qlast"))
        dead = set(map(int, re.findall(r"worker (\d+) died \(signal 11\); starting another", daemon.log())))
        assert before - daemon.workers() == dead
    # Each message that got a reply has a row, in the worker that crashed too.
    with contextlib.closing(sqlite3.connect(directory / "store.sqlite")) as connection:
        stored = [queue for (queue,) in connection.execute("SELECT queue FROM messages") if queue]
    answered = {f"Q{number}" for number in range(2 * OTHERS) if number not in cut} | {"Qlast"}
    assert answered <= set(stored)
