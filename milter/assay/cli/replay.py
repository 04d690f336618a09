# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge logged facts again, by another configuration: what ``assay policy try`` does with each line of a log.

Nothing is evaluated anew and no question is asked: facts stay what they were, only what follows from them is decided
again, stage by stage. What the log does not hold is taken for absent, and counted by name in `Judge.missing`.
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

#: Methods that may be switched off, and what their facts are then.
_OPTIONAL = {"iprev": IprevFacts(), "arc": ArcFacts(), "senderid": SenderIdFacts()}
_DKIM_RESULTS = frozenset(dkim.Result) - {dkim.Result.NONE}


class _Line(Struct, frozen=True):
    """One line of the facts log (`assay.daemon.journal.facts_line`)."""

    queue: str
    action: Action
    by: str
    facts: Facts


class Logged(Struct, frozen=True):
    """What a line of the facts log says. `lacking` are the names of the facts that it does not have."""

    queue: str
    action: Action
    by: str
    facts: Facts
    lacking: frozenset[str]


class Ending(Struct, frozen=True):
    """How a message ends under a configuration, and at which stage."""

    decision: Decision
    stage: Stage = Stage.EOM


class BrokenLineError(ValueError):
    """A line that does not belong to a facts log. The message says what is wrong with it."""


def read_line(line: bytes) -> Logged:
    """Read one line. What is missing, or newer than we are, is fine.

    :raises BrokenLineError: not JSON, not our form, or a value of another type than the vocabulary has.
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
    """The names of the facts that logged ones do not have. Which header fields are there depends on the rules."""
    if element(kind) is not None:
        for one in value:
            yield from _lacking(element(kind), one, path)
    elif is_tree(kind):
        for name, fact in members(kind).items():
            way = f"{path}.{name}".lstrip(".")
            if name in value:
                yield from _lacking(fact.kind, value[name], way)
            elif way != "header":
                yield way


@dataclass(slots=True)
class Judge:
    """A configuration as far as it decides."""

    policy: Policy
    trust: Trust
    switched_off: frozenset[str]
    missing: Counter[str] = field(default_factory=Counter)  #: what the log lacks, by name, with the number of messages
    failing: Counter[str] = field(
        default_factory=Counter
    )  #: rules that cannot be evaluated on some messages, by reason

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
        """Decide about one message, through all stages."""
        facts = self._complete(logged)
        course = Course(self.policy, self.trust)
        address = parse_address(facts.client.address)
        # A judged message without an address came through a relay of ours that did not report it.
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
        for one in facts.rcpt:
            alone = replace(facts, rcpt=(one,))
            decision = self._noted(course.at_rcpt(one, partial(_known, alone, Stage.RCPT)))
            if decision.action.refuses:
                refusals.append(decision)
            else:
                taken.append(one)
        if refusals and not taken:
            return Ending(refusals[0], Stage.RCPT)
        return Ending(self._noted(course.end(replace(facts, rcpt=tuple(taken)))))

    def _noted(self, decision: Decision) -> Decision:
        """The same decision; rules that could not be evaluated are counted."""
        for one in decision.watched:
            if one.action is Action.ACCEPT and "cannot be evaluated" in one.reason:
                self.failing[one.reason] += 1
        return decision

    def _complete(self, logged: Logged) -> Facts:
        """The facts as this configuration would have had them."""
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
        """The facts with addresses in the form in which this configuration compares them."""
        exact, sender = self.policy.exact_local_parts, facts.mail_from
        return replace(
            facts,
            rcpt=tuple(normal_address(one, exact=exact) for one in facts.rcpt),
            mail_from=replace(
                sender,
                address=normal_address(sender.address, exact=exact),
                local_part=sender.local_part if exact else sender.local_part.lower(),
            ),
            author=replace(facts.author, address=normal_address(facts.author.address, exact=exact)),
        )

    def _trusted(self, arc: ArcFacts, lacking: set[str]) -> bool:
        """Whether sealers vouch for the message, with the list of this configuration."""
        listed = {str(one) for one in self.policy.trusted_sealers}
        if arc.result != "pass" or not arc.sealers or not listed.issuperset(arc.sealers):
            return False
        if not arc.trusted:  # what the first sealer recorded decides, and only a configuration that asks looks at it
            lacking.add("arc.trusted")
        return arc.trusted


_Tree = TypeVar("_Tree", bound=Struct)


def _known(facts: _Tree, stage: Stage) -> _Tree:
    """The facts as a stage before the end of the message knows them."""
    known = {}
    for fact in members(type(facts)).values():
        value = getattr(facts, fact.attribute)
        if is_tree(fact.kind) and any(one.stage for one in members(fact.kind).values()):
            known[fact.attribute] = _known(value, stage)
        elif fact.stage is None or fact.stage.rank <= stage.rank:
            known[fact.attribute] = value
    return type(facts)(**known)
