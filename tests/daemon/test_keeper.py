# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker's side of the store never changes what becomes of a message."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from assay.daemon import keeper as keepers
from assay.daemon.keeper import Keeper
from assay.daemon.meter import Copies
from assay.log import Log
from assay.metrics import Page, read
from assay.store.channel import RowChannel
from assay.store.from_verdict import Keeping
from assay.store.stand_in import StandIn


def test_a_row_that_cannot_be_made_is_lost_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> object:
        raise KeyError("a bug")

    monkeypatch.setattr(keepers, "message_row", bug)
    lines: list[str] = []
    channel, page = RowChannel(), Page.private()
    stand_in = StandIn(channel, "", 0)
    keeper = Keeper(channel, stand_in, Keeping("mx.example.net"), Log(lambda _, text: lines.append(text)))
    for _ in range(3):
        keeper.keep(None, 0.0, {})  # type: ignore[arg-type]  # it is not looked at
    keeper.tick(Copies(page))
    channel.close()
    assert lines == ["store: a result cannot be made into a row and is lost: KeyError('a bug')"]
    assert read([page]).of("store_rows") == {("lost",): 3}


def test_what_is_left_at_the_end_is_counted_and_no_tick_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that had their place in the socket are lost too, if no process is left that could take them."""
    monkeypatch.setattr(keepers, "_LAST_SECONDS", 0.1)
    lines: list[str] = []
    channel, page = RowChannel(), Page.private()
    stand_in = StandIn(channel, str(tmp_path / "none"), 1_000_000)
    keeper = Keeper(channel, stand_in, Keeping("mx.example.net"), Log(lambda _, text: lines.append(text)))
    assert channel.sender().send(b"row")
    keeper.end()
    assert lines[-1] == f"store: 1 result lost: {tmp_path}/none/spool: No such file or directory"
    tick = threading.Thread(target=keeper.tick, args=(Copies(page),), daemon=True)
    tick.start()
    tick.join(10)
    assert not tick.is_alive()
    channel.close()
