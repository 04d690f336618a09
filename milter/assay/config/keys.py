# SPDX-License-Identifier: GPL-3.0-or-later
"""``[keys]``: where signing keys are kept, when they are replaced, and how their records get into the DNS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from assay import resolver
from assay.config.section import Section, SettingError
from assay.keys.rotation import DAY, KeyType, Schedule
from assay.model.name import Domain, InvalidNameError


class KeysSection(Section, frozen=True):
    """Signing keys that "assay keys" makes, publishes and replaces. The daemon only reads them. See docs/keys.md."""

    directory: Annotated[
        str,
        Meta(
            description="The directory that has one directory of keys for each domain. New ones get its "
            "owner, group and permissions, so that the daemon's group can read what root writes."
        ),
    ] = "/var/lib/assay/keys"
    types: Annotated[
        tuple[KeyType, ...],
        Meta(
            min_length=1,
            description='The types of keys that each domain has: "rsa", "ed25519". Many receivers do not know Ed25519 '
            "(RFC 8463), so it is useful only together with RSA, and some report its signatures as errors.",
        ),
    ] = (KeyType.RSA,)
    rsa_bits: Annotated[
        int,
        Meta(
            ge=1024,
            le=4096,
            description="The size of new RSA keys. RFC 8301, 3.2 advises 2048; a longer key does not fit into one "
            "answer over UDP everywhere.",
        ),
    ] = 2048
    rotate_days: Annotated[
        int,
        Meta(
            ge=0,
            le=3650,
            description='How long a key signs before "assay keys rotate --due" replaces it. 0: it is replaced only by '
            "hand. The default limits the damage that a stolen key can do.",
        ),
    ] = 180
    overlap_days: Annotated[
        int,
        Meta(
            ge=1,
            le=365,
            description="How long the record of a replaced key stays published. MTAs retry for five days "
            "(RFC 5321, 4.5.4.1), and messages are read later.",
        ),
    ] = 7
    ttl_seconds: Annotated[
        int, Meta(ge=60, le=604_800, description="The TTL of key records that are published for you.")
    ] = 3600
    nameservers: Annotated[
        tuple[str, ...],
        Meta(
            description="Authoritative servers to ask what is published, as addresses, in place of those that the zone "
            "names: for split DNS, or a hidden primary. Each must answer with a key before it signs."
        ),
    ] = ()
    publish_command: Annotated[
        tuple[str, ...],
        Meta(
            description="A program, with its first arguments, that changes the DNS. It is run without a shell, with "
            'the further arguments "add" or "remove", the name, the TTL and the record. It must succeed if the '
            "change is already made. Empty: none."
        ),
    ] = ()
    update_server: Annotated[
        str,
        Meta(
            description="The primary server to which records are sent by DNS UPDATE (RFC 2136), as an address. Empty: "
            "none; then, and without a publish_command, you publish the records that are printed."
        ),
    ] = ""
    update_zone: Annotated[
        str, Meta(description="The zone that update_server changes. Empty: the one that the DNS names for a domain.")
    ] = ""
    tsig_file: Annotated[
        str,
        Meta(
            description='The key that authenticates updates, as "tsig-keygen" of BIND writes it. Only its owner and '
            "group may have access to it."
        ),
    ] = ""

    def __post_init__(self) -> None:
        for key, texts in (("nameservers", self.nameservers), ("update_server", (self.update_server,))):
            for text in filter(None, texts):
                try:
                    resolver.parse_nameserver(text)
                except resolver.NameserverError as error:
                    raise SettingError(key, str(error)) from error
        if self.publish_command and not Path(self.publish_command[0]).is_absolute():
            raise SettingError(
                "publish_command",
                f"{self.publish_command[0]!r} is not an absolute path; write the program's whole path",
            )
        if self.publish_command and self.update_server:
            raise SettingError("publish_command", "set together with update_server; remove one of the two")
        if self.update_server and not self.tsig_file:
            raise SettingError("update_server", "updates must be authenticated; set tsig_file")
        if self.tsig_file and not self.update_server:
            raise SettingError("tsig_file", "is never used; set update_server")
        if self.update_zone:
            try:
                Domain.parse_host(self.update_zone)
            except InvalidNameError as error:
                raise SettingError("update_zone", f"{self.update_zone!r} is not a zone: {error}") from error

    @property
    def schedule(self) -> Schedule:
        """When keys are made, replaced and removed."""
        return Schedule(tuple(dict.fromkeys(self.types)), self.rotate_days * DAY, self.overlap_days * DAY)
