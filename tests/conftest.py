# SPDX-License-Identifier: GPL-3.0-or-later
"""What all tests share: asserts in modules of laws explain themselves, and slow programs are started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import postgresql as program

pytest.register_assert_rewrite("mta.laws")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[program.Postgresql]:
    """A server for all tests. One that kills it starts it again."""
    if not program.is_there():
        pytest.skip(program.MISSING)
    with program.Postgresql() as server:
        yield server
