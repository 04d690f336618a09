# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports for tests: a store, a DNS and a relay, and the reporter between them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from assay.config import Configuration, make_resolver
from assay.config.correspondence import reports_redactor, reports_signing, reports_suppressed
from assay.config.database import open_store
from assay.daemon.reporter import ReportMeter, ReportTurns
from assay.log import Log
from assay.store import outbox, report_deliveries
from assay.store.database import connect
from assay.store.outbox import DAY_SECONDS, OutgoingReport, ReportKind, ReportState
from assay.store.report_deliveries import ReportDelivery
from assay.store.rows import DmarcRow, FindingRow, IncidentRow, MessageRow, PublishedRow
from assay.store.writer import Writer
from nameserver import NameServer
from postgresql import PASSWORD
from receiving import Receiver
from signing import pem, record, rsa_key
from store_rows import DAY, row

NEXT_DAY = (DAY + 1) * DAY_SECONDS + 3600  # one in the morning: the day is planned
LATER = NEXT_DAY + 7 * 3600  # when all of it has been sent

NOTHING: Mapping[str, Any] = {}

ROWS = {
    "s1._domainkey.receiver.example": [["TXT", [record(rsa_key())]]],
    "_dmarc.receiver.example": [["TXT", ["v=DMARC1; p=reject"]]],
    "_dmarc.example.net": [["TXT", ["v=DMARC1; p=none"]]],
    "example.com._report._dmarc.reader.example": [["TXT", ["v=DMARC1"]]],
}


class Reporting:
    """All of it, in a folder."""

    def __init__(
        self,
        folder: Path,
        nameserver: NameServer,
        receiver: Receiver,
        section: Mapping[str, Any] = NOTHING,
        database: str = "sqlite",
    ) -> None:
        """
        :param section: further keys of ``[reports]``.
        :param database: ``store.database``.
        """
        (folder / "store").mkdir(exist_ok=True)
        key = folder / "key.pem"
        key.write_bytes(pem(rsa_key()))
        key.chmod(0o600)
        password = folder / "database.password"
        password.write_text(PASSWORD)
        password.chmod(0o600)
        host, port = nameserver.address
        self.receiver = receiver
        self.nameserver = nameserver
        self.lines: list[str] = []
        self.configuration = msgspec.convert(
            {
                "identity": {"authserv_id": "mx.receiver.example"},
                "dns": {"nameservers": [f"{host}:{port}"], "timeout_seconds": 1.0, "budget_seconds": 5.0},
                "store": {
                    "directory": str(folder / "store"),
                    "database": database,
                    "password_file": str(password) if "://" in database else "",
                },
                "sign": {"domain": [{"domain": "receiver.example", "selectors": ["s1"], "key_files": [str(key)]}]},
                "reports": {
                    "organization": "Receiver Ltd",
                    "contact": "dmarc@receiver.example",
                    "bounces": "bounces@receiver.example",
                    "relay": receiver.url,
                }
                | dict(section),
            },
            Configuration,
        )
        if "://" in database:
            new = connect(database, PASSWORD)
            new.migrate()
            new.close()
        self.database = open_store(self.configuration.store)
        with self.database.writing() as connection:  # not the first day
            outbox.plan(connection, DAY - 1, [], now=0, dry_run=False)

    def see(self, *rows: MessageRow) -> None:
        """Write what came."""
        Writer(self.database).write(rows)

    @contextlib.contextmanager
    def reporter(self, meter: ReportMeter | None = None) -> Iterator[ReportTurns]:
        """What the reporter uses to look again and again."""
        with make_resolver(self.configuration) as resolver:
            turns = ReportTurns(
                self.configuration,
                reports_signing(self.configuration),
                reports_suppressed(self.configuration.reports.suppress),
                resolver,
                Log(lambda _, text: self.lines.append(text)),
                meter=meter,
                redactor=reports_redactor(self.configuration.reports.failure),
            )
            with contextlib.closing(turns):
                yield turns

    def turn(self, now: int) -> int:
        """What the reporter does when it looks."""
        with self.reporter() as turns:
            return turns.turn(now)

    def turn_in_child(self, now: int) -> None:
        """The same in a child process, which must not use the connections of its parent."""
        self.database.engine.dispose(close=False)
        self.turn(now)

    def run(self, *, until: int = LATER) -> None:
        """All turns of a day."""
        for now in range(NEXT_DAY, until + 1, 1800):
            self.turn(now)

    def all_reports(self) -> list[OutgoingReport]:
        with self.database.reading() as connection:
            return outbox.find_reports(connection)

    def reports(self) -> dict[str, OutgoingReport]:
        """What became of each domain."""
        with self.database.reading() as connection:
            return {each.domain: each for each in outbox.find_reports(connection)}

    def deliveries_of(self, identifier: str) -> list[ReportDelivery]:
        with self.database.reading() as connection:
            return report_deliveries.deliveries_of(connection, identifier)

    def deliveries(self, domain: str = "example.com") -> dict[str, ReportDelivery]:
        with self.database.reading() as connection:
            return {
                each.address: each for each in report_deliveries.deliveries_of(connection, self.reports()[domain].id)
            }


def seen(number: int, domain: str = "example.com", rua: str = "", **members: Any) -> MessageRow:
    """A message that passed DMARC by DKIM, unless said otherwise."""
    record_text = f"v=DMARC1; p=quarantine; rua={rua or f'mailto:d@{domain}'}"
    dmarc = DmarcRow(PublishedRow(domain, record_text, "treewalk"), "quarantine", "pass", True, False)
    findings = (
        FindingRow("spf", "spf.mailfrom", "pass", "example.org"),
        FindingRow("dkim", "dkim", "pass", domain, "s1", True),
        FindingRow("dmarc", "dmarc", "pass", domain),
    )
    usual = {"author_domain": domain, "dmarc": dmarc, "findings": findings, "action": "accept"}
    return row(number, **{**usual, **members})


def failed(number: int, domain: str = "example.com", **members: Any) -> MessageRow:
    passed = seen(number, domain)
    assert passed.dmarc is not None
    dmarc = msgspec.structs.replace(passed.dmarc, disposition="quarantine", dkim_aligned=False)
    findings = (FindingRow("dmarc", "dmarc", "fail", domain),)
    return seen(number, domain, dmarc=dmarc, findings=findings, **members)


#: A failure report of long ago: its first day is over.
EARLIER = OutgoingReport(
    "earlier", 0, "earlier.example", (1,), ReportState.DRY_RUN, "", 0, 0, 0, 1, 1, ReportKind.FAILURE
)


def with_failure(number: int, domain: str = "example.com", ruf: str = "", **members: Any) -> MessageRow:
    """A message that failed, without judging it."""
    passed = seen(number, domain)
    assert passed.dmarc is not None
    published = msgspec.structs.replace(
        passed.dmarc.published, record=f"v=DMARC1; p=reject; ruf={ruf or f'mailto:f@{domain}'}"
    )
    dmarc = msgspec.structs.replace(passed.dmarc, published=published, disposition="reject", dkim_aligned=False)
    incident = IncidentRow("dmarc", "reject", "mx; dmarc=fail", f"a@{domain}", ((b"From", f" a@{domain}".encode()),))
    return msgspec.structs.replace(passed, dmarc=dmarc, incident=incident, **members)
