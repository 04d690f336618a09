# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the value of an Authentication-Results field (RFC 8601, 2.2), in linear time for any input.

Comments and folding are allowed around every token (RFC 8601, appendix B.7). Beyond the ABNF we accept what large
providers write: no authserv-id (Office 365), an id and a version without any result, a final or doubled ``;``, methods
with dots (``gateway.spf`` of Gmail), unquoted values with ``/``, ``=`` or ``:``, an empty ``smtp.mailfrom=`` at the end
of a result (QQ and smf-spf, for bounces), a reason after the properties, and ``name=value`` without a ptype, which is
skipped, as are such pairs between the id and the first ``;`` (Yahoo). An unclosed comment or quoted-string, an unopened
``)`` and any other name without a value are faults, because two readers would see different results.

Nothing is believed here. Whether to trust the field depends on its position and its authserv-id: see `forged`.

We do not parse with the library authres: it recurses into nested comments until Python's limit, copies the rest of
the text at every token, does not know the ``dns`` ptype or UTF-8, and keeps the backslashes of a quoted-string.
"""

from __future__ import annotations

import re

from assay.protocol.authres.result import AuthenticationResults, FieldFault, MethodResult, Property

# Octets; it bounds every loop below. Our choice: the size of one packet of the milter protocol (MILTER_CHUNK_SIZE).
MAX_LENGTH = 65535

_FOLD = re.compile(r"\r?\n(?=[ \t])")
_WHITE = re.compile(r"[ \t\r\n]*")
_COMMENT_MARK = re.compile(r"\\.|[()]", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_NONE = re.compile(r"none(?=[\s;(]|\Z)", re.IGNORECASE)
_KEYWORD = re.compile(r"[A-Za-z0-9_-]+")
_DOTTED = re.compile(r"[A-Za-z0-9_.-]+")  # the method gateway.spf; properties such as header.ams.d
_NOTHING = re.compile(r"=[ \t]*(?=;|\Z)")
_DIGITS = re.compile(r"[0-9]+")
_SERVICE = re.compile(r'[^\s;()"=]+')
_WORD = re.compile(r'[^\s;()"]+')  # a value as written


class _SyntaxFaultError(Exception):
    """Ends reading; becomes a `FieldFault`."""


def parse(value: bytes) -> AuthenticationResults | FieldFault:
    """Read a field's value, folded or not.

    :param value: the text after the colon, as received.
    :returns: the results, with method, result word, ptype and property in lower case, or what is wrong.
    """
    if len(value) > MAX_LENGTH:
        return FieldFault(f"longer than {MAX_LENGTH} octets")
    scanner = _Scanner(_FOLD.sub("", value.decode("utf-8", "surrogateescape")))
    try:
        authserv_id = _authserv_id(scanner)
        if authserv_id:
            version = scanner.take(_DIGITS)
            if not _is_ours(version):
                # RFC 8601, 2.6: what follows may mean anything.
                return FieldFault("unsupported version", unsupported_version=True)
            scanner.skip()
            if version and scanner.is_at_end:
                return AuthenticationResults(authserv_id)
            _skip_pairs(scanner)
        return AuthenticationResults(authserv_id, 1, _results(scanner))
    except _SyntaxFaultError as fault:
        return FieldFault(str(fault))


def is_of_another_version(value: bytes) -> bool:
    """Whether a field says that it has a version that we do not support; the rest is not read."""
    scanner = _Scanner(_FOLD.sub("", value[:MAX_LENGTH].decode("utf-8", "surrogateescape")))
    try:
        return bool(_authserv_id(scanner)) and not _is_ours(scanner.take(_DIGITS))
    except _SyntaxFaultError:
        return False


def _is_ours(version: str) -> bool:
    """Whether a version is supported or absent (RFC 8601, 2.6)."""
    return not version or version.lstrip("0") == "1"


def _skip_pairs(scanner: _Scanner) -> None:
    """Skip ``name=value`` between the id and the first ``;``: Yahoo wrote ``from=`` there."""
    while not scanner.is_at_end and not scanner.sees(";"):
        if not scanner.take(_KEYWORD):
            raise _SyntaxFaultError("no semicolon after the authserv-id")
        scanner.skip()
        scanner.expect("=")
        scanner.value()


def _authserv_id(scanner: _Scanner) -> str:
    """Read the id and the white space after it; empty, with nothing read, if the field starts with a result."""
    scanner.skip()
    start = scanner.at
    authserv_id = scanner.quoted() if scanner.sees('"') else scanner.take(_SERVICE)
    if not authserv_id:
        raise _SyntaxFaultError("no authserv-id")
    scanner.skip()
    if scanner.sees("="):
        scanner.at = start
        return ""
    return authserv_id


def _results(scanner: _Scanner) -> tuple[MethodResult, ...]:
    """RFC 8601, 2.2: ``( no-result / 1*resinfo )``; empty ones are skipped."""
    results: list[MethodResult] = []
    count = nones = 0
    while not scanner.is_at_end:
        if scanner.accept(";"):
            scanner.skip()
            continue
        count += 1
        if scanner.take(_NONE):
            nones += 1
            scanner.skip()
        else:
            result = _resinfo(scanner)
            if result is not None:
                results.append(result)
        if not scanner.is_at_end and not scanner.sees(";"):
            raise _SyntaxFaultError("text that does not belong to a result")
    if not count:
        raise _SyntaxFaultError("no result")
    if nones and count > 1:
        raise _SyntaxFaultError('"none" beside results')
    return tuple(results)


def _resinfo(scanner: _Scanner) -> MethodResult | None:
    """One result, up to its ``;``; None for one that a reader must ignore."""
    method = scanner.word(_DOTTED, "method")
    version = "1"
    if scanner.accept("/"):
        scanner.skip()
        version = scanner.take(_DIGITS)
        scanner.skip()
    scanner.expect("=")
    result = scanner.take(_WORD)
    if not result:
        raise _SyntaxFaultError("no result after a method")
    comment = scanner.skip()
    reason = ""
    properties: list[Property] = []
    while not scanner.is_at_end and not scanner.sees(";"):
        name = scanner.word(_KEYWORD, "property")
        if scanner.accept("."):
            scanner.skip()
            qualified = scanner.word(_DOTTED, "property")
            is_null = (name, qualified) == ("smtp", "mailfrom") and scanner.take(_NOTHING)
            if not is_null:
                scanner.expect("=")
            properties.append(Property(name, qualified, "" if is_null else scanner.value()))
        else:
            scanner.expect("=")
            text = scanner.value()
            if name == "reason":
                reason = " ".join(text.split())
    # RFC 8601, 2.6: a method of another version is another method. Amazon SES writes SPF's evidence as if it were
    # results ("envelope-from=a@b.example"); a result word must be a keyword.
    if version.lstrip("0") != "1" or not _KEYWORD.fullmatch(result):
        return None
    return MethodResult(method, result.lower(), reason, comment, tuple(properties))


class _Scanner:
    """A position in a text that only moves forward; `skip` takes comments and white space."""

    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    @property
    def is_at_end(self) -> bool:
        return self.at >= len(self.text)

    def sees(self, character: str) -> bool:
        return self.text.startswith(character, self.at)

    def accept(self, character: str) -> bool:
        if not self.sees(character):
            return False
        self.at += 1
        return True

    def expect(self, character: str) -> None:
        """Take a separator and any CFWS after it."""
        if not self.accept(character):
            raise _SyntaxFaultError(f'no "{character}" where one is required')
        self.skip()

    def take(self, pattern: re.Pattern[str]) -> str:
        """Take what matches here; empty if nothing does."""
        match = pattern.match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match[0]

    def word(self, pattern: re.Pattern[str], what: str) -> str:
        """Take a required word, in lower case, and any CFWS after it."""
        word = self.take(pattern)
        if not word:
            raise _SyntaxFaultError(f"no {what} where one is required")
        self.skip()
        return word.lower()

    def quoted(self) -> str:
        """Take a quoted-string, and return its content (RFC 5322, 3.2.4)."""
        match = _QUOTED.match(self.text, self.at)
        if match is None:
            raise _SyntaxFaultError("unterminated quoted-string")
        self.at = match.end()
        content = match[1]
        return _QUOTED_PAIR.sub(r"\1", content) if "\\" in content else content

    def value(self) -> str:
        """Take a value or an e-mail identity, empty in quotes only (RFC 8601, 2.2), and any CFWS after it."""
        start = self.at
        if self.sees('"'):
            value = self.quoted()
            if self.sees("@"):  # a quoted local part: part of an address, so its quotes are kept
                self.take(_WORD)
                value = self.text[start : self.at]
        else:
            value = self.take(_WORD)
            if not value:
                raise _SyntaxFaultError("a name without a value")
        self.skip()
        return value

    def skip(self) -> str:
        """Skip CFWS (RFC 5322, 3.2.2), and return the text of the first comment; empty if there is none."""
        first = ""
        while True:
            self.take(_WHITE)
            if not self.sees("("):
                return first
            comment = self._comment()
            first = first or comment

    def _comment(self) -> str:
        start = self.at + 1
        depth = 0
        for mark in _COMMENT_MARK.finditer(self.text, self.at):
            if mark[0] == "(":
                depth += 1
            elif mark[0] == ")":
                depth -= 1
                if not depth:
                    self.at = mark.end()
                    return " ".join(_QUOTED_PAIR.sub(r"\1", self.text[start : mark.start()]).split())
        raise _SyntaxFaultError("unterminated comment")
