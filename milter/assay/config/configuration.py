# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole configuration file. Each section's struct says what can be set, with what default, and why.

The sample file is generated from these structs, so a description there is what an operator reads. A struct checks what
its types cannot: a ``ValueError`` in ``__post_init__`` becomes a message that names the section.
"""

from __future__ import annotations

import msgspec

from assay.config.methods import ArcSection, DkimSection, DmarcSection, IprevSection, SenderidSection, SpfSection
from assay.config.responses import HeadersSection, RepliesSection, RuleSection
from assay.config.section import Section
from assay.config.site import Addresses, ClientsSection, DnsSection, IdentitySection, LogSection, MilterSection


class Configuration(Section, frozen=True):
    """The whole file. Every section may be left out."""

    milter: MilterSection = MilterSection()
    identity: IdentitySection = IdentitySection()
    clients: ClientsSection = ClientsSection()
    addresses: Addresses = Addresses()
    dns: DnsSection = DnsSection()
    iprev: IprevSection = IprevSection()
    spf: SpfSection = SpfSection()
    dkim: DkimSection = DkimSection()
    arc: ArcSection = ArcSection()
    senderid: SenderidSection = SenderidSection()
    dmarc: DmarcSection = DmarcSection()
    headers: HeadersSection = HeadersSection()
    replies: RepliesSection = msgspec.field(default_factory=RepliesSection)
    lists: dict[str, str] = msgspec.field(default_factory=dict)
    rule: tuple[RuleSection, ...] = ()
    log: LogSection = LogSection()
