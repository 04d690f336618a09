# SPDX-License-Identifier: GPL-3.0-or-later
"""The last line of defence of the callbacks: a session with a bug. No real path triggers it, so this one is faked."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import Milter
import pytest

from assay import policy
from assay.assessment import Assessment
from assay.daemon import callbacks, connection
from assay.daemon.journal import Journal
from assay.log import Level, Log
from assay.model.edits import Insert
from assay.model.name import ReversePath
from assay.model.smtp import Client, Envelope
from assay.policy import Stage
from assay.session import Verdict


class Broken:
    """A session that fails in one method, a given number of times."""

    def __init__(self, method: str, times: int) -> None:
        self.method, self.left = method, times
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def act(*_: object, **__: object) -> None:
            self.calls.append(name)
            if name == self.method and self.left:
                self.left -= 1
                raise RuntimeError("a bug\nassay[1]: queue=4X action=accept")

        return act


class Context:
    """libmilter's side of a connection."""

    def __init__(self, one: connection.Connection) -> None:
        self.connection = one
        self.macros = {"i": "4ABC", "j": "mx.example.net"}

    def getpriv(self) -> connection.Connection:
        return self.connection

    def getsymval(self, name: str) -> str | None:
        return self.macros.get(name)


def never(_context: object) -> None:
    raise AssertionError("the context has a connection")


EVENTS = {
    "connect": callbacks._step(never, Milter.P_NR_CONN, connection.Connection.connect),
    "helo": callbacks._step(never, Milter.P_NR_HELO, connection.Connection.helo),
    "mail": callbacks._step(never, Milter.P_NR_MAIL, connection.Connection.mail, begins=True),
    "rcpt": callbacks._step(never, Milter.P_NR_RCPT, connection.Connection.rcpt),
}
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "connect": ("unknown", 2, ("192.0.2.1", 25)),
    "helo": ("h",),
    "mail": (b"<a@b.example>",),
    "rcpt": (b"<a@b.example>",),
}


def converse(method: str, times: int, on_error: policy.OnError, *events: str) -> tuple[list[int], list[str], Context]:
    lines: list[str] = []
    log = Log(lambda _level, text: lines.append(text), Level.ERROR)
    session: Any = Broken(method, times)
    service = connection.Service(lambda *_: session, 0, 0, on_error, on_error, Journal(log), connection.SessionCount())
    context = Context(connection.Connection(service))
    context.connection.no_reply = Milter.P_NR_MAIL
    answers = []
    for event in events:
        if event == "end":
            answers.append(callbacks._end_of_message(context))
        elif event == "abort":
            answers.append(callbacks._abort(context))
        else:
            answers.append(EVENTS[event](context, *ARGUMENTS[event]))
    return answers, lines, context


MESSAGE = ("connect", "helo", "mail", "rcpt", "end")


@pytest.mark.parametrize(
    ("on_error", "answer"),
    [(policy.OnError.ACCEPT, Milter.ACCEPT), (policy.OnError.TEMPFAIL, Milter.TEMPFAIL)],
)
@pytest.mark.parametrize("method", ["connect", "helo", "mail", "rcpt", "end_of_message"])
def test_on_error_is_followed_and_the_bug_logged_once(method: str, on_error: policy.OnError, answer: int) -> None:
    answers, lines, _ = converse(method, 1, on_error, *MESSAGE)
    assert answers == [Milter.CONTINUE, Milter.CONTINUE, Milter.NOREPLY, Milter.CONTINUE, answer]
    assert len(lines) == 1
    assert lines[0].startswith(f"queue=4ABC action={on_error} bug=\"RuntimeError('a bug\\\\nassay")
    assert "\n" not in lines[0]
    assert "at=test_callbacks.py:" in lines[0]


@pytest.mark.parametrize("method", ["mail", "rcpt", "end_of_message"])
def test_the_next_message_starts_clean(method: str) -> None:
    answers, lines, context = converse(method, 1, policy.OnError.TEMPFAIL, *MESSAGE, "mail", "rcpt", "end")
    assert answers[4] == Milter.TEMPFAIL
    assert answers[7] == Milter.CONTINUE
    assert len(lines) == 1
    assert context.connection.session.calls[-3:] == ["mail", "rcpt", "end_of_message"]  # type: ignore[attr-defined]  # it is Broken


@pytest.mark.parametrize("method", ["connect", "helo"])
def test_without_a_client_no_message_on_the_connection_is_judged(method: str) -> None:
    answers, lines, context = converse(method, 1, policy.OnError.TEMPFAIL, *MESSAGE, "mail", "rcpt", "end")
    assert answers[4] == answers[7] == Milter.TEMPFAIL
    assert len(lines) == 2
    assert "end_of_message" not in context.connection.session.calls  # type: ignore[attr-defined]  # it is Broken


def test_a_bug_in_an_aborted_message_is_logged() -> None:
    _, lines, context = converse("rcpt", 1, policy.OnError.ACCEPT, "connect", "helo", "mail", "rcpt", "abort")
    assert len(lines) == 1
    assert lines[0].startswith("queue=4ABC aborted=yes bug=")
    assert not context.connection.failure


class Refusing(Context):
    """libmilter that refuses a change. It is the same error whether the MTA is gone or the change is wrong."""

    def __init__(self, one: connection.Connection, mta_is_there: bool) -> None:
        super().__init__(one)
        self.mta_is_there = mta_is_there

    def addheader(self, *_: object) -> None:
        raise Milter.error("cannot add header")

    def progress(self) -> None:
        if not self.mta_is_there:
            raise Milter.error("cannot notify progress")


@pytest.mark.parametrize(
    ("mta_is_there", "offered", "has"),
    [
        (True, ~0, "bug=\"error('cannot add header')\" at=test_callbacks.py:"),
        (True, ~Milter.SETSYMLIST, "bug=\"error('cannot add header')\" at=test_callbacks.py:"),
        (True, ~Milter.ADDHDRS, 'problem="cannot add header: the MTA does not permit'),
        (False, ~0, 'problem="cannot add header: the MTA has closed the connection"'),
    ],
)
def test_only_a_change_that_is_wrong_itself_is_a_bug(mta_is_there: bool, offered: int, has: str) -> None:
    verdict = Verdict(
        policy.Action.ACCEPT,
        None,
        (Insert("X", "y"),),
        policy.Decision(policy.Action.ACCEPT, None),
        Assessment(Client(), Envelope(ReversePath(""))),
    )
    lines: list[str] = []
    journal = Journal(Log(lambda _level, text: lines.append(text), Level.WARNING))
    session: Any = Broken("", 0)
    session.end_of_message = lambda **_: verdict
    action = policy.OnError.TEMPFAIL
    actions = Milter.ADDHDRS | Milter.SETSYMLIST
    service = connection.Service(lambda *_: session, 0, actions, action, action, journal, connection.SessionCount())
    one = connection.Connection(service)
    context = Refusing(one, mta_is_there)
    one.negotiate(context, [offered & ~Milter.SETSYMLIST, 0, 0, 0])
    one.connected = True
    assert callbacks._end_of_message(context) == Milter.TEMPFAIL
    (line,) = lines
    assert line.startswith("queue=4ABC action=tempfail ")
    assert has in line


class Slow:
    """A session that takes a second for each event and refuses the first MAIL. It is also the clock, and the keeper."""

    def __init__(self) -> None:
        self.now = 0.0
        self.refuses = True
        self.kept: list[dict[str, float]] = []

    def connect(self, *_: object, **__: object) -> None:
        self.now += 1.0

    helo = rcpt = connect

    def mail(self, *_: object, **__: object) -> Verdict | None:
        self.now += 1.0
        verdict = self._verdict(policy.Action.REJECT, Stage.MAIL) if self.refuses else None
        self.refuses = False
        return verdict

    def end_of_message(self, **_: object) -> Verdict:
        self.now += 1.0
        return self._verdict(policy.Action.ACCEPT, Stage.EOM)

    def _verdict(self, action: policy.Action, stage: Stage) -> Verdict:
        assessment = Assessment(Client(), Envelope(ReversePath("")))
        return Verdict(action, None, (), policy.Decision(action, None), assessment, stage=stage)

    def keep(self, _verdict: Verdict, _now: float, waits: Mapping[str, float]) -> None:
        self.kept.append(dict(waits))


def test_what_is_kept_has_the_waits_of_its_own_message(monkeypatch: pytest.MonkeyPatch) -> None:
    slow: Any = Slow()
    monkeypatch.setattr(time, "monotonic", lambda: slow.now)
    journal = Journal(Log(lambda *_: None), keeper=slow)
    action = policy.OnError.TEMPFAIL
    service = connection.Service(lambda *_: slow, 0, 0, action, action, journal, connection.SessionCount())
    context: Any = Context(connection.Connection(service))
    for event in ("connect", "helo", "mail", "mail", "rcpt"):
        EVENTS[event](context, *ARGUMENTS[event])
    context.connection.claim.waited = 2.0  # for its place among the messages that are evaluated
    callbacks._end_of_message(context)
    assert slow.kept == [
        {"connect": 1.0, "helo": 1.0, "mail": 1.0},
        {"connect": 1.0, "helo": 1.0, "mail": 1.0, "rcpt": 1.0, "eom": 3.0},
    ]


def test_an_event_without_a_connection_is_answered() -> None:
    class Nobody:
        def getpriv(self) -> None:
            return None

    assert callbacks._end_of_message(Nobody()) == Milter.CONTINUE
    assert callbacks._abort(Nobody()) == Milter.CONTINUE
