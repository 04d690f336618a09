# SPDX-License-Identifier: GPL-3.0-or-later
"""DNS messages over HTTPS, each a POST of HTTP/2 (RFC 8484), by the library h2, which only this module imports.

POST: caches between us and the server keep nothing of it, and it is shorter than GET (RFC 8484, 4.1).
"""

from __future__ import annotations

from collections.abc import Iterable

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

from assay.resolver import message, wire
from assay.resolver.dot import TOO_LONG
from assay.resolver.framing import BrokenError
from assay.resolver.nameservers import PORTS, Nameserver
from assay.resolver.streams import MAX_ANSWER
from assay.resolver.transport import Cause, ExchangeFault

#: Queries on one connection at a time: what servers allow (RFC 9113, 6.5.2).
CAPACITY = 100
#: Of the 2 ** 30 streams of a connection, so many are used.
_LAST_STREAM = 1 << 30
#: Octets that the server must be willing to take before it is sent a query, which is shorter.
_QUERY = 512
#: Octets of the fields of an answer, in all; those of usual servers have some hundred.
_MAX_FIELDS = 8_192
_TYPE = "application/dns-message"  # RFC 8484, 6


class _Response:
    """An answer on its way."""

    __slots__ = ("age", "body", "status", "type")

    def __init__(self) -> None:
        self.status = 0
        self.type = ""
        self.age = 0
        self.body = bytearray()

    def take(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        for name, value in fields:
            if name == b":status" and value.isdigit():
                self.status = int(value[:3])
            elif name == b"content-type":
                self.type = value.partition(b";")[0].strip().lower().decode("ascii", "replace")
            elif name == b"age" and value.isdigit():
                self.age = int(value[:10])

    def outcome(self) -> bytes | ExchangeFault:
        """The message, or why there is none."""
        if 400 <= self.status < 500:  # our requests are all alike: it refuses each (RFC 9110, 15.5)
            return ExchangeFault(Cause.UNREACHABLE, f"answered HTTP status {self.status}; check path and name")
        if self.status != 200:
            return ExchangeFault(Cause.OTHER, f"answered HTTP status {self.status}")
        if self.type != _TYPE:
            return ExchangeFault(Cause.UNREACHABLE, f"answered no DNS message, but {self.type!r}; check path and name")
        # RFC 8484, 5.1: what an HTTP cache kept is older than its TTLs say.
        return message.aged(bytes(self.body), self.age) if self.age else bytes(self.body)


class Http2:
    """The messages of one connection. The number of a query is that of its stream."""

    def __init__(self, server: Nameserver) -> None:
        self._connection = H2Connection(
            H2Configuration(
                client_side=True,
                validate_outbound_headers=False,  # we know what we send
                normalize_outbound_headers=False,
            )
        )
        self._connection.local_settings = Settings(
            client=True,
            initial_values={SettingCodes.ENABLE_PUSH: 0, SettingCodes.MAX_HEADER_LIST_SIZE: _MAX_FIELDS},
        )
        host = f"[{server.identity}]" if ":" in server.identity else server.identity
        self._fields = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", host if server.port == PORTS["https"] else f"{host}:{server.port}"),
            (":path", server.path),
            ("content-type", _TYPE),
            ("accept", _TYPE),
        ]
        self._responses: dict[int, _Response] = {}
        self._next = 1

    @property
    def capacity(self) -> int:
        """As many streams as the server allows; none when the last number was used or it takes no octets."""
        connection = self._connection
        if self._next > _LAST_STREAM or connection.outbound_flow_control_window < _QUERY:
            return 0
        return min(CAPACITY, connection.remote_settings.max_concurrent_streams)

    def opening(self) -> bytes:
        """The connection preface (RFC 9113, 3.4)."""
        self._connection.initiate_connection()
        return self._connection.data_to_send()

    def ask(self, asked: bytes, authentic: bool) -> tuple[int, bytes]:
        """A request. Its message has the identifier 0, as all have (RFC 8484, 4.1)."""
        number, self._next = self._next, self._next + 2
        query = wire.query(0, asked, authentic, padded=True)
        self._responses[number] = _Response()
        self._connection.send_headers(number, [*self._fields, ("content-length", str(len(query)))])
        self._connection.send_data(number, query, end_stream=True)
        return number, self._connection.data_to_send()

    def identifier(self, number: int) -> int:
        """0, whatever the number is."""
        return 0

    def cancel(self, number: int) -> tuple[bool, bytes]:
        """Reset the stream, so that the server can stop (RFC 9113, 8.1.1)."""
        if self._responses.pop(number, None) is not None:
            self._reset(number)
        return True, self._connection.data_to_send()

    def receive(self, octets: bytes) -> tuple[list[tuple[int, bytes | ExchangeFault]], bytes]:
        """The answers that are complete.

        :raises BrokenError: the server ends the connection, or what it sent is not HTTP/2.
        """
        found: list[tuple[int, bytes | ExchangeFault]] = []
        try:
            for event in self._connection.receive_data(octets):
                self._take(event, found)
        except (H2Error, ValueError) as error:
            raise BrokenError(f"violates HTTP/2 ({error})") from error
        return found, self._connection.data_to_send()

    def _take(self, event: Event, found: list[tuple[int, bytes | ExchangeFault]]) -> None:
        match event:
            case ResponseReceived():
                if response := self._responses.get(event.stream_id):
                    response.take(event.headers)
            case DataReceived():
                self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                response = self._responses.get(event.stream_id)
                if response is None:
                    return
                response.body += event.data
                if len(response.body) > MAX_ANSWER:
                    del self._responses[event.stream_id]
                    self._reset(event.stream_id)
                    found.append((event.stream_id, TOO_LONG))
            case StreamEnded():
                if response := self._responses.pop(event.stream_id, None):
                    found.append((event.stream_id, response.outcome()))
            case StreamReset():
                if self._responses.pop(event.stream_id, None):
                    found.append((event.stream_id, ExchangeFault(Cause.OTHER, "reset the request")))
            case ConnectionTerminated():
                # The library reads no more of this connection: what is open is asked again on another.
                raise BrokenError("closed the connection without an answer")

    def _reset(self, number: int) -> None:
        stream_is_open = number in self._connection.streams and not self._connection.streams[number].closed
        if stream_is_open:
            self._connection.reset_stream(number, ErrorCodes.CANCEL)
