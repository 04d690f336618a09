# SPDX-License-Identifier: GPL-3.0-or-later
"""SPF records (RFC 7208, 3, 4.5, 4.6, 5, 6): choose the record, and read it once into frozen terms.

The whole record is read before anything is evaluated, because an error anywhere is a permerror even after a match
(RFC 7208, 4.6). All errors are found, not only the first, so that the publisher of the record can see them all.
Whether a name makes sense after its macros are expanded is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from msgspec import Struct

from assay.caches import remember
from assay.model.printable import marked_ascii
from assay.protocol.spf import macro
from assay.protocol.spf.result import Result

#: Octets of a record's terms; our choice. RFC 7208, 3.4 wants all TXT records of a name to fit into 512. Records that
#: list every host, where others include, have a few thousand. One check reads eleven records, and strangers write them:
#: the longest takes four milliseconds.
MAX_RECORD_LENGTH = 8192
MAX_SHOWN = 80  # characters of a stranger's term in a message of ours
MAX_FAULTS = 20  # that are reported; a publisher with more can fix these first

_VERSION = re.compile(rb"v=spf1(?: |\Z)", re.IGNORECASE)  # RFC 7208, 4.5: a space or the end, nothing else
_PRINTABLE = re.compile(rb"[\x20-\x7e]*")

# RFC 7208, 4.6.1. A name is the same for both kinds of terms; an "=" right after it makes a modifier.
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9._-]*)=(.*)", re.DOTALL)
_DIRECTIVE = re.compile(r"([-+?~]?)([A-Za-z][A-Za-z0-9._-]*)(?:([:/])(.*))?", re.DOTALL)

# RFC 7208, 5.6: no leading zero in a length. Searched only after a slash, from the right.
_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}")
_IP4_TEXT = re.compile(r"[0-9.]{7,15}")
_IP6_TEXT = re.compile(r"[0-9A-Fa-f:.]{2,45}")  # the longest form has 45; no zone identifiers (RFC 4007)

IP4_BITS = 32
IP6_BITS = 128


class Mechanism(StrEnum):
    """The mechanisms of RFC 7208, 5."""

    ALL = "all"
    INCLUDE = "include"
    A = "a"
    MX = "mx"
    PTR = "ptr"
    EXISTS = "exists"
    IP4 = "ip4"
    IP6 = "ip6"


#: RFC 7208, 4.6.2: what a match means.
QUALIFIERS = {
    "": Result.PASS,
    "+": Result.PASS,
    "-": Result.FAIL,
    "~": Result.SOFTFAIL,
    "?": Result.NEUTRAL,
}

_MECHANISMS = {mechanism.value: mechanism for mechanism in Mechanism}
_WITH_DOMAIN = frozenset((Mechanism.INCLUDE, Mechanism.A, Mechanism.MX, Mechanism.PTR, Mechanism.EXISTS))
_DOMAIN_REQUIRED = frozenset((Mechanism.INCLUDE, Mechanism.EXISTS))
_WITH_DUAL_LENGTH = frozenset((Mechanism.A, Mechanism.MX))


class Directive(Struct, frozen=True):
    """A qualifier and a mechanism (RFC 7208, 4.6.1).

    `text` is the term as written, `result` what a match means. `ip4_host_bits` and `ip6_host_bits` are how many bits
    at the right are not compared. For ``ip4`` and ``ip6``, `ip_version` is 4 or 6, else 0, and `network` is the number
    of the network without its host bits.
    """

    text: str
    result: Result
    mechanism: Mechanism
    domain_spec: macro.MacroString | None = None
    ip4_host_bits: int = 0
    ip6_host_bits: int = 0
    ip_version: int = 0
    network: int = 0


class Modifier(Struct, frozen=True):
    """A modifier (RFC 7208, 6). `name` is in lower case; `text` is the term as written."""

    text: str
    name: str
    macro_string: macro.MacroString


class SpfRecord(Struct, frozen=True):
    """The terms of a record in their order, without the version. `faults` are all its syntax errors, in words."""

    directives: tuple[Directive, ...] = ()
    redirect: Modifier | None = None
    exp: Modifier | None = None
    unknown: tuple[Modifier, ...] = ()
    faults: tuple[str, ...] = ()


class TermError(ValueError):
    """A term that the grammar does not allow. The message says why and quotes nothing."""


def select(texts: Sequence[bytes]) -> SpfRecord | None:
    """Choose the SPF record among a domain's TXT records and read it (RFC 7208, 4.5).

    :returns: None where there is no SPF record. More than one gives a record with that fault.
    """
    chosen = [text for text in texts if _VERSION.match(text)]
    if not chosen:
        return None
    if len(chosen) > 1:
        return SpfRecord(faults=(f"{len(chosen)} v=spf1 records where one is allowed",))
    return parse_terms(chosen[0][len("v=spf1") :])


def parse(text: bytes) -> SpfRecord:
    """Read one record with its version. Never raises: see `SpfRecord.faults`."""
    if not _VERSION.match(text):
        return SpfRecord(faults=("does not start with v=spf1",))
    return parse_terms(text[len("v=spf1") :])


def parse_terms(text: bytes) -> SpfRecord:
    """Read what follows the version of a record. Never raises: see `SpfRecord.faults`."""
    if len(text) > MAX_RECORD_LENGTH:  # RFC 7208, 3.4; before the cache: it must not keep what is too long
        return SpfRecord(faults=(f"record is longer than {MAX_RECORD_LENGTH} octets",))
    return _parse(text)


@remember("SPF records")
def _parse(text: bytes) -> SpfRecord:
    # RFC 7208, 3.1 and 4.6.1: US-ASCII, and terms separated by spaces only.
    if not _PRINTABLE.fullmatch(text):
        return SpfRecord(faults=("record has a character that is not printable ASCII",))
    directives: list[Directive] = []
    modifiers: dict[str, Modifier] = {}
    unknown: list[Modifier] = []
    faults: list[str] = []
    # A repeated term is read once. Reading stops when enough faults are found.
    terms: dict[str, Directive | Modifier] = {}
    for term in text.decode("ascii").split(" "):  # bounded by MAX_RECORD_LENGTH
        if not term:
            continue
        try:
            parsed = terms.get(term)
            if parsed is None:
                parsed = terms[term] = _term(term)
            if isinstance(parsed, Directive):
                directives.append(parsed)
            elif parsed.name not in ("redirect", "exp"):
                unknown.append(parsed)
            elif parsed.name in modifiers:
                raise TermError(f"second {parsed.name}=")  # RFC 7208, 6: at most once each
            else:
                modifiers[parsed.name] = parsed
        except ValueError as error:  # a TermError or a MacroError
            faults.append(f"{error} in {shown(term)}")
            if len(faults) == MAX_FAULTS:
                break
    return SpfRecord(
        tuple(directives),
        modifiers.get("redirect"),
        modifiers.get("exp"),
        tuple(unknown),
        tuple(faults),
    )


def shown(text: str) -> str:
    """A stranger's text made safe for a message of ours: printable ASCII without quotes, and not long."""
    if len(text) > MAX_SHOWN:
        text = text[: MAX_SHOWN - 3] + "..."
    return marked_ascii(text)


def _term(term: str) -> Directive | Modifier:
    """Read one term (RFC 7208, 4.6.1), or raise a `TermError` or a `macro.MacroError`."""
    match = _MODIFIER.fullmatch(term)
    if match is not None:
        name = match[1].lower()
        # RFC 7208, 6.1 and 6.2: the known ones have a domain-spec; 6: any other has a macro-string.
        read = macro.parse_domain_spec if name in ("redirect", "exp") else macro.parse
        return Modifier(term, name, read(match[2]))
    match = _DIRECTIVE.fullmatch(term)
    if match is None:
        raise TermError("neither a mechanism nor a modifier")
    mechanism = _MECHANISMS.get(match[2].lower())
    if mechanism is None:
        raise TermError("unknown mechanism")
    qualifier, separator, argument = match[1], match[3] or "", match[4] or ""
    if mechanism in _WITH_DOMAIN:
        return _host_directive(term, QUALIFIERS[qualifier], mechanism, separator, argument)
    if mechanism is Mechanism.ALL:
        if separator:
            raise TermError("all takes no argument")
        return Directive(term, QUALIFIERS[qualifier], mechanism)
    if separator != ":" or not argument:
        raise TermError(f"{mechanism} without an address")
    return _network_directive(term, QUALIFIERS[qualifier], mechanism, argument)


def _host_directive(term: str, result: Result, mechanism: Mechanism, separator: str, argument: str) -> Directive:
    """Read a term with a domain-spec: ``include``, ``a``, ``mx``, ``ptr`` or ``exists`` (RFC 7208, 5.2 to 5.5, 5.7)."""
    ip4_length, ip6_length = IP4_BITS, IP6_BITS
    if mechanism in _WITH_DUAL_LENGTH:
        tail = argument if separator == ":" else separator + argument
        tail, ip4_length, ip6_length = _split_dual_length(tail)
        if separator == "/" and tail:
            raise TermError("bad prefix length")
        argument = tail
    elif separator == "/":
        raise TermError(f"{mechanism} takes no prefix length")
    if separator != ":" and mechanism in _DOMAIN_REQUIRED:
        raise TermError(f"{mechanism} without a domain")
    return Directive(
        term,
        result,
        mechanism,
        macro.parse_domain_spec(argument) if separator == ":" else None,
        IP4_BITS - ip4_length,
        IP6_BITS - ip6_length,
    )


def _split_dual_length(text: str) -> tuple[str, int, int]:
    """Split ``/24``, ``//64`` or ``/24//64`` off the end (RFC 7208, 5.3).

    A domain-spec may have a slash too, so only a slash with nothing but digits after it starts a length.
    """
    ip4_length, ip6_length = IP4_BITS, IP6_BITS
    head, slashes, digits = text.rpartition("//")
    if slashes and digits.isdigit():
        text, ip6_length = head, _length(digits, IP6_BITS)
    head, slash, digits = text.rpartition("/")
    if slash and digits.isdigit():
        text, ip4_length = head, _length(digits, IP4_BITS)
    return text, ip4_length, ip6_length


def _length(digits: str, most: int) -> int:
    """Read a prefix length (RFC 7208, 5.6)."""
    if not _LENGTH.fullmatch(digits) or int(digits) > most:
        raise TermError("bad prefix length")
    return int(digits)


def _network_directive(term: str, result: Result, mechanism: Mechanism, argument: str) -> Directive:
    """Read ``ip4`` or ``ip6``. IPv6 is read for IPv4 clients too: an error in it counts (RFC 7208, 4.6 and 5.6)."""
    text, slash, digits = argument.partition("/")
    if mechanism is Mechanism.IP4:
        host_bits = IP4_BITS - _length(digits, IP4_BITS) if slash else 0
        network = _number(text, _IP4_TEXT, IPv4Address) >> host_bits
        return Directive(term, result, mechanism, ip4_host_bits=host_bits, ip_version=4, network=network)
    host_bits = IP6_BITS - _length(digits, IP6_BITS) if slash else 0
    network = _number(text, _IP6_TEXT, IPv6Address) >> host_bits
    return Directive(term, result, mechanism, ip6_host_bits=host_bits, ip_version=6, network=network)


def _number(text: str, form: re.Pattern[str], kind: type[IPv4Address] | type[IPv6Address]) -> int:
    """The number of an address. `form` refuses what the library accepts and the RFC does not, such as zones."""
    try:
        if form.fullmatch(text):
            return int(kind(text))
    except AddressValueError:
        pass
    raise TermError("bad network address")
