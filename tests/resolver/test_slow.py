# SPDX-License-Identifier: GPL-3.0-or-later
"""The line about clients that ask for too much, without a nameserver."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from assay.inquiry import Asker
from assay.resolver.slow import LONG, MAX_CLIENTS, Delays


def test_a_line_counts_a_bounded_number_of_clients() -> None:
    told: list[str] = []
    due: list[Callable[[], None]] = []
    delays = Delays(told.append, lambda _, call: due.append(call))
    for number in range(2 * MAX_CLIENTS):
        delays.note(Asker(ip_address(0x0A000000 + number)), "a.example", LONG)
    (flush,) = due
    flush()
    (line,) = told
    assert line.startswith(f"{MAX_CLIENTS} DNS questions waited up to 1.0 s ")
    assert line.endswith(f" and {MAX_CLIENTS - 1} other clients")
