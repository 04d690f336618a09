# SPDX-License-Identifier: GPL-3.0-or-later
"""Two hosts, each with a real MTA, and one PostgreSQL that is killed under load: each message has its row, once."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from assay.store.database import connect
from mta.base import HOST, MTA, UnavailableError, crlf, free_port
from mta.postfix import Postfix
from mta.sendmail import Sendmail
from postgresql import PASSWORD, Postgresql
from running import Daemon

PATIENCE = 60.0  # seconds: a recorder tries again every 15


def daemon(folder: Path, url: str) -> Daemon:
    """Of a host. It writes into the database."""
    (folder / "store").mkdir(parents=True)
    password = folder / "password"
    password.touch(0o600)
    password.write_text(PASSWORD)
    sections: dict[str, Any] = {
        "identity": {"authserv_id": f"{folder.name}.example.net"},
        "milter": {"workers": 1},
        "store": {"directory": str(folder / "store"), "database": url, "password_file": str(password)},
    }
    return Daemon(folder, socket=f"inet:{free_port()}@{HOST}", **sections)


def submit(mta: MTA, name: str, going: Callable[[], bool], accepted: Counter[str]) -> None:
    """Messages one after another; `accepted` has the Message-IDs of those that the MTA took."""
    with mta.connect() as session:
        for number in itertools.takewhile(lambda _: going(), itertools.count()):
            identity = f"<{number}@{name}.example>"
            octets = crlf(f"From: ann@{name}.example\nMessage-ID: {identity}\nSubject: x\n\nhello\n".encode())
            session.sendmail(f"ann@{name}.example", ["bob@example.org"], octets)
            accepted[identity] += 1
            time.sleep(0.02)  # rather long than many


def eventually(true: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


def test_a_server_that_is_killed_under_load_loses_and_doubles_nothing(tmp_path: Path, postgresql: Postgresql) -> None:
    try:
        Postfix.check()
        Sendmail.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    url = postgresql.create()
    name = url.rpartition("/")[2]
    with contextlib.closing(connect(url, PASSWORD)) as database:
        database.migrate()

    def sql(statement: str) -> str:
        return postgresql.execute(statement, name)

    def rows() -> int:
        return int(sql("SELECT count(*) FROM messages"))

    accepted: Counter[str] = Counter()
    ending = threading.Event()
    with ExitStack() as stack:
        hosts = {"first": Postfix, "second": Sendmail}
        daemons = [stack.enter_context(daemon(tmp_path / host, url)) for host in hosts]
        loads = []
        for (host, kind), each in zip(hosts.items(), daemons, strict=True):
            mta = stack.enter_context(kind(f"inet:{HOST}:{each.socket.split(':')[1].partition('@')[0]}"))
            loads.append(
                threading.Thread(target=submit, args=(mta, host, lambda: not ending.is_set(), accepted), daemon=True)
            )
        stack.callback(ending.set)
        for load in loads:
            load.start()
        eventually(lambda: rows() >= 20, lambda: [each.log()[-2000:] for each in daemons])
        postgresql.kill()
        try:
            for each in daemons:
                each.wait_for_log("results wait in")
        finally:
            postgresql.start()
        for each in daemons:
            each.wait_for_log("database: written again")
        ending.set()
        for load in loads:
            load.join(PATIENCE)
        eventually(lambda: rows() >= accepted.total(), lambda: (rows(), accepted.total()))
    found = Counter(sql("SELECT message_id FROM messages").splitlines())
    assert found == accepted
    assert {identity.partition("@")[2] for identity in found} == {f"{host}.example>" for host in hosts}
    for query in (
        "SELECT sum(count) FROM counts WHERE kind = 'host'",
        "SELECT sum(count) FROM counts WHERE kind = 'source'",
        "SELECT count(*) FROM seen",
    ):
        assert int(sql(query)) == accepted.total(), query
