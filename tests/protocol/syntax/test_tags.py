# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import time
from contextlib import nullcontext, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.protocol.syntax.tags import MAX_TAGS, TagListError, decode_base64, parse_tags, split_list, without_fws


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        pytest.param(b"a=1", {"a": "1"}, id="one tag"),
        pytest.param(b" a = 1 ;\r\n\tb_2=x y;", {"a": "1", "b_2": "x y"}, id="white space and a final semicolon"),
        pytest.param(b"a=;b=", {"a": "", "b": ""}, id="an empty value is not an absent one"),
        pytest.param(b"a=b=c", {"a": "b=c"}, id="only the first equals sign separates"),
        pytest.param(b"a=1;A=2", {"a": "1", "A": "2"}, id="names are case-sensitive"),
        pytest.param("d=bücher.example".encode(), {"d": "bücher.example"}, id="UTF-8 in a value"),
        pytest.param(b"p=AB\nCD", {"p": "AB\nCD"}, id="a pasted line end inside a value"),
    ],
)
def test_tag_list(text: bytes, tags: dict[str, str]) -> None:
    assert parse_tags(text) == tags


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "empty"),
        (b" \r\n ", "empty"),
        (b";", "empty tag"),
        (b"a=1;;b=2", "empty tag"),
        (b"a=1;b=2;;", "empty tag"),
        (b"a", "malformed tag"),
        (b"=1", "malformed tag"),
        (b"1a=1", "malformed tag"),
        (b"a-b=1", "malformed tag"),
        (b"a b=1", "malformed tag"),
        ("ä=1".encode(), "malformed tag"),
        (b"a=1;b=2;a=1", "two a= tags"),
        (b"a=\x00", "control character"),
        (b"a=\x7f", "control character"),
        (b"a=\xff", "not UTF-8"),
        (b";".join(b"t%d=" % number for number in range(MAX_TAGS + 1)), "more than"),
    ],
)
def test_no_tag_list(text: bytes, reason: str) -> None:
    with pytest.raises(TagListError, match=reason):
        parse_tags(text)


def test_as_many_tags_as_allowed() -> None:
    assert len(parse_tags(b";".join(b"t%d=" % number for number in range(MAX_TAGS)) + b";")) == MAX_TAGS


def test_lists_and_white_space() -> None:
    assert split_list("a : b:\r\n c") == ["a", "b", "c"]
    assert without_fws(" a\r\n\tb ") == "ab"


@pytest.mark.parametrize(("text", "octets"), [("QQ==", b"A"), ("QQ", b"A"), ("Q Q\r\n =\t=", b"A"), ("QUI=", b"AB")])
def test_base64(text: str, octets: bytes) -> None:
    assert decode_base64(text) == octets


@pytest.mark.parametrize("text", ["", " ", "=", "Q", "Q===", "QQ=Q", "Q-", "ÄÄ==", "QUJDR"])
def test_no_base64(text: str) -> None:
    with pytest.raises(TagListError):
        decode_base64(text)


@given(st.binary())
def test_any_bytes_are_a_tag_list_or_an_error(text: bytes) -> None:
    with suppress(TagListError):
        assert parse_tags(text)


@given(st.text())
def test_any_text_is_base64_or_an_error(text: str) -> None:
    with suppress(TagListError):
        assert decode_base64(text)


@pytest.mark.parametrize("text", [b" " * 500_000, b"a=" + b" \r\n" * 200_000, b"a" * 500_000, b";" * 500_000])
def test_hostile_lists_take_linear_time(text: bytes) -> None:
    start = time.process_time()
    with pytest.raises(TagListError) if text[:2] != b"a=" else nullcontext():
        parse_tags(text)
    assert time.process_time() - start < 0.5
