# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of reports share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nameserver import NameServer
from postgresql import Postgresql
from receiving import Receiver
from report_world import NOTHING, ROWS, Reporting


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A relay."""
    with Receiver() as running:
        yield running


@pytest.fixture
def nameserver() -> Iterator[NameServer]:
    """A DNS."""
    with NameServer(ROWS) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest) -> str:
    """``store.database`` of each kind."""
    if request.param == "sqlite":
        return "sqlite"
    server: Postgresql = request.getfixturevalue("postgresql")
    return server.create()


@pytest.fixture
def section() -> Mapping[str, Any]:
    """Further keys of ``[reports]`` in `world`."""
    return NOTHING


@pytest.fixture
def world(
    tmp_path: Path, nameserver: NameServer, receiver: Receiver, location: str, section: Mapping[str, Any]
) -> Iterator[Reporting]:
    """A reporter with each kind of database."""
    made = Reporting(tmp_path, nameserver, receiver, section, location)
    yield made
    made.database.close()
