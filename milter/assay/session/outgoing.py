# SPDX-License-Identifier: GPL-3.0-or-later
"""The outgoing strand of a transaction: what signs a message of ours, and its signatures."""

from __future__ import annotations

from msgspec import Struct

from assay.keys import Chosen, OnSignError, Signatory, Signing
from assay.model.edits import Insert
from assay.model.message import Header
from assay.model.smtp import Envelope
from assay.protocol import dkim


class Signed(Struct, frozen=True):
    """The signatures of one message, or why it has none.

    `edits` insert them, the uppermost last. `signers` are the domain and the selectors of each signatory. `on_error` is
    what to do with a message that should have been signed and could not be; None for any other.
    """

    edits: tuple[Insert, ...] = ()
    signers: tuple[tuple[str, tuple[str, ...]], ...] = ()
    why: str = ""
    on_error: OnSignError | None = None

    @property
    def word(self) -> str:
        """As in the log: ``example.org/r2026,e2026``, with ``+`` between signatories, or ``none``."""
        return "+".join(f"{domain}/{','.join(selectors)}" for domain, selectors in self.signers) or "none"


class Outgoing:
    """Chooses what signs once the header is complete, and signs after all other edits."""

    __slots__ = ("_chosen", "_envelope", "_signing")

    def __init__(self, signing: Signing, envelope: Envelope) -> None:
        """:param envelope: as known at MAIL."""
        self._signing = signing
        self._envelope = envelope
        self._chosen = Chosen(why="no header")

    def header_complete(self, header: Header) -> list[dkim.BodyHashSpec]:
        """All fields are there.

        :returns: the body hashes that the signatures need.
        """
        self._chosen = self._signing.choose(header, self._envelope)
        return [signatory.rules.body_hash_spec for signatory in self._chosen.signatories]

    def give_up(self, why: str) -> None:
        """Do not sign."""
        self._chosen = Chosen(why=why)

    def in_dry_run(self) -> Signed:
        """What would sign the message."""
        if not self._chosen.signatories:
            return Signed(why=self._chosen.why)
        would = Signed(signers=tuple(map(_signer, self._chosen.signatories)))
        return Signed(why=f"dry run, would sign as {would.word}")

    def sign(self, header: Header, hashes: dkim.BodyHashes, now: int) -> Signed:
        """Sign the message.

        :param header: as it leaves, after all other edits.
        :param hashes: made for the specs that `header_complete` returned, and fed with the whole body.
        :param now: Unix time in seconds, for t= and x=.
        """
        edits: list[Insert] = []
        signers = []
        for signatory in self._chosen.signatories:
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
                return Signed(why=f"{signatory.domain}: {error}", on_error=self._signing.on_error)
            edits += (Insert("DKIM-Signature", field.value.decode().removeprefix(" ")) for field in reversed(fields))
            signers.append(_signer(signatory))
        return Signed(tuple(edits), tuple(signers), self._chosen.why)


def _signer(signatory: Signatory) -> tuple[str, tuple[str, ...]]:
    return signatory.domain.name, tuple(key.selector.name for key in signatory.keys)
