# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import hashlib
import re
import time
import tracemalloc
from itertools import pairwise

import pytest
from dkim.canonicalization import Relaxed, Simple
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.model.message import Header, HeaderField
from assay.protocol.dkim.canonical import (
    BodyHashes,
    BodyHashSpec,
    Canonicalization,
    canonical_field,
    canonical_signature_field,
    select_fields,
)

SIMPLE, RELAXED = Canonicalization.SIMPLE, Canonicalization.RELAXED
EMPTY = hashlib.sha256(b"").digest()


def hashed(body: bytes, canonicalization: Canonicalization, length: int | None = None, *cuts: int) -> bytes:
    spec = BodyHashSpec(canonicalization, "sha256", length)
    hashes = BodyHashes([spec])
    for start, end in pairwise((0, *sorted(cuts), len(body))):
        hashes.update(body[start:end])
    return hashes.digest(spec)


@pytest.mark.parametrize(
    ("body", "simple", "relaxed"),
    [
        pytest.param(b"", b"\r\n", b"", id="no body"),
        pytest.param(b"\r\n", b"\r\n", b"", id="one empty line"),
        pytest.param(b"\r\n\r\n\r\n", b"\r\n", b"", id="empty lines only"),
        pytest.param(b" \r\n\t \r\n", b" \r\n\t \r\n", b"", id="white space only"),
        pytest.param(b"  ", b"  \r\n", b"", id="white space without a line end"),
        pytest.param(b"x", b"x\r\n", b"x\r\n", id="no final line end"),
        pytest.param(b"x \t", b"x \t\r\n", b"x\r\n", id="white space at the very end"),
        pytest.param(b"x\r\n\r\n\r\n", b"x\r\n", b"x\r\n", id="empty lines at the end"),
        pytest.param(b"x\r\n\r\ny\r\n", b"x\r\n\r\ny\r\n", b"x\r\n\r\ny\r\n", id="empty lines inside"),
        pytest.param(b"x \t y\t\r\n \r\n", b"x \t y\t\r\n \r\n", b"x y\r\n", id="white space runs"),
        pytest.param(b"\t x\r\n", b"\t x\r\n", b" x\r\n", id="white space at the start of a line stays one space"),
        pytest.param(b"x\n", b"x\n\r\n", b"x\n\r\n", id="a bare LF ends no line"),
        pytest.param(b"x\r", b"x\r\r\n", b"x\r\r\n", id="nor does a bare CR"),
        pytest.param(b"x \n \r y", b"x \n \r y\r\n", b"x \n \r y\r\n", id="so space before them is not at an end"),
        pytest.param(b"x\r\n\n\r\n", b"x\r\n\n\r\n", b"x\r\n\n\r\n", id="a line of a bare LF is not empty"),
        pytest.param(b"x\r\n\r\r\n\r\n", b"x\r\n\r\r\n", b"x\r\n\r\r\n", id="nor is one of a bare CR"),
        pytest.param(b"\n\n", b"\n\n\r\n", b"\n\n\r\n", id="bare LFs only"),
        pytest.param(b"\r\r", b"\r\r\r\n", b"\r\r\r\n", id="bare CRs only"),
        pytest.param(b" \r", b" \r\r\n", b" \r\r\n", id="a space before a CR that ends the body"),
    ],
)
def test_body(body: bytes, simple: bytes, relaxed: bytes) -> None:
    assert hashed(body, SIMPLE) == hashlib.sha256(simple).digest()
    assert hashed(body, RELAXED) == hashlib.sha256(relaxed).digest()
    for spec, canonical in ((BodyHashSpec(SIMPLE, "sha256"), simple), (BodyHashSpec(RELAXED, "sha256"), relaxed)):
        hashes = BodyHashes([spec])
        hashes.update(body)
        assert hashes.length(spec.canonicalization) == len(canonical)


def one_shot(body: bytes, canonicalization: Canonicalization) -> bytes:
    """RFC 6376, 3.4.3 and 3.4.4 word for word, on the whole body."""
    if canonicalization is RELAXED:
        body = re.sub(rb"[ \t]+(?=\r\n|\Z)", b"", body)
        body = re.sub(rb"[ \t]+", b" ", body)
    body = re.sub(rb"(?:\A|(?<=\r\n))(?:\r\n)+\Z", b"", body)
    if body and not body.endswith(b"\r\n"):
        body += b"\r\n"
    return body or (b"\r\n" if canonicalization is SIMPLE else b"")


units = [b"\r\n", b"\r", b"\n", b" ", b"\t", b"x", b"yz", b" " * 4, b" " * 13, b"\r\n" * 3]
bodies = st.lists(st.sampled_from(units), max_size=20).map(b"".join)


@settings(max_examples=1000)
@given(bodies, st.sampled_from(Canonicalization), st.none() | st.integers(0, 60), st.lists(st.integers(0, 60)))
def test_every_split_gives_the_hash_of_the_whole(
    body: bytes, canonicalization: Canonicalization, length: int | None, cuts: list[int]
) -> None:
    expected = hashlib.sha256(one_shot(body, canonicalization)[:length]).digest()
    assert hashed(body, canonicalization, length, *(cut for cut in cuts if cut <= len(body))) == expected


@pytest.mark.parametrize("white", [b" ", b"\t", b" \t"])
def test_a_run_of_any_length_is_one_space(white: bytes) -> None:
    for count in range(1, 200):
        assert hashed(b"a" + white * count + b"b", RELAXED) == hashlib.sha256(b"a b\r\n").digest()
        assert hashed(b"a" + white * count + b"\r\nb", RELAXED) == hashlib.sha256(b"a\r\nb\r\n").digest()


@pytest.mark.parametrize("canonicalization", Canonicalization)
@pytest.mark.parametrize("length", [None, 0, 1, 99, 100, 101, 5000, 10**9])
def test_an_attachment_in_base64_cut_anywhere(canonicalization: Canonicalization, length: int | None) -> None:
    body = base64.encodebytes(bytes(range(256)) * 20).replace(b"\n", b"\r\n")
    expected = hashlib.sha256(body[:length]).digest()
    for size in (1, 2, 3, 77, 78, 79, 1000, len(body)):
        assert hashed(body, canonicalization, length, *range(size, len(body), size)) == expected


@given(st.lists(st.sampled_from([b"\r\n", b" ", b"\t", b"x"]), max_size=20).map(b"".join))
def test_an_independent_peer_agrees(body: bytes) -> None:
    assert hashed(body, SIMPLE) == hashlib.sha256(Simple.canonicalize_body(body)).digest()
    if not re.search(rb"[ \t]\Z", body):  # dkimpy leaves white space on a last line without a line end
        assert hashed(body, RELAXED) == hashlib.sha256(Relaxed.canonicalize_body(body)).digest()


@pytest.mark.parametrize(
    ("length", "octets", "unsigned"),
    [
        (None, b"ab\r\n", 0),
        (0, b"", 4),
        (3, b"ab\r", 1),
        (4, b"ab\r\n", 0),
        (5, b"ab\r\n", -1),
        (10**75, b"ab\r\n", -1),
    ],
)
def test_length_counts_canonical_octets(length: int | None, octets: bytes, unsigned: int) -> None:
    spec = BodyHashSpec(RELAXED, "sha256", length)
    hashes = BodyHashes([spec])
    hashes.update(b"ab \t\r\n\r\n")
    assert hashes.digest(spec) == hashlib.sha256(octets).digest()
    assert max(hashes.unsigned_octets(spec), -1) == unsigned


def test_one_body_serves_many_specs() -> None:
    specs = [
        BodyHashSpec(c, name, length)
        for c in Canonicalization
        for name in ("sha256", "sha1")
        for length in (None, 0, 1, 5)
    ]
    hashes = BodyHashes(specs)
    for octet in b"a  b\r\nc\r\n\r\n":
        hashes.update(bytes([octet]))
    for spec in specs:
        body = b"a b\r\nc\r\n" if spec.canonicalization is RELAXED else b"a  b\r\nc\r\n"
        assert hashes.digest(spec) == hashlib.new(spec.hash_name, body[: spec.length]).digest()


def test_the_body_ends_with_the_first_digest() -> None:
    spec = BodyHashSpec(SIMPLE, "sha256")
    hashes = BodyHashes([spec])
    assert hashes.digest(spec) == hashes.digest(spec)
    with pytest.raises(ValueError, match="ended"):
        hashes.update(b"x")


@pytest.mark.parametrize("unit", [b"\r\n", b"\n", b"\r", b" ", b" \r\n", b"\r\n\n", b"\r\r\n", b"\t x"])
def test_a_hostile_body_takes_neither_memory_nor_time(unit: bytes) -> None:
    chunk = unit * (65_536 // len(unit))
    specs = [BodyHashSpec(c, "sha256") for c in Canonicalization]
    hashes = BodyHashes(specs)
    tracemalloc.start()
    start = time.process_time()
    for _ in range(160):  # 10 MiB
        hashes.update(chunk)
    hashes.update(b"x")
    for spec in specs:
        hashes.digest(spec)
    seconds = time.process_time() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
    assert seconds < 2


@pytest.mark.parametrize(
    ("name", "value", "relaxed"),
    [
        (b"SubJect", b" a  b\t ", b"subject:a b\r\n"),
        (b"X \t", b"\r\n \r\n\ta\r\n b", b"x:a b\r\n"),
        (b"X", b"", b"x:\r\n"),
        (b"X", b" \t\r\n ", b"x:\r\n"),
        (b"X", b"a:b\xff", b"x:a:b\xff\r\n"),
    ],
)
def test_field(name: bytes, value: bytes, relaxed: bytes) -> None:
    field = HeaderField(name, value)
    assert canonical_field(field, RELAXED) == relaxed
    assert canonical_field(field, SIMPLE) == name + b":" + value + b"\r\n"


@pytest.mark.parametrize(
    ("value", "emptied"),
    [
        (b" bh=x; b=AB\r\n CD ; d=y", b" bh=x; b=; d=y"),
        (b"b = AB", b"b ="),
        (b" a=1;\r\n\tb=AB\r\n\tCD\r\n ", b" a=1;\r\n\tb="),
        (b" z=b=c; b=AB; bh=Q", b" z=b=c; b=; bh=Q"),
        (b" bb=1;b=", b" bb=1;b="),
    ],
)
def test_own_field_is_hashed_without_its_signature(value: bytes, emptied: bytes) -> None:
    assert canonical_signature_field(HeaderField(b"DKIM-Signature", value), SIMPLE) == b"DKIM-Signature:" + emptied


def test_names_take_instances_from_the_bottom_up() -> None:
    first, second, own = (HeaderField(b"A", b"1"), HeaderField(b"a", b"2"), HeaderField(b"DKIM-Signature", b""))
    copy = HeaderField(b"DKIM-Signature", b"")
    header = Header((own, first, HeaderField(b"B", b""), second, copy))
    assert select_fields(("a", "x", "a", "a"), header, own) == [second, first]
    (selected,) = select_fields(("dkim-signature", "dkim-signature"), header, own)
    assert selected is copy
