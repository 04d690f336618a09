# SPDX-License-Identifier: GPL-3.0-or-later
"""``[reports.incoming]``: reports that others send about our domains."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from assay.config.section import Section, SettingError
from assay.model.name import Domain, InvalidNameError


class IncomingSection(Section, frozen=True):
    """Reports that others send about your domains: DMARC aggregate and failure reports, and TLS reports. "assay
    report read" reads them from files and maildirs, and the store keeps them. See docs/reports.md."""

    domains: Annotated[
        tuple[str, ...],
        Meta(
            description="Your domains, each with all below it. A report about another domain is not used. Without "
            "them, none is read."
        ),
    ] = ()

    def __post_init__(self) -> None:
        for name in self.domains:
            try:
                Domain.parse_host(name)
            except InvalidNameError as error:
                raise SettingError("domains", f"{name!r} is not a domain: {error}") from error

    @property
    def ours(self) -> tuple[Domain, ...]:
        """The domains."""
        return tuple(Domain.parse_host(name) for name in self.domains)
