# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 4: one SMTP connection as a milter sees it. Events in, verdicts out.

The session owns what belongs to the connection (the client, IPREV, SPF of HELO) and one transaction at a time. It
uses no milter library, thread or clock. A stage before the end of the message has a verdict only if the operator's
policy acts at that stage; else it does not wait.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from msgspec.structs import replace

from assay import policy
from assay.assessment import Assessment
from assay.findings import findings
from assay.memory import Memory
from assay.model.message import HeaderField
from assay.model.name import ReversePath
from assay.model.smtp import Address, Client, Envelope
from assay.policy import Action, Decision, Stage
from assay.protocol import srs
from assay.session.inquiries import BEFORE_THE_END, FOR_THE_PARTS, Inquiries, NewDriver, Unbounded, WaitLimit
from assay.session.noted import Notes
from assay.session.origin import Origin, confirmed_names
from assay.session.publications import Publications
from assay.session.settings import Settings
from assay.session.transaction import Transaction, Verdict

#: For an SRS address of ours that nobody would turn back. The client sends the rest later (RFC 5321, 4.5.3.1.10).
_TOO_MANY = policy.Reply(452, "4.5.3", ("Too many recipients; send the others in another message",))


class Session:
    """One connection. Call the methods in SMTP's order; any of them may be left out."""

    def __init__(
        self,
        settings: Settings,
        trust: policy.Trust,
        new_driver: NewDriver,
        memory: Memory | None = None,
        publications: Publications | None = None,
        waiting: WaitLimit | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """
        :param new_driver: called at each stage that asks questions.
        :param memory: earlier evaluations, of all sessions with these settings; by default, of this one alone.
        :param publications: which keys of ours are published, for all sessions; None if all count as published.
        :param waiting: how long the MTA waits for the inquiries of these drivers.
        :param clock: seconds, if each verdict is to have the answers of the DNS; None if it is to have none.
        """
        self._settings = settings
        self._memory = Memory() if memory is None else memory
        self._publications = publications
        self._trust = trust
        self._course = policy.Course(settings.policy, trust, carries_out=not settings.dry_run)
        self._new_driver = new_driver
        self._waiting: WaitLimit = Unbounded() if waiting is None else waiting
        self._waiting.allow(BEFORE_THE_END)
        self._clock = clock
        self._notes = self._new_notes()
        self._notes_of_message: Notes | None = None
        self._inquiries = Inquiries(new_driver, self._waiting, notes=self._notes)
        self._client = Client()
        self._judged = True  # whether to judge the client
        self._authserv_id = settings.authserv_id or settings.fallback_authserv_id
        self._origin = Origin(settings, self._inquiries, self._memory, self._authserv_id)
        self._transaction: Transaction | None = None

    def connect(
        self, address: Address | None, name: str, *, mta_name: str = "", daemon: str = "", local: bool = True
    ) -> Verdict | None:
        """A client connected. Starts IPREV.

        :param address: None where there is no network client, such as mail from the MTA's own command line.
        :param name: the name that the MTA resolved for it, empty for unknown.
        :param mta_name: the MTA's own name (macro ``j``), which is the authserv-id unless one is configured.
        :param daemon: the name of the MTA's service that took the connection (macro ``{daemon_name}``).
        :param local: whether a client without an address is the MTA's own host, and not one that a proxy hides.
        """
        self._client = Client(address, name, daemon=daemon)
        self._inquiries.on_behalf_of(address)
        if mta_name and not self._settings.authserv_id:
            self._authserv_id = self._origin.receiver = mta_name
        standing = self._course.connect(address, daemon, local=local, confirmed=self._confirmed(address, name))
        self._judged = not standing.exempt and not standing.relayed
        if not self._judged:
            return None
        self._origin.connected(self._client)
        return self._at_connection(Stage.CONNECT)

    def _confirmed(self, address: Address | None, name: str) -> Collection[str]:
        """The names that lead back to a client that may be a relay of ours; none for all other clients.

        The MTA's word is not enough: not every MTA looks whether the name leads back.
        """
        if address is None or not self._course.may_be_relay([name]):
            return ()
        return confirmed_names(self._inquiries, self._memory, address)

    def helo(self, name: str) -> Verdict | None:
        """HELO or EHLO was sent, perhaps again after STARTTLS. Starts SPF of the HELO identity."""
        self._client = self._client.greeted(name)
        self._course.greeted()
        if not self._judged:
            return None
        self._origin.greeted(self._client)
        return self._at_connection(Stage.HELO)

    def _at_connection(self, stage: Stage) -> Verdict | None:
        if not self._settings.policy.acts_at(stage):
            return None
        moment = _Moment(self._settings, self._of_client)
        return self._with_answers(moment.verdict(self._course.at_connection(stage, moment.facts), stage))

    def _of_client(self) -> Assessment:
        return Assessment(
            self._client,
            Envelope(ReversePath("")),
            iprev=self._origin.iprev(),
            spf_helo=self._origin.spf_helo(),
        )

    def mail(self, path: str, *, authenticated: str = "", smtputf8: bool = False, now: int) -> Verdict | None:
        """MAIL was sent: a new envelope. Whether to judge it is decided here, for each message.

        :param path: the reverse-path, with or without angle brackets.
        :param authenticated: the SASL login name (RFC 4954), empty for none; AUTH may come between two messages.
        :param now: Unix time in seconds.
        """
        self.abort()
        self._notes_of_message = self._new_notes()
        reverse_path = ReversePath.parse(path)
        self._course.mail(reverse_path.text, authenticated)
        self._transaction = Transaction(
            self._settings,
            Inquiries(self._new_driver, self._waiting, self._client.address, self._notes_of_message),
            self._memory,
            self._client,
            Envelope(reverse_path, authenticated=authenticated, smtputf8=smtputf8),
            self._origin,
            self._course,
            authserv_id=self._authserv_id,
            now=now,
            publications=self._publications,
        )
        if not self._settings.policy.acts_at(Stage.MAIL):
            return None
        moment = _Moment(self._settings, self._transaction.so_far)
        return self._with_answers(moment.verdict(self._course.at_mail(moment.facts), Stage.MAIL))

    def rcpt(self, path: str) -> Verdict | None:
        """RCPT was sent."""
        transaction = self._transaction
        if transaction is None:
            return None
        recipient = path.strip("<>")

        def alone() -> Assessment:
            found = transaction.so_far()
            return replace(found, envelope=replace(found.envelope, recipients=(recipient,)))

        moment = _Moment(self._settings, alone)
        verdict = self._with_answers(moment.verdict(self._course.at_rcpt(recipient, moment.facts), Stage.RCPT))
        if verdict is not None and verdict.action.refuses:
            return verdict
        try:
            if not transaction.turn_back(recipient):
                verdict = self._refuse_recipient(alone(), Action.TEMPFAIL, _TOO_MANY, "srs.recipients")
        except srs.SrsError as error:
            # Our SRS domain, but none of our messages has come from it. RFC 3463, 3.2
            reply = policy.Reply(550, "5.1.1", (f"SRS address not valid: {error}",))
            verdict = self._refuse_recipient(alone(), Action.REJECT, reply, f"srs.{error.fault}")
        if verdict is None or not verdict.action.refuses:
            transaction.recipient(path)
        return verdict

    def _refuse_recipient(self, assessment: Assessment, action: Action, reply: policy.Reply, by: str) -> Verdict:
        """Refuse a recipient at our SRS domain."""
        decision = Decision(action, reply, reply.lines[0], by)
        if self._settings.dry_run:
            return Verdict(Action.ACCEPT, None, (), decision, assessment, stage=Stage.RCPT)
        return Verdict(decision.action, reply, (), decision, assessment, stage=Stage.RCPT)

    def header(self, field: HeaderField) -> None:
        """A header field arrived."""
        if self._transaction is not None:
            self._transaction.header(field)

    def end_of_header(self) -> None:
        """The header is complete."""
        if self._transaction is not None:
            self._transaction.end_of_header()

    def body(self, chunk: bytes) -> None:
        """A piece of the body arrived, with CRLF line ends, cut anywhere."""
        if self._transaction is not None:
            self._transaction.body(chunk)

    def end_of_message(self, *, queue_id: str, now: int, draw: float = 0.0) -> Verdict | None:
        """The message is complete: its verdict, or None if there was no MAIL.

        :param now: Unix time in seconds.
        :param draw: a number from 0 to below 1, drawn for this message; only a sampled DMARC policy uses it.
        """
        transaction = self._transaction
        if transaction is None:
            return None
        self._waiting.allow(FOR_THE_PARTS)
        try:
            return self._with_answers(transaction.end_of_message(queue_id=queue_id, now=now, draw=draw))
        finally:
            self.abort()

    def _new_notes(self) -> Notes | None:
        return None if self._clock is None else Notes(self._clock)

    def _with_answers(self, verdict: Verdict | None) -> Verdict | None:
        """The verdict, with what the connection and the message asked the DNS."""
        if verdict is None or self._notes is None:
            return verdict
        of_message = self._notes_of_message.taken() if self._notes_of_message is not None else ()
        return replace(verdict, answers=(*self._notes.taken(), *of_message))

    def abort(self) -> None:
        """The transaction is over, with a message or without (RSET, a second MAIL). The client stays."""
        if self._transaction is not None:
            self._transaction.cancel()
            self._transaction = None
            self._notes_of_message = None
            self._waiting.renew()
            self._waiting.allow(BEFORE_THE_END)

    def close(self) -> None:
        """The connection is over."""
        self.abort()
        self._inquiries.cancel()


class _Moment:
    """A stage before the end of the message: its facts, evaluated only if a decision needs them."""

    def __init__(self, settings: Settings, assess: Callable[[], Assessment]) -> None:
        self._settings = settings
        self._assess = assess
        self._known: tuple[Assessment, policy.Facts] | None = None

    def facts(self) -> policy.Facts:
        """Wait for the facts of this stage."""
        assessment = self._assess()
        facts = self._settings.policy.facts(assessment)
        self._known = assessment, facts
        return facts

    def verdict(self, decision: Decision, stage: Stage) -> Verdict | None:
        """The verdict of this stage; None if there is nothing to report."""
        if self._known is None or decision == policy.ACCEPTED:
            return None
        assessment, facts = self._known
        found = findings(assessment)
        if decision.action.refuses and not self._settings.dry_run:
            return Verdict(decision.action, decision.reply, (), decision, assessment, found, stage, facts)
        return Verdict(Action.ACCEPT, None, (), decision, assessment, found, stage, facts)
