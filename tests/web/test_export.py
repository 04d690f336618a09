# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables as CSV and JSON, and plots."""

from __future__ import annotations

import csv
import io
import json
from xml.etree import ElementTree

import pytest

from assay.web import plot
from assay.web.export import as_csv, as_json
from assay.web.parts import MAX_SERIES, Bars, Code, Column, DataTable, Indented, Link, Moment, Series, Several, Word
from assay.web.periods import bars

TABLE = DataTable(
    "t",
    "T",
    (Column("a", "A"), Column("b", "B"), Column("c", "C"), Column("d", "D")),
    [
        (Link("=1+1", "/x"), Moment(1_700_000_000_123), 5, Several(("x", Word("fail")))),
        ("\u202e\x00\udcff", None, True, Code("+a")),
        (Indented(2, "-a"), "", 0, Several(())),
    ],
)


def test_csv_has_values_and_no_formula() -> None:
    rows = list(csv.reader(io.StringIO(as_csv(TABLE).decode(), newline="")))
    assert rows == [
        ["a", "b", "c", "d"],
        ["'=1+1", "2023-11-14T22:13:20Z", "5", "x fail"],
        ["\\u202e\\x00\\xff", "", "True", "'+a"],
        ["'-a", "", "0", ""],
    ]


@pytest.mark.parametrize("sign", "=+-@\uff1d\uff0b\uff0d\uff20")
@pytest.mark.parametrize("before", ["", " ", "mx;", "mx; ", '"mx";', "\t", "\r\n", "a;;", 'mx;"', 'mx; ""'])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_no_cell_of_any_country_begins_like_a_formula(sign: str, before: str, delimiter: str) -> None:
    table = DataTable("t", "T", (Column("a", "A"), Column("b", "B")), [(f"{before}{sign}cmd|' /C calc'!A0",) * 2])
    written = as_csv(table).decode()
    cells = [cell for row in csv.reader(io.StringIO(written, newline=""), delimiter=delimiter) for cell in row]
    assert not [cell for cell in cells if cell.strip(' "').startswith(sign)]
    assert not [cell for cell in cells if cell.strip(" ").startswith(sign)]


def test_json_has_values_of_their_types() -> None:
    octets = as_json(TABLE)
    assert octets.isascii()
    assert json.loads(octets) == [
        {"a": "=1+1", "b": 1_700_000_000_123, "c": 5, "d": ["x", "fail"]},
        {"a": "\u202e\x00\\xff", "b": None, "c": True, "d": "+a"},
        {"a": "-a", "b": "", "c": 0, "d": []},
    ]


@pytest.mark.parametrize(
    ("figures", "top"), [((0, 0), 4), ((1, 3), 8), ((7, 90), 200), ((1000, 1), 2000), ((10**9, 0), 2 * 10**9)]
)
def test_a_plot_fits_and_is_escaped(figures: tuple[int, ...], top: int) -> None:
    series = (Series("<b>", figures, 0, 5), Series("none", (0, *figures[1:]), 0, 3))
    drawn = Bars("p", "<i>&", ("1 <b>", "2"), series, TABLE)
    assert plot.nice(max(map(sum, zip(*(each.figures for each in series), strict=True)))) <= top
    root = ElementTree.fromstring(str(plot.bars(drawn)))  # noqa: S314 - ours
    assert root.find("title") is not None
    for rect in root.iter("rect"):
        assert 0 <= float(rect.attrib["y"]) <= plot.HEIGHT
        assert float(rect.attrib["y"]) + float(rect.attrib["height"]) <= plot.HEIGHT
        assert 0 <= float(rect.attrib["x"]) <= plot.WIDTH
    assert "<b>" not in str(plot.bars(drawn))


@pytest.mark.parametrize(
    "words",
    [
        ("reject", "fail", "temperror", "none", "pass", "neutral"),
        ("softfail", "tempfail", "quarantine", "tag", "policy", "pass"),
        ("pass", "neutral", "nxdomain", "", "fail"),
        ("fail",),
    ],
)
def test_the_words_of_a_plot_have_colours_that_suit_them_and_differ(words: tuple[str, ...]) -> None:
    figures = {(20_000, text): 1 for text in words}
    drawn = bars("p", "P", [20_000], figures, lambda count, _days, _text: count)
    styles = {series.word: series.style for series in drawn.series}
    assert sorted(set(styles.values())) == sorted(styles.values())
    assert all(styles[text] == 5 for text in ("pass",) if text in styles)  # green
    assert all(styles[text] in (0, 2) for text in ("reject", "fail") if text in styles)  # red, purple
    document = ElementTree.fromstring(str(plot.bars(drawn)))  # noqa: S314 - ours
    used = {rect.attrib["class"] for rect in document.iter("rect") if "class" in rect.attrib}
    assert used == {f"s{style}" for style in styles.values()}


def test_the_rarest_of_too_many_words_are_together_and_lead_nowhere() -> None:
    """Whoever fills the store may write other words than ours."""
    figures = {(20_000 + day, f"w{number}"): number for number in range(9) for day in range(2)}
    drawn = bars("p", "P", [20_000, 20_001], figures, lambda count, _, text: Link(count, f"/{text}"))
    assert len(drawn.series) == MAX_SERIES
    assert {series.word: series.total for series in drawn.series} == {
        "all others": 2 * (0 + 1 + 2 + 3),
        **{f"w{number}": Link(2 * number, f"/w{number}") for number in range(4, 9)},
    }
    assert len({series.style for series in drawn.series}) == MAX_SERIES
    assert [column.name for column in drawn.table.columns][1:] == [series.word for series in drawn.series]
    assert drawn.table.rows[0][1 + [series.word for series in drawn.series].index("all others")] == 6
