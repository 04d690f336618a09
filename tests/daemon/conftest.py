# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import socket
from pathlib import Path

import pytest


@pytest.fixture
def free_port() -> int:
    """A TCP port of the loopback that was free a moment ago."""
    with socket.socket(socket.AF_INET6) as one:
        one.bind(("::1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """``store.directory``."""
    directory = tmp_path / "store"
    directory.mkdir()
    return directory
