# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages, signed, and the bytes of a whole SMTP session as an MTA sends them to a milter.

The bytes are created once, before the measurement, so that sending them costs little. They depend on what was
negotiated, so each milter gets its own.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass, replace
from email.utils import formatdate

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from zone import SELECTOR, Domain, Stranger

_LARGE = 1024 * 1024
CHUNK = 65535  # MILTER_CHUNK_SIZE
MTA = "mta.bench.example"  # the macro j
#: Protocol steps (SMFIP_*): no reply to, and not wanted, by command.
NO_REPLY = {
    b"C": 1 << 12,
    b"H": 1 << 13,
    b"M": 1 << 14,
    b"R": 1 << 15,
    b"T": 1 << 16,
    b"L": 1 << 7,
    b"N": 1 << 18,
    b"B": 1 << 19,
}
UNWANTED = {b"C": 1, b"H": 2, b"M": 4, b"R": 8, b"B": 16, b"L": 32, b"N": 64, b"T": 512}
_STAGES = {b"C": 0, b"H": 1, b"M": 2, b"R": 3, b"T": 4, b"E": 5, b"N": 6}  # smfi_setsymlist
_ORDER = (b"C", b"H", b"M", b"R", b"T", b"L", b"N", b"B", b"E")
LEADING_SPACE = 1 << 20
OFFER = struct.pack("!IcIII", 13, b"O", 6, 0x1FF, 0x1FFFFF)


@dataclass(frozen=True, slots=True)
class Message:
    """A message and its envelope. `fields` are name and value, the space after the colon included; `domain` is whose
    client sends it."""

    domain: Domain | Stranger
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    sender: str
    recipients: int = 1

    def with_fields(self, fields: list[tuple[bytes, bytes]]) -> Message:
        """The same message with further fields on top."""
        return replace(self, fields=(*fields, *self.fields))


@dataclass(frozen=True, slots=True)
class Send:
    """A piece to send; whether a reply must be read before the next; whether the SMTP client sends its next command."""

    data: bytes
    replies: bool
    turn: bool


class Signer:
    """One RSA-2048 key for all domains: which key it is makes no difference to a verifier."""

    def __init__(self) -> None:
        key = rsa.generate_private_key(65537, 2048)
        self._pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.public = base64.b64encode(public).decode()

    def sign(self, message: Message, times: int = 1) -> Message:
        """Add the given number of signatures, each over the same fields."""
        raw = b"".join(b"%s:%s\r\n" % field for field in message.fields) + b"\r\n" + message.body
        signed = []
        for _ in range(times):
            field = dkim.sign(
                raw,
                SELECTOR.encode(),
                message.domain.name.encode(),
                self._pem,
                canonicalize=(b"relaxed", b"relaxed"),
                include_headers=[b"from", b"to", b"subject", b"date", b"message-id", b"mime-version", b"content-type"],
            )
            name, _, value = field.removesuffix(b"\r\n").partition(b":")
            signed.append((name, value))
        return message.with_fields(signed)


def compose(domain: Domain, size: int, *, headers: int = 12, recipients: int = 1, sender: str = "") -> Message:
    """A message, not signed: a plain text, or, from a megabyte on, an attachment in base64, as large messages are.

    :param size: octets of the body.
    :param headers: how many header fields, 12 at least.
    """
    name = domain.name
    fields = [
        (
            "Received",
            f"from app.{name} (app.{name} [192.0.2.7])\r\n\tby {domain.host} (Postfix) with ESMTPS id 4Fxyz\r\n"
            "\tfor <user0@bench.example>; Mon, 1 Jan 2024 10:00:00 +0000 (UTC)",
        ),
        ("Received", f"by app.{name} (Postfix, from userid 1000)\r\n\tid 4Fabc; Mon, 1 Jan 2024 10:00:00 +0000 (UTC)"),
        ("From", f"Sales of {name} <sales@{name}>"),
        ("To", "A User <user0@bench.example>"),
        ("Subject", "Your order 2024-0815 has been shipped and will arrive within three working days"),
        ("Date", formatdate()),
        ("Message-ID", f"<20240101100000.4Fabc@app.{name}>"),
        ("MIME-Version", "1.0"),
        ("Content-Type", "application/octet-stream" if size >= _LARGE else "text/plain; charset=utf-8"),
        ("Content-Transfer-Encoding", "base64" if size >= _LARGE else "7bit"),
        ("List-Unsubscribe", f"<https://{name}/unsubscribe?id=0123456789abcdef>"),
        ("X-Mailer", "Mailer 1.0"),
    ]
    fields += [
        (f"X-Filler-{number}", "some words that fill a header field of usual length")
        for number in range(headers - len(fields))
    ]
    text = b"A line of a letter that is about as long as the lines in letters tend to be.\r\n"
    if size >= _LARGE:
        text = base64.encodebytes(bytes(number * 7 % 256 for number in range(57 * 64))).replace(b"\n", b"\r\n")
    body = (text * (size // len(text) + 1))[: max(0, size - 2)] + b"\r\n"
    pairs = tuple((key.encode(), b" " + value.encode()) for key, value in fields)
    return Message(domain, pairs, body, sender or f"bounce@{name}", recipients)


def session(
    message: Message, steps: int, macros: dict[int, set[str]], until: bytes = b"E"
) -> tuple[list[Send], list[Send]]:
    """What an MTA sends a milter that agreed to these steps: the connection's part, and the message's.

    `macros` are the lists the milter asked for, by stage; for other stages it gets what Postfix sends by default.
    There is a new piece for each command of the SMTP client. A reply is waited for unless the milter negotiated not to
    send it.
    `until` is the last command: a client that disconnects omits those after it.
    """
    connection, transaction = _Script(steps, macros, until), _Script(steps, macros, until)
    client = message.domain
    about = {
        "j": MTA,
        "{daemon_name}": "smtpd",
        "{client_addr}": client.address,
        "{client_name}": client.host,
        "{client_ptr}": client.host,
        "v": "Postfix 3.7",
    }
    address = b"4" + struct.pack("!H", 40000) + client.address.encode() + b"\0"
    connection.event(b"C", client.host.encode() + b"\0" + address, about)
    connection.pause()
    connection.event(b"H", client.host.encode() + b"\0", {})
    connection.pause()
    transaction.event(
        b"M",
        f"<{message.sender}>\0SIZE={len(message.body)}\0".encode(),
        {"i": "4FxyzABC", "{mail_addr}": message.sender, "{mail_mailer}": "smtp"},
    )
    transaction.pause()
    for number in range(message.recipients):
        recipient = f"user{number}@bench.example"
        transaction.event(b"R", f"<{recipient}>\0".encode(), {"i": "4FxyzABC", "{rcpt_addr}": recipient})
        transaction.pause()
    transaction.event(b"T", b"", {"i": "4FxyzABC"})
    transaction.pause()
    for name, value in message.fields:
        value = value.replace(b"\r\n", b"\n")
        if not steps & LEADING_SPACE:
            value = value.removeprefix(b" ")
        transaction.event(b"L", name + b"\0" + value + b"\0", {})
    transaction.event(b"N", b"", {})
    for start in range(0, len(message.body), CHUNK):
        transaction.event(b"B", message.body[start : start + CHUNK], {})
    transaction.event(b"E", b"", {"i": "4FxyzABC"})
    transaction.finish()
    return connection.sends, transaction.sends


class _Script:
    def __init__(self, steps: int, macros: dict[int, set[str]], until: bytes) -> None:
        self.sends: list[Send] = []
        self._until = _ORDER.index(until)
        self._steps = steps
        self._macros = macros
        self._data = bytearray()

    def event(self, command: bytes, data: bytes, macros: dict[str, str]) -> None:
        """One event with its macros; a piece ends where a reply has to be waited for."""
        if self._steps & UNWANTED.get(command, 0) or _ORDER.index(command) > self._until:
            return
        wanted = self._macros.get(_STAGES.get(command, -1))
        if wanted is not None:
            macros = {name: value for name, value in macros.items() if name in wanted}
        if macros:
            self._packet(b"D", command + b"".join(f"{name}\0{value}\0".encode() for name, value in macros.items()))
        self._packet(command, data)
        if not self._steps & NO_REPLY.get(command, 0):
            self._end(replies=True, turn=False)

    def pause(self) -> None:
        """The SMTP client sends its next command."""
        if self._data:
            self._end(replies=False, turn=True)
        elif self.sends:
            self.sends[-1] = replace(self.sends[-1], turn=True)

    def finish(self) -> None:
        """Nothing follows; the client disconnects at its next turn."""
        if self._data:
            self._end(replies=False, turn=True)

    def _end(self, *, replies: bool, turn: bool) -> None:
        self.sends.append(Send(bytes(self._data), replies, turn))
        self._data.clear()

    def _packet(self, command: bytes, data: bytes) -> None:
        self._data += struct.pack("!I", len(data) + 1) + command + data
