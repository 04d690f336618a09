# SPDX-License-Identifier: GPL-3.0-or-later
"""A message through a real Postfix fails DMARC, and the report about it goes through Postfix to whom the domain names.

The report passes our own daemon on its way, which makes no report about it.
"""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path

import parsedmarc
import pytest

from assay.config.database import open_store
from assay.config.store import StoreSection
from assay.store import outbox
from assay.store.database import Database
from assay.store.outbox import OutgoingReport, ReportKind, ReportState
from mta.base import HOST, UnavailableError, free_port
from mta.postfix import Postfix
from report_world import EARLIER
from reporting import no_complaints
from running import Daemon
from signing import pem, record, rsa_key

ROWS = {
    "example.com": [["TXT", ["v=spf1 -all"]]],
    "_dmarc.example.com": [["TXT", ["v=DMARC1; p=none; ruf=mailto:f@reader.example"]]],
    "example.com._report._dmarc.reader.example": [["TXT", ["v=DMARC1"]]],
    "s1._domainkey.receiver.example": [["TXT", [record(rsa_key())]]],
    "_dmarc.receiver.example": [["TXT", ["v=DMARC1; p=reject; ruf=mailto:f@reader.example; fo=1:d:s"]]],
    "receiver.example._report._dmarc.reader.example": [["TXT", ["v=DMARC1"]]],
}
MESSAGE = (
    b"From: Joe Doe <joe.doe@example.com>\r\n"
    b"To: ann.lee@ours.example\r\n"
    b"Subject: hello\r\n"
    b"Message-ID: <4711@example.com>\r\n"
    b"\r\n"
    b"the body\r\n"
)


def failures(database: Database) -> list[OutgoingReport]:
    with database.reading() as connection:
        found = outbox.find_reports(connection)
    return [each for each in found if each.kind is ReportKind.FAILURE and each.id != EARLIER.id]


def test_a_failure_and_its_report(tmp_path: Path) -> None:
    try:
        Postfix.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    for name, content in (("key.pem", pem(rsa_key())), ("redaction.key", b"a secret\n")):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "store").mkdir()
    port = free_port()
    daemon = Daemon(
        tmp_path,
        ROWS,
        socket=f"inet:{port}@{HOST}",
        identity={"authserv_id": "mx.receiver.example"},
        store={"directory": str(tmp_path / "store")},
        sign={
            "domain": ({"domain": "receiver.example", "selectors": ("s1",), "key_files": (str(tmp_path / "key.pem"),)},)
        },
        reports={
            "organization": "Receiver Ltd",
            "contact": "dmarc@receiver.example",
            "relay_tls": "never",
            "failure": {"enabled": True, "redaction_key_file": str(tmp_path / "redaction.key")},
        },
    )
    with daemon, Postfix(f"inet:{HOST}:{port}") as mta:
        daemon.sections["reports"]["relay"] = f"smtp://{HOST}:{mta.port}"
        with closing(open_store(StoreSection(directory=str(tmp_path / "store")))) as database:
            mta.submit(MESSAGE, sender="joe.doe@example.com", recipients=["ann.lee@ours.example"])
            assert mta.wait_for(1, "ann.lee@ours.example"), mta.log()
            assert mta.wait_until(lambda: bool(failures(database))), daemon.log()
            (waiting,) = failures(database)
            with database.writing() as connection:
                outbox.insert_report(connection, EARLIER)  # it is not the first day
                outbox.change_report(connection, waiting.id, 0, due=0)
            daemon.configure()
            daemon.signal(signal.SIGHUP)  # a new reporter looks at once
            assert mta.wait_for(1, "f@reader.example"), daemon.log()
            (octets,) = mta.messages("f@reader.example")
            with no_complaints():
                found = parsedmarc.parse_report_email(octets, offline=True)
            assert found["report_type"] == "failure"
            assert found["report"]["reported_domain"] == "example.com"
            for word in (b"ann.lee", b"joe.doe", b"Joe Doe", b"the body"):
                assert word not in octets
            assert mta.wait_until(lambda: failures(database)[0].state is ReportState.SENT)
            # The daemon has judged the report, too, on its way through this MTA.
            assert mta.wait_until(lambda: daemon.log().count("dmarc=") >= 2)
            assert len(failures(database)) == 1
