# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface to observe a check and see why it came to its result. An observer changes nothing.

A check evaluates the policy from its start in each round (see `assay.protocol.spf.check`), so an observer sees the same
events again after `restarts`; only those of the last round count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from assay.inquiry import Answer, RecordType
from assay.model.smtp import Address
from assay.protocol.spf import macro
from assay.protocol.spf.record import Directive
from assay.protocol.spf.result import Match, Result


class Observer(Protocol):
    """Receives each event of a check, in order. Texts are as the stranger wrote them."""

    def begins(self, address: Address, given: tuple[str, bytes] | None) -> None:
        """A check starts; `given` is the domain whose policy the caller supplied, with that policy."""

    def restarts(self) -> None:
        """The policy is evaluated from its start."""

    def policy(self, depth: int, domain: str) -> None:
        """The policy of a domain is evaluated; `depth` includes lead here."""

    def record(self, text: bytes) -> None:
        """A published text is, or claims to be, that policy."""

    def decided(self, depth: int, domain: str, result: Result, reason: str) -> None:
        """The policy of a domain came to a result."""

    def term(self, depth: int, domain: str, text: str) -> None:
        """A term is evaluated: a mechanism other than ``ip4`` and ``ip6``, or a modifier."""

    def matched(self, depth: int, domain: str, directive: Directive, match: Match) -> None:
        """A mechanism was evaluated. Included policies may have been reported in between."""

    def continues(self, target: str) -> None:
        """A redirect leads to another domain."""

    def explained(self, text: str) -> None:
        """The sender's explanation expanded to this text; empty for none."""

    def counted(self, dns_terms: int, most: int) -> None:
        """A term counts as one that needs a DNS lookup (RFC 7208, 4.6.4)."""

    def voided(self, void_lookups: int, most: int) -> None:
        """A term counts as one whose lookups find nothing (RFC 7208, 4.6.4)."""

    def looked_up(self, name: str, kind: RecordType, answer: Answer) -> None:
        """An answer was used."""

    def expanded(self, string: macro.MacroString, text: str, values: dict[str, str]) -> None:
        """A macro string was expanded to a text, with these values of the macro letters."""

    def not_expanded(self, why: str) -> None:
        """A macro string cannot be expanded here."""

    def compared(self, answer: Answer, directive: Directive) -> None:
        """The client was compared with addresses, up to the first that matches."""

    def validated(self, names: Sequence[str], valid: str | None) -> None:
        """Names of the client were looked up in order; None while an answer is missing (RFC 7208, 5.5)."""
