# SPDX-License-Identifier: GPL-3.0-or-later
"""The MTA's side of the milter protocol, version 6: enough of an MTA to send one message after another to a milter.

It behaves as Postfix: it offers every step and action, sends macros before each event, splits the body into chunks,
reads a reply unless "no reply" was agreed, and applies the edits by Postfix's index rules (an insertion at 0 goes above
the MTA's own Received; changes count the fields of one name from 1 and never the MTA's own Received). It handles bytes
only, so that a message is not changed on the way.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from assay.model.message import Header, HeaderField
from assay.model.smtp import Address

CHUNK_OCTETS = 65535  # MILTER_CHUNK_SIZE; both MTAs send the body in pieces of this size
MAX_PACKET_OCTETS = 16 * 1024 * 1024  # our choice: no packet of a milter is longer

_VERSION = 6
_ALL_ACTIONS = 0x1FF
_ALL_STEPS = 0x1FFFFF
_LEADING_SPACE = 0x100000
#: The step bit for "no reply", by command.
_NO_REPLY = {
    b"C": 0x1000,
    b"H": 0x2000,
    b"M": 0x4000,
    b"R": 0x8000,
    b"T": 0x10000,
    b"L": 0x80,
    b"N": 0x40000,
    b"B": 0x80000,
}
#: The step bit for an event that the milter does not want, by command.
_UNWANTED = {b"C": 1, b"H": 2, b"M": 4, b"R": 8, b"B": 0x10, b"L": 0x20, b"N": 0x40, b"T": 0x200}
_FINAL = {
    b"c": "250 2.0.0 continue",
    b"a": "250 2.0.0 accepted",
    b"d": "250 2.0.0 discarded",
    b"r": "550 5.7.1 Command rejected",
    b"t": "451 4.7.1 Service unavailable - try again later",
    b"f": "421 4.7.0 connection failed",
}


class MilterError(Exception):
    """The milter violates the protocol, or closed the connection. The message gives the cause."""


class Occurrence(int):
    """Which field of a name a milter changes or removes, counted from 1."""


@dataclass(slots=True)
class FilterOutcome:
    """The milter's response to one command, or to the whole message.

    `reply` is the SMTP reply the client would get. `edits` are (index, name, value). For an insertion the index is the
    place among all fields; for a change it is an `Occurrence`; for a removal `value` is None as well. `quarantine` is
    the reason, empty for none. `recipients` are those that the milter added, `removed_recipients` those that it
    removed, `sender` is the new sender, or empty; all verbatim.
    """

    reply: str = _FINAL[b"c"]
    edits: list[tuple[int, bytes, bytes | None]] = field(default_factory=list)
    quarantine: str = ""
    recipients: list[str] = field(default_factory=list)
    removed_recipients: list[str] = field(default_factory=list)
    sender: str = ""
    skip: bool = False

    @property
    def code(self) -> int:
        """The reply's first three digits."""
        return int(self.reply[:3])

    @property
    def discarded(self) -> bool:
        """Whether the MTA deletes the message, although the client is told that it is accepted."""
        return self.reply == _FINAL[b"d"]


class Mta:
    """One connection to a milter. Call `close`, or use it in a ``with`` statement."""

    def __init__(self, connection: socket.socket, *, steps: int = _ALL_STEPS, actions: int = _ALL_ACTIONS) -> None:
        """Take over a connected socket and negotiate.

        :param steps: the protocol steps to offer; an old MTA offers fewer.
        :raises MilterError: no valid answer.
        """
        self._connection = connection
        self._stream = connection.makefile("rb")
        try:
            self._negotiate(actions, steps)
        except MilterError:
            self._stream.close()
            connection.close()
            raise

    def _negotiate(self, actions: int, steps: int) -> None:
        self._send(b"O", struct.pack("!III", _VERSION, actions, steps))
        command, data = self._read()
        if command != b"O" or len(data) < 12:
            raise MilterError("no answer to the negotiation")
        _, self.actions, self.steps = struct.unpack("!III", data[:12])
        self.macro_lists = _macro_lists(data[12:])

    def __enter__(self) -> Mta:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def leading_space(self) -> bool:
        """Whether header values include the space after the colon."""
        return bool(self.steps & _LEADING_SPACE)

    def connect(self, name: str, address: Address | None, port: int = 25, **macros: str) -> FilterOutcome:
        """A client connected; without an address if over a pipe or a unix socket."""
        if address is None:
            where = b"U"
        else:
            family = b"4" if isinstance(address, IPv4Address) else b"6"
            where = family + struct.pack("!H", port) + str(address).encode() + b"\0"
        return self.command(b"C", name.encode() + b"\0" + where, macros)

    def helo(self, name: str | bytes, **macros: str) -> FilterOutcome:
        """HELO or EHLO."""
        return self.command(b"H", _bytes(name) + b"\0", macros)

    def mail(self, path: str | bytes, *parameters: str, **macros: str) -> FilterOutcome:
        """MAIL FROM; `path` without angle brackets."""
        arguments = [b"<" + _bytes(path) + b">", *(parameter.encode() for parameter in parameters)]
        return self.command(b"M", b"".join(argument + b"\0" for argument in arguments), macros)

    def rcpt(self, path: str | bytes, **macros: str) -> FilterOutcome:
        """RCPT TO; `path` without angle brackets."""
        return self.command(b"R", b"<" + _bytes(path) + b">\0", macros)

    def message(self, header: Header, body: bytes, **macros: str) -> FilterOutcome:
        """Send a whole message and return the verdict on it, or the first refusal on the way."""
        outcome = self.command(b"T", b"", macros)
        for header_field in header:
            if outcome.code != 250:
                return outcome
            outcome = self.header(header_field)
        if outcome.code == 250:
            outcome = self.command(b"N", b"", {})
        for start in range(0, len(body), CHUNK_OCTETS):
            if outcome.code != 250 or outcome.skip:
                break
            outcome = self.command(b"B", body[start : start + CHUNK_OCTETS], {})
        if outcome.code != 250:
            return outcome
        return self.end_of_message(**macros)

    def header(self, header_field: HeaderField) -> FilterOutcome:
        """One header field, folded with line feeds, as MTAs send it."""
        value = header_field.value.replace(b"\r\n", b"\n")
        if not self.leading_space:
            value = value.removeprefix(b" ")
        return self.command(b"L", header_field.name + b"\0" + value + b"\0", {})

    def end_of_message(self, **macros: str) -> FilterOutcome:
        """The final dot: collect the edits up to the verdict."""
        self._macros(b"E", macros)
        self._send(b"E", b"")
        outcome = FilterOutcome()
        while True:
            command, data = self._read()
            match command:
                case b"i":
                    outcome.edits.append(_edit(data))
                case b"m":
                    index, name, value = _edit(data)
                    outcome.edits.append((Occurrence(index), name, value or None))
                case b"+":
                    outcome.recipients.append(_path(data))
                case b"-":
                    outcome.removed_recipients.append(_path(data))
                case b"e":
                    outcome.sender = _path(data)
                case b"q":
                    outcome.quarantine = data.rstrip(b"\0").decode("utf-8", "replace")
                case _:
                    outcome.reply = _reply(command, data)
                    return outcome

    def abort(self) -> None:
        """RSET, or the client disconnected in the middle of a message."""
        self._send(b"A", b"")

    def close(self) -> None:
        """QUIT."""
        with contextlib.suppress(MilterError):  # the milter closed first; nothing is lost
            self._send(b"Q", b"")
        self._stream.close()
        self._connection.close()

    def command(self, command: bytes, data: bytes, macros: dict[str, str]) -> FilterOutcome:
        """Send one event with its macros, unless the milter does not want it, and read the reply, if there is one."""
        if self.steps & _UNWANTED.get(command, 0):
            return FilterOutcome()
        self._macros(command, macros)
        self._send(command, data)
        if self.steps & _NO_REPLY.get(command, 0):
            return FilterOutcome()
        answer, text = self._read()
        if answer == b"s":
            return FilterOutcome(skip=True)
        return FilterOutcome(_reply(answer, text))

    def _macros(self, command: bytes, macros: dict[str, str]) -> None:
        """Macro names of more than one letter travel in braces (``smfi_getsymval``)."""
        if macros:
            parts = [
                part.encode() + b"\0"
                for name, value in macros.items()
                for part in (name if len(name) == 1 else f"{{{name}}}", value)
            ]
            self._send(b"D", command + b"".join(parts))

    def _send(self, command: bytes, data: bytes) -> None:
        try:
            self._connection.sendall(struct.pack("!I", len(data) + 1) + command + data)
        except OSError as error:
            raise MilterError(f"the milter closed the connection ({error.strerror or error})") from error

    def _read(self) -> tuple[bytes, bytes]:
        """The next packet, progress reports excepted."""
        while True:
            try:
                head = self._stream.read(5)
                if len(head) < 5:
                    raise MilterError("the milter closed the connection")
                (length,) = struct.unpack("!I", head[:4])
                if not 1 <= length <= MAX_PACKET_OCTETS:
                    raise MilterError(f"not a milter: it sent {head!r}")
                data = self._stream.read(length - 1)
            except TimeoutError as error:
                raise MilterError(f"no answer within {self._connection.gettimeout():g} s") from error
            except OSError as error:
                raise MilterError(f"no answer ({error.strerror or error})") from error
            if len(data) < length - 1:
                raise MilterError("the milter closed the connection in the middle of a packet")
            if head[4:] != b"p":
                return head[4:], data


def apply(edits: list[tuple[int, bytes, bytes | None]], header: Header, received: HeaderField) -> Header:
    """The header that the MTA would write: its own Received on top, then the message's, the edits applied in order.

    :param received: the MTA's own Received, which no index counts.
    """
    fields = [received, *header]
    for index, name, value in edits:
        new = [] if value is None else [HeaderField(name, value.replace(b"\n", b"\r\n"))]
        if isinstance(index, Occurrence):
            places = [at for at, each in enumerate(fields) if each is not received and each.key == name.lower()]
            place = places[index - 1] if 1 <= index <= len(places) else len(fields)
            fields[place : place + 1] = new
        else:
            fields[index:index] = new
    return Header(tuple(fields))


def _reply(command: bytes, data: bytes) -> str:
    if command == b"y":
        if not data[:3].isdigit():
            raise MilterError(f"reply without a code: {data[:40]!r}")
        return data.rstrip(b"\0").decode("utf-8", "replace").replace("%%", "%")
    if command not in _FINAL:
        raise MilterError(f"unexpected answer {command!r}")
    return _FINAL[command]


def _path(data: bytes) -> str:
    """The path of a change of the envelope. ESMTP parameters may follow it."""
    return data.partition(b"\0")[0].decode("utf-8", "replace")


def _edit(data: bytes) -> tuple[int, bytes, bytes]:
    """Index, name and value of an edit."""
    name, separator, value = data[4:].partition(b"\0")
    if not separator:
        raise MilterError(f"edit without a name or value: {data[:40]!r}")
    return struct.unpack("!I", data[:4])[0], name, value.partition(b"\0")[0]


def _macro_lists(data: bytes) -> dict[int, str]:
    """The macro names that the milter requests, by stage (``smfi_setsymlist``)."""
    lists = {}
    while len(data) > 4:
        (stage,) = struct.unpack("!I", data[:4])
        names, _, data = data[4:].partition(b"\0")
        lists[stage] = names.decode("ascii", "replace")
    return lists


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
