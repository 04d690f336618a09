# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports that are too large for a destination: in parts that add up, or an error report."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import msgspec
import pytest

from assay.model.message import split_message
from assay.model.name import ReversePath
from assay.model.smtp import Envelope
from assay.protocol.report import Schema, report_mail
from assay.reports import oversize
from assay.store import outbox
from nameserver import NameServer
from receiving import Killing, Receiver
from report_world import LATER, NEXT_DAY, Reporting, seen
from reporting import counted, mailed

CLIENTS = 1500
MINUTES = [LATER + 20 * turn for turn in range(5)]


@pytest.fixture
def section() -> Mapping[str, Any]:
    return {"spread_hours": 0.0}


def fill(world: Reporting, rua: str, clients: int = CLIENTS) -> Counter[str]:
    """Mail of many clients. Returns how many messages of each."""
    addresses = [f"203.0.{number // 250}.{number % 250}" for number in range(clients)]
    rows = [seen(number, rua=rua, client=addresses[number % clients]) for number in range(clients + clients // 3)]
    world.see(*rows)
    return Counter(row.client for row in rows)


def run(world: Reporting) -> None:
    world.turn(NEXT_DAY)
    for now in MINUTES:
        world.turn(now)


def whole(world: Reporting) -> outbox.OutgoingReport:
    (found,) = [each for each in world.all_reports() if each.form == "whole"]
    return found


class TestParts:
    def test_they_add_up_and_each_is_a_report(self, world: Reporting) -> None:
        sent = fill(world, "mailto:d@example.com!8k")
        run(world)
        parts = sorted((each for each in world.all_reports() if each.form == "part"), key=lambda each: each.part)
        assert 2 <= len(parts) <= 10
        assert [(each.part, each.parts, each.state) for each in parts] == [
            (number, len(parts), "sent") for number in range(1, len(parts) + 1)
        ]
        assert sum(each.messages for each in parts) == whole(world).messages == sent.total()
        assert whole(world).state == "divided"
        assert f"its record allows at most 8192: it is sent in {len(parts)} parts" in whole(world).why
        read_parts = [mailed(octets) for _, _, octets in world.receiver.taken]
        assert counted([report for _, report in read_parts]) == sent
        assert all(len(octets) <= 8192 for _, _, octets in world.receiver.taken)
        assert sum(len(octets) > 7000 for _, _, octets in world.receiver.taken) >= len(parts) - 1, "they are full"
        identifiers = {report["report_metadata"]["report_id"] for _, report in read_parts}
        assert identifiers == {each.id for each in parts}
        assert len({message["Message-ID"] for message, _ in read_parts}) == len(parts)
        for message, report in read_parts:
            identifier = report["report_metadata"]["report_id"]
            assert identifier in message["Subject"]
            (attachment,) = message.iter_attachments()
            assert f"!{identifier}.xml.gz" in str(attachment.get_filename())
            assert report["policy_published"]["domain"] == "example.com"
        assert len({report["report_metadata"]["begin_date"] for _, report in read_parts}) == 1

    def test_those_without_a_limit_get_the_whole(self, world: Reporting) -> None:
        sent = fill(world, "mailto:a@example.com,mailto:b@example.com!8k,mailto:c@example.com!8k")
        section = msgspec.structs.replace(world.configuration.reports, max_per_destination=100)
        world.configuration = msgspec.structs.replace(world.configuration, reports=section)
        run(world)
        found: dict[str, list[Mapping[str, Any]]] = {}
        for _, recipient, octets in world.receiver.taken:
            found.setdefault(recipient, []).append(mailed(octets)[1])
        assert {recipient: counted(reports) for recipient, reports in found.items()} == {
            f"{name}@example.com": sent for name in "abc"
        }
        assert len(found["a@example.com"]) == 1
        ids = [{each["report_metadata"]["report_id"] for each in found[f"{name}@example.com"]} for name in "bc"]
        assert ids[0] == ids[1], "with the same limit, the same parts"
        assert whole(world).state == "sent"

    def test_in_the_older_schema(self, world: Reporting) -> None:
        section = msgspec.structs.replace(world.configuration.reports, older_schema=("example.com",))
        world.configuration = msgspec.structs.replace(world.configuration, reports=section)
        sent = fill(world, "mailto:d@example.com!8k")
        run(world)
        reports = [mailed(octets, Schema.RFC7489)[1] for _, _, octets in world.receiver.taken]
        assert len(reports) > 1
        assert counted(reports) == sent

    def test_what_the_relay_takes(self, world: Reporting) -> None:
        world.receiver.__exit__()
        world.receiver.max_octets = 9000
        world.receiver.__enter__()
        sent = fill(world, "mailto:d@example.com")
        run(world)
        assert counted([mailed(octets)[1] for _, _, octets in world.receiver.taken]) == sent
        assert "the relay takes at most 9000" in whole(world).why

    @pytest.mark.parametrize("reply", ["552 5.3.4 too big", "552 too much", "554 5.2.3 too long"])
    def test_a_destination_that_refuses_and_does_not_say_how_much_it_takes(
        self, tmp_path: Path, nameserver: NameServer, reply: str
    ) -> None:
        with Choosy(6000, reply) as receiver:
            made = Reporting(tmp_path, nameserver, receiver, {"spread_hours": 0.0, "max_per_destination": 100})
            sent = fill(made, "mailto:d@example.com")
            run(made)
            assert len(receiver.taken) > 2
            assert counted([mailed(octets)[1] for _, _, octets in receiver.taken]) == sent
            assert f"it is refused: {reply}: it is sent in" in whole(made).why
            assert made.deliveries_of(whole(made).id)[0].state == "divided"
            made.database.close()

    def test_what_is_refused_for_its_size_was_not_taken(
        self, tmp_path: Path, nameserver: NameServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If it cannot be divided at once, the report waits, and is not given up."""
        with Choosy(6000, "552 5.3.4 too big") as receiver:
            made = Reporting(tmp_path, nameserver, receiver, {"spread_hours": 0.0, "max_per_destination": 100})
            sent = fill(made, "mailto:d@example.com")
            with monkeypatch.context() as patch:
                patch.setattr(oversize.Oversize, "settle", _fails)
                made.turn(NEXT_DAY)
                made.turn(MINUTES[0])
            assert made.deliveries_of(whole(made).id)[0].state == "waiting"
            for turn in range(1, 6):
                made.turn(MINUTES[0] + turn * 3600)
            assert counted([mailed(octets)[1] for _, _, octets in receiver.taken]) == sent
            made.database.close()

    def test_a_sender_that_is_killed_between_them_sends_none_twice(self, world: Reporting) -> None:
        sent = fill(world, "mailto:d@example.com!8k")
        with Killing() as killing:
            section = msgspec.structs.replace(world.configuration.reports, relay=killing.url)
            world.configuration = msgspec.structs.replace(world.configuration, reports=section)
            world.turn(NEXT_DAY)
            assert killing.killed_in(world.turn_in_child, MINUTES[0])
            killing.kills = False
            for now in MINUTES[1:]:
                world.turn(now)
            assert counted([mailed(octets)[1] for _, _, octets in killing.taken]) == sent
        states = Counter(each.state for each in world.all_reports() if each.form == "part")
        assert states["given up"] == 1
        assert states["sent"] == states.total() - 1

    def test_they_count_as_messages(self, world: Reporting) -> None:
        """A destination gets all of them, or none."""
        section = msgspec.structs.replace(world.configuration.reports, max_per_destination=2)
        world.configuration = msgspec.structs.replace(world.configuration, reports=section)
        fill(world, "mailto:d@example.com!8k")
        run(world)
        assert "; reports.max_per_destination is reached for example.com" in whole(world).why
        ((_, _, octets),) = world.receiver.taken
        assert b"Subject: Not sent: " in octets

    def test_their_files_are_removed(self, world: Reporting, tmp_path: Path) -> None:
        fill(world, "mailto:d@example.com!8k")
        run(world)
        assert len(world.receiver.taken) > 1
        assert list((tmp_path / "store" / "reports").iterdir()) == []


class TestErrorReport:
    @pytest.mark.parametrize("limit", ["0", "10", "1k"])
    def test_a_limit_that_no_report_keeps(self, world: Reporting, limit: str) -> None:
        fill(world, f"mailto:d@example.com!{limit}")
        run(world)
        found = whole(world)
        assert found.state == "not sent"
        assert "it would have more than 20 parts" in found.why
        ((path, recipient, octets),) = world.receiver.taken
        message = message_from_bytes(octets, policy=policy.default)
        assert isinstance(message, EmailMessage)
        assert (recipient, message.get_content_type()) == ("d@example.com", "multipart/mixed")
        fields, _ = message.iter_parts()
        assert fields.get_content_type() == "text/plain"
        pairs = dict(re.findall(r"(?m)^([A-Za-z-]+): (.*?)\r?$", fields.get_content()))
        assert set(pairs) == {
            "Report-Date", "Report-Domain", "Report-ID", "Report-Size", "Submitter", "Submitting-URI",
        }  # fmt: skip
        assert pairs["Report-ID"] == found.id
        assert pairs["Submitting-URI"] == "mailto:d@example.com"
        assert f"the report has {pairs['Report-Size']} octets" in found.why
        (error,) = [each for each in world.all_reports() if each.form == "error report"]
        assert (error.state, error.part_of) == ("sent", found.id)
        assert any(
            f"example.com to d@example.com: not sent: {found.why.partition(': ')[2]}" in line for line in world.lines
        )
        (delivery,) = world.deliveries_of(error.id)
        assert path == f"bounces+{delivery.token}@receiver.example"
        # Nobody reports about it.
        assert report_mail(Envelope(ReversePath.parse(path)), split_message(octets)[0]) is not None

    def test_a_record_that_is_too_large_alone(self, world: Reporting) -> None:
        fill(world, "mailto:d@example.com!2500", 3)
        run(world)
        assert "; a single record of it is too large" in whole(world).why

    def test_so_many_parts_are_not_made(self, world: Reporting, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(oversize, "MAX_PARTS", 3)
        fill(world, "mailto:d@example.com!4k")
        run(world)
        assert "it would have more than 3 parts" in whole(world).why
        assert len(world.receiver.taken) == 1

    @pytest.mark.parametrize("divisions", [1, 2])
    def test_parts_that_are_refused_again_and_again_are_not_divided_for_ever(
        self, tmp_path: Path, nameserver: NameServer, monkeypatch: pytest.MonkeyPatch, divisions: int
    ) -> None:
        monkeypatch.setattr(oversize, "MAX_DIVISIONS", divisions)
        with Choosy(2600, "552 5.3.4 too big") as receiver:
            made = Reporting(tmp_path, nameserver, receiver, {"spread_hours": 0.0, "max_per_destination": 100})
            fill(made, "mailto:d@example.com")
            run(made)
            found = {each.id: each for each in made.all_reports()}
            parts = [each for each in found.values() if each.form == "part"]
            innermost = [each for each in parts if each.state == "not sent"]
            assert len(innermost) > 1
            assert {each.why.rpartition("; ")[2] for each in innermost} == {"it was divided before"}
            for part in innermost:
                above = part
                for _ in range(divisions):
                    above = found[above.part_of]
                    assert above.state == "divided"
                assert above == whole(made)
            assert {each.state for each in parts} == ({"not sent"} if divisions == 1 else {"not sent", "divided"})
            made.database.close()


def _fails(*_: object) -> None:
    raise ValueError("a bug")


class Choosy(Receiver):
    """A relay that refuses larger messages, and says so only then."""

    def __init__(self, most: int, reply: str) -> None:
        super().__init__()
        self._most, self._reply = most, reply

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802  # aiosmtpd's name
        if len(envelope.content) > self._most:
            return self._reply
        return await super().handle_DATA(server, session, envelope)
