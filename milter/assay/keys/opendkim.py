# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenDKIM's KeyTable and SigningTable, read as they are (opendkim.conf(5), and opendkim(8) on data sets).

A data set is ``file:PATH`` or an absolute path (a key and a value on each line), ``refile:PATH`` (the keys are patterns
in which ``*`` stands for any text), or ``csl:`` and a list ``KEY=VALUE,KEY=VALUE``. ``#`` begins a comment. The fields
of a value are separated by colons:

- KeyTable: a name, then the domain (d=; ``%`` for the author's), the selector, and the path of the key, in which ``%``
  also stands for the author's domain;
- SigningTable: an address, then the name of a key (``%`` for the author's domain) and, if wanted, the identity (i=).

Files are read by `assay.config.signing`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from assay.keys.table import Signatory, signer_of, someone
from assay.model.name import Domain, InvalidNameError, Mailbox
from assay.protocol import dkim

AUTHOR_DOMAIN = "%"
_UNSUPPORTED = ("db:", "dsn:", "ldap:", "ldaps:", "ldapi:", "lua:", "memcache:", "mdb:", "erlang:", "socket:")
_PATHS = ("/", "./", "../")


class TableError(ValueError):
    """A table that cannot be used. The message begins with the file and the line."""


class DataSet(StrEnum):
    """The kinds of data sets."""

    FILE = "file"
    PATTERNS = "refile"
    LIST = "csl"


class TableEntry(Struct, frozen=True):
    """A key and its value. `place` is where it is, as ``FILE:LINE``."""

    place: str
    key: str
    value: str


def data_set(text: str) -> tuple[DataSet, str]:
    """The kind of a data set, and the path or the list.

    :raises TableError: a kind that is not supported.
    """
    for kind in DataSet:
        if text.startswith(f"{kind}:"):
            return kind, text.partition(":")[2]
    for prefix in _UNSUPPORTED:
        if text.startswith(prefix):
            raise TableError(f"{text!r}: data sets of the kind {prefix} are not supported; write file: or refile:")
    return (DataSet.FILE, text) if text.startswith(_PATHS) else (DataSet.LIST, text)


def entries(kind: DataSet, name: str, text: str) -> Iterator[TableEntry]:
    """The entries of a data set.

    :param name: of the file, for messages.
    :param text: the content of the file, or the list.
    :raises TableError: a key without a value, or a list that is none.
    """
    if kind is DataSet.LIST:
        if text.strip() and "=" not in text:
            raise TableError(f"{text!r} is neither a path nor a list of KEY=VALUE; for a file, write file:{text}")
        rows = ((f"entry {number}", *part.partition("=")[::2]) for number, part in enumerate(text.split(","), 1))
    else:
        lines = enumerate(text.splitlines(), 1)
        rows = ((f"{name}:{number}", *_split(line.partition("#")[0])) for number, line in lines)
    for place, key, value in rows:
        if key.strip() and not value.strip():
            raise TableError(f"{place}: {key.strip()!r} has no value; write the name of a key after it")
        if key.strip():
            yield TableEntry(place, key.strip(), value.strip())


def _split(line: str) -> tuple[str, str]:
    """The first word of a line, and the rest."""
    key, rest = [*line.split(None, 1), "", ""][:2]
    return key, rest


class KeyRow(Struct, frozen=True):
    """One row of a KeyTable. `domain` is None for that of the author."""

    place: str
    domain: Domain | None
    selector: Domain
    path: str


def key_rows(table: Iterable[TableEntry]) -> dict[str, KeyRow]:
    """The rows of a KeyTable by name; of rows with one name, the first.

    :raises TableError: a value that does not have three fields, or is not what it should be.
    """
    rows: dict[str, KeyRow] = {}
    for entry in table:
        fields = [field.strip() for field in entry.value.split(":", 2)]
        if len(fields) < 3:
            raise TableError(f"{entry.place}: {entry.value!r} is not DOMAIN:SELECTOR:PATH")
        domain, selector, path = fields
        if not path.startswith(_PATHS):
            raise TableError(f"{entry.place}: the key is not a path; put the key into a file and write its path")
        found = None if domain == AUTHOR_DOMAIN else _name(entry.place, "domain", domain)
        rows.setdefault(entry.key, KeyRow(entry.place, found, _name(entry.place, "selector", selector), path))
    return rows


def _name(place: str, what: str, text: str) -> Domain:
    try:
        return Domain.parse_host(text)
    except InvalidNameError as error:
        raise TableError(f"{place}: {text!r} is not a {what}: {error}") from error


class LoadedKey(Struct, frozen=True):
    """A row of a KeyTable with its keys, by the author domain that ``%`` in the path stands for, None for any."""

    row: KeyRow
    keys: Mapping[str | None, dkim.PrivateKey]

    def signatory(self, address: Mailbox, identity: str, place: str, rules: dkim.SigningRules) -> Signatory | None:
        """What signs for an address; None if there is no key for its domain."""
        private = self.keys.get(address.domain.name) or self.keys.get(None)
        if private is None:
            return None
        domain = self.row.domain or address.domain
        key = dkim.SigningKey(self.row.selector, private)
        return Signatory(domain, (key,), rules, signer_of(identity, address, domain), place)


class SigningRow(Struct, frozen=True):
    """One row of a SigningTable. `pattern` is in lower case; `key` names a row of the KeyTable."""

    place: str
    pattern: str
    key: str
    identity: str


def signing_rows(kind: DataSet, table: Iterable[TableEntry], keys: Mapping[str, object]) -> list[SigningRow]:
    """The rows of a SigningTable in their order.

    :param keys: the KeyTable, by name.
    :raises TableError: a row names a key that is not there, or can never match.
    """
    rows = []
    for entry in table:
        if fix := _never_matches(kind, entry.key):
            raise TableError(f"{entry.place}: {entry.key!r} never matches: {fix}")
        key, _, identity = (field.strip() for field in entry.value.partition(":"))
        if key not in keys and key != AUTHOR_DOMAIN:
            raise TableError(f"{entry.place}: the KeyTable has no key named {key!r}")
        rows.append(SigningRow(entry.place, _in_a_labels(entry.key.lower()), key, identity))
    return rows


def _never_matches(kind: DataSet, key: str) -> str:
    """What to write in place of a key that matches no address; empty if it can match."""
    if kind is DataSet.PATTERNS:
        if "*" not in key and "@" not in key:
            return f"patterns are compared with whole addresses; write *@{key.removeprefix('.')}"
    elif "*" in key.removesuffix("@*") and key != "*":
        return "only refile: has patterns; write refile: before the path"
    return ""


def _in_a_labels(pattern: str) -> str:
    """A pattern with its domain as we compare domains, if it is one."""
    local_part, at, domain = pattern.rpartition("@")
    if domain.isascii():
        return pattern
    try:
        return f"{local_part}{at}{Domain.parse(domain).name}"
    except InvalidNameError:
        return pattern


class SigningTable:
    """A KeyTable and a SigningTable. A `assay.keys.table.Table`."""

    __slots__ = ("_all", "_by_domain", "_everywhere", "_keys", "_patterns", "_rows", "_rules", "domains")

    def __init__(
        self,
        kind: DataSet,
        rows: Sequence[SigningRow],
        keys: Mapping[str, LoadedKey],
        rules: dkim.SigningRules,
        *,
        all_matches: bool = False,
    ) -> None:
        """
        :param kind: of the SigningTable: patterns are tried in their order, other keys by how narrow they are.
        :param all_matches: sign for all rows that match, and not for the first only (OpenDKIM: MultipleSignatures).
        """
        self._rows = rows
        self._keys = keys
        self._rules = rules
        self._all = all_matches
        self._patterns = kind is DataSet.PATTERNS
        #: Rows by what they name, or, of patterns, by their domain. Most patterns are ``*@domain``, so a message is
        #: compared with few of them. Each with its place in the order.
        self._by_domain: dict[str, list[tuple[int, SigningRow]]] = {}
        self._everywhere: list[tuple[int, SigningRow]] = []
        for number, row in enumerate(rows):
            domain = row.pattern.rpartition("@")[2] if self._patterns else row.pattern
            if self._patterns and ("*" in domain or "@" not in row.pattern):
                self._everywhere.append((number, row))
            else:
                self._by_domain.setdefault(domain, []).append((number, row))
        names = (row.pattern.rpartition("@")[2].removeprefix("*").removeprefix(".") for row in rows)
        self.domains = frozenset(name for name in names if name and "*" not in name)

    @property
    def rules(self) -> Sequence[dkim.SigningRules]:
        """See `assay.keys.table.Table`."""
        return (self._rules,)

    @property
    def signatories(self) -> Sequence[Signatory]:
        """See `assay.keys.table.Table`. Those for any author domain (``%``) are not among them."""
        found: list[Signatory] = []
        for name, loaded in self._keys.items():
            identities = [row.identity for row in self._rows if row.identity and row.key in (name, AUTHOR_DOMAIN)]
            for author, private in loaded.keys.items():
                domain = loaded.row.domain or (Domain(author) if author else None)
                if domain is not None:
                    key = dkim.SigningKey(loaded.row.selector, private)
                    below = (signer_of(identity, someone(domain), domain) for identity in identities)
                    identity = next(filter(None, below), "")
                    found.append(Signatory(domain, (key,), self._rules, identity, loaded.row.place))
        return found

    def find(self, address: Mailbox) -> Iterator[Signatory]:
        """See `assay.keys.table.Table`."""
        for row in self._matching(address):
            key = self._keys.get(address.domain.name if row.key == AUTHOR_DOMAIN else row.key)
            signatory = key and key.signatory(address, row.identity, row.place, self._rules)
            if signatory:
                yield signatory
                if not self._all:
                    return

    def near_misses(self, address: Mailbox) -> Iterator[str]:
        """See `assay.keys.table.Table`."""
        for row in self._matching(address):
            name = address.domain.name if row.key == AUTHOR_DOMAIN else row.key
            if name not in self._keys:
                yield f"{row.place} matches, but the KeyTable has no key named {name!r}"
            elif self._keys[name].signatory(address, "", "", self._rules) is None:
                yield f"{row.place} matches, but {self._keys[name].row.path} has no file for {address.domain}"
        matching = {row.place for row in self._matching(address)}
        for row in self._rows:
            _, at, domain = row.pattern.rpartition("@")
            if row.place in matching or (not at and self._patterns):
                continue
            if domain.lstrip(".") == address.domain.name:
                yield f"{row.place} is for {row.pattern}, and the local part is {address.local_part!r}"
            elif not domain.startswith(("*", ".")) and address.domain.name.endswith(f".{domain}"):
                yield f"{row.place} ({row.pattern}) does not match subdomains"

    def _matching(self, address: Mailbox) -> Iterator[SigningRow]:
        """The rows that match, in the order in which they count."""
        text = f"{address.local_part.lower()}@{address.domain.name}"
        if self._patterns:
            candidates = sorted((*self._by_domain.get(address.domain.name, ()), *self._everywhere))
            yield from (row for _, row in candidates if matches(row.pattern, text))
            return
        for key in _keys_of(address.local_part.lower(), address.domain):
            yield from (row for _, row in self._by_domain.get(key, ())[:1])


def _keys_of(local_part: str, domain: Domain) -> Iterator[str]:
    """The keys under which OpenDKIM looks for an address, in its order."""
    above = [f".{domain.name.split('.', count)[count]}" for count in range(1, len(domain.labels))]
    yield f"{local_part}@{domain.name}"
    yield domain.name
    yield from (f"{local_part}@{name}" for name in above)
    yield from above
    yield f"{local_part}@*"
    yield "*"


def matches(pattern: str, text: str) -> bool:
    """Whether a pattern, in which ``*`` stands for any text, matches a whole text."""
    first, *parts = pattern.split("*")
    if not parts:
        return text == pattern
    if not text.startswith(first):
        return False
    at = len(first)
    *middle, last = parts
    for part in middle:  # the leftmost match leaves most to the rest, so there is nothing to try again
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(text) - at >= len(last) and text.endswith(last)


def files_for(path: str) -> tuple[str, re.Pattern[str]]:
    """How to find the key files that a path with ``%`` stands for.

    :returns: a pattern for glob(7), and one that finds the author domain in each path.
    """
    before, *after = path.split(AUTHOR_DOMAIN)
    escaped = [re.sub(r"([*?[])", r"[\1]", part) for part in (before, *after)]
    expression = re.escape(before) + "(?P<domain>[^/]+)"
    expression += "(?P=domain)".join(re.escape(part) for part in after)
    return "*".join(escaped), re.compile(expression)
