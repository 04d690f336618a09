# SPDX-License-Identifier: GPL-3.0-or-later
"""What a relay of our own wrote into its Received field about its client (RFC 5321, 4.4).

The standard leaves the TCP-info to each MTA. These forms are read:

- Postfix and Sendmail: ``from HELO (NAME [IP])``, ``from HELO ([IP])``;
- Exim: ``from NAME ([IP] helo=HELO)``, ``from [IP] (helo=HELO)``, and ``from [IP] by ... (Exim 4.96)`` for a client
  that greets with its own address;
- Exchange: ``from HELO (IP) by NAME (IP) with Microsoft SMTP Server``; Cloudflare: ``from HELO (IP) by NAME``;
- qmail and qpsmtpd: ``from NAME (HELO HELO) (IDENT@IP) by``, and ``from NAME (IP) by`` where the client greets with its
  name.

Only a field that a trusted relay wrote may be read so: anybody can write one.

Even there HELO is the client's own word, and so is what identd says. HELO may be an address literal: of our network, or
of the mail server that it impersonates. So an address is read only from places where no MTA puts that word, and only if
what must follow it is there. Another form has no result, which costs a pass and never gives one.
"""

from __future__ import annotations

import re

from assay.model.smtp import Address, parse_address

MAX_OCTETS = 2000  # of the field that are read; MTAs write the client first

_LITERAL = r"\[((?:IPv6:)?[0-9A-Fa-f:.]+)\](?::[0-9]+)?"  # Exim may write the port after it
#: The comment goes up to the next parenthesis of either kind: Sendmail writes "(may be forged)" inside it.
_FROM = re.compile(r"[ \t]*from[ \t]+([^\s()]+)[ \t]+\(([^()]*)[()]", re.IGNORECASE)
_NAME = re.compile(_LITERAL, re.IGNORECASE)
#: Postfix, Sendmail, and Exim where the client has a name: at the start, or after one word that is a name.
_ADDRESS = re.compile(rf"(?:(?!(?:HELO|EHLO)[ \t])[^ \t=\[\]]+[ \t]+)?{_LITERAL}(?=[ \t]|\Z)", re.IGNORECASE)
#: Exim where the client has none: nothing in the comment is the relay's own word.
_ONLY_CLAIMS = re.compile(r"(?:port|helo|ident)=", re.IGNORECASE)
_EXIM_HELO = re.compile(r"(?:\A|[ \t])helo=(\S+)", re.IGNORECASE)

_BARE = r"(?:[^\s()]*@)?([0-9A-Fa-f:.]+)"  # qmail writes identd's word before it, with as many "@" as that has
#: Exchange, Cloudflare, qmail and qpsmtpd. "by" must follow at once: a HELO with its own parentheses moves it.
_FROM_BARE = re.compile(
    rf"[ \t]*from[ \t]+([^\s()]+)[ \t]+(?:\((?:HELO|EHLO)[ \t]+([^\s()]+)\)[ \t]+)?\({_BARE}\)[ \t]+by[ \t]",
    re.IGNORECASE,
)
#: What says that the word after "from" is HELO, also where it looks like an address: these write nothing else there.
_HELO_FIRST = re.compile(
    r"[^\s()]+[ \t]+(?:\([^\s()]*\)[ \t]+with[ \t]+Microsoft[ \t]+SMTP[ \t]+Server\b|\(cloudflare\)[ \t])",
    re.IGNORECASE,
)
#: Exim alone, which leaves a HELO out that is the client's address. Its name stands before anything of the envelope.
_EXIM_LITERAL = re.compile(
    rf"[ \t]*from[ \t]+{_LITERAL}[ \t]+by[ \t]+[^\s()]+[ \t]+with[ \t]+\w+"
    r"(?:[ \t]+(?:\([\w.:+-]+\)|tls[ \t]+[\w+-]+)){0,3}[ \t]+\(Exim[ \t]",
    re.IGNORECASE,
)

_BY = re.compile(r"[ \t]by[ \t]", re.IGNORECASE)
_SEPARATORS = re.compile(r"[ \t()\[\]=@]+")


def parse_received(value: bytes) -> tuple[Address, str] | None:
    """The client's address and its HELO argument, or None if the field does not give an address.

    :param value: the field's value, folded or not.
    """
    text = value[:MAX_OCTETS].replace(b"\r\n", b"").decode("utf-8", "surrogateescape")
    return _bracketed(text) or _bare(text) or _literal(text)


def claimed_names(value: bytes) -> list[str]:
    """The words that stand where a Received field names the client, HELO among them. Anybody may claim any of them."""
    text = value[:MAX_OCTETS].replace(b"\r\n", b"").decode("utf-8", "surrogateescape")
    return _SEPARATORS.split(_BY.split(text, maxsplit=1)[0])


def _bracketed(text: str) -> tuple[Address, str] | None:
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


def _bare(text: str) -> tuple[Address, str] | None:
    match = _FROM_BARE.match(text)
    if match is None:
        return None
    name, helo, bare = match.groups()
    if helo is None and _is_address(name) and not _HELO_FIRST.match(text, match.end()):
        return None  # which of the two is HELO?
    address = parse_address(bare)
    return (address, helo or name) if address is not None else None


def _literal(text: str) -> tuple[Address, str] | None:
    match = _EXIM_LITERAL.match(text)
    address = parse_address(match[1]) if match is not None else None
    return (address, f"[{address}]") if address is not None else None


def _is_address(name: str) -> bool:
    return name.startswith("[") or parse_address(name) is not None
