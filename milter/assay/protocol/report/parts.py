# SPDX-License-Identifier: GPL-3.0-or-later
"""Divide a report into parts whose files have at most a number of octets.

Parts are as large as they may be. The records are read once, and compressed to see how large each part is; memory
does not grow with their number.
"""

from __future__ import annotations

import zlib

from assay.protocol.report.aggregate import AggregateReport, ReportRecord
from assay.protocol.report.render import CLOSING, Schema, element, opening
from assay.protocol.report.submission import GZIP_BITS


class RecordTooLargeError(ValueError):
    """A part with a single record would be too large."""


class Divider:
    """Takes the records of a report one by one, and says where the next part begins."""

    def __init__(self, report: AggregateReport, schema: Schema, most: int) -> None:
        """
        :param report: of a part; all of them have as many octets of it.
        :param most: octets of the compressed file of a part.
        """
        self._opening = opening(report, schema).encode()
        self._schema = schema
        self._most = most
        self._compressor = zlib.compressobj(wbits=GZIP_BITS)
        self._written = 0  # octets that have left the compressor
        self._spare = -1  # octets of XML that certainly fit; negative before the first record

    def begins_part(self, record: ReportRecord) -> bool:
        """Add a record to the part that is going on, or begin the next one with it. Returns whether it began one.

        :raises RecordTooLargeError: it does not even fit into a part of its own.
        """
        xml = element(record, self._schema).encode()
        if self._spare >= 0 and self._fits(xml):
            return False
        self._compressor = zlib.compressobj(wbits=GZIP_BITS)
        self._written = len(self._compressor.compress(self._opening))
        self._spare = 0
        if not self._fits(xml):
            raise RecordTooLargeError("a single record of it is too large")
        return True

    def _fits(self, xml: bytes) -> bool:
        """Add the XML of a record if the part is not too large with it."""
        if len(xml) <= self._spare:  # compressed it has less, so nothing has to be tried
            self._written += len(self._compressor.compress(xml))
            self._spare -= len(xml)
            return True
        trial = self._compressor.copy()
        written = self._written + len(trial.compress(xml))
        end = trial.copy()
        spare = self._most - written - len(end.compress(CLOSING.encode())) - len(end.flush())
        if spare < 0:
            return False
        self._compressor, self._written, self._spare = trial, written, spare
        return True
