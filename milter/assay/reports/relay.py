# SPDX-License-Identifier: GPL-3.0-or-later
"""The MTA that delivers our reports: one message to one recipient at a time, over a connection that is kept."""

from __future__ import annotations

import contextlib
import re
import smtplib
import ssl
from collections.abc import Callable, Iterable
from enum import StrEnum
from types import TracebackType

from msgspec import Struct
from msgspec.structs import replace

from assay.config.reports import Tls
from assay.model.printable import escaped

TIMEOUT_SECONDS = 60.0  # for each reply; RFC 5321, 4.5.3.2 allows minutes, but this is our own relay
#: For the reply to a whole message: a client that waits less causes duplicates (RFC 5321, 4.5.3.2.6).
LAST_REPLY_SECONDS = 600.0
MAX_REPLY = 300  # characters that are kept

#: RFC 3463, 3.3 and 3.4: longer than an administrative limit, too big for the system.
_TOO_LARGE = re.compile(rb"5\.(?:2\.3|3\.4)\b")
#: RFC 3463, 3.8: the policy of who answers, which is the relay if it says so before the message.
_DENIED = re.compile(rb"5\.7\.\d")
_ENHANCED = re.compile(rb"5\.\d{1,3}\.\d{1,3}\b")
_FULL_STOP = re.compile(rb"^\.", re.MULTILINE)


class RelayOutcome(StrEnum):
    """What the relay said."""

    TAKEN = "taken"
    DEFERRED = "deferred"  #: 4yz: again later
    REFUSED = "refused"  #: 5yz
    DENIED = "denied"  #: 5yz: it does not let us send to this address, which says nothing about the address
    TOO_LARGE = "too large"  #: 5yz because of the size of the message
    UNANSWERED = "unanswered"  #: it got the whole message and did not answer: it may have taken it


class RelayReply(Struct, frozen=True):
    """What the relay said, and its words."""

    outcome: RelayOutcome
    text: str


class RelayError(Exception):
    """The relay cannot be used at all now. The message says why."""


class Relay:
    """A connection, opened at the first message. Use it in a ``with`` statement."""

    def __init__(
        self, host: str, port: int, *, implicit_tls: bool, tls: Tls, user: str = "", password: str = "", name: str
    ) -> None:
        """
        :param implicit_tls: TLS from the beginning.
        :param tls: whether to use STARTTLS.
        :param name: of this host, for EHLO.
        """
        self._host, self._port, self._implicit, self._tls = host, port, implicit_tls, tls
        self._user, self._password, self._name = user, password, name
        self._connection: smtplib.SMTP | None = None
        self._is_kept = False  # the connection has had a message before

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                self._connection.quit()
            self._connection.close()
            self._connection = None

    @property
    def max_size(self) -> int | None:
        """The largest message that the relay takes, in octets; None if it does not say (RFC 1870)."""
        size = self._connected().esmtp_features.get("size", "")
        return int(size) if size.isdecimal() and int(size) else None

    def send(
        self, sender: str, recipient: str, message: Iterable[bytes], hand_over: Callable[[], None] = lambda: None
    ) -> RelayReply:
        """Send a message.

        :param sender: the reverse-path, empty for the null one.
        :param message: with CRLF line ends.
        :param hand_over: is called when the relay has the message but for its end. After that, it may take it. If this
            raises, the end is not sent, and nothing is taken.
        :raises RelayError: it cannot be used now; the message was not taken.
        """
        with contextlib.ExitStack() as unless_answered:
            unless_answered.callback(self._abort)
            try:
                reply = self._transaction(sender, recipient, b"".join(message), hand_over)
            except (OSError, smtplib.SMTPException) as error:
                raise RelayError(f"{self._host}: {_why(error)}") from error
            unless_answered.pop_all()
        return reply

    def _transaction(self, sender: str, recipient: str, message: bytes, hand_over: Callable[[], None]) -> RelayReply:
        connection, code, text = self._begun(sender, len(message))
        if _is_too_large(code, text):
            return _refusal(connection, code, text)
        if code // 100 != 2:  # it is our address or our host that it does not want
            raise smtplib.SMTPSenderRefused(code, text, sender)
        code, text = connection.rcpt(recipient)
        if code // 100 == 5 and (code == 530 or _DENIED.match(text)):  # RFC 4954, 6: 530
            return replace(_refusal(connection, code, text), outcome=RelayOutcome.DENIED)
        if code // 100 == 2:
            code, text = connection.docmd("DATA")
            if code // 100 == 3:
                connection.send(_FULL_STOP.sub(b"..", message))  # RFC 5321, 4.5.2
                hand_over()
                connection.send(b".\r\n")
                return self._last_reply(connection)
        return _refusal(connection, code, text)

    def _begun(self, sender: str, octets: int) -> tuple[smtplib.SMTP, int, bytes]:
        """The reply to MAIL, and the connection that it came over.

        A relay ends a connection after so many messages, or when nothing came for so long (RFC 5321, 3.8). Then
        another is opened, and only if that fails too is the relay to blame.
        """
        if self._is_kept:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                connection, code, text = self._mail(sender, octets)
                if code != 421:
                    return connection, code, text
            self._abort()
        return self._mail(sender, octets)

    def _mail(self, sender: str, octets: int) -> tuple[smtplib.SMTP, int, bytes]:
        connection = self._connected()
        self._is_kept = True
        code, text = connection.mail(sender, [f"SIZE={octets}"] if connection.has_extn("size") else [])  # RFC 1870
        return connection, code, text

    def _last_reply(self, connection: smtplib.SMTP) -> RelayReply:
        """The reply to a whole message.

        RFC 5321, 3.8 has a client that gets none try again. That makes duplicates where the server had taken it (6.1),
        and a report that comes twice is counted twice, so here it is another outcome.
        """
        try:
            if connection.sock is not None:
                connection.sock.settimeout(LAST_REPLY_SECONDS)
            code, text = connection.getreply()
            if connection.sock is not None:
                connection.sock.settimeout(TIMEOUT_SECONDS)
        except (OSError, smtplib.SMTPException) as error:
            self._abort()
            return RelayReply(RelayOutcome.UNANSWERED, _why(error))
        if code // 100 == 2:
            return RelayReply(RelayOutcome.TAKEN, _words(code, text))
        if code // 100 in (4, 5):
            return _refusal(connection, code, text)
        self._abort()
        return RelayReply(RelayOutcome.UNANSWERED, _words(code, text))

    def _abort(self) -> None:
        """End the connection without a word, which could be taken for a line of a message."""
        self._is_kept = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> smtplib.SMTP:
        if self._connection is None or self._connection.sock is None:
            try:
                self._connection = self._connect()
            except (OSError, smtplib.SMTPException) as error:
                raise RelayError(f"{self._host}, port {self._port}: {_why(error)}") from error
        return self._connection

    def _connect(self) -> smtplib.SMTP:
        context = ssl.create_default_context()
        with contextlib.ExitStack() as unless_ready:
            if self._implicit:
                connection: smtplib.SMTP = smtplib.SMTP_SSL(
                    self._host, self._port, self._name, timeout=TIMEOUT_SECONDS, context=context
                )
            else:
                connection = smtplib.SMTP(self._host, self._port, self._name, timeout=TIMEOUT_SECONDS)
            unless_ready.callback(connection.close)
            connection.ehlo_or_helo_if_needed()
            if not self._implicit and self._tls is not Tls.NEVER:
                if connection.has_extn("starttls"):
                    if self._tls is Tls.OFFERED:  # RFC 7435: better than nothing, as MTAs do
                        context.check_hostname = False
                        context.verify_mode = ssl.CERT_NONE
                    connection.starttls(context=context)
                    connection.ehlo()
                elif self._tls is Tls.REQUIRED:
                    raise smtplib.SMTPException("the relay does not offer STARTTLS, and reports.relay_tls requires it")
            if self._user:
                if not (self._user + self._password).isascii():  # the library encodes nothing else
                    raise smtplib.SMTPException("the login name or the password is not ASCII")
                connection.login(self._user, self._password)
            unless_ready.pop_all()
        return connection


def _refusal(connection: smtplib.SMTP, code: int, text: bytes) -> RelayReply:
    """What a reply means that is not the one that was hoped for."""
    if code == 421 or code // 100 not in (4, 5):  # RFC 5321, 3.8: after 421 it closes the connection
        raise smtplib.SMTPResponseException(code, text)
    with contextlib.suppress(OSError, smtplib.SMTPException):  # a relay that hangs up after its answer has answered
        connection.docmd("RSET")
    if _is_too_large(code, text):
        outcome = RelayOutcome.TOO_LARGE
    else:
        outcome = RelayOutcome.REFUSED if code // 100 == 5 else RelayOutcome.DEFERRED
    return RelayReply(outcome, _words(code, text))


def _is_too_large(code: int, text: bytes) -> bool:
    """Whether the size of the message is the reason. 552 also says that a mailbox is full, with 5.2.2."""
    return code // 100 == 5 and (_TOO_LARGE.match(text) is not None or (code == 552 and _ENHANCED.match(text) is None))


def _octets(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _words(code: int, text: bytes) -> str:
    return escaped(f"{code} {' '.join(text.decode('utf-8', 'replace').split())}")[:MAX_REPLY]


def _why(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        return _words(error.smtp_code, _octets(error.smtp_error))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return escaped(" ".join(str(error).split()))[:MAX_REPLY] or type(error).__name__
