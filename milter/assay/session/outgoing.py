# SPDX-License-Identifier: GPL-3.0-or-later
"""The outgoing strand of a transaction: what signs a message of ours, and its signatures."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from assay.keys import Chosen, OnSignError, Signatory, Signing, Unpublished
from assay.model.edits import Insert
from assay.model.message import Header
from assay.model.name import Domain
from assay.model.smtp import Client, Envelope
from assay.policy import SignDecision
from assay.protocol import dkim
from assay.session.publications import Publications

NO_RULE = SignDecision()


class Signed(Struct, frozen=True):
    """The signatures of one message, or why it has none.

    `edits` insert them, the uppermost last. `signers` are the domain and the selectors of each signatory. `on_error` is
    what to do with a message that a signatory should have signed and could not; None for any other. `by` is the key of
    the configuration that says so. `decision` is what the rules said.
    """

    edits: tuple[Insert, ...] = ()
    signers: tuple[tuple[str, tuple[str, ...]], ...] = ()
    why: str = ""
    on_error: OnSignError | None = None
    by: str = "sign.on_error"

    hazards: tuple[dkim.Hazard, ...] = ()
    decision: SignDecision = NO_RULE

    @property
    def word(self) -> str:
        """As in the log: ``example.org/r2026,e2026``, with ``+`` between signatories, or ``none``."""
        return "+".join(f"{domain}/{','.join(selectors)}" for domain, selectors in self.signers) or "none"


class Outgoing:
    """Chooses what signs once the header is complete, and signs after all other edits."""

    __slots__ = ("_chosen", "_client", "_decision", "_envelope", "_hazards", "_hindrance", "_publications", "_signing")

    def __init__(
        self, signing: Signing, client: Client, envelope: Envelope, publications: Publications | None = None
    ) -> None:
        """
        :param envelope: as known at MAIL.
        :param publications: which keys are published; None if all count as published.
        """
        self._publications = publications
        self._signing = signing
        self._client = client
        self._envelope = envelope
        self._chosen = Chosen(why="no header")
        self._decision = NO_RULE
        self._hazards = dkim.BodyHazards()
        self._hindrance = ""

    def header_complete(self, header: Header, decision: SignDecision = NO_RULE) -> list[dkim.BodyHashSpec]:
        """All fields are there.

        :param decision: what the operator's rules say.
        :returns: the body hashes that the signatures need.
        """
        self._decision = decision
        if decision.sign is False:
            self._chosen = Chosen(why=decision.by)
        else:
            domain = decision.sign if isinstance(decision.sign, Domain) else None
            self._chosen = self._signing.choose(header, self._client, self._envelope, domain=domain)
        if decision.faults:
            why = "; ".join(filter(None, (self._chosen.why, *decision.faults)))
            self._chosen = replace(self._chosen, why=why)
        return [signatory.rules.body_hash_spec for signatory in self._chosen.signatories]

    def body(self, chunk: bytes) -> None:
        """The next piece of the body, with CRLF line ends, cut anywhere."""
        if self._chosen.signatories:
            self._hazards.update(chunk)

    def hinder(self, why: str) -> None:
        """Nothing can sign the message, whatever was chosen."""
        self._hindrance = why

    def in_dry_run(self) -> Signed:
        """What would sign the message."""
        if not self._chosen.signatories:
            return Signed(why=self._chosen.why, decision=self._decision)
        if self._hindrance:
            return self._failed(self._hindrance)
        would = Signed(signers=tuple(map(_signer, self._chosen.signatories)))
        return Signed(why=f"dry run, would sign as {would.word}", decision=self._decision)

    def sign(self, header: Header, hashes: dkim.BodyHashes, now: int) -> Signed:
        """Sign the message.

        :param header: as it leaves, after all other edits.
        :param hashes: made for the specs that `header_complete` returned, and fed with the whole body.
        :param now: Unix time in seconds, for t= and x=.
        """
        if self._hindrance and self._chosen.signatories:
            return self._failed(self._hindrance)
        edits: list[Insert] = []
        signers = []
        faults = []
        for signatory in reversed(self._chosen.signatories):  # the author's end up on top: DMARC needs them
            signatory = self._with_published_keys(signatory, now)
            if not signatory.keys:
                why = f"no key of {signatory.domain} is published"
                return Signed(why=why, on_error=OnSignError.TEMPFAIL, by="sign.unpublished", decision=self._decision)
            try:
                fields = dkim.sign(
                    header,
                    hashes,
                    signatory.domain,
                    signatory.keys,
                    rules=signatory.rules,
                    identity=signatory.identity,
                    now=now,
                )
            except dkim.SigningError as error:
                faults.append(f"{signatory.domain}: {error}")
                if self._signing.on_error is OnSignError.TEMPFAIL:
                    return self._failed(faults[-1])
                continue  # a signature of the others is better than none
            edits += (Insert("DKIM-Signature", field.value.decode().removeprefix(" ")) for field in reversed(fields))
            signers.append(_signer(signatory))
        return Signed(
            tuple(edits),
            tuple(reversed(signers)),
            "; ".join(filter(None, (self._chosen.why, *reversed(faults)))),
            on_error=self._signing.on_error if faults else None,
            hazards=self._hazards_of(header) if signers else (),
            decision=self._decision,
        )

    def _failed(self, why: str) -> Signed:
        """It should have been signed, and could not be."""
        return Signed(why=why, on_error=self._signing.on_error, decision=self._decision)

    def _hazards_of(self, header: Header) -> tuple[dkim.Hazard, ...]:
        """What an MTA may still change, each once."""
        signed = dict.fromkeys(name for signatory in self._chosen.signatories for name in signatory.rules.signed_fields)
        return tuple(dict.fromkeys((*self._hazards.found, *dkim.header_hazards(header, signed))))

    def _with_published_keys(self, signatory: Signatory, now: int) -> Signatory:
        """A signatory with the keys that it is to use, by what is known now of their publication."""
        if self._publications is None:
            return signatory
        published = self._publications.of(signatory.domain, signatory.keys, now)
        if len(published) == len(signatory.keys) or self._signing.unpublished is Unpublished.SIGN:
            return signatory
        if not published and self._signing.unpublished is Unpublished.FALL_BACK:
            published = self._publications.of(signatory.domain, signatory.reserve, now) or signatory.keys
        return replace(signatory, keys=published)


def _signer(signatory: Signatory) -> tuple[str, tuple[str, ...]]:
    return signatory.domain.name, tuple(key.selector.name for key in signatory.keys)
