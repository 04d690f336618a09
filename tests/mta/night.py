# SPDX-License-Identifier: GPL-3.0-or-later
"""A day of mail on two hosts with one database, and the night in which the reports about it go out, through real MTAs.

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
from msgspec import Struct

from assay.cli.main import main
from assay.reports.planning import PLAN_SECONDS
from assay.store.database import connect
from assay.store.outbox import DAY_SECONDS
from mta.base import HOST, MTA, crlf, free_port
from mta.postfix import Postfix
from postgresql import PASSWORD, Postgresql
from reporting import independently_read
from running import Daemon
from signing import pem, record, rsa_key

PATIENCE = 60.0  # seconds; a reporter looks every 20
OWN, OTHER = "127.0.0.2", "127.0.0.3"  # the address of every domain, and one of no domain
POLICIES = ("none", "quarantine", "reject")
READER = "reader.example"  # to which five of the first fifty domains want their reports

#: What is sent from where, whether it is signed, and what DMARC says of DKIM and SPF.
KINDS = ((OWN, False, "fail", "pass"), (OTHER, True, "pass", "fail"), (OTHER, False, "fail", "fail"))

#: Domain, source, disposition, and the results of DKIM and SPF for DMARC.
Key = tuple[str, str, str, str, str]


def reads_elsewhere(number: int) -> bool:
    """Whether a domain wants its reports at `READER`."""
    return number % 10 == 5 and number < 50


class Day(Struct, frozen=True):
    """Domains from which mail comes, and those whose reports bounce, are refused, or are deferred for ever.

    :ivar variety: how different the numbers of messages are: each kind is sent once to that many times.
    """

    domains: int
    bouncing: frozenset[str]
    refusing: frozenset[str]
    deferring: frozenset[str]
    variety: int = 2

    @property
    def lost(self) -> frozenset[str]:
        """The domains whose reports do not arrive."""
        return self.bouncing | self.refusing | self.deferring

    @property
    def names(self) -> list[str]:
        """All domains."""
        return [f"d{number}.example" for number in range(self.domains)]


def rows(day: Day) -> dict[str, Any]:
    """The DNS."""
    found: dict[str, Any] = {
        "s1._domainkey.receiver.example": [["TXT", [record(rsa_key())]]],
        "_dmarc.receiver.example": [["TXT", ["v=DMARC1; p=reject; rua=mailto:dmarc@receiver.example"]]],
        "_dmarc.mx.example.org": [["TXT", ["v=DMARC1; p=none; rua=mailto:r@mx.example.org"]]],  # the relay's bounces
    }
    for number, domain in enumerate(day.names):
        rua = f"r@{READER}" if reads_elsewhere(number) else f"r@{domain}"
        found[domain] = [["TXT", [f"v=spf1 ip4:{OWN} -all"]]]
        found[f"s._domainkey.{domain}"] = [["TXT", [record(rsa_key())]]]
        found[f"_dmarc.{domain}"] = [["TXT", [f"v=DMARC1; p={POLICIES[number % 3]}; rua=mailto:{rua}"]]]
        found[f"{domain}._report._dmarc.{READER}"] = [["TXT", ["v=DMARC1"]]]
    return found


def messages(day: Day) -> Iterator[tuple[str, str, bytes, Key]]:
    """Domain, source and octets of each message, and what a report has to say of it."""
    for number, domain in enumerate(day.names):
        published = POLICIES[number % 3]
        plain = crlf(f"From: ann@{domain}\nTo: bob@example.org\nSubject: hello\n\nHello\n".encode())
        signature = dkimpy.sign(plain, b"s", domain.encode(), pem(rsa_key()), include_headers=[b"from", b"subject"])
        for kind, (source, signed, dkim, spf) in enumerate(KINDS):
            disposition = "pass" if "pass" in (dkim, spf) and published != "none" else published
            for _ in range(1 + (number + kind) % day.variety):
                octets = signature + plain if signed else plain
                yield domain, source, octets, (domain, source, disposition, dkim, spf)


def _send(mta: MTA, mail: list[tuple[str, str, bytes, Key]], refused: Counter[str]) -> None:
    """Send messages over one session for each source."""
    for source in (OWN, OTHER):
        with mta.connect(client=source) as session:
            for domain, of, octets, _ in mail:
                if of == source:
                    try:
                        session.sendmail(f"ann@{domain}", ["bob@example.org"], octets)
                    except smtplib.SMTPDataError:
                        refused[domain] += 1


#: Settings of a Postfix that tries again at once.
IMPATIENT = dict.fromkeys(("minimal_backoff_time", "maximal_backoff_time", "queue_run_delay"), "1s")


class Collecting(Postfix):
    """One that hands bounces of reports over to the daemon."""

    services = "assay unix - - n - 4 lmtp\n"


class Night:
    """Two hosts that report, and a site that receives."""

    def __init__(self, day: Day, folder: Path, postgresql: Postgresql, second: type[MTA], stack: ExitStack) -> None:
        self.day = day
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
            stack.enter_context(Collecting(_milter(self.daemons[0]), extra={"transport_maps": to_daemon} | IMPATIENT)),
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
        return self.stack.enter_context(
            Daemon(folder, None if nameserver else rows(self.day), socket=where, **settings)
        )

    def relay(self) -> Postfix:
        """Start the relay, which delivers what it takes, but not to three destinations."""
        answers = dict.fromkeys(sorted(self.day.refusing), "550 5.1.1 no such user")
        answers |= dict.fromkeys(sorted(self.day.deferring), "450 4.7.1 later")
        bouncing = " ".join(f"{{ {domain} = error:5.1.1 no such user }}" for domain in sorted(self.day.bouncing))
        access = " ".join(f"{{ r@{domain} = {reply} }}" for domain, reply in answers.items())
        extra = IMPATIENT | {
            "smtpd_recipient_restrictions": f"check_recipient_access inline:{{ {access} }}, permit",
            "smtpd_reject_unlisted_recipient": "no",
            "transport_maps": f"inline:{{ {bouncing} {{ receiver.example = smtp:[{HOST}]:{self.mtas[0].port} }} }}",
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

    def send(self, mail: list[tuple[str, str, bytes, Key]]) -> Counter[str]:
        """Send messages through both MTAs at once, until all are counted. Returns how many of each domain were
        refused."""
        refused: Counter[str] = Counter()
        both = [threading.Thread(target=_send, args=(mta, mail[at::2], refused)) for at, mta in enumerate(self.mtas)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        counted = "SELECT coalesce(sum(count), 0) FROM report_groups"
        self.wait(lambda: self.sql(counted) == str(len(mail)), "not all of it is counted")
        return refused

    def end_the_day(self) -> None:
        """What came today came yesterday, and it is not the first day."""
        self.sql("UPDATE report_groups SET day = :yesterday WHERE day > :yesterday")
        self.sql("DELETE FROM report_days WHERE day >= :yesterday")
        self.sql("INSERT INTO report_days VALUES (:yesterday - 1, 0, false) ON CONFLICT DO NOTHING")

    def domains(self, state: str) -> set[str]:
        """The domains whose reports are in a state; all but waiting ones are known by their delivery."""
        both = "reports LEFT JOIN deliveries ON deliveries.report = reports.id"
        where = f"coalesce(deliveries.state, reports.state) = '{state}'"
        return set(self.sql(f"SELECT domain FROM {both} WHERE {where}").split())  # noqa: S608  # constants

    def only_deferred_wait(self) -> bool:
        """Whether all reports but those that are deferred have come to an end. Others are tried at once if something
        was too slow on a busy machine."""
        deferred = ", ".join(f"'{domain}'" for domain in self.day.deferring)
        self.sql("UPDATE deliveries SET due = 0 WHERE state = 'waiting'")
        self.sql(f"UPDATE reports SET due = 0 WHERE state = 'waiting' AND domain NOT IN ({deferred})")  # noqa: S608  # constants
        return self.domains("waiting") == self.day.deferring

    def let_deferred_end(self) -> None:
        """Let the time pass in which reports are tried again."""
        self.sql("UPDATE reports SET planned = planned - 200000, due = 0 WHERE state = 'waiting'")
        self.sql("UPDATE deliveries SET due = 0 WHERE state = 'waiting'")

    def states(self) -> Counter[str]:
        return Counter(self.sql("SELECT state FROM deliveries").split("\n"))

    def receiver_reports(self) -> None:
        """What the receiving site does about the mail that came to it."""
        self.relay_daemon.configure(reports={"organization": "Reader", "contact": "dmarc@receiver.example"})
        path = self.folder / "relay" / "store" / "store.sqlite"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            found = "SELECT sum(count) FROM report_groups WHERE author_domain = 'receiver.example'"
            self.wait(lambda: database.execute(found).fetchone()[0] >= self.day.domains - 5, "the receiver judged less")
            database.execute("UPDATE report_groups SET day = ?", (self.yesterday,))
        self.assay("report", "send", at=self.relay_daemon)

    def assay(self, *arguments: str, at: Daemon | None = None) -> None:
        configuration = (at or self.daemons[0]).configuration
        assert main([*arguments[:2], "-c", str(configuration), *arguments[2:]]) == 0


def _milter(daemon: Daemon) -> str:
    _, port, _ = re.split("[:@]", daemon.socket)
    return f"inet:{HOST}:{port}"


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
