# SPDX-License-Identifier: GPL-3.0-or-later
"""check_host() (RFC 7208, 4) as an inquiry: one domain's policy, evaluated for one client.

The policy is evaluated from its start with the answers at hand, in order, exactly as the RFC says. Where an answer is
missing, the evaluation goes on as if that term did not match, only to see what else may be asked in the same batch;
then it starts again with more answers. So a chain of includes costs as many rounds as it is deep, and no result,
limit or count ever rests on a guess. An evaluation takes microseconds; a round takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from assay.inquiry import Answer, Inquiry, Outcome, RecordType
from assay.model.name import Domain, InvalidNameError
from assay.model.smtp import Address, canonical_address
from assay.protocol.spf import macro, mechanism
from assay.protocol.spf.evaluation import Evaluation, Event, Identity, Limits, Result
from assay.protocol.spf.mechanism import Context, Match, Trouble
from assay.protocol.spf.narration import NarratingContext
from assay.protocol.spf.record import Directive, Mechanism, Record, select, shown

MAX_EXPLANATION = 450  # characters; our choice: with a reply code it still fits a line of 512 (RFC 5321, 4.5.3.1.5)
MAX_MECHANISM = 200  # characters of a term that are kept in an evaluation; our choice

#: How a domain's TXT records become its policy: None for no record. Sender ID has another way (RFC 4406, 4.4).
Selector = Callable[[Sequence[bytes]], Record | None]

DEFAULT_LIMITS = Limits()

#: How a reason tells what a match means (RFC 7208, 2.6).
_VERBS: Mapping[Result, str] = {
    Result.PASS: "permits",
    Result.FAIL: "does not permit",
    Result.SOFTFAIL: "probably does not permit",
    Result.NEUTRAL: "makes no statement about",
}


def check_host(
    address: Address,
    domain: str,
    sender: str,
    helo: str,
    *,
    identity: Identity = Identity.MAILFROM,
    limits: Limits = DEFAULT_LIMITS,
    receiver: str = "unknown",
    now: int = 0,
    narrate: bool = False,
    record: bytes | None = None,
    default_explanation: str = "",
    selector: Selector = select,
) -> Inquiry[Evaluation]:
    """The check_host() function (RFC 7208, 4).

    :param domain: ``<domain>``; any name the DNS can carry, also one that no mail domain could be.
    :param sender: ``<sender>``, the local part not quoted. Without a local part it is the postmaster's (RFC 7208, 4.3).
    :param record: a policy to use in place of the domain's own, version included.
    :param default_explanation: an explain-string of ours, for a domain that fails without one of its own (RFC 7208,
        6.2). One that is no explain-string is not used.
    :param selector: what chooses the policy among the TXT records of the domain and of all that it includes.
    """
    address = canonical_address(address)
    local_part, _, sender_domain = sender.rpartition("@")
    local_part = local_part or "postmaster"
    values = _values(address, local_part, sender_domain, helo, receiver, now)
    narrator = NarratingContext(address, values, limits) if narrate else None
    context = narrator or Context(address, values, limits)
    check = _Check(context, selector) if narrator is None else _NarratingCheck(narrator, selector)
    domain = domain.removesuffix(".")
    if record is not None:
        check.policies[domain] = check.read_policy(domain, Answer(Outcome.FOUND, (record,)))
        if narrator is not None:
            narrator.given = (domain, record)
    while True:  # each round answers at least one more question, and `limits` bound how many there can be
        context.restart()
        decision = check.host(domain, 0)
        uses_local_part = context.uses_local_part  # by the policy; what the explanation says does not count
        explanation = "" if context.missing else check.explanation(decision, default_explanation)
        if not context.missing:
            break
        context.answered((yield context.questions()))
    return Evaluation(
        result=decision.result,
        identity=identity,
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
        steps=() if narrator is None else tuple(narrator.steps),
    )


def is_multi_label(name: str) -> bool:
    """Whether this is at least two labels and no address (RFC 7208, 4.3). What else a name may be the DNS decides."""
    _, dot, toplabel = name.rpartition(".")
    return bool(dot) and not toplabel.isdigit() and not name.startswith("[")


class _Decision(Struct, frozen=True):
    """How the evaluation of one domain's policy ended.

    `directive` is the one that matched, in the `record` of `domain`, which are those a redirect led to. Without a
    directive, a record tells that nothing in it matched. Without a record there is a `reason`; with one, it is written
    when the whole check is over, because most decisions are of includes and nobody reads theirs.
    """

    result: Result
    reason: str = ""
    directive: Directive | None = None
    domain: str = ""
    record: Record | None = None
    domain_exists: bool = True


#: The policy has to be asked for. Never seen outside, for then an answer is missing.
_UNKNOWN = _Decision(Result.NONE)

_HOST_MECHANISMS: Mapping[Mechanism, Callable[[Context, Directive, str], Match]] = {
    Mechanism.A: mechanism.a,
    Mechanism.MX: mechanism.mx,
    Mechanism.PTR: mechanism.ptr,
    Mechanism.EXISTS: mechanism.exists,
}


class _Check:
    """One check: the policies read so far, and the walk through them.

    `policies` holds what each domain's TXT answer came to, so that walking again does not read it again.
    """

    __slots__ = ("context", "narrator", "policies", "selector")

    def __init__(self, context: Context, selector: Selector) -> None:
        self.context = context
        self.selector = selector
        self.narrator: NarratingContext | None = None
        self.policies: dict[str, Record | _Decision] = {}

    def host(self, domain: str, depth: int) -> _Decision:
        """Evaluate the policy of one domain (RFC 7208, 4.6).

        `depth` tells how many includes lead here. It is bounded by `Limits.dns_terms`, for each include counts.
        """
        context, record = self.context, self._policy(domain)
        if isinstance(record, _Decision):
            return record
        for directive in record.directives:  # bounded by the length of a record
            if directive.ip_version:  # most terms of most records: no detour for them
                match: Match = mechanism.network(context, directive)
            else:
                match = self._match(directive, domain, depth)
            if self.narrator is not None:
                self.narrator.ends(depth, domain, directive, match)
            if isinstance(match, Trouble):
                return _Decision(match.result, match.reason)
            if match:
                return _Decision(directive.result, "", directive, domain, record)
        return self._redirect(record, domain, depth)

    def explanation(self, decision: _Decision, default: str) -> str:
        """What the sender says about a fail (RFC 7208, 6.2), else our own text.

        It counts for no limit, and no error in it changes the result. An ``exp=`` in an included record is never seen
        here, and one before a redirect neither: `decision` has the record that decided.
        """
        record, context = decision.record, self.context
        if decision.result is not Result.FAIL or record is None:
            return ""
        context.ahead = False
        if record.exp is not None:
            name = context.target(record.exp.macro_string, decision.domain)
            answer = None if name is None else context.lookup(name, RecordType.TXT)
            # RFC 7208, 6.2: anything but exactly one record is as if there were no exp=.
            if answer is not None and len(answer.texts) == 1:
                text = self._expand(answer.texts[0].decode("ascii", "replace"), decision.domain)
                if text:
                    return text
        return "" if context.missing else self._expand(default, decision.domain)

    def _expand(self, text: str, domain: str) -> str:
        """Make an explain-string the text of a reply, or nothing where it cannot be one."""
        try:
            string = macro.parse(text, explanation=True)
        except macro.MacroError:
            return ""  # RFC 7208, 6.2: a syntax error, or a character that is not ASCII
        expanded = self.context.expand(string, domain) or ""
        # The grammar keeps the text printable; what its macros stand for the sender of this mail chose.
        if not (expanded.isascii() and expanded.isprintable()):
            expanded = "".join(c if c.isascii() and c.isprintable() else "?" for c in expanded)
        return expanded[:MAX_EXPLANATION]

    def _policy(self, domain: str) -> Record | _Decision:
        """The record of a domain (RFC 7208, 4.3 to 4.5), or the decision where there is none to evaluate."""
        policy = self.policies.get(domain)
        if policy is not None:
            return policy
        if not is_multi_label(domain):  # RFC 7208, 4.3
            return _Decision(Result.NONE, f"{shown(domain) or 'nothing'} is no fully qualified domain name")
        answer = self.context.lookup(domain, RecordType.TXT)
        if answer is None:
            return _UNKNOWN
        policy = self.policies[domain] = self.read_policy(domain, answer)
        return policy

    def read_policy(self, domain: str, answer: Answer) -> Record | _Decision:
        """What a TXT answer comes to (RFC 7208, 4.4 to 4.6)."""
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
        if kind is Mechanism.ALL:
            return True
        match: Match | None = self.context.begin_term()
        if match is None:
            if kind is Mechanism.INCLUDE:
                return self._include(directive, domain, depth)
            match = _HOST_MECHANISMS[kind](self.context, directive, domain)
        return _located(match, directive.text, domain) if isinstance(match, Trouble) else match

    def _include(self, directive: Directive, domain: str, depth: int) -> Match:
        """``include``: the client passes the policy of another domain (RFC 7208, 5.2, whose table this is)."""
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

    def _redirect(self, record: Record, domain: str, depth: int) -> _Decision:
        """``redirect``: the other domain's policy is this one's too, where no mechanism matched (RFC 7208, 6.1)."""
        neutral = _Decision(Result.NEUTRAL, "", None, domain, record)  # RFC 7208, 4.7
        if record.redirect is None:
            return neutral
        trouble = self.context.begin_term()
        if trouble is not None:
            return _Decision(trouble.result, _located(trouble, record.redirect.text, domain).reason)
        target = self.context.target(record.redirect.macro_string, domain)
        if target is None:  # RFC 8616, 4: what has a local part that is not ASCII is as if it were not there
            return neutral
        if self.narrator is not None:
            self.narrator.note(Event.OUTCOME, f"continue with {target}")
        decision = self.host(target, depth)
        if decision.result is Result.NONE and decision is not _UNKNOWN:  # RFC 7208, 6.1: no record is an error here
            trouble = Trouble(Result.PERMERROR, decision.reason)
            return _Decision(trouble.result, _located(trouble, record.redirect.text, domain).reason)
        return decision


class _NarratingCheck(_Check):
    """The same check, telling what it does. What is told while answers are missing is forgotten at the next round."""

    __slots__ = ()

    def __init__(self, narrator: NarratingContext, selector: Selector) -> None:
        super().__init__(narrator, selector)
        self.narrator: NarratingContext = narrator

    def host(self, domain: str, depth: int) -> _Decision:
        """Tell where the policy comes from before it is evaluated, and its result behind it."""
        narrator = self.narrator
        narrator.at(depth, domain, "")
        if narrator.given is None or narrator.given[0] != domain:
            self.policies.pop(domain, None)  # so that the lookup is told, also when an earlier round made it
        self._policy(domain)
        for text in narrator.texts(domain):  # bounded by the length of a DNS message
            if self.selector((text,)) is not None:
                narrator.note(Event.RECORD, text.decode("utf-8", "surrogateescape"))
        decision = super().host(domain, depth)
        narrator.at(depth, domain, "")
        narrator.note(Event.OUTCOME, f"{decision.result}: {_reason(decision, self.context.address)}")
        return decision

    def explanation(self, decision: _Decision, default: str) -> str:
        """Tell how the sender's words came about."""
        record = decision.record
        if decision.result is not Result.FAIL or record is None or record.exp is None:
            return super().explanation(decision, default)
        self.narrator.begins(0, decision.domain, record.exp.text)
        text = super().explanation(decision, default)
        self.narrator.note(Event.OUTCOME, f"explanation: {text}" if text else "no explanation")
        return text

    def _expand(self, text: str, domain: str) -> str:
        expanded = super()._expand(text, domain)
        try:
            self.narrator.expanded(macro.parse(text, explanation=True), expanded)
        except macro.MacroError as error:
            self.narrator.note(Event.EXPANSION, f"no explain-string: {error}")
        return expanded

    def _match(self, directive: Directive, domain: str, depth: int) -> Match:
        self.narrator.begins(depth, domain, directive.text)
        return super()._match(directive, domain, depth)

    def _redirect(self, record: Record, domain: str, depth: int) -> _Decision:
        if record.redirect is not None:
            self.narrator.begins(depth, domain, record.redirect.text)
        return super()._redirect(record, domain, depth)


def _located(trouble: Trouble, term: str, domain: str) -> Trouble:
    """The same trouble, with the term that ran into it."""
    return Trouble(trouble.result, f"{trouble.reason}, in {shown(term)} of {shown(domain)}")


def _mechanism(decision: _Decision) -> str:
    """What the ``mechanism`` key of a trace field says (RFC 7208, 9.1)."""
    if decision.directive is not None:
        return decision.directive.text[:MAX_MECHANISM]
    return "default" if decision.record is not None else ""


def _reason(decision: _Decision, address: Address) -> str:
    """Why it came out so, in one clause: who says what about which client, and in which words."""
    if decision.directive is not None:
        verb = _VERBS[decision.result]
        return f"{shown(decision.domain)} {verb} {address}, by {shown(decision.directive.text)}"
    if decision.record is not None:
        return f"no term of {shown(decision.domain)} matches {address}"
    return decision.reason


def _domain_or_none(name: str) -> Domain | None:
    """The domain as a value, where it is one that mail could have; check_host() takes any name."""
    try:
        return Domain.parse(name)
    except InvalidNameError:
        return None


def _values(
    address: Address, local_part: str, sender_domain: str, helo: str, receiver: str, now: int
) -> dict[str, str]:
    """What the macro letters stand for (RFC 7208, 7.2), but for ``d`` and ``p``, which depend on the record."""
    is_ip4 = address.version == 4
    return {
        "s": f"{local_part}@{sender_domain}",
        "l": local_part,
        "o": sender_domain,
        # RFC 7208, 7.3: of an IPv6 address the nibbles, with dots. In a name their case does not matter.
        "i": str(address) if is_ip4 else ".".join(f"{int(address):032X}"),
        "v": "in-addr" if is_ip4 else "ip6",
        "h": helo,
        "c": str(address),
        "r": receiver,
        "t": str(now),
    }
