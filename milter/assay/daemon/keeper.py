# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker's side of the store: each verdict becomes a row and goes to the recorder. The verdict does not wait."""

from __future__ import annotations

import time
from collections.abc import Mapping

from assay.config import Configuration
from assay.daemon.meter import Copies
from assay.daemon.seldom import Seldom
from assay.log import Log
from assay.metrics.page import name_of
from assay.model.wording import counted
from assay.session import Settings, Verdict
from assay.store.channel import RowChannel
from assay.store.from_verdict import Keeping, message_row
from assay.store.incident_from_verdict import with_incident
from assay.store.rows import encode
from assay.store.stand_in import NotTakenError, StandIn

_LAST_SECONDS = 2.0
_PAUSE_SECONDS = 0.02  # between two looks whether the recorder takes rows


class Keeper:
    """Hands verdicts over. Any thread may call it."""

    def __init__(self, channel: RowChannel, stand_in: StandIn, keeping: Keeping, log: Log) -> None:
        self._channel = channel
        self._stand_in = stand_in
        self._sender = channel.sender()
        self._keeping = keeping
        self._log = log
        self._seldom = Seldom()
        self._ended = False
        self._failed = 0  # verdicts that could not be made into rows

    def keep(self, verdict: Verdict, now: float, waits: Mapping[str, float]) -> None:
        """Hand over a verdict. If the recorder takes nothing for long, it is lost and counted.

        :param now: Unix time in seconds.
        :param waits: seconds that the MTA waited for us, by stage.
        """
        try:
            row = message_row(verdict, self._keeping, now=now, waits=waits)
            if self._keeping.failure_octets and row.dmarc is not None:
                row = with_incident(verdict, row, self._keeping)
            octets = encode(row)
        except Exception as error:  # a bug of ours: the message has its verdict, and no store may change that
            self._failed += 1
            if self._seldom.due(time.monotonic()):
                self._log.error(f"store: a result cannot be made into a row and is lost: {error!r}")
            return
        if not self._sender.send(octets) and self._seldom.due(time.monotonic()):
            self._log.warning("store: the recorder takes nothing, and results are lost; see its lines in this log")

    def tick(self, copies: Copies) -> None:
        """Offer again what the recorder did not take, and count. Call it once a second."""
        if not self._ended:
            self._flush()
        copies.copy(name_of("store_rows", "lost"), self._sender.lost + self._failed)

    def end(self) -> None:
        """Hand over what is left, for a few seconds at most. Call it once, just before the process ends:
        a verdict that comes after it is not given."""
        deadline = time.monotonic() + _LAST_SECONDS
        while not self._flush() and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)
        self._ended = True
        if lost := self._sender.end():
            self._log.error(f"store: {counted(lost, 'result')} lost: the recorder took nothing before the end")
        if loss := self._stand_in.settle(_LAST_SECONDS):
            self._log.error(f"store: {loss}")

    def _flush(self) -> bool:
        """Offer again what waits, and if no process is left to start a recorder, spool in its place.

        :returns: whether nothing waits in this process.
        """
        if self._channel.orphaned:
            try:
                self._stand_in.read()
            except NotTakenError as error:
                if self._seldom.due(time.monotonic()):
                    self._log.error(f"store: {error}; results wait with the workers")
        return self._sender.flush()


def keeper_of(configuration: Configuration, settings: Settings, channel: RowChannel, log: Log) -> Keeper | None:
    """What keeps verdicts; None if nothing does. Call it in the worker's process."""
    section = configuration.store
    if not section.directory:
        return None
    reports = tuple(text.lower() for text in (configuration.reports.contact, configuration.reports.bounces) if text)
    host = settings.authserv_id or settings.fallback_authserv_id
    failure = configuration.reports.failure
    octets = failure.max_header_octets if failure.enabled else 0
    return Keeper(
        channel,
        StandIn(channel, section.directory, section.spool_octets),
        Keeping(host, section.addresses, section.subjects, reports, octets),
        log,
    )
