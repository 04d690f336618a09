# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports about our domains and bounces of our own, through a real Postfix and a real Sendmail into the store.

The MTAs have the settings of docs/reports.md, the daemon has dropped its privileges, and the store is a PostgreSQL.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import pwd
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from assay.cli.main import main
from assay.store import outbox, received, report_deliveries, suppressions
from assay.store.database import Database, open_database
from assay.store.outbox import OutgoingReport, ReportState
from assay.store.received import DAY_SECONDS
from assay.store.report_deliveries import ReportDelivery
from mta.base import HOST, MTA, PROJECT, UnavailableError, free_port
from mta.postfix import Postfix
from mta.sendmail import Sendmail
from postgresql import PASSWORD, Postgresql
from reports.incoming import shapes
from running import Daemon

TEXT = (PROJECT / "docs" / "reports.md").read_text()
DAY = shapes.BEGIN // DAY_SECONDS
TOKEN = "3f0c6a2b91d4e857"
ROWS = {
    "reporter.example": [["TXT", [f"v=spf1 ip4:{HOST} -all"]]],
    "_dmarc.reporter.example": [["TXT", ["v=DMARC1; p=reject"]]],
}
HOSTILE = {
    shapes.mail(gzip.compress(bytes(100_000_000))): "it is larger than 32 MiB when unpacked",
    shapes.mail(b"<!DOCTYPE feedback [<!ENTITY a 'b'>]><feedback>&a;</feedback>"): "the XML has a DOCTYPE, which no",
    shapes.mail(gzip.compress(shapes.GOOGLE.encode())[:-20]): "the gzip file is cut off",
}


def recipe(name: str, **places: str) -> str:
    """A block of the documentation, with other paths."""
    block = re.search(rf"```\n# {re.escape(name)}\n(.*?)```", TEXT, re.DOTALL)
    assert block is not None, name
    found = block[1]
    for place, other in places.items():
        path = {"socket": "/run/assay/daemon/lmtp.sock", "transport": "/etc/postfix/assay_transport"}[place]
        assert path in found, (name, path)
        found = found.replace(path, other)
    return found


#: Python may be below a directory of root's alone, where the daemon's user finds nothing more.
PROGRAM = """\
import sys
import psycopg, sqlalchemy.dialects.postgresql.psycopg
import assay.daemon.lmtp, assay.reports.incoming.delivery
import assay.store.database, assay.store.folding, assay.store.retention, assay.store.writer
from assay.__main__ import main
sys.exit(main())
"""


class QueueingSendmail(Sendmail):
    """One that tries again each second."""

    def command(self) -> Sequence[str]:
        return [*super().command(), "-q1s"]


def postfix(milter: str, folder: Path, lmtp: str) -> MTA:
    transport = folder / "transport"
    transport.write_text(recipe("assay_transport", socket=lmtp))
    main = recipe("main.cf", transport=str(transport))
    settings = dict(line.split(" = ", 1) for line in main.splitlines())
    settings |= {"mydestination": "example.org", "virtual_mailbox_domains": ""}
    settings |= {"minimal_backoff_time": "1s", "maximal_backoff_time": "1s", "queue_run_delay": "1s"}

    class WithService(Postfix):
        services = recipe("master.cf")

    return WithService(milter, extra=settings)


def sendmail(milter: str, folder: Path, lmtp: str) -> MTA:
    return QueueingSendmail(milter, extra=recipe("sendmail.mc", socket=lmtp))


class Site:
    """An MTA with a daemon and a database."""

    def __init__(self, mta: MTA, daemon: Daemon, server: Postgresql, url: str) -> None:
        self.mta = mta
        self.daemon = daemon
        self.server = server
        self._url = url

    @contextlib.contextmanager
    def database(self) -> Iterator[Database]:
        with contextlib.closing(open_database(self._url, PASSWORD)) as database:
            yield database

    def deliver(self, mail: bytes, to: str = "dmarc-reports@example.org") -> None:
        self.mta.submit(mail, sender="noreply@reporter.example", recipients=[to])

    def kept(self) -> list[received.ReportSummary]:
        with self.database() as database, database.reading() as connection:
            return received.summaries(connection, DAY - 1, DAY + 1)

    def wait_for_log(self, text: str, times: int = 1) -> None:
        self.daemon.wait_for_log(text, times)


@pytest.fixture(scope="module", params=[(Postfix, postfix), (QueueingSendmail, sendmail)], ids=["postfix", "sendmail"])
def site(request: pytest.FixtureRequest, postgresql: Postgresql) -> Iterator[Site]:
    kind, make = request.param
    try:
        kind.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    if os.geteuid():
        pytest.skip("only root can drop privileges")
    folder = Path(tempfile.mkdtemp(prefix="assay-incoming-"))  # pytest's are closed to the users of the MTA
    url = postgresql.create()
    lmtp = f"{folder}/lmtp.sock"
    port = free_port()
    try:
        password = folder / "password"
        password.touch(0o600)
        password.write_text(PASSWORD)
        (folder / "store").mkdir()
        nobody = pwd.getpwnam("nobody")
        for path in (folder, folder / "store", password):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        folder.chmod(0o755)
        sections: dict[str, Any] = {
            "milter": {"user": "nobody"},
            "identity": {"authserv_id": "mx.example.org"},
            "store": {"directory": f"{folder}/store", "database": url, "password_file": str(password)},
            "reports": {
                "bounces": "dmarc-bounces@example.org",
                "incoming": {"domains": ("example.org",), "listen": f"unix:{lmtp}", "socket_mode": "0666"},
            },
        }
        daemon = Daemon(folder, ROWS, socket=f"inet:{port}@{HOST}", program=("-c", PROGRAM), **sections)
        daemon.configure()
        assert main(["store", "migrate", "-c", str(daemon.configuration)]) == 0
        with daemon, make(f"inet:{HOST}:{port}", folder, lmtp) as mta:
            yield Site(mta, daemon, postgresql, url)
    finally:
        shutil.rmtree(folder)


def test_a_report_that_comes_twice_counts_once_beside_its_result_of_dmarc(site: Site) -> None:
    report = shapes.mail(gzip.compress(shapes.GOOGLE.encode()))
    site.deliver(report)
    site.wait_for_log("report came in: new: aggregate report 1234567890123456789 of google.com about example.org")
    site.deliver(report.replace(b"report-1@", b"report-2@"))
    site.wait_for_log("report came in: known: aggregate report 1234567890123456789 of google.com about example.org")
    (found,) = site.kept()
    assert (found.sender, found.sender_dmarc, found.good, found.bad) == ("reporter.example", "pass", 12, 3)


def test_hostile_mails_are_taken_and_named(site: Site) -> None:
    for mail in HOSTILE:
        site.deliver(mail)
    for reason in HOSTILE.values():
        site.wait_for_log(f"report came in: unreadable: {reason}")
    with site.database() as database, database.reading() as connection:
        reasons = sorted(each.reason for each in received.unreadable(connection))
    assert [reason.startswith(known) for reason, known in zip(reasons, sorted(HOSTILE.values()), strict=True)]
    assert not site.mta.stored()


def test_a_bounce_stops_its_destination(site: Site) -> None:
    with site.database() as database, database.writing() as connection:
        report = OutgoingReport("r1", 1, "example.com", (), ReportState.SENT, "", 1, 1, 1, 1, 1)
        outbox.plan(connection, 1, [report], now=1, dry_run=False)
        delivery = ReportDelivery("r1", "d@example.com", "example.com", ReportState.SENT, "", 1, 1, 1, TOKEN)
        report_deliveries.replace_deliveries(connection, "r1", (), [delivery])
    address = f"dmarc-bounces+{TOKEN}@example.org"
    site.mta.submit(b"Subject: Re: report\r\n\r\nThank you!\r\n", sender="ann@reporter.example", recipients=[address])
    site.wait_for_log(f"mail to a bounce address: {TOKEN}: it has a sender, so it is a reply, not a bounce")
    site.mta.submit(shapes.notification(), sender="", recipients=[address])
    site.wait_for_log("report came back: d@example.com gets no more for 30 days")
    with site.database() as database, database.reading() as connection:
        assert [each.subject for each in suppressions.all_suppressions(connection)] == ["d@example.com"]


def test_while_the_database_is_away_the_mta_keeps_a_report_and_it_arrives_once(site: Site) -> None:
    site.server.kill()
    try:
        site.deliver(shapes.mail(gzip.compress(shapes.YAHOO.encode())))
        site.wait_for_log("collector: mails with reports are deferred: ")
        assert site.mta.wait_until(lambda: "4.3.0 the store cannot be used now" in site.mta.log())
    finally:
        site.server.start()
    site.wait_for_log("report came in: new: aggregate report", 2)
    assert len(site.kept()) == 2
