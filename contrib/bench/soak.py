# SPDX-License-Identifier: GPL-3.0-or-later
"""Honest mail and attackers, side by side at one milter.

Honest mail arrives at a steady rate, however it is handled: a latency is counted from when the message was due. The
attackers are a separate process, limited by their line and their MTA: a total rate in octets a second, a number of
sessions at a time, and a delay for each of a client's turns.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import multiprocessing
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import mail
from attacks import Attempt
from load import Agreement
from mail import Message, Send

from zone import Stranger

LINE = 1_250_000  #: octets a second: 10 Mbit/s
RATE = 50  #: honest messages a second
SESSIONS_AN_ADDRESS = 50  #: sessions of an attacker at a time (Postfix: smtpd_client_connection_count_limit)
SESSIONS = 90  #: sessions of all attackers, and of all honest clients (Postfix: default_process_limit is 100)
TURN = 0.02  #: seconds that an attacker takes for each of its turns; the lookups of one that is too quick are abandoned
PATIENCE = 60.0  #: seconds after which an honest message counts as lost
_ABORT = b"\0\0\0\1A"
_QUIT = b"\0\0\0\1Q"
_FINAL = frozenset(b"carydtf")

_CHUNK = 16_384  # octets between which other sessions have the line

Pace = Callable[[int], Awaitable[None]]
Check = Callable[[int, bytes, bytes], str]


async def _at_once(_octets: int) -> None:
    """A line without a limit."""


async def converse(
    address: str, agreement: Agreement, pieces: Sequence[Send], turn: float = 0.0, pace: Pace = _at_once
) -> tuple[int, bytes, bytes]:
    """Open a session, send everything, and close the connection.

    :param turn: seconds that the client takes for each of its turns.
    :param pace: waits until a given number of octets may be sent.
    :returns: the last reply and its data, and all edits before it.
    :raises OSError, asyncio.IncompleteReadError: the milter closed the connection.
    """
    reader, writer = await _connect(address)
    try:
        writer.write(mail.OFFER)
        await reader.readexactly(len(agreement.reply))
        command, data, edits = 0, b"", b""
        for piece in pieces:
            for at in range(0, len(piece.data), _CHUNK):
                chunk = piece.data[at : at + _CHUNK]
                await pace(len(chunk))
                writer.write(chunk)
                await writer.drain()
            command = 0
            while piece.replies and command not in _FINAL:
                length = int.from_bytes(await reader.readexactly(4), "big")
                packet = await reader.readexactly(length)
                command, data = packet[0], packet[1:]
                edits += packet
            if piece.turn:
                await asyncio.sleep(turn)
        writer.write(_QUIT)
        return command, data, edits
    finally:
        writer.close()


async def _connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            return await asyncio.open_unix_connection(address)
        except BlockingIOError:  # the listen queue is full
            await asyncio.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Letter:
    """An honest message, or a forged one, and the fault in how it ended, which is empty for none."""

    pieces: Sequence[Send]
    fault: Check


def genuine(command: int, data: bytes, edits: bytes, expected: Sequence[bytes] = ()) -> str:
    """It must be accepted, with the correct results."""
    if command != ord("c") or b"temperror" in edits:
        return "temperror" if b"temperror" in edits else _refusal(command, data)
    return "" if all(text in edits for text in expected) else "wrong result"


def forged(command: int, data: bytes, _edits: bytes) -> str:
    """It must be refused permanently."""
    return "forged accepted" if command in b"ca" else _refusal(command, data, wanted=True)


def _refusal(command: int, data: bytes, *, wanted: bool = False) -> str:
    if command == ord("t") or data.startswith(b"4"):
        return "deferred"
    return "" if wanted else "refused"


@dataclass(frozen=True, slots=True)
class Post:
    """Genuine mail of senders that return soon and of others, and forged mail."""

    known: Sequence[Message]
    unknown: Sequence[Message]
    forged: Sequence[Message]

    def letters(self, agreement: Agreement, expected: Sequence[str]) -> Iterator[Letter]:
        """All of it without end: of ten messages, four are of known senders, five of unknown, and one is forged.

        :param expected: what must stand in the edits of a genuine one.
        """
        check = partial(genuine, expected=[text.encode() for text in expected])
        known, unknown = _endless(self.known, agreement, check), _endless(self.unknown, agreement, check)
        false = _endless(self.forged, agreement, forged)
        while True:
            for kind in (known, unknown, known, unknown, false, unknown, known, unknown, known, unknown):
                yield next(kind)


def _endless(messages: Sequence[Message], agreement: Agreement, fault: Check) -> Iterator[Letter]:
    for message in itertools.cycle(messages):
        connection, transaction = mail.session(message, agreement.steps, agreement.macros)
        yield Letter([*connection, *transaction], fault)


@dataclass(slots=True)
class Tally:
    """The results of the honest mail. `latencies` in seconds; `PATIENCE` for messages without an answer."""

    sent: int = 0
    latencies: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)


async def honest(address: str, agreement: Agreement, letters: Iterator[Letter], seconds: float) -> Tally:
    """Send letters for the given time, at `RATE`, and wait for their results."""
    tally, loop = Tally(), asyncio.get_running_loop()
    begin = loop.time()
    free = asyncio.Semaphore(SESSIONS)

    async def one(letter: Letter, due: float) -> None:
        try:
            async with asyncio.timeout_at(due + PATIENCE), free:
                fault = letter.fault(*await converse(address, agreement, letter.pieces))
        except TimeoutError:
            fault = "no answer"
        except (OSError, asyncio.IncompleteReadError):
            fault = "connection closed"
        tally.latencies.append(loop.time() - due)
        if fault:
            tally.faults[fault] += 1

    async with asyncio.TaskGroup() as group:
        for number in range(int(seconds * RATE)):
            due = begin + number / RATE
            await asyncio.sleep(due - loop.time())
            tally.sent += 1
            group.create_task(one(next(letters), due))
    return tally


class Attackers:
    """A process that attacks until `stop`, and counts its actions."""

    def __init__(self, address: str, agreement: Agreement, attempts: Iterator[Attempt], addresses: int) -> None:
        self._counts = {name: multiprocessing.Value(ctypes.c_long, 0) for name in ("sessions", "octets", "accepted")}
        self._process = multiprocessing.Process(
            target=_attack, args=(address, agreement, attempts, addresses, self._counts), daemon=True
        )
        self._process.start()

    def stop(self) -> dict[str, int]:
        """Stop it.

        :returns: the sessions it began and their octets, and how many forged messages were accepted.
        """
        self._process.terminate()
        self._process.join()
        return {name: int(value.value) for name, value in self._counts.items()}


Counts = dict[str, "ctypes.c_long"]


def _attack(address: str, agreement: Agreement, attempts: Iterator[Attempt], addresses: int, counts: Counts) -> None:
    asyncio.run(_Line(address, agreement, attempts, addresses, counts).run())


class _Line:
    """The attackers' line: one for all their addresses."""

    def __init__(
        self, address: str, agreement: Agreement, attempts: Iterator[Attempt], addresses: int, counts: Counts
    ) -> None:
        self._address = address
        self._agreement = agreement
        self._attempts = attempts
        self._sources = itertools.cycle([f"100.64.{n >> 8}.{n & 255}" for n in range(1, addresses + 1)])
        self._sessions = min(SESSIONS, SESSIONS_AN_ADDRESS * addresses)
        self._counts = counts
        self._free_at = 0.0  # when the line has sent all its octets

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._sessions):
                group.create_task(self._one_after_another())

    async def _one_after_another(self) -> None:
        for one in self._attempts:
            pieces = session(one, next(self._sources), self._agreement)
            pace = partial(self._pace, one.octets / sum(len(piece.data) for piece in pieces))
            self._counts["sessions"].value += 1
            try:
                command, _, _ = await converse(self._address, self._agreement, pieces, TURN, pace)
                self._counts["accepted"].value += one.forged and command in b"ca"
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(TURN)  # the milter closed the connection

    async def _pace(self, share: float, octets: int) -> None:
        """Wait for the line. `share`: what an octet of the milter's protocol is on it."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now) + share * octets / LINE
        self._counts["octets"].value += int(share * octets)
        await asyncio.sleep(self._free_at - now)


def session(one: Attempt, source: str, agreement: Agreement) -> Sequence[Send]:
    """The bytes of an attempt, from this address."""
    client = Stranger(source, one.helo)
    pieces: list[Send] = []
    for sender in one.senders:
        message = Message(client, one.fields, one.body, sender)
        connection, transaction = mail.session(message, agreement.steps, agreement.macros, one.until)
        pieces += transaction if pieces else [*connection, *transaction]
        if one.until != b"E":
            pieces.append(Send(_ABORT, False, False))
    return pieces
