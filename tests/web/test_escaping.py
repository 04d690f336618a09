# SPDX-License-Identifier: GPL-3.0-or-later
"""Every place of a template where a stranger's text can be, and that the test sees it if that is not escaped."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import html5lib
import pytest
from jinja2 import DictLoader

from assay.web import render
from assay.web.parts import (
    Bars,
    ChangeForm,
    Choice,
    Code,
    Column,
    DataTable,
    Indented,
    Link,
    Moment,
    Pairs,
    Press,
    Remark,
    SearchForm,
    Series,
    Several,
    Share,
    WebPage,
    Word,
)
from assay.web.render import Frame, NavigationEntry, Renderer

HOSTILE = '"\'><b title="\'x">&amp;{{7*7}}\u202e\x1b'
TEMPLATES = {path.name: path.read_text() for path in Path(render.__file__).with_name("templates").iterdir()}
#: What is never of a stranger, constants and numbers of ours, and what is markup already.
OURS = (
    "entry.", "frame.version", "frame.form_token", '"%.0f"', "value.tone", "each.tone", "each.name", "each.action",
    "value.action", "field.name", "each.button", "table.further", "value.milliseconds", "(value.milliseconds",
    "value.part", "[value.level", "series.figures", "name }}", "id }}", "cell(", "classes(", "exports(", "rows(",
    "bars(", "boxed(", "text }}", "swatch(", "hidden(", "part(",
)  # fmt: skip


def of(text: str) -> WebPage:
    """A page that has this text wherever a page can have one."""
    cells = (
        Link(text, text), Word(text), Code(text), Indented(1, text), Several((text, Link(text, text)), apart=True),
        text, Share(1, 2), Moment(0), Press(text, "/x", ((text, text),), text), None, 5,
    )  # fmt: skip
    columns = tuple(Column(f"c{number}", text) for number in range(len(cells)))
    listed = (*columns[:-1], Column("wide", text, wide=True))
    table = DataTable("t", text, listed, [cells, cells], note=text, further="/x")
    fields = (Choice("a", text, text, text), Choice("b", text, text, text, (text, "")))
    return WebPage(
        text,
        (
            table,
            DataTable("empty", text, columns, [], empty=text),
            Pairs("p", text, ((text, text), (text, Code(text))), note=text),
            Remark(text, text),
            Bars("bars", text, (text, "2"), (Series(text, (1, 2), 3, 0), Series(text, (0, 3), Link(text, text), 1)),
                 DataTable("b", text, columns, [cells])),
            SearchForm("/x", text, fields, "Search"),
            ChangeForm("change", text, "/x", text, fields[:1], ((text, text),), "Do"),
        ),
        text,
    )  # fmt: skip


def frame(text: str, *, by_token: bool) -> Frame:
    return Frame(
        text, "1", text, by_token, (NavigationEntry("/x", "X"),), "/x", lambda _, suffix: f"/x{suffix}?{text}", "0f",
        text, lambda: 0.1,
    )  # fmt: skip


def written(renderer: Renderer, text: str) -> list[str]:
    """All pages that the templates make."""
    pages = [renderer.page(of(text), frame(text, by_token=by_token)) for by_token in (True, False)]
    return [*pages, renderer.login(text, frame(text, by_token=True))]


def faults(renderer: Renderer) -> list[str]:
    """What the text has done to the pages: elements, attributes, and characters that do not print."""
    found = []
    for honest, page in zip(written(renderer, "honest"), written(renderer, HOSTILE), strict=True):
        shapes = [
            [
                (element.tag, sorted(element.attrib))
                for element in html5lib.parse(each).iter()
                if isinstance(element.tag, str)
            ]
            for each in (honest, page)
        ]
        if shapes[0] != shapes[1]:
            found.append("other elements or attributes")
        found += [f"{char!r}" for char in page if not char.isprintable() and char != "\n"]
        if "49" in page:
            found.append("evaluated")
    return found


def test_a_stranger_adds_no_element_no_attribute_and_no_control_character() -> None:
    assert faults(Renderer()) == []


def mutated(change: Callable[[str], str], name: str) -> Renderer:
    renderer = Renderer()
    renderer._environment.loader = DictLoader({**TEMPLATES, name: change(TEMPLATES[name])})
    return renderer


PLACES = [
    (name, match.start(), match[0])
    for name, text in TEMPLATES.items()
    for match in re.finditer(r"\{\{.*?\}\}", text)
    if not match[0].removeprefix("{{ ").startswith(OURS)
]


@pytest.mark.parametrize(("name", "start", "place"), PLACES, ids=[f"{name} {place}" for name, _, place in PLACES])
def test_a_place_that_is_not_escaped_is_seen(name: str, start: int, place: str) -> None:
    """If this fails, either a text of a stranger is missing in `of`, or the place is one of ours: then name it."""
    changed = f"{{{{ ({place[3:-3]})|safe }}}}"
    renderer = mutated(lambda text: text[:start] + changed + text[start + len(place) :], name)
    assert faults(renderer) != []


def test_what_does_not_print_is_seen() -> None:
    renderer = Renderer()
    renderer._environment.finalize = None
    assert "'\\u202e'" in faults(renderer)


def test_without_autoescape_all_of_it_is_seen() -> None:
    renderer = Renderer()
    renderer._environment.autoescape = False
    assert faults(renderer) != []


def test_a_plot_that_does_not_escape_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = Renderer()

    class Unsafe(str):
        __slots__ = ()

        def format(self, *values: Any, **named: Any) -> Unsafe:
            return Unsafe(str.format(self, *values, **named))

        def join(self, parts: Any) -> Unsafe:
            return Unsafe(str.join(self, parts))

        def __html__(self) -> str:
            return self

    monkeypatch.setattr("assay.web.plot.Markup", Unsafe)
    assert faults(renderer) != []
