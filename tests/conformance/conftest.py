# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the published cases share: the daemons, which are dear to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conformance.answer_whole import Filter


@pytest.fixture(scope="session")
def whole_filter() -> Iterator[Filter]:
    """Daemons that answer cases for the whole filter."""
    with Filter() as started:
        yield started
