# SPDX-License-Identifier: GPL-3.0-or-later
"""check_host() (RFC 7208, 4) as an inquiry: one domain's policy evaluated for one client.

The policy is evaluated from its start with the answers at hand, in order, exactly as the RFC says. Where an answer is
missing, the evaluation goes on as if that term did not match, only to find what else can be asked in the same batch;
then it starts again as soon as there are more answers. So a chain of includes costs as many rounds as it is deep, no
result, limit or count ever depends on a guess, and nobody waits for an answer behind the term that matches, nor for
long for an explanation, which changes no result. An evaluation takes microseconds, a round takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from assay.inquiry import Answer, Brief, Inquiry, Outcome, RecordType, grounds
from assay.model.name import Domain, InvalidNameError
from assay.model.printable import marked_ascii
from assay.model.smtp import Address, canonical_address
from assay.protocol.spf import macro, mechanism
from assay.protocol.spf.mechanism import Context
from assay.protocol.spf.observer import Observer
from assay.protocol.spf.record import Directive, Mechanism, SpfRecord, shown
from assay.protocol.spf.request import Request, Selector, is_multi_label
from assay.protocol.spf.result import Evaluation, Match, Result, Trouble

MAX_EXPLANATION = 450  # characters; our choice: with a reply code it still fits a line of 512 (RFC 5321, 4.5.3.1.5)
MAX_MECHANISM = 200  # characters of a term that are kept in an evaluation; our choice

#: How a reason states what a match means (RFC 7208, 2.6).
_VERBS: Mapping[Result, str] = {
    Result.PASS: "permits",
    Result.FAIL: "does not permit",
    Result.SOFTFAIL: "probably does not permit",
    Result.NEUTRAL: "makes no statement about",
}


def check(request: Request, observer: Observer | None = None) -> Inquiry[Evaluation]:
    """Check one identity: by the domain's own record, else by the request's best guess.

    :param observer: is called with each event of the check, as it happens.
    """
    found = yield from check_host(request, observer)
    if not request.best_guess or found.result is not Result.NONE or found.domain is None or not found.domain_exists:
        return found
    guess = yield from check_host(replace(request, record=request.best_guess), observer)
    return replace(
        guess,
        guessed=True,
        reason=f"best guess, because {found.domain} has no record: {guess.reason}",
        explanation="",  # an exp= of ours would be taken for the domain's words
        uses_macros=found.uses_macros or guess.uses_macros,
    )


def check_host(request: Request, observer: Observer | None = None) -> Inquiry[Evaluation]:
    """The check_host() function (RFC 7208, 4)."""
    if request.fault:  # RFC 7208, 4.3
        return Evaluation(Result.NONE, request.identity, None, request.sender, reason=request.fault)
    address = canonical_address(request.address)
    local_part, _, sender_domain = request.sender.rpartition("@")
    local_part = local_part or "postmaster"
    values = _values(address, local_part, sender_domain, request.helo, request.receiver, request.now)
    context = Context(address, values, request.limits, observer)
    walk = _Walk(context, request.selector)
    domain = request.domain.removesuffix(".")
    if request.record is not None:
        walk.given = domain
        answer = Answer(Outcome.FOUND, (request.record,))
        walk.policies[domain] = walk.read_policy(domain, answer), answer
    if observer is not None:
        observer.begins(address, None if request.record is None else (domain, request.record))
    while True:  # each round answers at least one more question, and `limits` bound how many there can be
        context.restart()
        if observer is not None:
            observer.restarts()
        decision = walk.host(domain, 0)
        uses_local_part = context.uses_local_part  # by the policy; what the explanation says does not count
        read = len(context.used)
        settled = not context.missing
        explanation = ""
        if settled and request.explain:
            explanation = walk.explanation(decision, request.default_explanation)
        if not context.missing:
            break
        asked = context.questions()
        context.answered((yield Brief(asked) if settled else asked), late=settled)
    return Evaluation(
        result=decision.result,
        identity=request.identity,
        domain=_domain_or_none(domain),
        sender=values["s"],
        mechanism=_mechanism(decision),
        reason=_reason(decision, address),
        explanation=explanation,
        dns_terms=context.dns_terms,
        void_lookups=context.void_lookups,
        all_matched=decision.directive is not None and decision.directive.mechanism is Mechanism.ALL,
        uses_local_part=uses_local_part,
        uses_macros=context.uses_macros,
        domain_exists=decision.domain_exists,
        grounds=grounds(context.used[:read]),
    )


class _Decision(Struct, frozen=True):
    """The outcome of the evaluation of one domain's policy.

    `directive` is the one that matched, in the `record` of `domain`, both after any redirect. A record without a
    directive means that nothing in it matched. Without a record there is a `reason`; with one, the reason is written
    when the whole check is over, because most decisions are of includes, whose reasons nobody reads.
    """

    result: Result
    reason: str = ""
    directive: Directive | None = None
    domain: str = ""
    record: SpfRecord | None = None
    domain_exists: bool = True


#: The policy must be looked up first. Never seen outside: an answer is missing then.
_UNKNOWN = _Decision(Result.NONE)

_HOST_MECHANISMS: Mapping[Mechanism, Callable[[Context, Directive, str], Match]] = {
    Mechanism.A: mechanism.a,
    Mechanism.MX: mechanism.mx,
    Mechanism.PTR: mechanism.ptr,
    Mechanism.EXISTS: mechanism.exists,
}


class _Walk:
    """The walk through the policies of one check.

    `policies` caches each domain's TXT answer and what was read from it, so that the next walk need not read it again.
    `given` is the domain whose policy the caller supplied.
    """

    __slots__ = ("context", "given", "observer", "policies", "selector")

    def __init__(self, context: Context, selector: Selector) -> None:
        self.context = context
        self.selector = selector
        self.observer = context.observer
        self.given: str | None = None
        self.policies: dict[str, tuple[SpfRecord | _Decision, Answer]] = {}

    def host(self, domain: str, depth: int) -> _Decision:
        """Evaluate the policy of one domain (RFC 7208, 4.6).

        `depth` is how many includes lead here. `Limits.dns_terms` bounds it, because each include counts.
        """
        observer = self.observer
        if observer is None:
            return self._host(domain, depth)
        observer.policy(depth, domain)
        if domain != self.given:
            self.policies.pop(domain, None)  # so that the lookup is reported, even if an earlier round made it
        decision = self._host(domain, depth)
        observer.decided(depth, domain, decision.result, _reason(decision, self.context.address))
        return decision

    def _host(self, domain: str, depth: int) -> _Decision:
        context, record = self.context, self._policy(domain)
        if isinstance(record, _Decision):
            return record
        for directive in record.directives:  # bounded by the length of a record
            if directive.ip_version:  # most terms of most records: keep them fast
                match: Match = mechanism.network(context, directive)
            else:
                match = self._match(directive, domain, depth)
            if self.observer is not None:
                self.observer.matched(depth, domain, directive, match)
            if isinstance(match, Trouble):
                return _Decision(match.result, match.reason)
            if match:
                return _Decision(directive.result, "", directive, domain, record)
        return self._redirect(record, domain, depth)

    def explanation(self, decision: _Decision, default: str) -> str:
        """The sender's explanation of a fail (RFC 7208, 6.2), else our own text.

        It does not count for any limit, and an error in it does not change the result. An ``exp=`` in an included
        record or in one that redirects is never used: `decision` has the record that decided.
        """
        record, context = decision.record, self.context
        if decision.result is not Result.FAIL or record is None:
            return ""
        context.ahead = False
        text = ""
        if record.exp is not None:
            if self.observer is not None:
                self.observer.term(0, decision.domain, record.exp.text)
            name = context.target(record.exp.macro_string, decision.domain)
            answer = None if name is None else context.lookup(name, RecordType.TXT)
            # RFC 7208, 6.2: anything but exactly one record is as if there were no exp=.
            if answer is not None and len(answer.texts) == 1:
                text = self._expand(answer.texts[0].decode("ascii", "replace"), decision.domain)
        if not text and not context.missing:
            text = self._expand(default, decision.domain)
        if record.exp is not None and self.observer is not None:
            self.observer.explained(text)
        return text

    def _expand(self, text: str, domain: str) -> str:
        """Expand an explain-string to the text of a reply; empty if it cannot be one."""
        try:
            string = macro.parse(text, explanation=True)
        except macro.MacroError as error:
            if self.observer is not None:
                self.observer.not_expanded(f"not an explain-string: {error}")
            return ""  # RFC 7208, 6.2: a syntax error, or a character that is not ASCII
        expanded = self.context.expand(string, domain) or ""
        # The grammar keeps the text printable, but the sender of this mail chose what its macros stand for.
        expanded = marked_ascii(expanded[:MAX_EXPLANATION])
        if self.observer is not None:
            self.observer.expanded(string, expanded, self.context.values)
        return expanded

    def _policy(self, domain: str) -> SpfRecord | _Decision:
        """The record of a domain (RFC 7208, 4.3 to 4.5), or the decision where there is none to evaluate."""
        known = self.policies.get(domain)
        if known is not None:
            self.context.used.append(known[1])
            return known[0]
        if not is_multi_label(domain):  # RFC 7208, 4.3
            return _Decision(Result.NONE, f"{shown(domain) or 'nothing'} is not a fully qualified domain name")
        answer = self.context.lookup(domain, RecordType.TXT)
        if answer is None:
            return _UNKNOWN
        policy = self.read_policy(domain, answer)
        self.policies[domain] = policy, answer
        if self.observer is not None:
            for text in answer.texts:  # bounded by the length of a DNS message
                if self.selector((text,)) is not None:
                    self.observer.record(text)
        return policy

    def read_policy(self, domain: str, answer: Answer) -> SpfRecord | _Decision:
        """Read a TXT answer (RFC 7208, 4.4 to 4.6)."""
        if answer.outcome is Outcome.FOUND:
            record = self.selector(answer.texts)
            if record is not None and not record.faults:
                return record
        else:
            record = None
        name = shown(domain)
        if answer.outcome is Outcome.TEMPFAIL:  # RFC 7208, 4.4
            return _Decision(Result.TEMPERROR, f"TXT lookup of {name} failed: {shown(answer.reason) or 'no answer'}")
        if answer.outcome is Outcome.NXDOMAIN:  # RFC 7208, 4.3
            return _Decision(Result.NONE, f"{name} does not exist", domain_exists=False)
        if record is None:
            return _Decision(Result.NONE, f"{name} publishes no SPF record")
        # RFC 7208, 4.6: a syntax error anywhere in the record
        more = f" (and {len(record.faults) - 1} more)" if len(record.faults) > 1 else ""
        return _Decision(Result.PERMERROR, f"record of {name}: {record.faults[0]}{more}")

    def _match(self, directive: Directive, domain: str, depth: int) -> Match:
        """Evaluate a mechanism other than ``ip4`` and ``ip6``, and count it where it asks the DNS."""
        kind = directive.mechanism
        if self.observer is not None:
            self.observer.term(depth, domain, directive.text)
        if kind is Mechanism.ALL:
            return True
        match: Match | None = self.context.begin_term()
        if match is None:
            if kind is Mechanism.INCLUDE:
                return self._include(directive, domain, depth)
            match = _HOST_MECHANISMS[kind](self.context, directive, domain)
        return _located(match, directive.text, domain) if isinstance(match, Trouble) else match

    def _include(self, directive: Directive, domain: str, depth: int) -> Match:
        """``include``: the client passes the policy of another domain (the table of RFC 7208, 5.2)."""
        if depth >= self.context.limits.nested_includes:
            reason = f"includes nest more than {self.context.limits.nested_includes} deep"
            return _located(Trouble(Result.PERMERROR, reason), directive.text, domain)
        target = self.context.target(directive.domain_spec, domain)
        if target is None:
            return False
        decision = self.host(target, depth + 1)
        match decision.result:
            case Result.PASS:
                return True
            case Result.FAIL | Result.SOFTFAIL | Result.NEUTRAL:
                return False
            case Result.TEMPERROR:
                return Trouble(Result.TEMPERROR, decision.reason)
        if decision is _UNKNOWN:
            return False
        trouble = Trouble(Result.PERMERROR, decision.reason)
        return trouble if decision.result is Result.PERMERROR else _located(trouble, directive.text, domain)

    def _redirect(self, record: SpfRecord, domain: str, depth: int) -> _Decision:
        """``redirect``: use the other domain's policy if no mechanism matched (RFC 7208, 6.1)."""
        neutral = _Decision(Result.NEUTRAL, "", None, domain, record)  # RFC 7208, 4.7
        if record.redirect is None:
            return neutral
        if self.observer is not None:
            self.observer.term(depth, domain, record.redirect.text)
        trouble = self.context.begin_term()
        if trouble is not None:
            return _Decision(trouble.result, _located(trouble, record.redirect.text, domain).reason)
        target = self.context.target(record.redirect.macro_string, domain)
        if target is None:  # RFC 8616, 4: ignore it if its local part is not ASCII
            return neutral
        if self.observer is not None:
            self.observer.continues(target)
        decision = self.host(target, depth)
        if decision.result is Result.NONE and decision is not _UNKNOWN:  # RFC 7208, 6.1: no record is an error here
            trouble = Trouble(Result.PERMERROR, decision.reason)
            return _Decision(trouble.result, _located(trouble, record.redirect.text, domain).reason)
        return decision


def _located(trouble: Trouble, term: str, domain: str) -> Trouble:
    """The same trouble, with the term that caused it."""
    return Trouble(trouble.result, f"{trouble.reason}, in {shown(term)} of {shown(domain)}")


def _mechanism(decision: _Decision) -> str:
    """The ``mechanism`` key of a trace field (RFC 7208, 9.1)."""
    if decision.directive is not None:
        return decision.directive.text[:MAX_MECHANISM]
    return "default" if decision.record is not None else ""


def _reason(decision: _Decision, address: Address) -> str:
    """The reason for the result, in one clause: which domain says what about which client, by which term."""
    if decision.directive is not None:
        verb = _VERBS[decision.result]
        return f"{shown(decision.domain)} {verb} {address}, by {shown(decision.directive.text)}"
    if decision.record is not None:
        return f"no term of {shown(decision.domain)} matches {address}"
    return decision.reason


def _domain_or_none(name: str) -> Domain | None:
    """The domain as a value if it is valid in mail; check_host() takes any name."""
    try:
        return Domain.parse(name)
    except InvalidNameError:
        return None


def _values(
    address: Address, local_part: str, sender_domain: str, helo: str, receiver: str, now: int
) -> dict[str, str]:
    """The values of the macro letters (RFC 7208, 7.2), except ``d`` and ``p``, which depend on the record."""
    is_ip4 = address.version == 4
    return {
        "s": f"{local_part}@{sender_domain}",
        "l": local_part,
        "o": sender_domain,
        # RFC 7208, 7.3: for an IPv6 address, its nibbles with dots. In a name their case does not matter.
        "i": str(address) if is_ip4 else ".".join(f"{int(address):032X}"),
        "v": "in-addr" if is_ip4 else "ip6",
        "h": helo,
        "c": str(address),
        "r": receiver,
        "t": str(now),
    }
