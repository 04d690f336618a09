# SPDX-License-Identifier: GPL-3.0-or-later
"""Which nameservers are up, so that a dead one costs one timeout and not one for each lookup.

A server that let a query time out, and sent nothing else in that time, is *down* until it answers a probe. A
probe asks for the root's nameservers, which every resolver knows: so a stranger whose own nameservers are slow cannot
make ours look dead for longer than one round trip. At most one probe a server is in flight, and after each vain one the
server is left alone twice as long, up to `MAX_PAUSE`.

A server that answers, but only with failures such as SERVFAIL or REFUSED, is *failing*: it is up, and asked, but a
lookup that it fails may succeed a moment later.

Everything runs in the loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from assay.resolver import transport, wire
from assay.resolver.nameservers import Nameserver
from assay.resolver.statistics import Statistics
from assay.resolver.transports import Transports

#: Seconds between a first failed probe and the next one. Short: one small query, and mail waits for its end.
FIRST_PAUSE = 0.1
#: Seconds between two failed probes at most, and so from a repair to the first answer.
MAX_PAUSE = 1.0
#: So many times the patience for one server, lookups wait for servers that are all down to come back. A nameserver is
#: restarted within seconds; in a longer outage mail must not wait for nothing.
GRACE = 2
#: So many failures in a row, for whatever names, are the server's own. One message whose names all fail has about as
#: many; if its sender is the only one at that time, nobody else is affected.
FAILING = 4
#: Seconds to wait for the answer to a probe. It is in every resolver's memory; this is for the path to it.
PROBE_PATIENCE = 1.0


class Server:
    """A nameserver and its known health."""

    __slots__ = ("failing_since", "failures", "fault", "heard", "nameserver", "pause", "probe", "retry_at", "told")

    def __init__(self, nameserver: Nameserver) -> None:
        self.nameserver = nameserver
        self.heard = float("-inf")  # when it last answered anything
        self.fault: transport.ExchangeFault | None = None  # why it is down; None while it is up
        self.retry_at = float("-inf")  # no probe before this
        self.pause = FIRST_PAUSE
        self.probe: transport.Exchange | None = None
        self.told = False  # whether it was reported to be down
        self.failures = 0  # answers in a row that were failures
        self.failing_since = 0.0  # when the first of them came

    def __str__(self) -> str:
        return str(self.nameserver)


class Health:
    """Watches the nameservers.

    `changed` is called after each probe, whatever its result, `recovered` when a server that was certainly down, or
    failing, answers again. `tell` is called with lines for the log. `later` calls a function after so many seconds.
    """

    def __init__(
        self,
        nameservers: Sequence[Nameserver],
        transports: Transports,
        statistics: Statistics,
        clock: Callable[[], float],
        patience: float,
        changed: Callable[[], None],
        recovered: Callable[[], None],
        tell: Callable[[str], None],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.servers = tuple(Server(nameserver) for nameserver in nameservers)
        self._transports = transports
        self._statistics = statistics
        self._clock = clock
        self._patience = min(patience, PROBE_PATIENCE)
        self._grace = GRACE * patience
        self._down_since = 0.0  # when the last server that was up went down
        self._changed = changed
        self._recovered = recovered
        self._tell = tell
        self._later = later

    @property
    def nameservers(self) -> tuple[Nameserver, ...]:
        """The watched servers, in the operator's order."""
        return tuple(server.nameserver for server in self.servers)

    @property
    def known(self) -> dict[str, bool]:
        """Whether each server answers; without those that have not been asked yet."""
        never = float("-inf")
        return {
            str(server): server.fault is None
            for server in self.servers
            if server.fault is not None or server.heard > never
        }

    @property
    def any_up(self) -> bool:
        """Whether some server is believed to be up."""
        return any(server.fault is None for server in self.servers)

    def heard_since(self, since: float) -> bool:
        """Whether some server has answered anything since this time."""
        return any(server.heard > since for server in self.servers)

    @property
    def may_recover(self) -> bool:
        """Whether all servers are down and one may be up soon: for a while, or until the first probe has ended.

        One that has never answered counts too: it may be starting together with us.
        """
        if self.any_up:
            return False
        if any(server.probe is not None and not server.told for server in self.servers):
            return True
        return self._clock() - self._down_since < self._grace

    @property
    def probing(self) -> bool:
        """Whether all servers are down and some probe will say soon whether that is still so."""
        return not self.any_up and any(server.probe is not None for server in self.servers)

    @property
    def fail_briefly(self) -> bool:
        """Whether the servers that are up fail whatever they are asked, and have done so for a short while only."""
        now = self._clock()
        up = [server for server in self.servers if server.fault is None]
        return bool(up) and all(
            server.failures >= FAILING and now - server.failing_since < self._grace for server in up
        )

    @property
    def reason(self) -> str:
        """Why no server can be asked, for a postmaster."""
        return "; ".join(f"{server} {server.fault.reason}" for server in self.servers if server.fault is not None)

    def replace(self, nameservers: Sequence[Nameserver]) -> None:
        """Watch these servers from now on. The health of those that stay is kept."""
        former = {server.nameserver: server for server in self.servers}
        self.servers = tuple(former.pop(address) if address in former else Server(address) for address in nameservers)
        for server in former.values():
            server.told = False  # it is not reported any more
            if server.probe is not None:
                server.probe.cancel()
                server.probe = None

    def heard(self, server: Server) -> None:
        """It answered anything."""
        server.heard = self._clock()
        server.fault = None
        server.pause = FIRST_PAUSE
        if server.told:
            server.told = False
            self._tell(f"nameserver {server} answers again")
            self._recovered()

    def answered(self, server: Server, failed: bool) -> None:
        """It answered a question; `failed`: that it cannot, or will not, look the name up now."""
        if failed:
            if not server.failures:
                server.failing_since = self._clock()
            server.failures += 1
        elif server.failures:
            failing = server.failures >= FAILING
            server.failures = 0
            if failing:
                self._recovered()

    def failed(self, server: Server, fault: transport.ExchangeFault, since: float) -> None:
        """A query asked at `since` got no answer."""
        if server.fault is not None or server not in self.servers:
            return
        if fault.cause is transport.Cause.TIMEOUT and server.heard < since:
            self._down(server, fault)
            server.retry_at = float("-inf")  # probe at once: it may have been the question's fault
            self.revive()
        elif fault.cause is transport.Cause.UNREACHABLE:
            self._down(server, fault)
            self._rest(server)
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

    def _down(self, server: Server, fault: transport.ExchangeFault) -> None:
        server.fault = fault
        if not self.any_up:
            self._down_since = self._clock()

    def _rest(self, server: Server) -> None:
        """Pause for a while, and then probe the server if lookups wait for it."""
        server.retry_at = self._clock() + server.pause
        self._later(server.pause, self._revive_if_waited_for)
        server.pause = min(2 * server.pause, MAX_PAUSE)

    def _revive_if_waited_for(self) -> None:
        if self.may_recover:
            self.revive()
        else:
            self._changed()

    def _tell_down(self, server: Server, fault: transport.ExchangeFault) -> None:
        """Report it once, and not for a first timeout, which a stranger may have caused."""
        if not server.told:
            server.told = True
            self._tell(f"nameserver {server} {fault.reason}")

    def _probe(self, server: Server) -> None:
        def done(outcome: bytes | transport.ExchangeFault) -> None:
            server.probe = None
            if isinstance(outcome, transport.ExchangeFault):
                self._rest(server)
                self._tell_down(server, outcome)
            else:
                self.heard(server)
            self._changed()

        self._statistics.probes += 1
        server.probe = self._transports.ask(server.nameserver, wire.PROBE, self._patience, done)
