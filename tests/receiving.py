# SPDX-License-Identifier: GPL-3.0-or-later
"""An SMTP server on loopback that keeps what it takes and refuses what it is told to."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session


class Receiver:
    """The server, running while the context lasts.

    :ivar taken: reverse-path, recipient and octets of each message.
    :ivar replies: instead of 250: the reply to RCPT of an address.
    :ivar at_data: likewise the reply to the end of the message.
    :ivar encrypted: whether each message came over TLS.
    :ivar connections: how many said EHLO without TLS, or with it from the beginning.
    :ivar at_mail: likewise the reply to MAIL.
    :ivar silent: for whom it takes a message and closes the connection without an answer.
    :ivar max_octets: what it says with SIZE, when it starts.
    """

    def __init__(
        self,
        *,
        starttls: ssl.SSLContext | None = None,
        tls: ssl.SSLContext | None = None,
        login: tuple[str, str] | None = None,
    ) -> None:
        """
        :param starttls: with what it offers STARTTLS; `tls` likewise from the beginning.
        :param login: the user and the password without which it takes nothing.
        """
        self.encrypted: list[bool] = []
        self.connections = 0
        self._starttls, self._tls, self._login = starttls, tls, login
        self.taken: list[tuple[str, str, bytes]] = []
        self.replies: dict[str, str] = {}
        self.at_data: dict[str, str] = {}
        self.at_mail = ""
        self.silent: set[str] = set()
        self.max_octets = 10_000_000
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.port: int = unused.getsockname()[1]
        self._controller: Controller | None = None

    async def handle_EHLO(  # noqa: N802  # the library's name
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.connections += self._tls is not None or session.ssl is None
        return responses

    async def handle_MAIL(  # noqa: N802  # the library's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[Any]
    ) -> str:
        if self.at_mail:
            return self.at_mail
        envelope.mail_from = address
        return "250 2.1.0 Ok"

    async def handle_RCPT(  # noqa: N802  # the library's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[Any]
    ) -> str:
        if address in self.replies:
            return self.replies[address]
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # likewise
        (recipient,) = envelope.rcpt_tos
        if recipient in self.at_data:
            return self.at_data[recipient]
        assert isinstance(envelope.content, bytes)
        self.encrypted.append(self._tls is not None or session.ssl is not None)
        self.taken.append((envelope.mail_from or "", recipient, envelope.content))
        if recipient in self.silent:
            server.transport.abort()
        return "250 2.0.0 Ok: queued"

    def _is_login(self, mechanism: str, user: bytes, password: bytes) -> bool:
        return (user.decode(), password.decode()) == self._login

    @property
    def url(self) -> str:
        """For ``reports.relay``."""
        return f"smtp://127.0.0.1:{self.port}"

    def __enter__(self) -> Receiver:
        self._controller = Controller(
            self,
            hostname="127.0.0.1",
            port=self.port,
            data_size_limit=self.max_octets,
            tls_context=self._starttls,
            ssl_context=self._tls,
            auth_required=self._login is not None,
            auth_callback=self._is_login if self._login is not None else None,
        )
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._controller is not None:
            self._controller.stop()
            self._controller = None


class Killing(Receiver):
    """A relay that takes a message, and kills who sends it.

    :ivar kills: whether it does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kills = True
        self._child: ForkProcess | None = None

    def killed_in(self, send: Callable[[int], object], now: int) -> bool:
        """Call a function in a process of its own. Returns whether this was killed."""
        self._child = get_context("fork").Process(target=send, args=(now,))
        self._child.start()
        self._child.join(60)
        return self._child.exitcode == -signal.SIGKILL

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # likewise
        reply = await super().handle_DATA(server, session, envelope)
        if self.kills and self._child is not None and self._child.pid is not None:
            os.kill(self._child.pid, signal.SIGKILL)
        return reply
