# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rule's CEL expression names, checked before any message comes: facts, functions, lists, header fields.

CEL itself takes an unknown name for an error of the message at hand, and one inside a macro over an empty list for
nothing at all. Here the expression is walked over with the types of `facts.SCHEMA`, macros' variables included. It has
been parsed by CEL before, so the walk may trust its syntax; what it cannot type, such as a literal's members, it leaves
to CEL.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

from msgspec import Struct

from assay.model.network import Networks
from assay.policy.decision import Stage
from assay.policy.facts import KNOWN_FROM, SCHEMA

#: The functions that rules have beside CEL's own, with the number of their arguments.
FUNCTIONS = {"inside": 2, "below": 2, "listed": 2, "header": 1}
#: CEL's own functions, alone or behind a dot, as far as the library has them.
BUILT_IN = frozenset(
    (
        *("bytes", "contains", "double", "duration", "dyn", "endsWith", "has", "int", "matches", "size", "startsWith"),
        *("string", "timestamp", "type", "uint"),
    )
)
#: Its macros, which bind a variable to each element in turn.
MACROS = frozenset(("all", "exists", "exists_one", "filter", "map"))
_WORDS = frozenset(("true", "false", "null", "in"))
_TYPES = frozenset(("bool", "bytes", "double", "int", "list", "map", "string", "type", "uint", "null_type"))

#: No alternative repeats what another could begin with, so this is linear.
_TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*)"""
    r"""|(?P<string>[rRbB]{0,2}(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'))"""
    r"""|(?P<number>(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+|[xX][0-9a-fA-F]+)?[uU]?)"""
    r"""|(?P<name>[A-Za-z_]\w*)"""
    r"""|(?P<other>[=!<>]=|\S)""",
    re.DOTALL,
)


class RuleError(ValueError):
    """A rule that cannot be used. The message says what is wrong with it, and the mend."""


class Names(Struct, frozen=True):
    """What an expression names: top-level facts, and header fields in lower case."""

    facts: frozenset[str]
    headers: frozenset[str]


def check_names(expression: str, stage: Stage, lists: Collection[str]) -> Names:
    """Find all names of an expression that CEL could parse.

    :param lists: the names of the operator's lists.
    :raises RuleError: an unknown fact, function or list, with the nearest known one; networks that are none; a fact
        that is not known yet at this stage.
    """
    walk = _Walk(expression, stage, lists)
    walk.group("")
    return Names(frozenset(walk.facts), frozenset(walk.headers))


class _Walk:
    """The walk over one expression's tokens. A type is a piece of `SCHEMA`, or None where it is not known."""

    def __init__(self, expression: str, stage: Stage, lists: Collection[str]) -> None:
        self.facts: set[str] = set()
        self.headers: set[str] = set()
        self._tokens = [one for one in _TOKEN.finditer(expression) if one["comment"] is None]
        self._at = 0
        self._stage = stage
        self._lists = lists
        self._bound: dict[str, Any] = {}

    def _peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at][0] if at < len(self._tokens) else ""

    def _is(self, kind: str, ahead: int = 0) -> bool:
        at = self._at + ahead
        return at < len(self._tokens) and self._tokens[at][kind] is not None

    def _take(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def group(self, closer: str) -> int:
        """Walk up to the bracket that closes, or the end; the number of arguments in between."""
        began, commas = self._at, 0
        while (sign := self._peek()) != closer:
            commas += sign == ","
            self._operand()
        empty = self._at == began
        self._at += 1
        return 0 if empty else commas + 1

    def _operand(self) -> None:
        """One operand with all that hangs on it, or one operator."""
        fact = False
        if self._is("name") and self._peek() not in _WORDS:
            kind, path, fact = self._root()
        else:
            kind, path = None, ""
            literal = self._is("string") or self._is("number")
            closer = {"(": ")", "[": "]", "{": "}"}.get(self._take())
            if closer is not None:
                self.group(closer)
            elif not literal:
                return  # an operator
        while (sign := self._peek()) in (".", "["):
            self._at += 1
            if sign == "." and self._peek(1) == "(":
                if fact:
                    self._require(path)
                kind, path, fact = self._method(kind), "", False
            elif sign == ".":
                kind, path = _member(kind, self._take(), path)
            elif self._is("string") and self._peek(1) == "]":
                kind, path = _member(kind, _unquoted(self._take()), path)
                self._at += 1
            else:
                self.group("]")
                kind, path = _element(kind), f"{path}[]"
        if fact:
            self._require(path)
        self._compare(kind, path)

    def _compare(self, kind: Any, path: str) -> None:
        """A fact that is compared with a literal of another type: CEL would call them unequal, and the rule void."""
        if kind not in (str, bool) or self._peek() not in ("==", "!="):
            return
        other = self._peek(1)
        if (
            self._is("number", 1)
            or (other in ("true", "false") and kind is str)
            or (self._is("string", 1) and kind is bool)
        ):
            want = "a text in quotes" if kind is str else "true or false"
            raise RuleError(f"when: {path} {self._peek()} {other}: compare it with {want}")

    def _root(self) -> tuple[Any, str, bool]:
        """The name that an operand begins with: its type, how to call it, and whether it is a fact."""
        name = self._take()
        if self._peek() == "(":
            if name in MACROS:
                raise RuleError(f"when: {name} needs something before it, such as dkim.{name}(...)")
            self._call(name)
            return (str, "what header gives", False) if name == "header" else (None, "", False)
        if name in self._bound:
            return self._bound[name], name, False
        if name in SCHEMA and name != "header":
            self.facts.add(name)
            return SCHEMA[name], name, True
        if name in _TYPES:
            return None, name, False
        if name in FUNCTIONS:
            raise RuleError(f"when: {name} is a function: write {name}(...)")
        raise RuleError(f"when: unknown fact {name}{nearest(name, (*self._bound, *SCHEMA))}")

    def _method(self, kind: Any) -> Any:
        """What is called behind a dot; the type of what it gives."""
        name = self._take()
        if name not in MACROS:
            if name in FUNCTIONS:
                raise RuleError(f"when: {name} does not follow a dot: write {name}(...)")
            self._call(name)
            return None
        self._at += 1
        variable, outer = self._take(), dict(self._bound)
        self._bound[variable] = str if isinstance(kind, dict) else _element(kind)
        self.group(")")
        self._bound = outer
        return kind if name == "filter" else None

    def _call(self, name: str) -> None:
        """The arguments of a function, and for ours what must be right about them."""
        if name not in FUNCTIONS and name not in BUILT_IN:
            raise RuleError(f"when: unknown function {name}{nearest(name, (*FUNCTIONS, *BUILT_IN, *MACROS))}")
        self._at += 1
        count = self.group(")")
        if name not in FUNCTIONS:
            return
        if count != FUNCTIONS[name]:
            raise RuleError(f"when: {name} takes {FUNCTIONS[name]} arguments, not {count}")
        if name != "below":
            _CHECKS[name](self, self._last_text(name))

    def _last_text(self, name: str) -> str:
        """The last argument of the call that was walked over: it must be known now."""
        last, before = self._tokens[self._at - 2], self._tokens[self._at - 3][0]
        text = last["string"]
        if text is None or "\\" in text or before not in (",", "("):
            raise RuleError(f"when: the last argument of {name} must be a plain text in quotes, not {last[0]}")
        return _unquoted(text)

    def check_header(self, text: str) -> None:
        """A field's name."""
        self.headers.add(text.lower())
        self._require("header")

    def check_listed(self, text: str) -> None:
        """A list's name."""
        if text not in self._lists:
            raise RuleError(f"when: unknown list {text!r}{nearest(text, self._lists)}")

    def check_inside(self, text: str) -> None:
        """Networks."""
        try:
            Networks.parse((text,))
        except ValueError as error:
            raise RuleError(f"when: inside: {error}") from error

    def _require(self, path: str) -> None:
        """The stage must know the fact."""
        fact = ".".join(path.split(".")[:2])
        fact = fact if fact in KNOWN_FROM else path.split(".")[0].partition("[")[0]
        if KNOWN_FROM[fact].rank > self._stage.rank:
            raise RuleError(f"when: {fact} is not known at stage {self._stage}, only from {KNOWN_FROM[fact]} on")


_CHECKS: dict[str, Callable[[_Walk, str], None]] = {
    "header": _Walk.check_header,
    "listed": _Walk.check_listed,
    "inside": _Walk.check_inside,
}


def _member(kind: Any, name: str, path: str) -> tuple[Any, str]:
    """What lies below a dot."""
    way = f"{path}.{name}".lstrip(".")
    if kind is None:
        return None, way
    if isinstance(kind, dict) and name in kind:
        return kind[name], way
    if isinstance(kind, list):
        raise RuleError(f"when: {path} is a list: write {path}.exists(one, one.{name} ...)")
    raise RuleError(f"when: unknown fact {way}{nearest(name, kind if isinstance(kind, dict) else ())}")


def _unquoted(literal: str) -> str:
    return literal.lstrip("rRbB").strip("\"'")


def _element(kind: Any) -> Any:
    return kind[0] if isinstance(kind, list) else None


def nearest(word: str, known: Collection[str]) -> str:
    """A hint to the nearest known word, or to all of them."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known are {', '.join(sorted(known))}" if known else ""


def samples(schema: Any = None) -> Iterator[Any]:
    """Facts of the schema's types for a trial run: lists once empty, and once with one element."""
    for size in (0, 1):
        yield _sample(SCHEMA if schema is None else schema, size)


def _sample(schema: Any, size: int) -> Any:
    if isinstance(schema, dict):
        return {name: _sample(kind, size) for name, kind in schema.items()}
    if isinstance(schema, list):
        return [_sample(schema[0], size) for _ in range(size)]
    return schema()
