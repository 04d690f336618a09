# SPDX-License-Identifier: GPL-3.0-or-later
"""The mechanisms that look hosts up (RFC 7208, 5.3 to 5.7), and the context they share.

Nothing here waits. `Context.lookup` returns an answer that is at hand, or notes the question as missing and returns
None; a mechanism then reports "no match", and the check asks all missing questions and evaluates again. So everything
after the first missing answer is a guess: good for asking ahead, never for a result.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from assay.inquiry import PENDING, Answer, Eager, Outcome, Question, RecordType
from assay.model.name import MAX_DOMAIN_LENGTH
from assay.model.smtp import Address
from assay.protocol.spf import macro
from assay.protocol.spf.observer import Observer
from assay.protocol.spf.record import Directive, shown
from assay.protocol.spf.result import Limits, Match, Result, Trouble

#: Bounds even a generous `Limits.dns_terms`: each include is a level of recursion here.
MAX_DNS_TERMS = 100

# A name that the DNS can carry and that is safe to log. Each label excludes the dot: linear.
_NAME = re.compile(r"[\x20-\x2d\x2f-\x7e]{1,63}(?:\.[\x20-\x2d\x2f-\x7e]{1,63})*")

#: RFC 7208, 4.8 leaves the result of an expansion that is not a name to us: it does not exist, without a question. So
#: nobody can forge that.
_NO_SUCH_NAME = Answer(Outcome.NXDOMAIN, secure=True)


Key = tuple[str, RecordType]  # what a question asks: a plain tuple is found faster than a Question


class Context:
    """One check's client, its answers so far and its counters.

    For the whole check: `address` and what is derived from it; `values`, what the macro letters stand for, of which
    ``d`` and ``p`` change with the record; `answers`, which only grows; `ahead_left`, how many questions may still be
    asked before they are known to be needed; `uses_macros`, whether one was ever expanded; `asked`, the questions
    that were asked so far, answered or not.

    For one evaluation from the start of the policy, cleared by `restart`: `missing`, the questions that came up without
    an answer; `used`, the answers that it read; the counters; `uses_local_part`. For one term, set by `begin_term`:
    `term_is_void`; and `ahead`, whether an answer is missing already, so that the term is evaluated on a guess.
    """

    __slots__ = (
        "address",
        "address_type",
        "ahead",
        "ahead_left",
        "answers",
        "asked",
        "dns_terms",
        "ip_version",
        "limits",
        "local_part_is_ascii",
        "missing",
        "number",
        "observer",
        "term_is_void",
        "used",
        "uses_local_part",
        "uses_macros",
        "values",
        "void_lookups",
    )

    def __init__(
        self, address: Address, values: dict[str, str], limits: Limits, observer: Observer | None = None
    ) -> None:
        self.address = address
        self.number = int(address)
        self.ip_version = address.version
        self.address_type = RecordType.A if address.version == 4 else RecordType.AAAA
        self.values = values
        self.local_part_is_ascii = values["l"].isascii()
        self.limits = limits
        self.observer = observer
        self.answers: dict[Key, Answer] = {}
        self.asked: set[Key] = set()
        self.ahead_left = limits.questions_ahead
        self.uses_macros = False
        self.restart()

    def restart(self) -> None:
        """Begin an evaluation at the start of the policy."""
        self.missing: dict[Key, None] = {}  # a set that keeps its order
        self.used: list[Answer] = []
        self.ahead = False
        self.dns_terms = 0
        self.void_lookups = 0
        self.term_is_void = False
        self.uses_local_part = False

    def begin_term(self) -> Trouble | None:
        """Count a term that asks the DNS (RFC 7208, 4.6.4)."""
        self.dns_terms += 1
        most = min(self.limits.dns_terms, MAX_DNS_TERMS)
        if self.observer is not None:
            self.observer.counted(self.dns_terms, most)
        if self.dns_terms > most:
            return Trouble(Result.PERMERROR, f"more than {most} terms that ask the DNS")
        self.term_is_void = False
        self.ahead = bool(self.missing)
        return None

    def lookup(self, name: str, kind: RecordType) -> Answer | None:
        """The answer, or None if it is not at hand and must be asked for."""
        answer = self._known(name, kind)
        if answer is not None:
            self.used.append(answer)
            if self.observer is not None:
                self.observer.looked_up(name, kind, answer)
        return answer

    def _known(self, name: str, kind: RecordType) -> Answer | None:
        if not name.isascii():  # before any lower(): U+212A would become a "k", and another name be found
            return _NO_SUCH_NAME
        key = (name.lower(), kind)
        answer = self.answers.get(key)
        if answer is not None or key in self.missing:
            return answer
        if len(name) > MAX_DOMAIN_LENGTH or not _NAME.fullmatch(name):
            return _NO_SUCH_NAME
        if key not in self.asked:
            if self.ahead:
                if not self.ahead_left:
                    return None
                self.ahead_left -= 1
            self.asked.add(key)
        self.missing[key] = None
        return None

    def questions(self) -> Eager:
        """The questions to ask before the next evaluation. Any answer may be the one that decides."""
        return Eager(Question(name, kind) for name, kind in self.missing)

    def answered(self, answers: Sequence[Answer], late: bool = False) -> None:
        """Take the answers to `questions`, in the same order.

        :param late: what is still pending counts as a failure.
        """
        for key, answer in zip(self.missing, answers, strict=True):
            if late or answer is not PENDING:
                self.answers[key] = answer

    def void(self, answer: Answer) -> Match:
        """Count the current term as one whose lookup found nothing: once, however many lookups it makes.

        RFC 7208, 4.6.4 counts terms, not lookups. Counting every lookup would make any ``mx`` with three
        names that have no IPv6 address a permerror for IPv6 clients. A name that was never asked is not counted.
        """
        if not self.term_is_void and answer is not _NO_SUCH_NAME:
            self.term_is_void = True
            self.void_lookups += 1
            if self.observer is not None:
                self.observer.voided(self.void_lookups, self.limits.void_lookups)
        if self.void_lookups > self.limits.void_lookups:
            return Trouble(Result.PERMERROR, f"more than {self.limits.void_lookups} terms whose lookups find nothing")
        return False

    def target(self, domain_spec: macro.MacroString | None, domain: str) -> str | None:
        """The target name of a term (RFC 7208, 4.8), or None for a term that cannot match or must wait."""
        if domain_spec is None:
            return domain
        name = self._target(domain_spec, domain)
        if self.observer is not None:
            if name is None:  # or an answer is missing, and this will be discarded
                self.observer.not_expanded("not expanded: the local part is not ASCII (RFC 8616)")
            else:
                self.observer.expanded(domain_spec, name, self.values)
        return name

    def _target(self, domain_spec: macro.MacroString, domain: str) -> str | None:
        name = domain_spec.literal
        if name is None:
            self.uses_macros = True
            # RFC 8616, 4: a term with the local part does not match where that is not ASCII.
            if domain_spec.uses_local_part and not self.local_part_is_ascii:
                self.uses_local_part = True
                return None
            # Not ahead of need: a reverse lookup of the client is the slowest of all and seldom decides.
            if domain_spec.uses_validated_name and self.ahead:
                return None
            name = self.expand(domain_spec, domain, tail=MAX_DOMAIN_LENGTH + len("x."))
            if name is None:
                return None
        name = name.removesuffix(".")
        if len(name) > MAX_DOMAIN_LENGTH:
            # RFC 7208, 7.3: labels are dropped from the left until it fits.
            name = name[-MAX_DOMAIN_LENGTH - 1 :].partition(".")[2]
        return name

    def expand(self, string: macro.MacroString, domain: str, *, tail: int | None = None) -> str | None:
        """Expand a macro string in the record of `domain`; None while ``%{p}`` is not known. See `macro.expand`."""
        if string.literal is None:
            self.uses_macros = True
        if string.uses_local_part:
            self.uses_local_part = True
        self.values["d"] = domain
        if string.uses_validated_name:
            name = self.validated_name(domain)
            if name is None:
                return None
            self.values["p"] = name
        return macro.expand(string, self.values, tail=tail)

    def matches(self, answer: Answer, directive: Directive) -> bool:
        """Whether the client is in one of the networks around the found addresses (RFC 7208, 5).

        An empty answer never matches, not even with a prefix length of 0 (RFC 7208, 5.3).
        """
        shift = directive.ip4_host_bits if self.ip_version == 4 else directive.ip6_host_bits
        number = self.number >> shift
        if self.observer is not None:
            self.observer.compared(answer, directive)
        return any(int(address) >> shift == number for address in answer.addresses)

    def reverse_lookup(self) -> Answer | None:
        """The names that the reverse zone gives for the client's address."""
        return self.lookup(self.address.reverse_pointer, RecordType.PTR)

    def reverse_names(self, answer: Answer) -> list[str]:
        """The names that may be looked up: all after the first ten are ignored (RFC 7208, 4.6.4)."""
        return [name.lower().removesuffix(".") for name in answer.names[: self.limits.ptr_names]]

    def validated(self, names: Sequence[str]) -> str | None:
        """The first name that has the client's address (RFC 7208, 5.5); empty if none has, None while it is not known.

        The answers for the names after it are not waited for.
        """
        found: str | None = ""
        for position, name in enumerate(names):
            answer = self.lookup(name, self.address_type)
            if answer is None:  # ask for the others in the same round
                for later in names[position + 1 :]:
                    self.lookup(later, self.address_type)
                found = None
                break
            if self.address in answer.addresses:
                found, names = name, names[: position + 1]
                break
        if self.observer is not None:
            self.observer.validated(names, found)
        return found

    def is_validated(self, name: str) -> bool:
        """Whether it is known by now that a name has the client's address."""
        return self.address in self.answers.get((name, self.address_type), PENDING).addresses

    def validated_name(self, domain: str) -> str | None:
        """The value of ``%{p}`` (RFC 7208, 7.3): the domain itself, else a name below it, else any, else "unknown"."""
        answer = self.reverse_lookup()
        if answer is None:
            return None
        domain = domain.lower()
        names = self.reverse_names(answer)
        found = self.validated(sorted(names, key=lambda name: (name != domain, not name.endswith("." + domain))))
        return None if found is None else found or "unknown"


def network(context: Context, directive: Directive) -> bool:
    """``ip4`` and ``ip6``: the client is in the network (RFC 7208, 5.6). Needs no lookup."""
    # RFC 7208, 5: an IPv4 client never matches ip6, not even as an IPv4-mapped address.
    if directive.ip_version != context.ip_version:
        return False
    host_bits = directive.ip4_host_bits if context.ip_version == 4 else directive.ip6_host_bits
    return context.number >> host_bits == directive.network


def a(context: Context, directive: Directive, domain: str) -> Match:
    """``a``: the client has an address of the target name (RFC 7208, 5.3)."""
    target = context.target(directive.domain_spec, domain)
    if target is None:
        return False
    return _has_address(context, directive, target)


def mx(context: Context, directive: Directive, domain: str) -> Match:
    """``mx``: the client has an address of one of the target's mail exchangers (RFC 7208, 5.4)."""
    target = context.target(directive.domain_spec, domain)
    answer = None if target is None else context.lookup(target, RecordType.MX)
    if target is None or answer is None:
        return False
    if answer.outcome is Outcome.TEMPFAIL:
        return _temperror(target, RecordType.MX, answer)
    if answer.outcome is not Outcome.FOUND:
        return context.void(answer)
    if len(answer.exchanges) > context.limits.mx_names:
        return Trouble(Result.PERMERROR, f"{shown(target)} has more than {context.limits.mx_names} MX names")
    # RFC 7505, 3: a null MX has no host. Without a name there is no fallback to an address either (RFC 7208, 5.4).
    ordered = sorted((mx.preference, mx.exchange) for mx in answer.exchanges if mx.exchange)
    for position, (_, name) in enumerate(ordered):
        match = _has_address(context, directive, name)
        if match:
            return match
        if context.missing:  # ask for all the names at once; their answers are then read in order
            for _, later in ordered[position + 1 :]:
                context.lookup(later, context.address_type)
            return False
    return False


def ptr(context: Context, directive: Directive, domain: str) -> Match:
    """``ptr``: a validated name of the client is the target name or below it (RFC 7208, 5.5)."""
    if context.ahead:  # see Context.target: not ahead of need
        return False
    target = context.target(directive.domain_spec, domain)
    answer = None if target is None else context.reverse_lookup()
    # RFC 7208, 5.5: here a failed lookup is not an error but no match.
    if target is None or answer is None or answer.outcome is Outcome.TEMPFAIL:
        return False
    if answer.outcome is not Outcome.FOUND:
        return context.void(answer)
    # RFC 7208, 5.5 looks up the addresses of all names; those of names that could not match change nothing.
    target = target.lower() if target.isascii() else ""
    below = "." + target
    names = [name for name in context.reverse_names(answer) if name == target or name.endswith(below)]
    # Any of them matches; so one that is known to be valid comes first.
    return bool(context.validated(sorted(names, key=context.is_validated, reverse=True)))


def exists(context: Context, directive: Directive, domain: str) -> Match:
    """``exists``: the target name has any IPv4 address, even if the client has IPv6 (RFC 7208, 5.7)."""
    target = context.target(directive.domain_spec, domain)
    answer = None if target is None else context.lookup(target, RecordType.A)
    if target is None or answer is None:
        return False
    if answer.outcome is Outcome.TEMPFAIL:
        return _temperror(target, RecordType.A, answer)
    return answer.outcome is Outcome.FOUND or context.void(answer)


def _has_address(context: Context, directive: Directive, name: str) -> Match:
    """Whether the client is in a network around an address of `name`, in its own address family (RFC 7208, 5)."""
    answer = context.lookup(name, context.address_type)
    if answer is None:
        return False
    if answer.outcome is Outcome.TEMPFAIL:
        return _temperror(name, context.address_type, answer)
    if answer.outcome is not Outcome.FOUND:
        return context.void(answer)
    return context.matches(answer, directive)


def _temperror(name: str, kind: RecordType, answer: Answer) -> Trouble:
    """RFC 7208, 5: a lookup that fails ends the check, except in ``ptr``."""
    return Trouble(Result.TEMPERROR, f"{kind} lookup of {shown(name)} failed: {shown(answer.reason) or 'no answer'}")
