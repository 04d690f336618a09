# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what all processes have counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from assay.metrics.families import BY_NAME, FAMILIES, SECONDS, Type
from assay.metrics.page import SEPARATOR, Page

Labels = tuple[str, ...]


class Distribution(Struct, frozen=True):
    """The waits of a histogram: `counts` in each class of `SECONDS` and beyond, and the sum in seconds."""

    counts: tuple[int, ...]
    seconds: float

    @property
    def number(self) -> int:
        """How many there are."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """An upper bound for this share of the waits, in seconds; 0 if there are none."""
        rest = share * self.number
        for bound, count in zip((*SECONDS, float("inf")), self.counts, strict=True):
            rest -= count
            if rest <= 0 and self.number:
                return bound
        return 0.0


class Figures(Struct, frozen=True):
    """Figures of the whole daemon at one time, by entry."""

    values: dict[str, int]

    def of(self, family: str) -> dict[Labels, int]:
        """The figures of a counter or gauge, by the values of its labels."""
        wanted = len(BY_NAME[family].labels)
        return {labels: value for labels, value in self._of(family) if len(labels) == wanted}

    def total(self, family: str, **labels: str) -> int:
        """The sum of those figures whose labels have these values."""
        names = BY_NAME[family].labels
        return sum(
            value
            for found, value in self.of(family).items()
            if all(found[names.index(name)] == text for name, text in labels.items())
        )

    def waits(self, family: str) -> dict[Labels, Distribution]:
        """The figures of a histogram, by the values of its labels."""
        found: dict[Labels, list[int]] = {}
        wanted = len(BY_NAME[family].labels) + 1
        for (*labels, place), value in self._of(family):
            if len(labels) + 1 == wanted:
                cells = found.setdefault(tuple(labels), [0] * (len(SECONDS) + 2))
                cells[-1 if place == "sum" else int(place)] += value
        return {labels: Distribution(tuple(cells[:-1]), cells[-1] / 1e6) for labels, cells in found.items()}

    def since(self, earlier: Figures) -> Figures:
        """What has been counted since an earlier reading. Gauges are those of now."""
        gauges = {family.name for family in FAMILIES if family.type is Type.GAUGE}
        return Figures(
            {
                name: value if name.partition(SEPARATOR)[0] in gauges else value - earlier.values.get(name, 0)
                for name, value in self.values.items()
            }
        )

    def _of(self, family: str) -> Iterator[tuple[Labels, int]]:
        for name, value in self.values.items():
            found, *labels = name.split(SEPARATOR)
            if found == family:
                yield tuple(labels), value


def read(pages: Iterable[Page]) -> Figures:
    """Add up the pages."""
    values: dict[str, int] = {}
    for page in pages:
        for name, value in page.entries():
            values[name] = values.get(name, 0) + value
    return Figures(values)
