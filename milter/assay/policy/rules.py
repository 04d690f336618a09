# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's rules: CEL expressions over the facts, compiled and checked at start.

CEL (the Common Expression Language) has no loops, no assignments and no side effects: a rule ends, and does nothing
but answer. Beside CEL's own functions there are four:

- ``inside(address, "192.0.2.0/24, 2001:db8::/32")``: whether an address lies in one of the networks;
- ``below(domain, "example.org")``: whether a domain is that one or lies below it;
- ``listed(text, "partners")``: whether a text, or a domain it lies below, stands in the file of that list;
- ``header("List-Id")``: the first field of that name, unfolded, empty for none.

Names are checked against `facts.SCHEMA`, so a misspelt one is an error at start and not a rule that never matches.
Operand types are checked by a trial run over empty facts, which CEL's short cuts let some faults pass; a rule that
fails on a message does not match it, and says so in the log.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from assay.model.network import Networks
from assay.model.smtp import parse_address
from assay.policy.decision import NO_EDITS, Action, Edits, Stage
from assay.policy.facts import KNOWN_FROM, SCHEMA, Facts, sound
from assay.policy.outcomes import at_or_below

Lists = Mapping[str, frozenset[str]]

_FUNCTIONS = ("inside", "below", "listed", "header")
#: CEL's own functions and macros, which may follow a dot or stand alone.
_BUILT_IN = frozenset(
    (
        *("all", "bool", "bytes", "contains", "double", "duration", "endsWith", "exists", "exists_one", "filter"),
        *("has", "int", "map", "matches", "max", "min", "size", "startsWith", "string", "timestamp", "type", "uint"),
    )
)
_MACROS = frozenset(("all", "exists", "exists_one", "filter", "map"))
_LITERALS = frozenset(("true", "false", "null", "in"))


class RuleError(ValueError):
    """A rule that cannot be used. The message says what is wrong with it, and the mend."""


@dataclass(frozen=True, slots=True)
class Rule:
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
    program: Any = field(default=None, repr=False, compare=False)

    def matches(self, context: Any) -> bool:
        """Whether the rule applies.

        :param context: made by `make_context`.
        :raises RuleError: the expression cannot be evaluated on this message.
        """
        try:
            return self.program.execute(context) is True
        except (ValueError, TypeError, RuntimeError, KeyError, IndexError, OverflowError) as error:
            raise RuleError(f"rule {self.name!r} cannot be evaluated: {error}") from error


def make_context(facts: Facts, lists: Lists) -> Any:
    """Facts and functions in the form that rules are evaluated with."""
    try:
        return _make_context(facts, lists)
    except ValueError:  # bytes that are no UTF-8, which any sender can put into HELO: seldom, so not looked for before
        return _make_context(sound(facts), lists)


def _cel() -> Any:
    """The library, loaded only for who has rules: its package brings a command line along, 30 MiB in each worker."""
    import cel

    return cel


def _make_context(facts: Facts, lists: Lists) -> Any:
    headers = facts["header"]

    def header(name: str) -> str:
        values = headers.get(name.lower(), ())
        return values[0] if values else ""

    return _cel().Context(
        variables={name: value for name, value in facts.items() if name != "header"},
        functions={
            "inside": inside,
            "below": below,
            "listed": lambda text, name: listed(text, lists[name]),
            "header": header,
        },
    )


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


def compile_rule(rule: Rule, lists: Lists, new: Callable[..., Rule]) -> Rule:
    """Compile and check a rule.

    :param new: ``dataclasses.replace``.
    :raises RuleError: CEL syntax; an unknown fact, function or list, with the nearest known one; a fact that is not
        known yet at the rule's stage; an expression that is no yes or no.
    """
    try:
        program = _cel().compile(rule.when)
    except ValueError as error:
        raise RuleError(f"when: is no CEL expression: {' '.join(str(error).split())}") from error
    names = _check_names(rule)
    for _, name in re.findall(r'\blisted\s*\(([^()"]*),\s*"([^"]*)"\s*\)', rule.when):
        if name not in lists:
            raise RuleError(f"when: unknown list {name!r}{_nearest(name, lists)}")
    compiled = new(rule, program=program, header_names=names)
    empty = make_context(_empty(SCHEMA), lists)
    try:
        result = program.execute(empty)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise RuleError(f"when: {' '.join(str(error).split())}") from error
    if not isinstance(result, bool):
        raise RuleError(f"when: must be a condition, true or false; this is {type(result).__name__}")
    return compiled


_TOKEN = re.compile(
    r"""(?P<string>[rR]?[bB]?(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'))|(?P<path>[A-Za-z_]\w*(?:\s*\.\s*[A-Za-z_]\w*)*)"""
    r"""|(?P<other>\S)""",
    re.DOTALL,
)


def _check_names(rule: Rule) -> frozenset[str]:
    """Walk over the expression's names.

    :returns: the lower-case names of the header fields that the rule asks for.
    """
    headers = set()
    bound: dict[str, Any] = {}
    tokens = list(_TOKEN.finditer(rule.when))
    for at, token in enumerate(tokens):
        path = token["path"]
        if path is None or path in _LITERALS or (at and tokens[at - 1][0] == "."):
            continue
        parts = re.split(r"\s*\.\s*", path)
        called = at + 1 < len(tokens) and tokens[at + 1][0] == "("
        if called and parts[-1] in _MACROS and at + 2 < len(tokens) and tokens[at + 2]["path"]:
            bound[tokens[at + 2][0]] = _element(_resolve(parts[:-1], bound, rule.stage))
        elif called and parts == ["header"] and at + 2 < len(tokens) and tokens[at + 2]["string"]:
            headers.add(tokens[at + 2][0].strip("rRbB").strip("\"'").lower())
            _require_stage("header", rule.stage)
        elif called:
            _check_function(parts[-1])
            if len(parts) > 1:
                _resolve(parts[:-1], bound, rule.stage)
        else:
            _resolve(parts, bound, rule.stage)
    return frozenset(headers)


def _resolve(parts: list[str], bound: Mapping[str, Any], stage: Stage) -> Any:
    """The type of a dotted path.

    :raises RuleError: it leads nowhere, or to something that the stage does not know.
    """
    if parts[0] in bound:
        here, parts, way = bound[parts[0]], parts[1:], parts[0]
    else:
        here, way = SCHEMA, ""
        for depth in (1, 2):
            known = KNOWN_FROM.get(".".join(parts[:depth]))
            if known is not None and (depth == 2 or parts[0] != "spf"):
                _require_stage(".".join(parts[:depth]), stage)
    for part in parts:
        if not isinstance(here, dict) or part not in here:
            known_names = here if isinstance(here, dict) else ()
            raise RuleError(f"when: unknown fact {f'{way}.{part}'.lstrip('.')}{_nearest(part, known_names)}")
        here, way = here[part], f"{way}.{part}"
    return here


def _require_stage(fact: str, stage: Stage) -> None:
    known = KNOWN_FROM[fact]
    if known.rank > stage.rank:
        raise RuleError(f"when: {fact} is not known at stage {stage}, only from {known} on")


def _check_function(name: str) -> None:
    if name not in _FUNCTIONS and name not in _BUILT_IN:
        raise RuleError(f"when: unknown function {name}{_nearest(name, (*_FUNCTIONS, *_BUILT_IN))}")


def _element(kind: Any) -> Any:
    return kind[0] if isinstance(kind, list) else kind


def _nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known are {', '.join(sorted(known))}" if known else ""


def _empty(schema: Any) -> Any:
    """Facts of the schema's types without content: lists are empty."""
    if isinstance(schema, dict):
        return {name: _empty(kind) for name, kind in schema.items()}
    return [] if isinstance(schema, list) else schema()
