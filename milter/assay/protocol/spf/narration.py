# SPDX-License-Identifier: GPL-3.0-or-later
"""A check step by step, to show why it came to its result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from ipaddress import IPv4Address, ip_network
from typing import NamedTuple

from assay.inquiry import Answer, Question, RecordType
from assay.model.smtp import Address
from assay.protocol.spf import macro
from assay.protocol.spf.record import IP4_BITS, IP6_BITS, Directive
from assay.protocol.spf.result import Match, Result, Trouble


class Event(StrEnum):
    """What a `Step` reports."""

    LOOKUP = "lookup"  #: a question and its answer
    RECORD = "record"  #: a published text that is, or claims to be, the policy of `Step.domain`
    TERM = "term"  #: a term is evaluated
    COUNT = "count"  #: the previous step counts for a limit (RFC 7208, 4.6.4)
    EXPANSION = "expansion"  #: what the macros of the term expanded to
    COMPARISON = "comparison"  #: what was compared, and with what result
    OUTCOME = "outcome"  #: the result of the term, or of the whole policy where `Step.term` is empty


class Step(NamedTuple):
    """One step of a check. Texts are as the stranger wrote them: escape them before printing."""

    depth: int
    """How many includes lead here."""

    domain: str
    """Whose policy is evaluated."""

    term: str
    """The current term as written; empty before the first one and after the last one."""

    event: Event
    text: str = ""
    question: Question | None = None
    """Of a lookup, with the name in lower case."""

    answer: Answer | None = None


_NOBODY = IPv4Address(0)


class Narrator:
    """Records the events of a check as steps (`assay.protocol.spf.observer.Observer`)."""

    def __init__(self) -> None:
        self._finished: tuple[Step, ...] = ()  # of the checks before this one, as before a best guess
        self._steps: list[Step] = []
        self._at: tuple[int, str, str] = (0, "", "")  # depth, domain and term of the next events
        self._address: Address = _NOBODY  # the client's
        self._given: tuple[str, bytes] | None = None

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps so far."""
        return (*self._finished, *self._steps)

    def begins(self, address: Address, given: tuple[str, bytes] | None) -> None:
        self._finished = self.steps
        self._steps = []
        self._address = address
        self._given = given

    def restarts(self) -> None:
        self._steps = []  # what was reported before had answers missing
        self._at = (0, "", "")

    def policy(self, depth: int, domain: str) -> None:
        self._at = (depth, domain, "")
        if self._given is not None and self._given[0] == domain:
            self.record(self._given[1])

    def record(self, text: bytes) -> None:
        self._note(Event.RECORD, text.decode("utf-8", "surrogateescape"))

    def decided(self, depth: int, domain: str, result: Result, reason: str) -> None:
        self._at = (depth, domain, "")
        self._note(Event.OUTCOME, f"{result}: {reason}")

    def term(self, depth: int, domain: str, text: str) -> None:
        self._at = (depth, domain, text)
        self._note(Event.TERM, text)

    def matched(self, depth: int, domain: str, directive: Directive, match: Match) -> None:
        if directive.ip_version:
            self.term(depth, domain, directive.text)
            self._note(Event.COMPARISON, self._network(directive, match is True))
        self._at = (depth, domain, directive.text)
        if isinstance(match, Trouble):
            self._note(Event.OUTCOME, match.reason)
        else:
            self._note(Event.OUTCOME, f"match: {directive.result}" if match else "no match")

    def continues(self, target: str) -> None:
        self._note(Event.OUTCOME, f"continue with {target}")

    def explained(self, text: str) -> None:
        self._note(Event.OUTCOME, f"explanation: {text}" if text else "no explanation")

    def counted(self, dns_terms: int, most: int) -> None:
        self._note(Event.COUNT, f"DNS term {dns_terms} of {most}")

    def voided(self, void_lookups: int, most: int) -> None:
        self._note(Event.COUNT, f"void lookup {void_lookups} of {most}")

    def looked_up(self, name: str, kind: RecordType, answer: Answer) -> None:
        self._note(Event.LOOKUP, "", Question(name.lower() if name.isascii() else name, kind), answer)

    def expanded(self, string: macro.MacroString, text: str, values: dict[str, str]) -> None:
        macros = ", ".join(dict.fromkeys(f"{written} = {value}" for written, value in _macros(string, values)))
        if macros:
            self._note(Event.EXPANSION, f"expands to {text or 'nothing'} ({macros})")

    def not_expanded(self, why: str) -> None:
        self._note(Event.EXPANSION, why)

    def compared(self, answer: Answer, directive: Directive) -> None:
        four = self._address.version == 4
        most = IP4_BITS if four else IP6_BITS
        host_bits = directive.ip4_host_bits if four else directive.ip6_host_bits
        number = int(self._address) >> host_bits
        for address in answer.addresses:  # bounded by the length of a DNS message
            matched = int(address) >> host_bits == number
            network = f"{address}/{most - host_bits}" if host_bits else str(address)
            self._note(Event.COMPARISON, self._compared(network, host_bits, matched))
            if matched:
                break

    def validated(self, names: Sequence[str], valid: str | None) -> None:
        if not names:
            term = self._at[2]
            self._note(Event.COMPARISON, f"none of the client's names is one that {term} asks for")
        for name in names if valid is not None else ():  # bounded by Limits.ptr_names
            said = "has" if name == valid else "does not have"
            self._note(Event.COMPARISON, f"{name} {said} the client's address {self._address}")

    def _note(self, event: Event, text: str, question: Question | None = None, answer: Answer | None = None) -> None:
        self._steps.append(Step(*self._at, event, text, question, answer))

    def _network(self, directive: Directive, matched: bool) -> str:
        """What ``ip4`` or ``ip6`` compared."""
        version = self._address.version
        if directive.ip_version != version:
            return f"client {self._address} is not IPv{directive.ip_version}"
        host_bits = directive.ip4_host_bits if version == 4 else directive.ip6_host_bits
        prefix = (IP4_BITS if version == 4 else IP6_BITS) - host_bits
        # As octets: ip_network takes any small number for IPv4.
        number = (directive.network << host_bits).to_bytes(4 if version == 4 else 16, "big")
        network = ip_network((number, prefix))
        return self._compared(str(network) if host_bits else str(network.network_address), host_bits, matched)

    def _compared(self, with_what: str, host_bits: int, matched: bool) -> str:
        relation = ("in" if matched else "not in") if host_bits else ("is" if matched else "is not")
        return f"client {self._address} {relation} {with_what}"


def _macros(string: macro.MacroString, values: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Each macro as written, with its value."""
    for piece in string.pieces:  # bounded by macro.MAX_MACROS and the text between them
        if isinstance(piece, macro.Macro):
            yield macro.write(piece), macro.expand(macro.MacroString((piece,), None, False, False), values)
