# SPDX-License-Identifier: GPL-3.0-or-later
"""What fills the database bounds its counts, too, and knows our own domains."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select

from assay.config import Configuration
from assay.config import database as database_module
from assay.config.database import StoreBackend, open_store
from assay.config.srs import SrsSection
from assay.config.store import StoreSection
from assay.store import folding
from assay.store.schema import counts, messages
from store_rows import row


@pytest.mark.parametrize("since_start", ["less than an hour", "longer"])
def test_a_clock_that_is_not_set_yet_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since_start: str
) -> None:
    uptime = time.monotonic()
    monkeypatch.setattr(database_module, "SETTLED_SECONDS", uptime + 3600 if since_start != "longer" else 0.0)
    section = StoreSection(directory=str(tmp_path))
    backend = StoreBackend(Configuration(store=section))
    backend.write([row(1, time=int(time.time() * 1000))])
    backend.tidy(time.time() + 10 * 365 * 86_400)
    backend.close()
    with contextlib.closing(open_store(section, may_write=False)) as database, database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(messages)).scalar_one() == (since_start != "longer")


@pytest.mark.parametrize("often", [True, False], ids=["while rows come", "once an hour"])
def test_counts_are_folded_but_those_of_our_own_domains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, often: bool
) -> None:
    for name, value in (("MAX_NAMES", 5), ("MAX_OPEN", 5), ("LOOK_ROWS", 10 if often else 1000)):
        monkeypatch.setattr(folding, name, value)
    section = StoreSection(directory=str(tmp_path), counts_days=3650)
    configuration = Configuration(store=section, srs=SrsSection(own_domains=("z.example",)))
    yesterday = int(time.time() - 86_400) * 1000
    backend = StoreBackend(configuration)
    names = [*(f"d{number}.example" for number in range(20)), "z.example"]
    backend.write([row(number, time=yesterday, author_domain=name) for number, name in enumerate(names)])
    if not often:
        backend.tidy(time.time())
    backend.close()
    database = open_store(section, may_write=False)
    with database.reading() as connection:
        query = select(counts.c.subject, func.sum(counts.c.count)).where(counts.c.kind == "domain")
        found = {name: int(count) for name, count in connection.execute(query.group_by(counts.c.subject))}
    database.close()
    assert (len(found), found[""], found["z.example"]) == (7, 15, 1)
