# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's rules: CEL expressions over the facts, compiled and checked at start.

CEL (the Common Expression Language) has no loops, no assignments and no side effects: a rule ends, and does nothing
but answer. Beside CEL's own functions there are four:

- ``inside(address, "192.0.2.0/24, 2001:db8::/32")``: whether an address lies in one of the networks;
- ``below(domain, "example.org")``: whether a domain is that one or lies below it;
- ``listed(text, "partners")``: whether a text, or a domain it lies below, stands in the file of that list;
- ``header("List-Id")``: the first field of that name, unfolded, empty for none.

Names are checked against `facts.SCHEMA`, so a misspelt one is an error at start and not a rule that never matches.
Operand types are checked by trial runs, which CEL's short cuts let some faults pass; a rule that fails on a message
does not match it, and says so in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from assay.model.network import Networks
from assay.model.smtp import parse_address
from assay.policy.decision import NO_EDITS, Action, Edits, Stage
from assay.policy.facts import Facts, sound
from assay.policy.names import RuleError, check_names, samples
from assay.policy.outcomes import at_or_below

Lists = Mapping[str, frozenset[str]]

#: What CEL's library raises where an expression cannot be evaluated.
_FAULTS = (ValueError, TypeError, RuntimeError, LookupError, ArithmeticError)


class Rule(Struct, frozen=True):
    """One rule. Without an action it only makes its edits. `reply` is the text as written, empty for the default;
    `reason` says why, for log and headers."""

    name: str
    stage: Stage
    when: str
    action: Action | None
    reply: str = ""
    reason: str = ""
    edits: Edits = NO_EDITS
    dry_run: bool = False
    header_names: frozenset[str] = frozenset()
    facts: frozenset[str] = frozenset()  #: the top-level facts that the expression names
    program: Any = None


class Reading:
    """One message, or one stage of it, as rules read it. Only the facts that a rule names take CEL's form."""

    __slots__ = ("_context", "_facts", "_given")

    def __init__(self, facts: Facts, lists: Lists) -> None:
        headers = facts["header"]

        def header(name: str) -> str:
            values = headers.get(name.lower(), ())
            return values[0] if values else ""

        self._facts = facts
        self._given: set[str] = set()
        self._context = _cel().Context(
            functions={
                "inside": inside,
                "below": below,
                "listed": lambda text, name: listed(text, lists[name]),
                "header": header,
            }
        )

    def matches(self, rule: Rule) -> bool:
        """Whether a rule applies.

        :raises RuleError: the expression cannot be evaluated on this message.
        """
        try:
            return self.evaluate(rule) is True
        except _FAULTS as error:
            raise RuleError(f"rule {rule.name!r} cannot be evaluated: {_one_line(error)}") from error

    def evaluate(self, rule: Rule) -> Any:
        """What a rule's expression comes to; raises what CEL's library does."""
        for name in rule.facts - self._given:
            value = self._facts[name]
            try:
                self._context.add_variable(name, value)
            except ValueError:  # bytes that are no UTF-8, which any sender can put into HELO: too seldom to look first
                self._context.add_variable(name, sound(value))
        self._given |= rule.facts
        return rule.program.execute(self._context)


def _cel() -> Any:
    """The library, loaded only for who has rules: its package brings a command line along, 30 MiB in each worker."""
    import cel

    return cel


def inside(address: str, networks: str) -> bool:
    """Whether an address lies in one of the networks, which are separated by commas."""
    parsed = parse_address(address)
    return parsed is not None and _networks(networks).find(parsed) is not None


@lru_cache(maxsize=256)
def _networks(text: str) -> Networks:
    return Networks.parse((text,))


def below(domain: str, other: str) -> bool:
    """Whether a domain is another one or lies below it."""
    return at_or_below(domain.lower().rstrip("."), frozenset((other.lower().strip("."),)))


def listed(text: str, entries: frozenset[str]) -> bool:
    """Whether a list holds a text, its domain where it is an address, or a domain that this one lies below."""
    text = text.lower()
    return text in entries or at_or_below(text.rpartition("@")[2], entries)


def compile_rule(rule: Rule, lists: Lists) -> Rule:
    """Compile and check a rule.

    :raises RuleError: CEL syntax; an unknown fact, function or list, with the nearest known one; a fact that is not
        known yet at the rule's stage; an expression that is no yes or no; an action that its stage cannot carry out;
        nothing to do at all.
    """
    _check_action(rule)
    try:
        program = _cel().compile(rule.when)
    except ValueError as error:
        raise RuleError(f"when: is no CEL expression: {_one_line(error)}") from error
    names = check_names(rule.when, rule.stage, lists)
    compiled = replace(rule, program=program, header_names=names.headers, facts=names.facts)
    for sample in samples():
        try:
            result = Reading(sample, lists).evaluate(compiled)
        except IndexError as error:
            raise RuleError(f"when: {_one_line(error)}; a list may be empty: ask for its size() first") from error
        except _FAULTS as error:
            raise RuleError(f"when: {_one_line(error)}") from error
        if not isinstance(result, bool):
            raise RuleError(f"when: must be a condition, true or false; this is {type(result).__name__}")
    return compiled


def _check_action(rule: Rule) -> None:
    if rule.action is None and rule.edits == NO_EDITS:
        raise RuleError("has neither an action nor a change to make")
    if rule.stage is Stage.EOM:
        return
    if rule.edits != NO_EDITS:
        raise RuleError("a message can only be changed at stage eom")
    if rule.action not in (Action.ACCEPT, Action.TEMPFAIL, Action.REJECT):
        raise RuleError(f"{rule.action} needs the whole message: leave out the stage, or write stage = 'eom'")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
