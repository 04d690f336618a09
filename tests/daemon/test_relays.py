# SPDX-License-Identifier: GPL-3.0-or-later
"""A relay whose Received field is not read loses SPF for all its mail: the operator hears of it, and not for each."""

from __future__ import annotations

import pytest

from assay.daemon import journal
from assay.daemon.journal import SELDOM, Journal, Seldom
from assay.log import Level, Log
from assay.model.network import Networks
from assay.policy import Trust
from assay.session import Session, Settings
from sending import ROWS, message
from talking import greet, talk
from zone import Zone

RELAY = "192.0.2.99"


def warnings(received: list[str], *, client: str = RELAY) -> list[str]:
    """What is logged for messages whose relay wrote these fields."""
    lines: list[str] = []
    to = Journal(Log(lambda level, text: lines.append(text) if level is Level.WARNING else None))
    trust = Trust(relays=Networks.parse([RELAY]))
    for value in received:
        one = Session(Settings(), trust, lambda: Zone(ROWS))
        greet(one, client)
        to.enter(talk(one, message("joe@example.org", f"Received: {value}")), waited=0.0)
    return lines


def test_a_field_that_is_not_read_is_logged_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(journal.time, "monotonic", lambda: now[0])
    (line,) = warnings(["from a.test via\r\n\tcarrier pigeon", "from b.test via carrier pigeon"])
    assert line.startswith("relay does not report its client: queue=")
    assert line.endswith('received="from a.test via carrier pigeon"')
    seldom = Seldom()
    assert [seldom.due(at) for at in (0.0, SELDOM - 1, SELDOM, SELDOM + 1)] == [True, False, True, False]


def test_the_field_is_logged_as_a_strangers_word() -> None:
    """HELO is in it: no word of the line, and no control character."""
    (line,) = warnings(["from x\x1b[2J dmarc=pass action=accept " + "y" * 5000])
    assert "\x1b" not in line
    assert "dmarc=pass" not in line
    assert len(line) < 600


@pytest.mark.parametrize("client", [RELAY, "192.0.2.1"])
def test_nothing_is_logged_of_what_is_read_or_of_a_stranger(client: str) -> None:
    received = "from x (x.example [192.0.2.7]) by relay" if client == RELAY else "from a.test via carrier pigeon"
    assert warnings([received], client=client) == []
