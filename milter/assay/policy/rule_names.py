# SPDX-License-Identifier: GPL-3.0-or-later
"""The names in a rule's CEL expression, checked at start: facts, functions, lists, header fields.

CEL itself reports an unknown name only when it evaluates a message, and never inside a macro over an empty list. Here
we walk over the expression with the types of `vocabulary.Facts`, macros' variables included. CEL has parsed it before,
so the walk trusts the syntax. It leaves to CEL what it cannot type, such as a literal's members.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from msgspec import Struct

from assay.model.name import Domain, InvalidNameError
from assay.model.network import Networks
from assay.policy.addresses import normal_address, normal_domain
from assay.policy.decision import Stage
from assay.policy.vocabulary import Facts, element, is_tree, known_from, members

#: The functions that rules have in addition to CEL's own: number of arguments, type of the result.
FUNCTIONS: Mapping[str, tuple[int, Any]] = {
    "inside": (2, bool),
    "below": (2, bool),
    "listed": (2, bool),
    "header": (1, str),
    "headers": (1, tuple[str, ...]),
    "header_count": (1, int),
}
#: CEL's own functions, as functions or methods, as far as the library has them.
BUILT_IN = frozenset(
    (
        *("bytes", "contains", "double", "duration", "dyn", "endsWith", "has", "int", "matches", "size", "startsWith"),
        *("string", "timestamp", "type", "uint"),
    )
)
#: CEL's macros, which bind a variable to each element in turn.
MACROS = frozenset(("all", "exists", "exists_one", "filter", "map"))
_WORDS = frozenset(("true", "false", "null", "in"))
_TYPES = frozenset(("bool", "bytes", "double", "int", "list", "map", "string", "type", "uint", "null_type"))

#: No two alternatives can match the same beginning, so this is linear.
_TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*)"""
    r"""|(?P<string>[rRbB]{0,2}(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'))"""
    r"""|(?P<number>(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+|[xX][0-9a-fA-F]+)?[uU]?)"""
    r"""|(?P<name>[A-Za-z_]\w*)"""
    r"""|(?P<other>[=!<>]=|\S)""",
    re.DOTALL,
)


class RuleError(ValueError):
    """An invalid rule. The message describes the error and the fix."""


#: The part of the facts that an expression reads, by name; None for everything below a name.
View = dict[str, "View | None"]


class Names(Struct, frozen=True):
    """The names in an expression: the facts it reads, and header fields in lower case."""

    view: View
    headers: frozenset[str]


class _Operand(Struct, frozen=True):
    """What the walk knows about an operand.

    `kind` is a type of the vocabulary, None if unknown. `path` is its name in the expression. `origin` are the names
    that lead to it from the top of the facts, None if it is not a fact.
    """

    kind: Any = None
    path: str = ""
    origin: tuple[str, ...] | None = None


def check_names(expression: str, stage: Stage, lists: Collection[str], *, exact: bool = False) -> Names:
    """Find all names of an expression that CEL could parse.

    :param lists: the names of the operator's lists.
    :param exact: local parts of addresses differ by case.
    :raises RuleError: an unknown fact, function or list, with the nearest known one; an argument of `inside` that does
        not name networks, or of `below` that does not name a domain; an address or domain not in
        normal form; a pattern that is not a literal; a fact that is not known yet at this stage.
    """
    walk = _Walk(expression, stage, lists, exact)
    walk.group("")
    return Names(walk.view, frozenset(walk.headers))


def merge(views: Collection[View]) -> View:
    """Combine the views of several expressions."""
    merged: View = {}
    for view in views:
        for name, part in view.items():
            before = merged.get(name, {})
            merged[name] = None if part is None or before is None else merge((before, part))
    return merged


class _Walk:
    """The walk over one expression's tokens."""

    def __init__(self, expression: str, stage: Stage, lists: Collection[str], exact: bool) -> None:
        self.view: View = {}
        self.headers: set[str] = set()
        self._expression = expression
        self._tokens = [token for token in _TOKEN.finditer(expression) if token["comment"] is None]
        self._at = 0
        self._stage = stage
        self._lists = lists
        self._exact = exact
        self._bound: dict[str, _Operand] = {}

    def _error(self, message: str, back: int = 1) -> RuleError:
        """An error at the last token taken, or further back."""
        offset = self._tokens[min(self._at, len(self._tokens)) - back].start()
        before = self._expression[:offset]
        column = offset - before.rfind("\n")
        return RuleError(f"when: line {before.count(chr(10)) + 1}, column {column}: {message}")

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
        """Walk up to the closing bracket or the end. Returns the number of arguments in between."""
        began, commas = self._at, 0
        while (sign := self._peek()) != closer:
            commas += sign == ","
            self._operand()
        empty = self._at == began
        self._at += 1
        return 0 if empty else commas + 1

    def _operand(self) -> None:
        """Walk over one operand with its members and methods, or one operator."""
        if self._is("name") and self._peek() not in _WORDS:
            operand = self._root()
        else:
            operand = _Operand()
            literal = self._is("string") or self._is("number")
            closer = {"(": ")", "[": "]", "{": "}"}.get(self._take())
            if closer is not None:
                self.group(closer)
            elif not literal:
                return  # an operator
        while (sign := self._peek()) in (".", "["):
            self._at += 1
            if sign == "." and self._peek(1) == "(":
                operand = self._method(operand)
            elif sign == ".":
                operand = self._member(operand, self._take())
            elif self._is("string") and self._peek(1) == "]":
                operand = self._member(operand, _unquoted(self._take()))
                self._at += 1
            else:
                self.group("]")
                operand = _Operand(element(operand.kind), f"{operand.path}[]", operand.origin)
        self._look_at(operand)
        self._compare(operand)
        if self._peek() == "in" and self._peek(1) == "[":
            self._check_choice(operand)

    def _look_at(self, operand: _Operand, *, elements: bool = False) -> None:
        """Note that a fact is read, with all below it, or only its elements one by one. The stage must know it."""
        if operand.origin is None:
            return
        self._require(".".join(operand.origin))
        *above, last = operand.origin
        view = self.view
        for name in above:
            below = view.setdefault(name, {})
            if below is None:
                return
            view = below
        if not elements:
            view[last] = None
        else:
            view.setdefault(last, {})

    def _compare(self, operand: _Operand) -> None:
        """Refuse to compare a fact with a literal of another type: it would never match."""
        if operand.kind not in (str, bool, int) or self._peek() not in ("==", "!="):
            return
        other = self._peek(1)
        literal = (
            str
            if self._is("string", 1)
            else int
            if self._is("number", 1)
            else bool
            if other in ("true", "false")
            else operand.kind
        )
        if literal is not operand.kind:
            want = {str: "a text in quotes", int: "a number", bool: "true or false"}[operand.kind]
            raise self._error(f"{operand.path} {self._peek()} {other}: compare it with {want}")
        if self._is("string", 1):
            self._check_spelling(operand, other)

    def _check_choice(self, operand: _Operand) -> None:
        """Check the texts in the brackets after ``in``."""
        ahead = 2
        while self._is("string", ahead):
            self._check_spelling(operand, self._peek(ahead))
            ahead += 2

    def _check_spelling(self, operand: _Operand, literal: str) -> None:
        """Refuse an address or domain not in normal form: facts never have that form."""
        text = _unquoted(literal)
        if operand.origin in _ADDRESSES:
            normal = normal_address(text, exact=self._exact)
        elif operand.origin and operand.origin[-1] in _DOMAINS:
            normal = normal_domain(text)
        else:
            return
        if normal != text and "\\" not in text:
            raise self._error(f"{operand.path} is never {literal}: write '{normal}'")

    def _root(self) -> _Operand:
        """Take the name that an operand begins with."""
        name = self._take()
        if self._peek() == "(":
            if name in MACROS:
                raise self._error(f"{name} needs something before it, such as dkim.{name}(...)")
            self._call(name)
            return _Operand(FUNCTIONS[name][1], f"{name}(...)") if name in FUNCTIONS else _Operand()
        if name in self._bound:
            return self._bound[name]
        if name in FACTS:
            return _Operand(FACTS[name].kind, name, (name,))
        if name in _TYPES:
            return _Operand()
        if name in FUNCTIONS:
            raise self._error(f"{name} is a function: write {name}(...)")
        raise self._error(f"unknown fact {name}{nearest(name, (*self._bound, *FACTS))}")

    def _member(self, operand: _Operand, name: str) -> _Operand:
        """The member of an operand."""
        kind, path = operand.kind, f"{operand.path}.{name}".lstrip(".")
        if kind is None:
            return _Operand(None, path, operand.origin)
        if is_tree(kind) and name in members(kind):
            origin = (*operand.origin, name) if operand.origin is not None else None
            return _Operand(members(kind)[name].kind, path, origin)
        if element(kind) is not None:
            raise self._error(f"{operand.path} is a list: write {operand.path}.exists(one, one.{name} ...)")
        raise self._error(f"unknown fact {path}{nearest(name, members(kind) if is_tree(kind) else ())}")

    def _method(self, operand: _Operand) -> _Operand:
        """Walk over a method call. Returns what is known of its result."""
        name = self._take()
        self._look_at(operand, elements=name in MACROS and is_tree(element(operand.kind)))
        if name not in MACROS:
            if name in FUNCTIONS:
                raise self._error(f"{name} does not follow a dot: write {name}(...)")
            self._call(name)
            return _Operand()
        self._at += 1
        variable, outer = self._take(), dict(self._bound)
        kind = str if is_tree(operand.kind) else element(operand.kind)
        self._bound[variable] = _Operand(kind, variable, operand.origin if element(operand.kind) is not None else None)
        self.group(")")
        self._bound = outer
        return operand if name == "filter" else _Operand()

    def _call(self, name: str) -> None:
        """Walk over the arguments of a function and check them."""
        if name not in FUNCTIONS and name not in BUILT_IN:
            raise self._error(f"unknown function {name}{nearest(name, (*FUNCTIONS, *BUILT_IN, *MACROS))}")
        self._at += 1
        count = self.group(")")
        if name in FUNCTIONS and count != FUNCTIONS[name][0]:
            want = FUNCTIONS[name][0]
            raise self._error(f"{name} takes {want} argument{'s' if want > 1 else ''}, not {count}")
        if name == "below":
            self._check_below()
        elif name in _CHECKS:
            _CHECKS[name](self, self._last_text(name))

    def _check_below(self) -> None:
        """Check the upper domain, if it is a literal."""
        text = self._tokens[self._at - 2]["string"]
        if text is None or self._tokens[self._at - 3][0] != ",":
            return
        try:
            Domain.parse(_unquoted(text).removeprefix("."))
        except InvalidNameError as error:
            raise self._error(f"below: {text} is not a domain: {error}", 2) from error

    def _last_text(self, name: str) -> str:
        """The last argument of the call, which must be a literal."""
        last, before = self._tokens[self._at - 2], self._tokens[self._at - 3][0]
        text = last["string"]
        if text is None or before not in (",", "(") or ("\\" in text and name != "matches"):
            raise self._error(f"the last argument of {name} must be a plain text in quotes, not {last[0]}", 2)
        return _unquoted(text)

    def check_header(self, text: str) -> None:
        """Note the name of a header field."""
        self.headers.add(text.lower())
        self._require("header")

    def check_listed(self, text: str) -> None:
        """Check the name of a list."""
        if text not in self._lists:
            raise self._error(f"unknown list {text!r}{nearest(text, self._lists)}", 2)

    def check_inside(self, text: str) -> None:
        """Check networks."""
        try:
            Networks.parse((text,))
        except ValueError as error:
            raise self._error(f"inside: {error}", 2) from error

    def check_pattern(self, _: str) -> None:
        """A pattern must only be a literal: one from a message could be arbitrarily expensive."""

    def _require(self, path: str) -> None:
        """Refuse a fact that is not known yet at the stage."""
        fact, known = known_from(path)
        if known.rank > self._stage.rank:
            raise self._error(f"{fact} is not known at stage {self._stage}, only from {known} on")


#: The facts that an expression names directly, without a function.
FACTS = {name: fact for name, fact in members(Facts).items() if name != "header"}

#: The facts that are addresses, and the last names of facts that are domains.
_ADDRESSES = (("mail_from", "address"), ("rcpt",), ("from", "address"))
_DOMAINS = ("domain", "domains", "organizational_domain", "sealers")

_CHECKS: dict[str, Callable[[_Walk, str], None]] = {
    "header": _Walk.check_header,
    "headers": _Walk.check_header,
    "header_count": _Walk.check_header,
    "listed": _Walk.check_listed,
    "inside": _Walk.check_inside,
    "matches": _Walk.check_pattern,
}


def _unquoted(literal: str) -> str:
    text = literal.lstrip("rRbB")
    marks = 3 if text[:3] in ('"""', "'''") else 1
    return text[marks:-marks]


def nearest(word: str, known: Collection[str]) -> str:
    """A hint: the nearest known word, or all of them."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known are {', '.join(sorted(known))}" if known else ""


def samples() -> Iterator[Facts]:
    """Facts for trial runs: lists first empty, then with one element."""
    for size in (0, 1):
        yield _sample(Facts, size)


def _sample(kind: Any, size: int) -> Any:
    if is_tree(kind):
        return kind(**{fact.attribute: _sample(fact.kind, size) for fact in members(kind).values()})
    if element(kind) is not None:
        return tuple(_sample(element(kind), size) for _ in range(size))
    return {} if kind not in (str, bool) else kind()
