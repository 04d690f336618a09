# SPDX-License-Identifier: GPL-3.0-or-later
"""Which nameservers are up, so that a dead one costs one timeout and not one for each lookup.

A server that let a query time out, while nothing else was heard from it either, is *down* until it answers a probe. A
probe asks for the root's nameservers, which every resolver knows: so a stranger whose own nameservers are slow cannot
make ours look dead for longer than one round trip. At most one probe a server is in flight, and after a vain one the
server is left alone for `PAUSE`.

Everything runs in the loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from assay.resolver import transport, wire
from assay.resolver.datagrams import Datagrams
from assay.resolver.nameservers import Nameserver
from assay.resolver.statistics import Statistics

#: Seconds between a vain probe and the next one. Short: one small query, and mail waits for its end.
PAUSE = 2.0
#: Seconds to wait for the answer to a probe. It is in every resolver's memory; this is for the way to it.
PROBE_PATIENCE = 1.0


class Server:
    """A nameserver and what we know of its health."""

    __slots__ = ("fault", "heard", "nameserver", "probe", "retry_at", "told")

    def __init__(self, nameserver: Nameserver) -> None:
        self.nameserver = nameserver
        self.heard = float("-inf")  # when it last answered anything
        self.fault: transport.Fault | None = None  # why it is down; None while it is up
        self.retry_at = float("-inf")  # no probe before this
        self.probe: transport.Exchange | None = None
        self.told = False  # whether the operator has been told that it is down

    def __str__(self) -> str:
        return str(self.nameserver)


class Health:
    """Watches the nameservers.

    `changed` is called after a probe ended, whatever it found. `tell` is told, for the operator, when a server that is
    surely down does not answer, and when it answers again.
    """

    def __init__(
        self,
        nameservers: Sequence[Nameserver],
        datagrams: Datagrams,
        statistics: Statistics,
        clock: Callable[[], float],
        patience: float,
        changed: Callable[[], None],
        tell: Callable[[str], None],
    ) -> None:
        self.servers = tuple(Server(nameserver) for nameserver in nameservers)
        self._datagrams = datagrams
        self._statistics = statistics
        self._clock = clock
        self._patience = min(patience, PROBE_PATIENCE)
        self._changed = changed
        self._tell = tell

    @property
    def any_up(self) -> bool:
        """Whether some server is believed to be up."""
        return any(server.fault is None for server in self.servers)

    @property
    def probing(self) -> bool:
        """Whether some probe is in flight."""
        return any(server.probe is not None for server in self.servers)

    @property
    def reason(self) -> str:
        """Why no server can be asked, for a postmaster."""
        return "; ".join(f"{server} {server.fault.reason}" for server in self.servers if server.fault is not None)

    def heard(self, server: Server) -> None:
        """It answered, whatever."""
        server.heard = self._clock()
        server.fault = None
        if server.told:
            server.told = False
            self._tell(f"nameserver {server} answers again")

    def failed(self, server: Server, fault: transport.Fault, since: float) -> None:
        """A query asked at `since` got no answer."""
        if server.fault is not None:
            return
        if fault.cause is transport.Cause.TIMEOUT and server.heard < since:
            server.fault = fault
            server.retry_at = float("-inf")  # ask at once whether it was the question's fault
            self.revive()
        elif fault.cause is transport.Cause.UNREACHABLE:
            server.fault = fault
            server.retry_at = self._clock() + PAUSE
            self._tell_down(server, fault)

    def revive(self) -> None:
        """Probe the servers that are down and due."""
        now = self._clock()
        for server in self.servers:
            if server.fault is not None and server.probe is None and now >= server.retry_at:
                self._probe(server)

    def close(self) -> None:
        """Stop all probes."""
        for server in self.servers:
            if server.probe is not None:
                server.probe.cancel()
                server.probe = None

    def _tell_down(self, server: Server, fault: transport.Fault) -> None:
        """Once, and not for a first timeout, which may be a stranger's doing."""
        if not server.told:
            server.told = True
            self._tell(f"nameserver {server} {fault.reason}")

    def _probe(self, server: Server) -> None:
        def done(outcome: bytes | transport.Fault) -> None:
            server.probe = None
            if isinstance(outcome, transport.Fault):
                server.retry_at = self._clock() + PAUSE
                self._tell_down(server, outcome)
            else:
                self.heard(server)
            self._changed()

        self._statistics.probes += 1
        server.probe = self._datagrams.ask(server.nameserver, wire.PROBE, self._patience, done)
