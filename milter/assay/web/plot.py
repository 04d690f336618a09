# SPDX-License-Identifier: GPL-3.0-or-later
"""Stacked bars as SVG, drawn here so that the browser needs no script.

Each series has a pattern besides its colour, and the legend names it in the order of the stack, so it can be read
without colours. The colours are classes of the style sheet, which knows light and dark. Those who cannot see it have
the table beside it, and the summary.
"""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from assay.model.printable import escaped
from assay.web.parts import Bars

WIDTH, HEIGHT = 720, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 10, 22
_GAP = 0.25  # of a bar's place
_LABEL_WIDTH = 44  # that one label of the axis needs
#: What is drawn over the colour of a series, by its style, in a square of 8 by 8.
_PATTERNS = (
    "M-2,2 l4,-4 M0,8 l8,-8 M6,10 l4,-4",
    "M0,4 h8",
    "M2,2 h1.6 v1.6 h-1.6 z M6,6 h1.6 v1.6 h-1.6 z",
    "",
    "M-2,6 l4,4 M0,0 l8,8 M6,-2 l4,4",
    "M4,0 v8",
)


def bars(plot: Bars) -> Markup:
    """The plot as an SVG element."""
    totals = [sum(series.figures[place] for series in plot.series) for place in range(len(plot.places))]
    top = nice(max(totals, default=0))
    drawn = Markup().join((*_axis(plot, top), *_stacks(plot, top)))
    patterns = Markup().join(_pattern(plot.name, series.style) for series in plot.series)
    return Markup(
        '<svg viewBox="0 0 {w} {h}" role="img" aria-labelledby="{n}-title"><title id="{n}-title">{title}</title>'
        "<defs>{patterns}</defs>{drawn}</svg>"
    ).format(w=WIDTH, h=HEIGHT, n=plot.name, title=escaped(_summary(plot, totals)), patterns=patterns, drawn=drawn)


def swatch(plot: Bars, number: int) -> Markup:
    """The key of one series for the legend."""
    return Markup(
        '<svg class="swatch" viewBox="0 0 16 16" aria-hidden="true" focusable="false">'
        '<rect class="s{k}" width="16" height="16"/><rect fill="url(#{n}-p{k})" width="16" height="16"/></svg>'
    ).format(n=plot.name, k=plot.series[number].style)


def nice(most: int) -> int:
    """The top of an axis: 1, 2 or 5 times a power of ten, or twice that, and not below the largest figure."""
    power = 1
    while True:
        for step in (1, 2, 4, 5, 8):
            if step * power >= most:
                return max(step * power, 4)
        power *= 10


def short(figure: int) -> str:
    """A figure for the axis: 1500 as 1.5k."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if figure >= size:
            return f"{figure / size:g}{unit}"
    return str(figure)


def _summary(plot: Bars, totals: list[int]) -> str:
    words = ", ".join(f"{series.word} {sum(series.figures):,}" for series in plot.series)
    return f"{plot.caption}: {sum(totals):,} in all; {words}. The table below has all figures."


def _pattern(name: str, style: int) -> Markup:
    return Markup(
        '<pattern id="{n}-p{k}" width="8" height="8" patternUnits="userSpaceOnUse">'
        '<path class="hatch" d="{d}"/></pattern>'
    ).format(n=name, k=style, d=_PATTERNS[style])


def _axis(plot: Bars, top: int) -> Iterator[Markup]:
    for quarter in (0, top // 2, top):
        y = _y(quarter, top)
        yield Markup(
            '<path class="grid" d="M{x},{y} H{right}"/><text x="{at}" y="{base}" text-anchor="end">{text}</text>'
        ).format(x=_LEFT, y=y, right=WIDTH - _RIGHT, at=_LEFT - 6, base=y + 4, text=short(quarter))
    step = _step(len(plot.places))
    last = len(plot.places) - 1
    for place, label in enumerate(plot.places):
        if (last - place) % step == 0:
            yield Markup('<text x="{x}" y="{y}" text-anchor="middle">{text}</text>').format(
                x=round(_x(place + 0.5, plot), 1), y=HEIGHT - 6, text=escaped(label)
            )


def _step(places: int) -> int:
    """Every how many bars there is room for a label."""
    room = max(1, (WIDTH - _LEFT - _RIGHT) // _LABEL_WIDTH)
    return max(1, -(-places // room))


def _stacks(plot: Bars, top: int) -> Iterator[Markup]:
    for place, label in enumerate(plot.places):
        below = 0
        parts = []
        for series in plot.series:
            figure = series.figures[place]
            if figure:
                parts.append(_segment(plot, place, series.style, below, figure, top))
            below += figure
        if parts:
            words = ", ".join(f"{series.word} {series.figures[place]:,}" for series in plot.series)
            yield Markup("<g><title>{label}: {words}</title>{parts}</g>").format(
                label=escaped(label), words=escaped(words), parts=Markup().join(parts)
            )


def _segment(plot: Bars, place: int, style: int, below: int, figure: int, top: int) -> Markup:
    x, width = _x(place + _GAP / 2, plot), _x(1 - _GAP, plot) - _LEFT
    y = _y(below + figure, top)
    return Markup(
        '<rect class="s{k}" x="{x}" y="{y}" width="{w}" height="{h}"/>'
        '<rect fill="url(#{n}-p{k})" x="{x}" y="{y}" width="{w}" height="{h}"/>'
    ).format(k=style, n=plot.name, x=round(x, 1), y=y, w=round(width, 1), h=max(1.0, round(_y(below, top) - y, 1)))


def _x(place: float, plot: Bars) -> float:
    return _LEFT + place * (WIDTH - _LEFT - _RIGHT) / max(1, len(plot.places))


def _y(figure: float, top: int) -> float:
    return round(HEIGHT - _BOTTOM - figure * (HEIGHT - _TOP - _BOTTOM) / top, 1)
