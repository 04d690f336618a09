# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports from the store to their destinations: a real database, DNS and SMTP server, and parsedmarc as the reader."""

from __future__ import annotations

import gzip
import os
from collections import Counter
from collections.abc import Mapping
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import dkim as dkimpy
import msgspec
import parsedmarc
import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from assay.protocol import report
from assay.reports import aggregate_dispatch, delivering
from assay.reports.planning import days_to_plan
from assay.reports.relay import Relay, RelayReply
from assay.session.outgoing import Outgoing, Signed
from assay.store import outbox, report_deliveries, suppressions
from assay.store.leadership import Leadership
from assay.store.outbox import DAY_SECONDS
from assay.store.report_deliveries import ReportDelivery
from assay.store.rows import PublishedRow
from nameserver import NameServer
from postgresql import Postgresql
from receiving import Killing, Receiver
from report_world import LATER, NEXT_DAY, Reporting, failed, seen
from signing import record, rsa_key


def parsed(octets: bytes) -> tuple[EmailMessage, Mapping[str, Any]]:
    """A report as its receiver reads it."""
    message = message_from_bytes(octets, policy=policy.default)
    assert isinstance(message, EmailMessage)
    (attachment,) = message.iter_attachments()
    xml = gzip.decompress(attachment.get_payload(decode=True))  # type: ignore[arg-type]  # it is an attachment
    return message, parsedmarc.parse_aggregate_report_xml(xml, offline=True)


def xml_of(octets: bytes) -> bytes:
    (attachment,) = parsed(octets)[0].iter_attachments()
    return gzip.decompress(attachment.get_payload(decode=True))  # type: ignore[arg-type]  # it is an attachment


class TestOneReport:
    def test_it_says_what_came(self, world: Reporting) -> None:
        world.see(
            *(seen(number) for number in range(30)), *(failed(number, client="192.0.2.9") for number in range(30, 42))
        )
        world.run()
        ((_, recipient, octets),) = world.receiver.taken
        message, report = parsed(octets)
        assert recipient == "d@example.com"
        assert {record["source"]["ip_address"]: record["count"] for record in report["records"]} == {
            "192.0.2.1": 30,
            "192.0.2.9": 12,
        }
        assert report["report_metadata"]["org_email"] == "dmarc@receiver.example"
        assert message["Subject"].startswith("Report Domain: example.com Submitter: receiver.example Report-ID: <")
        assert world.reports()["example.com"].state == "sent"

    def test_it_is_signed(self, world: Reporting) -> None:
        world.see(seen(1))
        world.run()
        ((_, _, octets),) = world.receiver.taken
        assert octets.startswith(b"DKIM-Signature:")

        def answer(name: bytes, timeout: int = 5) -> bytes:
            assert name == b"s1._domainkey.receiver.example."
            return record(rsa_key()).encode()

        assert dkimpy.verify(octets, dnsfunc=answer)

    @pytest.mark.parametrize("clients", [1, 250])
    def test_its_size_is_known_before_it_is_made(self, world: Reporting, clients: int) -> None:
        """What a destination's limit is compared with."""
        world.see(*(seen(number, client=f"192.0.2.{number}") for number in range(1, clients + 1)))
        world.run()
        ((_, _, octets),) = world.receiver.taken
        message, _ = parsed(octets)
        (attachment,) = message.iter_attachments()
        file = attachment.get_payload(decode=True)
        assert isinstance(file, bytes)
        assert report.mail_size(len(file)) == pytest.approx(len(octets), abs=300)

    def test_its_bounce_address_names_the_delivery(self, world: Reporting) -> None:
        world.see(seen(1))
        world.run()
        ((path, _, _),) = world.receiver.taken
        (delivery,) = world.deliveries().values()
        assert path == f"bounces+{delivery.token}@receiver.example"

    def test_it_is_sent_once(self, world: Reporting) -> None:
        world.see(seen(1))
        world.run()
        world.run(until=LATER + 20 * 3600)
        assert len(world.receiver.taken) == 1

    @pytest.mark.parametrize("listed", ["reader.example", "example.com"])
    def test_each_destination_gets_the_schema_that_it_wants(
        self, world: Reporting, listed: str, tmp_path: Path
    ) -> None:
        section = msgspec.structs.replace(world.configuration.reports, older_schema=(listed,))
        world.configuration = msgspec.structs.replace(world.configuration, reports=section)
        world.see(seen(1, rua="mailto:d@reader.example,mailto:d@example.com"))
        world.run()
        older = {
            recipient: b"urn:ietf:params:xml:ns:dmarc-2.0" not in xml_of(octets)
            for _, recipient, octets in world.receiver.taken
        }
        assert older == {f"d@{host}": host == listed for host in ("reader.example", "example.com")}
        identifiers = {parsed(octets)[1]["report_metadata"]["report_id"] for _, _, octets in world.receiver.taken}
        assert identifiers == {world.reports()["example.com"].id}  # it is the same report
        assert list((tmp_path / "store" / "reports").iterdir()) == []

    def test_two_policies_of_a_day_are_two_reports(self, world: Reporting) -> None:
        passed = seen(1)
        assert passed.dmarc is not None
        other = PublishedRow("example.com", "v=DMARC1; p=none; rua=mailto:d@example.com", "treewalk")
        world.see(passed, seen(2, dmarc=msgspec.structs.replace(passed.dmarc, published=other, disposition="none")))
        world.run()
        policies = {parsed(octets)[1]["policy_published"]["p"] for _, _, octets in world.receiver.taken}
        assert policies == {"quarantine", "none"}

    def test_records_that_differ_in_their_destination_only_are_one_report(self, world: Reporting) -> None:
        world.see(seen(1, rua="mailto:old@example.com"), seen(2, rua="mailto:new@example.com"))
        world.run()
        ((_, recipient, octets),) = world.receiver.taken
        assert recipient == "new@example.com"  # as it was last
        assert sum(found["count"] for found in parsed(octets)[1]["records"]) == 2


class TestNotSent:
    """Each row: a reason that `assay report why` shows."""

    def why(self, world: Reporting, domain: str = "example.com") -> str:
        world.run()
        assert world.receiver.taken == []
        found = world.reports()[domain]
        assert found.state == "not sent"
        return found.why

    def test_nobody_asks(self, world: Reporting) -> None:
        world.see(seen(1, rua="https://example.com/"))
        assert "only mailto: is sent to" in self.why(world)

    def test_only_reports_and_bounces_came(self, world: Reporting) -> None:
        world.see(*(seen(number, report_mail=True) for number in range(50)))
        assert "reports or bounces" in self.why(world)

    def test_reports_are_part_of_a_report_that_has_another_cause(self, world: Reporting) -> None:
        world.see(seen(1), *(seen(number, report_mail=True) for number in range(2, 6)))
        world.run()
        ((_, _, octets),) = world.receiver.taken
        assert sum(found["count"] for found in parsed(octets)[1]["records"]) == 5

    def test_all_failed_and_it_was_little(self, world: Reporting) -> None:
        world.see(*(failed(number) for number in range(9)))
        assert "min_messages" in self.why(world)

    def test_another_host_did_not_agree(self, world: Reporting) -> None:
        world.see(seen(1, rua="mailto:d@stranger.example"))
        assert "does not ask for these reports" in self.why(world)

    def test_another_host_agreed(self, world: Reporting) -> None:
        world.see(seen(1, rua="mailto:d@reader.example"))
        world.run()
        assert [recipient for _, recipient, _ in world.receiver.taken] == ["d@reader.example"]

    def test_a_suppressed_domain(self, world: Reporting, tmp_path: Path) -> None:
        (tmp_path / "suppressed").write_text("example.com # no more\n")
        section = msgspec.structs.replace(world.configuration.reports, suppress=str(tmp_path / "suppressed"))
        world.configuration = msgspec.structs.replace(world.configuration, reports=section)
        world.see(seen(1))
        assert "reports.suppress" in self.why(world)

    def test_a_destination_that_came_back(self, world: Reporting) -> None:
        world.see(seen(1))
        with world.database.writing() as connection:
            suppressions.suppress(connection, suppressions.Suppression("d@example.com", 0, "a report came back", 0))
        assert "d@example.com is suppressed: a report came back" in self.why(world)

    @pytest.mark.parametrize("subject", ["d@mail.example.net", "mail.example.net", "example.net"])
    def test_a_suppressed_address_or_domain_of_it(self, world: Reporting, subject: str) -> None:
        world.see(seen(1, "example.net", rua="mailto:D@mail.example.net"))
        with world.database.writing() as connection:
            suppressions.suppress(connection, suppressions.Suppression(subject, 0, "by the operator", 0))
        world.turn(NEXT_DAY)
        world.turn(LATER)
        assert f"{subject} is suppressed: by the operator" in world.reports()["example.net"].why

    def test_an_address_in_the_file(self, world: Reporting, tmp_path: Path) -> None:
        (tmp_path / "suppressed").write_text("d@reader.example\n")
        section = msgspec.structs.replace(world.configuration.reports, suppress=str(tmp_path / "suppressed"))
        world.configuration = msgspec.structs.replace(world.configuration, reports=section)
        world.see(seen(1, rua="mailto:d@reader.example"))
        world.turn(NEXT_DAY)
        world.turn(LATER)
        assert "listed in reports.suppress" in world.reports()["example.com"].why

    def test_its_record_allows_none_so_large(self, world: Reporting) -> None:
        world.see(seen(1, rua="mailto:d@example.com!100"))
        world.turn(NEXT_DAY)
        world.turn(LATER)
        (found,) = [each for each in world.all_reports() if each.form == "whole"]
        assert found.state == "not sent"
        assert "allows at most 100; it would have more than 20 parts" in found.why

    def test_the_destination_sends_nothing_but_forgeries(self, world: Reporting) -> None:
        world.see(seen(1, rua="mailto:d@reader.example"), *(failed(number, "reader.example") for number in range(2, 9)))
        world.run()
        assert "failed DMARC itself" in world.reports()["example.com"].why

    def test_many_domains_of_one_destination(self, world: Reporting) -> None:
        domains = [f"d{number}.example.net" for number in range(51)]
        world.see(*(seen(number, domain, "mailto:d@example.net") for number, domain in enumerate(domains)))
        world.run()
        assert len(world.receiver.taken) == 10
        whys = [each.why for each in world.reports().values() if each.state == "not sent"]
        assert len(whys) == 41
        assert all("reports.max_per_destination is reached for example.net" in why for why in whys)

    @pytest.mark.parametrize(
        ("key", "words"),
        [("max_per_destination", "is reached for example.com"), ("max_a_day", "reports.max_a_day is reached")],
    )
    def test_many_addresses_of_one_report(self, world: Reporting, key: str, words: str) -> None:
        section = msgspec.structs.replace(world.configuration.reports, **{key: 3})
        world.configuration = msgspec.structs.replace(world.configuration, reports=section)
        world.see(seen(1, rua=",".join(f"mailto:d{number}@example.com" for number in range(8))))
        world.run()
        assert len(world.receiver.taken) == 3
        assert [words in each.why for each in world.deliveries().values()].count(True) == 5

    def test_the_first_day_is_a_dry_run(self, world: Reporting, tmp_path: Path) -> None:
        with world.database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM report_days")
        world.see(seen(1))
        world.run()
        assert world.receiver.taken == []
        assert world.reports()["example.com"].state == "dry run"
        assert [each.state for each in world.deliveries().values()] == ["dry run"]
        (path,) = (tmp_path / "store" / "reports").glob("*.xml.gz")
        assert path.name.startswith("receiver.example!example.com!")
        assert b"192.0.2.1" in gzip.decompress(path.read_bytes())

    def test_a_dry_run_of_a_domain_whose_file_name_would_be_too_long(self, world: Reporting, tmp_path: Path) -> None:
        with world.database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM report_days")
        long = ".".join(["a" * 60] * 3 + ["example.com"])
        world.see(seen(1, long), seen(2))
        world.run()
        assert {each.state for each in world.reports().values()} == {"dry run"}
        assert len(list((tmp_path / "store" / "reports").glob("*.xml.gz"))) == 2

    def test_what_would_not_be_sent_is_not_written_in_a_dry_run(self, world: Reporting) -> None:
        with world.database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM report_days")
            suppressions.suppress(connection, suppressions.Suppression("d@example.com", 0, "a report came back", 0))
        world.see(seen(1))
        assert "is suppressed" in self.why(world)

    @pytest.mark.parametrize("rua", ["mailto:d@stranger.example", "https://example.com/"])
    def test_its_file_is_removed(self, world: Reporting, rua: str, tmp_path: Path) -> None:
        world.see(seen(1, rua=rua))
        self.why(world)
        assert list((tmp_path / "store" / "reports").iterdir()) == []

    def test_it_is_too_large(self, world: Reporting, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(delivering, "MAX_OCTETS", 100)
        monkeypatch.setattr(aggregate_dispatch, "MAX_OCTETS", 100)
        world.see(seen(1))
        world.run()
        assert world.receiver.taken == []
        assert all("at most 100 are sent" in each.why for each in world.all_reports())

    def test_the_relay_takes_none_so_large(self, world: Reporting) -> None:
        world.receiver.__exit__()
        world.receiver.max_octets = 1000
        world.receiver.__enter__()
        world.see(seen(1))
        world.run()
        assert world.receiver.taken == []
        assert all("the relay takes at most 1000" in each.why for each in world.all_reports())


class TestTrouble:
    def test_a_relay_that_is_dead_for_hours(self, world: Reporting) -> None:
        world.see(seen(1))
        world.receiver.__exit__()
        world.run(until=LATER)
        assert world.reports()["example.com"].state == "waiting"
        assert any("1 report waiting" in line for line in world.lines)
        assert len(world.lines) < 10
        with Receiver() as again:
            section = msgspec.structs.replace(world.configuration.reports, relay=again.url)
            world.configuration = msgspec.structs.replace(world.configuration, reports=section)
            world.turn(LATER + 5 * 3600)
            assert len(again.taken) == 1

    def test_a_relay_that_stays_dead(self, world: Reporting) -> None:
        world.see(seen(1))
        world.receiver.__exit__()
        world.run(until=NEXT_DAY + 2 * DAY_SECONDS)
        assert world.reports()["example.com"].state == "given up"
        assert any("given up" in line for line in world.lines)
        assert list(Path(world.configuration.store.directory, "reports").glob("*.gz")) == []

    def test_a_dead_relay_is_reported_once_for_all_that_wait(self, world: Reporting) -> None:
        world.see(*(seen(number, f"example{number}.com") for number in range(5)))
        world.receiver.__exit__()
        world.turn(NEXT_DAY)
        world.turn(LATER)
        world.turn(LATER + 20)
        (line,) = world.lines
        assert line.endswith("5 reports waiting")

    def test_a_relay_that_refuses_our_address_costs_no_destination_its_reports(self, world: Reporting) -> None:
        world.see(seen(1))
        world.receiver.at_mail = "550 5.7.1 not from you"
        world.run()
        assert world.reports()["example.com"].state == "waiting"
        assert any("550 5.7.1 not from you; 1 report waiting" in line for line in world.lines)
        with world.database.reading() as connection:
            assert suppressions.all_suppressions(connection) == []
        world.receiver.at_mail = ""
        world.turn(LATER + 5 * 3600)
        assert world.reports()["example.com"].state == "sent"

    def test_what_cannot_be_signed_waits(self, world: Reporting, monkeypatch: pytest.MonkeyPatch) -> None:
        world.see(seen(1))
        monkeypatch.setattr(Outgoing, "sign", lambda *_: Signed(why="receiver.example: the key is broken"))
        world.run()
        assert world.receiver.taken == []
        assert world.reports()["example.com"].state == "waiting"
        assert any("not signed: receiver.example: the key is broken" in line for line in world.lines)

    def test_a_destination_that_refuses_gets_none_for_a_while(self, world: Reporting) -> None:
        world.see(seen(1))
        world.receiver.replies["d@example.com"] = "550 5.1.1 no such user"
        world.run()
        assert world.reports()["example.com"].state == "refused"
        assert "550 5.1.1 no such user" in world.deliveries()["d@example.com"].why
        with world.database.reading() as connection:
            (suppression,) = suppressions.all_suppressions(connection)
        assert suppression.subject == "d@example.com"
        assert world.lines == ["reports: example.com to d@example.com: refused: 550 5.1.1 no such user"]

    def test_a_refusal_ends_no_suppression_of_the_operator(
        self, world: Reporting, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Added while the relay was about to answer."""
        world.see(seen(1))
        world.receiver.replies["d@example.com"] = "550 5.1.1 no such user"
        for_ever, send = suppressions.Suppression("d@example.com", 0, "by the operator", 1), Relay.send

        def suppress_and_send(*arguments: Any) -> RelayReply:
            with world.database.writing() as connection:
                suppressions.suppress(connection, for_ever)
            return send(*arguments)

        monkeypatch.setattr(Relay, "send", suppress_and_send)
        world.run()
        assert world.reports()["example.com"].state == "refused"
        with world.database.reading() as connection:
            assert suppressions.all_suppressions(connection) == [for_ever]

    def test_a_relay_that_does_not_let_us_send_costs_no_destination_its_reports(self, world: Reporting) -> None:
        """As one in front of whose mynetworks nobody thought of this host."""
        world.see(*(seen(number, f"d{number}.example") for number in range(3)))
        denial = "554 5.7.1 Relay access denied"
        world.receiver.replies |= {f"d@d{number}.example": denial for number in range(3)}
        world.run()
        assert {each.state for each in world.reports().values()} == {"refused"}
        assert sorted(world.lines) == [f"reports: d{n}.example to d@d{n}.example: refused: {denial}" for n in range(3)]
        with world.database.reading() as connection:
            assert suppressions.all_suppressions(connection) == []

    def test_a_destination_that_defers_is_tried_again(self, world: Reporting) -> None:
        world.see(seen(1))
        world.receiver.at_data["d@example.com"] = "451 4.7.1 greylisted"
        world.run()
        assert world.deliveries()["d@example.com"].tries > 1
        del world.receiver.at_data["d@example.com"]
        world.turn(LATER + 5 * 3600)
        assert world.reports()["example.com"].state == "sent"

    def test_the_pauses_between_two_tries_grow(self, world: Reporting) -> None:
        world.see(seen(1, rua="mailto:a@example.com,mailto:b@example.com"))
        world.receiver.at_data["a@example.com"] = "451 4.7.1 greylisted"
        world.turn(NEXT_DAY)
        tried, now = [], LATER
        for _ in range(4):
            world.turn(now)
            found = world.deliveries()["a@example.com"]
            tried.append((found.tries, found.due - now))
            assert world.reports()["example.com"].due == found.due
            world.turn(found.due - 1)  # not due
            now = found.due
        assert tried == [(1, 300), (2, 600), (3, 1200), (4, 2400)]
        assert world.deliveries()["a@example.com"].tries == 4
        assert [recipient for _, recipient, _ in world.receiver.taken] == ["b@example.com"]

    def test_each_destination_is_tried_when_it_is_due(self, world: Reporting) -> None:
        world.see(seen(1, rua="mailto:a@example.com,mailto:b@example.com"))
        world.receiver.at_data |= dict.fromkeys(("a@example.com", "b@example.com"), "451 4.7.1 greylisted")
        world.turn(NEXT_DAY)
        world.turn(LATER)
        later = msgspec.structs.replace(world.deliveries()["b@example.com"], due=LATER + 3600)
        with world.database.writing() as connection:
            report_deliveries.change_delivery(connection, later)
        world.turn(LATER + 300)
        assert {address: each.tries for address, each in world.deliveries().items()} == {
            "a@example.com": 2,
            "b@example.com": 1,
        }

    def test_a_destination_that_always_defers_is_given_up(self, world: Reporting) -> None:
        world.see(seen(1, rua="mailto:a@example.com,mailto:b@example.com"))
        world.receiver.at_data["a@example.com"] = "451 4.7.1 greylisted"
        for hours in (0, 7, 20, 29):
            world.turn(NEXT_DAY + hours * 3600)
        found = world.deliveries()
        assert {address: each.state for address, each in found.items()} == {
            "a@example.com": "given up",
            "b@example.com": "sent",
        }
        assert world.reports()["example.com"].state == "sent"
        assert any("example.com to a@example.com: given up: 451 4.7.1 greylisted" in line for line in world.lines)

    def test_of_two_destinations_each_has_its_fate(self, world: Reporting) -> None:
        world.see(seen(1, rua="mailto:a@example.com,mailto:b@example.com"))
        world.receiver.replies["a@example.com"] = "550 no"
        world.run()
        assert {address: found.state for address, found in world.deliveries().items()} == {
            "a@example.com": "refused",
            "b@example.com": "sent",
        }
        assert [recipient for _, recipient, _ in world.receiver.taken] == ["b@example.com"]

    def test_a_sender_that_dies_between_two_destinations_sends_neither_twice(self, world: Reporting) -> None:
        world.see(seen(1, rua="mailto:a@example.com,mailto:b@example.com"))
        world.receiver.at_data["b@example.com"] = "421 4.3.2 going down"
        world.run()
        world.receiver.at_data.clear()
        world.turn(LATER + 5 * 3600)
        assert sorted(recipient for _, recipient, _ in world.receiver.taken) == ["a@example.com", "b@example.com"]

    def test_a_sender_that_is_killed_sends_nothing_twice(self, world: Reporting) -> None:
        world.see(*(seen(number, f"d{number}.example") for number in range(5)))
        world.turn(NEXT_DAY)
        killing = Killing()
        with killing:
            section = msgspec.structs.replace(world.configuration.reports, relay=killing.url)
            world.configuration = msgspec.structs.replace(world.configuration, reports=section)
            assert killing.killed_in(world.turn_in_child, LATER)
            assert Counter(each.state for each in world.reports().values()) == {"waiting": 5}
            killing.kills = False
            world.turn(LATER + 20)
            assert len({recipient for _, recipient, _ in killing.taken}) == len(killing.taken) == 5
        assert Counter(each.state for each in world.reports().values()) == {"sent": 4, "given up": 1}
        (domain,) = [domain for domain, each in world.reports().items() if each.state == "given up"]
        assert killing.taken[0][1] == f"d@{domain}"
        why = "it may have been taken: the sender ended before the answer"
        (given_up,) = world.deliveries(domain).values()
        assert (given_up.why, given_up.tries) == (why, 1)
        assert world.reports()[domain].why == f"d@{domain}: {why}"
        assert world.lines == [f"reports: {domain} to d@{domain}: given up: {why}"]

    def test_a_relay_that_does_not_answer_gets_it_once(self, world: Reporting) -> None:
        world.see(seen(1, rua="mailto:a@example.com,mailto:b@example.com"))
        world.receiver.silent.add("a@example.com")
        world.run()
        assert sorted(recipient for _, recipient, _ in world.receiver.taken) == ["a@example.com", "b@example.com"]
        found = world.deliveries()
        assert {address: each.state for address, each in found.items()} == {
            "a@example.com": "given up",
            "b@example.com": "sent",
        }
        assert found["a@example.com"].why.startswith("it may have been taken: Connection unexpectedly closed")
        assert any("example.com to a@example.com: given up: it may have been taken" in line for line in world.lines)

    def test_whoever_is_no_longer_the_sender_takes_its_message_back(self, world: Reporting) -> None:
        """Another process has made the try while the message was on its way."""
        world.see(seen(1))
        world.turn(NEXT_DAY)
        exchange = report_deliveries.exchange_delivery

        def late(connection: outbox.Connection, before: ReportDelivery, after: ReportDelivery) -> bool:
            report_deliveries.change_delivery(connection, msgspec.structs.replace(before, tries=before.tries + 1))
            return exchange(connection, before, after)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(report_deliveries, "exchange_delivery", late)
            world.turn(LATER)
        assert world.receiver.taken == []
        assert world.deliveries()["d@example.com"].state == "waiting"
        world.turn(LATER + 20)
        assert len(world.receiver.taken) == 1

    def test_a_report_that_is_sent_again_is_the_same(self, world: Reporting) -> None:
        world.see(seen(1, rua="mailto:a@example.com,mailto:b@example.com"))
        world.receiver.replies["b@example.com"] = "450 later"
        world.run()
        world.see(seen(2))  # a late row
        world.receiver.replies.clear()
        world.turn(LATER + 5 * 3600)
        first, second = (parsed(octets)[1] for _, _, octets in world.receiver.taken)
        assert first == second

    def test_a_dns_that_fails_means_later(self, world: Reporting) -> None:
        world.see(seen(1, rua="mailto:d@reader.example"))
        world.nameserver.drop = True
        world.turn(LATER)
        assert world.reports()["example.com"].state == "waiting"
        world.nameserver.drop = False
        world.turn(LATER + 5 * 3600)
        assert world.reports()["example.com"].state == "sent"


def test_only_one_process_sends(world: Reporting) -> None:
    world.see(seen(1))
    other = Leadership(world.database, Path(world.configuration.store.directory))
    assert other.held()
    world.run()
    assert world.receiver.taken == []
    other.release()
    world.run()
    assert len(world.receiver.taken) == 1


def test_what_was_sent_today_is_counted_once_a_turn(world: Reporting, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    count = report_deliveries.taken_by_organization

    def counting(connection: outbox.Connection, since: int) -> Counter[str]:
        counts.append(since)
        return count(connection, since)

    monkeypatch.setattr(report_deliveries, "taken_by_organization", counting)
    world.see(*(seen(number, f"example{number}.com") for number in range(6)))
    world.turn(NEXT_DAY)
    counts.clear()
    world.turn(LATER)
    assert len(world.receiver.taken) == 6
    assert counts == [LATER - LATER % DAY_SECONDS]


def test_sending_is_spread(world: Reporting) -> None:
    world.see(*(seen(number, f"example{number}.com") for number in range(40)))
    world.turn(NEXT_DAY)
    due = sorted(each.due - NEXT_DAY for each in world.reports().values())
    assert due[0] < 3600
    assert due[-1] > 5 * 3600
    assert len(set(due)) == 40


def test_a_database_that_is_away_is_reported_once_and_used_again(world: Reporting, tmp_path: Path) -> None:
    world.see(seen(1))
    directory = tmp_path / "store" / "reports"
    with world.reporter() as turns:
        directory.write_text("in the way")
        for _ in range(3):
            turns.turn(NEXT_DAY)
        assert not turns.leads
        (line,) = world.lines
        assert line.endswith("; trying again")
        directory.unlink()
        turns.turn(NEXT_DAY)
        assert turns.leads
        turns.turn(LATER)
        assert len(world.receiver.taken) == 1
        turns.close()
        world.turn(LATER)  # another process may send now
        assert world.lines == [line]
        other = Leadership(world.database, tmp_path / "store")
        assert other.held()
        other.release()


def test_a_clock_that_was_wrong_does_not_end_all_reports() -> None:
    today = NEXT_DAY // DAY_SECONDS
    assert days_to_plan([today - 2, today + 4000], NEXT_DAY) == [today - 1]
    assert days_to_plan([today - 2000], NEXT_DAY) == [today - 3, today - 2, today - 1]
    assert days_to_plan([], NEXT_DAY) == [today - 1]


def test_a_day_is_planned_half_an_hour_after_its_end() -> None:
    midnight = NEXT_DAY - NEXT_DAY % DAY_SECONDS
    today = midnight // DAY_SECONDS
    assert days_to_plan([today - 2], midnight + 1799) == []
    assert days_to_plan([today - 2], midnight + 1800) == [today - 1]


class Successor(Receiver):
    """A relay; at the first message, the database ends the session by which the sender is the one that sends."""

    def __init__(self, server: Postgresql, name: str) -> None:
        super().__init__()
        self._server, self._name = server, name

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's
        self._server.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'", self._name
        )
        return await super().handle_DATA(server, session, envelope)


def test_whoever_lost_the_right_to_send_stops_at_once(
    tmp_path: Path, nameserver: NameServer, postgresql: Postgresql
) -> None:
    database = postgresql.create()
    with Successor(postgresql, database.rpartition("/")[2]) as receiver:
        world = Reporting(tmp_path, nameserver, receiver, database=database)
        world.see(*(seen(number, f"example{number}.com") for number in range(5)))
        world.turn(NEXT_DAY)
        world.turn(LATER)
        assert len(receiver.taken) == 1
        assert any("trying again" in line for line in world.lines)
        world.turn(LATER + 20)
        assert len(receiver.taken) == 2
        world.database.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_is_the_daemons(tmp_path: Path, nameserver: NameServer, receiver: Receiver) -> None:
    """`assay report send` by root does not keep the daemon from sending."""
    (tmp_path / "store").mkdir()
    os.chown(tmp_path / "store", 65534, 65534)
    world = Reporting(tmp_path, nameserver, receiver)
    world.run(until=NEXT_DAY)
    for name in ("reports", "reports.lock"):
        status = (tmp_path / "store" / name).stat()
        assert (name, status.st_uid, status.st_gid) == (name, 65534, 65534)
    world.database.close()
