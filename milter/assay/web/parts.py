# SPDX-License-Identifier: GPL-3.0-or-later
"""What a page consists of, as values. No text in it is markup: `render` and `export` escape it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

MAX_SERIES = 6  # of a plot: so many patterns and colours can be told apart


class Tone(StrEnum):
    """How a word is marked, besides by what it says."""

    GOOD = "good"
    BAD = "bad"
    DOUBT = "doubt"
    PLAIN = "plain"


class Link(Struct, frozen=True):
    """A value that leads to another page."""

    value: str | int
    href: str


class Word(Struct, frozen=True):
    """A result, an action or a state."""

    text: str
    tone: Tone = Tone.PLAIN


class Moment(Struct, frozen=True):
    """A time in Unix milliseconds."""

    milliseconds: int


class Share(Struct, frozen=True):
    """A share of a whole, drawn as a bar."""

    part: int
    whole: int


class Code(Struct, frozen=True):
    """Text to be copied: a record, a command."""

    text: str


class Indented(Struct, frozen=True):
    """Text below another, in a table that is a tree.

    :ivar level: how deep; 0 for what is below nothing.
    """

    level: int
    text: str


class Press(Struct, frozen=True):
    """A button that changes something.

    :ivar action: where its form goes.
    :ivar fields: names and values that go there.
    :ivar what: what it is about; for those who hear the page.
    """

    label: str
    action: str
    fields: tuple[tuple[str, str], ...]
    what: str


class Several(Struct, frozen=True):
    """Values in one cell."""

    members: tuple[Cell, ...]
    apart: bool = False  #: each on a line of its own


Cell = str | int | float | Link | Word | Moment | Share | Code | Indented | Press | Several | None


class Column(Struct, frozen=True):
    """A column of a table.

    :ivar name: in CSV and JSON; empty for a column of buttons, which is not there.
    :ivar title: its heading; empty for a column that is in CSV and JSON alone.
    :ivar wide: its text may be long, so it gets what room is left.
    """

    name: str
    title: str
    numeric: bool = False
    wide: bool = False


class DataTable(Struct, frozen=True):
    """A table. The first cell of each row is its heading.

    :ivar name: in the address of its CSV and JSON.
    :ivar caption: what it shows, as a heading.
    :ivar note: one sentence about what is not obvious.
    :ivar empty: what to say if there are no rows.
    :ivar further: where the next rows are; empty if there are none.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[tuple[Cell, ...]]
    note: str = ""
    empty: str = "Nothing."
    further: str = ""


class Pairs(Struct, frozen=True):
    """Names and values."""

    name: str
    caption: str
    rows: tuple[tuple[str, Cell], ...]
    note: str = ""


class Remark(Struct, frozen=True):
    """A paragraph; `code` below it is to be copied."""

    text: str
    code: str = ""
    tone: Tone = Tone.PLAIN


class Series(Struct, frozen=True):
    """One word of a plot: its figure for each place on the axis, and their sum, which may be a link.

    :ivar style: which colour and pattern it has, below `MAX_SERIES`. No other of the plot has the same.
    """

    word: str
    figures: tuple[int, ...]
    total: Cell
    style: int


class Bars(Struct, frozen=True):
    """A plot of stacked bars.

    :ivar name: for ids.
    :ivar caption: what it shows.
    :ivar places: the labels of the bars, from left to right.
    :ivar series: from the bottom to the top.
    :ivar table: the same figures.
    """

    name: str
    caption: str
    places: tuple[str, ...]
    series: tuple[Series, ...]
    table: DataTable


class Choice(Struct, frozen=True):
    """A field of a form."""

    name: str
    title: str
    value: str
    hint: str = ""
    options: tuple[str, ...] = ()


class SearchForm(Struct, frozen=True):
    """A form that asks for a page."""

    action: str
    legend: str
    fields: tuple[Choice, ...]
    button: str


class ChangeForm(Struct, frozen=True):
    """A form that changes something.

    :ivar fields: what is asked for; `hidden` goes along.
    """

    name: str
    caption: str
    action: str
    note: str
    fields: tuple[Choice, ...]
    hidden: tuple[tuple[str, str], ...]
    button: str


Part = DataTable | Pairs | Remark | Bars | SearchForm | ChangeForm


class WebPage(Struct, frozen=True):
    """A page.

    :ivar title: says where one is.
    :ivar parts: from top to bottom.
    :ivar intro: what is to be known first.
    :ivar status: of HTTP.
    """

    title: str
    parts: tuple[Part, ...]
    intro: Cell = ""
    status: int = 200

    @property
    def tables(self) -> tuple[DataTable, ...]:
        """All that can be had as CSV or JSON."""
        tables = []
        for part in self.parts:
            match part:
                case DataTable():
                    tables.append(part)
                case Bars(table=table):
                    tables.append(table)
                case Pairs():
                    rows = tuple(part.rows)
                    columns = (Column("name", "name"), Column("value", "value"))
                    tables.append(DataTable(part.name, part.caption, columns, rows))
        return tuple(tables)
