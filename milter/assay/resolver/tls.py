# SPDX-License-Identifier: GPL-3.0-or-later
"""A TLS connection to a nameserver, in the loop: made, verified, read and written without blocking.

The certificate and its name are always verified, by the ssl module: there is no setting to leave that out. A connection
that follows another one resumes its session, which saves most of the handshake (RFC 8446, 2.2).

Everything runs in the loop's thread.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Protocol

from assay.packages import installing
from assay.resolver.nameservers import Nameserver, NameserverError
from assay.resolver.transport import Cause, ExchangeFault, MakeRoom, fault, no_room, open_socket, words

#: Octets received at a time: one TLS record.
_CHUNK = 16_384
#: Records read before other work has its turn.
_TURN = 4

#: By scheme, how connections are made.
Contexts = Mapping[str, ssl.SSLContext]


class CertificatesError(ValueError):
    """The certificates of the trusted authorities cannot be read. The message names the file and the cause."""


def contexts(nameservers: Sequence[Nameserver], ca_file: str) -> Contexts:
    """What the connections to these nameservers need. Call it once: it reads the certificates.

    :param ca_file: of the trusted authorities, PEM; empty for those of the system.
    :raises CertificatesError: it cannot be read, or the system has none.
    :raises NameserverError: HTTPS is wanted, and the library for HTTP/2 is not installed.
    """
    made: dict[str, ssl.SSLContext] = {}
    for server in nameservers:
        if not server.scheme or server.scheme in made:
            continue
        if server.scheme == "https" and (command := installing(h2="h2")):
            raise NameserverError(f"'{server}' needs Python packages; run: {command}")
        made[server.scheme] = _context(ca_file)
        if server.scheme == "https":
            made[server.scheme].set_alpn_protocols(["h2"])  # RFC 9113, 3.2
    return made


def _context(ca_file: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except ssl.SSLError as error:
        raise CertificatesError(f"{ca_file}: no certificates in PEM ({error.reason})") from error
    except OSError as error:
        raise CertificatesError(f"{ca_file}: cannot be read: {error.strerror}") from error
    if not ca_file and not context.cert_store_stats()["x509_ca"] and not _has_system_directory():
        raise CertificatesError("the system has no certificates; install ca-certificates, or name a file")
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 9325, 3.1.1
    return context


def _has_system_directory() -> bool:
    """Whether there is a directory from which OpenSSL reads certificates one by one."""
    path = ssl.get_default_verify_paths().capath
    return path is not None and any(os.scandir(path))


class User(Protocol):
    """What uses a channel."""

    def received(self, octets: bytes) -> None:
        """Take what the nameserver sent."""

    def lost(self, why: ExchangeFault, *, was_open: bool) -> None:
        """The connection has ended, or could not be made; called once, unless the channel was closed."""


class Channel:
    """A connection. What is written before the handshake is sent after it."""

    __slots__ = ("_context", "_flush", "_loop", "_outgoing", "_session", "_socket", "_user", "is_open", "server")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: ssl.SSLContext,
        server: Nameserver,
        session: ssl.SSLSession | None,
        user: User,
        make_room: MakeRoom = no_room,
    ) -> None:
        """:param session: of an earlier connection to the same server."""
        self.server = server
        self.is_open = False
        self._loop = loop
        self._context = context
        self._session = session
        self._user = user
        self._outgoing = bytearray()
        self._flush: asyncio.Handle | None = None
        self._socket: socket.socket | ssl.SSLSocket | None = None
        try:
            self._socket = open_socket(server, socket.SOCK_STREAM, make_room)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            failed = self._socket.connect_ex((server.address, server.port))
        except OSError as error:
            failed = error.errno or errno.EIO
        if failed in (0, errno.EINPROGRESS) and self._socket is not None:
            loop.add_writer(self._socket.fileno(), self._connected)
        else:
            self._flush = loop.call_soon(self._fail, fault(OSError(failed, os.strerror(failed))))

    @property
    def session(self) -> ssl.SSLSession | None:
        """What a later connection can resume; good once something was received (RFC 8446, 4.6.1)."""
        return self._socket.session if isinstance(self._socket, ssl.SSLSocket) else None

    def write(self, octets: bytes) -> None:
        """Send, together with all that is written in the same turn of the loop."""
        self._outgoing += octets
        if self.is_open and self._flush is None:
            self._flush = self._loop.call_soon(self._send)

    def close(self) -> None:
        """End the connection; the user hears nothing more."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if self._socket is not None:
            descriptor = self._socket.fileno()
            self._loop.remove_writer(descriptor)
            self._loop.remove_reader(descriptor)
            self._socket.close()
            self._socket = None

    def _fail(self, why: ExchangeFault) -> None:
        self.close()
        self._user.lost(why, was_open=self.is_open)

    def _connected(self) -> None:
        plain = self._socket
        if plain is None:  # cannot be: the writer is removed together with the socket
            return
        self._loop.remove_writer(plain.fileno())
        failed = plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            self._fail(fault(OSError(failed, os.strerror(failed))))
            return
        try:
            self._socket = self._context.wrap_socket(
                plain,
                do_handshake_on_connect=False,
                server_hostname=self.server.identity,
                session=self._session,
            )
        except OSError as error:  # it was reset a moment ago
            plain.close()
            self._socket = None  # its descriptor has been taken, and cannot be removed from the loop
            self._fail(fault(error))
            return
        self._shake()

    def _shake(self) -> None:
        """Go on with the handshake."""
        secure = self._socket
        if not isinstance(secure, ssl.SSLSocket):  # cannot be: it is called for one only
            return
        descriptor = secure.fileno()
        self._loop.remove_writer(descriptor)
        try:
            secure.do_handshake()
        except ssl.SSLWantReadError:
            self._loop.add_reader(descriptor, self._shake)
            return
        except ssl.SSLWantWriteError:
            self._loop.remove_reader(descriptor)
            self._loop.add_writer(descriptor, self._shake)
            return
        except OSError as error:
            self._fail(handshake_fault(error))
            return
        if self.server.scheme == "https" and secure.selected_alpn_protocol() != "h2":
            self._fail(ExchangeFault(Cause.UNREACHABLE, "does not speak HTTP/2"))
            return
        self.is_open = True
        self._loop.add_reader(descriptor, self._readable)
        self._send()

    def _send(self) -> None:
        self._flush = None
        if self._socket is None or not self._outgoing:
            return
        descriptor = self._socket.fileno()
        try:
            sent = self._socket.send(self._outgoing)
        except ssl.SSLWantWriteError:
            self._loop.add_writer(descriptor, self._send)
            return
        except ssl.SSLWantReadError:
            return  # `_readable` goes on
        except OSError as error:
            self._fail(_loss(error))
            return
        del self._outgoing[:sent]
        self._loop.remove_writer(descriptor)

    def _readable(self) -> None:
        for _ in range(_TURN):
            if self._socket is None:  # the user has closed it
                return
            try:
                octets = self._socket.recv(_CHUNK)
            except ssl.SSLWantReadError:
                self._send()
                return
            except ssl.SSLWantWriteError:
                self._loop.add_writer(self._socket.fileno(), self._send)
                return
            except OSError as error:
                self._fail(_loss(error))
                return
            if not octets:
                self._fail(ExchangeFault(Cause.OTHER, "closed the connection without an answer"))
                return
            self._user.received(octets)
        self._loop.call_soon(self._readable)  # a record may already be decrypted, which no selector sees


def handshake_fault(error: OSError) -> ExchangeFault:
    """Why the handshake failed. Such a server cannot be asked, as if nothing listened there."""
    if isinstance(error, ssl.SSLCertVerificationError):
        message = error.verify_message.rstrip(".")
        reason = f"has no valid certificate ({message[:1].lower()}{message[1:]})"
    elif isinstance(error, ssl.SSLEOFError | ConnectionError):
        reason = "closed the connection during the TLS handshake"
    elif isinstance(error, ssl.SSLError):
        reason = f"does not speak TLS as required ({(error.reason or 'no reason').lower().replace('_', ' ')})"
    else:
        reason = f"could not be asked ({words(error)})"
    return ExchangeFault(Cause.UNREACHABLE, reason)


def _loss(error: OSError) -> ExchangeFault:
    if isinstance(error, ssl.SSLError):
        return ExchangeFault(Cause.OTHER, f"broke the connection ({(error.reason or 'no reason').lower()})")
    return ExchangeFault(Cause.OTHER, f"broke the connection ({words(error)})")
