# SPDX-License-Identifier: GPL-3.0-or-later
"""Domains and mailboxes in one normalised form each.

A domain is kept as lower-case A-labels without a final dot, so that U-labels and A-labels of one name compare equal
(RFC 5890, 2.3.2.4; RFC 8616, 3; RFC 9989, 5.3.1). A local part is kept as written: only its own host may
interpret it (RFC 5321, 2.3.11).

Bytes that are not UTF-8 travel inside ``str`` as lone surrogates (``surrogateescape``), so nothing is lost on the way
in and out.
"""

from __future__ import annotations

import re

import idna
from msgspec import Struct

MAX_DOMAIN_LENGTH = 253  # octets in presentation form; RFC 1035, 2.3.4 allows 255 on the wire
MAX_LABEL_LENGTH = 63  # octets; RFC 1035, 2.3.4

#: A label of atoms (RFC 5322, 3.2.3), which a domain in a From field may contain. Host names have letters, digits
#: and inner hyphens only, but the DNS carries the others too, a wildcard answers for them, and an SPF check
#: asks for every name that is not malformed (RFC 7208, 4.3).
_LABEL_PATTERN = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,63}+"
_LABEL = re.compile(_LABEL_PATTERN)
_NAME = re.compile(rf"{_LABEL_PATTERN}(?:\.{_LABEL_PATTERN})*")
_HOST_LABEL_PATTERN = r"[a-z0-9_][a-z0-9_-]*+(?<!-)"
_HOST_NAME = re.compile(rf"{_HOST_LABEL_PATTERN}(?:\.{_HOST_LABEL_PATTERN})*")
#: What UTS 46 treats as a dot.
_DOT = re.compile("[.\u3002\uff0e\uff61]")


class InvalidNameError(ValueError):
    """A text that is not a domain or mailbox. The message tells a postmaster why, and quotes nothing."""


class Domain(Struct, frozen=True, order=True):
    """A domain name: lower-case A-labels, no final dot, at least one label."""

    name: str

    @classmethod
    def parse(cls, text: str) -> Domain:
        """Read a domain in U-labels, A-labels or both, in any case, with or without a final dot.

        :param text: what the sender wrote; ``surrogateescape`` bytes are allowed and refused as non-UTF-8.
        :raises InvalidNameError: an empty or overlong label, a label with characters that an atom cannot have, an
            overlong name, an address literal, or U-labels that IDNA 2008 (RFC 5891) does not allow even after UTS 46
            mapping.
        """
        if len(text) > MAX_DOMAIN_LENGTH + 1:  # for U-labels, this counts characters: no A-label is shorter
            raise InvalidNameError(f"domain longer than {MAX_DOMAIN_LENGTH} octets")
        name = text.removesuffix(".").lower() if text.isascii() else _to_a_labels(text)
        if not name:
            raise InvalidNameError("empty domain")
        if len(name) > MAX_DOMAIN_LENGTH:
            raise InvalidNameError(f"domain longer than {MAX_DOMAIN_LENGTH} octets")
        if not _NAME.fullmatch(name):
            raise InvalidNameError(_fault(name))
        return cls(name)

    @classmethod
    def parse_host(cls, text: str) -> Domain:
        """Read a domain that is a host name (see `is_host_name`).

        :raises InvalidNameError: as `parse`, or a label has another character.
        """
        domain = cls.parse(text)
        if not domain.is_host_name:
            raise InvalidNameError(
                "label with a character that is not a letter, digit, hyphen or underscore, or with a hyphen at an end"
            )
        return domain

    @property
    def is_host_name(self) -> bool:
        """Whether its labels are those of hosts (RFC 952), or of services, with an underscore (RFC 8552)."""
        return _HOST_NAME.fullmatch(self.name) is not None

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels from left to right."""
        return tuple(self.name.split("."))

    def is_at_or_below(self, other: Domain) -> bool:
        """Whether this is `other` or one of its subdomains."""
        return self.name == other.name or self.name.endswith("." + other.name)

    def __str__(self) -> str:
        return self.name


def _to_a_labels(text: str) -> str:
    """Convert U-labels (RFC 5890, 2.3.2.1) to A-labels, and leave labels in ASCII as they are."""
    labels = _DOT.split(text)
    if not labels[-1]:
        labels.pop()  # the final dot
    converted: list[str] = []
    length = -1
    for label in labels:
        converted.append(label.lower() if label.isascii() else _to_a_label(label))
        length += len(converted[-1]) + 1
        if length > MAX_DOMAIN_LENGTH:
            raise InvalidNameError(f"domain longer than {MAX_DOMAIN_LENGTH} octets")
    return ".".join(converted)


def _to_a_label(label: str) -> str:
    # Before IDNA, some of whose checks are quadratic in the length. 63 characters have 252 octets at most.
    if len(label) > MAX_LABEL_LENGTH:
        raise InvalidNameError(f"label longer than {MAX_LABEL_LENGTH} characters")
    try:
        return idna.encode(label, uts46=True).decode("ascii").lower()
    except UnicodeError as error:  # idna.IDNAError is one; a lone surrogate raises one too
        raise InvalidNameError("not an internationalised domain name (IDNA 2008)") from error


def _fault(name: str) -> str:
    """What is wrong with the first wrong label."""
    label = next(label for label in name.split(".") if not _LABEL.fullmatch(label))
    if not label:
        return "empty label"
    if len(label) > MAX_LABEL_LENGTH:
        return f"label longer than {MAX_LABEL_LENGTH} octets"
    return "label with a character that a domain name cannot have"


class Mailbox(Struct, frozen=True):
    """A local part and a domain (RFC 5321, 4.1.2). The local part is unquoted: ``a b`` stands for ``"a b"``."""

    local_part: str
    domain: Domain

    def __str__(self) -> str:
        return f"{quote_local_part(self.local_part)}@{self.domain}"


class ReversePath(Struct, frozen=True):
    """The argument of MAIL FROM (RFC 5321, 4.1.1.2).

    `text` is exactly what was between the angle brackets, empty for the null reverse-path. `mailbox` is absent for
    the null reverse-path and where `fault` says why the text is not a mailbox.
    """

    text: str
    mailbox: Mailbox | None = None
    fault: str = ""

    @classmethod
    def parse(cls, text: str) -> ReversePath:
        """Read a reverse-path with or without its angle brackets. Never raises: see `fault`."""
        if text.startswith("<") and text.endswith(">"):
            text = text[1:-1]
        if not text:
            return cls("")
        try:
            return cls(text, parse_mailbox(text))
        except InvalidNameError as error:
            return cls(text, None, str(error))

    @property
    def is_null(self) -> bool:
        """Whether this is ``<>``, the sender of bounces (RFC 5321, 4.5.5)."""
        return not self.text


def parse_mailbox(text: str) -> Mailbox:
    """Read an envelope mailbox: ``local@domain`` or ``"quoted"@domain``; a source route is dropped.

    :raises InvalidNameError: no local part, no domain or an invalid one, or a broken quoted string.
    """
    if text.startswith("@"):  # RFC 5321, 4.1.2 and appendix C: a source route SHOULD be ignored
        text = text.partition(":")[2]
    local, at, domain = text.rpartition("@")
    if not at:
        raise InvalidNameError("no @ in the address")
    if local.startswith('"'):
        local = _unquote(local)
    elif not local:
        raise InvalidNameError("empty local part")
    return Mailbox(local, Domain.parse(domain))


_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_DOT_ATOM = re.compile(r"[^\s\x00-\x1f\x7f()<>\[\]:;@\\,.\"]+(?:\.[^\s\x00-\x1f\x7f()<>\[\]:;@\\,.\"]+)*")


def _unquote(text: str) -> str:
    match = _QUOTED.fullmatch(text)
    if match is None:
        raise InvalidNameError("broken quoted string in the local part")
    return re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL)


def quote_local_part(local_part: str) -> str:
    """The local part as written in an address: unchanged if it is a dot-atom, else as a quoted string."""
    if _DOT_ATOM.fullmatch(local_part):
        return local_part
    return '"' + re.sub(r'(["\\])', r"\\\1", local_part) + '"'
