# SPDX-License-Identifier: GPL-3.0-or-later
"""Which nameservers to ask: those that the operator configured, or the system's.

A nameserver is an IP address with a port. A name in its place would need a nameserver to look it up, so only the names
of the public resolvers in `PUBLIC` are known; for others the operator writes address and name. Encrypted nameservers
are asked over TLS (RFC 7858) or HTTPS (RFC 8484), always with the name or address that their certificate must be for
(RFC 8310, 5: the strict profile), and never over anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from types import MappingProxyType
from urllib.parse import SplitResult, urlsplit

from assay.model.name import Domain, InvalidNameError

PORT = 53  # RFC 1035, 4.2
PORTS = MappingProxyType({"tls": 853, "https": 443})  # RFC 7858, 3.1; RFC 9110, 4.2.2
RESOLV_CONF = Path("/etc/resolv.conf")
#: The default of resolv.conf(5) if it names no nameserver.
LOCAL = "127.0.0.1"
#: The words an operator may write in place of addresses.
SYSTEM = "system"
NONE = "none"
#: Public resolvers: the name in their certificate, and their addresses as their operators publish them.
PUBLIC = MappingProxyType(
    {
        "dns.google": ("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"),
        "cloudflare-dns.com": ("1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001"),
        "dns.quad9.net": ("9.9.9.9", "149.112.112.112", "2620:fe::fe", "2620:fe::9"),
    }
)
#: Short words for them.
NAMED = MappingProxyType(
    {
        "google_tls": "tls://dns.google",
        "cloudflare_tls": "tls://cloudflare-dns.com",
        "quad9_tls": "tls://dns.quad9.net",
    }
)


class NameserverError(ValueError):
    """A text that does not name a nameserver. The message quotes it, for the operator."""


@dataclass(frozen=True, slots=True)
class Nameserver:
    """A recursive resolver.

    `address` is an IPv4 or IPv6 literal, a link-local one with its zone (RFC 4007, 11). `scheme` is empty for plain DNS
    over UDP and TCP, ``tls`` or ``https``. The certificate of an encrypted one must be for `name`, or for its address
    if that is empty. `path` is that of its URL.
    """

    address: str
    port: int = PORT
    scheme: str = ""
    name: str = ""
    path: str = ""

    @property
    def is_ipv6(self) -> bool:
        """Whether it is reached over IPv6."""
        return ":" in self.address

    @property
    def identity(self) -> str:
        """The name or address that the certificate of an encrypted one must be for."""
        return self.name or self.address.partition("%")[0]

    def __str__(self) -> str:
        if not self.scheme:
            return self._socket(PORT, brackets=False)
        name = f"#{self.name}" if self.name else ""
        return f"{self.scheme}://{self._socket(PORTS[self.scheme], brackets=True)}{self.path}{name}"

    def _socket(self, usual: int, *, brackets: bool) -> str:
        if self.port == usual and not (brackets and self.is_ipv6):
            return self.address
        address = f"[{self.address}]" if self.is_ipv6 else self.address
        return address if self.port == usual else f"{address}:{self.port}"


def configured(texts: Sequence[str], resolv_conf: Path = RESOLV_CONF) -> tuple[Nameserver, ...]:
    """The nameservers that an operator configured, in order of preference.

    :param texts: plain ones as `parse` reads them, encrypted ones, or words in `NAMED`; or the one word ``system``
        (what `resolv_conf` names); or the one word ``none``: no queries, only a local zone answers.
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
    return tuple(dict.fromkeys(server for text in texts for server in _listed(text)))


_NOT_AN_ADDRESS = "is not a nameserver address; write an IP address such as 192.0.2.53 or [2001:db8::53]:5353"
_FORMS = "tls://ADDRESS#NAME or https://ADDRESS/PATH#NAME"


def parse(text: str) -> Nameserver:
    """Read ``192.0.2.1``, ``192.0.2.1:5353``, ``2001:db8::1``, ``[2001:db8::1]`` or ``[2001:db8::1]:5353``.

    :raises NameserverError: anything else.
    """
    if text.startswith("["):
        address, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise NameserverError(f"{text!r} {_NOT_AN_ADDRESS}")
        port = port[1:] if port else str(PORT)
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    else:
        address, port = text, str(PORT)
    if not _is_address(address):
        raise NameserverError(f"{text!r} {_NOT_AN_ADDRESS}")
    return Nameserver(address, _port(text, port))


def _listed(text: str) -> tuple[Nameserver, ...]:
    """One entry of the list: one nameserver, or all addresses of a public one."""
    text = NAMED.get(text, text)
    if "://" in text:
        return _encrypted(text)
    if text.isidentifier():
        raise NameserverError(f"{text!r} {_NOT_AN_ADDRESS}, or one of {', '.join(NAMED)}")
    return (parse(text),)


def _encrypted(text: str) -> tuple[Nameserver, ...]:
    """An encrypted nameserver as a URL.

    It is ``tls://192.0.2.1#dns.example.org`` or ``https://[2001:db8::1]:8443/dns-query#dns.example.org``, either
    without the name if its certificate is for the address; or ``tls://dns.google``, with a name in `PUBLIC`.
    """
    try:
        url = urlsplit(text.replace("{?dns}", "", 1))  # of the URI template, which GET would need (RFC 8484, 4.1)
        host = url.hostname or ""
    except ValueError as error:
        raise NameserverError(f"{text!r} is not a URL; write {_FORMS}") from error
    scheme = url.scheme
    if scheme not in PORTS or not host or "@" in url.netloc or url.query:
        raise NameserverError(f"{text!r} is not a nameserver; write an IP address, {_FORMS}")
    port = _port(text, _written_port(url) or str(PORTS[scheme]))
    path = url.path
    if scheme == "https" and path in ("", "/"):
        raise NameserverError(f"{text!r} has no path; write the whole URL, mostly https://{host}/dns-query")
    if scheme == "tls" and path not in ("", "/"):
        raise NameserverError(f"{text!r} has a path; write {_FORMS}")
    if not path.isascii() or not path.isprintable() or " " in path:
        raise NameserverError(f"{text!r}: a path must be of printable ASCII characters; write others as %XX")
    path = path if scheme == "https" else ""
    if _is_address(host):
        return (Nameserver(_with_zone(url.netloc, host), port, scheme, _name(text, url.fragment), path),)
    if url.fragment:
        raise NameserverError(f"{text!r}: {host!r} is not an IP address; write {_FORMS}")
    if host not in PUBLIC:
        shown = f"{scheme}://192.0.2.53{path}#{host}"
        raise NameserverError(
            f"{text!r}: the address of {host} cannot be looked up without a nameserver; write it too, such as {shown}"
        )
    return tuple(Nameserver(address, port, scheme, host, path) for address in PUBLIC[host])


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _with_zone(location: str, host: str) -> str:
    """The address as written: `urlsplit` lower-cases the zone of a link-local one too."""
    if isinstance(ip_address(host), IPv6Address) and "%" in host:
        return location[location.index("[") + 1 : location.index("]")]
    return host


def _written_port(url: SplitResult) -> str:
    return url.netloc.rpartition("]")[2].rpartition(":")[2] if ":" in url.netloc.rpartition("]")[2] else ""


def _name(text: str, name: str) -> str:
    """The name behind the number sign, which is a host's, in lower case."""
    if not name:
        return ""
    try:
        return Domain.parse_host(name).name
    except InvalidNameError as error:
        raise NameserverError(f"{text!r}: {name!r} is not a host name: {error}") from error


def _port(text: str, port: str) -> int:
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise NameserverError(f"{text!r}: the port must be a number from 1 to 65535")
    return int(port)


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
        if len(words) >= 2 and words[0] == "nameserver" and _is_address(words[1]):
            found[Nameserver(words[1])] = None
    return tuple(found)
