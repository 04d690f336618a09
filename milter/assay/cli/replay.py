# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge logged facts again with another configuration, for ``assay policy try``.

No evaluation and no DNS question is repeated. The facts stay as logged, and only the decisions are made again, stage by
stage. Facts that the log lacks count as absent, and `Judge.missing` counts them by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from assay.config import Configuration, make_policy, make_trust
from assay.model.smtp import parse_address
from assay.policy import Action, Course, Decision, Facts, Policy, Stage, Trust
from assay.policy.addresses import normal_address
from assay.policy.vocabulary import ArcFacts, IprevFacts, SenderIdFacts, element, is_tree, members
from assay.protocol import dkim

#: Methods that can be disabled, and their facts in that case.
_OPTIONAL = {"iprev": IprevFacts(), "arc": ArcFacts(), "senderid": SenderIdFacts()}
_DKIM_RESULTS = frozenset(dkim.Result) - {dkim.Result.NONE}


class _Line(Struct, frozen=True):
    """One line of the facts log (`assay.daemon.journal.facts_line`)."""

    queue: str
    action: Action
    by: str
    facts: Facts


class Logged(Struct, frozen=True):
    """A line of the facts log. `lacking` are the names of the facts that it lacks."""

    queue: str
    action: Action
    by: str
    facts: Facts
    lacking: frozenset[str]


class Ending(Struct, frozen=True):
    """The final decision on a message under a configuration, and its stage."""

    decision: Decision
    stage: Stage = Stage.EOM


class BrokenLineError(ValueError):
    """A line that is not from a facts log. The message describes the error."""


def read_line(line: bytes) -> Logged:
    """Read one line. Missing facts and facts of newer versions are allowed.

    :raises BrokenLineError: not JSON, another form, or a value with another type than in the vocabulary.
    """
    try:
        record = msgspec.json.decode(line)
        read = msgspec.convert(record, _Line)
    except msgspec.ValidationError as error:
        raise BrokenLineError(f"not a line of the facts log: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenLineError(f"not JSON: {error}") from error
    for signature in read.facts.dkim:
        if signature.result not in _DKIM_RESULTS:
            raise BrokenLineError(f"facts.dkim: {signature.result[:20]!r} is not a result of a signature")
    return Logged(read.queue, read.action, read.by, read.facts, frozenset(_lacking(Facts, record["facts"], "")))


def _lacking(kind: Any, value: Any, path: str) -> Iterator[str]:
    """The names of missing facts. Header fields are not among them, since they depend on the rules."""
    if element(kind) is not None:
        for item in value:
            yield from _lacking(element(kind), item, path)
    elif is_tree(kind):
        for name, fact in members(kind).items():
            way = f"{path}.{name}".lstrip(".")
            if name in value:
                yield from _lacking(fact.kind, value[name], way)
            elif way != "header":
                yield way


@dataclass(slots=True)
class Judge:
    """The part of a configuration that makes decisions."""

    policy: Policy
    trust: Trust
    switched_off: frozenset[str]
    missing: Counter[str] = field(default_factory=Counter)  #: number of messages by missing fact
    failing: Counter[str] = field(default_factory=Counter)  #: number of messages by error of a rule

    @classmethod
    def of(cls, configuration: Configuration) -> Judge:
        """:raises ValueError: see `assay.config.make_policy`."""
        enabled = {
            "iprev": configuration.iprev.enabled,
            "arc": configuration.arc.enabled,
            "senderid": configuration.senderid.enabled,
        }
        off = frozenset(name for name, on in enabled.items() if not on)
        return cls(make_policy(configuration), make_trust(configuration), off)

    def judge(self, logged: Logged) -> Ending:
        """Decide on one message, through all stages."""
        facts = self._complete(logged)
        course = Course(self.policy, self.trust)
        address = parse_address(facts.client.address)
        # A judged message without an address came through a relay of ours whose Received field has none.
        course.connect(address, facts.client.daemon if address is not None else "", local=False)
        for stage in (Stage.CONNECT, Stage.HELO):
            decision = self._noted(course.at_connection(stage, partial(_known, facts, stage)))
            if decision.action.refuses:
                return Ending(decision, stage)
        standing = course.mail(facts.mail_from.address, facts.mail_from.authenticated)
        if standing.exempt:
            return Ending(Decision(by=f"not judged: {standing.exempt}"))
        decision = self._noted(course.at_mail(partial(_known, facts, Stage.MAIL)))
        if decision.action.refuses:
            return Ending(decision, Stage.MAIL)
        taken: list[str] = []
        refusals: list[Decision] = []
        for recipient in facts.rcpt:
            alone = replace(facts, rcpt=(recipient,))
            decision = self._noted(course.at_rcpt(recipient, partial(_known, alone, Stage.RCPT)))
            if decision.action.refuses:
                refusals.append(decision)
            else:
                taken.append(recipient)
        if refusals and not taken:
            return Ending(refusals[0], Stage.RCPT)
        return Ending(self._noted(course.end(replace(facts, rcpt=tuple(taken)))))

    def _noted(self, decision: Decision) -> Decision:
        """The same decision. Counts rules that cannot be evaluated."""
        for watched in decision.watched:
            if watched.action is Action.ACCEPT and "cannot be evaluated" in watched.reason:
                self.failing[watched.reason] += 1
        return decision

    def _complete(self, logged: Logged) -> Facts:
        """The facts as under this configuration."""
        lacking = set(logged.lacking)
        facts, header = logged.facts, logged.facts.header
        lacking |= {f'header("{name}")' for name in self.policy.header_names - set(header)}
        acting = {method.name for method in self.policy.methods}
        off = {name: empty for name, empty in _OPTIONAL.items() if name in self.switched_off}
        facts = replace(facts, header={name: header.get(name, ()) for name in self.policy.header_names}, **off)
        for name in _OPTIONAL.keys() - off.keys():  # the log may lack them
            if name in acting and not getattr(facts, name).result:
                lacking.add(name)
        trusted = self._trusted(facts.arc, lacking)
        self.missing.update(lacking)
        return self._normal(replace(facts, arc=replace(facts.arc, trusted=trusted)))

    def _normal(self, facts: Facts) -> Facts:
        """The facts with addresses in the normal form of this configuration."""
        exact, sender = self.policy.exact_local_parts, facts.mail_from
        return replace(
            facts,
            rcpt=tuple(normal_address(recipient, exact=exact) for recipient in facts.rcpt),
            mail_from=replace(
                sender,
                address=normal_address(sender.address, exact=exact),
                local_part=sender.local_part if exact else sender.local_part.lower(),
            ),
            author=replace(facts.author, address=normal_address(facts.author.address, exact=exact)),
        )

    def _trusted(self, arc: ArcFacts, lacking: set[str]) -> bool:
        """Whether sealers vouch for the message, by the list of this configuration."""
        listed = {str(domain) for domain in self.policy.trusted_sealers}
        if arc.result != "pass" or not arc.sealers or not listed.issuperset(arc.sealers):
            return False
        if (
            not arc.trusted
        ):  # depends on the record of the first sealer, which is read only if the configuration trusts it
            lacking.add("arc.trusted")
        return arc.trusted


_Tree = TypeVar("_Tree", bound=Struct)


def _known(facts: _Tree, stage: Stage) -> _Tree:
    """The facts known at a stage before the end of the message."""
    known = {}
    for fact in members(type(facts)).values():
        value = getattr(facts, fact.attribute)
        if is_tree(fact.kind) and any(member.stage for member in members(fact.kind).values()):
            known[fact.attribute] = _known(value, stage)
        elif fact.stage is None or fact.stage.rank <= stage.rank:
            known[fact.attribute] = value
    return type(facts)(**known)
