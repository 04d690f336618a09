# SPDX-License-Identifier: GPL-3.0-or-later
"""A day of mail for 50 domains on two hosts with one database, and the reports about it, through real MTAs.

Each host has an MTA and a daemon; both daemons write one PostgreSQL. The reports go through a relay to a receiving
site, which judges them and keeps what it saw. What was sent is known here, message by message, and what the reports say
is read by parsedmarc. The night comes when the day of the rows is changed.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import signal
import smtplib
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import dkim as dkimpy
import pytest

from assay.cli.main import main
from assay.reports.planning import PLAN_SECONDS
from assay.store.database import connect
from assay.store.outbox import DAY_SECONDS
from mta.base import HOST, MTA, UnavailableError, crlf, free_port
from mta.postfix import Postfix
from mta.sendmail import Sendmail
from postgresql import PASSWORD, Postgresql
from reporting import independently_read
from running import Daemon
from signing import pem, record, rsa_key

DOMAINS = 50
PATIENCE = 60.0  # seconds; a reporter looks every 20
OWN, OTHER = "127.0.0.2", "127.0.0.3"  # the address of every domain, and one that is nobody's
POLICIES = ("none", "quarantine", "reject")
BOUNCING, REFUSING, DEFERRING = "d7.example", "d8.example", "d9.example"
READER = "reader.example"  # to which every tenth domain wants its reports

#: What is sent from where, whether it is signed, and what DMARC says of DKIM and SPF.
KINDS = ((OWN, False, "fail", "pass"), (OTHER, True, "pass", "fail"), (OTHER, False, "fail", "fail"))

#: Domain, source, disposition, and the results of DKIM and SPF for DMARC.
Key = tuple[str, str, str, str, str]


def rows() -> dict[str, Any]:
    """The DNS."""
    found: dict[str, Any] = {
        "s1._domainkey.receiver.example": [["TXT", [record(rsa_key())]]],
        "_dmarc.receiver.example": [["TXT", ["v=DMARC1; p=reject; rua=mailto:dmarc@receiver.example"]]],
        "_dmarc.mx.example.org": [["TXT", ["v=DMARC1; p=none; rua=mailto:r@mx.example.org"]]],  # the relay's bounces
    }
    for number in range(DOMAINS):
        domain = f"d{number}.example"
        rua = f"r@{READER}" if number % 10 == 5 else f"r@{domain}"
        found[domain] = [["TXT", [f"v=spf1 ip4:{OWN} -all"]]]
        found[f"s._domainkey.{domain}"] = [["TXT", [record(rsa_key())]]]
        found[f"_dmarc.{domain}"] = [["TXT", [f"v=DMARC1; p={POLICIES[number % 3]}; rua=mailto:{rua}"]]]
        found[f"{domain}._report._dmarc.{READER}"] = [["TXT", ["v=DMARC1"]]]
    return found


def messages() -> Iterator[tuple[str, str, bytes, Key]]:
    """Domain, source and octets of each message, and what a report has to say of it."""
    for number in range(DOMAINS):
        domain, published = f"d{number}.example", POLICIES[number % 3]
        plain = crlf(f"From: ann@{domain}\nTo: bob@example.org\nSubject: hello\n\nHello\n".encode())
        signature = dkimpy.sign(plain, b"s", domain.encode(), pem(rsa_key()), include_headers=[b"from", b"subject"])
        for kind, (source, signed, dkim, spf) in enumerate(KINDS):
            disposition = "pass" if "pass" in (dkim, spf) and published != "none" else published
            for _ in range(1 + (number + kind) % 2):
                octets = signature + plain if signed else plain
                yield domain, source, octets, (domain, source, disposition, dkim, spf)


def send(mta: MTA, mail: list[tuple[str, str, bytes, Key]], refused: Counter[str]) -> None:
    """Send messages over one session for each source."""
    for source in (OWN, OTHER):
        with mta.connect(client=source) as session:
            for domain, of, octets, _ in mail:
                if of == source:
                    try:
                        session.sendmail(f"ann@{domain}", ["bob@example.org"], octets)
                    except smtplib.SMTPDataError:
                        refused[domain] += 1


class Collecting(Postfix):
    """One that hands bounces of reports over to the daemon."""

    services = "assay unix - - n - 4 lmtp\n"


class Night:
    """Two hosts that report, and a site that receives."""

    def __init__(self, folder: Path, postgresql: Postgresql, second: type[MTA], stack: ExitStack) -> None:
        self.folder = folder
        self._server = postgresql
        self.url = postgresql.create()
        self._name = self.url.rpartition("/")[2]
        database = connect(self.url, PASSWORD)
        database.migrate()
        database.close()
        self.stack = stack
        self.relay_port = free_port()
        self.yesterday = (int(time.time()) - PLAN_SECONDS) // DAY_SECONDS - 1
        first = self._host("first")
        self.daemons = [first, self._host("second", first.nameserver.text)]
        self.bounces_port = free_port()
        to_daemon = f"inline:{{ {{ receiver.example = assay:inet:{HOST}:{self.bounces_port} }} }}"
        self.mtas: list[MTA] = [
            stack.enter_context(Collecting(_milter(self.daemons[0]), extra={"transport_maps": to_daemon})),
            stack.enter_context(second(_milter(self.daemons[1]))),
        ]
        self.relay_daemon = self._host("relay", first.nameserver.text, store={})

    def _host(self, name: str, nameserver: str = "", **sections: Any) -> Daemon:
        folder = self.folder / name
        (folder / "store").mkdir(parents=True)
        secrets = {"password": PASSWORD.encode(), "s1.pem": pem(rsa_key())}
        for file, content in secrets.items():
            (folder / file).touch(0o600)
            (folder / file).write_bytes(content)
        settings: dict[str, Any] = {
            "identity": {"authserv_id": f"{name}.receiver.example"},
            "dmarc": {"reject": "reject", "quarantine": "quarantine"},
            "log": {"level": "debug"},
            "store": {"database": self.url, "password_file": str(folder / "password")},
            "sign": {
                "domain": (
                    {"domain": "receiver.example", "selectors": ("s1",), "key_files": (str(folder / "s1.pem"),)},
                )
            },
        }
        settings |= sections
        settings["store"] |= {"directory": str(folder / "store")}
        if nameserver:
            settings["dns"] = {"nameservers": (nameserver,)}
        settings["milter"] = {"workers": 1}
        where = f"inet:{free_port()}@{HOST}"
        return self.stack.enter_context(Daemon(folder, None if nameserver else rows(), socket=where, **settings))

    def relay(self) -> Postfix:
        """Start the relay, which delivers what it takes, but not to three destinations."""
        answers = {REFUSING: "550 5.1.1 no such user", DEFERRING: "450 4.7.1 later"}
        access = " ".join(f"{{ r@{domain} = {reply} }}" for domain, reply in answers.items())
        extra = {
            "smtpd_recipient_restrictions": f"check_recipient_access inline:{{ {access} }}, permit",
            "smtpd_reject_unlisted_recipient": "no",
            "transport_maps": f"inline:{{ {{ {BOUNCING} = error:5.1.1 no such user }} "
            f"{{ receiver.example = smtp:[{HOST}]:{self.mtas[0].port} }} }}",
        }
        return self.stack.enter_context(Postfix(_milter(self.relay_daemon), port=self.relay_port, extra=extra))

    def sql(self, statement: str) -> str:
        """Run a statement on the database; `:yesterday` in it is that day."""
        return self._server.execute(statement.replace(":yesterday", str(self.yesterday)), self._name)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                logs = (daemon.log()[-3000:] for daemon in self.daemons)
                raise AssertionError("\n".join((what, *logs, self.sql("SELECT * FROM reports"))))
            time.sleep(0.1)

    def report(self) -> None:
        """Set both daemons to send reports."""
        section = {
            "organization": "Receiver Ltd",
            "contact": "dmarc@receiver.example",
            "bounces": "bounces@receiver.example",
            "relay": f"smtp://{HOST}:{self.relay_port}",
            "spread_hours": 0.0,
        }
        collector = {"domains": ("receiver.example",), "listen": f"inet:{self.bounces_port}@{HOST}"}
        for daemon, incoming in zip(self.daemons, (collector, {}), strict=True):
            daemon.configure(**{"reports": section, "reports.incoming": incoming})
            daemon.signal(signal.SIGHUP)

    def kill_reporters(self) -> None:
        """At once, wherever they are. Others follow."""
        for daemon in self.daemons:
            for pid in map(int, re.findall(r"reporter (\d+) started", daemon.log())):
                if pid in daemon.workers():
                    os.kill(pid, signal.SIGKILL)

    def end_the_day(self) -> None:
        """What came today came yesterday."""
        self.sql("UPDATE report_groups SET day = :yesterday WHERE day > :yesterday")
        self.sql("DELETE FROM report_days WHERE day >= :yesterday")

    def only_one_waits(self) -> bool:
        """Whether all reports but that to the destination that defers have come to an end. Others are tried at once if
        something was too slow on a busy machine."""
        self.sql("UPDATE deliveries SET due = 0 WHERE state = 'waiting'")
        self.sql(f"UPDATE reports SET due = 0 WHERE state = 'waiting' AND domain <> '{DEFERRING}'")  # noqa: S608  # a constant
        return self.sql("SELECT domain FROM reports WHERE state = 'waiting'") == DEFERRING

    def states(self) -> Counter[str]:
        return Counter(self.sql("SELECT state FROM deliveries").split("\n"))

    def receiver_reports(self) -> None:
        """What the receiving site does about the mail that came to it."""
        self.relay_daemon.configure(reports={"organization": "Reader", "contact": "dmarc@receiver.example"})
        path = self.folder / "relay" / "store" / "store.sqlite"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            found = "SELECT sum(count) FROM report_groups WHERE author_domain = 'receiver.example'"
            self.wait(lambda: database.execute(found).fetchone()[0] >= DOMAINS - 5, "the receiver judged less")
            database.execute("UPDATE report_groups SET day = ?", (self.yesterday,))
        self.assay("report", "send", at=self.relay_daemon)

    def assay(self, *arguments: str, at: Daemon | None = None) -> None:
        configuration = (at or self.daemons[0]).configuration
        assert main([*arguments[:2], "-c", str(configuration), *arguments[2:]]) == 0


def _milter(daemon: Daemon) -> str:
    _, port, _ = re.split("[:@]", daemon.socket)
    return f"inet:{HOST}:{port}"


@pytest.fixture
def night(tmp_path: Path, postgresql: Postgresql) -> Iterator[Night]:
    try:
        Postfix.check()
        Sendmail.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    with ExitStack() as stack:
        yield Night(tmp_path, postgresql, Sendmail, stack)


def said(mails: list[bytes]) -> tuple[Counter[Key], Counter[str]]:
    """What the reports in mails say, and how often each came, by domain."""
    found: Counter[Key] = Counter()
    reports: dict[str, Any] = {}
    times: Counter[str] = Counter()
    for mail in mails:
        message = message_from_bytes(mail, policy=policy.default)
        (attachment,) = message.iter_attachments()
        report = independently_read(gzip.decompress(attachment.get_payload(decode=True)))
        domain = report["policy_published"]["domain"]
        times[domain] += 1
        reports[report["report_metadata"]["report_id"]] = report  # a receiver recognizes one that comes twice
    for report in reports.values():
        domain = report["policy_published"]["domain"]
        for each in report["records"]:
            evaluated = each["policy_evaluated"]
            source = each["source"]["ip_address"]
            key = (domain, source, evaluated["disposition"], evaluated["dkim"], evaluated["spf"])
            found[key] += each["count"]
    assert len(reports) == len(times)
    return found, times


def test_a_day(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    mail = list(messages())
    refused: Counter[str] = Counter()
    senders = [threading.Thread(target=send, args=(mta, mail[at::2], refused)) for at, mta in enumerate(night.mtas)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    night.wait(lambda: night.sql("SELECT sum(count) FROM report_groups") == str(len(mail)), "not all of it is counted")
    night.end_the_day()
    night.sql("INSERT INTO report_days VALUES (:yesterday - 1, 0, false)")

    # The relay is dead.
    night.report()
    night.wait(lambda: any("50 reports wait" in daemon.log() for daemon in night.daemons), "no report was planned")
    relay = night.relay()
    night.sql("UPDATE reports SET due = 0")
    night.kill_reporters()
    # Senders are killed in the middle.
    night.wait(lambda: night.states()["sent"] >= 10, "nothing was sent")
    night.kill_reporters()
    night.wait(night.only_one_waits, "reports wait")
    # A destination defers until it is too late.
    night.sql("UPDATE reports SET planned = planned - 200000, due = 0 WHERE state = 'waiting'")
    night.sql("UPDATE deliveries SET due = 0 WHERE state = 'waiting'")
    night.kill_reporters()
    night.wait(lambda: night.states()["waiting"] == 0, "reports wait")
    # A report comes back.
    night.wait(lambda: night.states()["bounced"] == 1, "the bounce was not taken")
    maybe_taken = night.states()["given up"] - 1  # what each sender that was killed was just handing over
    assert 0 <= maybe_taken <= 2
    assert night.states() == {
        "sent": DOMAINS - 3 - maybe_taken,
        "bounced": 1,
        "refused": 1,
        "given up": 1 + maybe_taken,
    }
    for domain, words in ((BOUNCING, "came back"), (REFUSING, "550 5.1.1"), (DEFERRING, "given up: r@d9.example: 450")):
        night.assay("report", "why", domain)
        assert words in capsys.readouterr().out

    # What came adds up to what was sent: each report once, or it was told as given up.
    lost = {BOUNCING, REFUSING, DEFERRING}
    told = set(night.sql("SELECT domain FROM reports WHERE state = 'given up'").split("\n"))
    certain = {f"d{number}.example" for number in range(DOMAINS)} - lost - told
    relay.wait_until(lambda: certain <= set(said(relay.messages())[1]))
    found, times = said(relay.messages())
    assert set(times) - certain <= told - lost
    assert found == Counter(key for *_, key in mail if key[0] in times)
    assert set(times.values()) == {1}

    # Nobody reports about reports: neither who received them, nor who sent them and got a bounce.
    night.receiver_reports()
    night.assay("report", "why", "receiver.example", at=night.relay_daemon)
    assert "not sent: all its messages were reports or bounces" in capsys.readouterr().out
    night.end_the_day()
    night.kill_reporters()
    why = "SELECT why FROM reports WHERE domain = 'mx.example.org'"
    night.wait(lambda: bool(night.sql(why)), "the bounce was not seen")
    assert night.sql(why) == "all its messages were reports or bounces"
    assert "receiver.example" not in night.sql("SELECT domain FROM reports").split("\n")
