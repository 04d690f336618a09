# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask each authoritative server of a name directly, without any cache between: what is published, and everywhere?

For commands of the operator, not for mail: it blocks. The zone of a name is found through the resolver's nameservers.
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
from msgspec import Struct

from assay.inquiry import Outcome
from assay.keys.published import ServerAnswer
from assay.resolver import tls
from assay.resolver.nameservers import PORT, Nameserver
from assay.resolver.transport import words

MAX_ALIASES = 8  # CNAMEs followed from a key's name; providers use one, seldom two
MAX_SERVERS = 40  # addresses asked for one name; our choice: the root has 26
PAYLOAD = 1232  # octets over UDP with EDNS; what current servers and resolvers use
_AT_A_TIME = 8
#: What the system says of an address family that this host does not have.
_NO_ROUTE = {errno.ENETUNREACH, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}

_Text = dns.rdatatype.TXT


class UnknownZoneError(Exception):
    """The zone or the servers of a name cannot be found. The message is a clause."""


class _Server(Struct, frozen=True):
    """One address of a server, `address` None if it has none; `label` names it in messages."""

    host: str
    label: str
    address: Nameserver | None


class Authority:
    """The authoritative servers of names, as the DNS names them or as the operator does.

    It remembers zones and servers, and never what they answer for a key: make one for each command.
    """

    def __init__(
        self,
        nameservers: Sequence[Nameserver],
        *,
        servers: Sequence[Nameserver] = (),
        patience: float = 3.0,
        port: int = PORT,
        contexts: tls.Contexts = MappingProxyType({}),
    ) -> None:
        """
        :param nameservers: resolvers, to find zones and servers with.
        :param servers: ask these instead of the servers that the zones name.
        :param patience: seconds that one server may take.
        :param port: of the servers that the zones name.
        :param contexts: for the encrypted ones of `nameservers`.
        """
        self._nameservers = nameservers
        self._servers = servers
        self._patience = patience
        self._port = port
        self._resolved: dict[tuple[dns.name.Name, dns.rdatatype.RdataType], Sequence[Any]] = {}
        self._contexts = contexts

    def texts(self, name: str) -> tuple[ServerAnswer, ...]:
        """What each authoritative server answers for the TXT records of a name. Never raises.

        A CNAME is followed to the servers of what it leads to. A server that several names or addresses reach is asked
        at each. If no server can be found, the only answer says so.
        """
        try:
            return tuple(self._texts(dns.name.from_text(name)))
        except (UnknownZoneError, dns.exception.DNSException) as error:
            return (ServerAnswer("DNS", Outcome.TEMPFAIL, reason=str(error) or type(error).__name__),)

    def zone(self, name: str) -> str:
        """The zone that a name is in, without final dot.

        :raises UnknownZoneError: it cannot be found.
        """
        return self._zone(dns.name.from_text(name)).to_text(omit_final_dot=True)

    def _texts(self, name: dns.name.Name) -> Iterable[ServerAnswer]:
        answers: dict[str, ServerAnswer] = {}
        names = [name]
        done: set[dns.name.Name] = set()
        while names:
            asked = names.pop()
            if asked in done:
                continue
            if len(done) == MAX_ALIASES:
                raise UnknownZoneError(f"more than {MAX_ALIASES} CNAMEs lead from {name}")
            done.add(asked)
            for answer, alias in self._ask_all(asked):
                if alias is None:
                    answers.setdefault(answer.server, answer)
                else:
                    names.append(alias)
        return answers.values()

    def _ask_all(self, name: dns.name.Name) -> Sequence[tuple[ServerAnswer, dns.name.Name | None]]:
        """The answer of each server, with the name that it says to ask for instead."""
        servers = tuple(self._named()) if self._servers else tuple(self._servers_of(name))
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            found = tuple(pool.map(lambda server: self._ask(server, name), servers))
        answered = {server.host for server, answer in zip(servers, found, strict=True) if answer is not None}
        unreached = {server.host: server.label for server in servers if server.host not in answered}
        return [answer for answer in found if answer is not None] + [
            (ServerAnswer(label, Outcome.TEMPFAIL, reason="this host has no route to it"), None)
            for label in unreached.values()
        ]

    def _named(self) -> Iterable[_Server]:
        return (_Server(str(server), str(server), server) for server in self._servers)

    def _servers_of(self, name: dns.name.Name) -> Iterable[_Server]:
        zone = self._zone(name)
        hosts = [record.target for record in self._resolve(zone, dns.rdatatype.NS)]
        if not hosts:
            raise UnknownZoneError(f"the zone {zone} names no server")
        count = 0
        for target in sorted(hosts):
            host = target.to_text(omit_final_dot=True)
            kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
            addresses = [record.address for kind in kinds for record in self._resolve(target, kind)]
            if not addresses:
                yield _Server(host, host, None)
            for address in addresses[: MAX_SERVERS - count]:
                yield _Server(host, f"{host} ({address})", Nameserver(address, self._port))
            count += len(addresses)

    def _zone(self, name: dns.name.Name) -> dns.name.Name:
        """The nearest name at or above this one that has an SOA record."""
        while True:
            if self._resolve(name, dns.rdatatype.SOA):
                return name
            if name == dns.name.root:
                raise UnknownZoneError("no zone found: the nameservers do not know the root")
            name = name.parent()

    def _resolve(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> Sequence[Any]:
        """The records of exactly this name; CNAMEs do not count. Each question is asked once."""
        found = self._resolved.get((name, kind))
        if found is None:
            found = self._resolved[name, kind] = self._look_up(name, kind)
        return found

    def _look_up(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> Sequence[Any]:
        """The records of exactly this name, from the first of our nameservers that answers."""
        if not self._nameservers:
            raise UnknownZoneError("dns.nameservers is 'none'; name the servers to ask in keys.nameservers")
        fault = ""
        for server in self._nameservers:
            if server.scheme == "https":  # dnspython needs another library for it than the daemon
                fault = f"nameserver {server} is asked only about mail; name servers in keys.nameservers"
                continue
            query = dns.message.make_query(name, kind, use_edns=True, payload=PAYLOAD)
            try:
                response = self._query(server, query)
            except (OSError, dns.exception.DNSException) as error:
                fault = f"nameserver {server}: {_why(error)}"
                continue
            if response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                rrset = response.get_rrset(dns.message.ANSWER, name, dns.rdataclass.IN, kind)
                return list(rrset or ())
            fault = f"nameserver {server} answered {dns.rcode.to_text(response.rcode())} for {name}"
        raise UnknownZoneError(fault)

    def _query(self, server: Nameserver, query: dns.message.Message) -> dns.message.Message:
        """The response of a resolver, which is asked in its own way and no other."""
        if not server.scheme:
            return dns.query.udp_with_fallback(
                query, server.address, timeout=self._patience, port=server.port, ignore_unexpected=True
            )[0]
        return dns.query.tls(
            query,
            server.address,
            timeout=self._patience,
            port=server.port,
            ssl_context=self._contexts[server.scheme],
            server_hostname=server.identity,
        )

    def _ask(self, one: _Server, name: dns.name.Name) -> tuple[ServerAnswer, dns.name.Name | None] | None:
        """Ask one server; None if this host cannot reach its address family."""
        label, server = one.label, one.address
        if server is None:
            return ServerAnswer(label, Outcome.TEMPFAIL, reason="has no address"), None
        query = dns.message.make_query(name, _Text, use_edns=True, payload=PAYLOAD)
        query.flags &= ~dns.flags.RD
        try:
            response, truncated = dns.query.udp_with_fallback(
                query, server.address, timeout=self._patience, port=server.port, ignore_unexpected=True
            )
        except OSError as error:
            if error.errno in _NO_ROUTE:
                return None
            return ServerAnswer(label, Outcome.TEMPFAIL, reason=_why(error)), None
        except dns.exception.DNSException as error:
            return ServerAnswer(label, Outcome.TEMPFAIL, reason=_why(error)), None
        return _read(label, name, response, truncated)


def _read(
    label: str, name: dns.name.Name, response: dns.message.Message, truncated: bool
) -> tuple[ServerAnswer, dns.name.Name | None]:
    rcode = response.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return ServerAnswer(label, Outcome.TEMPFAIL, reason=f"answered {dns.rcode.to_text(rcode)}"), None
    if not response.flags & dns.flags.AA:
        return ServerAnswer(label, Outcome.TEMPFAIL, reason="is not authoritative for the name"), None
    asked = name
    for _ in range(MAX_ALIASES):
        texts = response.get_rrset(dns.message.ANSWER, name, dns.rdataclass.IN, _Text)
        if texts is not None:
            found = tuple(b"".join(record.strings) for record in texts)
            return ServerAnswer(label, Outcome.FOUND, found, truncated), None
        alias = response.get_rrset(dns.message.ANSWER, name, dns.rdataclass.IN, dns.rdatatype.CNAME)
        if alias is None:
            break
        name = alias[0].target
    else:
        return ServerAnswer(label, Outcome.TEMPFAIL, reason="answered with too many CNAMEs"), None
    if name != asked:
        return ServerAnswer(label, Outcome.NODATA), name
    return ServerAnswer(label, Outcome.NXDOMAIN if rcode == dns.rcode.NXDOMAIN else Outcome.NODATA), None


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return tls.handshake_fault(error).reason
    if isinstance(error, OSError):
        return f"could not be asked ({words(error)})"
    return "does not answer" if isinstance(error, dns.exception.Timeout) else f"sent no usable answer ({error})"
