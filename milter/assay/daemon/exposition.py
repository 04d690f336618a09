# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of a daemon in the text formats of Prometheus. Only the endpoint imports this, and only on demand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from assay.metrics import FAMILIES, Family, Figures, Type
from assay.metrics.families import SECONDS

_BOUNDS = (*(f"{bound:g}" for bound in SECONDS), "+Inf")


def exposition(figures: Figures, accept: str) -> tuple[bytes, str]:
    """The figures as text.

    :param accept: what the client accepts, as in HTTP: OpenMetrics or Prometheus's own format.
    :returns: the octets and their content type.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(figures))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collector(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            yield self._metric(family)

    def _metric(self, family: Family) -> Metric:
        name = f"assay_{family.name}"
        if family.type is Type.HISTOGRAM:
            histogram = HistogramMetricFamily(name, family.help, labels=family.labels)
            for labels, waits in self._figures.waits(family.name).items():
                buckets = list(zip(_BOUNDS, map(float, accumulate(waits.counts)), strict=True))
                histogram.add_metric(labels, buckets=buckets, sum_value=waits.seconds)
            return histogram
        kind: Any = CounterMetricFamily if family.type is Type.COUNTER else GaugeMetricFamily
        metric: CounterMetricFamily | GaugeMetricFamily = kind(name, family.help, labels=family.labels)
        values = self._figures.of(family.name)
        if not family.labels and not values:
            values = {(): 0}  # a rate needs its beginning
        for labels, value in values.items():
            metric.add_metric(labels, value)
        return metric
