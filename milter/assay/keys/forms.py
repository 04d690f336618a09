# SPDX-License-Identifier: GPL-3.0-or-later
"""How a key record is written for whoever publishes it: a zone file, a web form of a provider, or a program."""

from __future__ import annotations

from enum import StrEnum

from assay.model.name import Domain
from assay.protocol import dkim

_ZONE_INDENT = "\n" + " " * 8


class Form(StrEnum):
    """The forms of a record."""

    ZONE = "zone"  #: a record of a zone file, in strings of at most 255 octets (RFC 1035, 5.1)
    PLAIN = "plain"  #: the text alone, as one string
    PROVIDER = "provider"  #: name, type and text, as the web pages of DNS providers ask for them


def write(form: Form, domain: Domain, selector: Domain, record: str, ttl: int) -> str:
    """A record as text, without a final line end.

    :param record: the key record, in ASCII.
    :param ttl: seconds.
    """
    name = dkim.key_name(domain, selector)
    match form:
        case Form.PLAIN:
            return record
        case Form.ZONE:
            strings = _ZONE_INDENT.join(f'"{_quoted(part)}"' for part in dkim.split_strings(record))
            return f"{name}. {ttl} IN TXT ({_ZONE_INDENT}{strings} )"
        case Form.PROVIDER:
            host = name.removesuffix(f".{domain}")
            return f"Name:  {host}   (whole: {name})\nType:  TXT\nTTL:   {ttl}\nValue: {record}"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
