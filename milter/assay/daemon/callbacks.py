# SPDX-License-Identifier: GPL-3.0-or-later
"""pymilter's callbacks: hand each event to its `Connection`, and let no exception out. Makes no decisions.

Facts about libmilter and pymilter 1.0.5 that shape this module:

- Replies are the largest cost, so we negotiate "no reply" for every callback but the end of message, unless the policy
  acts at that stage.
- Callbacks of one connection run on different threads, one at a time. All state is in the connection's object, which is
  the context's private data.
- Header values arrive with their leading space only if HDR_LEADSPC was granted, and then the MTA adds none to what we
  insert.
- A list of macros replaces the MTA's own list for that stage, so each list names all macros that we read there.
- libmilter ignores events out of order. SMFIC_QUIT_NC ("another client follows") is one, except after a complete or an
  aborted message, and so is the CONNECT after it: see ``Connection.ensure_connected``. After SMFIC_QUIT_NC in order it
  calls close, and may take a HELO or MAIL for the next event.
- An exception must not leave a callback. The message is handled as ``on_error`` says, and the exception logged once.
- pymilter decodes the client's name, the HELO argument and field names as UTF-8 before we see them. If one is not
  UTF-8, it calls ``sys.excepthook`` and we never get the event. The HELO is then unknown, the client's address comes
  from its macro, and ``set_exception_policy`` lets the connection continue. Field names are not affected: for both MTAs
  a line with an octet beyond ASCII before its colon is not a field.
- The same happens to any event for which it has no memory, and then there may be none for the hook either. Such a
  message must not be judged without the event, nor accepted because it is the last one: pymilter defers, and at the
  negotiation closes the connection. If libmilter expects no reply to the event it ignores all that follow, and the MTA
  waits. So the hook has the worker end (`SessionCount.give_up`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import Milter

from assay.daemon import libmilter
from assay.daemon.connection import Connection, Service, macro
from assay.log import Field, Log

#: Octets of one event that libmilter accepts. Its default of 65,535 is less than Postfix allows for a field
#: (header_size_limit, 102,400), and libmilter closes the connection on a longer one, so that mail would not be judged.
_MAX_EVENT_OCTETS = 1024 * 1024
_IDLE_MTA_SECONDS = 7210  # libmilter's default: how long an MTA may be idle (Postfix keeps sessions for 300 s)

#: Plain integers, since callbacks return them twenty times per message.
_CONTINUE, _NOREPLY = int(Milter.CONTINUE), int(Milter.NOREPLY)

Callback = Callable[..., Any]


def install(service: Service) -> None:
    """Register the callbacks with libmilter. Call it in the worker, before `serve`."""

    agreed = (True, 0, 0)  # by the last negotiation: all MTAs of a worker are of one kind

    def begin(context: Any) -> Connection:
        """A new client. If it reuses a connection (SMFIC_QUIT_NC), close was called, and no negotiation follows."""
        connection = Connection(service)
        connection.leading_space, connection.no_reply, connection.not_permitted = agreed
        context.setpriv(connection)
        service.sessions.change(+1)
        return connection

    def step(no_reply: int, act: Callback, *, begins: bool = False) -> Callback:
        return _step(begin, no_reply, act, begins=begins)

    def negotiate(context: Any, options: list[int]) -> int:
        nonlocal agreed
        _defer_lost_events()
        connection = begin(context)
        answer = connection.negotiate(context, options)
        agreed = (connection.leading_space, connection.no_reply, connection.not_permitted)
        return answer

    def close(context: Any) -> int:
        _defer_lost_events()
        connection = context.getpriv()
        if connection is not None:
            connection.claim.leave()
            service.sessions.change(-1)
            context.setpriv(None)
            connection.session.close()
        return _CONTINUE

    Milter.set_flags(service.actions)
    Milter.set_connect_callback(step(Milter.P_NR_CONN, Connection.connect))
    Milter.set_helo_callback(step(Milter.P_NR_HELO, Connection.helo))
    Milter.set_envfrom_callback(step(Milter.P_NR_MAIL, Connection.mail, begins=True))
    Milter.set_envrcpt_callback(step(Milter.P_NR_RCPT, Connection.rcpt))
    Milter.set_header_callback(step(Milter.P_NR_HDR, Connection.header))
    Milter.set_eoh_callback(step(Milter.P_NR_EOH, Connection.end_of_header))
    Milter.set_body_callback(step(Milter.P_NR_BODY, Connection.body))
    Milter.set_eom_callback(_end_of_message)
    Milter.set_abort_callback(_abort)
    Milter.set_close_callback(close)
    _defer_lost_events()
    Milter.register("assay", negotiate=negotiate)
    sys.excepthook = _hook(service)


def serve(log: Log) -> int:
    """Run libmilter on the socket that the supervisor opened. Returns only if it fails.

    :returns: the exit code.
    """
    Milter.settimeout(_IDLE_MTA_SECONDS)
    _take_long_events(log)
    try:
        Milter.main()
    except Milter.error as error:
        log.error(f"libmilter stopped: {error}")
        return os.EX_SOFTWARE
    return os.EX_OK


def _take_long_events(log: Log) -> None:
    """Make libmilter accept events of `_MAX_EVENT_OCTETS`. pymilter has no function for this."""
    try:
        libmilter.take_events_of(_MAX_EVENT_OCTETS)
    except (OSError, StopIteration, AttributeError):
        log.warning("cannot raise libmilter's limit: it closes the connection on header fields beyond 65,535 octets")


def _step(begin: Callback, no_reply: int, act: Callback, *, begins: bool = False) -> Callback:
    """Make a callback that returns a stage's verdict, or nothing if "no reply" was agreed.

    :param begin: makes the connection if the context has none.
    :param begins: whether a message begins with it, which ends the failure of the previous one.
    """

    def callback(context: Any, *event: Any) -> int:
        connection = context.getpriv() or begin(context)
        if begins:
            connection.begin_message()
        silent = connection.no_reply & no_reply
        began = 0.0 if silent else time.monotonic()
        answer = _CONTINUE
        if not connection.failure:
            try:
                verdict = act(connection, context, *event)
                if verdict is not None:
                    answer = connection.refuse(context, verdict, 0.0 if silent else time.monotonic() - began)
            except Exception as error:  # here and in the two below only: a bug must not drop a connection
                connection.failure = _describe(error)
                if act in _BEFORE_MESSAGES:
                    connection.broken = connection.failure
        if silent:
            return _NOREPLY
        connection.wait_is_over(act.__name__, time.monotonic() - began)
        return answer

    return callback


_BEFORE_MESSAGES = (Connection.connect, Connection.helo)


def _end_of_message(context: Any) -> int:
    _defer_lost_events()
    connection = context.getpriv()
    if connection is None:
        return _CONTINUE
    try:
        return int(connection.end_of_message(context))
    except Exception as error:
        if isinstance(error, Milter.error) and (why := connection.objection(context)):
            return int(connection.not_taken(macro(context, "i"), f"{error}: {why}"))
        connection.failure = _describe(error)
        return int(connection.give_up(macro(context, "i")))
    finally:
        connection.claim.leave()


def _abort(context: Any) -> int:
    connection = context.getpriv()
    if connection is not None:
        connection.claim.leave()
        try:
            connection.abort(context)
        except Exception as error:
            connection.service.journal.meter.exception()
            connection.service.log.error("", _describe(error))
    return _CONTINUE


def _describe(error: Exception) -> tuple[Field, ...]:
    """A bug in assay for the log: exception and place."""
    return (("bug", repr(error)), ("at", _place(error.__traceback__)))


def _place(traceback: TracebackType | None) -> str:
    """The innermost frame, as file:line."""
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f"{traceback.tb_frame.f_code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno}"


def _defer_lost_events() -> None:
    """Have pymilter defer an event that it cannot hand over. Undoes what `_hook` does for one that may be lost."""
    Milter.set_exception_policy(Milter.TEMPFAIL)


def _hook(service: Service) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    """The hook that pymilter calls instead of a callback if it cannot convert an event to Python objects."""

    def hook(_kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, UnicodeDecodeError):
            Milter.set_exception_policy(Milter.CONTINUE)
            service.log.warning("", (("event", "argument is not UTF-8, ignored"), ("argument", repr(error.object))))
        else:
            service.sessions.give_up("an event of the MTA is lost")  # first: it needs no memory
            service.journal.meter.exception()
            service.log.error("", (("bug", repr(error)), ("at", _place(traceback))))

    return hook
