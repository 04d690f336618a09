# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole configuration file. Each section's struct says what can be set, with what default, and why.

The sample file is generated from these structs, so a description there is what an operator reads. A struct checks what
its types cannot: a ``ValueError`` in ``__post_init__`` becomes a message that names the section.
"""

from __future__ import annotations

import msgspec

from assay.config.methods import Arc, Dkim, Dmarc, Iprev, Senderid, Spf
from assay.config.reactions import Headers, Replies, Rule
from assay.config.section import Section
from assay.config.surroundings import Addresses, Clients, Dns, Identity, Log, Milter


class Configuration(Section, frozen=True):
    """The whole file. Every section may be left out."""

    milter: Milter = Milter()
    identity: Identity = Identity()
    clients: Clients = Clients()
    addresses: Addresses = Addresses()
    dns: Dns = Dns()
    iprev: Iprev = Iprev()
    spf: Spf = Spf()
    dkim: Dkim = Dkim()
    arc: Arc = Arc()
    senderid: Senderid = Senderid()
    dmarc: Dmarc = Dmarc()
    headers: Headers = Headers()
    replies: Replies = msgspec.field(default_factory=Replies)
    lists: dict[str, str] = msgspec.field(default_factory=dict)
    rule: tuple[Rule, ...] = ()
    log: Log = Log()
