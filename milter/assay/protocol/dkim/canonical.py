# SPDX-License-Identifier: GPL-3.0-or-later
"""Canonicalization (RFC 6376, 3.4): which octets of a message are hashed, and the hashes of its body.

A header is small and complete, so its fields are canonicalized as bytes. A body may be large, so it is hashed as it
arrives: `BodyHashes` keeps a few octets and a count, whatever the body's size and however it is cut into chunks.

Nothing is repaired: a bare CR or LF is an octet like any other, and only CRLF ends a line.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from assay.model.message import Header, HeaderField


class Canonicalization(StrEnum):
    """The two algorithms of RFC 6376, 3.4."""

    SIMPLE = "simple"
    RELAXED = "relaxed"


class BodyHashSpec(Struct, frozen=True):
    """Which hash of the body a signature needs.

    `hash_name` is ``sha256`` or ``sha1``. `length` is l=, the octets of the canonical body that are hashed; None for
    all of them.
    """

    canonicalization: Canonicalization
    hash_name: str
    length: int | None = None


#: The b= tag of a signature field with its value, after the semicolon that precedes every tag here. Each octet is read
#: once: no part can match another's octets.
_B_TAG = re.compile(rb";[ \t\r\n]*b[ \t\r\n]*=([^;]*)")


def canonical_field(field: HeaderField, canonicalization: Canonicalization) -> bytes:
    """A header field as it is hashed, with its final CRLF (RFC 6376, 3.4.1 and 3.4.2)."""
    if canonicalization is Canonicalization.SIMPLE:
        return field.raw
    return b"%s:%s\r\n" % (field.key, _one_space(field.value.replace(b"\r\n", b"")).strip(b" "))


def canonical_signature_field(field: HeaderField, canonicalization: Canonicalization) -> bytes:
    """The signature's own field as it is hashed: b= emptied, no final CRLF (RFC 6376, 3.7)."""
    # RFC 6376, 3.5: the value is removed with all white space around it, so up to the semicolon; what precedes stays.
    value = b";" + field.value
    tag = _B_TAG.search(value)
    emptied = value[1:] if tag is None else value[1 : tag.start(1)] + value[tag.end(1) :]
    return canonical_field(HeaderField(field.name, emptied), canonicalization)[:-2]


def select_fields(names: Sequence[str], header: Header, own: HeaderField) -> list[HeaderField]:
    """The fields that h= names, in its order (RFC 6376, 5.4.2).

    Each name selects the next instance from the bottom up; a name with none left adds nothing, which is how a signer
    forbids adding one. `own`, the signature's own field, is never selected (RFC 6376, 3.5, h=). It is compared by
    identity, because a copy of a signature is another field.
    """
    left: dict[str, list[HeaderField]] = {}
    selected = []
    for name in names:
        instances = left.get(name)
        if instances is None:
            instances = left[name] = [field for field in header.all(name) if field is not own]
        if instances:
            selected.append(instances.pop())
    return selected


def signed_octets(names: Sequence[str], header: Header, own: HeaderField, canonicalization: Canonicalization) -> bytes:
    """The octets that a signature field `own` with this h= signs (RFC 6376, 3.7): the fields it names, then itself."""
    fields = select_fields(names, header, own)
    octets = [canonical_field(field, canonicalization) for field in fields]
    octets.append(canonical_signature_field(own, canonicalization))
    return b"".join(octets)


def new_hash(name: str, data: bytes = b"") -> hashlib._Hash:
    """Start a hash: ``sha256`` or ``sha1``, the latter even if the system's policy forbids it for security."""
    return hashlib.sha256(data) if name == "sha256" else hashlib.sha1(data, usedforsecurity=False)


class BodyHashes:
    """The hashes of one body: each distinct `BodyHashSpec` once, fed with the body as it arrives.

    Ask for digests after the whole body has been fed; then no more of it can be fed.
    """

    __slots__ = ("_bodies", "_ended", "_sinks")

    def __init__(self, specs: Iterable[BodyHashSpec]) -> None:
        self._sinks = {spec: _Sink(spec) for spec in specs}
        sinks: dict[Canonicalization, list[_Sink]] = {}
        for spec, sink in self._sinks.items():
            sinks.setdefault(spec.canonicalization, []).append(sink)
        self._bodies = {canonicalization: _BODIES[canonicalization](those) for canonicalization, those in sinks.items()}
        self._ended = False

    def update(self, chunk: bytes) -> None:
        """Feed the next part of the body: CRLF line ends, cut anywhere, even inside a CRLF.

        :raises ValueError: a digest or a length has already been asked for.
        """
        if self._ended:
            raise ValueError("the body has ended")
        if chunk:
            for body in self._bodies.values():
                body.update(chunk)

    def digest(self, spec: BodyHashSpec) -> bytes:
        """The hash.

        :raises KeyError: this object was not made for `spec`.
        """
        sink = self._sinks[spec]
        self._end()
        return sink.hash.digest()

    def length(self, canonicalization: Canonicalization) -> int:
        """The octets of the whole canonical body, against which l= is measured.

        :raises KeyError: no spec had this canonicalization.
        """
        body = self._bodies[canonicalization]
        self._end()
        return body.length

    def unsigned_octets(self, spec: BodyHashSpec) -> int:
        """How many octets of the canonical body follow l=; negative if l= is larger than the body.

        :raises KeyError: as for `digest`.
        """
        total = self.length(self._sinks[spec].spec.canonicalization)
        return 0 if spec.length is None else total - spec.length

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            for body in self._bodies.values():
                body.end()


class _Sink:
    """One hash, of no more than l= octets."""

    __slots__ = ("hash", "room", "spec")

    def __init__(self, spec: BodyHashSpec) -> None:
        self.spec = spec
        self.hash = new_hash(spec.hash_name)
        self.room = spec.length

    def update(self, data: bytes) -> None:
        if self.room is None:
            self.hash.update(data)
        elif self.room:
            data = data[: self.room]
            self.room -= len(data)
            self.hash.update(data)


_CRLF_BLOCK = b"\r\n" * 4096  # withheld empty lines are only counted: a body of nothing else must not fill memory


class _Body:
    """Common to both algorithms: empty lines are withheld until something follows them."""

    __slots__ = ("_carry", "_lines", "_updates", "length")

    def __init__(self, sinks: list[_Sink]) -> None:
        # Most hashes take everything: feed a large body to them directly.
        self._updates: list[Callable[[bytes], None]] = [
            sink.hash.update if sink.room is None else sink.update for sink in sinks
        ]
        self._carry = b""  # the last octets, whose meaning depends on what follows
        self._lines = 0  # CRLFs withheld because they may end the body
        self.length = 0

    def _take(self, data: bytes) -> None:
        """Hash `data`, which no LF follows, but withhold the CRLFs at its end."""
        end = _content_end(data)
        if end:
            self._take_content(data if end == len(data) else data[:end])
        self._lines += (len(data) - end) // 2

    def _take_content(self, data: bytes) -> None:
        """Hash `data`, none of which is an empty line at the end of the body."""
        while self._lines:
            count = min(self._lines, len(_CRLF_BLOCK) // 2)
            self._emit(_CRLF_BLOCK[: 2 * count])
            self._lines -= count
        self._emit(data)

    def _emit(self, data: bytes) -> None:
        self.length += len(data)
        for update in self._updates:
            update(data)


class _SimpleBody(_Body):
    """RFC 6376, 3.4.3: empty lines at the end are one CRLF, and a body without a final CRLF gets one."""

    __slots__ = ()

    def update(self, chunk: bytes) -> None:
        data = self._carry + chunk if self._carry else chunk
        self._carry = b"\r" if data.endswith(b"\r") else b""
        self._take(data[:-1] if self._carry else data)

    def end(self) -> None:
        if self._carry:  # it was a bare CR
            self._take(self._carry + b"\r\n")
        self._emit(b"\r\n")  # even if there is no body at all


class _RelaxedBody(_Body):
    """RFC 6376, 3.4.4: white space runs are one space, or nothing at the end of a line; then as simple.

    But a body of only empty lines is empty.
    """

    __slots__ = ()

    def update(self, chunk: bytes) -> None:
        data = self._carry + chunk if self._carry else chunk
        if b" " in data or b"\t" in data:  # base64 attachments have none
            data = _one_space(data).replace(b" \r\n", b"\r\n")
        if data[-1] not in b" \r\n":  # nothing waits for the next chunk, and nothing is copied
            self._carry = b""
            self._take_content(data)
            return
        # The one space that is left may end its line, and the CR may start a line end: the next chunk decides.
        cut = len(data) - data.endswith(b"\r")
        cut -= data.endswith(b" ", 0, cut)
        self._carry = data[cut:]
        self._take(data[:cut])

    def end(self) -> None:
        if self._carry.endswith(b"\r"):
            self._take(self._carry + b"\r\n")
        if self.length:
            self._emit(b"\r\n")


_BODIES: Mapping[Canonicalization, type[_SimpleBody | _RelaxedBody]] = {
    Canonicalization.SIMPLE: _SimpleBody,
    Canonicalization.RELAXED: _RelaxedBody,
}


def _content_end(data: bytes) -> int:
    """Where the run of CRLFs at the end of `data` begins."""
    if not data.endswith(b"\n"):
        return len(data)
    last = len(data.rstrip(b"\r\n"))
    tail = data[last:]
    # Bare CRs and LFs are content. The longest alternating end starts after the last doubled octet, found at memory
    # speed: a regular expression, or a loop, would make a megabyte of line feeds expensive.
    cut = max(tail.rfind(b"\n\n"), tail.rfind(b"\r\r")) + 1
    return last + cut + tail.startswith(b"\n", cut)


def _one_space(data: bytes) -> bytes:
    """The data with each run of white space as one space; at memory speed, unlike a regular expression."""
    if b"\t" in data:
        data = data.replace(b"\t", b" ")
    if b" " in data and b"  " in data:  # one octet is found ten times as fast as two
        data = data.replace(b"    ", b" ")  # indentation, in one pass for two
        while b"  " in data:  # halves each run: logarithmic passes
            data = data.replace(b"  ", b" ")
    return data
