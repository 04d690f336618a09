# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker's side of the store never changes what becomes of a message."""

from __future__ import annotations

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
