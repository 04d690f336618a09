# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn ``[sign]`` into what signs: key files are read and parsed here, once."""

from __future__ import annotations

from pathlib import Path

from assay import keyring, secrets
from assay.config.configuration import Configuration
from assay.config.section import SettingError
from assay.config.sign import SignDomainSection
from assay.keys import DomainRow, DomainTable, Signatory, Signing
from assay.model.name import Domain
from assay.protocol import dkim


def make_signing(configuration: Configuration) -> Signing | None:
    """What signs mail of ours; None if nothing is configured.

    :raises ValueError: a key cannot be used, or a domain is configured twice; the message names the place and the fix.
    """
    section = configuration.sign
    rows: dict[str, DomainRow] = {}
    for number, one in enumerate(section.domain, 1):
        place = f"sign.domain {number}"
        domain = Domain.parse_host(one.domain)
        if domain.name in rows:
            earlier = rows[domain.name].signatory.place
            raise SettingError(f"{place}.domain", f"{one.domain!r} is already in {earlier}; write its keys there")
        rows[domain.name] = DomainRow(_signatory(place, one), one.subdomains)
    if not rows:
        return None
    return Signing((DomainTable(rows),), section.on_error, section.unpublished)


def _signatory(place: str, section: SignDomainSection) -> Signatory:
    domain = Domain.parse_host(section.domain)
    if section.key_directory:
        return _of_directory(place, Path(section.key_directory), domain)
    keys = (
        dkim.SigningKey(Domain.parse_host(selector), read_key(f"{place}.key_files", Path(path)))
        for selector, path in zip(section.selectors, section.key_files, strict=True)
    )
    return Signatory(domain, tuple(keys), place=place)


def _of_directory(place: str, path: Path, domain: Domain) -> Signatory:
    """What signs with the keys of a directory that are active now."""
    key = f"{place}.key_directory"
    try:
        found = keyring.Directory(path).signing()
    except keyring.KeyringError as error:
        raise SettingError(key, str(error)) from error
    if found.domain != domain.name:
        raise SettingError(key, f"{path} has the keys of {found.domain}; name the directory of {domain}")
    if not found.active:
        raise SettingError(
            key,
            f"{path} has no active key, so mail of {domain} would be unsigned; publish one: assay keys rotate --due",
        )
    active, retiring = (
        tuple(dkim.SigningKey(Domain(one.selector), private) for one, private in keys)
        for keys in (found.active, found.retiring)
    )
    return Signatory(domain, active, place=place, reserve=retiring)


def read_key(key: str, path: Path) -> dkim.PrivateKey:
    """Read a private key.

    :param key: of the configuration, for messages.
    :raises SettingError: it cannot be used; the message names the file and the fix.
    """
    try:
        return dkim.load_private_key(secrets.read(path))
    except secrets.SecretError as error:
        raise SettingError(key, str(error)) from error
    except ValueError as error:
        raise SettingError(key, f"{path}: {error}") from error
