# SPDX-License-Identifier: GPL-3.0-or-later
"""The signatures of one message, DKIM's and ARC's: the first keys are looked up as they arrive, all others once the
header is complete; all signatures are verified at the end.
"""

from __future__ import annotations

from assay.inquiry import Pending, Urgency
from assay.model.message import NO_HEADER, Header, HeaderField
from assay.model.name import Domain
from assay.protocol import arc, dkim
from assay.session.inquiries import Inquiries

#: Signatures whose keys are looked up before the header is complete: honest mail has one or two. If there are more, the
#: From field decides which of them matter, and it follows within milliseconds.
MAX_KEYS_AHEAD = 2


class Signatures:
    """Collects the signatures of a message and verifies them at the end of the body."""

    def __init__(self, settings: dkim.SignatureRules, inquiries: Inquiries, *, max_arc_sets: int) -> None:
        """Start without signatures.

        :param max_arc_sets: longer ARC chains fail; 0 to ignore ARC.
        """
        self.skipped = 0  #: signatures beyond the bound, not tried
        self._settings = settings
        self._inquiries = inquiries
        self._max_arc_sets = max_arc_sets
        # DKIM signatures are numbered by their position among the fields of that name, from the top.
        self._fields: list[HeaderField] = []
        self._parsed: dict[int, dkim.Signature | dkim.Evaluation] = {}
        self._keys: dict[int, Pending[dkim.KeyLookup]] = {}
        self._tried: list[int] = []
        self._unusable: list[int] = []
        self._chain: arc.Chain | arc.Evaluation | None = None
        self._arc_lookups: Pending[arc.Lookups] | None = None
        self._arc_ahead: set[bytes] = set()
        self._header = NO_HEADER

    @property
    def domains(self) -> list[Domain]:
        """The d= of the DKIM signatures that are tried, once the header is complete."""
        return [parsed.domain for parsed in map(self._parsed.get, self._tried) if isinstance(parsed, dkim.Signature)]

    def arrived(self, field: HeaderField) -> None:
        """A DKIM-Signature field arrived: parse it and ask for its key, if it is one of the first."""
        self._fields.append(field)
        if len(self._fields) <= MAX_KEYS_AHEAD:
            self._look_up(len(self._fields) - 1)

    def arc_arrived(self, field: HeaderField) -> None:
        """An ARC-Message-Signature or ARC-Seal field arrived: ask for its key if it is the first, the newest set's."""
        if self._max_arc_sets and field.key not in self._arc_ahead:
            self._arc_ahead.add(field.key)
            self._inquiries.start(arc.fetch_key_ahead(field), urgency=Urgency.AHEAD)

    def _look_up(self, place: int) -> dkim.Signature | dkim.Evaluation:
        """Parse a signature and ask for its key, both only once."""
        parsed = self._parsed.get(place)
        if parsed is None:
            parsed = self._parsed[place] = dkim.parse(self._fields[place])
            if isinstance(parsed, dkim.Signature):
                self._keys[place] = self._inquiries.start(dkim.fetch_key(parsed))
        return parsed

    def header_complete(self, header: Header, author_domain: Domain | None) -> list[dkim.BodyHashSpec]:
        """All fields are there: choose what to verify.

        :returns: the body hashes that it needs.
        """
        self._header = header
        specs = self._choose(author_domain)
        if self._max_arc_sets:
            self._chain = arc.parse_chain(header, max_sets=self._max_arc_sets)
        if isinstance(self._chain, arc.Chain):
            self._arc_lookups = self._inquiries.start(arc.fetch_keys(self._chain, header, self._settings))
            specs.extend(self._chain.body_hash_specs)
        return specs

    def _choose(self, author_domain: Domain | None) -> list[dkim.BodyHashSpec]:
        """Look up the signatures to try, those that can matter for DMARC first, and bound how many are parsed.

        :returns: the body hashes that they need.
        """
        specs = []
        limit = self._settings.max_signatures
        for place in dkim.preferred(self._fields, author_domain):
            if len(self._tried) == limit or len(self._unusable) == limit:
                break
            parsed = self._look_up(place)
            if isinstance(parsed, dkim.Signature):
                self._tried.append(place)
                specs.append(parsed.body_hash_spec)
            else:
                self._unusable.append(place)
        self._tried.sort()
        self._unusable.sort()
        self.skipped = len(self._fields) - len(self._tried) - len(self._unusable)
        return specs

    def verify(self, hashes: dkim.BodyHashes, now: int) -> tuple[dkim.Evaluation, ...]:
        """One evaluation for each signature that was tried, then those that could not be parsed.

        :param hashes: made for the specs that `header_complete` returned, and fed with the whole body.
        """
        return tuple([self._verify(place, hashes, now) for place in (*self._tried, *self._unusable)])

    def _verify(self, place: int, hashes: dkim.BodyHashes, now: int) -> dkim.Evaluation:
        parsed = self._parsed[place]
        if isinstance(parsed, dkim.Evaluation):
            return parsed
        lookup = self._keys[place].result()
        return dkim.verify(parsed, lookup, self._header, hashes, now=now, settings=self._settings)

    def verify_chain(self, hashes: dkim.BodyHashes, now: int) -> arc.Evaluation | None:
        """The evaluation of the ARC chain; None if ARC is switched off. The parameters are those of `verify`."""
        if isinstance(self._chain, arc.Chain) and self._arc_lookups is not None:
            lookups = self._arc_lookups.result()
            return arc.verify(self._chain, lookups, self._header, hashes, now=now, settings=self._settings)
        return self._chain if isinstance(self._chain, arc.Evaluation) else None
