# SPDX-License-Identifier: GPL-3.0-or-later
"""Which signatures of a message come first (RFC 6376, 6.1 leaves order and number to the verifier).

A stranger may put thousands on a message, and mailing lists and forwarders put theirs in front of the author's. So one
look at each d= gives the order, and only the first ones are parsed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from assay.model.message import HeaderField
from assay.model.name import Domain

#: The d= tag with its value, after the semicolon that precedes every tag here. Each octet is read once: no part can
#: match another's octets.
_D_TAG = re.compile(rb";[ \t\r\n]*d[ \t\r\n]*=[ \t\r\n]*([^; \t\r\n]*)")


def preferred(fields: Sequence[HeaderField], author_domain: Domain | None) -> list[int]:
    """The positions of DKIM-Signature fields in the order to try them.

    Those of the author's domain come first, because they decide DMARC, then those above or below it, then those that
    may share its organizational domain, then all others; among equals, the upper one.

    :param author_domain: the domain of the From field, None where there is no single one.
    """
    if author_domain is None or len(fields) < 2:
        return list(range(len(fields)))
    return sorted(range(len(fields)), key=lambda place: _distance(fields[place], author_domain))


def _distance(field: HeaderField, author_domain: Domain) -> int:
    """How far the domain of a signature is from the author's, from 0 for the same to 3 for a stranger's.

    A d= with U-labels may be any, and converting it costs more than trying it: it counts as one above or below.
    """
    match = _D_TAG.search(b";" + field.value)
    if match is None:
        return 3
    if not match[1].isascii():
        return 1
    domain, author = match[1].decode().lower(), author_domain.name
    if domain == author:
        return 0
    if domain.endswith("." + author) or author.endswith("." + domain):
        return 1
    return 2 if domain.split(".")[-2:] == author.split(".")[-2:] else 3
