# SPDX-License-Identifier: GPL-3.0-or-later
"""An empty database of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.store.database import Database, connect, open_database
from postgresql import PASSWORD, Postgresql


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The location of a database without tables."""
    if request.param == "sqlite":
        return str(tmp_path / "store.sqlite")
    server: Postgresql = request.getfixturevalue("postgresql")
    return server.create()


@pytest.fixture
def database(where: str) -> Iterator[Database]:
    """A database with tables."""
    new = connect(where, PASSWORD)
    new.migrate()
    new.close()
    database = open_database(where, PASSWORD)
    yield database
    database.close()
