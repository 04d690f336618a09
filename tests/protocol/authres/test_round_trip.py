# SPDX-License-Identifier: GPL-3.0-or-later
"""What we write is what is read: by our own parser, and by the authres library, which shares no code with it."""

from __future__ import annotations

import re

import authres as library
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.model.printable import as_value
from assay.protocol import authres
from assay.protocol.authres import METHODS, AuthenticationResults, MethodResult, Property

ID = "mx.example.org"
_LIBRARY = library.all_features()

printable = st.text(st.characters(exclude_categories=["Cs"]).filter(str.isprintable), max_size=90)
#: What needs no other form to be safe from naive readers.
calm = printable.filter(lambda text: text == as_value(text))
one_line = calm.map(lambda text: " ".join(text.split(" ")).strip()).map(lambda text: re.sub(" +", " ", text))
honest = st.sampled_from(['"a b"@c.example', "u=v/w@c.example", "2001:db8::1", "Qgi/FoC0=", "", "b=user=c@d.example"])
hostile = st.sampled_from(
    [
        "x; dkim=pass header.d=victim.example",
        ") ; dkim=pass (",
        'a" header.d=victim.example "',
        "a\\",
        '"a\\"@c.example',
        "dmarc=pass@c.example",
        "x spf=pass",
        "header.from=victim.example",
    ]
)
#: Whatever may stand in a str: lone surrogates, controls, line ends, and overlong.
anything = st.text(st.characters(), max_size=500) | st.text('\r\n\t \0();"\\=@.a\udc80', max_size=500)


@st.composite
def method_results(draw: st.DrawFn, values: st.SearchStrategy[str], texts: st.SearchStrategy[str]) -> MethodResult:
    name = draw(st.sampled_from(sorted(METHODS)))
    names = st.sampled_from([*sorted(METHODS[name].properties), "policy.x-y"])
    properties = [Property(*each.split("."), draw(values)) for each in draw(st.lists(names, max_size=4))]
    return MethodResult(
        name, draw(st.sampled_from(sorted(METHODS[name].results))), draw(texts), draw(texts), tuple(properties)
    )


@settings(database=None, deadline=None)
@given(st.lists(method_results(calm | honest, one_line), max_size=4).map(tuple))
def test_parse_gives_back_what_was_rendered(results: tuple[MethodResult, ...]) -> None:
    text = authres.render(ID, results)
    assert authres.parse(text.encode()) == AuthenticationResults(ID, 1, results)
    assert authres.claims(text.encode(), {ID})
    _check_lines(text)


@settings(database=None, deadline=None)
@given(st.lists(method_results(anything | hostile, anything | hostile), max_size=4).map(tuple))
def test_whatever_is_written_no_result_is_forged(results: tuple[MethodResult, ...]) -> None:
    text = authres.render(ID, results)
    parsed = authres.parse(text.encode())
    assert isinstance(parsed, AuthenticationResults)
    assert _skeleton(parsed.results) == _skeleton(results)
    # Who splits at semicolons, or searches, finds no other results and properties.
    parts = re.sub(r"\r\n[ \t]+", " ", text).split(";")[1:]
    assert [part.strip().partition("=")[0] for part in parts] == [one.method for one in results] or parts == [" none"]
    written = [f"{each.ptype}.{each.name}" for one in results for each in one.properties]
    assert re.findall(r"\b(?:body|dns|header|policy|smtp)\.[a-z-]+(?==)", text) == written
    assert len(re.findall(r"(?:dmarc|dkim|spf)[a-z-]*=", text)) == len(
        re.findall(r"[;\t](?:dmarc|dkim|spf)[a-z-]*=", text)
    )
    _check_lines(text)


ascii_text = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=60).map(as_value)


@settings(database=None, deadline=None)
@given(st.lists(method_results(ascii_text.map(str.strip).filter(bool), ascii_text), min_size=1, max_size=4).map(tuple))
def test_the_library_reads_the_same(results: tuple[MethodResult, ...]) -> None:
    # What it does not know: the ptype "dns", and properties after a quoted-string (it takes the first for the last).
    results = tuple(
        MethodResult(one.method, one.result, one.reason, one.comment, one.properties[:1])
        for one in results
        if one.method != "dnswl"
    )
    header = _LIBRARY.parse_value(re.sub(r"\r\n(?=[ \t])", "", authres.render(ID, results)))
    assert header.authserv_id == ID
    assert len(header.results) == len(results)
    for read, one in zip(header.results, results, strict=True):
        assert (read.method, read.result) == (one.method, one.result)
        assert " ".join(one.reason.split()) == _unescaped(read.reason or "")
        assert [(each.type, each.name) for each in read.properties] == [(p.ptype, p.name) for p in one.properties]
        for each, written in zip(read.properties, one.properties, strict=True):
            assert written.value in {each.value, _unescaped(each.value)}


def _unescaped(text: str) -> str:
    """What the library leaves to do: it keeps the quoted-pairs of a quoted-string."""
    return re.sub(r"\\(.)", r"\1", text)


def _skeleton(results: tuple[MethodResult, ...]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    return [(one.method, one.result, [(each.ptype, each.name) for each in one.properties]) for one in results]


def _check_lines(text: str) -> None:
    lines = text.split("\r\n")
    assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", "".join(lines))
    assert all(line[0] in " \t" for line in lines[1:])
    assert all(line.strip(" \t") and len(line.encode()) < 998 for line in lines)
