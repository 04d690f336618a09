# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's rules: CEL expressions over the facts, compiled and checked at start.

CEL (the Common Expression Language) has no loops, no assignments and no side effects, so a rule always ends and only
returns a value. Rules have six functions in addition to CEL's own:

- ``inside(address, "192.0.2.0/24, 2001:db8::/32")``: whether an address lies in one of the networks;
- ``below(domain, "example.org")``: whether a domain is that one or lies below it;
- ``listed(address, "partners")``: whether that list has an address, its domain or a domain above it;
- ``header("List-Id")``: the first field of that name, unfolded, or an empty string;
- ``headers("List-Id")``: all fields of that name, from top to bottom;
- ``header_count("List-Id")``: how many there are.

Names are checked against `vocabulary.Facts`, so a misspelt name is an error at start and not a rule that never matches.
Operand types are checked by trial runs. CEL's short-circuit evaluation hides some errors from these; a rule that fails
on a message does not match it, and the log reports it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import TYPE_CHECKING, Any

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from assay.caches import remember
from assay.model.name import Domain
from assay.model.network import Networks
from assay.model.smtp import parse_address
from assay.policy.addresses import Entries, at_or_below, normal_domain
from assay.policy.decision import NO_EDITS, Action, Edits, Stage
from assay.policy.rule_names import RuleError, View, check_names, samples
from assay.policy.vocabulary import Facts, members, sound

if TYPE_CHECKING:
    import cel  # at run time `_cel` loads it

Lists = Mapping[str, Entries]

#: The form of an error of CEL's parser.
_SYNTAX = re.compile(r"<input>:(\d+):(\d+): (?:Syntax error: )?(.*)")
#: The exceptions of CEL's library for an expression that cannot be evaluated.
_FAULTS = (ValueError, TypeError, RuntimeError, LookupError, ArithmeticError)


class Rule(Struct, frozen=True):
    """One rule. Without an action it only makes its edits. `reply` is the text as written, empty for the default.
    `reason` goes to log and headers.

    A rule with `sign` or `forward` does nothing else: it says whether to sign, or as which domain, or whether to treat
    the message as forwarded."""

    name: str
    stage: Stage
    when: str
    action: Action | None
    reply: str = ""
    reason: str = ""
    edits: Edits = NO_EDITS
    dry_run: bool = False
    sign: bool | Domain | None = None
    forward: bool | None = None
    header_names: frozenset[str] = frozenset()
    view: View = {}  #: the facts that the expression reads
    program: Any = None

    @property
    def acts(self) -> bool:
        """Whether it decides what happens to a message, and not only whether to sign or to forward it."""
        return self.sign is None and self.forward is None


class Reading:
    """The facts of one message, or of one stage of it, for all rules.

    CEL gets only the facts that some rule reads, each when a rule first names it: converting all facts of a message
    takes longer than evaluating a rule.

    :param view: the facts that the rules read together (`rule_names.merge`).
    """

    __slots__ = ("_context", "_facts", "_given", "_view")

    def __init__(self, facts: Facts, lists: Lists, view: View) -> None:
        def values(name: str) -> tuple[str, ...]:
            return facts.header.get(name.lower(), ())

        self._facts = facts
        self._view = view
        self._given: set[str] = set()
        self._context: cel.Context = _cel().Context(
            functions={
                "inside": inside,
                "below": below,
                "listed": lambda text, name: lists[name].hold(text),
                "header": lambda name: next(iter(values(name)), ""),
                "headers": lambda name: list(values(name)),
                "header_count": lambda name: len(values(name)),
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
        """Evaluate a rule's expression. Raises the exceptions of CEL's library."""
        for name in rule.view:
            if name in self._given:
                continue
            value = _shown(getattr(self._facts, members(Facts)[name].attribute), self._view[name])
            try:
                self._context.add_variable(name, value)
            except ValueError:  # octets that are not UTF-8, as any sender can put into HELO; too rare to check first
                self._context.add_variable(name, sound(value))
            self._given.add(name)
        return rule.program.execute(self._context)


def _shown(value: Any, view: View | None) -> Any:
    """The part of a fact that rules read, as plain values."""
    if view is None:
        return value if type(value) is str else to_builtins(value)
    if isinstance(value, tuple):
        return [_shown(item, view) for item in value]
    kind: Any = type(value)
    facts = members(kind)
    return {name: _shown(getattr(value, facts[name].attribute), part) for name, part in view.items()}


@cache
def _cel() -> Any:
    """The library, loaded only if there are rules.

    Loads only the extension module of the package: the package itself imports a command-line tool with its libraries,
    which takes 30 MiB of each worker instead of 4.
    """
    package = find_spec("cel")
    spec = PathFinder.find_spec("cel.cel", package.submodule_search_locations if package is not None else None)
    if spec is None or spec.loader is None:
        raise ImportError("common-expression-language is not installed", name="cel")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def inside(address: str, networks: str) -> bool:
    """Whether an address lies in one of the networks, separated by commas."""
    parsed = parse_address(address)
    return parsed is not None and _networks(networks).find(parsed) is not None


@remember("networks")
def _networks(text: str) -> Networks:
    return Networks.parse((text,))


def below(domain: str, other: str) -> bool:
    """Whether a domain is the other one or lies below it."""
    return at_or_below(normal_domain(domain), frozenset((normal_domain(other.strip(".")),)))


def compile_rule(rule: Rule, lists: Lists, *, exact: bool = False) -> Rule:
    """Compile and check a rule.

    :param exact: local parts of addresses differ by case.
    :raises RuleError: CEL syntax; an unknown fact, function or list, with the nearest known one; a fact that is not
        known yet at the rule's stage; an expression that is not a condition; an action that its stage cannot carry
        out; neither an action nor a change.
    """
    _check_action(rule)
    try:
        program = _cel().compile(rule.when)
    except ValueError as error:
        raise RuleError(f"when: {_syntax(error)}") from error
    names = check_names(rule.when, rule.stage, lists, exact=exact)
    compiled = replace(rule, program=program, header_names=names.headers, view=names.view)
    for sample in samples():
        try:
            result = Reading(sample, lists, names.view).evaluate(compiled)
        except IndexError as error:
            raise RuleError(f"when: {_one_line(error)}; a list may be empty, so check its size() first") from error
        except _FAULTS as error:
            raise RuleError(f"when: {_one_line(error)}") from error
        if not isinstance(result, bool):
            raise RuleError(
                f"when: {rule.when!r} is not a condition: it gives {type(result).__name__}, not true or false"
            )
    return compiled


def _check_action(rule: Rule) -> None:
    for key, word in (("sign", "signs"), ("forward", "forwards")):
        if getattr(rule, key) is None:
            continue
        if rule.action is not None or rule.edits != NO_EDITS or (rule.sign is not None and rule.forward is not None):
            raise RuleError(f"{key}: a rule that {word} does nothing else; write another rule for the rest")
        if rule.stage is not Stage.EOM:
            raise RuleError(f"stage: {rule.stage.value!r} is too early to {key}; write 'eom' or leave it out")
    if not rule.acts:
        return
    if rule.action is None and rule.edits == NO_EDITS:
        raise RuleError("action: missing; write an action, or a change such as add_fields")
    if rule.stage is Stage.EOM:
        return
    if rule.edits != NO_EDITS:
        raise RuleError(f"stage: {rule.stage.value!r} is too early to change a message; write 'eom' or leave it out")
    if rule.action not in (Action.ACCEPT, Action.TEMPFAIL, Action.REJECT):
        raise RuleError(f"stage: {rule.stage.value!r} is too early for {rule.action}; write 'eom' or leave it out")


def _syntax(error: ValueError) -> str:
    """The first error of CEL's parser, with its position."""
    match = _SYNTAX.search(str(error))
    if match is None:
        return f"not a valid CEL expression: {_one_line(error)}"
    return f"line {match[1]}, column {match[2]}: not a valid CEL expression: {match[3]}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
