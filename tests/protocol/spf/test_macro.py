# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from assay.protocol.spf import macro

#: The values of RFC 7208, 7.4.
VALUES = {
    "s": "strong-bad@email.example.com",
    "l": "strong-bad",
    "o": "email.example.com",
    "d": "email.example.com",
    "i": "192.0.2.3",
    "p": "mx.example.org",
    "v": "in-addr",
    "h": "mail.example.com",
    "c": "192.0.2.3",
    "r": "receiver.example",
    "t": "1700000000",
}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        # RFC 7208, 7.4, the whole table
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d3}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{l}", "strong-bad"),
        ("%{l-}", "strong.bad"),
        ("%{lr}", "strong-bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
        ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
        ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
        ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
        # beside the table
        ("%%%_%-", "% %20"),
        ("%{D2R}", "example.email"),
        ("%{S}", "strong-bad%40email.example.com"),
        ("%{d0002}", "example.com"),
        ("%{d" + "9" * 5000 + "}", "email.example.com"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    assert macro.expand(macro.parse(text), VALUES) == expanded


def test_delimiters_all_split_and_empty_parts_stay() -> None:
    assert macro.expand(macro.parse("%{l+-}"), {"l": "a+-b-c"}) == "a..b.c"


def test_a_delimiter_given_twice_is_one() -> None:
    assert macro.parse("%{l+-+-}") == macro.parse("%{l+-}")


@pytest.mark.parametrize(
    ("tail", "expanded"),
    [(1, ".c"), (2, ".c"), (3, "example.com.c"), (14, ".b.example.com.c"), (99, "a.b.example.com.c")],
)
def test_a_tail_has_what_is_wanted_of_the_end(tail: int, expanded: str) -> None:
    assert macro.expand(macro.parse("%{l}.b.%{d}.c"), {"l": "a", "d": "example.com"}, tail=tail) == expanded


def test_explanation_letters_expand_in_explanations() -> None:
    assert macro.expand(macro.parse("%{c} %{r} %{t}", explanation=True), VALUES) == (
        "192.0.2.3 receiver.example 1700000000"
    )


def test_escaping_keeps_only_unreserved_characters_and_carries_utf8() -> None:
    assert macro.expand(macro.parse("%{L}"), {"l": "a~_-.é&=\udcff"}) == "a~_-.%C3%A9%26%3D%FF"


@pytest.mark.parametrize(
    "text",
    [
        "%",
        "a%",
        "%a",
        "%{",
        "%{}",
        "%{d",
        "%{x}",
        "%{d0}",
        "%{d00}",
        "%{dr2}",
        "%{d!}",
        "%{c}",
        "%{r}",
        "%{t}",
        "a b",
        "\x7f",
        "é",
        "\t",
        "%{l}" * (macro.MAX_MACROS + 1),
    ],
)
def test_no_macro_string(text: str) -> None:
    with pytest.raises(macro.MacroError):
        macro.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "a.example",
        "a.example.",
        "%{d}",
        "a%%",
        "a%_",
        ".example",
        "x:/?.example",
        "%{d}.example",
        "a.1-2",
        "a.b1",
        "_a.b",
    ],
)
def test_domain_spec(text: str) -> None:
    macro.parse_domain_spec(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example",
        "example.",
        "%{d}example",
        "a.1",
        "a.-b",
        "a.b-",
        "a.b..",
        "a.b_",
        "a.b%%_",
        "a.b/24",
        ".",
        "%{d}.",
    ],
)
def test_no_domain_spec(text: str) -> None:
    with pytest.raises(macro.MacroError):
        macro.parse_domain_spec(text)


def test_letters_that_matter_to_a_check_are_reported() -> None:
    string = macro.parse("%{l}.%{p}.%{d}")
    assert string.uses_local_part
    assert string.uses_validated_name
    assert string.literal is None
    plain = macro.parse("%%a%_")
    assert plain.literal == "%a "
    assert not plain.uses_local_part
    assert not plain.uses_validated_name
