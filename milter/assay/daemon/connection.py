# SPDX-License-Identifier: GPL-3.0-or-later
"""One connection of the MTA: translates libmilter's events for a session, and carries out its verdicts.

No decisions are made here. `assay.daemon.callbacks` describes the pitfalls of libmilter and pymilter.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from functools import reduce
from operator import or_
from typing import Any

import Milter
from msgspec import Struct, field

from assay import policy
from assay.daemon import libmilter
from assay.daemon.admission import Admission, Claim
from assay.daemon.journal import Journal
from assay.log import Field, Log
from assay.model.edits import AddRecipient, Change, ChangeSender, Edit, Insert, Remove, RemoveRecipient
from assay.model.message import field_from_milter
from assay.model.printable import as_prose, marked_ascii
from assay.model.smtp import parse_address
from assay.policy import Stage
from assay.session import Session, Settings, Verdict

#: The "no reply" step of each stage at which the policy may act.
_STAGES = {
    Stage.CONNECT: Milter.P_NR_CONN,
    Stage.HELO: Milter.P_NR_HELO,
    Stage.MAIL: Milter.P_NR_MAIL,
    Stage.RCPT: Milter.P_NR_RCPT,
}
_NEVER_REPLIED = Milter.P_NR_HDR | Milter.P_NR_EOH | Milter.P_NR_BODY
_OTHER_STEPS = Milter.P_NODATA | Milter.P_NOUNKNOWN | Milter.P_HDR_LEADSPC
#: The action that an MTA must allow for each kind of edit.
_ACTIONS: Mapping[type[Edit], int] = {
    Insert: Milter.ADDHDRS,
    Remove: Milter.CHGHDRS,
    Change: Milter.CHGHDRS,
    AddRecipient: Milter.ADDRCPT,
    RemoveRecipient: Milter.DELRCPT,
    ChangeSender: Milter.CHGFROM,
}

#: The macros we read, by stage; each may be missing. For a stage without, we request a cheap one, since otherwise the
#: MTA sends its own long list. MAIL needs one that always has a value: libmilter keeps a stage's macros until new ones
#: arrive, and the login name of an earlier message must not survive.
_MACROS = {
    Milter.M_CONNECT: "j {client_addr} {daemon_name}",
    Milter.M_HELO: "j",
    Milter.M_ENVFROM: "j i {auth_authen} {auth_type}",
    Milter.M_ENVRCPT: "i",
    Milter.M_EOM: "i",
}
_OF_THE_CONNECTION = frozenset((Stage.CONNECT, Stage.HELO))
_UNRESOLVED = ("unknown", "localhost.invalid")  # Postfix's text for a client without a name

MAX_QUARANTINE_REASON = 200  # octets; Postfix and Sendmail keep it in the queue file


class SessionCount:
    """How many sessions a worker has. A draining worker ends when there are none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.value = 0
        self.given_up = ""  #: why the worker cannot serve them any longer; empty if it can

    def give_up(self, why: str) -> None:
        """Note that this worker cannot serve any longer, so that another one replaces it."""
        self.given_up = self.given_up or why

    def change(self, by: int) -> None:
        """Count one more or one less."""
        with self._lock:
            self.value += by


class Service(Struct, frozen=True):
    """The objects that all connections of a worker share."""

    new_session: Callable[[Callable[[], None]], Session]  #: called with what to call before the MTA waits for the DNS
    no_reply: int  #: the steps to which we never reply, from `silent_steps`
    actions: int  #: the actions we may take on a message, from `actions`
    on_error: policy.OnError
    on_no_client: policy.OnError  #: for a message whose client the MTA has not named
    journal: Journal
    sessions: SessionCount
    admission: Admission = field(default_factory=Admission)

    @property
    def log(self) -> Log:
        """The log for errors."""
        return self.journal.log


def silent_steps(settings: Settings) -> int:
    """The steps to which we never reply, because nothing acts there."""
    steps = (step for stage, step in _STAGES.items() if not settings.may_act_at(stage))
    return int(reduce(or_, steps, _NEVER_REPLIED))


def actions(settings: Settings) -> int:
    """The actions that the configuration can lead to, and no others, so that none can happen by mistake."""
    quarantine = Milter.QUARANTINE if settings.may_quarantine else 0
    return int(reduce(or_, (_ACTIONS[kind] for kind in settings.possible_edits), Milter.SETSYMLIST | quarantine))


class Connection:
    """One connection of the MTA: a session and the result of the negotiation."""

    __slots__ = (
        "broken",
        "claim",
        "client",
        "connected",
        "failure",
        "leading_space",
        "no_reply",
        "not_permitted",
        "service",
        "session",
        "waits",
    )

    def __init__(self, service: Service) -> None:
        self.service = service
        self.claim = Claim(service.admission)
        self.session = service.new_session(self.claim.leave)
        self.leading_space = False
        self.no_reply = 0
        self.not_permitted = 0  # the actions that the configuration can lead to and the MTA does not offer
        self.connected = False
        self.broken: tuple[Field, ...] = ()  # an error before the first message: on_error applies to all messages
        self.failure: tuple[Field, ...] = ()  # an error in the current message: on_error applies at its end
        self.client = ""  # the macro with its address, as it was when it connected
        self.waits: dict[str, float] = {}  # seconds that the MTA waited for replies to the current message, by stage

    def negotiate(self, context: Any, options: list[int]) -> int:
        """xxfi_negotiate: agree on actions and steps. We take all we want of what the MTA offers."""
        offered, steps = options[0], options[1]
        options[0] = offered & self.service.actions
        self.not_permitted = self.service.actions & ~offered & ~int(Milter.SETSYMLIST)
        self.no_reply = steps & self.service.no_reply
        options[1] = self.no_reply | steps & _OTHER_STEPS
        options[2] = options[3] = 0
        self.leading_space = bool(steps & Milter.P_HDR_LEADSPC)
        if offered & Milter.SETSYMLIST:
            for stage, names in _MACROS.items():
                context.setsymlist(stage, names)
        return int(Milter.CONTINUE)

    def connect(self, context: Any, name: str, _family: int, address: Any) -> Verdict | None:
        """xxfi_connect. `address` is (host, port...) for inet and inet6, otherwise a path or None."""
        self.connected = True
        client = parse_address(address[0]) if isinstance(address, tuple) else None
        told = macro(context, "{client_addr}")
        if client is None:
            # Behind a front end only the macro may have the real client (XCLIENT over a pipe).
            client = parse_address(told)
        self.client = told
        unnamed = name in _UNRESOLVED or name.startswith("[")  # Sendmail writes [address] if there is no name
        return self.session.connect(
            client,
            "" if unnamed else name,
            mta_name=macro(context, "j"),
            daemon=macro(context, "{daemon_name}"),
            # Postfix's value if the proxy does not know the client (XCLIENT ADDR=[UNAVAILABLE]). It is not local.
            local=told != "unknown",
        )

    def helo(self, context: Any, name: str) -> Verdict | None:
        """xxfi_helo."""
        return self.session.helo(name) if self.ensure_connected(context) else None

    def ensure_connected(self, context: Any) -> bool:
        """Replace a connect event that was lost: the client's name is not UTF-8, or libmilter ignored the event.

        It ignores SMFIC_QUIT_NC ("another client follows") and the CONNECT after it, except after a complete or an
        aborted message. Only the macro shows that the client is another one.

        :returns: whether the client is known; if not, its mail is not judged.
        """
        told = macro(context, "{client_addr}")
        if told and told != self.client:
            if self.connected:
                self.session.close()
                self.session = self.service.new_session(self.claim.leave)
            self.connect(context, "unknown", 0, None)
        return self.connected

    def mail(self, context: Any, path: bytes, *parameters: bytes) -> Verdict | None:
        """xxfi_envfrom. Uses the argument and not {mail_addr}, which MTAs rewrite."""
        if not self.ensure_connected(context):
            return None
        return self.session.mail(
            path.decode("utf-8", "surrogateescape"),
            authenticated=macro(context, "{auth_authen}") or macro(context, "{auth_type}"),
            smtputf8=any(parameter.upper() == b"SMTPUTF8" for parameter in parameters),
            now=int(time.time()),
        )

    def rcpt(self, _context: Any, path: bytes, *_parameters: bytes) -> Verdict | None:
        """xxfi_envrcpt."""
        return self.session.rcpt(path.decode("utf-8", "surrogateescape"))

    def header(self, _context: Any, name: str, value: bytes) -> None:
        """xxfi_header. Without HDR_LEADSPC the MTA has removed one space after the colon."""
        if not self.claim.made:
            self.claim.make()
        if not self.leading_space:
            value = b" " + value
        self.session.header(field_from_milter(name.encode("utf-8", "surrogateescape"), value))

    def end_of_header(self, _context: Any) -> None:
        """xxfi_eoh."""
        if not self.claim.made:  # there is no header field
            self.claim.make()
        self.session.end_of_header()

    def body(self, _context: Any, chunk: bytes) -> None:
        """xxfi_body."""
        self.session.body(chunk)

    def end_of_message(self, context: Any) -> int:
        """xxfi_eom: judge, carry out the verdict, log."""
        began = time.monotonic()
        queue_id = macro(context, "i")
        if self.failure:
            return self.give_up(queue_id)
        if not self.connected:
            return self.not_named(queue_id)
        draw = random.random()  # noqa: S311 - DMARC's pct= is not a secret (RFC 7489, 6.6.4)
        verdict = self.session.end_of_message(queue_id=queue_id, now=int(time.time()), draw=draw)
        if verdict is None:
            return int(Milter.CONTINUE)
        result = self.perform(context, verdict)
        self.wait_is_over("eom", self.claim.waited + time.monotonic() - began)
        self.service.journal.enter(verdict, self.waits)
        self.service.journal.meter.message_waited(sum(self.waits.values()))
        self.waits = {}
        return result

    def begin_message(self) -> None:
        """MAIL arrives: what was noted of a message that was refused or aborted is over."""
        self.failure = self.broken
        self.claim.renew()
        if self.waits:
            self.waits = {stage: seconds for stage, seconds in self.waits.items() if stage in _OF_THE_CONNECTION}

    def wait_is_over(self, stage: str, seconds: float) -> None:
        """The MTA got its reply at a stage."""
        self.waits[stage] = self.waits.get(stage, 0.0) + seconds
        self.service.journal.meter.waited(stage, seconds)

    def give_up(self, queue_id: str) -> int:
        """Accept or defer a message that we failed to judge, as the operator chose for errors."""
        action = self.service.on_error
        self.service.log.error("", (("queue", queue_id or "-"), ("action", action), *self.failure))
        self.service.journal.meter.exception()
        return self._after_failure(action)

    def not_named(self, queue_id: str) -> int:
        """The MTA did not name the client, or is not an MTA: its mail cannot be judged. That is not a bug of ours."""
        action = self.service.on_no_client
        self.service.log.warning(
            "", (("queue", queue_id or "-"), ("action", action), ("problem", "the MTA did not name the client"))
        )
        return self._after_failure(action)

    def objection(self, context: Any) -> str:
        """Why libmilter could not have the MTA change a message; empty if the change itself is wrong, which is a bug.

        libmilter has one error for all of it. What it does not like it refuses before it writes, so that the connection
        still works.
        """
        try:
            context.progress()
        except Milter.error:
            return "the MTA has closed the connection"
        return "the MTA does not permit all changes that the configuration needs" if self.not_permitted else ""

    def not_taken(self, queue_id: str, problem: str) -> int:
        """The MTA did not take a change of the message. Nothing is kept of a verdict that it did not get.

        :param problem: what it did not take, and why.
        """
        action = self.service.on_error
        self.service.log.warning("", (("queue", queue_id or "-"), ("action", action), ("problem", problem)))
        return self._after_failure(action)

    def _after_failure(self, action: policy.OnError) -> int:
        self.failure = self.broken
        self.session.abort()
        return int(Milter.TEMPFAIL if action is policy.OnError.TEMPFAIL else Milter.ACCEPT)

    def abort(self, context: Any) -> None:
        """xxfi_abort: the message is over. Log its error, if any."""
        if self.failure != self.broken:
            self.service.journal.meter.exception()
            self.service.log.error("", (("queue", macro(context, "i") or "-"), ("aborted", "yes"), *self.failure))
        self.failure = self.broken
        self.session.abort()

    def refuse(self, context: Any, verdict: Verdict, waited: float) -> int:
        """Carry out a verdict of a stage before the end of the message.

        :param waited: seconds that the MTA has waited for it.
        """
        stage = verdict.stage.value
        self.service.journal.enter(verdict, self.waits | {stage: self.waits.get(stage, 0.0) + waited})
        if not verdict.action.refuses:
            return int(Milter.CONTINUE)
        return self.reply(context, verdict)

    def reply(self, context: Any, verdict: Verdict) -> int:
        """Refuse, with the reply of the verdict. At connect libmilter allows no reply text."""
        reply = verdict.reply
        if reply is not None and verdict.stage is not Stage.CONNECT:
            # libmilter treats the text as a format string, so double each per cent sign.
            lines = [line.replace("%", "%%") for line in reply.lines]
            context.setreply(str(reply.code), reply.status, *lines)
        return int(Milter.REJECT if verdict.action is policy.Action.REJECT else Milter.TEMPFAIL)

    def perform(self, context: Any, verdict: Verdict) -> int:
        """Carry out a verdict at the end of the message."""
        match verdict.action:
            case policy.Action.REJECT | policy.Action.TEMPFAIL:
                return self.reply(context, verdict)
            case policy.Action.DISCARD:
                return int(Milter.DISCARD)
            case policy.Action.QUARANTINE:
                # The MTA stores and logs it. Names that strangers publish in the DNS can have any octets.
                reason = f"{verdict.decision.by}: {as_prose(verdict.decision.reason)}"
                context.quarantine(marked_ascii(reason[:MAX_QUARANTINE_REASON]))
            case policy.Action.TAG | policy.Action.ACCEPT:
                pass
        for edit in verdict.edits:
            self.apply(context, edit)
        return int(Milter.CONTINUE)

    def apply(self, context: Any, edit: Edit) -> None:
        """Carry out one edit."""
        match edit:
            case Insert(name, value):
                context.addheader(name, self.field_value(value), 0)
            case Remove(name, occurrence):
                context.chgheader(name, occurrence, None)
            case Change(name, occurrence, octets):
                try:
                    libmilter.change_field(context, name, occurrence, self.field_octets(octets))
                except libmilter.UnsupportedError as fault:
                    self.service.log.warning(f"a {name} that is not UTF-8 stays unchanged: {fault}")
            case AddRecipient(path):
                context.addrcpt(f"<{path}>")
            case RemoveRecipient(path):
                context.delrcpt(f"<{path}>")
            case ChangeSender(path):
                context.chgfrom(f"<{path}>")

    def field_octets(self, value: bytes) -> bytes:
        """The same as `field_value` for octets."""
        octets = value.replace(b"\r\n", b"\n")
        return b" " + octets if self.leading_space else octets

    def field_value(self, value: str) -> str:
        """A value in libmilter's form: bare line feeds, and a leading space if the MTA adds none."""
        text = value.replace("\r\n", "\n")
        return f" {text}" if self.leading_space else text


def macro(context: Any, name: str) -> str:
    """A macro's value; empty if the MTA did not send it or it is not UTF-8."""
    try:
        return context.getsymval(name) or ""
    except UnicodeDecodeError:
        return ""
