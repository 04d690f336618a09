# SPDX-License-Identifier: GPL-3.0-or-later
"""Destinations of which the DNS does not say, when a report is due, whether they want it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from assay.config.correspondence import reports_signing
from assay.daemon.child import Tether
from assay.daemon.reporter import run
from assay.log import Log
from assay.policy.addresses import Entries
from assay.store import suppressions
from nameserver import NameServer
from receiving import Receiver
from report_world import LATER, NEXT_DAY, ROWS, Reporting, seen

ASKED = "example.com._report._dmarc.reader.example"
GIVE_UP = NEXT_DAY + 28 * 3600
BOTH = "mailto:d@example.com,mailto:d@reader.example"


@pytest.fixture
def nameserver() -> Iterator[NameServer]:
    override = {"example.com._report._dmarc.elsewhere.example": [["TXT", ["v=DMARC1; rua=mailto:x@elsewhere.example"]]]}
    with NameServer(ROWS | override) as running:
        yield running


@pytest.fixture
def world(tmp_path: Path, nameserver: NameServer, receiver: Receiver) -> Iterator[Reporting]:
    made = Reporting(tmp_path, nameserver, receiver)
    yield made
    made.database.close()


def recipients(world: Reporting) -> list[str]:
    return [recipient for _, recipient, _ in world.receiver.taken]


def states(world: Reporting) -> dict[str, str]:
    return {address: str(delivery.state) for address, delivery in world.deliveries().items()}


def go_on(world: Reporting, *, until: int) -> None:
    """Some of the tries until a time."""
    for now in (NEXT_DAY, LATER, GIVE_UP - 60, until):
        world.turn(now)


class TestACheckThatFails:
    """Of one destination of two: the other gets its report, and this one when the DNS answers."""

    @pytest.mark.parametrize("name", [ASKED, "_dmarc.reader.example"])
    def test_it_is_made_again(self, world: Reporting, name: str) -> None:
        """Whether it is the record by which the host agrees, or those that say whose host it is."""
        world.see(seen(1, rua=BOTH))
        world.nameserver.rcodes[name] = "SERVFAIL"
        world.turn(NEXT_DAY)
        world.turn(LATER)
        assert recipients(world) == ["d@example.com"]
        assert states(world) == {"d@example.com": "sent", "mailto:d@reader.example": "waiting"}
        found = world.reports()["example.com"]
        assert (found.state, found.due) == ("waiting", LATER + 300)
        assert "failed" in found.why
        world.nameserver.rcodes.clear()
        world.turn(LATER + 300)
        assert recipients(world) == ["d@example.com", "d@reader.example"]
        assert states(world) == {"d@example.com": "sent", "d@reader.example": "sent"}
        assert world.reports()["example.com"].state == "sent"

    def test_the_pauses_grow(self, world: Reporting) -> None:
        world.see(seen(1, rua=BOTH))
        world.nameserver.rcodes[ASKED] = "SERVFAIL"
        world.turn(NEXT_DAY)
        found, now = [], LATER
        for _ in range(4):
            world.turn(now)
            delivery = world.deliveries()["mailto:d@reader.example"]
            found.append((delivery.tries, delivery.due - now))
            now = delivery.due
        assert found == [(1, 300), (2, 600), (3, 1200), (4, 2400)]

    def test_the_last_try_is_when_it_is_given_up(self, world: Reporting) -> None:
        world.see(seen(1, rua=BOTH))
        world.nameserver.rcodes[ASKED] = "SERVFAIL"
        go_on(world, until=GIVE_UP - 1)
        assert world.reports()["example.com"].due == GIVE_UP
        world.nameserver.rcodes.clear()
        world.turn(GIVE_UP)
        assert states(world) == {"d@example.com": "sent", "d@reader.example": "sent"}

    def test_what_stays_unknown_is_given_up_and_told(self, world: Reporting) -> None:
        world.see(seen(1, rua=BOTH))
        world.nameserver.rcodes[ASKED] = "SERVFAIL"
        go_on(world, until=GIVE_UP)
        assert recipients(world) == ["d@example.com"]
        assert states(world) == {"d@example.com": "sent", "mailto:d@reader.example": "given up"}
        assert world.reports()["example.com"].state == "sent"
        (line,) = world.lines
        assert line.startswith("reports: example.com to mailto:d@reader.example: given up: TXT lookup of")

    def test_alone_it_is_given_up_too(self, world: Reporting) -> None:
        world.see(seen(1, rua="mailto:d@reader.example"))
        world.nameserver.rcodes[ASKED] = "SERVFAIL"
        go_on(world, until=GIVE_UP)
        assert world.reports()["example.com"].state == "given up"

    def test_the_host_then_names_another_address(self, world: Reporting) -> None:
        world.see(seen(1, rua="mailto:d@example.com,mailto:d@elsewhere.example"))
        world.nameserver.rcodes["example.com._report._dmarc.elsewhere.example"] = "SERVFAIL"
        world.turn(NEXT_DAY)
        world.turn(LATER)
        world.nameserver.rcodes.clear()
        world.turn(LATER + 300)
        assert states(world) == {"d@example.com": "sent", "x@elsewhere.example": "sent"}

    def test_the_host_then_does_not_agree(self, world: Reporting) -> None:
        world.see(seen(1, rua="mailto:d@example.com,mailto:d@stranger.example"))
        world.nameserver.rcodes["example.com._report._dmarc.stranger.example"] = "SERVFAIL"
        world.turn(NEXT_DAY)
        world.turn(LATER)
        world.nameserver.rcodes.clear()
        world.turn(LATER + 300)
        assert states(world) == {"d@example.com": "sent", "mailto:d@stranger.example": "not sent"}
        assert "does not ask for these reports" in world.deliveries()["mailto:d@stranger.example"].why

    def test_it_counts_to_no_limit(self, world: Reporting) -> None:
        section = msgspec.structs.replace(world.configuration.reports, max_a_day=1)
        world.configuration = msgspec.structs.replace(world.configuration, reports=section)
        world.see(seen(1, rua="mailto:d@reader.example,mailto:d@example.com"))
        world.nameserver.rcodes[ASKED] = "SERVFAIL"
        world.turn(NEXT_DAY)
        world.turn(LATER)
        assert recipients(world) == ["d@example.com"]
        world.nameserver.rcodes.clear()
        world.turn(LATER + 300)
        assert world.deliveries()["d@reader.example"].why == "reports.max_a_day is reached"

    def test_in_a_dry_run_it_is_told(self, world: Reporting) -> None:
        with world.database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM report_days")
        world.see(seen(1, rua=BOTH))
        world.nameserver.rcodes[ASKED] = "SERVFAIL"
        world.turn(NEXT_DAY)
        world.turn(LATER)
        assert states(world) == {"d@example.com": "dry run", "mailto:d@reader.example": "dry run"}
        assert "failed" in world.deliveries()["mailto:d@reader.example"].why


def test_what_is_refused_beside_one_that_is_sent_to_is_told(world: Reporting) -> None:
    many = [f"mailto:d{number}@example.com" for number in range(9)]
    world.see(seen(1, rua=",".join(["https://example.com/", *many, "mailto:x@example.com", "mailto:y@example.com"])))
    world.turn(NEXT_DAY)
    world.turn(LATER)
    found = world.deliveries()
    assert len(found) == 11
    assert found["https://example.com/"].why == "only mailto: is sent to"
    assert found["mailto:x@example.com"].why == "more than 10 destinations"
    assert len(recipients(world)) == 9


@pytest.mark.parametrize("subject", ["d@example.com", "example.com", "com"])
def test_a_suppression_holds_for_the_next_try(world: Reporting, subject: str) -> None:
    world.see(seen(1))
    world.receiver.at_data["d@example.com"] = "451 4.7.1 greylisted"
    world.turn(NEXT_DAY)
    world.turn(LATER)
    world.receiver.at_data.clear()
    with world.database.writing() as connection:
        suppressions.suppress(connection, suppressions.Suppression(subject, 0, "by the operator", 0))
    world.turn(LATER + 300)
    assert recipients(world) == []
    assert world.reports()["example.com"].state == "not sent"


def test_a_suppressed_domain_whose_reports_go_elsewhere(world: Reporting) -> None:
    world.see(seen(1, rua="mailto:d@reader.example"))
    with world.database.writing() as connection:
        suppressions.suppress(connection, suppressions.Suppression("example.com", 0, "by the operator", 0))
    world.turn(NEXT_DAY)
    world.turn(LATER)
    assert recipients(world) == []
    assert "example.com is suppressed" in world.reports()["example.com"].why


def test_a_relay_that_dies_between_two_destinations_and_stays_dead(world: Reporting) -> None:
    world.see(seen(1, rua="mailto:a@example.com,mailto:b@example.com"))
    world.receiver.at_data["b@example.com"] = "451 4.7.1 greylisted"
    world.turn(NEXT_DAY)
    world.turn(LATER)
    world.receiver.__exit__()
    go_on(world, until=GIVE_UP)
    assert states(world) == {"a@example.com": "sent", "b@example.com": "given up"}
    assert world.reports()["example.com"].state == "sent"


def test_a_daemon_that_ends_does_not_wait_for_the_dns(world: Reporting) -> None:
    world.see(seen(1, rua="mailto:d@reader.example"))
    world.turn(NEXT_DAY)
    dns = msgspec.structs.replace(world.configuration.dns, budget_seconds=100.0, timeout_seconds=20.0)
    configuration = msgspec.structs.replace(world.configuration, dns=dns)
    world.nameserver.drop = True
    control, order = os.pipe()
    told, ready = os.pipe()
    exits: list[int] = []

    def work() -> None:
        log = Log(lambda _, text: world.lines.append(text))
        exits.append(
            run(Tether(control, ready, 0), configuration, reports_signing(configuration), Entries(), None, log)
        )

    thread = threading.Thread(target=work)
    thread.start()
    while not world.nameserver.count(ASKED):
        time.sleep(0.01)
    os.close(order)
    began = time.monotonic()
    thread.join(60)
    assert time.monotonic() - began < 5  # then the supervisor would kill it
    assert exits == [0]
    assert world.reports()["example.com"].state == "waiting"  # years after it was planned: nothing was found out
    assert world.lines == []
    os.close(control)
    os.close(told)


def test_the_uris_are_tried_in_the_order_of_the_record(world: Reporting) -> None:
    """RFC 9990, 3.5. The limits of the day are kept in the same order."""
    section = msgspec.structs.replace(world.configuration.reports, max_per_destination=3)
    world.configuration = msgspec.structs.replace(world.configuration, reports=section)
    world.see(seen(1, rua=",".join(f"mailto:{name}@example.com" for name in "zamb")))
    world.run()
    assert [recipient for _, recipient, _ in world.receiver.taken] == [f"{name}@example.com" for name in "zam"]
