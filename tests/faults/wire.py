# SPDX-License-Identifier: GPL-3.0-or-later
"""Anything but the protocol at the milter socket."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress

from assay.config.endpoint import Endpoint
from faults.run import Run
from mta.laws import OTHER

SEED = 20260701
_PATIENCE_SECONDS = 0.05  # for what assay answers
_AT_A_TIME = 20


def packet(command: bytes, octets: bytes = b"") -> bytes:
    """One packet of the protocol."""
    return struct.pack("!I", len(octets) + 1) + command + octets


MACROS = packet(b"D", b"Cj\0mx.example.org\0{client_addr}\0" + OTHER.encode() + b"\0")
#: What an MTA sends for one message, packet by packet.
SESSION = [
    packet(b"O", struct.pack("!III", 6, 0x1FF, 0x1FFFFF)),
    MACROS,
    packet(b"C", b"unknown\0004" + struct.pack("!H", 25) + OTHER.encode() + b"\0"),
    packet(b"H", b"h.example\0"),
    packet(b"M", b"<a@d1.example>\0"),
    packet(b"R", b"<nonsense@example.org>\0"),
    packet(b"T"),
    packet(b"L", b"From\0 a@d1.example\0"),
    packet(b"N"),
    packet(b"B", b"hello\r\n"),
    packet(b"E"),
    packet(b"Q"),
]
#: What is no session at all.
RUBBISH = [
    b"\0",
    b"\xff" * 64,
    b"GET / HTTP/1.0\r\n\r\n",
    b"\0\0\0\0",
    b"\0\0\0\1O",
    b"\0\0\0\x0dO" + b"\xff" * 12,
    b"\0\0\0\1E",
    b"\x7f\xff\xff\xffO",
    *(packet(bytes([command]), b"\0") for command in range(256)),
]


def broken(choice: random.Random) -> bytes:
    """A session with packets that are missing, doubled, out of order, cut or changed, but not its macros."""
    packets = list(SESSION)
    for _ in range(choice.randrange(1, 4)):
        at = choice.choice([number for number, octets in enumerate(packets) if octets != MACROS])
        match choice.randrange(5):
            case 0:
                packets[at] = b""
            case 1:
                packets[at] *= 2
            case 2:
                choice.shuffle(packets)
            case 3:
                packets[at] = packets[at][: choice.randrange(len(packets[at]) + 1)]
            case _:
                octets = bytearray(packets[at] or b"\0")
                octets[choice.randrange(len(octets))] = choice.randrange(256)
                packets[at] = bytes(octets)
    return b"".join(packets)


def nonsense(run: Run) -> None:
    """No process of the daemon may die of it."""
    before = run.daemon.workers()
    choice = random.Random(SEED)  # noqa: S311 - the same nonsense each time
    for sessions in _together((*RUBBISH, *(broken(choice) for _ in range(run.times(100, 2000))))):
        _speak(run, sessions)
    for count in range(len(SESSION)):  # an MTA that leaves
        _speak(run, [b"".join(SESSION[:count])])
        _speak(run, [b"".join(SESSION[:count])], wait=False)
    run.pause(0.5)
    assert run.daemon.workers() == before, run.daemon.log()


def odd_macros(run: Run) -> None:
    """Names of macros without a value. libmilter looks for it beyond the end of its list, and may crash."""
    run.pause(0.3)
    session = list(SESSION)
    session[session.index(MACROS)] = packet(b"D", b"Cj\0mx.example.org\0{x}\0")
    for _ in range(run.times(50, 1000)):
        _speak(run, [b"".join(session)])
    run.pause(0.5)


def _together(sessions: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Some at a time, since assay waits for more after most of them."""
    return (sessions[at : at + _AT_A_TIME] for at in range(0, len(sessions), _AT_A_TIME))


def _speak(run: Run, sessions: Sequence[bytes], *, wait: bool = True) -> None:
    """Say each on a connection of its own, and wait for what assay answers to all of them."""
    with ExitStack() as stack:
        connections = [stack.enter_context(Endpoint.parse(run.daemon.socket).connect(10)) for _ in sessions]
        for connection, octets in zip(connections, sessions, strict=True):
            with suppress(OSError):  # it hangs up
                connection.sendall(octets)
        ends = time.monotonic() + _PATIENCE_SECONDS
        for connection in connections if wait else ():
            with suppress(OSError):  # it hangs up, or waits for more
                while (left := ends - time.monotonic()) > 0:
                    connection.settimeout(left)
                    if not connection.recv(4096):
                        break
