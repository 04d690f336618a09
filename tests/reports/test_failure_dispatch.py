# SPDX-License-Identifier: GPL-3.0-or-later
"""Failure reports, from a message that a worker judges to what a receiver reads: a real database, DNS and SMTP server.

parsedmarc reads what arrives.
"""

from __future__ import annotations

import contextlib
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dkim as dkimpy
import msgspec
import parsedmarc
import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from sqlalchemy import Engine, event

from assay.config import Configuration, make_resolver, make_settings, make_trust
from assay.config.database import StoreBackend
from assay.config.reports import ReportsSection
from assay.daemon.keeper import Keeper
from assay.daemon.reporter import ReportMeter
from assay.daemon.worker import session_maker
from assay.log import Log
from assay.metrics import Page, read
from assay.model.message import split_message
from assay.model.smtp import parse_address
from assay.policy import Action
from assay.protocol.report import FailureReport
from assay.reports import failure_dispatch
from assay.session import Verdict
from assay.session.delivery import Delivery, deliver
from assay.store import incidents, outbox, suppressions
from assay.store.channel import RowChannel
from assay.store.from_verdict import Keeping, message_row
from assay.store.incident_from_verdict import with_incident
from assay.store.outbox import DAY_SECONDS, OutgoingReport, ReportKind, ReportState
from assay.store.rows import MAX_ROW_OCTETS, MessageRow, decode, encode
from assay.store.stand_in import StandIn
from assay.store.writer import Writer
from nameserver import NameServer
from postgresql import Postgresql
from receiving import Killing, Receiver
from report_world import EARLIER, ROWS, Reporting, seen, with_failure
from reporting import no_complaints
from signing import record, rsa_key, sign_rsa
from store_rows import NOON

NOW = NOON // 1000
DUE = NOW + incidents.COLLECT_SECONDS
RUF = "v=DMARC1; p=reject; ruf=mailto:f@example.com"
SPF = "v=spf1 ip4:192.0.2.1 -all"
ZONE = {
    **ROWS,
    "example.com": [["TXT", [SPF]]],
    "_dmarc.example.com": [["TXT", [RUF]]],
    "sel._domainkey.example.com": [["TXT", [record(rsa_key())]]],
    "other.example": [["TXT", ["v=spf1 ip4:192.0.2.1 -all"]]],
    "sel._domainkey.other.example": [["TXT", [record(rsa_key())]]],
}
MESSAGE = (
    b"Received: from mx.example.com (mx.example.com [203.0.113.9])\r\n"
    b"\tby mx.receiver.example for <ann.lee@receiver.example>; Wed, 15 Nov 2023 12:00:00 +0000\r\n"
    b"Delivered-To: ann.lee@receiver.example\r\n"
    b'From: "Joe Doe" <joe.doe@example.com>\r\n'
    b"To: Ann Lee <ann.lee@receiver.example>\r\n"
    b"Subject: Your parcel, ann.lee@receiver.example\r\n"
    b"Message-ID: <4711@example.com>\r\n"
    b"List-Unsubscribe: <https://example.com/?token=annlee>\r\n"
    b"\r\n"
    b"the body, for ann.lee@receiver.example alone\r\n"
)
BAD, GOOD = "203.0.113.9", "192.0.2.1"


def judged(configuration: Configuration, message: bytes = MESSAGE, *, at: int = NOW, **envelope: Any) -> MessageRow:
    """What a worker hands over of a message.

    :param envelope: see `verdict_of`.
    """
    return handed_over(verdict_of(configuration, message, at=at, **envelope), configuration, at)


def handed_over(verdict: Verdict, configuration: Configuration, at: int = NOW) -> MessageRow:
    """The same of a verdict."""
    keeping = Keeping("mx.receiver.example", failure_octets=configuration.reports.failure.max_header_octets)
    return with_incident(verdict, message_row(verdict, keeping, now=at + 0.5, waits={}), keeping)


def verdict_of(
    configuration: Configuration,
    message: bytes = MESSAGE,
    *,
    address: str = BAD,
    mail_from: str = "<joe.doe@example.com>",
    at: int = NOW,
) -> Verdict:
    """What a worker finds out about a message."""
    header, body = split_message(message)
    with make_resolver(configuration) as resolver:
        delivery = Delivery(
            parse_address(address),
            header.fields,
            body,
            helo="mx.example.com",
            mail_from=mail_from,
            recipients=("<ann.lee@receiver.example>",),
            queue_id=f"4Q{at}",
            now=at,
        )
        new_session = session_maker(make_settings(configuration), make_trust(configuration), resolver, 5.0)
        return deliver(new_session(lambda: None), delivery)[-1]


class Failing(Reporting):
    """A world in which messages come, and failure reports go."""

    def __init__(
        self,
        folder: Path,
        nameserver: NameServer,
        receiver: Receiver,
        database: str = "sqlite",
        section: Mapping[str, Any] | None = None,
        **failure: Any,
    ) -> None:
        secret = folder / "redaction.key"
        secret.write_text("a secret\n")
        secret.chmod(0o600)
        keys = {"enabled": True, "redaction_key_file": str(secret)} | failure
        super().__init__(folder, nameserver, receiver, {**(section or {}), "failure": keys}, database=database)
        # The domain also sends mail that passes, and it is not the first day.
        Writer(self.database).write([seen(1)])
        with self.database.writing() as connection:
            outbox.insert_report(connection, EARLIER)

    def judge(self, message: bytes = MESSAGE, **envelope: Any) -> MessageRow:
        return judged(self.configuration, message, **envelope)

    def receive(self, message: bytes = MESSAGE, *, at: int = NOW, **envelope: Any) -> None:
        """A message comes, and is written as by the recorder."""
        self.write(self.judge(message, at=at, **envelope), at=at)

    def write(self, *rows: MessageRow, at: int = NOW) -> None:
        Writer(self.database, clock=lambda: at + 1.0).write([decode(encode(row)) for row in rows])

    def failures(self) -> list[OutgoingReport]:
        return [each for each in self.all_reports() if each.kind is ReportKind.FAILURE and each.id != EARLIER.id]

    def headers(self) -> int:
        """How many headers wait."""
        with self.database.reading() as connection:
            return int(connection.exec_driver_sql("SELECT count(*) FROM incidents").scalar_one())


@pytest.fixture
def nameserver() -> Iterator[NameServer]:
    with NameServer(ZONE) as running:
        yield running


@pytest.fixture
def world(tmp_path: Path, nameserver: NameServer, receiver: Receiver) -> Iterator[Failing]:
    made = Failing(tmp_path, nameserver, receiver)
    yield made
    made.database.close()


class Watching(Killing):
    """One that first lets something else happen.

    :ivar dealt_with: what that returned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], int] = lambda: 0
        self.dealt_with: list[int] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's
        if self.kills:
            self.dealt_with.append(self.meanwhile())
        return await super().handle_DATA(server, session, envelope)


def parsed(octets: bytes) -> Mapping[str, Any]:
    """A report as parsedmarc reads it."""
    with no_complaints():
        found = parsedmarc.parse_report_email(octets, offline=True)
    assert found["report_type"] == "failure"
    return found["report"]  # type: ignore[no-any-return]  # it has no types


def test_it_is_counted(world: Failing) -> None:
    world.receive()
    world.write(with_failure(2, ruf="mailto:f@stranger.example"))
    page = Page.private()
    with world.reporter(ReportMeter(page)) as turns:
        turns.turn(DUE)
    figures = read([page])
    assert figures.of("reports_tried")["failure", "sent"] == 1
    assert figures.of("reports_withheld")["failure", "unusable"] == 1


class TestOneReport:
    def test_it_says_why_a_message_failed(
        self, location: str, tmp_path: Path, nameserver: NameServer, receiver: Receiver
    ) -> None:
        world = Failing(tmp_path, nameserver, receiver, location)
        broken = sign_rsa(MESSAGE, domain="example.com").replace(b"the body", b"another body")
        world.receive(broken)
        world.turn(DUE - 1)
        assert receiver.taken == []
        world.turn(DUE)
        ((path, recipient, octets),) = receiver.taken
        assert recipient == "f@example.com"
        found = parsed(octets)
        assert found["auth_failure"] == ["dmarc"]
        assert found["reporting_mta"].startswith("dns; mx.")  # the host that took it, not the domain that reports
        assert found["reported_domain"] == "example.com"
        assert found["source"]["ip_address"] == BAD
        assert found["delivery_result"] == "delivered"  # as its receiver was configured
        assert "dmarc=fail" in found["authentication_results"]
        assert b"DKIM-Domain: example.com\r\n" in octets
        assert b"DKIM-Selector: sel\r\n" in octets
        assert f'SPF-DNS: txt : example.com : "{SPF}"'.encode() in octets
        assert b"Identity-Alignment: dkim, spf\r\n" in octets
        (report,) = world.failures()
        assert (report.state, report.messages) == ("sent", 1)
        assert report.octets > 1000
        (delivery,) = world.deliveries_of(report.id)
        assert path == f"bounces+{delivery.token}@receiver.example"
        assert world.headers() == 0
        world.turn(DUE + 3600)
        assert len(receiver.taken) == 1
        world.database.close()

    def test_it_is_signed_and_says_what_it_is(self, world: Failing) -> None:
        world.receive()
        world.turn(DUE)
        ((_, _, octets),) = world.receiver.taken
        assert dkimpy.verify(octets, dnsfunc=lambda name, timeout=5: record(rsa_key()).encode())
        message = message_from_bytes(octets, policy=policy.default)
        assert isinstance(message, EmailMessage)
        assert message["Auto-Submitted"] == "auto-generated"
        assert message.get_content_type() == "multipart/report"

    def test_nobody_is_named_in_it(self, world: Failing) -> None:
        world.receive()
        world.turn(DUE)
        ((_, _, octets),) = world.receiver.taken
        for word in (b"ann.lee", b"Ann Lee", b"joe.doe", b"Joe Doe", b"annlee", b"the body"):
            assert word not in octets
        assert b"<4711@example.com>" in octets  # by which the domain finds it

    def test_the_operator_may_disclose_the_header_but_never_the_body(
        self, tmp_path: Path, nameserver: NameServer, receiver: Receiver
    ) -> None:
        world = Failing(tmp_path, nameserver, receiver, redact=False)
        world.receive()
        world.turn(DUE)
        ((_, _, octets),) = receiver.taken
        assert b"joe.doe@example.com" in octets
        assert b"the body" not in octets
        assert parsed(octets)["parsed_sample"]["subject"] == "Your parcel, ann.lee@receiver.example"
        world.database.close()

    def test_a_reverse_path_that_is_too_long_is_not_the_null_one(self, world: Failing) -> None:
        world.receive(mail_from=f"<{'a' * 300}@example.com>")
        world.turn(DUE)
        ((_, _, octets),) = world.receiver.taken
        assert b"Original-Mail-From" not in octets

    def test_the_same_person_has_the_same_hash_in_all_reports(self, world: Failing) -> None:
        world.receive()
        world.receive(at=NOW + 3600)
        world.turn(DUE)
        world.turn(DUE + 3600)
        first, second = (parsed(octets)["original_mail_from"] for _, _, octets in world.receiver.taken)
        assert first == second

    def test_a_header_that_is_too_long_is_cut(self, tmp_path: Path, nameserver: NameServer, receiver: Receiver) -> None:
        world = Failing(tmp_path, nameserver, receiver, max_header_octets=1024)
        row = world.judge(MESSAGE.replace(b"Message-ID", b"X-Long: " + b"x" * 900 + b"\r\nMessage-ID"))
        assert row.incident is not None
        assert sum(len(name) + len(value) + 3 for name, value in row.incident.header) <= 1024
        world.write(row)
        world.turn(DUE)
        ((_, _, octets),) = receiver.taken
        assert b"The header is longer than what is included." in octets
        world.database.close()


#: What a message is, as arguments of `Failing.judge`.
ALL_FAIL: Mapping[str, Any] = {"address": BAD}
SPF_PASSES: Mapping[str, Any] = {"address": GOOD}
BROKEN = sign_rsa(MESSAGE, domain="example.com").replace(b"the body", b"another body")
BROKEN_OF_ANOTHER = sign_rsa(MESSAGE, domain="other.example").replace(b"the body", b"another body")
SIGNED = sign_rsa(MESSAGE, domain="example.com")
OTHERS_SPF_FAILS: Mapping[str, Any] = {"message": SIGNED, "address": BAD, "mail_from": "<x@other.example>"}


def publish(nameserver: NameServer, text: str) -> None:
    nameserver.serve({**ZONE, "_dmarc.example.com": [["TXT", [text]]]})


def asking(nameserver: NameServer) -> Configuration:
    """Of a host that asks this server."""
    host, port = nameserver.address
    dns = {"nameservers": [f"{host}:{port}"], "timeout_seconds": 1.0, "budget_seconds": 5.0}
    return msgspec.convert({"identity": {"authserv_id": "mx.receiver.example"}, "dns": dns}, Configuration)


class TestOptions:
    """fo= to the letter (RFC 9989, 4.7)."""

    @pytest.mark.parametrize(
        ("fo", "message", "failure"),
        [
            ("", ALL_FAIL, "dmarc"),  # the default is 0
            ("fo=0", ALL_FAIL, "dmarc"),
            ("fo=0", SPF_PASSES, None),
            ("fo=1", SPF_PASSES, "dmarc"),
            ("fo=1", {"message": SIGNED, "address": GOOD}, None),
            ("fo=1", OTHERS_SPF_FAILS, "dmarc"),
            ("fo=d", ALL_FAIL, None),  # no signature
            ("fo=d", {"message": BROKEN, "address": GOOD}, "bodyhash"),
            ("fo=d", {"message": BROKEN_OF_ANOTHER, "address": GOOD}, "bodyhash"),  # regardless of alignment
            ("fo=s", ALL_FAIL, "spf"),
            ("fo=s", SPF_PASSES, None),
            ("fo=s", OTHERS_SPF_FAILS, "spf"),
            ("fo=0:d:s", {"message": BROKEN, "address": BAD}, "dmarc"),  # one report, though all three are asked for
            ("fo=d:s", {"message": BROKEN, "address": BAD}, "bodyhash"),
            (
                "fo=d",
                {"message": b"DKIM-Signature: v=1; a=b\r\n" + MESSAGE, "address": GOOD},
                None,
            ),  # whose is not said
            ("fo=d:s", {"message": b"DKIM-Signature: v=1; a=b\r\n" + MESSAGE, "address": BAD}, "spf"),
        ],
    )
    def test_what_a_record_asks_for(
        self, nameserver: NameServer, fo: str, message: Mapping[str, Any], failure: str | None
    ) -> None:
        publish(nameserver, f"{RUF}; {fo}")
        row = judged(asking(nameserver), **message)
        assert (row.incident.failure if row.incident is not None else None) == failure

    @pytest.mark.parametrize(
        ("fo", "signature", "spf_domain"),
        [
            ("fo=0", ("example.com", "sel", "ann@example.com"), "example.com"),
            ("fo=d", ("example.com", "sel", "ann@example.com"), ""),
            ("fo=s", None, "example.com"),
        ],
    )
    def test_what_a_report_names(
        self, nameserver: NameServer, fo: str, signature: tuple[str, str, str] | None, spf_domain: str
    ) -> None:
        """What is aligned with the author domain may be above the policy domain."""
        nameserver.serve({**ZONE, "_dmarc.news.example.com": [["TXT", [f"{RUF}; {fo}"]]]})
        message = MESSAGE.replace(b"joe.doe@example.com", b"joe.doe@news.example.com")
        broken = sign_rsa(message, domain="example.com").replace(b"the body", b"another body")
        incident = judged(asking(nameserver), broken).incident
        assert incident is not None
        assert (incident.signature, incident.spf_domain) == (signature, spf_domain)

    # Without an answer for com, the organizational domain is not known.
    @pytest.mark.parametrize("above", [{}, {"_dmarc.com": [["SERVFAIL", "*"]]}])
    def test_what_belongs_to_another_is_not_named(
        self, nameserver: NameServer, above: Mapping[str, list[list[Any]]]
    ) -> None:
        nameserver.serve({**ZONE, **above})
        incident = judged(asking(nameserver), BROKEN_OF_ANOTHER, mail_from="<x@other.example>").incident
        assert incident is not None
        assert (incident.signature, incident.spf_domain) == (None, "")

    @pytest.mark.parametrize(
        "text",
        [
            "v=DMARC1; p=reject; fo=1:d:s",  # RFC 9989, 4.7: fo= without ruf= is ignored
            f"{RUF}; psd=y",
        ],
    )
    def test_a_record_that_gets_none(self, nameserver: NameServer, text: str) -> None:
        publish(nameserver, text)
        assert judged(asking(nameserver)).incident is None


class TestHandedOver:
    @pytest.mark.parametrize("octets", [0, 16_384])
    def test_no_header_leaves_a_worker_unless_reports_are_made(self, nameserver: NameServer, octets: int) -> None:
        taken: list[bytes] = []
        channel = cast(RowChannel, SimpleNamespace(sender=lambda: SimpleNamespace(send=taken.append)))
        keeping = Keeping("mx.receiver.example", failure_octets=octets)
        keeper = Keeper(channel, StandIn(channel, "", 0), keeping, Log(lambda *_: None))
        keeper.keep(verdict_of(asking(nameserver)), NOW, {})
        (row,) = taken
        assert (decode(row).incident is not None) == (b"Your parcel" in row) == bool(octets)

    def test_nothing_about_a_message_that_comes_again(self, nameserver: NameServer) -> None:
        configuration = asking(nameserver)
        verdict = verdict_of(configuration)
        assert handed_over(verdict, configuration).incident is not None
        deferred = msgspec.structs.replace(verdict, action=Action.TEMPFAIL)
        assert handed_over(deferred, configuration).incident is None

    def test_a_guess_is_no_failure_of_spf(self, nameserver: NameServer) -> None:
        publish(nameserver, f"{RUF}; fo=s")
        configuration = asking(nameserver)
        verdict = verdict_of(configuration)
        mail_from = verdict.assessment.spf_mail_from
        assert mail_from is not None
        guessed = msgspec.structs.replace(mail_from, guessed=True)
        assessment = msgspec.structs.replace(verdict.assessment, spf_mail_from=guessed)
        assert handed_over(verdict, configuration).incident is not None
        assert handed_over(msgspec.structs.replace(verdict, assessment=assessment), configuration).incident is None

    def test_a_row_that_would_be_too_long_has_no_header(self) -> None:
        row = with_failure(2)
        assert row.incident is not None
        long = msgspec.structs.replace(row.incident, header=((b"X", b"x" * MAX_ROW_OCTETS),))
        octets = encode(msgspec.structs.replace(row, incident=long))
        assert len(octets) <= MAX_ROW_OCTETS
        assert decode(octets).incident is None


class TestNeverAboutReports:
    @pytest.mark.parametrize(
        ("field", "mail_from"),
        [
            (b"", "<>"),
            (b"Auto-Submitted: auto-replied\r\n", "<joe.doe@example.com>"),
            (b"Auto-Submitted: auto-generated\r\n", "<joe.doe@example.com>"),
            (b"Content-Type: multipart/report; report-type=feedback-report\r\n", "<joe.doe@example.com>"),
        ],
    )
    def test_what_a_program_sent(self, nameserver: NameServer, field: bytes, mail_from: str) -> None:
        assert judged(asking(nameserver), field + MESSAGE, mail_from=mail_from).incident is None

    def test_a_report_of_ours_that_comes_to_a_host_like_this(self, world: Failing) -> None:
        text = "v=DMARC1; p=reject; ruf=mailto:f@receiver.example; fo=1"
        world.nameserver.serve({**ZONE, "_dmarc.receiver.example": [["TXT", [text]]]})
        world.receive()
        world.turn(DUE)
        ((path, _, octets),) = world.receiver.taken
        forwarded = octets.replace(b"This is a DMARC", b"This WAS a DMARC")  # so that it fails
        row = world.judge(forwarded, mail_from=f"<{path}>")
        assert any(finding.key == "dmarc" and finding.result == "fail" for finding in row.findings)
        assert row.incident is None


class TestAlike:
    def test_messages_that_fail_alike_are_one_report(self, world: Failing) -> None:
        for second in range(5):
            world.receive(at=NOW + second)
        world.turn(DUE)
        ((_, _, octets),) = world.receiver.taken
        assert b"Incidents: 5\r\n" in octets
        assert world.failures()[0].messages == 5

    def test_another_client_is_another_report(self, world: Failing) -> None:
        world.receive()
        world.receive(address="203.0.113.10")
        world.turn(DUE)
        assert len(world.receiver.taken) == 2

    @pytest.mark.parametrize(
        "change",
        [
            {"failure": "spf"},
            {"delivery": "policy"},
            {"signature": ("example.com", "sel", "")},
            {"spf_domain": "example.com"},
        ],
    )
    def test_what_fails_in_another_way_is_another_report(self, world: Failing, change: Mapping[str, Any]) -> None:
        row, other = with_failure(2), with_failure(3)
        assert other.incident is not None
        world.write(row, msgspec.structs.replace(other, incident=msgspec.structs.replace(other.incident, **change)))
        assert [report.messages for report in world.failures()] == [1, 1]

    def test_what_comes_while_it_is_sent_does_not_change_it(self, world: Failing) -> None:
        publish(world.nameserver, f"{RUF},mailto:g@example.com")
        world.receiver.replies["g@example.com"] = "450 later"
        world.receive()
        world.turn(DUE)
        world.receive(at=NOW + 1)
        world.receiver.replies.clear()
        world.turn(DUE + 600)
        first, second = (octets.partition(b"This is a DMARC")[2] for _, _, octets in world.receiver.taken)
        assert first == second

    def test_a_row_that_comes_again_counts_once(self, world: Failing) -> None:
        row = world.judge()
        world.write(row)
        world.write(row)
        assert world.failures()[0].messages == 1

    def test_what_waited_in_a_spool_for_days_is_not_reported(self, world: Failing) -> None:
        world.write(world.judge(), at=NOW + 2 * DAY_SECONDS)
        assert world.failures() == []

    def test_a_flood_of_different_failures_is_bounded(self, world: Failing) -> None:
        world.write(*(with_failure(number, client=f"203.0.113.{number}") for number in range(2, 100)))
        assert len(world.failures()) == world.headers() == incidents.MAX_WAITING_OF_A_DOMAIN

    def test_a_flood_about_many_domains_is_bounded(self, world: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(incidents, "MAX_WAITING", 20)
        world.write(*(with_failure(number, f"d{number}.example") for number in range(2, 50)))
        assert world.headers() == 20


class TestNotSent:
    def why(self, world: Failing) -> str:
        world.turn(DUE)
        assert world.receiver.taken == []
        (report,) = world.failures()
        assert report.state == "not sent"
        assert world.headers() == 0
        return report.why

    def test_another_host_did_not_agree(self, world: Failing) -> None:
        world.write(with_failure(2, ruf="mailto:f@stranger.example"))
        assert "does not ask for these reports" in self.why(world)

    def test_another_host_agreed_to_all_reports(self, world: Failing) -> None:
        world.write(with_failure(2, ruf="mailto:f@reader.example"))
        world.turn(DUE)
        assert [recipient for _, recipient, _ in world.receiver.taken] == ["f@reader.example"]

    def test_another_host_sends_these_elsewhere(self, world: Failing) -> None:
        text = "v=DMARC1; ruf=mailto:other@reader.example; rua=mailto:d@x.example"
        world.nameserver.serve({**ZONE, "example.com._report._dmarc.reader.example": [["TXT", [text]]]})
        world.write(with_failure(2, ruf="mailto:f@reader.example"))
        world.turn(DUE)
        assert [recipient for _, recipient, _ in world.receiver.taken] == ["other@reader.example"]

    @pytest.mark.parametrize("subject", ["f@example.com", "example.com"])
    def test_a_suppressed_destination_or_domain(self, world: Failing, subject: str) -> None:
        with world.database.writing() as connection:
            suppressions.suppress(connection, suppressions.Suppression(subject, 0, "by the operator", 0))
        world.write(with_failure(2))
        assert f"{subject} is suppressed: by the operator" in self.why(world)

    def test_a_domain_in_the_file(self, world: Failing, tmp_path: Path) -> None:
        (tmp_path / "suppressed").write_text("example.com\n")
        section = msgspec.structs.replace(world.configuration.reports, suppress=str(tmp_path / "suppressed"))
        world.configuration = msgspec.structs.replace(world.configuration, reports=section)
        world.write(with_failure(2))
        assert self.why(world) == "listed in reports.suppress"

    def test_a_domain_all_of_whose_mail_fails(self, world: Failing) -> None:
        rows = [with_failure(number, "forged.example") for number in (2, 3)]
        assert rows[0].dmarc is not None
        findings = tuple(msgspec.structs.replace(each, result="fail") for each in rows[0].findings)
        world.write(*(msgspec.structs.replace(row, findings=findings) for row in rows))
        assert "failed DMARC itself" in self.why(world)

    def test_a_size_that_its_record_allows(self, world: Failing) -> None:
        world.write(with_failure(2, ruf="mailto:f@example.com!1k"))  # it is not divided, and there is no error report
        assert "allows at most 1024" in self.why(world)

    def test_failure_reports_were_switched_off(self, world: Failing) -> None:
        world.write(with_failure(2))
        section = msgspec.structs.replace(
            world.configuration.reports,
            failure=msgspec.structs.replace(world.configuration.reports.failure, enabled=False),
        )
        world.configuration = msgspec.structs.replace(world.configuration, reports=section)
        assert self.why(world) == "reports.failure.enabled is false"

    @pytest.mark.parametrize("domain", ["-a.example", "a!b.example", "a'b.example"])
    def test_a_domain_that_is_no_host_name(self, world: Failing, domain: str) -> None:
        """Anybody can publish a record there, and let its mail fail."""
        world.write(with_failure(2, domain, ruf="mailto:f@example.com"))
        assert self.why(world) == "not a host name"

    def test_switched_off_before_a_spool_was_written(self, world: Failing) -> None:
        off = msgspec.structs.replace(world.configuration, reports=ReportsSection())
        for configuration, headers in ((off, 0), (world.configuration, 1)):
            row = with_failure(2 + headers, time=int(time.time() * 1000))
            with contextlib.closing(StoreBackend(configuration)) as backend:
                backend.write([row])
            assert world.headers() == headers

    def test_its_header_is_gone(self, world: Failing) -> None:
        world.write(with_failure(2))
        with world.database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM incidents")
        world.turn(DUE)
        (report,) = world.failures()
        assert (report.state, world.receiver.taken) == ("given up", [])

    @pytest.mark.parametrize(
        ("key", "words"),
        [
            ("max_a_day", "max_a_day is reached"),
            ("max_per_destination_a_day", "max_per_destination_a_day is reached for example.com"),
            ("max_per_destination_an_hour", "max_per_destination_an_hour is reached for example.com"),
        ],
    )
    @pytest.mark.parametrize("dry_run", [False, True])
    def test_limits(
        self, tmp_path: Path, nameserver: NameServer, receiver: Receiver, key: str, words: str, dry_run: bool
    ) -> None:
        world = Failing(tmp_path, nameserver, receiver, section={"dry_run": dry_run}, **{key: 2})
        world.write(*(with_failure(number, client=f"203.0.113.{number}") for number in range(2, 7)))
        world.turn(DUE)
        assert len(receiver.taken) == (0 if dry_run else 2)
        assert sum(words in report.why for report in world.failures()) == 3
        world.database.close()

    def test_all_addresses_of_a_report_count(self, tmp_path: Path, nameserver: NameServer, receiver: Receiver) -> None:
        world = Failing(tmp_path, nameserver, receiver, max_per_destination_an_hour=3)
        ruf = "mailto:f@example.com,mailto:g@example.com"
        world.write(*(with_failure(number, ruf=ruf, client=f"203.0.113.{number}") for number in range(2, 5)))
        world.turn(DUE)
        world.turn(DUE + 20)
        assert len(receiver.taken) == 3
        world.database.close()

    def test_what_was_sent_is_counted_once_a_turn(
        self, tmp_path: Path, nameserver: NameServer, receiver: Receiver
    ) -> None:
        """By indexes, however many reports there were before, and not for each report."""
        world = Failing(tmp_path, nameserver, receiver)
        world.write(*(with_failure(number, client=f"203.0.113.{number}") for number in range(2, 7)))
        counted: list[tuple[str, Any]] = []

        def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
            if statement.startswith("SELECT deliveries.organization"):
                counted.append((statement, parameters))

        event.listen(Engine, "before_cursor_execute", note)
        try:
            world.turn(DUE)
        finally:
            event.remove(Engine, "before_cursor_execute", note)
        assert len(receiver.taken) == 5
        assert len(counted) == 2
        with world.database.reading() as connection:
            for statement, parameters in counted:
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
                assert not any("SCAN" in step[3] for step in plan), plan
        world.database.close()

    def test_after_an_hour_there_may_be_more(self, tmp_path: Path, nameserver: NameServer, receiver: Receiver) -> None:
        world = Failing(tmp_path, nameserver, receiver, max_per_destination_an_hour=1)
        for hour in range(3):
            world.receive(at=NOW + hour * 3600)
            world.turn(DUE + hour * 3600)
        assert len(receiver.taken) == 3
        world.database.close()

    def test_the_limits_of_aggregate_reports_are_others(
        self, tmp_path: Path, nameserver: NameServer, receiver: Receiver
    ) -> None:
        world = Failing(tmp_path, nameserver, receiver, section={"max_a_day": 1, "max_per_destination": 1})
        world.write(*(with_failure(number, client=f"203.0.113.{number}") for number in range(2, 5)))
        world.turn(DUE)
        assert len(receiver.taken) == 3
        world.database.close()

    def test_the_first_day_is_a_dry_run(self, world: Failing, tmp_path: Path) -> None:
        with world.database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM reports WHERE id = 'earlier'")
        world.receive()
        world.turn(DUE)
        assert world.receiver.taken == []
        (report,) = world.failures()
        assert report.state == "dry run"
        (path,) = (tmp_path / "store" / "reports").glob("*.eml")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert parsed(path.read_bytes())["reported_domain"] == "example.com"
        assert b"ann.lee" not in path.read_bytes()
        assert world.headers() == 0
        world.receive(at=NOW + DAY_SECONDS)
        world.turn(DUE + DAY_SECONDS)
        assert len(world.receiver.taken) == 1


class TestTrouble:
    def test_a_bug_in_one_report_stops_no_other(self, world: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
        described = failure_dispatch.describe

        def describe(incident: incidents.Incident, messages: int) -> FailureReport:
            if incident.client == "203.0.113.2":
                raise ValueError("private")
            return described(incident, messages)

        monkeypatch.setattr(failure_dispatch, "describe", describe)
        world.write(*(with_failure(number, client=f"203.0.113.{number}") for number in (2, 3)))
        for hour in (0, 25):
            world.turn(DUE + hour * 3600)
        assert sorted(report.state for report in world.failures()) == ["given up", "sent"]
        assert world.headers() == 0
        assert any("example.com: ValueError in " in line for line in world.lines)
        assert not any("private" in line for line in world.lines)

    def test_a_relay_that_stays_dead(self, world: Failing) -> None:
        world.receive()
        world.receiver.__exit__()
        for hour in (0, 4, 12, 24, 29):
            world.turn(DUE + hour * 3600)
        (report,) = world.failures()
        assert report.state == "given up"
        assert world.headers() == 0
        assert any("example.com: given up" in line for line in world.lines)

    def test_a_destination_that_refuses_gets_none_for_a_while(self, world: Failing) -> None:
        world.receiver.replies["f@example.com"] = "550 5.1.1 no such user"
        world.receive()
        world.receive(at=NOW + 3600)
        world.turn(DUE)
        world.turn(DUE + 3600)
        assert [(report.state, "550" in report.why) for report in world.failures()].count(("refused", True)) == 1
        assert sum("is suppressed" in report.why for report in world.failures()) == 1

    def test_a_relay_that_goes_down_during_a_delivery_means_later(self, world: Failing) -> None:
        world.receiver.at_data["f@example.com"] = "421 4.3.2 going down"
        world.write(with_failure(2))
        world.turn(DUE)
        assert world.failures()[0].state == "waiting"
        world.receiver.at_data.clear()
        world.turn(DUE + 3600)
        assert world.failures()[0].state == "sent"

    def test_a_dns_that_fails_means_later(self, world: Failing) -> None:
        world.receive()
        world.nameserver.drop = True
        world.turn(DUE)
        assert world.failures()[0].state == "waiting"
        world.nameserver.drop = False
        world.turn(DUE + 3600)
        assert world.failures()[0].state == "sent"

    def test_of_two_hosts_one_sends_and_the_other_goes_on_when_it_is_killed(
        self, tmp_path: Path, nameserver: NameServer, postgresql: Postgresql
    ) -> None:
        database = postgresql.create()
        with Watching() as receiver:
            hosts = []
            for name in ("first", "second"):
                (tmp_path / name).mkdir()
                hosts.append(Failing(tmp_path / name, nameserver, receiver, database=database))
            first, second = hosts
            first.write(*(with_failure(number, client=f"203.0.113.{number}") for number in range(2, 7)))
            receiver.meanwhile = lambda: second.turn(DUE)
            assert receiver.killed_in(first.turn_in_child, DUE)
            assert receiver.dealt_with == [0], "the other does nothing while the first sends"
            receiver.kills = False
            deadline = time.monotonic() + 20
            while not (dealt_with := second.turn(DUE + 20)):  # the server has not noticed yet
                assert time.monotonic() < deadline
            assert dealt_with == 5  # one of which may have been taken
            assert first.turn(DUE + 40) == 0
            assert sorted(report.state for report in second.failures()) == ["given up", *["sent"] * 4]
            sources = [parsed(octets)["source"]["ip_address"] for _, _, octets in receiver.taken]
            assert sorted(sources) == [f"203.0.113.{number}" for number in range(2, 7)]
            for host in hosts:
                host.database.close()

    @pytest.mark.parametrize(("limit", "sent"), [(100, 3), (3, 1)])
    def test_a_sender_that_is_killed_sends_nothing_twice(
        self, tmp_path: Path, nameserver: NameServer, limit: int, sent: int
    ) -> None:
        """And what it may have sent counts against the limits."""
        with Killing() as receiver:
            world = Failing(tmp_path, nameserver, receiver, max_per_destination_an_hour=limit)
            world.write(*(with_failure(number, client=f"203.0.113.{number}") for number in range(2, 7)))
            for turn in range(2):
                assert receiver.killed_in(world.turn_in_child, DUE + turn * 20)
            receiver.kills = False
            world.turn(DUE + 40)
            states = ["given up"] * 2 + ["not sent"] * (3 - sent) + ["sent"] * sent
            assert sorted(report.state for report in world.failures()) == states
            sources = [parsed(octets)["source"]["ip_address"] for _, _, octets in receiver.taken]
            assert len(sources) == len(set(sources))
            assert world.headers() == 0
            world.database.close()


@pytest.mark.parametrize(("is_enabled", "state"), [(True, "given up"), (False, "not sent")])
@pytest.mark.parametrize("is_deferred", [False, True])
def test_what_was_sent_stays_so_if_the_rest_cannot_be_made_any_more(
    world: Failing, is_enabled: bool, state: str, is_deferred: bool
) -> None:
    """The header is gone before the end was noted, or failure reports have been switched off."""
    other = "g@example.com"
    at = NOON // 1000
    world.write(with_failure(9, ruf=f"mailto:f@example.com,mailto:{other}"), at=at)
    if is_deferred:
        world.receiver.at_data[other] = "451 4.7.1 later"
    world.turn(at + incidents.COLLECT_SECONDS)
    (found,) = world.failures()
    assert found.state == ("waiting" if is_deferred else "sent")
    with world.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM incidents")
        outbox.change_report(connection, found.id, at, state=ReportState.WAITING, due=at)
    failure = msgspec.structs.replace(world.configuration.reports.failure, enabled=is_enabled)
    section = msgspec.structs.replace(world.configuration.reports, failure=failure)
    world.configuration = msgspec.structs.replace(world.configuration, reports=section)
    world.turn(at + 2 * incidents.COLLECT_SECONDS)
    (found,) = world.failures()
    assert found.state == "sent"
    assert {each.address: each.state for each in world.deliveries_of(found.id)} == {
        "f@example.com": "sent",
        other: state if is_deferred else "sent",
    }
