# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole configuration file. Each section's struct lists its keys, their defaults and the reasons.

The sample file is generated from these structs, so operators read the descriptions. A struct checks what its types
cannot: a `SettingError` in ``__post_init__`` becomes a message that names file, section, key and value.
"""

from __future__ import annotations

import msgspec

from assay.config.keys import KeysSection
from assay.config.methods import ArcSection, DkimSection, DmarcSection, IprevSection, SenderidSection, SpfSection
from assay.config.reports import ReportsSection
from assay.config.responses import HeadersSection, RepliesSection, RuleSection
from assay.config.section import Section
from assay.config.sign import SignSection
from assay.config.site import (
    AddressesSection,
    ClientsSection,
    DnsSection,
    IdentitySection,
    MilterSection,
)
from assay.config.srs import SrsSection
from assay.config.store import StoreSection
from assay.config.watching import ControlSection, LogSection, MetricsSection
from assay.config.web import WebSection
from assay.model.name import Domain
from assay.policy.addresses import Entries


class Configuration(Section, frozen=True):
    """The whole file. Every section is optional."""

    milter: MilterSection = MilterSection()
    identity: IdentitySection = IdentitySection()
    clients: ClientsSection = ClientsSection()
    addresses: AddressesSection = AddressesSection()
    dns: DnsSection = DnsSection()
    iprev: IprevSection = IprevSection()
    spf: SpfSection = SpfSection()
    dkim: DkimSection = DkimSection()
    arc: ArcSection = ArcSection()
    senderid: SenderidSection = SenderidSection()
    dmarc: DmarcSection = DmarcSection()
    sign: SignSection = SignSection()
    keys: KeysSection = KeysSection()
    srs: SrsSection = SrsSection()
    headers: HeadersSection = HeadersSection()
    replies: RepliesSection = msgspec.field(default_factory=RepliesSection)
    lists: dict[str, str] = msgspec.field(default_factory=dict)
    rule: tuple[RuleSection, ...] = ()
    log: LogSection = LogSection()
    metrics: MetricsSection = MetricsSection()
    control: ControlSection = ControlSection()
    store: StoreSection = StoreSection()
    reports: ReportsSection = ReportsSection()
    web: WebSection = WebSection()

    @property
    def own_domains(self) -> tuple[str, ...]:
        """Our own domains, as A-labels: `web.domains`, or else those that sign and those of SRS."""
        if self.web.domains:
            return tuple(dict.fromkeys(Domain.parse_host(name).name for name in self.web.domains))
        names = [Domain.parse_host(row.domain).name for row in self.sign.domain]
        for text in self.srs.own_domains:
            entry = Entries.parse((text,))
            names += entry.domains | entry.alone  # *.example.org names none
        return tuple(dict.fromkeys(names))
