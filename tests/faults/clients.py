# SPDX-License-Identifier: GPL-3.0-or-later
"""SMTP clients that are slow, silent or gone, at each stage of a numbered message."""

from __future__ import annotations

import contextlib
import resource
import smtplib
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address

from assay.cli.mta import Mta
from assay.config.endpoint import Endpoint
from faults.account import Account, author, message, recipient
from faults.run import Run
from mta.laws import HONEST

HELD = 1000  # sessions
SETS = 10  # of clients in the long form, each with one at each stage and for each way
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: the connection is reset instead of closed


class Client:
    """Sends one numbered message, and stops where a test wants it."""

    def __init__(self, account: Account) -> None:
        """Connect and say EHLO.

        :raises OSError, smtplib.SMTPException, AssertionError: that failed.
        """
        self.number = next(account.numbers)
        self._account = account
        self._ending = ExitStack()
        self._smtp = self._ending.enter_context(account.mta.connect(helo="h.example", **account.origin(self.number)))
        header, _, body = message(self.number).partition(b"\r\n\r\n")
        #: What it sends at each stage, and whether the MTA replies to it.
        self.pieces: list[tuple[bytes, bool]] = [
            (b"EHLO h.example\r\n", True),
            (f"MAIL FROM:<{author(self.number)}>\r\n".encode(), True),
            (f"RCPT TO:<{recipient(self.number)}>\r\n".encode(), True),
            (b"DATA\r\n", True),
            (header + b"\r\n\r\n", False),
            (body, False),
            (b".\r\n", True),
        ]
        self._at = 0  # octets of the first piece that are sent
        self.code = 0  # of the last reply

    def advance(self, pieces: int) -> None:
        """Send so many pieces, the rest of the current one first.

        :raises OSError, smtplib.SMTPException: the MTA is gone.
        """
        for _ in range(pieces):
            octets, replied = self.pieces[0]
            self._smtp.sock.sendall(octets[self._at :])  # type: ignore[union-attr]  # it is connected
            self._next(replied)

    def send(self) -> None:
        """Send the current piece without waiting for the reply. Nothing may be sent after it."""
        self._smtp.sock.sendall(self.pieces[0][0])  # type: ignore[union-attr]  # it is connected

    def step(self) -> None:
        """Send one octet."""
        octets, replied = self.pieces[0]
        self._smtp.sock.sendall(octets[self._at : self._at + 1])  # type: ignore[union-attr]  # it is connected
        self._at += 1
        if self._at == len(octets):
            self._next(replied)

    def finish(self) -> None:
        """Send the rest, and note the reply."""
        with contextlib.suppress(OSError, smtplib.SMTPException):
            while self.pieces and self.code < 400:
                self.advance(1)
        self._account.replies[self.number] = self.code if not self.pieces or self.code >= 400 else 0
        with contextlib.suppress(OSError, smtplib.SMTPException):
            self._ending.close()

    def leave(self, *, reset: bool) -> None:
        """Leave at once, without a word."""
        self._account.left.add(self.number)
        self._account.replies[self.number] = 0
        if reset:
            self._smtp.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)  # type: ignore[union-attr]  # so
        self._smtp.close()
        self._ending.close()

    def _next(self, replied: bool) -> None:
        self._at = 0
        del self.pieces[0]
        if replied:
            self.code, _ = self._smtp.getreply()


def clients(run: Run, stages: int) -> Iterator[tuple[int, Client]]:
    """A client for each stage, which has come that far."""
    for stage in range(stages):
        with contextlib.suppress(OSError, smtplib.SMTPException, AssertionError):
            client = Client(run.account)
            client.advance(stage)
            yield stage, client


def slow(run: Run) -> None:
    """Clients send an octet a second, each from another stage on."""
    sending = [client for _ in range(run.times(1, 3)) for _, client in clients(run, 7)]
    ends = time.monotonic() + max(run.seconds, 2.0)
    while time.monotonic() < ends:
        for client in sending:
            if client.pieces and client.code < 400:
                with contextlib.suppress(OSError, smtplib.SMTPException):
                    client.step()
        time.sleep(1)
    for client in sending:
        client.finish()


def leaving(run: Run) -> None:
    """Clients leave at each stage, also in the middle of a line, and before the reply to the whole message."""
    for _ in range(run.times(1, SETS)):
        for reset in (False, True):
            for _, client in clients(run, 7):
                with contextlib.suppress(OSError, smtplib.SMTPException):
                    client.step()
                client.leave(reset=reset)
            for _, client in clients(run, 1):
                with contextlib.suppress(OSError, smtplib.SMTPException):
                    client.advance(6)
                    client.send()
                client.leave(reset=reset)
    run.pause(0.5)


def silent_client(run: Run) -> Client:
    """A client that says no more after its recipient."""
    client = Client(run.account)
    client.advance(3)
    return client


def held(run: Run) -> None:
    """Many sessions are open and say no more, at the milter itself."""
    with _descriptors(2 * HELD), ExitStack() as open_ones:
        for _ in range(HELD):
            mta = Mta(Endpoint.parse(run.daemon.socket).connect(10))
            open_ones.callback(mta.close)
            mta.connect("unknown", ip_address(HONEST), j="mx.example.org", client_addr=HONEST)
        run.pause()


def crowded(run: Run) -> None:
    """The same for as many connections as there are descriptors."""
    with ExitStack() as open_ones:
        for _ in range(150):
            open_ones.enter_context(Endpoint.parse(run.daemon.socket).connect(10))
        run.pause()


@contextlib.contextmanager
def _descriptors(count: int) -> Iterator[None]:
    """Let this process have so many for a while."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, count), hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
