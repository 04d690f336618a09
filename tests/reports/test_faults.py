# SPDX-License-Identifier: GPL-3.0-or-later
"""A database that is away at any one step of the sender: each report arrives once, or it is told as given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from assay.store.database import Connection, Database
from assay.store.feeding import UnavailableError
from nameserver import NameServer
from receiving import Receiver
from report_world import LATER, NEXT_DAY, Reporting, seen

_Transaction = Callable[[Database], AbstractContextManager[Connection]]


class Faults:
    """Counts the transactions, and ends one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
        """:param after: what it changes is in the database all the same, and only the answer is lost."""
        self.at = self.count = 0
        self._after = after
        for name in ("reading", "writing"):
            monkeypatch.setattr(Database, name, self._failing(getattr(Database, name)))

    def _failing(self, transaction: _Transaction) -> _Transaction:
        @contextmanager
        def failing(database: Database) -> Iterator[Connection]:
            self.count += 1
            is_now = self.count == self.at
            if is_now and not self._after:
                raise UnavailableError("away")
            with transaction(database) as connection:
                yield connection
            if is_now:
                raise UnavailableError("away")

        return failing


@pytest.mark.parametrize("after", [False, True])
def test_a_database_that_is_away_at_any_step(
    tmp_path: Path, nameserver: NameServer, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    faults = Faults(monkeypatch, after=after)
    addresses = ("z@example.com", "d@reader.example")
    given_up = step = 0
    has_failed = True
    while has_failed:
        step += 1
        (folder := tmp_path / str(step)).mkdir()
        with Receiver() as receiver:
            faults.at = 0
            world = Reporting(folder, nameserver, receiver)
            world.see(seen(1, rua=",".join(f"mailto:{address}" for address in addresses)))
            faults.count, faults.at = 0, step
            world.turn(NEXT_DAY)
            world.turn(LATER)
            has_failed = faults.count >= step
            faults.at = 0
            world.turn(LATER + 20)
            world.turn(LATER + 5 * 3600)
            states = {address: each.state for address, each in world.deliveries().items()}
            taken = [recipient for _, recipient, _ in receiver.taken]
            assert set(states) == set(addresses), step
            assert len(taken) == len(set(taken)), step
            for address, state in states.items():
                if state == "given up":
                    given_up += 1
                    assert any(f"to {address}: given up: it may have been taken" in line for line in world.lines), step
                else:
                    assert (state, address in taken) == ("sent", True), step
            assert list((folder / "store" / "reports").iterdir()) == [], step
            world.database.close()
    assert step > 20
    assert given_up == len(addresses), "one for each that was handed over"
