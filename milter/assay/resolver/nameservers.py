# SPDX-License-Identifier: GPL-3.0-or-later
"""Which nameservers to ask: those that the operator configured, or the system's.

A nameserver is an IP address with a port; names are refused, for nothing could resolve them. Plain DNS over UDP and TCP
is the only transport; texts such as ``tls://...`` are refused with a message that says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

PORT = 53  # RFC 1035, 4.2
RESOLV_CONF = Path("/etc/resolv.conf")
#: The default of resolv.conf(5) if it names no nameserver.
LOCAL = "127.0.0.1"
#: The words an operator may write in place of addresses.
SYSTEM = "system"
NONE = "none"


class NameserverError(ValueError):
    """A text that does not name a nameserver. The message quotes it, for the operator."""


@dataclass(frozen=True, slots=True)
class Nameserver:
    """A recursive resolver. `address` is an IPv4 or IPv6 literal, a link-local one with its zone (RFC 4007, 11)."""

    address: str
    port: int = PORT

    @property
    def is_ipv6(self) -> bool:
        """Whether it is reached over IPv6."""
        return ":" in self.address

    def __str__(self) -> str:
        if self.port == PORT:
            return self.address
        return f"[{self.address}]:{self.port}" if self.is_ipv6 else f"{self.address}:{self.port}"


def configured(texts: Sequence[str], resolv_conf: Path = RESOLV_CONF) -> tuple[Nameserver, ...]:
    """The nameservers that an operator configured, in order of preference.

    :param texts: addresses as `parse` reads them, or the one word ``system`` (what `resolv_conf` names), or the one
        word ``none``: no queries, only a local zone answers.
    :raises NameserverError: another text, no text, or a word together with other texts.
    """
    if not texts:
        raise NameserverError(f"no nameserver; write {SYSTEM!r}, {NONE!r} or addresses")
    if len(texts) == 1 and texts[0] == NONE:
        return ()
    if len(texts) == 1 and texts[0] == SYSTEM:
        return system(resolv_conf)
    for word in (SYSTEM, NONE):
        if word in texts:
            raise NameserverError(f"{word!r} must stand alone")
    return tuple(dict.fromkeys(parse(text) for text in texts))


_NOT_AN_ADDRESS = "is not a nameserver address; write an IP address such as 192.0.2.53 or [2001:db8::53]:5353"


def parse(text: str) -> Nameserver:
    """Read ``192.0.2.1``, ``192.0.2.1:5353``, ``2001:db8::1``, ``[2001:db8::1]`` or ``[2001:db8::1]:5353``.

    :raises NameserverError: anything else.
    """
    if "://" in text:
        raise NameserverError(f"{text!r}: only plain DNS (UDP and TCP) is supported; write an address")
    if text.startswith("["):
        address, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise NameserverError(f"{text!r} {_NOT_AN_ADDRESS}")
        port = port[1:] if port else str(PORT)
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    else:
        address, port = text, str(PORT)
    try:
        ip_address(address)
    except ValueError as error:
        raise NameserverError(f"{text!r} {_NOT_AN_ADDRESS}") from error
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise NameserverError(f"{text!r}: the port must be a number from 1 to 65535")
    return Nameserver(address, int(port))


def system(resolv_conf: Path = RESOLV_CONF) -> tuple[Nameserver, ...]:
    """The nameservers of resolv.conf(5); the local host if it names none or cannot be read."""
    try:
        text = resolv_conf.read_text("ascii", "replace")
    except OSError:
        text = ""
    return named_in(text) or (Nameserver(LOCAL),)


def named_in(text: str) -> tuple[Nameserver, ...]:
    """The nameservers that the text of a resolv.conf(5) names.

    Lines that are not an address are skipped, as the C library does.
    """
    found: dict[Nameserver, None] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                ip_address(words[1])
            except ValueError:
                continue
            found[Nameserver(words[1])] = None
    return tuple(found)
