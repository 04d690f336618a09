# SPDX-License-Identifier: GPL-3.0-or-later
"""Python packages that only some settings need: which of them are missing, and the command that installs them."""

from __future__ import annotations

import shlex
import sys
from importlib.util import find_spec


def installing(**packages: str) -> str:
    """The command that installs the packages that are missing; empty if none is.

    It names the Python that runs: packages of another one, such as those of Debian, are not found.

    :param packages: by module, under the name that pip knows.
    """
    missing = [package for module, package in packages.items() if find_spec(module) is None]
    return command(*missing) if missing else ""


def command(*packages: str) -> str:
    """The command that installs packages where this program finds them."""
    return shlex.join([sys.executable or "python3", "-m", "pip", "install", *packages])
