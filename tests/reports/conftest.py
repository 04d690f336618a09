# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of reports share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from receiving import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A relay."""
    with Receiver() as running:
        yield running
