# SPDX-License-Identifier: GPL-3.0-or-later
"""What all tests share: asserts in modules of laws explain themselves, and slow programs are started once."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

import postgresql as program

pytest.register_assert_rewrite("mta.laws")

# A shell starts what runs in the background with SIGINT ignored, and the programs that tests interrupt would ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[program.Postgresql]:
    """A server for all tests. One that kills it starts it again."""
    if not program.is_there():
        pytest.skip(program.MISSING)
    with program.Postgresql() as server:
        yield server
