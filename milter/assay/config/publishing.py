# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``assay keys`` works with, from ``[keys]``. Not imported by the daemon, which changes no DNS."""

from __future__ import annotations

from pathlib import Path

from assay import resolver
from assay.config.keys import KeysSection
from assay.config.section import SettingError
from assay.config.site import DnsSection
from assay.keyring.publisher import CommandPublisher, NoPublisher, Publisher, UpdatePublisher
from assay.model.name import Domain
from assay.resolver.authority import Authority
from assay.resolver.update import Updater, read_tsig


def make_authority(keys: KeysSection, dns: DnsSection) -> Authority:
    """What asks the authoritative servers what is published.

    :raises SettingError: an encrypted nameserver lacks certificates or a library.
    """
    nameservers = resolver.configured(dns.nameserver_texts)
    return Authority(
        nameservers,
        servers=tuple(map(resolver.parse_nameserver, keys.nameservers)),
        patience=dns.timeout_seconds,
        contexts=dns.contexts(nameservers),
    )


def make_publisher(keys: KeysSection, authority: Authority, domain: Domain) -> Publisher:
    """What publishes the records of a domain.

    :raises SettingError: the TSIG key cannot be used.
    """
    if keys.publish_command:
        return CommandPublisher(keys.publish_command, keys.ttl_seconds)
    if not keys.update_server:
        return NoPublisher()
    try:
        tsig = read_tsig(Path(keys.tsig_file))
    except ValueError as error:
        raise SettingError("keys.tsig_file", str(error)) from error
    server = resolver.parse_nameserver(keys.update_server)

    def find() -> Updater:
        # _domainkey may be a zone of its own.
        return Updater(server, keys.update_zone or authority.zone(f"_domainkey.{domain}"), tsig)

    return UpdatePublisher(find, keys.ttl_seconds)
