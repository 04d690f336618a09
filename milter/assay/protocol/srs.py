# SPDX-License-Identifier: GPL-3.0-or-later
"""SRS, the Sender Rewriting Scheme: a forwarder's own envelope sender that its bounces find the way back from.

There is no RFC. The format is that of Mail::SRS 0.31 and libsrs2, which all implementations read: a hash with a secret
key keeps strangers from using us to send mail on, and a date ends an address.

- ``SRS0=hash=date=host=user@us`` stands for ``user@host``.
- ``SRS1=hash=host==rest@us`` stands for ``SRS0=rest@host``: the address that another forwarder has written. Only its
  first forwarder can read it, and all later ones go back to that one directly.

Nothing here decides which mail is rewritten.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from enum import StrEnum

from msgspec import Struct

from assay.model.wording import counted

_SECONDS_A_DAY = 86_400
_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"  # RFC 4648, 6
_SLOTS = 32 * 32  # days that two letters can tell apart; then they start again
#: A date is the two letters of a day. From SRS0 and SRS1 to the separator, which may be one of three.
_TAG = re.compile(r"SRS([01])([=+-])", re.IGNORECASE)
#: Of the base64 text of an HMAC-SHA1, without padding.
MAX_HASH_LENGTH = 27
#: Days. Dates repeat after 1024, and one that is nearly a cycle old must not count as new.
MAX_AGE_DAYS = _SLOTS // 2
SEPARATORS = ("=", "+", "-")
MAX_ADDRESS_OCTETS = 512  # of one that is rewritten, as in postsrsd; a path has 256 (RFC 5321, 4.5.3.1.3)


class Fault(StrEnum):
    """Which check an address failed."""

    DOMAIN = "domain"  #: there is none
    FORM = "form"  #: it is not an SRS address, or a part of it is missing
    HASH = "hash"  #: not made with one of our secrets, or changed since
    AGE = "age"  #: older than the operator allows, or from the future


class SrsError(ValueError):
    """An address that cannot be rewritten or turned back. The message says why in one clause, and `fault` in a word."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class Scheme(Struct, frozen=True):
    """How addresses are written, and which are believed.

    `domain` is the domain of the addresses, to which bounces come. The first of `secrets` makes hashes, all of them
    verify. `separator` follows SRS0 and SRS1 in what is written; all are read. `hash_length` and `min_hash_length` are
    in characters, at most `MAX_HASH_LENGTH`; an address is believed for `max_age_days`.
    """

    domain: str
    secrets: tuple[bytes, ...]
    separator: str = "="
    hash_length: int = 4
    min_hash_length: int = 4
    max_age_days: int = 21


def is_srs(local_part: str) -> bool:
    """Whether a local part is written as SRS, by anybody."""
    return _TAG.match(local_part) is not None


def is_too_long(address: str) -> bool:
    """Whether an address is not rewritten because of its length."""
    return len(address.encode("utf-8", "surrogateescape")) > MAX_ADDRESS_OCTETS


def forward(address: str, scheme: Scheme, now: float) -> str:
    """Rewrite an envelope sender to one of ours.

    A local part that begins like SRS but lacks a part is one like any other: a stranger may write what he likes.

    :param address: the sender, its local part not quoted.
    :param now: seconds since 1970.
    :returns: the new address, its local part not quoted.
    :raises SrsError: without a domain there is nothing to go back to, and no host takes a longer address.
    """
    user, host = _split(address)
    if is_too_long(address):
        raise SrsError(Fault.FORM, f"address of more than {MAX_ADDRESS_OCTETS} octets")
    first = _first_forwarder(user, host)
    if first is None:
        date = _date(now)
        mark = _hash(scheme.secrets[0], date, host, user)[: scheme.hash_length]
        return f"SRS0{scheme.separator}{mark}={date}={host}={user}@{scheme.domain}"
    host, rest = first
    # Mail that comes by us again. The hash within is checked when a bounce comes.
    if host.lower().rstrip(".") == scheme.domain:
        return f"SRS0{rest}@{scheme.domain}"
    mark = _hash(scheme.secrets[0], host, rest)[: scheme.hash_length]
    return f"SRS1{scheme.separator}{mark}={host}={rest}@{scheme.domain}"


def reverse(address: str, scheme: Scheme, now: float) -> str:
    """Turn one of our addresses back into the sender that it stands for.

    The domain is not compared: whoever calls it knows which domains are ours.

    :param address: the recipient of a bounce, its local part not quoted.
    :param now: seconds since 1970.
    :returns: the sender, its local part not quoted.
    :raises SrsError: it is not an SRS address, or fails a check. The hash is checked before the age, so that nobody
        learns from the answer which hash would be right.
    """
    user, _ = _split(address)
    tag = _TAG.match(user)
    if tag is None:
        raise SrsError(Fault.FORM, "not an SRS address")
    if tag[1] == "1":
        mark, host, rest = _parts_of_srs1(user[tag.end() :])
        _verify(mark, scheme, host, rest)
        return f"SRS0{rest}@{host}"
    mark, date, host, user = _parts_of_srs0(user[tag.end() :])
    _verify(mark, scheme, date, host, user)
    _check_age(date, scheme, now)
    if host.isdecimal():  # as postsrsd writes it if it keeps addresses in a database
        raise SrsError(Fault.FORM, "it stands for an entry in the database of postsrsd, and has no address in it")
    return f"{user}@{host}"


def _first_forwarder(user: str, host: str) -> tuple[str, str] | None:
    """The host that wrote an SRS0 address, and the rest of that address from its separator on; None if nobody did."""
    tag = _TAG.match(user)
    if tag is None:
        return None
    if tag[1] == "0":
        return (host, user[len("SRS0") :]) if user[tag.end() :] else None
    try:
        _, host, rest = _parts_of_srs1(user[tag.end() :])
    except SrsError:
        return None
    return host, rest


def _split(address: str) -> tuple[str, str]:
    user, _, domain = address.rpartition("@")
    if not user or not domain:
        raise SrsError(Fault.DOMAIN, "no domain in the address" if not user else "no domain after the @")
    return user, domain


def _parts_of_srs0(text: str) -> tuple[str, str, str, str]:
    """Hash, date, host and user."""
    parts = text.split("=", 3)
    for at, what in enumerate(("hash", "date", "host", "user")):
        if len(parts) <= at or not parts[at]:
            raise SrsError(Fault.FORM, f"no {what} in the SRS0 address")
    mark, date, host, user = parts
    return mark, date, host, user


def _parts_of_srs1(text: str) -> tuple[str, str, str]:
    """Hash, host, and the rest of the SRS0 address that it stands for, from its separator on."""
    parts = text.split("=", 2)
    for at, what in enumerate(("hash", "host", "user")):
        if len(parts) <= at or not parts[at]:
            raise SrsError(Fault.FORM, f"no {what} in the SRS1 address")
    mark, host, rest = parts
    if rest[0] not in SEPARATORS or len(rest) == 1:
        raise SrsError(Fault.FORM, "no SRS0 address within the SRS1 address")
    return mark, host, rest


def _hash(secret: bytes, *parts: str) -> str:
    """The whole hash of the parts, which is the same in any case: some MTAs change the case of local parts."""
    # surrogateescape: octets that are not UTF-8 come back as they were
    text = "".join(parts).encode("utf-8", "surrogateescape").lower()
    digest = b64encode(hmac.digest(secret, text, "sha1")).decode()
    return digest.rstrip("=").translate(_URL_SAFE)


#: A plus is the mark of sub-addresses at many sites and a slash is one in file names, so hashes are written with the
#: other two (RFC 4648, 5) and read with either.
_URL_SAFE = str.maketrans("+/", "-_")


def _verify(mark: str, scheme: Scheme, *parts: str) -> None:
    if len(mark) < scheme.min_hash_length:
        raise SrsError(Fault.HASH, f"hash shorter than {scheme.min_hash_length} characters")
    given = mark.translate(_URL_SAFE).lower().encode("utf-8", "surrogateescape")
    for secret in scheme.secrets:
        right = _hash(secret, *parts).lower().encode()
        if hmac.compare_digest(given, right[: len(given)]):
            return
    raise SrsError(Fault.HASH, "hash is not valid for any of the secrets")


def _date(now: float) -> str:
    day = int(now // _SECONDS_A_DAY) % _SLOTS
    return _BASE32[day >> 5] + _BASE32[day & 31]


def _check_age(date: str, scheme: Scheme, now: float) -> None:
    letters = [_BASE32.find(letter) for letter in date.upper()]
    if len(letters) != 2 or min(letters) < 0:
        raise SrsError(Fault.AGE, "date is not two letters of base32")
    age = (int(now // _SECONDS_A_DAY) - (letters[0] << 5 | letters[1])) % _SLOTS
    if age > scheme.max_age_days:
        # In a cycle of dates, what is from the future cannot be told from what is very old.
        raise SrsError(
            Fault.AGE,
            f"address is {counted(age, 'day')} old or from the future; it was valid for {scheme.max_age_days}",
        )
