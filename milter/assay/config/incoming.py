# SPDX-License-Identifier: GPL-3.0-or-later
"""``[reports.incoming]``: reports that others send about our domains."""

from __future__ import annotations

import os
import socket
from typing import Annotated

from msgspec import Meta

from assay.config.section import Section, SettingError, parse_domain
from assay.config.sockets import check_endpoint, check_mode
from assay.model.name import Domain
from assay.model.smtp import parse_address


class IncomingSection(Section, frozen=True):
    """Reports that others send about your domains: DMARC aggregate and failure reports, and TLS reports. The MTA hands
    them over by LMTP, or "assay report read" reads them from files and maildirs. The store keeps
    them. See docs/reports.md."""

    domains: Annotated[
        tuple[str, ...],
        Meta(
            description="Your domains, each with all below it. A report about another domain is not used. Without "
            "them, none is read."
        ),
    ] = ()
    listen: Annotated[
        str,
        Meta(
            description="Where the MTA hands over reports and bounces, by LMTP: inet:PORT@127.0.0.1, inet6:PORT@::1 or "
            "unix:PATH. Empty: nowhere."
        ),
    ] = ""
    socket_mode: Annotated[str, Meta(description="Permissions of a unix socket, in octal.")] = "0660"
    keep_unreadable: Annotated[
        str,
        Meta(
            description="A directory in which mails are kept that cannot be read as reports, such as "
            "/var/lib/assay/unreadable: the newest 1,000, and 256 MiB at most. Empty: only the database keeps them, "
            "without the content of the large ones."
        ),
    ] = ""

    def __post_init__(self) -> None:
        for name in self.domains:
            parse_domain("domains", name)
        if self.listen:
            self._check_listen()
        check_mode(self.socket_mode)
        if self.keep_unreadable and not os.path.isabs(self.keep_unreadable):
            raise SettingError(
                "keep_unreadable",
                f"{self.keep_unreadable!r} is not an absolute path; write one such as /var/lib/assay/unreadable",
            )

    def _check_listen(self) -> None:
        endpoint = check_endpoint("listen", self.listen, "daemon/lmtp.sock")
        address = parse_address(endpoint.host)
        if endpoint.family != socket.AF_UNIX and (address is None or not address.is_loopback):
            raise SettingError(
                "listen",
                f"{self.listen!r} is not an address that only this host reaches; write one such as "
                "inet:8893@127.0.0.1: each client is believed to be the MTA",
            )
        if not self.domains:
            raise SettingError("domains", "missing; write the domains that reports may be about")

    @property
    def ours(self) -> tuple[Domain, ...]:
        """The domains."""
        return tuple(Domain.parse_host(name) for name in self.domains)
