# SPDX-License-Identifier: GPL-3.0-or-later
"""A person or a domain is removed, and nobody else."""

from __future__ import annotations

import base64
import functools
import gzip
import io
import json
import re
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Text, func, insert, select

from assay.model.printable import marked
from assay.protocol.report.received import (
    AggregateRow,
    AppliedPolicy,
    PolicyReason,
    ReceivedAggregate,
    ReceivedTls,
    ReportedSignature,
    ReportSender,
    TlsFailure,
    TlsPolicy,
)
from assay.store import emptying, forgetting, received, report_deliveries, schema, written_address
from assay.store.database import Database, open_database
from assay.store.forgetting import Whom, count, forget
from assay.store.outbox import ReportState
from assay.store.received import DAY_SECONDS, ReportOutcome
from assay.store.report_deliveries import ReportDelivery
from assay.store.rows import AnswerRow, DmarcRow, FindingRow, MessageRow, PublishedRow
from assay.store.search import Criteria
from assay.store.whole import exported
from assay.store.writer import Writer
from assay.store.written_address import pattern, texts_in
from report_world import with_failure
from store_rows import row

ADDRESS, DOMAIN = Whom(address="<Ann@Gone.example>"), Whom(domain="gone.example")
#: None of it is a domain of a finding.
IMITATION = (
    FindingRow("dkim", "dkim", "fail", "notgone.example", "gone.example", reason='","gone.example","'),
    FindingRow("dkim", "dkim", "fail", "stays.example", "a.gone.example", reason=".gone.example"),
)
OTHERS = [row(1), row(2, sender="<ann@stays.example>"), row(3, sender_domain="notgone.example")]
OF_DMARC = DmarcRow(PublishedRow("gone.example", "v=DMARC1; p=none", "treewalk"), "none", "none", False, False)
PERSON: dict[str, dict[str, object]] = {
    "sender": {"sender": "<ann@gone.example>"},
    "author": {"author": "ANN@gone.example"},
    "login": {"login": "ann@gone.example"},
    "recipient": {"recipients": ("<bob@stays.example>", "<ann@Gone.example>")},
    "rewritten": {"rewritten": "Ann@gone.example"},
}
ORGANIZATION: dict[str, dict[str, object]] = {
    "sender": {"sender_domain": "gone.example"},
    "below": {"sender_domain": "mail.gone.example"},
    "author": {"author_domain": "gone.example", "dmarc": OF_DMARC},
    "organizational": {"organizational_domain": "gone.example"},
    "recipient": {"recipient_domains": ("stays.example", "gone.example")},
    "recipient below": {"recipient_domains": ("a.gone.example",)},
    "signature": {"findings": (FindingRow("dkim", "dkim", "pass", "gone.example", "s"),)},
    "signature below": {"findings": (FindingRow("dkim", "dkim", "pass", "a.gone.example", "s"),)},
    "helo": {"helo": "mx.gone.example"},
    "client": {"client_name": "mx.gone.example"},
}


def left(database: Database) -> list[MessageRow]:
    return sorted(exported(database, Criteria()), key=lambda found: found.time)


@pytest.mark.parametrize(
    ("subject", "members"),
    [(ADDRESS, members) for members in PERSON.values()] + [(DOMAIN, members) for members in ORGANIZATION.values()],
    ids=[*PERSON, *(f"domain, {name}" for name in ORGANIZATION)],
)
def test_messages_go_whole(database: Database, subject: Whom, members: dict[str, object]) -> None:
    answers = (AnswerRow("mx.gone.example", "A", "nodata"),)
    others = [row(0, findings=IMITATION), *OTHERS]
    Writer(database).write([*others, row(4, **members, answers=answers)])
    assert count(database, subject)[0].count == 1
    assert left(database)[len(others) :]  # which was only counted
    assert forget(database, subject)[0].count == 1
    assert left(database) == others
    with database.reading() as connection:
        for table in (schema.findings, schema.addresses, schema.answers):
            of = connection.execute(select(table.c.message)).scalars()
            assert row(4).id not in {bytes(identity) for identity in of}
    assert {each.count for each in count(database, subject)} == {0}


def test_counts_groups_and_records_of_a_domain_go(database: Database) -> None:
    Writer(database).write([*OTHERS, row(4, author_domain="gone.example", dmarc=OF_DMARC)])
    found = {each.kind: each.count for each in forget(database, DOMAIN)}
    assert found == {
        "messages": 1,
        "counts": 2,
        "groups of messages for reports": 1,
        "DMARC records": 1,
        "reports that were sent": 0,
        "headers that wait for failure reports, all of them": 0,
        "reports that came in": 0,
        "reports that came in and could not be read": 0,
        "destinations that no report waits for": 0,
    }
    with database.reading() as connection:
        for table in (schema.counts, schema.report_groups, schema.published):
            kept = connection.execute(select(table)).all()
            assert kept
            assert "gone.example" not in str(kept).replace("notgone.example", "")


def test_many_messages_go_in_steps(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "STEP_ROWS", 3)
    Writer(database).write([row(number, sender_domain="gone.example") for number in range(10)])
    assert forget(database, DOMAIN)[0].count == 10
    with database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(schema.messages)).scalar_one() == 0


def test_the_octets_are_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by an SQLite that was built without it; Debian's does so by itself."""

    class Careless(sqlite3.Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.execute("PRAGMA secure_delete = OFF")

    monkeypatch.setattr(sqlite3.dbapi2, "connect", functools.partial(sqlite3.connect, factory=Careless))
    database = open_database(f"{tmp_path}/store.sqlite")
    for number in range(50):  # one by one, so that pages are divided
        Writer(database).write([row(number, sender=f"<ann{number}@gone.example>")])
    for number in range(50):
        forget(database, Whom(address=f"ann{number}@gone.example"))
    files = b"".join(path.read_bytes() for path in tmp_path.glob("store.sqlite*"))
    database.close()
    assert b"gone.example" not in files


@pytest.mark.parametrize("members", [{}, {"address": "<>"}, {"address": "@a.example"}, {"address": "a@", "domain": ""}])
def test_nobody_is_not_everybody(members: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="address"):
        Whom(**members)


def test_a_login_name_is_not_searched_in_reports(database: Database) -> None:
    Writer(database).write([*OTHERS, row(4, login="Ann")])
    assert [(each.kind, each.count) for each in forget(database, Whom(address="ann"))] == [
        ("messages", 1),
        ("headers that wait for failure reports, all of them", 0),
    ]
    assert left(database) == OTHERS


OF_ANN = {"Ann@gone.example", "mailto:ann@gone.example"}
OF_GONE = {"joann@gone.example", "mailto:d@mx.gone.example", "https://x.example/"}  # the last by its organization


@pytest.mark.parametrize(
    ("whom", "gone"),
    [
        (ADDRESS, OF_ANN),
        (DOMAIN, OF_ANN | OF_GONE),
        (Whom(address="ann"), set()),
    ],
    ids=["address", "domain", "login"],
)
def test_destinations_of_reports_go_unless_a_report_has_to_go_there(
    database: Database, whom: Whom, gone: set[str]
) -> None:
    every = OF_ANN | OF_GONE | {"ann@gone.example.org", "ann@notgone.example"}
    stay = every - gone
    states = tuple(ReportState)
    with database.writing() as connection:
        for state in states:
            added = [
                ReportDelivery(state, each, "gone.example" if "//" in each else "", state, "", 0, 0, 0, "")
                for each in every
            ]
            report_deliveries.replace_deliveries(connection, state, (), added)
    needed = (ReportState.WAITING, ReportState.HANDED_OVER)
    kinds = {each.kind: each.count for each in forget(database, whom)}
    assert kinds.get("destinations that no report waits for", 0) == len(gone) * (len(states) - len(needed))
    with database.reading() as connection:
        for state in states:
            kept = {each.address for each in report_deliveries.deliveries_of(connection, state)}
            assert kept == (every if state in needed else stay)


HAS_ANN = (
    "To: bob@x.example\nann@gone.example",  # a line break is an escape in JSON
    "smtp.mailfrom=ANN@Gone.Example;",
    "'ann@gone.example'",
    "mailto:ann@gone.example.",
    "ann@gone.example, carl@gone.example",
)
HAS_NOT = (
    "joann@gone.example",
    "jo.ann@gone.example",
    "jo+ann@gone.example",
    "o'ann@gone.example",
    "ann@gone.example.org",
    "ann@gone.example-shop.org",
    "ann@notgone.example",
)


def test_failure_reports_with_the_address_go_and_none_with_a_longer_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "STEP_ROWS", 2)
    with database.writing() as connection:
        for number, text in enumerate(HAS_NOT[:4] + HAS_ANN + HAS_NOT[4:]):
            values: dict[str, object] = {
                column.name: "" if isinstance(column.type, Text) else 0 for column in schema.received_reports.columns
            }
            values |= {"id": bytes([number]), "kind": "failure", "report": json.dumps({"header": [text]})}
            connection.execute(insert(schema.received_reports).values(values))
    assert [each.count for each in count(database, ADDRESS)] == [0, len(HAS_ANN), 0, 0, 0, 0, 0]
    assert [each.count for each in forget(database, ADDRESS)] == [0, len(HAS_ANN), 0, 0, 0, 0, 0]
    with database.reading() as connection:
        kept = connection.execute(select(schema.received_reports.c.report).order_by(schema.received_reports.c.id))
        assert [json.loads(text)["header"][0] for text in kept.scalars()] == list(HAS_NOT)


def with_text(text: str, place: str, number: int) -> ReceivedAggregate | ReceivedTls:
    """A report with a text in one place."""
    texts = dict.fromkeys(("organization", "contact", "report_id", "comment", "selector", "reason"), "a text")
    texts |= {"report_id": f"n{number}"} | ({place: text} if place else {})
    begin = DAY_SECONDS + number
    names = (texts["organization"], texts["contact"], texts["report_id"], "gone.example", begin, begin + 9)
    if place == "reason":
        failures = (TlsFailure("expired", 2, reason=text),)
        return ReceivedTls(*names, (TlsPolicy("gone.example", "sts", 7, 2, failures),))
    reasons = (PolicyReason("other", texts["comment"]), PolicyReason("other", "stays"))
    signature = ReportedSignature("gone.example", texts["selector"], "pass")
    row = AggregateRow("192.0.2.1", 4, "none", True, False, "gone.example", reasons=reasons, dkim=(signature,))
    return ReceivedAggregate(*names, AppliedPolicy(), (row, row), errors=("stays",))


@pytest.mark.parametrize("place", ["organization", "contact", "report_id", "comment", "selector", "reason"])
def test_texts_with_the_address_are_emptied_in_aggregate_and_tls_reports(
    database: Database, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(emptying, "STEP_ROWS", 2)
    has_ann = tuple(marked(text) for text in (*HAS_ANN, '"Ann" <ann@gone.example>'))
    reports = [with_text(text, place, number) for number, text in enumerate(has_ann + HAS_NOT)]
    sender = ReportSender("reporter.example", "pass")
    with database.writing() as connection:
        for report in reports:
            received.keep(connection, sender, report, now=DAY_SECONDS)
    with database.reading() as connection:
        tables = (schema.received_days, schema.received_counts)
        sums = [connection.execute(select(table)).all() for table in tables]
    expected = [0, 0, 0, 0, 0, 0, len(has_ann)]
    assert [each.count for each in count(database, ADDRESS)] == expected
    assert [each.count for each in forget(database, ADDRESS)] == expected
    assert not any(each.count for each in count(database, ADDRESS))
    with database.reading() as connection:
        assert sums == [connection.execute(select(table)).all() for table in tables]
        for number, report in enumerate(reports):
            found = received.report(connection, report.id_from(sender))
            assert found == (with_text("", place, number) if number < len(has_ann) else report)
        left_over = str([connection.execute(select(table)).all() for table in schema.metadata.sorted_tables])
    assert not pattern("ann@gone.example").search(re.sub(r"o\\*'ann@", "", left_over))
    with database.writing() as connection:
        for report in reports:
            assert received.keep(connection, sender, report, now=DAY_SECONDS) is ReportOutcome.KNOWN
            assert received.keep(connection, ReportSender(), report, now=DAY_SECONDS) is ReportOutcome.KNOWN


def zipped(text: bytes) -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("report.xml", text)
        return file.getvalue()


def in_mail(octets: bytes) -> bytes:
    return b"Subject: x\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(octets) + b"\r\n--b--\r\n"


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda text: text,
    "among other octets": lambda text: b"\xff\0 " + text + b"\xe4\r\n",
    "quoted-printable": lambda text: b"To: =61=\r\n".replace(b"=61", text[:1]) + text[1:].replace(b"@", b"=40"),
    "base64": in_mail,
    "gzip": gzip.compress,
    "gzip, cut off": lambda text: gzip.compress(text + bytes(range(256)) * 9)[:-20],
    "zip": zipped,
    "gzip in a mail": lambda text: in_mail(gzip.compress(text)),
    "zip in a mail": lambda text: in_mail(zipped(text)),
    "UTF-16": lambda text: text.decode().encode("utf-16"),
}


@pytest.mark.parametrize("form", FORMS)
def test_unreadable_reports_with_the_address_go_and_none_with_a_longer_one(
    database: Database, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(forgetting, "STEP_CONTENTS", 2)
    texts = HAS_NOT[:3] + HAS_ANN + HAS_NOT[3:]
    with database.writing() as connection:
        for number, text in enumerate(texts):
            content = FORMS[form](text.encode())
            received.keep_unreadable(connection, ReportSender(f"r{number}.example"), "why", content, now=1)
        reason = "the count of ann@gone.example is x"
        received.keep_unreadable(connection, ReportSender("x.example"), reason, b"", now=1)
        received.keep_unreadable(connection, ReportSender("gone.example"), "why", b"no address", now=1)
    expected = [0, 0, 1, len(HAS_ANN) + 1, 0, 0, 0]
    assert [each.count for each in count(database, ADDRESS)] == expected
    assert [each.count for each in forget(database, ADDRESS)] == expected
    with database.reading() as connection:
        kept = {each.sender for each in received.unreadable(connection)}
    assert kept == {f"r{number}.example" for number, text in enumerate(texts) if text in HAS_NOT}


@pytest.mark.parametrize(
    "octets",
    [
        b"\x1f\x8b", b"PK\x03\x04", b"PK\x03\x04" * 9, zipped(b"x")[:-9], gzip.compress(b"x")[:5] + b"x" * 99,
        b"=", b"A", b"AAAAA\n", b"=ZZ=", b"\xff\xfe\0",
    ],
)  # fmt: skip
def test_broken_octets_are_searched(octets: bytes) -> None:
    for text in (octets, octets + b"\r\n\r\nann@gone.example", b"ann@gone.example\r\n\r\n" + octets):
        found = [bool(pattern("ann@gone.example").search(each)) for each in texts_in(text)]
        assert any(found) is (b"@" in text and not text.startswith(b"\xff"))


def test_little_of_what_is_compressed_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if there is much in many files."""
    bomb = gzip.compress(bytes(9_000_000))
    octets = b"\r\n".join(in_mail(bomb) for _ in range(8))
    unpacked = sum(map(len, texts_in(octets))) - sum(map(len, texts_in(octets.replace(b"H4sI", b"AAAA"))))
    assert 0 < unpacked <= written_address.MAX_UNPACKED_OCTETS


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_would_be_unpacked_without_a_bound_is_not_searched(method: int) -> None:
    """100,000 octets may become gigabytes at once."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as files:
        files.writestr("report.xml", b"ann@gone.example " * 99)
    assert not any("ann@gone.example" in each for each in texts_in(archive.getvalue()))


@pytest.mark.parametrize("whom", [ADDRESS, DOMAIN, Whom(address="ann")])
def test_all_headers_that_wait_for_failure_reports_go(database: Database, whom: Whom) -> None:
    failing = with_failure(1)
    Writer(database, clock=lambda: failing.time / 1000).write([failing])
    assert sum(each.count for each in forget(database, whom)) == 1
    with database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(schema.incidents)).scalar() == 0
