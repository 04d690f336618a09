# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge logged facts again, by another configuration: what ``assay policy try`` does with each line of a log.

Nothing is evaluated anew and no question is asked: facts stay what they were, only what follows from them is decided
again, stage by stage. What the log does not hold is taken for absent, and counted by name in `Judge.missing`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Struct

from assay import policy
from assay.config import Configuration, make_clients, make_policy
from assay.model.smtp import parse_address
from assay.policy import ACCEPTED, SCHEMA, Action, Decision, Facts, Policy, Stage
from assay.policy.facts import KNOWN_FROM
from assay.protocol import dkim
from assay.session import Clients

#: The vocabulary without the header, which has whatever fields rules ask for.
_SCHEMA = {name: kind for name, kind in SCHEMA.items() if name != "header"}
_OPTIONAL = ("iprev", "arc", "senderid")  # methods that may be switched off
_EARLY = (Stage.CONNECT, Stage.HELO, Stage.MAIL)
_DKIM_RESULTS = frozenset(dkim.Result) - {dkim.Result.NONE}


class Logged(Struct, frozen=True):
    """One line of the facts log (`assay.daemon.journal.facts_line`)."""

    queue: str
    action: Action
    by: str
    facts: Facts


class Ending(Struct, frozen=True):
    """How a message ends under a configuration, and at which stage."""

    decision: Decision
    stage: Stage = Stage.EOM


class BrokenLineError(ValueError):
    """A line that is none of the facts log. The message says what is wrong with it."""


def read_line(line: bytes) -> Logged:
    """Read one line.

    :raises BrokenLineError: no JSON, not our form, or a value of another type than the vocabulary has.
    """
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenLineError(f"no JSON: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("facts"), dict):
        raise BrokenLineError("no object with facts")
    queue, action, by = (record.get(name) for name in ("queue", "action", "by"))
    if not (isinstance(queue, str) and isinstance(by, str) and action in list(Action)):
        raise BrokenLineError("queue, action or by is missing or has another form")
    _check(_SCHEMA, record["facts"], "facts")
    _check([[str]], [*_texts(record["facts"].get("header", {}))], "facts.header")
    if not all("result" in one for one in record["facts"].get("dkim", ())):
        raise BrokenLineError("facts.dkim: a signature without a result")
    return Logged(queue, Action(action), by, record["facts"])


def _texts(header: Any) -> Iterable[Any]:
    return header.values() if isinstance(header, dict) else [header]


def _check(schema: Any, value: Any, name: str) -> None:
    """Refuse a value of another type than the vocabulary has. What is missing, or newer than we are, is fine."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            raise BrokenLineError(f"{name} is no object")
        for key in schema.keys() & value.keys():
            _check(schema[key], value[key], f"{name}.{key}")
    elif isinstance(schema, list):
        if not isinstance(value, list):
            raise BrokenLineError(f"{name} is no list")
        for one in value:
            _check(schema[0], one, name)
    elif not isinstance(value, schema):
        raise BrokenLineError(f"{name} is no {'text' if schema is str else 'truth value'}")
    elif name == "facts.dkim.result" and value not in _DKIM_RESULTS:
        raise BrokenLineError(f"{name}: {value[:20]!r} is no result of a signature")


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

    def judge(self, logged: Facts) -> Ending:
        """Decide about one message, through all stages."""
        facts = self._complete(logged)
        exempt = self._why_internal(facts)
        authenticated = self.clients.why_authenticated(facts["mail_from"]["authenticated"])
        spared = self.clients.why_spared(facts["mail_from"]["address"])
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
        decision = self._decide({**facts, "rcpt": recipients}, Stage.EOM)
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
        address, daemon = parse_address(facts["client"]["address"]), facts["client"]["daemon"]
        # A judged message without an address came through a relay of ours that did not tell it.
        return self.clients.why_internal(address, daemon) if address is not None else ""

    def _recipients(self, facts: Facts, spared: str) -> tuple[list[str], str, Decision | None]:
        """Who is left after RCPT, why the message is favoured, and the first refusal."""
        taken: list[str] = []
        favoured: str = ""
        refusal: Decision | None = None
        for one in facts["rcpt"]:
            why = self.clients.why_favoured(one)
            if not why:
                decision = self._decide(_known({**facts, "rcpt": [one]}, Stage.RCPT), Stage.RCPT)
                if decision.action.refuses and not spared:
                    refusal = refusal or decision
                    continue
                why = decision.by if decision.final else ""
            favoured = why if favoured or not taken else ""
            taken.append(one)
        return taken, favoured, refusal

    def _complete(self, logged: Facts) -> dict[str, Any]:
        """The facts with nothing missing, and as this configuration would have had them."""
        lacking: set[str] = set()
        facts: dict[str, Any] = _fill(_SCHEMA, logged, "", lacking)
        header = logged.get("header", {})
        facts["header"] = {name: header.get(name, []) for name in self.policy.header_names}
        lacking |= {f'header("{name}")' for name in self.policy.header_names - set(header)}
        acting = {method.name for method in self.policy.methods}
        for name in _OPTIONAL:  # the log may lack them, or this configuration not want them
            if name in self.switched_off:
                facts[name] = _empty(SCHEMA[name])
            elif name in acting and not facts[name]["result"]:
                lacking.add(name)
        facts["arc"]["trusted"] = self._trusted(facts["arc"], lacking)
        self.missing.update(lacking)
        return facts

    def _trusted(self, arc: Mapping[str, Any], lacking: set[str]) -> bool:
        """Whether sealers vouch for the message, with the list of this configuration."""
        listed = {str(one) for one in self.policy.trusted_sealers}
        if arc["result"] != "pass" or not arc["sealers"] or not listed.issuperset(arc["sealers"]):
            return False
        if not arc["trusted"]:  # what the first sealer recorded decides, and only a configuration that asks looks at it
            lacking.add("arc.trusted")
        return bool(arc["trusted"])


def _fill(schema: Any, value: Any, name: str, lacking: set[str]) -> Any:
    """A value of the vocabulary's whole form; the names of what it lacked go to `lacking`."""
    if isinstance(schema, dict):
        lacking |= {f"{name}.{key}".lstrip(".") for key in schema.keys() - value.keys()}
        return {
            key: _fill(kind, value[key], f"{name}.{key}", lacking) if key in value else _empty(kind)
            for key, kind in schema.items()
        }
    if isinstance(schema, list):
        return [_fill(schema[0], one, name, lacking) for one in value]
    return value


def _empty(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {name: _empty(kind) for name, kind in schema.items()}
    return [] if isinstance(schema, list) else schema()


def _known(facts: Facts, stage: Stage) -> dict[str, Any]:
    """The facts as a stage before the end of the message knows them."""
    known = {
        name: value if KNOWN_FROM[name].rank <= stage.rank else _empty(SCHEMA[name]) for name, value in facts.items()
    }
    if stage is Stage.HELO:
        known["spf"] = {**known["spf"], "helo": facts["spf"]["helo"]}
    known["header"] = {} if stage is not Stage.EOM else facts["header"]
    return known
