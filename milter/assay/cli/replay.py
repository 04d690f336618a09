# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge logged facts again, by another configuration: what ``assay policy try`` does with each line of a log.

Nothing is evaluated anew and no question is asked: facts stay what they were, only what follows from them is decided
again, stage by stage. What the log does not hold is taken for absent, and counted by name in `Judge.missing`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from assay import policy
from assay.config import Configuration, make_clients, make_policy
from assay.model.smtp import parse_address
from assay.policy import ACCEPTED, Action, Decision, Facts, Policy, Stage
from assay.policy.facts import ArcFacts, IprevFacts, SenderIdFacts, element, is_tree, members
from assay.protocol import dkim
from assay.session import Clients

#: Methods that may be switched off, and what their facts are then.
_OPTIONAL = {"iprev": IprevFacts(), "arc": ArcFacts(), "senderid": SenderIdFacts()}
_EARLY = (Stage.CONNECT, Stage.HELO, Stage.MAIL)
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
    clients: Clients
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
        return cls(make_policy(configuration), make_clients(configuration), off)

    def judge(self, logged: Logged) -> Ending:
        """Decide about one message, through all stages."""
        facts = self._complete(logged)
        exempt = self._why_internal(facts)
        authenticated = self.clients.why_authenticated(facts.mail_from.authenticated)
        spared = self.clients.why_spared(facts.mail_from.address)
        for stage in _EARLY:
            if stage is Stage.MAIL:  # AUTH comes after HELO
                exempt = exempt or authenticated
            if exempt:
                return Ending(Decision(by=f"not judged: {exempt}"))
            decision = self._decide(_known(facts, stage), stage)
            if decision.action.refuses and not (spared and stage is Stage.MAIL):
                return Ending(decision, stage)
            if decision.final:
                return Ending(decision)
        recipients, favoured, refusal = self._recipients(facts, spared)
        if refusal is not None and not recipients:
            return Ending(refusal, Stage.RCPT)
        decision = self._decide(replace(facts, rcpt=tuple(recipients)), Stage.EOM)
        if (spared or favoured) and decision.action is not Action.ACCEPT:
            return Ending(decision.spared(spared or favoured))
        return Ending(decision)

    def _decide(self, facts: Facts, stage: Stage) -> Decision:
        if not self.policy.acts_at(stage):
            return ACCEPTED
        decision = policy.decide(facts, self.policy, stage)
        for one in decision.watched:
            if one.action is Action.ACCEPT and "cannot be evaluated" in one.reason:
                self.failing[one.reason] += 1
        return decision

    def _why_internal(self, facts: Facts) -> str:
        address, daemon = parse_address(facts.client.address), facts.client.daemon
        # A judged message without an address came through a relay of ours that did not tell it.
        return self.clients.why_internal(address, daemon) if address is not None else ""

    def _recipients(self, facts: Facts, spared: str) -> tuple[list[str], str, Decision | None]:
        """Who is left after RCPT, why the message is favoured, and the first refusal."""
        taken: list[str] = []
        favoured: str = ""
        refusal: Decision | None = None
        for one in facts.rcpt:
            why = self.clients.why_favoured(one)
            if not why:
                decision = self._decide(_known(replace(facts, rcpt=(one,)), Stage.RCPT), Stage.RCPT)
                if decision.action.refuses and not spared:
                    refusal = refusal or decision
                    continue
                why = decision.by if decision.final else ""
            favoured = why if favoured or not taken else ""
            taken.append(one)
        return taken, favoured, refusal

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
        return replace(facts, arc=replace(facts.arc, trusted=trusted))

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
