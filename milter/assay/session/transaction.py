# SPDX-License-Identifier: GPL-3.0-or-later
"""One message on its way through the SMTP stages, from MAIL to its end or an abort.

A transaction has two strands, each of which may be absent: mail from outside is *judged*, mail from our own hosts and
users is *outgoing*. Fields and body are read once for both, and each distinct hash of the body is computed once. The
header is kept (DKIM needs it whole), the body never.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from msgspec import Struct
from msgspec.structs import replace

from assay import policy, trace
from assay.assessment import Assessment
from assay.findings import Finding, findings
from assay.keys import OnSignError
from assay.memory import Memory
from assay.model.edits import AddRecipient, ChangeSender, Edit, RemoveRecipient, edited
from assay.model.message import NO_HEADER, HeaderField
from assay.model.smtp import Client, Envelope
from assay.policy import ACCEPTED, Action, Decision, Direction, Rewritten, Stage
from assay.protocol import arc, dkim, dmarc
from assay.protocol.syntax.received import claimed_names, parse_received
from assay.session.fields import Fields
from assay.session.inquiries import Inquiries
from assay.session.judging import FIELDS, Judging
from assay.session.noted import NotedAnswer
from assay.session.origin import Origin, confirmed_names
from assay.session.outgoing import NO_RULE, Outgoing, Signed
from assay.session.publications import Publications
from assay.session.sealing import Sealed, seal
from assay.session.settings import Settings

MAX_RECIPIENTS = 1000  # our choice; RFC 5321, 4.5.3.1.8 requires at least 100 of MTAs


class Verdict(Struct, frozen=True):
    """What the MTA is to do at one stage. It is complete: the filter performs it and adds nothing.

    In a dry run, `action` is ACCEPT, `edits` is empty, and `decision` still says what would have been done.
    """

    action: Action
    reply: policy.Reply | None
    edits: tuple[Edit, ...]
    decision: Decision
    assessment: Assessment
    findings: tuple[Finding, ...] = ()
    stage: Stage = Stage.EOM
    facts: policy.Facts | None = None
    signed: Signed | None = None  #: None for a message that is not ours, or if nothing is signed at all
    sealed: Sealed | None = None  #: None for a message that is not judged, or if nothing is sealed at all
    rewritten: Rewritten | None = None  #: None if no sender is rewritten at all
    turned_back: tuple[tuple[str, str], ...] = ()  #: SRS addresses among the recipients, and what they stand for
    answers: tuple[NotedAnswer, ...] = ()  #: of the DNS, if the session notes them


_NOT_ASKED = policy.ForwardDecision()
_CANNOT_SIGN = policy.Reply(451, "4.7.5", ("This message cannot be signed at the moment; try again later",))


class Transaction:
    """One message. `judging` and `outgoing` are its strands."""

    def __init__(
        self,
        settings: Settings,
        inquiries: Inquiries,
        memory: Memory,
        client: Client,
        envelope: Envelope,
        origin: Origin,
        course: policy.Course,
        *,
        authserv_id: str,
        now: int,
        publications: Publications | None = None,
    ) -> None:
        """Start at MAIL, with SPF for it.

        :param publications: which keys of ours are published; None if all count as published.
        :param course: the standing of the message, and the decisions so far.
        :param now: Unix time in seconds, for SPF's ``%{t}`` (RFC 7208, 7.3).
        """
        self._client = client
        self._envelope = envelope
        self._course = course
        self._settings = settings
        self._inquiries = inquiries
        self._memory = memory
        self._publications = publications
        self._authserv_id = authserv_id
        self._recipients: list[str] = []
        self._further_recipients = 0
        self._turned_back: dict[str, str] = {}  # the original sender by recipient
        self._began = now
        self._unread_received = b""
        names = (authserv_id, *settings.further_authserv_ids)
        self._fields = Fields(trace.Forgeries(names) if course.message.cleaned else None)
        self._header = NO_HEADER
        self._hashes = dkim.BodyHashes(())
        self.judging: Judging | None = None
        self.outgoing: Outgoing | None = None
        if course.message.direction is Direction.INBOUND:
            self.judging = Judging(
                settings, inquiries, memory, client, envelope, origin, authserv_id=authserv_id, now=now
            )
            if not course.message.relayed:
                self.judging.check_mail_from()
        # Mail of users can be judged (clients.judge_authenticated), and is also signed.
        if course.message.direction is Direction.OUTBOUND or (self.judging is not None and envelope.authenticated):
            self._may_be_signed(client)

    def _may_be_signed(self, client: Client) -> None:
        if self._settings.signing is not None:
            self.outgoing = Outgoing(self._settings.signing, client, self._envelope, self._publications)

    def recipient(self, path: str) -> None:
        """Take the next recipient, as in RCPT TO."""
        if len(self._recipients) < MAX_RECIPIENTS:
            self._recipients.append(path.removeprefix("<").removesuffix(">"))
        else:
            self._further_recipients += 1

    def turn_back(self, recipient: str) -> bool:
        """Look whether the next recipient is an SRS address of ours, before `recipient` takes it.

        :param recipient: the forward-path without angle brackets.
        :returns: False if it is, and too many recipients came before it: nobody would turn it back.
        :raises srs.SrsError: it is, but forged, changed or too old.
        """
        rewriting = self._settings.rewriting
        if rewriting is None or self._course.message.direction is Direction.RETURNED:
            return True
        original = rewriting.reverse(recipient, self._began)
        if not original:
            return True
        if len(self._recipients) >= MAX_RECIPIENTS:
            return False
        self._turned_back[recipient] = original
        return True

    def header(self, field: HeaderField) -> None:
        """Take the next header field, and start the evaluations that it allows."""
        if not self._fields.add(field) or self.judging is None:
            return
        if field.key in FIELDS:
            self.judging.field(field)
        elif field.key == b"received" and self._course.message.relayed:
            self._relay_reported(self.judging, field)

    def _relay_reported(self, judging: Judging, field: HeaderField) -> None:
        """A Received of our own relay: judge its client, unless that is our own relay too."""
        address, helo = parse_received(field.value) or (None, "")
        if address is None:
            self._unread_received = field.value
        confirmed: Collection[str] = ()
        if address is not None and self._course.may_be_relay(claimed_names(field.value)):
            confirmed = confirmed_names(self._inquiries, self._memory, address)
        if not self._course.relayed(address, confirmed):
            return
        unknown = replace(self._client, address=None, name="", helo="")
        if self._course.message.direction is Direction.INBOUND:
            judging.client_is(unknown if address is None else replace(unknown, address=address, helo=helo))
        else:
            self._client, self.judging = unknown, None
            self._inquiries.cancel()
            self._may_be_signed(replace(unknown, address=address, helo=helo))

    def end_of_header(self) -> None:
        """All fields are there."""
        self._header = self._fields.complete()
        if self._fields.flood is not None:  # refused if it is judged, sent on or deferred if it is ours
            if self.outgoing is not None:
                self.outgoing.header_complete(self._header, self._sign_decision())
                self.outgoing.hinder(self._fields.flood.reason)
            return
        specs: list[dkim.BodyHashSpec] = []
        if self.judging is not None:
            specs += self.judging.header_complete(self._header)
        if self.outgoing is not None:
            specs += self.outgoing.header_complete(self._header, self._sign_decision())
        if self._settings.signing is not None and self._settings.policy.signs_inbound and self.judging is not None:
            specs += self._settings.signing.body_hash_specs  # the rules need results that are not there yet
        if self.judging is not None and self._settings.sealing is not None:
            envelope = self._onward(self._complete_envelope(""))
            key, _ = self._settings.sealing.choose(envelope, asked=bool(self._settings.policy.forward_rules))
            specs += [arc.BODY_HASH_SPEC] if key is not None else []
        self._hashes = dkim.BodyHashes(specs)

    def _sign_decision(self) -> policy.SignDecision:
        """What the rules say about signing a message of ours. It is not judged, so they know its origin and header."""
        if not self._settings.policy.sign_rules:
            return NO_RULE
        author = dmarc.author(self._header.fields)
        known = replace(self._with_envelope(None, ""), author=author, header=self._header)
        return policy.decide_signing(self._settings.policy.facts(known), self._settings.policy)

    def body(self, chunk: bytes) -> None:
        """Take the next piece of the body, with CRLF line ends, cut anywhere."""
        self._hashes.update(chunk)
        if self.outgoing is not None:
            self.outgoing.body(chunk)

    def so_far(self, *, queue_id: str = "") -> Assessment:
        """Wait for what can be known before the end of the message."""
        return self._with_envelope(None if self.judging is None else self.judging.so_far(), queue_id)

    def _with_envelope(self, found: Assessment | None, queue_id: str) -> Assessment:
        envelope = self._complete_envelope(queue_id)
        if found is None:
            return Assessment(self._client, envelope, self._course.message.exempt)
        return replace(found, envelope=envelope, unread_received=self._unread_received)

    def _complete_envelope(self, queue_id: str) -> Envelope:
        """The envelope with the recipients so far."""
        return replace(
            self._envelope,
            queue_id=queue_id,
            recipients=tuple(self._recipients),
            further_recipients=self._further_recipients,
        )

    def end_of_message(self, *, queue_id: str, now: int, draw: float) -> Verdict:
        """Join all evaluations, and decide. Waits for answers as long as is left for the message.

        :param now: Unix time in seconds, for the signatures' t= and x= (RFC 6376, 3.5).
        :param draw: a number from 0 to below 1, drawn for this message (RFC 7489, 6.6.4).
        """
        flood = self._fields.flood if self.judging is not None else self._fields.flood_of_forgeries
        if flood is not None:
            return self._refusal_of_flood(self.so_far(queue_id=queue_id), flood)
        if self.judging is None:
            return self._verdict(self.so_far(queue_id=queue_id), ACCEPTED, None, now)
        assessment = self._with_envelope(self.judging.join(self._hashes, now, draw), queue_id)
        facts = None
        decisions = self._settings.policy
        if decisions.acts_at(Stage.EOM) or decisions.logs_facts or decisions.signs_inbound:
            facts = decisions.facts(assessment)
        if facts is not None and decisions.signs_inbound:
            decision = policy.decide_signing(facts, decisions)
            if decision.sign and self.outgoing is None:
                self._may_be_signed(assessment.client)
            if self.outgoing is not None:
                self.outgoing.header_complete(self._header, decision)
        return self._verdict(assessment, self._course.end(facts), facts, now)

    def _verdict(self, assessment: Assessment, decision: Decision, facts: policy.Facts | None, now: int) -> Verdict:
        found = findings(assessment)
        if self._settings.dry_run:
            edits = self._edits(assessment, ACCEPTED, found) if self._settings.dry_run_headers else ()
            signed = self.outgoing.in_dry_run() if self.outgoing is not None else None
            return Verdict(Action.ACCEPT, None, edits, decision, assessment, found, facts=facts, signed=signed)
        edits = self._edits(assessment, decision, found)
        asked = self._asked_to_forward(assessment, facts)
        sealed = None if decision.action.refuses else self._sealed(assessment, edits, asked, now)
        edits += sealed.edits if sealed is not None else ()
        rewritten = self._rewritten(assessment, asked, now)
        signed = None
        if self.outgoing is not None and not decision.action.refuses:
            signed = self.outgoing.sign(edited(self._header, edits), self._hashes, now)
            if signed.on_error is OnSignError.TEMPFAIL:
                decision = Decision(Action.TEMPFAIL, _CANNOT_SIGN, signed.why, signed.by)
            edits += signed.edits
        edits += tuple(AddRecipient(path) for path in decision.edits.recipients)
        edits += tuple(self._envelope_edits(rewritten))
        return Verdict(
            decision.action,
            decision.reply,
            edits,
            decision,
            assessment,
            found,
            facts=facts,
            signed=signed,
            sealed=sealed,
            rewritten=rewritten,
            turned_back=tuple(self._turned_back.items()),
        )

    def _asked_to_forward(self, assessment: Assessment, facts: policy.Facts | None) -> policy.ForwardDecision:
        """What the rules say about forwarding. Of a message of ours they know its origin and header."""
        decisions = self._settings.policy
        if not decisions.forward_rules:
            return _NOT_ASKED
        if self.judging is None:
            author = dmarc.author(self._header.fields)
            assessment = replace(assessment, author=author, header=self._header)
        return policy.decide_forwarding(facts or decisions.facts(assessment), decisions)

    def _sealed(
        self, assessment: Assessment, edits: tuple[Edit, ...], asked: policy.ForwardDecision, now: int
    ) -> Sealed | None:
        """The ARC set of a message that leaves again."""
        if self.judging is None or self._settings.sealing is None:
            return None
        if asked.forward is False:
            return Sealed(why=asked.by)
        key, why = self._settings.sealing.choose(self._onward(assessment.envelope), asked=bool(asked.forward))
        if key is None:
            return Sealed(why="; ".join((why, *asked.faults)))
        return seal(
            key,
            self._header,
            edits,
            self._hashes,
            assessment.arc,
            authserv_id=self._authserv_id,
            now=now,
        )

    def _rewritten(self, assessment: Assessment, asked: policy.ForwardDecision, now: int) -> Rewritten | None:
        """The sender that a forwarded message gets; None for one that another MTA of ours has handled."""
        rewriting = self._settings.rewriting
        if rewriting is None or self._course.message.direction is Direction.RETURNED:
            return None
        if asked.forward is False:
            return Rewritten(why=asked.by)
        rewritten = rewriting.forward(
            self._client, self._onward(assessment.envelope), assessment.dmarc, now, asked=bool(asked.forward)
        )
        if asked.faults and not rewritten.sender:
            return replace(rewritten, why="; ".join((rewritten.why, *asked.faults)))
        return rewritten

    def _onward(self, envelope: Envelope) -> Envelope:
        """The envelope with which the message goes on: what is sent to an SRS address leaves us if the original sender
        is not ours, and some programs answer such an address from a sender of their own, whose SPF would then fail."""
        if not self._turned_back:
            return envelope
        return replace(envelope, recipients=tuple(self._turned_back.get(path, path) for path in envelope.recipients))

    def _envelope_edits(self, rewritten: Rewritten | None) -> Iterator[Edit]:
        yield from map(RemoveRecipient, self._turned_back)
        yield from map(AddRecipient, dict.fromkeys(self._turned_back.values()))  # each once, however it was written
        if rewritten is not None and rewritten.sender:
            yield ChangeSender(rewritten.sender)

    def _refusal_of_flood(self, assessment: Assessment, decision: Decision) -> Verdict:
        """It has no edits, not even in a dry run: not all fields to remove are known."""
        if self._settings.dry_run:
            return Verdict(Action.ACCEPT, None, (), decision, assessment, findings(assessment))
        return Verdict(decision.action, decision.reply, (), decision, assessment, findings(assessment))

    def _edits(self, assessment: Assessment, decision: Decision, found: tuple[Finding, ...]) -> tuple[Edit, ...]:
        """The edits of the header that come before signatures. First remove forged fields and those that the decision
        names, then change, then insert; the trace fields end up on top."""
        edits: tuple[Edit, ...] = trace.remove_edits(self._header, decision.edits.remove, self._fields.forged)
        edits += tuple(trace.decision_edits(self._header, decision.edits))
        if self.judging is None:
            login = assessment.envelope.authenticated
            if self._settings.trace.authenticated and login and assessment.exempt:
                edits += trace.auth_edits(login, self._authserv_id)
            return edits
        return edits + trace.insert_edits(assessment, found, decision, self._authserv_id, self._settings.trace)

    def cancel(self) -> None:
        """The message is over or was aborted: stop working for it."""
        self._inquiries.cancel()
