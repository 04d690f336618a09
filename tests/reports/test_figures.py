# SPDX-License-Identifier: GPL-3.0-or-later
"""What is counted about reports that go out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from assay.config import make_resolver
from assay.config.correspondence import reports_signing
from assay.daemon.reporter import ReportMeter, ReportTurns
from assay.log import Log
from assay.metrics import Page
from assay.policy.addresses import Entries
from nameserver import NameServer
from receiving import Receiver
from report_world import LATER, NEXT_DAY, ROWS, Reporting, failed, seen

GIVE_UP = NEXT_DAY + 28 * 3600
MANY = ",".join(f"mailto:d{number}@limited.example" for number in range(4))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Reporting]:
    with NameServer(ROWS) as nameserver, Receiver() as receiver:
        made = Reporting(tmp_path, nameserver, receiver, {"max_per_destination": 3, "suppress": ""})
        yield made
        made.database.close()


def test_each_report_and_each_try_is_counted_once(world: Reporting) -> None:
    world.see(
        seen(1),
        seen(2, "refusing.example"),
        seen(3, "deferring.example"),
        seen(4, "unknown.example", "mailto:d@reader.example"),
        seen(5, "limited.example", MANY),
        seen(6, "small.example", "mailto:d@small.example!10"),
        seen(7, "stranger.example", "mailto:d@elsewhere.example"),
        seen(8, "forged.example", "mailto:d@example.com"),
        *(failed(number, "few.example") for number in range(9, 12)),
        seen(12, "bounces.example", report_mail=True),
        seen(13, "listed.example"),
    )
    world.receiver.replies["d@refusing.example"] = "550 5.1.1 no such user"
    world.receiver.replies["d@deferring.example"] = "450 4.7.1 later"
    world.nameserver.rcodes["unknown.example._report._dmarc.reader.example"] = "SERVFAIL"
    page = Page.private()
    figures: dict[str, int] = {}
    listed = Entries.parse(["listed.example"])
    section = msgspec.structs.replace(world.configuration.reports, spread_hours=0.0)
    configuration = msgspec.structs.replace(world.configuration, reports=section)
    with make_resolver(configuration) as resolver:
        turns = ReportTurns(
            configuration,
            reports_signing(configuration),
            listed,
            resolver,
            Log(lambda *_: None),
            meter=ReportMeter(page),
        )
        turns.turn(NEXT_DAY)
        figures = {name.replace("\x1f", " "): value for name, value in page.entries() if value}
        turns.turn(GIVE_UP)
        later = {name.replace("\x1f", " "): value for name, value in page.entries() if value}
        turns.close()
    assert figures == {
        "reports_sender": 1,
        "reports_looked_seconds": NEXT_DAY,
        "reports_planned": 8,
        "reports_withheld aggregate few": 1,
        "reports_withheld aggregate report_mail": 1,
        "reports_withheld aggregate suppressed": 1,
        "reports_withheld aggregate limit": 1,
        "reports_withheld aggregate size": 1,
        "reports_withheld aggregate unusable": 2,
        "reports_tried aggregate sent": 4,
        "reports_tried aggregate refused": 1,
        "reports_tried aggregate deferred": 1,
        "reports_tried aggregate unknown": 1,
        "reports_waiting": 3,  # an error report in place of what is too large
    }
    assert later["reports_tried aggregate given_up"] == 2
    assert later["reports_looked_seconds"] == GIVE_UP
    assert "reports_waiting" not in later


def test_a_host_that_does_not_send_says_so(world: Reporting) -> None:
    page = Page.private()
    meter = ReportMeter(page)
    meter.leads(NEXT_DAY, 3, NEXT_DAY - 60)
    values = dict(page.entries())
    assert (values["reports_sender"], values["reports_waiting"], values["reports_waiting_seconds"]) == (1, 3, 60)
    meter.rests(LATER)
    values = dict(page.entries())
    assert (values["reports_sender"], values["reports_waiting"], values["reports_waiting_seconds"]) == (0, 0, 0)
    assert values["reports_looked_seconds"] == LATER
