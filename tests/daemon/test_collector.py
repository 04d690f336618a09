# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports and bounces that come by LMTP into a real daemon: each is taken, counted and kept, whatever is in it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import os
import re
import signal
import smtplib
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from assay.config import Configuration
from assay.config.endpoint import Endpoint
from assay.daemon import collector as collecting
from assay.daemon import forked, lmtp
from assay.daemon.child import Tether
from assay.daemon.collector import Collector
from assay.log import Log
from assay.model.name import ReversePath
from assay.reports.incoming.read import MAX_MAIL_OCTETS
from assay.store import outbox, received, report_deliveries, suppressions
from assay.store.database import Database, open_database
from assay.store.outbox import OutgoingReport, ReportState
from assay.store.received import DAY_SECONDS
from assay.store.report_deliveries import ReportDelivery
from reports.incoming import shapes
from reports.incoming.test_hostile import with_records
from running import PATIENCE, Daemon

DAY = shapes.BEGIN // DAY_SECONDS
TO = "dmarc@example.org"
REPORT = shapes.mail(gzip.compress(shapes.GOOGLE.encode()))
DOCTYPE = b'<?xml version="1.0"?><!DOCTYPE feedback [<!ENTITY a "b">]><feedback>&a;</feedback>'


class Collecting(Daemon):
    """A daemon that takes reports."""

    def __init__(self, folder: Path, **incoming: Any) -> None:
        (folder / "store").mkdir()
        self.path = f"{folder}/lmtp.sock"
        section = {"domains": ("example.org",), "listen": f"unix:{self.path}"} | incoming
        super().__init__(
            folder,
            identity={"authserv_id": "mx.example.org"},
            store={"directory": str(folder / "store")},
            reports={"bounces": "bounces@example.org", "incoming": section},
            metrics={"listen": f"unix:{folder}/metrics.sock"},
        )

    def client(self) -> smtplib.LMTP:
        """A connection, after LHLO."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                client = smtplib.LMTP(self.path)
                break
            except (FileNotFoundError, ConnectionRefusedError):  # the file is there before anybody listens
                assert time.monotonic() < deadline, self.log()
                time.sleep(0.02)
        client.ehlo("mta.example.org")
        return client

    def deliver(self, mail: bytes, to: str = TO, sender: str = "") -> None:
        """Deliver a mail, which is taken."""
        with contextlib.closing(self.client()) as client:
            assert client.sendmail(sender, [to], mail) == {}

    def figures(self) -> dict[str, float]:
        """What is counted about reports that came in."""
        with contextlib.closing(Endpoint.parse(f"unix:{self.folder}/metrics.sock").connect(PATIENCE)) as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        return {
            name: float(value)
            for name, value in re.findall(r"^assay_(incoming_.*) (\S+)$", text, re.MULTILINE)
            if float(value)
        }

    def database(self) -> contextlib.closing[Database]:
        """What it writes."""
        return contextlib.closing(open_database(f"{self.folder}/store/store.sqlite"))

    def stored(self) -> tuple[list[Any], list[str]]:
        """The reports, and why others were not used."""
        with self.database() as database, database.reading() as connection:
            return (
                received.summaries(connection, DAY - 1, DAY + 1),
                sorted(each.reason for each in received.unreadable(connection)),
            )


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collecting]:
    folder = tmp_path_factory.mktemp("collector")
    with Collecting(folder, keep_unreadable=f"{folder}/unreadable") as running:
        yield running


@pytest.fixture
def counted(daemon: Collecting) -> Callable[[], dict[str, float]]:
    """What is counted from here on."""
    daemon.client().close()
    before = Counter(daemon.figures())
    return lambda: dict(Counter(daemon.figures()) - before)


def test_reports_are_kept_once_and_what_is_none_is_kept_aside(
    daemon: Collecting, counted: Callable[[], object]
) -> None:
    authenticated = b"Authentication-Results: mx.example.org; dmarc=pass header.from=reporter.example\r\n" + REPORT
    hostile = {
        b"Subject: lunch?\r\n\r\nAt noon.\r\n": "there is no report in it",
        shapes.mail(gzip.compress(bytes(100_000_000))): "it is larger than 32 MiB when unpacked",
        shapes.mail(DOCTYPE, "text/xml"): "the XML has a DOCTYPE, which no report has",
        shapes.mail(gzip.compress(shapes.GOOGLE.encode())[:-20]): "the gzip file is cut off",
        shapes.mail(shapes.GOOGLE.replace("example.org", "other.example").encode(), "text/xml"): (
            "it is about other.example, which is none of our domains"
        ),
        b"\r\n": "there is no report in it",
    }
    for mail in (authenticated, REPORT, *hostile):
        daemon.deliver(mail)
    with contextlib.closing(daemon.client()) as client:  # several mails on one connection
        assert client.sendmail("", [TO], shapes.failure_mail()) == {}
        assert client.sendmail("", [TO], shapes.mail(shapes.tls(), "application/json")) == {}
    found, reasons = daemon.stored()
    assert sorted(each.kind for each in found) == ["aggregate", "failure", "tls"]
    assert [each.sender_dmarc for each in found if each.kind == "aggregate"] == ["pass"]
    assert reasons == sorted(hostile.values())
    assert sorted(path.stat().st_size for path in (daemon.folder / "unreadable").iterdir()) == sorted(map(len, hostile))
    log = daemon.log()
    assert log.count("report came in: unreadable: ") == len(hostile)
    assert "report came in: new: aggregate report 1234567890123456789 of google.com about example.org" in log
    assert "; from reporter.example, dmarc=pass" in log
    assert counted() == {
        'incoming_reports_total{kind="aggregate",outcome="new"}': 1,
        'incoming_reports_total{kind="aggregate",outcome="known"}': 1,
        'incoming_reports_total{kind="failure",outcome="new"}': 1,
        'incoming_reports_total{kind="tls",outcome="new"}': 1,
        'incoming_reports_total{kind="unknown",outcome="unreadable"}': len(hostile),
    }


def test_a_report_that_passed_dmarc_replaces_a_forged_one(daemon: Collecting, counted: Callable[[], object]) -> None:
    result = b"Authentication-Results: mx.example.org; dmarc=%s header.from=reporter.example\r\n"
    report = shapes.mail(gzip.compress(shapes.GOOGLE.replace("1234567890123456789", "987654321").encode()))
    for mail in (result % b"fail" + report, result % b"pass" + report, report):
        daemon.deliver(mail)
    assert [each.sender_dmarc for each in daemon.stored()[0] if each.report_id == "987654321"] == ["pass"]
    about = "aggregate report 987654321 of google.com about example.org"
    assert f"report came in: replaces a copy that was not authenticated: {about}" in daemon.log()
    assert counted() == {
        f'incoming_reports_total{{kind="aggregate",outcome="{outcome}"}}': 1 for outcome in ("new", "replaces", "known")
    }


def planned(daemon: Collecting, token: str) -> None:
    """A report of ours that was sent with this token."""
    with daemon.database() as database, database.writing() as connection:
        report = OutgoingReport("r1", 1, "example.com", (), ReportState.SENT, "", 1, 1, 1, 1, 1)
        outbox.plan(connection, 1, [report], now=1, dry_run=False)
        delivery = ReportDelivery("r1", "D@example.com", "example.com", ReportState.SENT, "", 1, 1, 1, token)
        report_deliveries.replace_deliveries(connection, "r1", (), [delivery])


def test_a_bounce_stops_the_destination_and_no_other_mail_does(
    daemon: Collecting, counted: Callable[[], object]
) -> None:
    planned(daemon, "3f0c6a2b91d4e857")
    address = "Bounces+3F0c6a2b91d4e857@Example.org"
    daemon.deliver(shapes.notification("delayed"), address)
    daemon.deliver(b"Subject: Re: report\r\n\r\nThank you!\r\n", address, "ann@example.com")
    daemon.deliver(shapes.notification(), address, "ann@example.com")
    daemon.deliver(shapes.notification(), "bounces+unknown@example.org")
    about = "mail to a bounce address: 3f0c6a2b91d4e857: "
    assert f"{about}it does not say that the delivery failed" in daemon.log()
    assert daemon.log().count(f"{about}it has a sender, so it is a reply, not a bounce") == 2
    assert "mail to a bounce address: unknown: there is no such report" in daemon.log()
    with daemon.database() as database:
        with database.reading() as connection:
            assert suppressions.all_suppressions(connection) == []
        daemon.deliver(shapes.notification(), address)
        with database.reading() as connection:
            (suppression,) = suppressions.all_suppressions(connection)
            assert report_deliveries.deliveries_of(connection, "r1")[0].state is ReportState.BOUNCED
            report = outbox.report(connection, "r1")
            assert report is not None
            assert report.why == "D@example.com: it came back"
    assert (suppression.subject, suppression.why) == ("d@example.com", "a report came back")
    assert "report came back: d@example.com gets no more for 30 days" in daemon.log()
    outcomes = {"stopped": 1, "ignored": 3, "unknown": 1}
    assert counted() == {f'incoming_bounces_total{{outcome="{name}"}}': times for name, times in outcomes.items()}


class TestLmtp:
    """What the MTA sees (RFC 2033)."""

    def test_the_dialog(self, daemon: Collecting) -> None:
        with contextlib.closing(daemon.client()) as client:
            assert client.esmtp_features["size"] == str(MAX_MAIL_OCTETS)
            assert {"pipelining", "enhancedstatuscodes", "8bitmime", "smtputf8"} <= set(client.esmtp_features)
            assert client.docmd("HELO", "x")[0] == 500
            assert client.docmd("DATA") == (503, b"5.5.1 send RCPT first")
            assert client.docmd("MAIL", f"FROM:<> SIZE={MAX_MAIL_OCTETS + 1}")[0] == 552
            assert client.docmd("MAIL", "FROM:<>") == (250, b"2.0.0 OK")
            assert client.docmd("RCPT", f"TO:<{TO}>") == (250, b"2.1.5 OK")
            assert client.docmd("RCPT", "TO:<other@example.org>") == (452, b"4.5.3 one recipient at a time")
            client.sock.sendall(b"NONSENSE\r\nMAIL FROM:<\xff@example.org>\r\n")
            assert [client.getreply()[0], client.getreply()[0]] == [500, 503]
            client.sock.sendall(b"DATA\r\n")
            assert client.getreply()[0] == 354
            client.sock.sendall(b"Subject: x\r\n\r\n..dot\r\n.\r\nNOOP\r\n")  # the next command is there already
            assert client.getreply() == (250, b"2.0.0 taken")
            assert client.getreply()[0] == 250
        with daemon.database() as database, database.reading() as connection:
            newest = received.unreadable(connection)[0]
            assert received.unreadable_content(connection, newest.id) == b"Subject: x\r\n\r\n.dot\r\n"
        assert "a mail is larger than is taken, and was refused" in daemon.log()

    def test_a_mail_of_100_mb_is_refused_and_the_connection_goes_on(self, daemon: Collecting) -> None:
        with contextlib.closing(daemon.client()) as client:
            client.docmd("MAIL", "FROM:<>")
            client.docmd("RCPT", f"TO:<{TO}>")
            assert client.docmd("DATA")[0] == 354
            for _ in range(100):
                client.sock.sendall(b"x\r\n" * 333_333)
            client.sock.sendall(b".\r\n")
            assert client.getreply() == (552, b"5.3.4 a mail has at most 33554432 octets")
            assert client.sendmail("", [TO], REPORT) == {}
        assert f"a mail for {TO} is larger than is taken, and was refused" in daemon.log()
        assert daemon.stored()[0]

    def test_more_connections_than_there_are_places(self, daemon: Collecting) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(lmtp.MAX_CLIENTS):
                stack.callback(daemon.client().quit)
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as further:
                further.connect(daemon.path)
                assert further.recv(100).startswith(b"421 4.3.2 mx.example.org has too many connections\r\n")
        daemon.deliver(REPORT)

    def test_a_client_that_leaves_in_the_middle_leaves_nothing(self, daemon: Collecting) -> None:
        for octets in (b"LHLO x\r\n", b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nSubject: x\r\n"):
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
                daemon.client().close()
                client.connect(daemon.path)
                client.sendall(octets)
                client.shutdown(socket.SHUT_WR)
                while client.recv(1000):
                    pass
        daemon.deliver(REPORT)
        assert "error" not in daemon.log().replace("on_error", "")


def descendants(process: int) -> list[int]:
    """The processes that it has forked, and those that these have, the first ones first."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:  # it has ended
        return []
    return [found for child in map(int, children) for found in (child, *descendants(child))]


@pytest.mark.parametrize("who", ["daemon", "reader", "all"])
def test_who_is_ended_in_the_middle_of_a_mail_loses_none(tmp_path: Path, who: str) -> None:
    mail = shapes.mail(gzip.compress(with_records(10_000)))
    with Collecting(tmp_path) as daemon:
        with contextlib.closing(daemon.client()) as client:
            before = set(descendants(daemon.pid))
            client.mail("")
            client.rcpt(TO)
            client.docmd("DATA")
            client.sock.sendall(mail + b"\r\n.\r\n")
            deadline = time.monotonic() + PATIENCE
            while len(new := [each for each in descendants(daemon.pid) if each not in before]) < 2:
                assert time.monotonic() < deadline
            taking, reading = new  # one talks to the database, and one that it has forked reads
            collector = int(Path(f"/proc/{taking}/stat").read_text().rpartition(")")[2].split()[1])
            for process in {"daemon": [daemon.pid], "reader": [reading], "all": [collector, taking, reading]}[who]:
                os.kill(process, signal.SIGTERM)
            try:
                code = client.getreply()[0]
            except smtplib.SMTPServerDisconnected:
                code = 0
        kept, unreadable = daemon.stored()
        assert (len(kept), unreadable) == (1 if code == 250 else 0, [])
        assert code == {"daemon": 250, "reader": 451, "all": 0}[who]
        if who == "reader":
            assert daemon.figures() == {"incoming_deferred_total": 1}
        if who == "daemon":
            assert daemon.wait() == 0
            assert not os.path.exists(daemon.path)


def test_a_mail_that_waits_too_long_for_its_turn_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    collector = Collector(Tether(-1, -1, 0), Configuration(), Log(lambda _, text: lines.append(text)))

    async def never(work: object, seconds: float) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def run() -> None:
        taking = [
            asyncio.create_task(collector.take(ReversePath.parse(""), TO, REPORT)) for _ in range(collecting.MAX_TAKING)
        ]
        await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            assert (await collector.take(ReversePath.parse(""), TO, REPORT)).startswith("451 4.3.0 ")
        for each in taking:
            each.cancel()
        await asyncio.wait(taking)

    monkeypatch.setattr(collecting, "TURN_SECONDS", 0.1)
    monkeypatch.setattr(collecting, "forked", never)
    asyncio.run(run())
    assert lines == ["collector: mails with reports are deferred: others take too long"]
    assert collecting.MAX_TAKING == 2, "each takes memory, as docs/reports.md says"


def test_a_mail_for_which_there_is_no_process_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    collector = Collector(Tether(-1, -1, 0), Configuration(), Log(lambda _, text: lines.append(text)))

    def none_left(answer: object) -> tuple[int, int]:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(forked, "fork_for", none_left)
    assert asyncio.run(collector.take(ReversePath.parse(""), TO, REPORT)).startswith("451 4.3.0 ")
    (line,) = lines
    assert line.endswith("could not be taken, and the MTA tries again: Resource temporarily unavailable")


def test_while_the_store_is_away_the_mta_is_told_to_come_again(tmp_path: Path) -> None:
    with Collecting(tmp_path, keep_unreadable=f"{tmp_path}/missing/unreadable") as daemon:
        daemon.deliver(b"lunch?")
        assert f"keep_unreadable: {tmp_path}/missing/unreadable: No such file or directory" in daemon.log()
        daemon.client().close()
        for file in (tmp_path / "store").glob("store.sqlite*"):
            file.rename(f"{file}.away")
        (tmp_path / "store" / "store.sqlite").mkdir()
        with contextlib.closing(daemon.client()) as client, pytest.raises(smtplib.SMTPDataError) as raised:
            client.sendmail("", [TO], REPORT)
        assert raised.value.smtp_code == 451
        assert "collector: mails with reports are deferred: " in daemon.log()
        assert daemon.figures() == {
            'incoming_reports_total{kind="unknown",outcome="unreadable"}': 1,
            "incoming_deferred_total": 1,
        }
