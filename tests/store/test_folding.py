# SPDX-License-Identifier: GPL-3.0-or-later
"""Strangers cannot make the counts of a day grow without bound, and sums stay exact."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from sqlalchemy import func, select, text

from assay.store import folding
from assay.store.database import Database, connect, open_database
from assay.store.folding import Folding
from assay.store.overview import daily, failing, failing_domains, top, unnamed
from assay.store.rows import MessageRow
from assay.store.schema import counts
from assay.store.statements import statements_of
from assay.store.tallies import DAY_MILLISECONDS
from assay.store.writer import Writer
from postgresql import PASSWORD, Postgresql
from store_rows import DAY, NOON, row

OURS = ("example.net",)
TOMORROW = NOON / 1000 + 86_400
KINDS = ("domain", "source", "failing")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a few rows pass."""
    for name, value in (("MAX_NAMES", 5), ("MAX_CLIENTS", 3), ("MAX_OPEN", 20), ("LOOK_ROWS", 10), ("STEP_NAMES", 4)):
        monkeypatch.setattr(folding, name, value)


def mail(first: int, count: int, domain: str = "", client: str = "") -> list[MessageRow]:
    """Rows that fail DMARC, each of a domain and a client of its own unless these are named."""
    return [
        row(number, author_domain=domain or f"d{number}.example", client=client or f"198.51.100.{number}")
        for number in range(first, first + count)
    ]


def names(database: Database, kind: str) -> int:
    """How many are counted by name."""
    with database.reading() as connection:
        pairs = select(counts.c.subject, counts.c.source).where(counts.c.kind == kind, counts.c.subject != "")
        return connection.execute(select(func.count()).select_from(pairs.distinct().subquery())).scalar_one()


def totals(database: Database) -> list[int]:
    """How many messages each kind counts."""
    with database.reading() as connection:
        found = connection.execute(select(counts.c.kind, func.sum(counts.c.count)).group_by(counts.c.kind))
        by_kind = {kind: int(count) for kind, count in found}
    return [by_kind[kind] for kind in KINDS]


def fold(database: Database, rows: Sequence[MessageRow]) -> None:
    Writer(database).write(rows)
    Folding(database, OURS).fold(TOMORROW)


def test_the_most_frequent_keep_their_names_and_the_sums_stay(database: Database) -> None:
    rows = mail(0, 40) + mail(100, 3, "often.example", "203.0.113.1")
    fold(database, rows)
    days = range(DAY, DAY + 1)
    assert [names(database, kind) for kind in KINDS] == [5, 5, 5]
    assert totals(database) == [43] * 3
    ranked = top(database, "domain", days)
    assert (ranked[0].name, ranked[0].total, len(ranked)) == ("often.example", 3, 5)
    assert unnamed(database, "domain", days).counts == {"fail": 36}
    assert top(database, "source", days, word="fail")[0].name == "203.0.113.1"
    assert [(each.word, each.count) for each in daily(database, "domain", days)] == [("fail", 43)]


def test_our_own_domain_is_never_a_rare_one_and_keeps_its_most_frequent_clients(database: Database) -> None:
    fold(database, mail(0, 40) * 2 + mail(100, 8, "example.net") + mail(200, 2, "example.net", "203.0.113.1"))
    days = range(DAY, DAY + 1)
    assert "example.net" in {each.name for each in top(database, "domain", days)}
    assert failing_domains(database, OURS, days)[0].counts == {"quarantine": 10}
    clients = failing(database, OURS, days)
    assert [each.total for each in clients] == [2, 1, 1]
    assert clients[0].name == "203.0.113.1"
    assert unnamed(database, "failing", days, OURS).counts == {"quarantine": 6}


def test_a_day_that_goes_on_has_a_bound_too(database: Database) -> None:
    writer, steady = Writer(database), Folding(database, OURS)
    for first in range(0, 200, 10):
        rows = mail(first, 10)
        writer.write(rows)
        steady.after(rows)
        assert max(names(database, kind) for kind in KINDS) <= folding.MAX_OPEN + folding.LOOK_ROWS
    assert totals(database) == [200] * 3


def test_a_day_is_folded_when_it_is_over_and_not_before(database: Database) -> None:
    Writer(database).write(mail(0, 15))
    steady = Folding(database, OURS)
    steady.fold(TOMORROW - 86_400)
    assert names(database, "domain") == 15
    steady.fold(TOMORROW)
    steady.fold(TOMORROW)  # what is folded stays as it is
    assert names(database, "domain") == 5
    Writer(database).write(mail(50, 30))  # late
    steady.fold(TOMORROW + 3 * 86_400)
    assert names(database, "domain") == 5
    assert totals(database) == [45] * 3


def test_what_is_counted_while_it_is_folded_is_not_lost(database: Database, where: str) -> None:
    """Two hosts write the same names as a third folds them."""
    begun = threading.Barrier(3)

    def write(host: int) -> None:
        own = open_database(where, PASSWORD)
        writer = Writer(own)
        begun.wait()
        for first in range(0, 200, 20):
            at = DAY * DAY_MILLISECONDS + host
            writer.write(
                [
                    row(
                        1000 * host + first + number,
                        time=at,
                        author_domain=f"d{number}.example",
                        client=f"198.51.100.{number}",
                    )
                    for number in range(20)
                ]
            )
        own.close()

    hosts = [threading.Thread(target=write, args=(host,)) for host in (1, 2)]
    for host in hosts:
        host.start()
    begun.wait()
    steady = Folding(database, OURS)
    while any(host.is_alive() for host in hosts):
        steady.fold(TOMORROW)
    steady.fold(TOMORROW)
    assert [names(database, kind) for kind in KINDS] == [5, 5, 5]
    assert totals(database) == [400] * 3


def test_a_writer_and_a_folding_never_wait_for_each_other_in_a_circle(postgresql: Postgresql) -> None:
    """A message without a client is counted where the rare clients of its domain are added up."""
    where = postgresql.create()
    database = connect(where, PASSWORD)
    database.migrate()
    Writer(database).write([*mail(0, 8, "example.net"), row(100, author_domain="example.net", client="")])
    add_counts = statements_of(database).add_counts
    steady = threading.Thread(target=Folding(database, OURS).fold, args=(TOMORROW,))
    with database.writing() as connection:
        add_counts(connection, [(DAY, "failing", "example.net", "", "quarantine", 1)])
        steady.start()
        waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        while steady.is_alive():
            with database.reading() as other:
                if other.execute(waiting).scalar_one():
                    break
        add_counts(connection, [(DAY, "failing", "example.net", f"198.51.100.{n}", "quarantine", 1) for n in range(8)])
    steady.join()
    assert failing_domains(database, OURS, range(DAY, DAY + 1))[0].counts == {"quarantine": 18}
    assert len(failing(database, OURS, range(DAY, DAY + 1))) == 3
    database.close()
