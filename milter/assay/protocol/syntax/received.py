# SPDX-License-Identifier: GPL-3.0-or-later
"""What a relay of our own wrote into its Received field about its client (RFC 5321, 4.4).

The standard leaves the TCP-info to each MTA. Read are the forms of Postfix and Sendmail (``from HELO (NAME [IP])``,
``from HELO ([IP])``) and of Exim (``from NAME ([IP] helo=HELO)``, ``from [IP] (helo=HELO)``). Only a field that a
trusted relay wrote may be read so: anybody can write one.
"""

from __future__ import annotations

import re

from assay.model.smtp import Address, parse_address

MAX_OCTETS = 2000  # of the field that are looked at; MTAs write the client first

_FROM = re.compile(r"\s*from\s+(\S+)\s*(?:\(([^()]*)\))?", re.IGNORECASE)
_LITERAL = re.compile(r"\[([0-9A-Fa-f:.]+|IPv6:[0-9A-Fa-f:.]+)\]", re.IGNORECASE)
_EXIM_HELO = re.compile(r"\bhelo=(\S+)", re.IGNORECASE)


def parse_received(value: bytes) -> tuple[Address, str] | None:
    """The client's address and its HELO argument, or None where the field does not tell an address.

    :param value: the field's value, folded or not.
    """
    text = value[:MAX_OCTETS].replace(b"\r\n", b"").decode("utf-8", "surrogateescape")
    match = _FROM.match(text)
    if match is None:
        return None
    name, information = match[1], match[2] or ""
    literal = _LITERAL.search(information) or _LITERAL.fullmatch(name)
    address = parse_address(literal[1]) if literal is not None else None
    if address is None:
        return None
    helo = _EXIM_HELO.search(information)
    return address, helo[1] if helo is not None else name
