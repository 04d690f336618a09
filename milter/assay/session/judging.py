# SPDX-License-Identifier: GPL-3.0-or-later
"""The judging strand of a transaction: evaluations start as their input arrives, and are joined once at the end."""

from __future__ import annotations

from msgspec.structs import replace

from assay.assessment import Assessment
from assay.inquiry import Inquiry, Pending, Urgency
from assay.memory import Memory
from assay.model.message import NO_HEADER, Header, HeaderField
from assay.model.name import Domain
from assay.model.smtp import Client, Envelope
from assay.protocol import dkim, dmarc, senderid, spf
from assay.session.inquiries import IN_ALL, Inquiries
from assay.session.origin import Origin
from assay.session.remembered import check_spf, discover_policy
from assay.session.settings import Settings
from assay.session.signatures import Signatures

#: The header fields that start evaluations as they arrive.
FIELDS = frozenset((b"from", b"dkim-signature", b"arc-message-signature", b"arc-seal"))


class Judging:
    """The evaluations of one message from outside."""

    def __init__(
        self,
        settings: Settings,
        inquiries: Inquiries,
        memory: Memory,
        client: Client,
        envelope: Envelope,
        origin: Origin,
        *,
        authserv_id: str,
        now: int,
    ) -> None:
        """Start at MAIL.

        :param now: Unix time in seconds, for SPF's ``%{t}`` (RFC 7208, 7.3).
        """
        self.client = client
        self._envelope = envelope
        self._settings = settings
        self._inquiries = inquiries
        self._memory = memory
        self._origin = origin
        self._authserv_id = authserv_id
        self._now = now
        self._header = NO_HEADER
        self._spf: Pending[spf.Evaluation] | None = None
        self._author: dmarc.Author | None = None  # of the first From field
        self._discoveries: dict[Domain, Pending[dmarc.Discovery]] = {}  # by the domain that may be the author's
        self._sender_id: Pending[senderid.Evaluation] | None = None
        self._signatures = Signatures(
            settings.dkim, inquiries, max_arc_sets=settings.arc_max_sets if settings.arc else 0
        )

    def check_mail_from(self) -> None:
        """Start SPF of the MAIL FROM identity."""
        request = self._spf_request()
        if request is not None:
            inquiry = check_spf(self._memory, request.of_mail_from(self._envelope.reverse_path))
            driver = self._inquiries.driver(self._settings.spf_seconds)
            self._spf = self._inquiries.start(inquiry, driver, Urgency.VERDICT)

    def _spf_request(self) -> spf.Request | None:
        """A request without an identity; None if there is no client to check."""
        if self.client.address is None:
            return None
        return spf.Request(
            self.client.address,
            self.client.helo,
            receiver=self._authserv_id,
            now=self._now,
            limits=self._settings.spf_limits,
            best_guess=self._settings.spf_best_guess,
            explain=self._settings.spf_explanations,
        )

    def client_is(self, client: Client) -> None:
        """Judge another client: the one that sent the message to our relay, as far as it is known."""
        self.client = client
        if client.address is None:
            return  # no address to judge; DKIM and DMARC still apply
        self._inquiries.on_behalf_of(client.address)
        self._origin = Origin(self._settings, self._inquiries, self._memory, self._authserv_id)
        self._origin.connected(client)
        self._origin.greeted(client)
        self.check_mail_from()

    def field(self, field: HeaderField) -> None:
        """One of `FIELDS` arrived: start the evaluations that it allows."""
        match field.key:
            case b"from":
                self._author_arrived(field)
            case b"dkim-signature":
                self._signatures.arrived(field)
            case b"arc-message-signature" | b"arc-seal":
                self._signatures.arc_arrived(field)

    def _author_arrived(self, field: HeaderField) -> None:
        if self._author is not None:
            return
        self._author = dmarc.author([field])
        for domain in self._author.domains:
            self._discoveries[domain] = self._inquiries.start(self._discover(domain), urgency=Urgency.VERDICT)

    def header_complete(self, header: Header) -> list[dkim.BodyHashSpec]:
        """All fields are there: choose the signatures to verify.

        :returns: the body hashes that they need.
        """
        self._header = header
        author_domain = self._author.domain if self._author else None
        specs = self._signatures.header_complete(header, author_domain)
        if author_domain is not None and self._settings.public_suffix is None:
            self._walk_ahead(author_domain)
        spf1 = self._settings.sender_id
        request = self._spf_request() if spf1 is not None else None
        if spf1 is not None and request is not None:
            self._sender_id = self._inquiries.start(senderid.check_pra(header, request, spf1=spf1))
        return specs

    def _walk_ahead(self, author_domain: Domain) -> None:
        """Relaxed alignment may compare organizational domains at the end (RFC 9989, 4.10.2): have them by then."""
        mailbox = self._envelope.reverse_path.mailbox
        domains = self._signatures.domains if mailbox is None else [mailbox.domain, *self._signatures.domains]
        others = [domain for domain in domains if domain != author_domain]
        if others:
            self._inquiries.start(dmarc.walk_ahead(author_domain, others), urgency=Urgency.AHEAD)

    def so_far(self) -> Assessment:
        """Wait for what can be known before the end of the message, with the envelope as known at MAIL."""
        return Assessment(
            self.client,
            self._envelope,
            iprev=self._origin.iprev(),
            spf_helo=self._origin.spf_helo(),
            spf_mail_from=self._spf.result() if self._spf is not None else None,
        )

    def join(self, hashes: dkim.BodyHashes, now: int, draw: float) -> Assessment:
        """Wait for all evaluations, with the envelope as known at MAIL.

        :param hashes: made for the specs that `header_complete` returned, and fed with the whole body.
        :param now: Unix time in seconds, for the signatures' t= and x= (RFC 6376, 3.5).
        :param draw: a number from 0 to below 1, drawn for this message (RFC 7489, 6.6.4).
        """
        author = self._author_of_message()
        for domain in author.domains:  # before any waiting; those of a single field are known since it arrived
            if domain not in self._discoveries:
                self._discoveries[domain] = self._inquiries.start(self._discover(domain), urgency=Urgency.VERDICT)
        # SPF takes longest, from record to record; keys take one answer. So signatures are verified while SPF may still
        # be waiting.
        signatures = self._signatures.verify(hashes, now)
        chain = self._signatures.verify_chain(hashes, now)
        found = self.so_far()
        sender_id = self._sender_id.result() if self._sender_id is not None else None
        self._inquiries.allow(IN_ALL)
        return replace(
            found,
            author=author,
            dkim=signatures,
            dkim_skipped=self._signatures.skipped,
            arc=chain,
            sender_id=sender_id,
            dmarc=self._evaluate_dmarc(author, found.spf_mail_from, signatures, draw),
            header=self._header,
        )

    def _author_of_message(self) -> dmarc.Author:
        fields = dmarc.from_fields(self._header.fields)
        if self._author is not None and len(fields) == 1:
            return self._author
        return dmarc.author(fields)

    def _evaluate_dmarc(
        self,
        author: dmarc.Author,
        mail_from: spf.Evaluation | None,
        signatures: tuple[dkim.Evaluation, ...],
        draw: float,
    ) -> dmarc.Evaluation:
        if not author.domains:
            return dmarc.no_author(author.fault)
        discoveries = [self._discoveries[domain].result() for domain in author.domains]
        if author.domain is None:
            several = dmarc.evaluate_several(discoveries, author.fault, legacy_pct=self._settings.legacy_pct, draw=draw)
            return self._inquiries.start(several, urgency=Urgency.VERDICT).result()
        # RFC 9989, 4.4.2: only the MAIL FROM identity counts, never HELO; and only a record that was published.
        by_spf = None
        if mail_from is not None and mail_from.domain is not None:
            word = spf.Result.NONE if mail_from.guessed else mail_from.result
            by_spf = dmarc.Identifier(mail_from.domain, word, mail_from.grounds)
        by_dkim = [
            dmarc.Identifier(signature.domain, signature.result, signature.grounds)
            for signature in signatures
            if signature.domain is not None
        ]
        judged = dmarc.evaluate(discoveries[0], by_spf, by_dkim, legacy_pct=self._settings.legacy_pct, draw=draw)
        return self._inquiries.start(judged, urgency=Urgency.VERDICT).result()

    def _discover(self, domain: Domain) -> Inquiry[dmarc.Discovery]:
        return discover_policy(self._memory, domain, self._settings.public_suffix)
