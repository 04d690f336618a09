# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of children that the supervisor keeps, for a configuration."""

from __future__ import annotations

from assay.config import Configuration
from assay.daemon import collector, endpoint, maps, recorder, reporter, worker
from assay.daemon.child import Kind
from assay.daemon.listener import Listener
from assay.log import Log
from assay.store.channel import RowChannel
from assay.web import child as page


def kinds(configuration: Configuration, listener: Listener, channel: RowChannel, log: Log) -> tuple[Kind, ...]:
    """The kinds of children. A new kind is one line here, and its ``run`` a module of its own."""
    return (
        worker.kind(configuration, listener, channel, log),
        *recorder.kind(configuration, channel, log),
        *endpoint.kind(configuration, listener.endpoint, log),
        *maps.kind(configuration, log),
        *page.kind(configuration, log),
        *reporter.kind(configuration, log),
        *collector.kind(configuration, log),
    )
