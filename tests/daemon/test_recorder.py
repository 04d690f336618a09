# SPDX-License-Identifier: GPL-3.0-or-later
"""The recorder in a real daemon, with a real broker: no death of a process loses a verdict or delays mail."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

import rabbitmq
from assay.cli.mta import MilterError
from assay.daemon import worker
from assay.daemon.child import Order
from assay.log import Log
from assay.store.rows import MessageRow
from rabbitmq import declare, received
from running import PATIENCE, Daemon
from sending import greet, send

pytestmark = pytest.mark.skipif(rabbitmq.SCRIPTS.name != "sbin", reason=rabbitmq.MISSING)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rabbitmq.RabbitMq]:
    with rabbitmq.RabbitMq(tmp_path_factory.mktemp("rabbitmq")) as running:
        yield running


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Of an exchange and a queue of the test's own."""
    return f"assay.{request.node.name}"


def store(folder: Path, broker: rabbitmq.RabbitMq, name: str, **more: Any) -> dict[str, Any]:
    """The section."""
    password = folder / "broker-password"
    password.write_text(broker.password)
    password.chmod(0o600)
    directory = folder / "store"
    directory.mkdir(exist_ok=True)
    return {
        "directory": str(directory),
        "database": "",
        "broker": broker.url,
        "broker_password_file": str(password),
        "exchange": name,
    } | more


def submit(daemon: Daemon, numbers: Iterable[int]) -> None:
    """Messages with these numbers in their queue ids; each has its reply when this returns."""
    with daemon.mta() as mta:
        greet(mta)
        for number in numbers:
            send(mta, queue=f"Q{number}")


def submit_meanwhile(daemon: Daemon, numbers: Iterable[int], done: set[int]) -> None:
    """Messages one after another, each again until it has its reply, as an MTA does; `done` has those that have."""
    for number in numbers:
        while True:
            with contextlib.suppress(OSError, MilterError):
                submit(daemon, [number])
                break
            time.sleep(0.05)
        done.add(number)
        time.sleep(0.01)  # rather long than many


def queues(rows: Iterable[MessageRow]) -> set[str]:
    return {found.queue for found in rows}


def names(numbers: Iterable[int]) -> set[str]:
    return {f"Q{number}" for number in numbers}


def children(daemon: Daemon, kind: str) -> list[int]:
    """The process ids of a kind, as the log at level debug has them."""
    return [pid for pid in map(int, re.findall(rf"{kind} (\d+) started", daemon.log())) if pid in daemon.workers()]


_T = TypeVar("_T")
DEBUG = {"level": "debug"}


def test_each_message_has_one_row(tmp_path: Path, broker: rabbitmq.RabbitMq, name: str) -> None:
    declare(broker, name)
    with Daemon(tmp_path, store=store(tmp_path, broker, name)) as daemon:
        submit(daemon, range(20))
        rows = received(broker, name, 20)
    assert len(rows) == 20
    assert queues(rows) == names(range(20))
    assert {found.sender_domain for found in rows} == {"example.org"}


def test_the_death_of_the_recorder_loses_nothing(tmp_path: Path, broker: rabbitmq.RabbitMq, name: str) -> None:
    declare(broker, name)
    with Daemon(tmp_path, store=store(tmp_path, broker, name), log=DEBUG) as daemon:
        done: set[int] = set()
        dead: set[int] = set()
        numbers = itertools.takewhile(lambda _: len(dead) < 3, itertools.count())
        load = threading.Thread(target=submit_meanwhile, args=(daemon, numbers, done))
        load.start()
        while load.is_alive():
            for pid in children(daemon, "recorder"):
                time.sleep(0.2)  # it is in the middle of its work
                os.kill(pid, signal.SIGKILL)
                dead.add(pid)
            time.sleep(0.05)
        load.join()
        rows: dict[bytes, MessageRow] = {}
        while len(rows) < len(done):
            rows |= {found.id: found for found in received(broker, name, 1)}
        assert queues(rows.values()) == names(done)
        assert len(rows) == len(done) > 100


def test_the_death_of_workers_loses_no_message_that_had_its_reply(
    tmp_path: Path, broker: rabbitmq.RabbitMq, name: str
) -> None:
    declare(broker, name)
    with Daemon(tmp_path, store=store(tmp_path, broker, name), log=DEBUG) as daemon:
        done: set[int] = set()
        load = threading.Thread(target=submit_meanwhile, args=(daemon, range(200), done))
        load.start()
        while load.is_alive():
            for pid in children(daemon, "worker"):
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.7)
        load.join()
        found: set[str] = set()
        while len(found) < 200:
            found |= queues(received(broker, name, 1))
        assert found == names(range(200))


def test_a_recorder_that_hangs_does_not_delay_mail(tmp_path: Path, broker: rabbitmq.RabbitMq, name: str) -> None:
    declare(broker, name)
    with Daemon(tmp_path, store=store(tmp_path, broker, name), log=DEBUG) as daemon:
        (recorder,) = children(daemon, "recorder")
        os.kill(recorder, signal.SIGSTOP)
        try:
            submit(daemon, range(2000))
        finally:
            os.kill(recorder, signal.SIGCONT)
        found: set[str] = set()
        while len(found) < 2000:
            found |= queues(received(broker, name, 1))
        assert not re.search("results? lost", daemon.log())


def test_a_broker_that_is_away_delays_nothing_but_rows(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    with rabbitmq.RabbitMq(tmp_path_factory.mktemp("rabbitmq")) as broker:
        declare(broker, name)
        broker.kill()
        with Daemon(tmp_path, store=store(tmp_path, broker, name)) as daemon:
            submit(daemon, range(50))
            daemon.wait_for_log("results wait in")
        with Daemon(tmp_path, store=store(tmp_path, broker, name)) as daemon:  # they outlive the daemon
            submit(daemon, range(50, 100))
            broker.start()
            found: set[str] = set()
            while len(found) < 100:
                found |= queues(received(broker, name, 1))
            daemon.wait_for_log("broker: written again")
    assert found == names(range(100))
    assert "secret" not in daemon.log()


def test_rows_flow_through_a_reload_and_to_the_end(tmp_path: Path, broker: rabbitmq.RabbitMq, name: str) -> None:
    declare(broker, name)
    with Daemon(tmp_path, store=store(tmp_path, broker, name)) as daemon:
        done: set[int] = set()
        load = threading.Thread(target=submit_meanwhile, args=(daemon, range(200), done))
        load.start()
        for times in range(1, 4):
            daemon.signal(signal.SIGHUP)
            daemon.wait_for_log("reloaded", times)
        load.join()
    rows = received(broker, name, 200)
    assert len(rows) == 200
    assert queues(rows) == names(range(200))


def test_the_end_soon_after_a_reload_loses_nothing(tmp_path: Path, broker: rabbitmq.RabbitMq, name: str) -> None:
    """The recorder of the old configuration takes no more, and that of the new one has not begun."""
    declare(broker, name)
    with Daemon(tmp_path, store=store(tmp_path, broker, name), log=DEBUG) as daemon:
        (old,) = children(daemon, "recorder")
        os.kill(old, signal.SIGSTOP)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("reloaded")
        submit(daemon, range(5))
        daemon.signal(signal.SIGTERM)
        while children(daemon, "worker"):
            time.sleep(0.01)
        os.kill(old, signal.SIGKILL)
        assert queues(received(broker, name, 5)) == names(range(5))
    assert not re.search("results? lost", daemon.log())
    assert len(re.findall(r"recorder \d+ started", daemon.log())) == 2


def test_a_directory_that_is_missing_is_named_and_mail_goes_on(
    tmp_path: Path, broker: rabbitmq.RabbitMq, name: str
) -> None:
    section = store(tmp_path, broker, name)
    (tmp_path / "store").rmdir()
    with Daemon(tmp_path, store=section) as daemon:
        submit(daemon, range(5))
        daemon.wait_for_log(f"store.directory: {tmp_path}/store")
        assert "No such file or directory; create the directory, writable for the daemon's user" in daemon.log()
    assert f"store: 5 results lost: {tmp_path}/store/spool: No such file or directory" in daemon.log()


def test_a_worker_hands_over_its_last_rows_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(os, "_exit", done.append)
    monkeypatch.setattr(signal, "alarm", lambda _: None)
    monkeypatch.setattr(worker, "_drain", lambda *_: 0)
    tether: Any = SimpleNamespace(wait=lambda _: Order.REPLACED)
    listener: Any = SimpleNamespace(lent=False)
    sessions: Any = SimpleNamespace(end=lambda *, refusing: done.append("deaf"), value=0, given_up="")
    keeper: Any = SimpleNamespace(end=lambda: done.append("rows"))
    worker._control(tether, listener, sessions, 1.0, Log(lambda *_: None), lambda: None, keeper)
    assert done == ["deaf", "rows", os.EX_OK]


class TestSqlite:
    def test_each_message_is_in_the_database_once(self, tmp_path: Path) -> None:
        directory = tmp_path / "store"
        directory.mkdir()
        with Daemon(tmp_path, store={"directory": str(directory)}) as daemon:
            submit(daemon, range(100))
        assert stored(directory) == Counter(names(range(100)))

    def test_the_death_of_everybody_loses_nothing_and_doubles_nothing(self, tmp_path: Path) -> None:
        directory = tmp_path / "store"
        directory.mkdir()
        with Daemon(tmp_path, store={"directory": str(directory)}, log=DEBUG) as daemon:
            done: set[int] = set()
            dead: set[int] = set()
            numbers = itertools.takewhile(lambda _: len(dead) < 6, itertools.count())
            load = threading.Thread(target=submit_meanwhile, args=(daemon, numbers, done))
            load.start()
            while load.is_alive():
                for pid in children(daemon, "recorder") + children(daemon, "worker")[:1]:
                    time.sleep(0.3)  # it is in the middle of its work
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    dead.add(pid)
            load.join()
            # If the last one dies while the daemon ends, its rows stay in the spool for the next daemon.
            deadline = time.monotonic() + PATIENCE
            while not set(children(daemon, "recorder")) - dead:
                assert time.monotonic() < deadline, daemon.log()
                time.sleep(0.05)
        found = stored(directory)
        assert names(done) <= set(found)
        # A worker that died between the row and the reply had its message again.
        assert sum(found.values()) - len(done) <= len(dead)
        with sqlite3.connect(directory / "store.sqlite") as connection:
            counted = connection.execute("SELECT sum(count) FROM counts WHERE kind = 'host'").fetchone()[0]
        assert counted == sum(found.values())

    @pytest.mark.parametrize("times", [1, 2])
    def test_a_recorder_that_dies_while_the_daemon_ends(self, tmp_path: Path, times: int) -> None:
        """The first death is followed by another recorder at once, the second by a wait that the end cuts short."""
        directory = tmp_path / "store"
        directory.mkdir()
        with Daemon(tmp_path, store={"directory": str(directory)}, log=DEBUG) as daemon:
            with daemon.mta() as mta:
                greet(mta)
                send(mta, queue="Q0")
                daemon.signal(signal.SIGTERM)
                daemon.wait_for_log("waiting for open ones")
                for _ in range(times):
                    (recorder,) = eventually(lambda: children(daemon, "recorder"))
                    os.kill(recorder, signal.SIGKILL)
                    daemon.wait_for_log(f"recorder {recorder} died (signal 9)")
                for number in range(1, 100):
                    send(mta, queue=f"Q{number}")
            assert daemon.wait() == 0
        assert stored(directory) == Counter(names(range(100)))

    def test_the_death_of_the_supervisor_loses_no_message_of_an_open_session(self, tmp_path: Path) -> None:
        directory = tmp_path / "store"
        directory.mkdir()
        with Daemon(tmp_path, store={"directory": str(directory)}, log=DEBUG) as daemon:
            (recorder,) = children(daemon, "recorder")
            with daemon.mta() as mta:
                greet(mta)
                send(mta, queue="Q0")
                daemon.signal(signal.SIGKILL)
                daemon.wait()
                time.sleep(1.5)  # longer than a recorder that was told to end waits for rows
                for number in range(1, 100):
                    send(mta, queue=f"Q{number}")
            eventually(lambda: not Path(f"/proc/{recorder}").exists())
        assert stored(directory) == Counter(names(range(100)))


def eventually(look: Callable[[], _T]) -> _T:
    """Wait until something is true. Returns it."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def stored(directory: Path) -> Counter[str]:
    """The queue ids in the database."""
    with contextlib.closing(sqlite3.connect(directory / "store.sqlite")) as connection:
        return Counter(queue for (queue,) in connection.execute("SELECT queue FROM messages"))
