# SPDX-License-Identifier: GPL-3.0-or-later
"""Change TXT records by DNS UPDATE (RFC 2136), signed with TSIG (RFC 8945).

Each change has a prerequisite, so that a record of somebody else is never replaced or removed. A change that was made
already is done.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from pathlib import Path

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.tsig
import dns.update
from msgspec import Struct

from assay import secrets
from assay.resolver.nameservers import Nameserver
from assay.resolver.transport import words

#: RFC 8945, 6: those that must or should be implemented; HMAC-MD5 and HMAC-SHA1 are not for new keys.
ALGORITHMS = ("hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha224")
#: What tsig-keygen(8) of BIND writes.
_KEY = re.compile(r'\s*key\s+"?([^\s"{;]+)"?\s*\{([^}]*)\}\s*;?\s*', re.IGNORECASE)
_COMMENT = re.compile(r"(?://|#)[^\n]*|/\*.*?\*/", re.DOTALL)
_CLAUSE = re.compile(r'(algorithm|secret)\s+"?([^\s";]+)"?\s*;', re.IGNORECASE)
#: RFC 8945, 5.2: why a server does not accept a key.
_PEER_ERRORS = (
    (dns.tsig.PeerBadKey, "it does not know the name, or does not let the key change this record"),
    (dns.tsig.PeerBadSignature, "its secret is another one"),
    (dns.tsig.PeerBadTime, "its clock and ours differ"),
)


class UpdateError(Exception):
    """The server did not change the record. The message is a clause that names the server."""


class TsigKey(Struct, frozen=True):
    """A key shared with a server. The secret never appears in a message."""

    name: str
    algorithm: str
    secret: bytes

    def __repr__(self) -> str:
        return f"TsigKey({self.name!r}, {self.algorithm!r})"


def read_tsig(path: Path) -> TsigKey:
    """Read a key file as ``tsig-keygen`` writes it: ``key "NAME" { algorithm hmac-sha256; secret "..."; };``.

    :raises ValueError: it cannot be read, others can read it, or it is not such a file; the message names it.
    """
    text = _COMMENT.sub("", secrets.read(path).decode("utf-8", "replace"))
    found = _KEY.fullmatch(text)
    clauses = {word.lower(): value for word, value in _CLAUSE.findall(found[2])} if found else {}
    if found is None or clauses.keys() != {"algorithm", "secret"}:
        raise ValueError(f"{path}: not a TSIG key; make one with: tsig-keygen NAME >{path}")
    algorithm = clauses["algorithm"].lower().removesuffix(".")
    if algorithm not in ALGORITHMS:
        raise ValueError(f"{path}: the algorithm {algorithm} is not one of {', '.join(ALGORITHMS)}")
    try:
        secret = b64decode(clauses["secret"], validate=True)
        dns.name.from_text(found[1])
    except (binascii.Error, dns.exception.DNSException) as error:
        raise ValueError(f"{path}: the secret is not base64, or the name is not one of the DNS") from error
    return TsigKey(found[1], algorithm, secret)


class Updater:
    """Changes records of one zone at its primary server."""

    def __init__(self, server: Nameserver, zone: str, key: TsigKey, *, patience: float = 10.0) -> None:
        """
        :param server: the primary server.
        :param zone: the zone that has the records.
        :param key: that the server lets change them.
        :param patience: seconds that the server may take.
        """
        self._server = server
        self._zone = zone
        self._key = dns.tsig.Key(key.name, key.secret, key.algorithm)
        self._patience = patience

    def add(self, name: str, strings: tuple[str, ...], ttl: int) -> None:
        """Add a TXT record to a name that has none.

        :raises UpdateError: refused, no answer, or the name has another TXT record or is an alias.
        """
        update = self._update()
        update.absent(_absolute(name), "TXT")
        update.absent(_absolute(name), "CNAME")  # a server would ignore the change and say nothing (RFC 2136, 3.4.2.2)
        update.add(_absolute(name), ttl, _text(strings))
        rcode = self._send(update)
        if rcode == dns.rcode.YXRRSET and self._has(name, strings):
            return
        if rcode == dns.rcode.YXRRSET:
            raise UpdateError(
                f"{self._server}: {name} has another TXT record or a CNAME; remove it, or use another selector"
            )
        self._check(rcode, name)

    def remove(self, name: str, strings: tuple[str, ...]) -> None:
        """Remove a TXT record, and no other at the name.

        :raises UpdateError: refused, or no answer.
        """
        update = self._update()
        update.delete(_absolute(name), _text(strings))
        self._check(self._send(update), name)

    def _has(self, name: str, strings: tuple[str, ...]) -> bool:
        """Whether the record is the only one at its name, as a prerequisite of an empty update (RFC 2136, 2.4.2)."""
        update = self._update()
        update.present(_absolute(name), _text(strings))
        return self._send(update) == dns.rcode.NOERROR

    def _update(self) -> dns.update.UpdateMessage:
        return dns.update.UpdateMessage(
            _absolute(self._zone), keyring=self._key, keyname=self._key.name, keyalgorithm=self._key.algorithm
        )

    def _send(self, update: dns.update.UpdateMessage) -> dns.rcode.Rcode:
        """The server's reply, whose own signature is checked."""
        try:
            response = dns.query.tcp(update, self._server.address, timeout=self._patience, port=self._server.port)
        except dns.tsig.PeerError as error:
            name = self._key.name.to_text(omit_final_dot=True)
            why = next((why for kind, why in _PEER_ERRORS if isinstance(error, kind)), str(error))
            raise UpdateError(f"{self._server} does not accept the TSIG key {name}: {why}") from error
        except dns.exception.Timeout as error:
            raise UpdateError(f"{self._server} does not answer") from error
        except dns.exception.DNSException as error:
            if "requires a TSIG" in str(error):  # dnspython has no class of its own for it
                raise UpdateError(
                    f"{self._server} answered without TSIG; name the primary server of {self._zone} that knows the key"
                ) from error
            raise UpdateError(f"{self._server} sent no usable answer ({error})") from error
        except (OSError, EOFError) as error:
            why = words(error) if isinstance(error, OSError) else "it closed the connection"
            raise UpdateError(f"{self._server} could not be asked ({why})") from error
        return response.rcode()

    def _check(self, rcode: dns.rcode.Rcode, name: str) -> None:
        if rcode != dns.rcode.NOERROR:
            word = dns.rcode.to_text(rcode)
            raise UpdateError(f"{self._server} answered {word} to the update of {name} in {self._zone}{_hint(word)}")


def _hint(word: str) -> str:
    match word:
        case "REFUSED" | "NOTAUTH":
            return "; allow the TSIG key to change this name, and name the zone's primary server"
        case "NOTZONE":
            return "; the name is not in this zone"
    return ""


def _absolute(name: str) -> dns.name.Name:
    return dns.name.from_text(name)


def _text(strings: tuple[str, ...]) -> dns.rdata.Rdata:
    quoted = " ".join('"' + string.replace("\\", "\\\\").replace('"', '\\"') + '"' for string in strings)
    return dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.TXT, quoted)
