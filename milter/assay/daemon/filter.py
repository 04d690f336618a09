# SPDX-License-Identifier: GPL-3.0-or-later
"""pymilter's callbacks: translate libmilter's events for a session, and perform its verdicts. Nothing is decided here.

Facts about libmilter and pymilter 1.0.5 that shape it:

- Replies cost more than anything else, so every callback but the end of message is negotiated "no reply".
- Callbacks of one connection come from different threads, one at a time: all state is in the connection's object,
  found again as the context's private data.
- Header values arrive with their leading space only if HDR_LEADSPC was granted, and then the MTA adds none to what we
  insert.
- A list of macros replaces the MTA's own list for that stage, so each list names all that we read there.
- An exception must not leave a callback: the message is then handled as ``on_error`` says, and logged once.
- pymilter decodes the client's name, the HELO argument and field names as UTF-8 before we see them. Where one is
  none, it calls ``sys.excepthook`` and the event never reaches us: the HELO is then unknown, the client is asked for
  by its macro, and ``set_exception_policy`` lets the connection go on. Field names do not come so: for both MTAs a
  line with an octet beyond ASCII before its colon is no field.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import Milter

from assay import policy, trace
from assay.daemon.logline import message_line
from assay.log import Log, pairs
from assay.model.message import field_from_milter
from assay.model.smtp import parse_address
from assay.session import Session
from assay.transaction import Verdict

_NO_REPLY = (
    Milter.P_NR_CONN
    | Milter.P_NR_HELO
    | Milter.P_NR_MAIL
    | Milter.P_NR_RCPT
    | Milter.P_NR_HDR
    | Milter.P_NR_EOH
    | Milter.P_NR_BODY
)
_NOT_WANTED = Milter.P_NODATA | Milter.P_NOUNKNOWN
_WANTED_STEPS = _NO_REPLY | _NOT_WANTED | Milter.P_HDR_LEADSPC
_ACTIONS = Milter.ADDHDRS | Milter.CHGHDRS | Milter.QUARANTINE | Milter.SETSYMLIST

#: The macros we read, by the stage at which we ask for them; each may be missing. Where we need none we ask for one
#: that is cheap, for otherwise the MTA sends its own long list. MAIL needs one that always has a value: libmilter keeps
#: a stage's macros until the next ones arrive for it, and a login of an earlier message must not survive.
_MACROS = {
    Milter.M_CONNECT: "j {client_addr}",
    Milter.M_HELO: "j",
    Milter.M_ENVFROM: "j i {auth_authen} {auth_type}",
    Milter.M_ENVRCPT: "i",
    Milter.M_EOM: "i",
}
_UNRESOLVED = ("unknown", "localhost.invalid")  # what Postfix writes where the client has no name

_IDLE_MTA_SECONDS = 7210  # libmilter's own default: how long an MTA may say nothing (Postfix keeps sessions for 300 s)
MAX_QUARANTINE_REASON = 200  # octets; Postfix and Sendmail keep it in the queue file


class SessionCount:
    """How many sessions a worker has; a draining worker leaves when there are none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.value = 0

    def change(self, by: int) -> None:
        """One more or one less."""
        with self._lock:
            self.value += by


@dataclass(frozen=True, slots=True)
class Service:
    """What all connections of a worker share."""

    new_session: Callable[[], Session]
    on_error: policy.OnError
    log: Log
    sessions: SessionCount


class Connection:
    """One connection of the MTA: a session, and what was negotiated for it."""

    __slots__ = ("broken", "connected", "failure", "leading_space", "no_reply", "service", "session")

    def __init__(self, service: Service) -> None:
        self.service = service
        self.session = service.new_session()
        self.leading_space = False
        self.no_reply = 0
        self.connected = False
        self.broken = ""  # what went wrong before the first message: on_error applies to all of them
        self.failure = ""  # what went wrong in the current message: on_error applies at its end

    def negotiate(self, context: Any, options: list[int]) -> int:
        """Agree on actions and steps (``smfi_opensocket``'s xxfi_negotiate): all we want, of what the MTA offers."""
        actions, steps = options[0], options[1]
        options[0] = actions & _ACTIONS
        options[1] = steps & _WANTED_STEPS
        options[2] = options[3] = 0
        self.leading_space = bool(steps & Milter.P_HDR_LEADSPC)
        self.no_reply = steps & _NO_REPLY
        if actions & Milter.SETSYMLIST:
            for stage, names in _MACROS.items():
                context.setsymlist(stage, names)
        return int(Milter.CONTINUE)

    def connect(self, context: Any, name: str, _family: int, address: Any) -> None:
        """xxfi_connect: `address` is (host, port...) for inet and inet6, else a path or None."""
        self.connected = True
        client = parse_address(address[0]) if isinstance(address, tuple) else None
        if client is None:
            # A front end may hand us a connection whose real client only the macro tells (XCLIENT over a pipe).
            client = parse_address(_macro(context, "{client_addr}"))
        unnamed = name in _UNRESOLVED or name.startswith("[")  # Sendmail writes [address] where there is no name
        self.session.connect(client, "" if unnamed else name, _macro(context, "j"))

    def helo(self, context: Any, name: str) -> None:
        """xxfi_helo."""
        self.ensure_connected(context)
        self.session.helo(name)

    def ensure_connected(self, context: Any) -> None:
        """Make up for a connect event that never came because the client's name is no UTF-8.

        Where the macro does not tell the address either, the client stays unknown, and is not taken for a local one.
        """
        if not self.connected and _macro(context, "{client_addr}"):
            self.connect(context, "unknown", 0, None)

    def mail(self, context: Any, path: bytes, *parameters: bytes) -> None:
        """xxfi_envfrom. The argument counts, not {mail_addr}: MTAs rewrite that one."""
        self.ensure_connected(context)
        self.session.mail(
            path.decode("utf-8", "surrogateescape"),
            authenticated=_macro(context, "{auth_authen}") or _macro(context, "{auth_type}"),
            smtputf8=any(parameter.upper() == b"SMTPUTF8" for parameter in parameters),
            now=int(time.time()),
        )

    def header(self, name: str, value: bytes) -> None:
        """xxfi_header. Without HDR_LEADSPC the MTA has eaten one space behind the colon."""
        if not self.leading_space:
            value = b" " + value
        self.session.header(field_from_milter(name.encode("utf-8", "surrogateescape"), value))

    def end_of_message(self, context: Any) -> int:
        """xxfi_eom: join, judge, perform, log."""
        began = time.monotonic()
        queue_id = _macro(context, "i")
        if self.failure:
            return self.give_up(queue_id)
        verdict = self.session.end_of_message(queue_id=queue_id, now=int(time.time()))
        if verdict is None:
            return int(Milter.CONTINUE)
        result = self.perform(context, verdict)
        self.service.log.info(message_line(verdict, waited=time.monotonic() - began))
        return result

    def give_up(self, queue_id: str) -> int:
        """A fault of ours hit this message: let it pass or have it sent again, as the operator chose."""
        action = self.service.on_error
        self.service.log.error(f"{pairs((('queue', queue_id or '-'), ('action', action)))} {self.failure}")
        self.failure = self.broken
        self.session.abort()
        return int(Milter.TEMPFAIL if action is policy.OnError.TEMPFAIL else Milter.ACCEPT)

    def abort(self, context: Any) -> None:
        """xxfi_abort: the message is over; a fault that hit it is logged all the same."""
        if self.failure != self.broken:
            self.service.log.error(
                f"{pairs((('queue', _macro(context, 'i') or '-'), ('aborted', 'yes')))} {self.failure}"
            )
        self.failure = self.broken
        self.session.abort()

    def perform(self, context: Any, verdict: Verdict) -> int:
        """Do to the message what the verdict says."""
        match verdict.action:
            case policy.Action.REJECT | policy.Action.TEMPFAIL:
                if verdict.reply is not None:
                    # libmilter reads the text as a format: a per cent sign is doubled.
                    text = verdict.reply.text.replace("%", "%%")
                    context.setreply(str(verdict.reply.code), verdict.reply.status, text)
                return int(Milter.REJECT if verdict.action is policy.Action.REJECT else Milter.TEMPFAIL)
            case policy.Action.QUARANTINE:
                context.quarantine(verdict.decision.reason[:MAX_QUARANTINE_REASON])
            case policy.Action.ACCEPT:
                pass
        for edit in verdict.edits:
            self.apply(context, edit)
        return int(Milter.CONTINUE)

    def apply(self, context: Any, edit: trace.Edit) -> None:
        """One edit of the header."""
        match edit:
            case trace.Remove(name, occurrence):
                context.chgheader(name, occurrence, None)
            case trace.Insert(name, value):
                text = value.replace("\r\n", "\n")  # libmilter wants bare line feeds between folded lines
                context.addheader(name, f" {text}" if self.leading_space else text, 0)


def _macro(context: Any, name: str) -> str:
    """A macro's value, empty where the MTA did not send it or it is no UTF-8."""
    try:
        return context.getsymval(name) or ""
    except UnicodeDecodeError:
        return ""


Callback = Callable[..., Any]


def install(service: Service) -> None:
    """Hand the callbacks to libmilter. Call it in the worker, before `serve`."""

    leading_space = True  # as agreed in the last negotiation: the MTAs of a worker are of one kind
    on_connect = _step(Milter.P_NR_CONN, Connection.connect)

    def begin(context: Any) -> Connection:
        connection = Connection(service)
        context.setpriv(connection)
        service.sessions.change(+1)
        return connection

    def negotiate(context: Any, options: list[int]) -> int:
        nonlocal leading_space
        connection = begin(context)
        answer = connection.negotiate(context, options)
        leading_space = connection.leading_space
        return answer

    def connect(context: Any, *event: Any) -> int:
        if context.getpriv() is None:
            # A new client on a connection that is kept (SMFIC_QUIT_NC): close has come, and no negotiation follows.
            begin(context).leading_space = leading_space
        return int(on_connect(context, *event))

    def close(context: Any) -> int:
        connection = context.getpriv()
        if connection is not None:
            service.sessions.change(-1)
            context.setpriv(None)
            connection.session.close()
        return int(Milter.CONTINUE)

    Milter.set_flags(_ACTIONS)
    Milter.set_connect_callback(connect)
    Milter.set_helo_callback(_step(Milter.P_NR_HELO, Connection.helo))
    Milter.set_envfrom_callback(_step(Milter.P_NR_MAIL, Connection.mail, begins=True))
    Milter.set_envrcpt_callback(_step(Milter.P_NR_RCPT, _recipient))
    Milter.set_header_callback(_step(Milter.P_NR_HDR, lambda c, _, name, value: c.header(name, value)))
    Milter.set_eoh_callback(_step(Milter.P_NR_EOH, lambda c, _: c.session.end_of_header()))
    Milter.set_body_callback(_step(Milter.P_NR_BODY, lambda c, _, chunk: c.session.body(chunk)))
    Milter.set_eom_callback(_end_of_message)
    Milter.set_abort_callback(_abort)
    Milter.set_close_callback(close)
    Milter.set_exception_policy(Milter.CONTINUE)
    Milter.register("assay", negotiate=negotiate)
    sys.excepthook = _hook(service.log)


def serve(log: Log) -> int:
    """Run libmilter on the socket that the supervisor opened; returns only if it cannot.

    :returns: the exit code.
    """
    Milter.settimeout(_IDLE_MTA_SECONDS)
    try:
        Milter.main()
    except Milter.error as error:
        log.error(f"libmilter stopped: {error}")
        return os.EX_SOFTWARE
    return os.EX_OK


def _recipient(connection: Connection, _context: Any, path: bytes, *_parameters: bytes) -> None:
    connection.session.rcpt(path.decode("utf-8", "surrogateescape"))


def _step(no_reply: int, act: Callback, *, begins: bool = False) -> Callback:
    """A callback that answers CONTINUE, or nothing where "no reply" was agreed, whatever happens inside.

    :param begins: whether a message begins with it, so that the failure of another is over.
    """

    def callback(context: Any, *event: Any) -> int:
        connection = context.getpriv()
        if connection is None:
            return int(Milter.CONTINUE)
        if begins:
            connection.failure = connection.broken
        if not connection.failure:
            try:
                act(connection, context, *event)
            except Exception as error:  # the only place with the two below: a bug must not drop a connection
                connection.failure = _describe(error)
                if act in _BEFORE_MESSAGES:
                    connection.broken = connection.failure
        return int(Milter.NOREPLY if connection.no_reply & no_reply else Milter.CONTINUE)

    return callback


_BEFORE_MESSAGES = (Connection.connect, Connection.helo)


def _end_of_message(context: Any) -> int:
    connection = context.getpriv()
    if connection is None:
        return int(Milter.CONTINUE)
    try:
        return int(connection.end_of_message(context))
    except Exception as error:
        connection.failure = _describe(error)
        return int(connection.give_up(_macro(context, "i")))


def _abort(context: Any) -> int:
    connection = context.getpriv()
    if connection is not None:
        try:
            connection.abort(context)
        except Exception as error:
            connection.service.log.error(_describe(error))
    return int(Milter.CONTINUE)


def _describe(error: Exception) -> str:
    """A bug of ours for the log: what, and where."""
    return pairs((("bug", repr(error)), ("at", _place(error.__traceback__))))


def _place(traceback: TracebackType | None) -> str:
    """The innermost frame, as file:line."""
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f"{traceback.tb_frame.f_code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno}"


def _hook(log: Log) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    """What pymilter calls instead of us when an event cannot be turned into Python objects."""

    def hook(_kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, UnicodeDecodeError):
            log.warning(pairs((("event", "argument is no UTF-8, ignored"), ("argument", repr(error.object)))))
        else:
            log.error(pairs((("bug", repr(error)), ("at", _place(traceback)))))

    return hook
