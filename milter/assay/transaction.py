# SPDX-License-Identifier: GPL-3.0-or-later
"""One message on its way through the SMTP stages: facts in, evaluations started as they arrive, joined once.

A transaction begins with MAIL and ends with the end of the message or an abort. It keeps the header (DKIM needs it
whole) and never the body: that runs through one hash for each distinct way in which a signature wants it hashed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from assay import policy, trace
from assay.assessment import Assessment
from assay.inquiry import Driver, Pending
from assay.model.message import Header, HeaderField
from assay.model.name import Domain
from assay.model.smtp import Client, Envelope
from assay.protocol import arc, dkim, dmarc, iprev, spf

MAX_HEADER_OCTETS = 1024 * 1024  # our choice; Postfix stops at 100 KiB (header_size_limit), Sendmail at 32 KiB
MAX_RECIPIENTS = 1000  # our choice; RFC 5321, 4.5.3.1.8 asks MTAs for 100 at least
MAX_FROM_FIELDS = 10  # our choice: more than one is a fault already (RFC 5322, 3.6)

#: Fields that only we may write in our own name.
_OURS = frozenset((b"authentication-results", b"received-spf"))

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator decides about evaluation. `authserv_id` empty: the MTA's own name is used."""

    authserv_id: str = ""
    fallback_authserv_id: str = "localhost"  #: where the MTA does not tell its name
    further_authserv_ids: tuple[str, ...] = ()
    received_spf: bool = True
    iprev: bool = True
    spf_limits: spf.Limits = field(default_factory=spf.Limits)
    dkim: dkim.Settings = field(default_factory=dkim.Settings)
    rules: policy.Rules = field(default_factory=policy.Rules)
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the MTA is to do with the message, complete: the filter performs it and adds nothing.

    With `dry_run` in force `action` is ACCEPT, `edits` is empty, and `decision` still tells what would have been.
    """

    action: policy.Action
    reply: policy.Reply | None
    edits: tuple[trace.Edit, ...]
    decision: policy.Decision
    assessment: Assessment


@dataclass(slots=True)
class ClientEvaluations:
    """The evaluations of the connection, shared by all its messages."""

    iprev: Pending[iprev.Evaluation] | None = None
    spf_helo: Pending[spf.Evaluation] | None = None


class Transaction:
    """One message that is judged, or one whose client is exempt and that is only cleaned of forged fields."""

    def __init__(
        self,
        settings: Settings,
        new_driver: Callable[[], Driver],
        client: Client,
        envelope: Envelope,
        *,
        authserv_id: str,
        exempt: str = "",
        strip: bool = True,
        now: int,
    ) -> None:
        """Begin with MAIL. Starts SPF for it, and the tree walk of its domain, which DMARC may need at the end.

        :param exempt: why the message is not judged; empty to judge it.
        :param strip: whether fields that claim our authserv-id are removed.
        :param now: Unix time in seconds, for SPF's ``%{t}`` (RFC 7208, 7.3).
        """
        self.client = client
        self.envelope = envelope
        self.exempt = exempt
        self._settings = settings
        self._new_driver = new_driver
        self._authserv_id = authserv_id
        self._forgeries = trace.Forgeries((authserv_id, *settings.further_authserv_ids)) if strip else None
        self._recipients: list[str] = []
        self._forged: list[tuple[str, int]] = []
        self._occurrences: dict[bytes, int] = {}
        self._fields: list[HeaderField] = []
        self._octets = 0
        self._pending: list[Pending[object]] = []
        self._spf: Pending[spf.Evaluation] | None = None
        self._discovery: tuple[Domain, Pending[dmarc.Discovery]] | None = None
        self._signatures: list[dkim.Signature] = []
        self._untried: list[dkim.Evaluation] = []
        self._keys: dict[int, Pending[dkim.KeyLookup]] = {}
        self._chain: arc.Chain | arc.Evaluation | None = None
        self._arc_keys: Pending[arc.Keys] | None = None
        self._header = Header()
        self._hashes = dkim.BodyHashes(())
        self._skipped = 0
        if not exempt:
            self._begin(now)

    def _begin(self, now: int) -> None:
        if self.client.address is None:
            return
        driver = self._new_driver()
        path = self.envelope.reverse_path
        self._spf = self._keep(
            driver.start(
                spf.check_mail_from(
                    self.client.address,
                    self.client.helo,
                    path,
                    limits=self._settings.spf_limits,
                    receiver=self._authserv_id,
                    now=now,
                )
            )
        )
        if path.mailbox is not None:
            self._keep(driver.start(dmarc.organizational_domain(path.mailbox.domain)))

    def recipient(self, path: str) -> None:
        """Take the next recipient, as in RCPT TO."""
        if len(self._recipients) < MAX_RECIPIENTS:
            self._recipients.append(path.removeprefix("<").removesuffix(">"))

    def header(self, one: HeaderField) -> None:
        """Take the next header field, and start what it makes possible."""
        key = one.key
        if key in _OURS:
            self._note_forged(one)
        if self.exempt:
            return
        self._octets += len(one.name) + len(one.value) + 3
        if self._octets > MAX_HEADER_OCTETS:
            return
        self._fields.append(one)
        if key == b"from":
            self._author_arrived(one)
        elif key == b"dkim-signature":
            self._signature_arrived(one)

    def _note_forged(self, one: HeaderField) -> None:
        """Remember a field that claims to be ours by its place among the fields of its name."""
        occurrence = self._occurrences[one.key] = self._occurrences.get(one.key, 0) + 1
        if self._forgeries is not None and self._forgeries.claims(one):
            # Without the white space before the colon, which no MTA takes for a part of the name.
            self._forged.append((one.name.rstrip(b" \t").decode("ascii", "replace"), occurrence))

    def _author_arrived(self, one: HeaderField) -> None:
        if self._discovery is not None:
            return
        author = dmarc.author([one])
        if author.domain is not None:
            started = self._new_driver().start(dmarc.discover(author.domain))
            self._discovery = (author.domain, self._keep(started))

    def _signature_arrived(self, one: HeaderField) -> None:
        parsed = dkim.parse(one)
        if isinstance(parsed, dkim.Evaluation):
            if len(self._untried) < self._settings.dkim.max_signatures:
                self._untried.append(parsed)
            return
        self._signatures.append(parsed)
        if len(self._keys) < self._settings.dkim.max_signatures:
            self._look_up_key(parsed)

    def _look_up_key(self, signature: dkim.Signature) -> None:
        driver = self._new_driver()
        self._keys[id(signature)] = self._keep(driver.start(dkim.fetch_key(signature)))
        # Relaxed alignment may compare organizational domains at the end (RFC 9989, 4.10.2): have them by then.
        self._keep(driver.start(dmarc.organizational_domain(signature.domain)))

    def end_of_header(self) -> None:
        """All fields are there: choose the signatures to verify and prepare to hash the body for them."""
        if self.exempt:
            return
        self._header = Header(tuple(self._fields))
        self._fields = []
        self._chain = arc.parse_chain(self._header)
        specs = [signature.body_hash_spec for signature in self._choose_signatures()]
        if isinstance(self._chain, arc.Chain):
            self._arc_keys = self._keep(self._new_driver().start(arc.fetch_keys(self._chain)))
            specs.extend(self._chain.body_hash_specs)
        self._hashes = dkim.BodyHashes(specs)

    def _choose_signatures(self) -> list[dkim.Signature]:
        author_domain = self._discovery[0] if self._discovery else None
        chosen, skipped = dkim.select(self._signatures, author_domain, self._settings.dkim.max_signatures)
        self._signatures = list(chosen)
        self._skipped = len(skipped)
        for signature in chosen:
            if id(signature) not in self._keys:
                self._look_up_key(signature)
        return self._signatures

    def body(self, chunk: bytes) -> None:
        """Take the next piece of the body, with CRLF line ends, cut anywhere."""
        self._hashes.update(chunk)

    def end_of_message(self, shared: ClientEvaluations, *, queue_id: str, now: int) -> Verdict:
        """Join everything, judge, and tell what to do. Waits for answers at most the driver's time budget.

        :param now: Unix time in seconds, for the signatures' t= and x= (RFC 6376, 3.5).
        """
        envelope = replace(self.envelope, queue_id=queue_id, recipients=tuple(self._recipients))
        if self.exempt:
            assessment = Assessment(self.client, envelope, self.exempt)
            return self._verdict(assessment, policy.Decision(), stamp=False)
        assessment = self._assess(envelope, shared, now)
        return self._verdict(assessment, policy.decide(assessment, self._settings.rules), stamp=True)

    def _assess(self, envelope: Envelope, shared: ClientEvaluations, now: int) -> Assessment:
        driver = self._new_driver()  # its time budget is that of the whole join
        author = self._author()
        mail_from = self._spf.result() if self._spf is not None else None
        signatures = tuple(self._verify(signature, now) for signature in self._signatures)
        return Assessment(
            self.client,
            envelope,
            author=author,
            iprev=shared.iprev.result() if shared.iprev is not None else None,
            spf_helo=shared.spf_helo.result() if shared.spf_helo is not None else None,
            spf_mail_from=mail_from,
            dkim=signatures + tuple(self._untried),
            dkim_skipped=self._skipped,
            arc=self._evaluate_arc(now),
            dmarc=self._evaluate_dmarc(driver, author, mail_from, signatures),
        )

    def _author(self) -> dmarc.Author:
        if self._octets > MAX_HEADER_OCTETS:
            return dmarc.Author(None, "", f"header longer than {MAX_HEADER_OCTETS} octets")
        return dmarc.author(self._header.all("From")[:MAX_FROM_FIELDS])

    def _verify(self, signature: dkim.Signature, now: int) -> dkim.Evaluation:
        key = self._keys[id(signature)].result()
        return dkim.verify(signature, key, self._header, self._hashes, now=now, settings=self._settings.dkim)

    def _evaluate_arc(self, now: int) -> arc.Evaluation | None:
        if isinstance(self._chain, arc.Chain) and self._arc_keys is not None:
            keys = self._arc_keys.result()
            return arc.verify(self._chain, keys, self._header, self._hashes, now=now, settings=self._settings.dkim)
        return self._chain if isinstance(self._chain, arc.Evaluation) else None

    def _evaluate_dmarc(
        self,
        driver: Driver,
        author: dmarc.Author,
        mail_from: spf.Evaluation | None,
        signatures: tuple[dkim.Evaluation, ...],
    ) -> dmarc.Evaluation:
        if author.domain is None:
            return dmarc.no_author(author.fault)
        if self._discovery is not None and self._discovery[0] == author.domain:
            discovery = self._discovery[1].result()
        else:
            discovery = driver.start(dmarc.discover(author.domain)).result()
        # RFC 9989, 4.4.2: only the MAIL FROM identity counts, never HELO.
        spf_identifier = (
            dmarc.Identifier(mail_from.domain, mail_from.result) if mail_from and mail_from.domain else None
        )
        dkim_identifiers = [dmarc.Identifier(one.domain, one.result) for one in signatures if one.domain is not None]
        return driver.start(dmarc.evaluate(discovery, spf_identifier, dkim_identifiers)).result()

    def _verdict(self, assessment: Assessment, decision: policy.Decision, *, stamp: bool) -> Verdict:
        if self._settings.dry_run:
            return Verdict(policy.Action.ACCEPT, None, (), decision, assessment)
        edits: tuple[trace.Edit, ...] = trace.remove_edits(self._forged)
        if stamp:
            edits += trace.insert_edits(
                assessment, decision, self._authserv_id, received_spf=self._settings.received_spf
            )
        return Verdict(decision.action, decision.reply, edits, decision, assessment)

    def _keep(self, pending: Pending[T]) -> Pending[T]:
        self._pending.append(pending)
        return pending

    def cancel(self) -> None:
        """The message is over or will never be: stop working for it."""
        for pending in self._pending:
            pending.cancel()
        self._pending = []
