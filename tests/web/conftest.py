# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the page share: a store of 100,000 messages, made once."""

from __future__ import annotations

import pytest

from assay.config.store import StoreSection
from web.pages import COUNT, filled


@pytest.fixture(scope="session")
def large_store(tmp_path_factory: pytest.TempPathFactory) -> StoreSection:
    """The store. A test that changes something in it changes it back."""
    return filled(tmp_path_factory.mktemp("large"), COUNT)
