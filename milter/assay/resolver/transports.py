# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways to ask a nameserver, by its scheme. An encrypted one is never asked in any other way than its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from assay.resolver import tls
from assay.resolver.datagrams import Datagrams
from assay.resolver.encrypted import Encrypted
from assay.resolver.nameservers import Nameserver
from assay.resolver.statistics import Statistics
from assay.resolver.streams import Streams
from assay.resolver.transport import Done, Exchange, MakeRoom, no_room


class Transports:
    """Asks any nameserver."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        statistics: Statistics,
        authentic: bool,
        contexts: tls.Contexts,
        random_case: bool,
        make_room: MakeRoom = no_room,
    ) -> None:
        """
        :param authentic: ask for the AD bit.
        :param contexts: for the encrypted nameservers.
        :param random_case: over UDP, ask for names in random case.
        :param make_room: called when no descriptor is left for a socket.
        """
        self.datagrams = Datagrams(loop, statistics, authentic, random_case, make_room)
        self._streams = Streams(loop, statistics, authentic, make_room)
        self._encrypted = Encrypted(loop, statistics, authentic, contexts, make_room)

    def ask(self, server: Nameserver, asked: bytes, patience: float, done: Done) -> Exchange:
        """Send a query; see `Datagrams.ask`."""
        if server.scheme:
            return self._encrypted.ask(server, asked, patience, done)
        return self.datagrams.ask(server, asked, patience, done)

    def ask_over_tcp(self, server: Nameserver, asked: bytes, patience: float, done: Done) -> Exchange:
        """Ask a plain nameserver whose answer was truncated again (RFC 7766, 5)."""
        return self._streams.ask(server, asked, patience, done, self.datagrams.extends(server))

    def keep(self, servers: Sequence[Nameserver]) -> None:
        """Keep only these servers. The system's, which change, are all plain."""
        self.datagrams.keep(servers)

    def close(self) -> None:
        """Close all sockets."""
        self.datagrams.close()
        self._encrypted.close()
