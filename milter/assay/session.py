# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 4: one SMTP connection as a milter sees it. Events in, a verdict for each message out.

The session owns what belongs to the connection (the client, IPREV, SPF of HELO) and one transaction at a time. It
knows no milter library, no thread and no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from assay.inquiry import Driver
from assay.model.message import HeaderField
from assay.model.name import ReversePath
from assay.model.network import Networks
from assay.model.smtp import Address, Client, Envelope
from assay.protocol import iprev, spf
from assay.transaction import ClientEvaluations, Settings, Transaction, Verdict


@dataclass(frozen=True, slots=True)
class Clients:
    """Whose mail is not judged."""

    internal: Networks = field(default_factory=Networks)
    judge_authenticated: bool = False


class Session:
    """One connection. Call the methods in SMTP's order; each fact may be missing."""

    def __init__(self, settings: Settings, clients: Clients, new_driver: Callable[[], Driver]) -> None:
        """:param new_driver: makes a driver with a fresh time budget; called at each stage that asks something."""
        self._settings = settings
        self._clients = clients
        self._new_driver = new_driver
        self._client = Client()
        self._internal = ""
        self._authserv_id = settings.authserv_id or settings.fallback_authserv_id
        self._evaluations = ClientEvaluations()
        self._transaction: Transaction | None = None

    def connect(self, address: Address | None, name: str, mta_name: str = "") -> None:
        """A client connected. Starts IPREV.

        :param address: None where there is no network client, such as mail from the MTA's own command line.
        :param name: what the MTA resolved for it, empty for unknown.
        :param mta_name: the MTA's own name (macro ``j``), which is the authserv-id unless one is configured.
        """
        self._client = Client(address, name)
        self._authserv_id = self._settings.authserv_id or mta_name or self._settings.fallback_authserv_id
        if address is None:
            self._internal = "no network client"
            return
        network = self._clients.internal.find(address)
        if network is not None:
            self._internal = f"internal network {network}"
        elif self._settings.iprev:
            self._evaluations.iprev = self._new_driver().start(iprev.evaluate(address))

    def helo(self, name: str) -> None:
        """HELO or EHLO was given, perhaps for the second time after STARTTLS. Starts SPF of the HELO identity."""
        self._client = self._client.greeted(name)
        if self._evaluations.spf_helo is not None:
            self._evaluations.spf_helo.cancel()
            self._evaluations.spf_helo = None
        if self._client.address is not None and not self._internal:
            inquiry = spf.check_helo(
                self._client.address, name, limits=self._settings.spf_limits, receiver=self._authserv_id
            )
            self._evaluations.spf_helo = self._new_driver().start(inquiry)

    def mail(self, path: str, *, authenticated: str = "", smtputf8: bool = False, now: int) -> None:
        """MAIL was given: a new envelope. Whether it is judged is decided here, anew for each message.

        :param path: the reverse-path, with or without angle brackets.
        :param authenticated: the SASL login name (RFC 4954), empty for none; AUTH may come between two messages.
        :param now: Unix time in seconds.
        """
        self.abort()
        exempt = self._internal
        if not exempt and authenticated and not self._clients.judge_authenticated:
            exempt = "authenticated"
        self._transaction = Transaction(
            self._settings,
            self._new_driver,
            self._client,
            Envelope(ReversePath.parse(path), authenticated=authenticated, smtputf8=smtputf8),
            authserv_id=self._authserv_id,
            exempt=exempt,
            # RFC 8601, 5: results in our name that come directly from a trusted MTA, such as a content filter that
            # hands the message back, stay.
            strip=not self._internal,
            now=now,
        )

    def rcpt(self, path: str) -> None:
        """A recipient was given."""
        if self._transaction is not None:
            self._transaction.recipient(path)

    def header(self, one: HeaderField) -> None:
        """A header field arrived."""
        if self._transaction is not None:
            self._transaction.header(one)

    def end_of_header(self) -> None:
        """The header is complete."""
        if self._transaction is not None:
            self._transaction.end_of_header()

    def body(self, chunk: bytes) -> None:
        """A piece of the body arrived, with CRLF line ends, cut anywhere."""
        if self._transaction is not None:
            self._transaction.body(chunk)

    def end_of_message(self, *, queue_id: str, now: int) -> Verdict | None:
        """The message is complete: its verdict, or None where there was no MAIL."""
        transaction = self._transaction
        if transaction is None:
            return None
        try:
            return transaction.end_of_message(self._evaluations, queue_id=queue_id, now=now)
        finally:
            self.abort()

    def abort(self) -> None:
        """The transaction is over, with a message or without (RSET, a second MAIL). The client stays."""
        if self._transaction is not None:
            self._transaction.cancel()
            self._transaction = None

    def close(self) -> None:
        """The connection is over."""
        self.abort()
        for pending in (self._evaluations.iprev, self._evaluations.spf_helo):
            if pending is not None:
                pending.cancel()
