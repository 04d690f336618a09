# SPDX-License-Identifier: GPL-3.0-or-later
"""What a relay of our own wrote into its Received field about its client (RFC 5321, 4.4).

The standard leaves the TCP-info to each MTA. Read are the forms of Postfix and Sendmail (``from HELO (NAME [IP])``,
``from HELO ([IP])``) and of Exim (``from NAME ([IP] helo=HELO)``, ``from [IP] (helo=HELO)``). Only a field that a
trusted relay wrote may be read so: anybody can write one.

Even there HELO is the client's own word, and it may be an address literal: of our network, or of the mail server of
whom it impersonates. So an address is taken from those places only where no MTA puts that word; another form tells
nothing, which costs a pass and never gives one.
"""

from __future__ import annotations

import re

from assay.model.smtp import Address, parse_address

MAX_OCTETS = 2000  # of the field that are looked at; MTAs write the client first

_LITERAL = r"\[((?:IPv6:)?[0-9A-Fa-f:.]+)\](?::[0-9]+)?"  # Exim may write the port behind it
#: The comment goes up to the next parenthesis of either kind: Sendmail writes "(may be forged)" inside it.
_FROM = re.compile(r"[ \t]*from[ \t]+([^\s()]+)[ \t]+\(([^()]*)[()]", re.IGNORECASE)
_NAME = re.compile(_LITERAL, re.IGNORECASE)
#: Postfix, Sendmail, and Exim where the client has a name: at the beginning, or behind one word that is a name.
_ADDRESS = re.compile(rf"(?:(?!(?:HELO|EHLO)[ \t])[^ \t=\[\]]+[ \t]+)?{_LITERAL}(?=[ \t]|\Z)", re.IGNORECASE)
#: Exim where the client has none: nothing in the comment is the relay's own word.
_ONLY_CLAIMS = re.compile(r"(?:port|helo|ident)=", re.IGNORECASE)
_EXIM_HELO = re.compile(r"(?:\A|[ \t])helo=(\S+)", re.IGNORECASE)


def parse_received(value: bytes) -> tuple[Address, str] | None:
    """The client's address and its HELO argument, or None where the field does not tell an address.

    :param value: the field's value, folded or not.
    """
    text = value[:MAX_OCTETS].replace(b"\r\n", b"").decode("utf-8", "surrogateescape")
    match = _FROM.match(text)
    if match is None:
        return None
    name, information = match[1], match[2]
    literal = _NAME.fullmatch(name) if _ONLY_CLAIMS.match(information) else _ADDRESS.match(information)
    address = parse_address(literal[1]) if literal is not None else None
    if address is None:
        return None
    helo = _EXIM_HELO.search(information)
    return address, helo[1] if helo is not None else name
