# SPDX-License-Identifier: GPL-3.0-or-later
"""A nano DNS server for the tests: a `zone.Zone` behind UDP and TCP on one loopback port.

::

    with NameServer({"example.org": [["TXT", ["v=spf1 -all"]]]}) as server:
        host, port = server.address

It answers as a recursive resolver would: CNAMEs followed, the chain in the answer, an SOA with negative answers. It
misbehaves as told; every option is an attribute that may be changed while it runs. Names in options are lower case.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Collection, Iterator, Mapping
from threading import Event, Thread
from types import TracebackType
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.SOA
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rrset

from assay.inquiry import Outcome, Question, RecordType
from zone import MAX_CNAMES, Rows, Zone

IN = dns.rdataclass.IN
CLASSIC_PAYLOAD = 512  # octets over UDP without EDNS; RFC 1035, 4.2.1
PORT_ATTEMPTS = 50  # UDP ports drawn until one is free for TCP as well


class NameServer:
    """The server; a context manager that runs it in a thread of its own."""

    def __init__(
        self,
        rows: Rows,
        *,
        ttl: int = 300,
        soa_minimum: int | None = 300,
        delay: float = 0.0,
        delays: Mapping[str, float] | None = None,
        drop: bool | Collection[str] = False,
        truncate: bool = False,
        garbage: bool = False,
        wrong_id_first: bool = False,
        wrong_question_first: bool = False,
        rcodes: Mapping[str, str] | None = None,
        no_tcp: bool = False,
        half_chains: bool = False,
        secure: bool | Collection[str] = False,
        no_edns: str = "",
        host: str = "127.0.0.1",
    ) -> None:
        """
        :param rows: the zone, as `zone.Zone` takes it.
        :param ttl: of every record.
        :param soa_minimum: seconds that negative answers live; None leaves the SOA out.
        :param delay: seconds to wait before each answer.
        :param delays: the same for single names.
        :param drop: answer nothing, or nothing for these names.
        :param truncate: set TC on every answer over UDP, and leave the records out.
        :param garbage: answer with octets that are no DNS message.
        :param wrong_id_first: before each answer, send one with another number.
        :param wrong_question_first: before each answer, send one to another question.
        :param rcodes: names that are answered with this RCODE (``REFUSED``).
        :param no_tcp: nobody listens on TCP; cannot be changed later.
        :param half_chains: leave what a CNAME leads to unanswered.
        :param no_edns: answer queries with EDNS with this RCODE and without EDNS.
        :param secure: set the AD bit where the query asks for it, or only for these names.
        """
        self.serve(rows)
        self.ttl = ttl
        self.soa_minimum = soa_minimum
        self.delay = delay
        self.delays = dict(delays or {})
        self.drop = drop
        self.truncate = truncate
        self.garbage = garbage
        self.wrong_id_first = wrong_id_first
        self.wrong_question_first = wrong_question_first
        self.rcodes = dict(rcodes or {})
        self.no_tcp = no_tcp
        self.half_chains = half_chains
        self.secure = secure
        self.no_edns = no_edns
        self.asked: list[tuple[str, str]] = []  #: every query: name without final dot, type; TCP ones too
        self.streams = 0  #: how many came over TCP
        self.ports: list[int] = []  #: the UDP ports that queries came from
        self.address = (host, 0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._ready = Event()
        self._failure: BaseException | None = None

    def serve(self, rows: Rows) -> None:
        """Serve another zone."""
        self.zone = Zone(rows)
        self._owners = {
            owner.lower().rstrip("."): tuple((kind, value) for kind, value in of) for owner, of in rows.items()
        }

    @property
    def text(self) -> str:
        """The address as a configuration writes it."""
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def count(self, name: str = "", kind: str = "") -> int:
        """How many queries there were, for a name, of a type."""
        return sum((not name or asked == name) and (not kind or of == kind) for asked, of in list(self.asked))

    def __enter__(self) -> NameServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Serve: after `stop`, on the same port."""
        self._ready.clear()
        self._thread = Thread(target=self._work, name="nameserver", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Close the port."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop = self._thread = None

    def _work(self) -> None:
        loop = self._loop = asyncio.new_event_loop()
        try:
            try:
                datagrams, streams = loop.run_until_complete(self._listen(loop))
            except BaseException as error:  # raised again in __enter__
                self._failure = error
                return
            finally:
                self._ready.set()
            loop.run_forever()
            datagrams.close()
            streams.close()
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.wait_for(_end(tasks), 5))
        finally:
            loop.close()

    async def _listen(self, loop: asyncio.AbstractEventLoop) -> tuple[asyncio.BaseTransport, asyncio.Server]:
        host, port = self.address
        for attempt in range(PORT_ATTEMPTS):
            datagrams, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=(host, port))
            found = datagrams.get_extra_info("sockname")[1]
            try:
                streams = await asyncio.start_server(self._stream, host, found)
            except OSError:
                datagrams.close()
                if attempt == PORT_ATTEMPTS - 1 or port:
                    raise
                continue
            self.address = (host, found)
            if self.no_tcp:
                streams.close()
            return datagrams, streams
        raise AssertionError("unreachable")

    def datagram(self, wire: bytes, source: tuple[Any, ...], transport: asyncio.DatagramTransport) -> None:
        """A query came over UDP."""
        self.ports.append(source[1])
        for reply, delay in self._replies(wire, over_tcp=False):
            if delay:
                asyncio.get_running_loop().call_later(delay, transport.sendto, reply, source)
            else:
                transport.sendto(reply, source)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                wire = await reader.readexactly(length)
                self.streams += 1
                for reply, delay in self._replies(wire, over_tcp=True):
                    await asyncio.sleep(delay)
                    writer.write(struct.pack("!H", len(reply)) + reply)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def _replies(self, wire: bytes, over_tcp: bool) -> Iterator[tuple[bytes, float]]:
        """The messages to send back, each with its delay."""
        try:
            query = dns.message.from_wire(wire)
            (question,) = query.question
        except (dns.exception.DNSException, ValueError):
            return
        name = _text(question.name)
        self.asked.append((name, dns.rdatatype.to_text(question.rdtype)))
        if self.drop is True or (self.drop and name in self.drop):
            return
        delay = self.delays.get(name, self.delay)
        if self.garbage:
            yield b"\xff" * 40, delay
            return
        response = self._response(query, question, name)
        if self.wrong_id_first:
            yield _forged(response, query.id ^ 1), delay
        if self.wrong_question_first:
            other = dns.message.make_response(dns.message.make_query("forged.example.", question.rdtype, id=query.id))
            yield _forged(other, query.id), delay
        yield self._bounded(response, query, over_tcp), delay

    def _response(self, query: dns.message.Message, question: dns.rrset.RRset, name: str) -> dns.message.Message:
        if self.no_edns and query.edns >= 0:
            query.use_edns(False)
            response = dns.message.make_response(query, recursion_available=True)
            response.set_rcode(dns.rcode.from_text(self.no_edns))
            return response
        response = dns.message.make_response(query, recursion_available=True)
        if query.flags & dns.flags.AD and (self.secure is True or (self.secure and name in self.secure)):
            response.flags |= dns.flags.AD
        if name in self.rcodes:
            response.set_rcode(dns.rcode.from_text(self.rcodes[name]))
            return response
        try:
            kind = RecordType(dns.rdatatype.to_text(question.rdtype))
        except ValueError:
            return response  # a type assay never asks for, a health probe's NS among them: NODATA
        owner = question.name
        for _ in range(MAX_CNAMES):
            alias = self._alias(_text(owner), kind)
            if alias is None:
                break
            target = _name(alias)
            response.answer.append(self._rrset(owner, [dns.rdtypes.ANY.CNAME.CNAME(IN, dns.rdatatype.CNAME, target)]))
            owner = target
            if self.half_chains:
                return response
        answer = self.zone.answer(Question(_text(owner), kind))
        match answer.outcome:
            case Outcome.FOUND:
                rows = self._rows(_text(owner))
                records = [_rdata(kind, value) for of, value in rows if of == kind]
                response.answer.append(self._rrset(owner, records))
            case Outcome.NXDOMAIN | Outcome.NODATA:
                if answer.outcome is Outcome.NXDOMAIN:
                    response.set_rcode(dns.rcode.NXDOMAIN)
                if self.soa_minimum is not None:
                    response.authority.append(self._soa(self.soa_minimum))
            case Outcome.TEMPFAIL:
                response.answer.clear()
                response.set_rcode(dns.rcode.SERVFAIL)
        return response

    def _rows(self, name: str) -> tuple[tuple[str, Any], ...]:
        return self._owners.get(name, ())

    def _alias(self, name: str, kind: RecordType) -> str | None:
        rows = self._rows(name)
        if any(of == kind or (of == "SERVFAIL" and value == kind) for of, value in rows):
            return None
        return next((value for of, value in rows if of == "CNAME"), None)

    def _rrset(self, owner: dns.name.Name, records: list[dns.rdata.Rdata]) -> dns.rrset.RRset:
        return dns.rrset.from_rdata_list(owner, self.ttl, records)

    def _soa(self, minimum: int) -> dns.rrset.RRset:
        root = dns.name.root
        soa = dns.rdtypes.ANY.SOA.SOA(IN, dns.rdatatype.SOA, root, root, 1, 3600, 600, 86400, minimum)
        return dns.rrset.from_rdata_list(root, 86400, [soa])

    def _bounded(self, response: dns.message.Message, query: dns.message.Message, over_tcp: bool) -> bytes:
        wire = response.to_wire(max_size=65535)
        payload = max(CLASSIC_PAYLOAD, query.payload) if query.edns >= 0 else CLASSIC_PAYLOAD
        if over_tcp or (len(wire) <= payload and not self.truncate):
            return wire
        empty = dns.message.make_response(query, recursion_available=True)
        empty.flags |= dns.flags.TC
        return empty.to_wire()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # the subclass
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._server.datagram(data, addr, self._transport)


def closed_port() -> str:
    """A nameserver's address where nobody listens: every query is refused at once (ICMP)."""
    with NameServer({}) as server:
        return server.text


async def _end(tasks: Collection[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)  # let the transports close their sockets


def _forged(message: dns.message.Message, identifier: int) -> bytes:
    return struct.pack("!H", identifier) + message.to_wire()[2:]


def _name(text: str) -> dns.name.Name:
    """A name whose labels are the raw octets between the dots; ``surrogateescape`` stands for any octet."""
    text = text.removesuffix(".")
    labels = text.encode("utf-8", "surrogateescape").split(b".") if text else []
    return dns.name.Name([*labels, b""])


def _text(name: dns.name.Name) -> str:
    return b".".join(name.labels[:-1]).decode("utf-8", "surrogateescape").lower()


def _rdata(kind: RecordType, value: Any) -> dns.rdata.Rdata:
    match kind:
        case RecordType.A:
            return dns.rdtypes.IN.A.A(IN, dns.rdatatype.A, value)
        case RecordType.AAAA:
            return dns.rdtypes.IN.AAAA.AAAA(IN, dns.rdatatype.AAAA, value)
        case RecordType.MX:
            return dns.rdtypes.ANY.MX.MX(IN, dns.rdatatype.MX, int(value[0]), _name(value[1]))
        case RecordType.PTR:
            return dns.rdtypes.ANY.PTR.PTR(IN, dns.rdatatype.PTR, _name(value))
        case RecordType.TXT:
            return dns.rdtypes.ANY.TXT.TXT(
                IN, dns.rdatatype.TXT, _strings([value] if isinstance(value, str) else value)
            )


def _strings(strings: list[str]) -> list[bytes]:
    """Character-strings of at most 255 octets (RFC 1035, 3.3); longer ones are split, an empty list is one empty."""
    pieces = []
    for octets in (string.encode("utf-8", "surrogateescape") for string in strings):
        pieces += [octets[start : start + 255] for start in range(0, len(octets), 255)] or [b""]
    return pieces or [b""]
