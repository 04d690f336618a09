# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker without memory: no message is judged by a part of its events, none is accepted unjudged, and another worker
takes its place. A main process without memory keeps its workers."""

from __future__ import annotations

import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import Milter
import pytest

from assay import policy
from assay.cli.mta import MilterError, Mta
from assay.config.endpoint import Endpoint
from assay.daemon import callbacks, connection, fitness
from assay.daemon.connection import SessionCount
from assay.daemon.fitness import UnfitError
from assay.daemon.journal import Journal
from assay.log import Log
from assay.resolver import Resolver, parse_nameserver
from running import PATIENCE, Daemon, exhaust
from sending import BAD, ROWS, greet, message, results, send

REPLACED_SECONDS = 12.0  # a look each second, five for open sessions, and a start


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, ROWS, milter={"workers": 1}, dmarc={"reject": "reject"}) as one:
        yield one


def outcomes(daemon: Daemon, author: str, ip: str, seconds: float, body: bytes = b"") -> Counter[Any]:
    """Send messages, each in a session of its own."""
    found: Counter[Any] = Counter()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            with Endpoint.parse(daemon.socket).connect(PATIENCE) as connected, Mta(connected) as mta:
                greet(mta, ip)
                outcome = send(mta, message(author) + body, path=author)
                found[outcome.code, "dmarc=pass" in results(outcome)] += 1
        except (MilterError, OSError):
            found["closed"] += 1
    return found


def test_no_forgery_gets_in(daemon: Daemon) -> None:
    with daemon.mta() as mta:
        greet(mta, BAD)
        assert send(mta, message("a@reject.example"), path="a@reject.example").code == 550
    exhaust(*daemon.workers())
    found = outcomes(daemon, "a@reject.example", BAD, 3.0)
    assert found["closed"], "it had no memory"
    assert set(found) <= {"closed", (550, False), (451, False)}


def test_another_worker_takes_its_place_though_a_session_is_open(daemon: Daemon) -> None:
    (before,) = daemon.workers()
    with daemon.mta() as silent:
        greet(silent)
        exhaust(before)
        daemon.wait_for_log("this worker cannot go on: no memory is left")
        deadline = time.monotonic() + REPLACED_SECONDS
        while daemon.workers() <= {before}:
            assert time.monotonic() < deadline, daemon.log()
            time.sleep(0.05)
    daemon.wait_for_log(f"worker {before} died (exit code 70); starting another")
    with daemon.mta() as mta:
        greet(mta)
        assert "dmarc=pass" in results(send(mta))


def test_a_genuine_message_is_not_refused_for_lack_of_its_body(daemon: Daemon) -> None:
    """Events that are lost are not those of an empty message: its signature would fail."""
    exhaust(*daemon.workers())
    found = outcomes(daemon, "joe@example.org", "192.0.2.1", 3.0, (b"y" * 998 + b"\r\n") * 200)
    assert set(found) <= {"closed", (250, True), (451, False)}


def test_a_reload_for_which_the_main_process_has_no_memory_changes_nothing(daemon: Daemon) -> None:
    before = daemon.workers()
    listed = daemon.folder / "listed"
    listed.write_text("".join(f"a{number}.example.org\n" for number in range(300_000)))
    daemon.configure(lists={"listed": str(listed)})
    granted = resource.prlimit(daemon.pid, resource.RLIMIT_DATA)
    exhaust(daemon.pid)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_log("not reloaded, the old configuration stays: no memory is left")
    with daemon.mta() as mta:
        greet(mta)
        assert "dmarc=pass" in results(send(mta))
    assert daemon.workers() == before
    resource.prlimit(daemon.pid, resource.RLIMIT_DATA, granted)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_log(": reloaded")
    assert "Traceback" not in daemon.log()


class TestFitness:
    @pytest.fixture(autouse=True)
    def usual_hook(self) -> Iterator[None]:
        hook = threading.excepthook
        yield
        threading.excepthook = hook

    def test_a_worker_is_fit_until_a_thread_has_ended(self) -> None:
        sessions = SessionCount()
        fitness.check(sessions)
        fitness.watch_threads(sessions)
        thread = threading.Thread(target=lambda: {}[0], name="dns")  # type: ignore[index]  # it raises KeyError
        thread.start()
        thread.join()
        with pytest.raises(UnfitError, match=r"the thread dns has ended: KeyError\(0\)"):
            fitness.check(sessions)

    def test_without_memory_it_is_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fitness, "FREE", 1 << 60)
        with pytest.raises(UnfitError, match="no memory is left"):
            fitness.check(SessionCount())

    def test_the_first_reason_stays(self) -> None:
        sessions = SessionCount()
        sessions.give_up("one")
        sessions.give_up("two")
        with pytest.raises(UnfitError, match="one"):
            fitness.check(sessions)


class TestHook:
    """What pymilter calls for an event that it cannot hand over, and what it answers then."""

    @pytest.fixture
    def answers(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        found: list[int] = []
        monkeypatch.setattr(Milter, "set_exception_policy", found.append)
        return found

    def service(self) -> connection.Service:
        on_error = policy.OnError.TEMPFAIL
        journal = Journal(Log(lambda *_: None))
        return connection.Service(lambda *_: None, 0, 0, on_error, on_error, journal, SessionCount())  # type: ignore[arg-type,return-value]  # no session is made

    def test_a_lost_event_ends_the_worker(self, answers: list[int]) -> None:
        service = self.service()
        callbacks._hook(service)(MemoryError, MemoryError(), None)
        assert service.sessions.given_up == "an event of the MTA is lost"
        assert Milter.CONTINUE not in answers

    def test_octets_that_are_not_text_do_not_and_the_event_may_be_missing(self, answers: list[int]) -> None:
        service = self.service()
        callbacks._hook(service)(UnicodeDecodeError, UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), None)
        assert not service.sessions.given_up
        assert answers == [Milter.CONTINUE]

    def test_the_next_one_may_not(self, answers: list[int]) -> None:
        class Nobody:
            def getpriv(self) -> None:
                return None

        callbacks._end_of_message(Nobody())
        assert answers == [Milter.TEMPFAIL]


class TestLoop:
    def test_an_exception_for_lack_of_memory_ends_the_thread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What it would have done is missing, such as to free a place: questions would wait for ever."""
        ended: list[Any] = []
        monkeypatch.setattr(threading, "excepthook", ended.append)
        said: list[str] = []
        with Resolver([parse_nameserver("127.0.0.1:9")], tell=said.append) as resolver:
            assert resolver.hand_over(fail_for_memory)
            assert resolver._thread is not None
            resolver._thread.join(PATIENCE)
            assert [arguments.exc_type for arguments in ended] == [MemoryError]
            assert not resolver.hand_over(fail_for_memory)
        assert said[0].startswith("bug in the resolver: MemoryError()")

    def test_another_one_does_not(self) -> None:
        said: list[str] = []
        done = threading.Event()
        with Resolver([parse_nameserver("127.0.0.1:9")], tell=said.append) as resolver:
            assert resolver.hand_over(lambda: {}[0])  # type: ignore[index]  # it raises KeyError
            assert resolver.hand_over(done.set)
            assert done.wait(PATIENCE)
        assert said[0].startswith("bug in the resolver: KeyError(0)")


def fail_for_memory() -> None:
    raise MemoryError
