# SPDX-License-Identifier: GPL-3.0-or-later
"""The section for signing mail of ours."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from assay.config.section import Section, SettingError
from assay.keys import OnSignError, Unpublished
from assay.model.name import Domain, InvalidNameError


class SignDomainSection(Section, frozen=True):
    """One domain that signs, with its keys. Each domain is a separate [[sign.domain]]."""

    domain: Annotated[
        str, Meta(min_length=1, description="The domain: mail with it in From is signed, with it as d= (DKIM).")
    ]
    key_directory: Annotated[
        str,
        Meta(
            description='The directory of keys that "assay keys" keeps for the domain: its active keys sign. Write it, '
            "or selectors and key_files."
        ),
    ] = ""
    selectors: Annotated[
        tuple[str, ...],
        Meta(
            description="The selectors of the keys. All of them sign each message, for instance one with RSA and one "
            "with Ed25519."
        ),
    ] = ()
    key_files: Annotated[
        tuple[str, ...], Meta(description="The private keys in PEM, one for each selector, in the same order.")
    ] = ()
    subdomains: Annotated[bool, Meta(description="Also sign for all domains below.")] = False

    def __post_init__(self) -> None:
        for key, names in (("domain", (self.domain,)), ("selectors", self.selectors)):
            for name in names:
                try:
                    Domain.parse_host(name)
                except InvalidNameError as error:
                    raise SettingError(key, f"{name!r} is not a {key.removesuffix('s')}: {error}") from error
        if bool(self.key_directory) is bool(self.selectors or self.key_files):
            raise SettingError(
                "key_directory", "write it, or selectors and key_files: one of the two, so that it is clear what signs"
            )
        if len(self.key_files) != len(self.selectors):
            raise SettingError(
                "key_files", f"{len(self.key_files)} files for {len(self.selectors)} selectors; write one for each"
            )


class SignSection(Section, frozen=True):
    """Signing mail of ours with DKIM: mail from internal networks, from authenticated users and through the services of
    clients.daemon_names. Mail from outside is not signed, whatever its From field says. Nothing is signed until a
    domain or a table is configured. See docs/signing.md."""

    domain: tuple[SignDomainSection, ...] = ()
    on_error: Annotated[
        OnSignError,
        Meta(
            description="What to do with a message that should be signed and cannot be. Domains whose policy is "
            "p=reject lose mail that is sent without a signature, so the default defers it."
        ),
    ] = OnSignError.TEMPFAIL
    unpublished: Annotated[
        Unpublished,
        Meta(
            description="What to do when the DNS does not publish a key that signs. It is looked up in the background: "
            "no message waits for it, and a DNS that does not answer changes nothing. With 'fall back', the other keys "
            "of the domain sign, those that are retiring included, if one of them is published; with 'tempfail', mail "
            "for which no published key is left is deferred. The default only warns in the log, because your own "
            "resolver may see something other than the world does."
        ),
    ] = Unpublished.SIGN
