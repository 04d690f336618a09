# SPDX-License-Identifier: GPL-3.0-or-later
"""DMARC: who really sent the message, by the domain in its From field (RFC 9989).

The path of a message: `author` finds the author domain, `discover` the record that applies to it, `evaluate` the
verdict, or `evaluate_several` where the author domain may be one of several. `walk_ahead` warms the cache for them;
`walk` and `organizational_domain` are for the reports.
"""

from assay.protocol.dmarc.alignment import MAX_NAMES_AHEAD, MAX_WALKED_NAMES, walk_ahead
from assay.protocol.dmarc.author import MAX_AUTHOR_DOMAINS, Author, author, from_fields
from assay.protocol.dmarc.discovery import Discovery, discover
from assay.protocol.dmarc.evaluate import LegacyPct, evaluate, evaluate_several, no_author
from assay.protocol.dmarc.record import Alignment, DmarcPolicy, DmarcRecord, is_record, parse
from assay.protocol.dmarc.result import DiscoveryMethod, Evaluation, Identifier, Result
from assay.protocol.dmarc.tree import MAX_QUERIES, Found, PublicSuffix, Walk, organizational_domain, walk

__all__ = [
    "MAX_AUTHOR_DOMAINS",
    "MAX_NAMES_AHEAD",
    "MAX_QUERIES",
    "MAX_WALKED_NAMES",
    "Alignment",
    "Author",
    "Discovery",
    "DiscoveryMethod",
    "DmarcPolicy",
    "DmarcRecord",
    "Evaluation",
    "Found",
    "Identifier",
    "LegacyPct",
    "PublicSuffix",
    "Result",
    "Walk",
    "author",
    "discover",
    "evaluate",
    "evaluate_several",
    "from_fields",
    "is_record",
    "no_author",
    "organizational_domain",
    "parse",
    "walk",
    "walk_ahead",
]
