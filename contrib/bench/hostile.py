# SPDX-License-Identifier: GPL-3.0-or-later
"""The DNS during an attack: a proxy in front of NSD that also answers for the attackers' zones.

Honest names are passed to NSD and the answers delayed, as by a resolver that has to query other servers. A name below
an attackers' zone is answered by the label before the zone's own name: ``x.silent.evil.example`` is of the
kind ``silent``, and never answered.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import socket
import string
import struct
import time
from collections.abc import Callable
from functools import cache, lru_cache

import nameserver

ZONES = ("evil.example", "evil.co.example")  #: beside honest names, in the top level and below a public suffix
_CNAME, _SOA, _MX, _TXT = 5, 6, 15, 16
_NOERROR, _SERVFAIL, _NXDOMAIN = 0, 2, 3
_TTL = 3600
_SLOW = 4.0  # seconds until a SERVFAIL, as resolvers need for servers that do not answer
_MESSAGE = 65_535  # octets; RFC 1035, 4.2.2
_QUESTION = b"\xc0\x0c"  # a pointer to the question's name
_LARGE_SPF = 62_000  # octets
INCLUDES = 10  #: in one SPF record, as many as it may have (RFC 7208, 4.6.4)


class Hostile:
    """The proxy, a separate process at `nameserver.DELAYED`, until `stop`."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: the delay of an honest answer."""
        self._process = multiprocessing.Process(target=_work, args=(seconds,), daemon=True)
        self._process.start()
        deadline = time.monotonic() + 60
        while not nameserver.answers(nameserver.DELAYED):
            if not self._process.is_alive() or time.monotonic() > deadline:
                raise SystemExit("bench: the attackers' name server does not answer")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.join()


def _work(seconds: float) -> None:
    asyncio.run(_serve(seconds))


async def _serve(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    upstream, _ = await loop.create_datagram_endpoint(_Upstream, remote_addr=(nameserver.AUTHORITY, 53))
    handler = _Handler(seconds, upstream)
    for transport in (upstream, (await loop.create_datagram_endpoint(lambda: handler, (nameserver.DELAYED, 53)))[0]):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    server = await asyncio.start_server(handler.stream, nameserver.DELAYED, 53, backlog=1000)
    await server.serve_forever()


class _Upstream(asyncio.DatagramProtocol):
    """The way to NSD. `waiting`: what to do with an answer, by its number."""

    def __init__(self) -> None:
        self.waiting: dict[bytes, Callable[[bytes], None]] = {}

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        take = self.waiting.pop(data[:2], None)
        if take is not None:
            take(data)


class _Handler(asyncio.DatagramProtocol):
    def __init__(self, seconds: float, upstream: asyncio.DatagramTransport) -> None:
        self._seconds = seconds
        self._upstream = upstream
        self._numbers = itertools.count()
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # the subclass
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        found = evil(data)
        if found is None:
            self._forward(data, addr)
            return
        kind, label, asked = found
        if kind == "silent":
            return
        if (kind, asked) in _LONG:
            answer = _message(data, _NOERROR, truncated=True)
        else:
            answer = _message(data, *records(kind, label, asked, _end_of_question(data)))
        if kind == "slow":
            self._loop.call_later(_SLOW, self._transport.sendto, answer, addr)
        else:
            self._transport.sendto(answer, addr)

    def _forward(self, query: bytes, addr: tuple[str, int]) -> None:
        number = (next(self._numbers) & 0xFFFF).to_bytes(2, "big")

        def take(answer: bytes) -> None:
            self._loop.call_later(self._seconds, self._transport.sendto, query[:2] + answer[2:], addr)

        self._upstream.get_protocol().waiting[number] = take
        self._upstream.sendto(number + query[2:])

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A question over TCP: only the long answers of the attackers."""
        try:
            query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            found = evil(query)
            if found is not None:
                answer = _message(query, *records(*found, _end_of_question(query)))
                writer.write(struct.pack("!H", len(answer)) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def evil(query: bytes) -> tuple[str, str, int] | None:
    """For a query below an attackers' zone: the kind, the label before it, and the query type."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("latin-1").lower())
        at += 1 + query[at]
    if "evil" not in labels:
        return None
    place = labels.index("evil")
    front = ["", "", *labels[:place]]
    return front[-1], front[-2], int.from_bytes(query[at + 1 : at + 3], "big")


def _message(query: bytes, rcode: int, answers: tuple[int, bytes] = (0, b""), *, truncated: bool = False) -> bytes:
    """An answer: number of records, and these."""
    count, sections = answers
    negative = not (count or truncated or rcode == _SERVFAIL)
    flags = 0x8180 | (0x0200 if truncated else 0) | rcode
    head = query[:2] + struct.pack("!HHHHH", flags, 1, count, int(negative), 0)
    return head + query[12 : _end_of_question(query)] + sections + (_NEGATIVE if negative else b"")


def _end_of_question(query: bytes) -> int:
    return query.index(b"\0", 12) + 5


def records(kind: str, label: str, asked: int, begin: int) -> tuple[int, tuple[int, bytes]]:
    """RCODE and records of a name of a kind. `begin`: the offset of the records in the message."""
    make = _LONG.get((kind, asked)) or _SHORT.get((kind, asked))
    if make is not None:
        return _NOERROR, make(label, begin)
    if kind == "slow":
        return _SERVFAIL, (0, b"")
    return (_NOERROR if any(kind == known for known, _ in (*_LONG, *_SHORT)) else _NXDOMAIN), (0, b"")


def _record(owner: bytes, kind: int, data: bytes) -> bytes:
    return owner + struct.pack("!HHIH", kind, 1, _TTL, len(data)) + data


#: The SOA of a negative answer (RFC 2308, 3).
_NEGATIVE = _record(_QUESTION, _SOA, b"\0\0" + struct.pack("!IIIII", 1, 3600, 600, 86400, 300))


def _text(text: str) -> tuple[int, bytes]:
    octets = text.encode()
    cut = (octets[at : at + 250] for at in range(0, len(octets), 250))
    return 1, _record(_QUESTION, _TXT, b"".join(bytes((len(piece),)) + piece for piece in cut))


def _aliases(_label: str, begin: int) -> tuple[int, bytes]:
    """Nine aliases, one more than are followed, and as many texts after them as fit."""
    return _aliases_at(begin)


@lru_cache(300)
def _aliases_at(begin: int) -> tuple[int, bytes]:
    found, owner = b"", _QUESTION
    for number in range(9):
        target = begin + len(found) + 12
        found += _record(owner, _CNAME, b"\2c%d" % number + _QUESTION)
        owner = (0xC000 | target).to_bytes(2, "big")
    count = 3_900
    return 9 + count, found + b"".join(_record(owner, _TXT, b"\3%03x" % number) for number in range(count))


@cache
def _all_dotted() -> tuple[int, bytes]:
    count = 2_900
    owned = (_record(_QUESTION, _MX, b"\0\x0a\5a.%03x" % number + _QUESTION) for number in range(count))
    return count, b"".join(owned)


def _dotted(_label: str, _begin: int) -> tuple[int, bytes]:
    """Names with a dot within a label."""
    return _all_dotted()


def _exchangers(label: str, _begin: int) -> tuple[int, bytes]:
    """SPF that looks up names with dots in their labels, ten times."""
    return _text("v=spf1 " + " ".join(f"mx:m{n}.{label}.dotted.{ZONES[0]}" for n in range(INCLUDES)) + " ?all")


def _includes(label: str, _begin: int) -> tuple[int, bytes]:
    """SPF whose includes are never answered."""
    return _text("v=spf1 " + " ".join(f"include:i{n}.{label}.silent.{ZONES[1]}" for n in range(INCLUDES)) + " ?all")


@cache
def _large(label: str, _begin: int) -> tuple[int, bytes]:
    """A large SPF record that includes ten others of its size, which are below ``i``."""
    includes = "" if label.startswith("i") else " ".join(f"include:i{n}.large.{ZONES[0]}" for n in range(INCLUDES))
    term = "ip4:203.0.113.1 " if label.startswith("i") else "ip4:192.0.2.1 "
    return _text(f"v=spf1 {term * (_LARGE_SPF // len(term))}{includes} ?all")


def _wide(label: str, _begin: int) -> tuple[int, bytes]:
    """A key with as many two-character names in h= as fit."""
    return _text(f"v=DKIM1; h={_WORDS}; p={label}")


_WORDS = ":".join(map("".join, itertools.product(string.ascii_lowercase + string.digits, repeat=2)))
_Make = Callable[[str, int], tuple[int, bytes]]
#: By kind and type: what goes over TCP, and what does not.
_LONG: dict[tuple[str, int], _Make] = {
    ("aliases", _TXT): _aliases,
    ("dotted", _MX): _dotted,
    ("large", _TXT): _large,
    ("wide", _TXT): _wide,
}
_SHORT: dict[tuple[str, int], _Make] = {("exchangers", _TXT): _exchangers, ("includes", _TXT): _includes}
