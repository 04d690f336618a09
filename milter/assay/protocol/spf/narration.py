# SPDX-License-Identifier: GPL-3.0-or-later
"""A context that tells what the check does (`Evaluation.steps`), for whoever wants to see why a result came out so.

It answers exactly as the plain `Context` does and only notes what it answered, so that a narrated check has the same
result. A check that nobody narrates never comes here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_network

from assay.inquiry import Answer, Question, RecordType
from assay.model.smtp import Address
from assay.protocol.spf import macro
from assay.protocol.spf.evaluation import Event, Limits, Step
from assay.protocol.spf.mechanism import MAX_DNS_TERMS, Context, Match, Trouble
from assay.protocol.spf.record import IP4_BITS, IP6_BITS, Directive


class NarratingContext(Context):
    """`steps` is the narration since `restart`; `depth`, `domain` and `term` are what is being told about.

    `given` is the domain whose policy the caller brought along, with that policy.
    """

    __slots__ = ("depth", "domain", "given", "steps", "term")

    def __init__(self, address: Address, values: dict[str, str], limits: Limits) -> None:
        self.given: tuple[str, bytes] | None = None
        super().__init__(address, values, limits)

    def restart(self) -> None:
        """Begin the narration anew: what was told before had answers missing."""
        super().restart()
        self.steps: list[Step] = []
        self.at(0, "", "")

    def at(self, depth: int, domain: str, term: str) -> None:
        """What is told next is about this term."""
        self.depth, self.domain, self.term = depth, domain, term

    def note(self, event: Event, text: str, question: Question | None = None, answer: Answer | None = None) -> None:
        """Tell one thing."""
        self.steps.append(Step(self.depth, self.domain, self.term, event, text, question, answer))

    def begins(self, depth: int, domain: str, term: str) -> None:
        """A term is looked at."""
        self.at(depth, domain, term)
        self.note(Event.TERM, term)

    def ends(self, depth: int, domain: str, directive: Directive, match: Match) -> None:
        """A mechanism was looked at. Included policies may have been told meanwhile."""
        if directive.ip_version:
            self.begins(depth, domain, directive.text)
            self.note(Event.COMPARISON, self._network(directive, match is True))
        self.at(depth, domain, directive.text)
        if isinstance(match, Trouble):
            self.note(Event.OUTCOME, match.reason)
        else:
            self.note(Event.OUTCOME, f"match: {directive.result}" if match else "no match")

    def texts(self, domain: str) -> tuple[bytes, ...]:
        """The texts that the policy of a domain was chosen from."""
        if self.given is not None and self.given[0] == domain:
            return (self.given[1],)
        answer = self.answers.get((domain.lower(), RecordType.TXT)) if domain.isascii() else None
        return () if answer is None else answer.texts

    def begin_term(self) -> Trouble | None:
        trouble = super().begin_term()
        self.note(Event.COUNT, f"DNS term {self.dns_terms} of {min(self.limits.dns_terms, MAX_DNS_TERMS)}")
        return trouble

    def lookup(self, name: str, kind: RecordType) -> Answer | None:
        answer = super().lookup(name, kind)
        if answer is not None:
            question = Question(name.lower() if name.isascii() else name, kind)
            self.note(Event.LOOKUP, "", question, answer)
        return answer

    def void(self, answer: Answer) -> Match:
        before = self.void_lookups
        match = super().void(answer)
        if self.void_lookups > before:
            self.note(Event.COUNT, f"void lookup {self.void_lookups} of {self.limits.void_lookups}")
        return match

    def target(self, domain_spec: macro.MacroString | None, domain: str) -> str | None:
        name = super().target(domain_spec, domain)
        if name is None:  # RFC 8616, 4; or an answer is missing, and this will be forgotten
            self.note(Event.EXPANSION, "not expanded: the local part is not ASCII (RFC 8616)")
        elif domain_spec is not None:
            self.expanded(domain_spec, name)
        return name

    def expanded(self, string: macro.MacroString, text: str) -> None:
        """A macro string was just expanded to a text: each macro with its value, if there is any."""
        values = ", ".join(dict.fromkeys(f"{written} = {value}" for written, value in self._macros(string)))
        if values:
            self.note(Event.EXPANSION, f"expands to {text or 'nothing'} ({values})")

    def matches(self, answer: Answer, directive: Directive) -> bool:
        most = IP4_BITS if self.ip_version == 4 else IP6_BITS
        host_bits = directive.ip4_host_bits if self.ip_version == 4 else directive.ip6_host_bits
        for address in answer.addresses:  # bounded by the length of a DNS message
            matched = int(address) >> host_bits == self.number >> host_bits
            network = f"{address}/{most - host_bits}" if host_bits else str(address)
            self.note(Event.COMPARISON, self._compared(network, host_bits, matched))
            if matched:
                break
        return super().matches(answer, directive)

    def validated(self, names: Iterable[str]) -> list[str] | None:
        names = list(names)
        valid = super().validated(names)
        if not names:
            self.note(Event.COMPARISON, f"none of the client's names is one that {self.term} asks for")
        for name in names if valid is not None else ():  # bounded by Limits.ptr_names
            said = "has" if valid and name in valid else "does not have"
            self.note(Event.COMPARISON, f"{name} {said} the client's address {self.address}")
        return valid

    def _network(self, directive: Directive, matched: bool) -> str:
        """What ``ip4`` or ``ip6`` compared."""
        if directive.ip_version != self.ip_version:
            return f"client {self.address} is not IPv{directive.ip_version}"
        host_bits = directive.ip4_host_bits if self.ip_version == 4 else directive.ip6_host_bits
        prefix = (IP4_BITS if self.ip_version == 4 else IP6_BITS) - host_bits
        # As octets: ip_network takes any small number for IPv4.
        number = (directive.network << host_bits).to_bytes(4 if self.ip_version == 4 else 16, "big")
        network = ip_network((number, prefix))
        return self._compared(str(network) if host_bits else str(network.network_address), host_bits, matched)

    def _compared(self, with_what: str, host_bits: int, matched: bool) -> str:
        relation = ("in" if matched else "not in") if host_bits else ("is" if matched else "is not")
        return f"client {self.address} {relation} {with_what}"

    def _macros(self, string: macro.MacroString) -> Iterator[tuple[str, str]]:
        for piece in string.pieces:  # bounded by macro.MAX_MACROS and the text between them
            if isinstance(piece, macro.Macro):
                yield macro.write(piece), macro.expand(macro.MacroString((piece,), None, False, False), self.values)
