# SPDX-License-Identifier: GPL-3.0-or-later
"""Bar and line charts as SVG, written directly: two simple charts do not need a library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_COLOURS = ("#0b6e99", "#d9730d", "#4d6461", "#ad1a72", "#6940a5", "#0f7b6c")
_STYLE = "font-family:sans-serif;font-size:12px;fill:#333"
_WIDTH = 760


def bars(title: str, unit: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Horizontal bars: one group for each label, one bar in it for each series."""
    left, line, gap = 300, 16, 10
    series = list(dict.fromkeys(name for group in groups.values() for name in group))
    top = 60
    longest = max(value for group in groups.values() for value in group.values())
    scale = (_WIDTH - left - 80) / longest
    parts, y = [], top
    for label, group in groups.items():
        height = line * len(group)
        parts.append(_text(left - 8, y + height / 2 + 4, label, anchor="end"))
        for name, value in group.items():
            colour = _COLOURS[series.index(name) % len(_COLOURS)]
            parts.append(
                f'<rect x="{left}" y="{y + 1}" width="{value * scale:.1f}" height="{line - 2}" fill="{colour}"/>'
            )
            parts.append(_text(left + value * scale + 5, y + line - 4, _number(value)))
            y += line
        y += gap
    return _picture(title, unit, series, parts, y)


def lines(title: str, x_title: str, unit: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines from the origin, a mark at each measured point."""
    left, top, width, height = 70, 70, _WIDTH - 110, 260
    x_most = max(x for points in series.values() for x, _ in points)
    y_most = max(y for points in series.values() for _, y in points) * 1.05
    parts = [f'<path d="M{left},{top}V{top + height}H{left + width}" fill="none" stroke="#333"/>']
    for step in range(1, 5):
        y = top + height * (1 - step / 4)
        parts.append(f'<path d="M{left},{y}h{width}" stroke="#ddd"/>')
        parts.append(_text(left - 6, y + 4, _number(y_most * step / 4), anchor="end"))
        parts.append(_text(left + width * step / 4, top + height + 16, _number(x_most * step / 4), anchor="middle"))
    for (_, points), colour in zip(series.items(), _COLOURS, strict=False):
        spots = [(left + width * x / x_most, top + height * (1 - y / y_most)) for x, y in points]
        parts.append(
            f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in spots)}" fill="none" '
            f'stroke="{colour}" stroke-width="2"/>'
        )
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in spots]
    parts.append(_text(left + width / 2, top + height + 34, x_title, anchor="middle"))
    return _picture(title, unit, list(series), parts, top + height + 40)


def _picture(title: str, unit: str, series: Sequence[str], parts: Sequence[str], height: float) -> str:
    legend, x = [], 12.0
    for name, colour in zip(series, _COLOURS, strict=False):
        legend.append(f'<rect x="{x}" y="36" width="12" height="12" fill="{colour}"/>{_text(x + 17, 46, name)}')
        x += 40 + 6.5 * len(name)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height + 10:.0f}" width="{_WIDTH}" '
        f'style="{_STYLE}">'
        f'<rect width="100%" height="100%" fill="#fff"/>{_text(12, 22, f"{title} ({unit})", weight="bold")}'
        + "".join(legend)
        + "".join(parts)
        + "</svg>\n"
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
