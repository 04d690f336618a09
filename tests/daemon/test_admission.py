# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages that a worker evaluates at a time: the others come in order, and none holds them up for long."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import Milter
import pytest

from assay import policy
from assay.cli.mta import Mta
from assay.config import Configuration, make_settings, make_trust
from assay.daemon import callbacks, connection
from assay.daemon.admission import AT_A_TIME, HOLD_SECONDS, Admission, Claim
from assay.daemon.journal import Journal
from assay.daemon.worker import session_maker
from assay.log import Log
from assay.model.message import HeaderField
from assay.resolver import Resolver, configured
from assay.session import Session
from nameserver import NameServer
from running import PATIENCE, Daemon, until
from sending import ROWS, greet, results, send

LONG = 3600.0  # seconds: no message loses its place


def claims(admission: Admission, count: int) -> list[Claim]:
    """Claims that have a place each."""
    made = [Claim(admission) for _ in range(count)]
    for claim in made:
        claim.make()
        assert claim.waited == 0.0
    return made


class Newcomers:
    """Messages that claim a place, each in a thread of its own. `admitted` has their numbers as they get one."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.claims: list[Claim] = []
        self.admitted: list[int] = []
        self.threads: list[threading.Thread] = []

    def come(self) -> None:
        """One more, which has to wait."""
        claim, number = Claim(self.admission), len(self.claims)

        def enter() -> None:
            claim.make()
            self.admitted.append(number)

        self.claims.append(claim)
        self.threads.append(threading.Thread(target=enter, daemon=True))
        waiting = len(self.admission._queue)
        self.threads[-1].start()
        until(lambda: len(self.admission._queue) > waiting)

    def await_them(self) -> None:
        """Until all have a place."""
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


class TestOrder:
    def test_messages_get_a_place_in_the_order_of_arrival(self) -> None:
        admission = Admission(1, LONG)
        (holder,) = claims(admission, 1)
        newcomers = Newcomers(admission)
        for _ in range(5):
            newcomers.come()
        for number in range(5):
            assert newcomers.admitted == list(range(number))
            (holder if not number else newcomers.claims[number - 1]).leave()
            until(lambda number=number: len(newcomers.admitted) > number)  # type: ignore[misc]  # called at once
        assert newcomers.admitted == [0, 1, 2, 3, 4]
        assert all(claim.waited > 0 for claim in newcomers.claims)

    def test_each_place_that_is_left_is_given_to_one(self) -> None:
        admission = Admission(2, LONG)
        holders = claims(admission, 2)
        newcomers = Newcomers(admission)
        for _ in range(2):
            newcomers.come()
        for _ in range(3):  # once is enough
            holders[0].leave()
        until(lambda: newcomers.admitted == [0])
        assert newcomers.threads[1].is_alive()
        holders[1].leave()
        newcomers.await_them()

    def test_no_message_waits_while_there_are_places(self) -> None:
        admission = Admission()
        for _ in range(3):
            for claim in claims(admission, AT_A_TIME):
                claim.leave()

    def test_a_claim_is_renewed_for_the_next_message(self) -> None:
        admission = Admission(1, HOLD_SECONDS)
        claims(admission, 1)
        newcomers = Newcomers(admission)
        newcomers.come()
        newcomers.await_them()
        (claim,) = newcomers.claims
        assert (claim.made, claim.waited >= HOLD_SECONDS) == (True, True)
        claim.renew()
        assert (claim.made, claim.waited) == (False, 0.0)


class TestStalledMessages:
    def test_they_hold_up_the_next_for_the_named_time_and_once(self) -> None:
        admission = Admission()
        stalled = claims(admission, AT_A_TIME)
        newcomers = Newcomers(admission)
        newcomers.come()
        newcomers.await_them()
        (late,) = newcomers.claims
        assert HOLD_SECONDS <= late.waited < 1.0
        others = claims(admission, AT_A_TIME - 1)  # at once
        for claim in stalled:  # they have no place to give away
            claim.leave()
        assert list(admission._holders) == [late, *others]

    def test_those_behind_in_the_queue_do_not_look_for_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Dozens of threads that wake every 50 ms would take the core from the messages that have a place."""
        looked = []
        end_long_holds = Admission._end_long_holds

        def look(admission: Admission) -> None:
            looked.append(time.monotonic())
            end_long_holds(admission)

        monkeypatch.setattr(Admission, "_end_long_holds", look)
        admission = Admission(1, 0.2)
        claims(admission, 1)
        newcomers = Newcomers(admission)
        for _ in range(10):
            newcomers.come()
        newcomers.await_them()
        assert newcomers.admitted == list(range(10))
        assert len(looked) < 35  # 55 if each looked every 200 ms

    def test_once_its_time_has_come_a_message_looks_as_often_as_the_first(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However many were ahead of it when it came, it does not wait as long again for one that stalls."""
        looked: Counter[threading.Thread] = Counter()
        monkeypatch.setattr(Admission, "_end_long_holds", lambda _: looked.update([threading.current_thread()]))
        admission = Admission(1, 0.02)
        (holder,) = claims(admission, 1)
        newcomers = Newcomers(admission)
        for _ in range(10):
            newcomers.come()
        first, last = newcomers.threads[0], newcomers.threads[-1]
        until(lambda: looked[last] == 10)
        assert looked[first] < 50  # 20, or 100 if the last one waited for ten times as long between two looks
        for claim in (holder, *newcomers.claims):
            claim.leave()
        newcomers.await_them()

    def test_a_short_hold_is_not_ended(self) -> None:
        now = 0.0
        admission = Admission(2, 0.01, lambda: now)
        claims(admission, 1)
        now = 5.0
        (short,) = claims(admission, 1)
        newcomers = Newcomers(admission)
        newcomers.come()
        newcomers.await_them()
        assert list(admission._holders) == [short, *newcomers.claims]


class TestNoMemory:
    def test_no_message_waits_for_ever(self) -> None:
        short = False

        def clock() -> float:
            if short and threading.current_thread() is threading.main_thread():
                raise MemoryError
            return 0.0  # so that no hold is long

        admission = Admission(1, 0.01, clock)
        (holder,) = claims(admission, 1)
        newcomers = Newcomers(admission)
        newcomers.come()
        newcomers.come()
        short = True
        with pytest.raises(MemoryError):
            holder.leave()
        newcomers.await_them()


def never(_context: object) -> None:
    raise AssertionError("the context has a connection")


MAIL = callbacks._step(never, Milter.P_NR_MAIL, connection.Connection.mail, begins=True)
HEADER = callbacks._step(never, Milter.P_NR_HDR, connection.Connection.header)
END_OF_HEADER = callbacks._step(never, Milter.P_NR_EOH, connection.Connection.end_of_header)


def service_of(new_session: Callable[[Callable[[], None]], Session], admission: Admission) -> connection.Service:
    """What the connections of a worker share."""
    action, journal = policy.OnError.TEMPFAIL, Journal(Log(lambda *_: None))
    return connection.Service(new_session, 0, 0, action, action, journal, connection.SessionCount(), admission)


class Context:
    """libmilter's side of a connection, at which a session fails in some methods."""

    def __init__(self, *broken: str) -> None:
        class Broken:
            def __getattr__(self, name: str) -> Any:
                def act(*_: object, **__: object) -> None:
                    if name in broken:
                        raise RuntimeError("a bug")

                return act

        session: Any = Broken()
        self.admission = Admission(1, LONG)
        service = service_of(lambda _: session, self.admission)
        callbacks.install(service)
        self.connection: connection.Connection | None = connection.Connection(service)
        self.connection.connected = True

    def getpriv(self) -> connection.Connection | None:
        return self.connection

    def setpriv(self, value: connection.Connection | None) -> None:
        self.connection = value

    def getsymval(self, _name: str) -> str:
        return ""


@pytest.fixture
def close(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], int]:
    """The callback that is registered for the end of a connection."""
    registered: list[Callable[[Any], int]] = []
    for name in ("set_flags", "register", *(f"set_{event}_callback" for event in EVENTS)):
        monkeypatch.setattr(Milter, name, lambda *_, **__: None)
    monkeypatch.setattr(Milter, "set_close_callback", registered.append)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    return lambda context: registered[-1](context)


EVENTS = ("connect", "helo", "envfrom", "envrcpt", "header", "eoh", "body", "eom", "abort")


class TestEnds:
    @pytest.mark.parametrize("broken", [(), ("header",), ("end_of_message",), ("abort",), ("end_of_message", "abort")])
    @pytest.mark.parametrize("end", ["end of message", "abort", "close"])
    def test_a_message_leaves_its_place(self, close: Callable[[Any], int], end: str, broken: tuple[str, ...]) -> None:
        context = Context(*broken)
        HEADER(context, "Subject", b"x")
        assert len(context.admission._holders) == 1
        HEADER(context, "Subject", b"y")
        with contextlib.suppress(RuntimeError):
            {"end of message": callbacks._end_of_message, "abort": callbacks._abort, "close": close}[end](context)
        assert not context.admission._holders

    @pytest.mark.usefixtures("close")
    def test_each_message_of_a_connection_has_a_place(self) -> None:
        context = Context()
        for _ in range(2):
            MAIL(context, b"<joe@example.org>")
            assert not context.admission._holders
            HEADER(context, "Subject", b"x")
            assert len(context.admission._holders) == 1
            callbacks._end_of_message(context)

    @pytest.mark.usefixtures("close")
    def test_a_message_without_header_has_a_place(self) -> None:
        context = Context()
        END_OF_HEADER(context)
        assert len(context.admission._holders) == 1

    @pytest.mark.parametrize("client", ["192.0.2.1", "192.0.2.2"], ids=["same client", "another client"])
    def test_a_message_that_waits_for_the_dns_leaves_its_place(self, client: str) -> None:
        with NameServer(ROWS, drop=True) as server, Resolver(configured([server.text])) as resolver:
            configuration = Configuration()
            admission = Admission(1, LONG)
            new_session = session_maker(make_settings(configuration), make_trust(configuration), resolver, 60.0)
            one = connection.Connection(service_of(new_session, admission))
            one.connect(_Macros("192.0.2.1"), "mail.example.org", 2, ("192.0.2.1", 25))
            context: Any = _Macros(client)
            one.mail(context, b"<joe@example.org>")
            one.header(context, "From", b"joe@example.org")
            one.end_of_header(context)

            def wait_for_the_dns() -> None:
                with contextlib.suppress(CancelledError):
                    one.end_of_message(context)

            waiting = threading.Thread(target=wait_for_the_dns, daemon=True)
            waiting.start()
            until(lambda: not admission._holders)
            one.session.close()
            waiting.join(PATIENCE)


def test_the_wait_for_a_place_is_part_of_the_wait_for_the_verdict() -> None:
    waited: list[float] = []
    verdict: Any = SimpleNamespace(action=policy.Action.ACCEPT, edits=())
    session: Any = SimpleNamespace(end_of_message=lambda **_: verdict)
    meter = SimpleNamespace(waited=lambda *_: None, message_waited=waited.append)
    journal: Any = SimpleNamespace(enter=lambda _, waits: waited.append(waits["eom"]), meter=meter)
    action = policy.OnError.TEMPFAIL
    one = connection.Connection(
        connection.Service(lambda _: session, 0, 0, action, action, journal, connection.SessionCount())
    )
    one.connected = True
    one.claim.waited = 5.0
    one.end_of_message(_Macros("192.0.2.1"))
    assert len(waited) == 2
    assert min(waited) >= 5.0


class _Macros:
    def __init__(self, client: str) -> None:
        self.client = client

    def getsymval(self, name: str) -> str:
        return {"{client_addr}": self.client, "i": "4ABC"}.get(name, "")


def test_stalled_messages_of_an_mta_do_not_stop_those_of_others(tmp_path: Path) -> None:
    with Daemon(tmp_path, ROWS, milter={"workers": 1}) as daemon, contextlib.ExitStack() as open_ones:

        def stall() -> Mta:
            mta = open_ones.enter_context(daemon.mta())
            greet(mta)
            mta.mail("joe@example.org", j="mx.example.net")
            mta.rcpt("ann@example.net", i="4S")
            mta.header(HeaderField(b"Subject", b" x"))
            return mta

        stalled = [stall() for _ in range(3 * AT_A_TIME)]
        with daemon.mta() as mta:
            greet(mta)
            began = time.monotonic()
            assert "dmarc=pass" in results(send(mta))
            assert time.monotonic() - began < 10
        for mta in stalled:
            mta.header(HeaderField(b"From", b" joe@example.org"))
            mta.command(b"N", b"", {})  # the end of the header
            assert "dmarc=pass" in results(mta.end_of_message(i="4S"))
