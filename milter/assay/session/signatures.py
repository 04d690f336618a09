# SPDX-License-Identifier: GPL-3.0-or-later
"""The signatures of one message, DKIM's and ARC's: parsed and looked up as they arrive, verified at the end.

The body is hashed once for each distinct way in which the signatures want it, and never kept.
"""

from __future__ import annotations

from itertools import islice

from assay.inquiry import Pending, Urgency
from assay.model.message import NO_HEADER, Header, HeaderField
from assay.model.name import Domain
from assay.protocol import arc, dkim, dmarc
from assay.session.inquiries import Inquiries

#: Keys of ARC fields asked for before the header is complete: those of three sets, and chains in real mail are that
#: short. All others are asked for with the chain, if it is one.
MAX_KEYS_AHEAD = 6


class Signatures:
    """Collects the signatures of a message and verifies them when the body is through."""

    def __init__(self, settings: dkim.Settings, inquiries: Inquiries, *, with_arc: bool) -> None:
        self.skipped = 0  #: signatures beyond the bound, not tried
        self._settings = settings
        self._inquiries = inquiries
        self._with_arc = with_arc
        self._candidates: list[dkim.Signature] = []
        self._untried: list[dkim.Evaluation] = []
        self._keys: dict[int, Pending[dkim.KeyLookup]] = {}
        self._chain: arc.Chain | arc.Evaluation | None = None
        self._arc_keys: Pending[arc.Keys] | None = None
        self._arc_fields = 0
        self._header = NO_HEADER
        self._hashes = dkim.BodyHashes(())

    def arrived(self, field: HeaderField) -> None:
        """A DKIM-Signature field arrived: parse it, and ask for its key unless there are too many already."""
        parsed = dkim.parse(field)
        if isinstance(parsed, dkim.Evaluation):
            if len(self._untried) < self._settings.max_signatures:
                self._untried.append(parsed)
            else:
                self.skipped += 1
            return
        self._candidates.append(parsed)
        if len(self._keys) < self._settings.max_signatures:
            self._look_up(parsed)

    def arc_arrived(self, field: HeaderField) -> None:
        """An ARC-Message-Signature or ARC-Seal field arrived: ask for its key."""
        self._arc_fields += 1
        if self._with_arc and self._arc_fields <= MAX_KEYS_AHEAD:
            self._inquiries.start(arc.fetch_key_ahead(field), urgency=Urgency.AHEAD)

    def _look_up(self, signature: dkim.Signature) -> None:
        self._keys[id(signature)] = self._inquiries.start(dkim.fetch_key(signature))

    def header_complete(self, header: Header, author_domain: Domain | None) -> None:
        """All fields are there: choose what to verify and prepare to hash the body for it."""
        self._header = header
        chosen, skipped = dkim.select(self._candidates, author_domain, self._settings.max_signatures)
        self._candidates = list(chosen)
        self.skipped += len(skipped)
        for signature in chosen:
            if id(signature) not in self._keys:
                self._look_up(signature)
        self._walk_ahead(author_domain)
        specs = [signature.body_hash_spec for signature in chosen]
        if self._with_arc:
            self._chain = arc.parse_chain(header)
        if isinstance(self._chain, arc.Chain):
            self._arc_keys = self._inquiries.start(arc.fetch_keys(self._chain))
            specs.extend(self._chain.body_hash_specs)
        self._hashes = dkim.BodyHashes(specs)

    def _walk_ahead(self, author_domain: Domain | None) -> None:
        """Relaxed alignment may compare organizational domains at the end (RFC 9989, 4.10.2): have them by then.

        Only of domains that look related. Others cannot be aligned, and walks are most of what a stranger's signatures
        could make us ask; a relation that is not seen here costs time at the end and changes no verdict.
        """
        if author_domain is None:
            return
        related = (one.domain for one in self._candidates if one.domain.labels[-2:] == author_domain.labels[-2:])
        walked = dict.fromkeys(domain for domain in related if domain != author_domain)
        for domain in islice(walked, dmarc.MAX_WALKED_DOMAINS):
            self._inquiries.start(dmarc.organizational_domain(domain), urgency=Urgency.AHEAD)

    def body(self, chunk: bytes) -> None:
        """The next piece of the body, with CRLF line ends, cut anywhere."""
        self._hashes.update(chunk)

    def verify(self, now: int) -> tuple[dkim.Evaluation, ...]:
        """One evaluation for each signature that was tried or could not be parsed."""
        verified = (
            dkim.verify(one, self._keys[id(one)].result(), self._header, self._hashes, now=now, settings=self._settings)
            for one in self._candidates
        )
        return (*verified, *self._untried)

    def verify_chain(self, now: int) -> arc.Evaluation | None:
        """The evaluation of the ARC chain; None where ARC is switched off."""
        if isinstance(self._chain, arc.Chain) and self._arc_keys is not None:
            keys = self._arc_keys.result()
            return arc.verify(self._chain, keys, self._header, self._hashes, now=now, settings=self._settings)
        return self._chain if isinstance(self._chain, arc.Evaluation) else None
