# SPDX-License-Identifier: GPL-3.0-or-later
"""A server of LMTP (RFC 2033) for one MTA on this host. aiosmtpd does the protocol.

Ours are the bounds, and the body of a message: the library keeps each line as an object of its own, of which a mail of
32 MiB that consists of line ends would have sixteen million.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP, Envelope, Session

from assay.model.name import ReversePath

MAX_CLIENTS = 10  # connections at a time, our choice: each may hold a mail. More get 421.
#: Seconds from one command to the end of the next, or of a mail; our choice: the MTA is on this host.
PATIENCE_SECONDS = 300.0
#: Until a mail is answered; an MTA waits as long (RFC 5321, 4.5.3.2.6).
ANSWER_SECONDS = 600.0
_READ_OCTETS = 1 << 20
_LOOK_SECONDS = 0.05  # between two looks whether the last connections have ended
_END = b"\r\n.\r\n"
#: A reply without an enhanced status code, and the class of the code.
_PLAIN = re.compile(r"([245])\d\d (?!\d\.\d)")

#: Takes a mail: its reverse-path, its recipient and its octets. Returns the reply.
Take = Callable[[ReversePath, str, bytes], Awaitable[str]]


class LmtpServer:
    """Answers on a socket until it is closed."""

    def __init__(self, host: str, max_octets: int, take: Take, refused: Callable[[str], None]) -> None:
        """
        :param host: the name of this host.
        :param max_octets: of a mail.
        :param refused: is called with the recipient of a mail that is larger; empty if there is none yet.
        """
        # What the library logs is about what clients send. What matters to an operator is logged by `take`.
        logging.getLogger("mail.log").addHandler(logging.NullHandler())
        logging.getLogger("mail.log").propagate = False
        self.host = host
        self.max_octets = max_octets
        self.take = take
        self.refused = refused
        self.clients: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def serve(self, listening: socket.socket) -> None:
        """Begin to answer."""
        listening.setblocking(False)
        self._server = await asyncio.get_running_loop().create_server(self._connection, sock=listening)

    async def close(self, seconds: float) -> None:
        """Take no more connections, and end those that there are.

        :param seconds: for mails that are being taken.
        """
        if self._server is not None:
            self._server.close()
        deadline = asyncio.get_running_loop().time() + seconds
        while self.clients:
            is_late = asyncio.get_running_loop().time() > deadline
            for client in tuple(self.clients):
                if is_late or not client.is_taking:
                    client.end(at_once=is_late)
            await asyncio.sleep(_LOOK_SECONDS)

    def _connection(self) -> asyncio.Protocol:
        return _Busy(self.host) if len(self.clients) >= MAX_CLIENTS else _Connection(self)


class _Busy(asyncio.Protocol):
    """A connection beyond the bound."""

    def __init__(self, host: str) -> None:
        self._host = host

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # the subclass
        """Say so."""
        transport.write(f"421 4.3.2 {self._host} has too many connections\r\n".encode())
        transport.close()


class _Handler:
    """The hooks of the library."""

    async def handle_RCPT(  # noqa: N802  # the library's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """A reply for each recipient would follow the mail (RFC 2033, 4.2). With one at a time, it is one reply."""
        if envelope.rcpt_tos:
            return "452 4.5.3 one recipient at a time"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_exception(self, error: Exception) -> str:
        """What a client sent makes the library fail, as it does for octets that are not text."""
        return "500 5.5.2 that is not understood"


class _Connection(LMTP):
    """One connection."""

    def __init__(self, server: LmtpServer) -> None:
        super().__init__(
            _Handler(),
            data_size_limit=server.max_octets,
            enable_SMTPUTF8=True,
            hostname=server.host,
            ident="assay",
            timeout=PATIENCE_SECONDS,
            loop=asyncio.get_running_loop(),
        )
        self._owner = server
        self.is_taking = False  #: a mail, which is being read or kept

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client."""
        self._owner.clients.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """It has left."""
        self._owner.clients.discard(self)
        super().connection_lost(error)

    def end(self, *, at_once: bool) -> None:
        """End the connection. What is not answered comes again.

        :param at_once: also if the client does not read what was sent to it.
        """
        if isinstance(self.transport, asyncio.WriteTransport):
            if at_once:
                self.transport.abort()
            else:
                self.transport.close()

    def _timeout_cb(self) -> None:
        """Nothing came in time. A client that does not read either would keep its place until it did."""
        self.end(at_once=True)

    async def push(self, status: Any) -> None:
        """Send a reply, with an enhanced status code (RFC 2033, 5)."""
        text = status.decode() if isinstance(status, bytes) else status
        if text.startswith("552 "):
            recipients = self.envelope.rcpt_tos if self.envelope else []
            self._owner.refused(recipients[0] if recipients else "")
        if match := None if text.startswith("220 ") else _PLAIN.match(text):
            text = f"{match[0]}{match[1]}.{'3.4' if text.startswith('552') else '0.0'} {text[match.end() :]}"
        await super().push(text)

    async def smtp_LHLO(self, arg: str) -> None:  # noqa: N802  # the library's name
        """The greeting, with the extensions that an LMTP server has to have (RFC 2033, 5)."""
        if not arg or self.session is None:
            await self.push("501 5.5.4 write: LHLO hostname")
            return
        self._set_rset_state()  # type: ignore[no-untyped-call]  # the library's
        self.session.extended_smtp = True
        self.session.host_name = arg
        extensions = (f"SIZE {self._owner.max_octets}", "8BITMIME", "SMTPUTF8", "PIPELINING", "ENHANCEDSTATUSCODES")
        lines = (self._owner.host, *extensions)
        await super().push("".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}")

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802  # the library's name
        """The mail, and what becomes of it."""
        if self.envelope is None or not self.envelope.rcpt_tos or arg:
            await self.push("501 5.5.4 DATA has no argument" if arg else "503 5.5.1 send RCPT first")
            return
        await self.push("354 end with a line that has only a full stop")
        self.is_taking = True
        try:
            mail = await self._mail()
            if mail is None:
                await self.push(f"552 5.3.4 a mail has at most {self._owner.max_octets} octets")
                return
            self._reset_timeout(ANSWER_SECONDS)
            sender = ReversePath.parse(self.envelope.mail_from or "")  # the library gives the null one its brackets
            await self.push(await self._owner.take(sender, self.envelope.rcpt_tos[0], mail))
            self._reset_timeout()
        except ConnectionError:
            raise
        except Exception as error:  # a bug, or no memory: the library's reply would make the MTA bounce the mail
            self.loop.call_exception_handler({"message": "a mail could not be taken", "exception": error})
            await self.push("421 4.3.0 the mail could not be taken; the log has the reason")
            raise asyncio.CancelledError from None  # the rest of the mail is no command
        finally:
            self.is_taking = False
            self._set_post_data_state()  # type: ignore[no-untyped-call]  # the library's

    async def _mail(self) -> bytes | None:
        """What comes up to the end of the mail, in its own form (RFC 5321, 4.5.2). None if that is too much."""
        found = bytearray(b"\r\n")
        is_too_large = False
        searched = 0
        while (end := found.find(_END, searched)) < 0:
            is_too_large |= len(found) > self._owner.max_octets + len(_END)
            if is_too_large:
                del found[: -len(_END)]
            searched = max(0, len(found) - len(_END))
            chunk = await self._reader.read(_READ_OCTETS)  # all that is there: the buffer is empty now
            if not chunk:
                raise asyncio.CancelledError  # the client has left, as the library says at its next look
            found += chunk
        if further := bytes(found[end + len(_END) :]):
            self._reader.feed_data(further)
        if is_too_large or end > self._owner.max_octets:
            return None
        del found[end + 2 :]
        found = found.replace(b"\r\n..", b"\r\n.")
        return bytes(memoryview(found)[2:])
