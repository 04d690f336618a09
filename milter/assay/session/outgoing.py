# SPDX-License-Identifier: GPL-3.0-or-later
"""The outgoing strand of a transaction: what is kept of a message from our own hosts and users, for signing."""

from __future__ import annotations

from collections.abc import Sequence

from assay.model.message import NO_HEADER, Header
from assay.protocol import dkim


class Outgoing:
    """Keeps the header and hashes the body, once for all signatures. The body is never kept."""

    __slots__ = ("_wanted", "hashes", "header")

    def __init__(self, wanted: Sequence[dkim.BodyHashSpec] = ()) -> None:
        """:param wanted: the body hashes that signatures need; without any, the body is not read."""
        self.header = NO_HEADER
        self.hashes = dkim.BodyHashes(())
        self._wanted = wanted

    def header_complete(self, header: Header) -> None:
        """All fields are there."""
        self.header = header
        self.hashes = dkim.BodyHashes(self._wanted)

    def body(self, chunk: bytes) -> None:
        """The next piece of the body, with CRLF line ends, cut anywhere."""
        self.hashes.update(chunk)
