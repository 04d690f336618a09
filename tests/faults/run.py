# SPDX-License-Identifier: GPL-3.0-or-later
"""What a scenario is, and what it works on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from faults.account import Account
from faults.logs import Logged
from mta.base import MTA


class Run(Struct):
    """One run of a scenario.

    :ivar long: whether it has the numbers of docs/reliability.md, or fewer, as in CI.
    """

    daemon: Logged
    mta: MTA
    account: Account
    seconds: float
    long: bool = False

    def pause(self, part: float = 1.0) -> None:
        """Let mail flow for a part of the time."""
        time.sleep(self.seconds * part)

    def times(self, few: int, many: int) -> int:
        """How often to do something: in the short form, and in the long one."""
        return many if self.long else few


class Scenario(Struct, frozen=True):
    """One fault.

    :ivar text: what an operator reads.
    :ivar allowed: what may become of messages beside ``right`` and ``refused``.
    :ivar sections: of the daemon's configuration.
    :ivar files: how many descriptors each of its processes may have, 0 for the usual.
    :ivar log: where its log goes: ``file``, or a reader that can stop: ``pipe``, ``syslog``, ``journald``.
    """

    text: str
    run: Callable[[Run], None]
    allowed: frozenset[str] = frozenset()
    sections: Mapping[str, Mapping[str, Any]] = {}
    files: int = 0
    log: str = "file"
