# SPDX-License-Identifier: GPL-3.0-or-later
"""One message on its way through the SMTP stages: facts in, evaluations started as they arrive, joined once.

A transaction begins with MAIL and ends with the end of the message or an abort. It keeps the header (DKIM needs it
whole) and never the body.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from assay import policy, trace
from assay.assessment import Assessment
from assay.inquiry import Driver, Inquiry, Pending, Urgency
from assay.memory import Memory
from assay.model.edits import Edit
from assay.model.message import NO_HEADER, Header, HeaderField
from assay.model.name import Domain
from assay.model.smtp import Client, Envelope
from assay.policy import ACCEPTED, Action, Decision, Stage
from assay.protocol import dkim, dmarc, senderid, spf
from assay.protocol.syntax.received import parse_received
from assay.session.inquiries import Inquiries
from assay.session.origin import Origin
from assay.session.remembered import check_spf, discover_policy
from assay.session.settings import Settings
from assay.session.signatures import Signatures

#: Our choice: twenty fields as long as Postfix lets one be (header_size_limit, 102,400). Sendmail stops at 32 KiB
#: altogether. It bounds what the signatures of a message may have us hash.
MAX_HEADER_OCTETS = 20 * 102_400
#: Our choice: an honest message has some hundreds at most, and the shortest field takes a hundred octets of memory.
MAX_HEADER_FIELDS = 10_000
MAX_RECIPIENTS = 1000  # our choice; RFC 5321, 4.5.3.1.8 asks MTAs for 100 at least
#: Our choice, of each name: an honest message has some for each of its hops. What comes behind is removed unread, for
#: a field that is made to be ambiguous costs milliseconds to read, and a message has room for ten thousand.
MAX_TRACE_FIELDS = 100

#: Our choice, of both names together. An MTA looks for each field to be removed from the top (Postfix: in the queue
#: file), so ten thousand of them, which take 150 KB, keep it busy for minutes.
MAX_FORGED = 1000

#: Fields that only we may write in our own name.
_OURS = frozenset((b"authentication-results", b"received-spf"))
_ARC_SIGNATURES = frozenset((b"arc-message-signature", b"arc-seal"))


def _flood(by: str, fault: str) -> Decision:
    """A message beyond a bound of the header is refused whatever the policy says.

    It is nothing but an attack, and what stands behind the bound is not known: it can be neither judged nor cleaned,
    and must not pass as if it were malformed, for that is the operator's to accept.
    """
    return Decision(Action.REJECT, policy.Reply(550, "5.6.0", (fault,)), fault, by)  # RFC 3463, 3.7


_FLOOD_OF_HEADER = _flood(
    "header flood", f"header longer than {MAX_HEADER_OCTETS} octets or {MAX_HEADER_FIELDS} fields"
)
_FLOOD_OF_FORGERIES = _flood("forged trace fields", f"more than {MAX_FORGED} trace fields claim to be ours")


class Verdict(Struct, frozen=True):
    """What the MTA is to do at one stage, complete: the filter performs it and adds nothing.

    With a dry run in force `action` is ACCEPT, `edits` is empty, and `decision` still tells what would have been.
    """

    action: Action
    reply: policy.Reply | None
    edits: tuple[Edit, ...]
    decision: Decision
    assessment: Assessment
    stage: Stage = Stage.EOM
    facts: policy.Facts | None = None


class Transaction:
    """One message: from outside, and judged, or our own, and only cleaned of forged fields."""

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
    ) -> None:
        """Begin with MAIL. Starts SPF for it.

        :param course: how the message stands, and what was decided so far.
        :param now: Unix time in seconds, for SPF's ``%{t}`` (RFC 7208, 7.3).
        """
        self.client = client
        self.envelope = envelope
        self._course = course
        self._settings = settings
        self._inquiries = inquiries
        self._memory = memory
        self._origin = origin
        self._authserv_id = authserv_id
        self._now = now
        self._recipients: list[str] = []
        names = (authserv_id, *settings.further_authserv_ids)
        self._forgeries = trace.Forgeries(names) if course.message.cleaned else None
        self._forged: list[tuple[str, int]] = []
        self._occurrences: dict[bytes, int] = {}
        self._fields: list[HeaderField] = []
        self._octets = 0
        self._flood: Decision | None = None  # why the message is refused, read no further
        self._header = NO_HEADER
        self._spf: Pending[spf.Evaluation] | None = None
        self._author_field: HeaderField | None = None
        self._author: dmarc.Author | None = None  # of that field
        self._discoveries: dict[Domain, Pending[dmarc.Discovery]] = {}  # by the domain that may be the author's
        self._sender_id: Pending[senderid.Evaluation] | None = None
        self._signatures = Signatures(
            settings.dkim, inquiries, max_arc_sets=settings.arc_max_sets if settings.arc else 0
        )
        if not self._exempt and not course.message.relayed:
            self._check_mail_from()

    @property
    def _exempt(self) -> str:
        """Why the message is not judged; a relay's Received field may tell."""
        return self._course.message.exempt

    def _check_mail_from(self) -> None:
        request = self._spf_request()
        if request is not None:
            inquiry = check_spf(self._memory, request.of_mail_from(self.envelope.reverse_path))
            driver = self._inquiries.driver(self._settings.spf_seconds)
            self._spf = self._inquiries.start(inquiry, driver, Urgency.VERDICT)

    def _spf_request(self) -> spf.Request | None:
        """A request that names no identity yet; None where there is no client to check."""
        if self.client.address is None:
            return None
        return spf.Request(
            self.client.address,
            self.client.helo,
            receiver=self._authserv_id,
            now=self._now,
            limits=self._settings.spf_limits,
            best_guess=self._settings.spf_best_guess,
        )

    def recipient(self, path: str) -> None:
        """Take the next recipient, as in RCPT TO."""
        if len(self._recipients) < MAX_RECIPIENTS:
            self._recipients.append(path.removeprefix("<").removesuffix(">"))

    def header(self, one: HeaderField) -> None:
        """Take the next header field, and start what it makes possible."""
        key = one.key
        if key in _OURS and self._flood is None:
            self._note_forged(one)
        if self._exempt or self._flood is not None:
            return
        self._octets += len(one.name) + len(one.value) + 3
        if self._octets > MAX_HEADER_OCTETS or len(self._fields) >= MAX_HEADER_FIELDS:
            self._flood = _FLOOD_OF_HEADER
            self._fields = []
            return
        self._fields.append(one)
        if key == b"from":
            self._author_arrived(one)
        elif key == b"dkim-signature":
            self._signatures.arrived(one)
        elif key in _ARC_SIGNATURES:
            self._signatures.arc_arrived(one)
        elif key == b"received" and self._course.message.relayed:
            self._relay_told(one)

    def _note_forged(self, one: HeaderField) -> None:
        """Remember a field that claims to be ours by its place among the fields of its name."""
        occurrence = self._occurrences[one.key] = self._occurrences.get(one.key, 0) + 1
        if self._forgeries is not None and (occurrence > MAX_TRACE_FIELDS or self._forgeries.claims(one)):
            # Without the white space before the colon, which no MTA takes for a part of the name.
            self._forged.append((one.name.rstrip(b" \t").decode("ascii", "replace"), occurrence))
            if len(self._forged) > MAX_FORGED:
                self._flood = _FLOOD_OF_FORGERIES

    def _relay_told(self, one: HeaderField) -> None:
        """A Received of our own relay: its client is the one to judge, unless that is a relay of ours again."""
        address, helo = parse_received(one.value) or (None, "")
        if not self._course.relayed(address):
            return
        self.client = replace(self.client, address=None, name="", helo="")
        if address is None or self._exempt:
            return  # nobody to judge by address; DKIM and DMARC still tell
        self.client = replace(self.client, address=address, helo=helo)
        self._inquiries.on_behalf_of(address)
        self._origin = Origin(self._settings, self._inquiries, self._memory, self._authserv_id)
        self._origin.connected(self.client)
        self._origin.greeted(self.client)
        self._check_mail_from()

    def _author_arrived(self, one: HeaderField) -> None:
        if self._author is not None:
            return
        self._author_field = one
        self._author = dmarc.author([one])
        for domain in self._author.domains:
            self._discoveries[domain] = self._inquiries.start(self._discover(domain), urgency=Urgency.VERDICT)

    def end_of_header(self) -> None:
        """All fields are there: choose the signatures to verify and prepare to hash the body for them."""
        if self._exempt or self._flood is not None:
            return
        self._header = Header(tuple(self._fields))
        self._fields = []
        author_domain = self._author.domain if self._author else None
        self._signatures.header_complete(self._header, author_domain)
        if author_domain is not None and self._settings.public_suffix is None:
            self._walk_ahead(author_domain)
        request = self._spf_request() if self._settings.sender_id else None
        if request is not None:
            self._sender_id = self._inquiries.start(senderid.check_pra(self._header, request))

    def _walk_ahead(self, author_domain: Domain) -> None:
        """Relaxed alignment may compare organizational domains at the end (RFC 9989, 4.10.2): have them by then."""
        mailbox = self.envelope.reverse_path.mailbox
        domains = self._signatures.domains if mailbox is None else [mailbox.domain, *self._signatures.domains]
        self._inquiries.start(dmarc.walk_ahead(author_domain, domains), urgency=Urgency.AHEAD)

    def body(self, chunk: bytes) -> None:
        """Take the next piece of the body, with CRLF line ends, cut anywhere."""
        self._signatures.body(chunk)

    def so_far(self, *, queue_id: str = "") -> Assessment:
        """What is known before the end of the message, waited for."""
        return Assessment(
            self.client,
            replace(self.envelope, queue_id=queue_id, recipients=tuple(self._recipients)),
            self._exempt,
            iprev=self._origin.iprev() if not self._exempt else None,
            spf_helo=self._origin.spf_helo() if not self._exempt else None,
            spf_mail_from=self._spf.result() if self._spf is not None else None,
        )

    def end_of_message(self, *, queue_id: str, now: int, draw: float) -> Verdict:
        """Join everything, judge, and tell what to do. Waits for answers at most the driver's time budget.

        :param now: Unix time in seconds, for the signatures' t= and x= (RFC 6376, 3.5).
        :param draw: a number from 0 to below 1, drawn for this message (RFC 7489, 6.6.4).
        """
        driver = self._inquiries.driver()  # its time budget is that of the whole join
        if self._flood is not None:
            return self._refusal_of_flood(self.so_far(queue_id=queue_id), self._flood)
        if self._exempt:
            return self._verdict(self.so_far(queue_id=queue_id), ACCEPTED, None)
        assessment = self._assess(driver, queue_id, now, draw)
        facts = None
        if self._settings.policy.acts_at(Stage.EOM) or self._settings.policy.logs_facts:
            facts = self._settings.policy.facts(assessment)
        return self._verdict(assessment, self._course.end(facts), facts)

    def _assess(self, driver: Driver, queue_id: str, now: int, draw: float) -> Assessment:
        author = self._author_of_message()
        # SPF has the longest way, from record to record; keys are there after one answer. So signatures are verified
        # while SPF may still be waiting.
        signatures = self._signatures.verify(now)
        chain = self._signatures.verify_chain(now)
        assessment = self.so_far(queue_id=queue_id)
        return replace(
            assessment,
            author=author,
            dkim=signatures,
            dkim_skipped=self._signatures.skipped,
            arc=chain,
            sender_id=self._sender_id.result() if self._sender_id is not None else None,
            dmarc=self._evaluate_dmarc(driver, author, assessment.spf_mail_from, signatures, draw),
            header=self._header,
        )

    def _author_of_message(self) -> dmarc.Author:
        fields = dmarc.from_fields(self._header.fields)
        if self._author is not None and len(fields) == 1 and fields[0] is self._author_field:
            return self._author
        return dmarc.author(fields)

    def _evaluate_dmarc(
        self,
        driver: Driver,
        author: dmarc.Author,
        mail_from: spf.Evaluation | None,
        signatures: tuple[dkim.Evaluation, ...],
        draw: float,
    ) -> dmarc.Evaluation:
        if not author.domains:
            return dmarc.no_author(author.fault)
        pending = [
            self._discoveries.get(domain) or self._inquiries.start(self._discover(domain), driver, Urgency.VERDICT)
            for domain in author.domains
        ]
        discoveries = [one.result() for one in pending]
        if author.domain is None:
            several = dmarc.evaluate_several(discoveries, author.fault, legacy_pct=self._settings.legacy_pct, draw=draw)
            return self._inquiries.start(several, driver, Urgency.VERDICT).result()
        # RFC 9989, 4.4.2: only the MAIL FROM identity counts, never HELO; and only a record that was published.
        by_spf = None
        if mail_from is not None and mail_from.domain is not None:
            by_spf = dmarc.Identifier(mail_from.domain, spf.Result.NONE if mail_from.guessed else mail_from.result)
        by_dkim = [dmarc.Identifier(one.domain, one.result) for one in signatures if one.domain is not None]
        judged = dmarc.evaluate(discoveries[0], by_spf, by_dkim, legacy_pct=self._settings.legacy_pct, draw=draw)
        return self._inquiries.start(judged, driver, Urgency.VERDICT).result()

    def _discover(self, domain: Domain) -> Inquiry[dmarc.Discovery]:
        return discover_policy(self._memory, domain, self._settings.public_suffix)

    def _verdict(self, assessment: Assessment, decision: Decision, facts: policy.Facts | None) -> Verdict:
        if self._settings.dry_run:
            edits = self._edits(assessment, ACCEPTED) if self._settings.dry_run_headers else ()
            return Verdict(Action.ACCEPT, None, edits, decision, assessment, facts=facts)
        edits = self._edits(assessment, decision)
        return Verdict(decision.action, decision.reply, edits, decision, assessment, facts=facts)

    def _refusal_of_flood(self, assessment: Assessment, decision: Decision) -> Verdict:
        """In a dry run too it has no edits: there is no knowing all that would have to go."""
        if self._settings.dry_run:
            return Verdict(Action.ACCEPT, None, (), decision, assessment)
        return Verdict(decision.action, decision.reply, (), decision, assessment)

    def _edits(self, assessment: Assessment, decision: Decision) -> tuple[Edit, ...]:
        """Forged fields and what the decision wants gone first, then what is added; the trace fields end up on top."""
        edits: tuple[Edit, ...] = trace.remove_edits(self._header, decision.edits.remove, self._forged)
        edits += tuple(trace.decision_edits(self._header, decision.edits))
        if self._exempt:
            return edits
        stamps = trace.insert_edits(assessment, decision, self._authserv_id, received_spf=self._settings.received_spf)
        return edits + stamps

    def cancel(self) -> None:
        """The message is over or will never be: stop working for it."""
        self._inquiries.cancel()
