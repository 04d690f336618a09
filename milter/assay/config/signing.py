# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn ``[sign]`` into what signs. Tables and key files are read here, once; each key is parsed once."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path

from assay import files, keyring, secrets
from assay.config.configuration import Configuration
from assay.config.section import SettingError
from assay.config.sign import SignDomainSection, SignSection, parse_canonicalization
from assay.keys import DomainRow, DomainTable, Identities, Senders, SendersError, Signatory, Signing, parse_senders
from assay.keys.opendkim import (
    AUTHOR_DOMAIN,
    DataSet,
    KeyRow,
    LoadedKey,
    SigningTable,
    TableEntry,
    TableError,
    data_set,
    entries,
    files_for,
    key_rows,
    signing_rows,
)
from assay.keys.table import Table
from assay.model.name import Domain, InvalidNameError
from assay.protocol import dkim

_DAY = 86_400
_SUFFIXES = (".pem", ".private")  # that of "assay keys", and that of opendkim-genkey


def make_signing(configuration: Configuration) -> Signing | None:
    """What signs mail of ours; None if nothing is configured.

    :raises ValueError: a table or a key cannot be used, or a domain is configured twice; the message names the place
        and the fix.
    """
    section = configuration.sign
    tables: list[Table] = []
    keys = Keys()
    if section.domain:
        tables.append(_domain_table(section, keys))
    if section.signing_table:
        tables.append(_signing_table(section, keys))
    if not tables:
        return None
    return Signing(
        tuple(tables),
        Identities(section.sender_field, section.mail_from),
        _senders(section.senders) if section.senders else None,
        section.on_error,
        section.unpublished,
    )


class Keys:
    """Reads private keys, each file once."""

    def __init__(self) -> None:
        self._read: dict[Path, dkim.PrivateKey] = {}

    def read(self, key: str, path: Path) -> dkim.PrivateKey:
        """Read a private key.

        :param key: of the configuration, for messages.
        :raises SettingError: it cannot be used; the message names the file and the fix.
        """
        found = self._read.get(path)
        if found is None:
            try:
                found = self._read[path] = dkim.load_private_key(secrets.read(path))
            except secrets.SecretError as error:
                raise SettingError(key, str(error)) from error
            except ValueError as error:
                raise SettingError(key, f"{path}: {error}") from error
        return found


def _rules(section: SignSection, canonicalization: str | None = None) -> dkim.SigningRules:
    header, body = parse_canonicalization(canonicalization or section.canonicalization)
    return dkim.SigningRules(header, body, section.fields, section.oversigned_fields, section.expire_days * _DAY)


def _domain_table(section: SignSection, keys: Keys) -> DomainTable:
    rows: dict[str, DomainRow] = {}
    for number, row in enumerate(section.domain, 1):
        place = f"sign.domain {number}"
        domain = Domain.parse_host(row.domain)
        if domain.name in rows:
            earlier = rows[domain.name].signatory.place
            raise SettingError(f"{place}.domain", f"{row.domain!r} is already in {earlier}; write its keys there")
        signatory = _signatory(place, row, _rules(section, row.canonicalization), keys)
        rows[domain.name] = DomainRow(signatory, row.subdomains, row.identity)
    return DomainTable(rows)


def _signatory(place: str, section: SignDomainSection, rules: dkim.SigningRules, keys: Keys) -> Signatory:
    domain = Domain.parse_host(section.domain)
    if not section.selectors:
        return _of_directory(place, Path(section.key_directory), domain, rules)
    found = (
        dkim.SigningKey(Domain.parse_host(selector), keys.read(f"{place}.{key}", path))
        for selector, (key, path) in zip(section.selectors, _paths(place, section), strict=True)
    )
    return Signatory(domain, tuple(found), rules, place=place)


def _of_directory(place: str, path: Path, domain: Domain, rules: dkim.SigningRules) -> Signatory:
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
        tuple(dkim.SigningKey(Domain(key.selector), private) for key, private in keys)
        for keys in (found.active, found.retiring)
    )
    return Signatory(domain, active, rules, place=place, reserve=retiring)


def _paths(place: str, section: SignDomainSection) -> Iterator[tuple[str, Path]]:
    """The key file of each selector, with the key of the configuration that names it."""
    for path in section.key_files:
        yield "key_files", Path(path)
    for selector in section.selectors if section.key_directory else ():
        folder = Path(section.key_directory)
        try:
            found = [path for path in (folder / f"{selector}{suffix}" for suffix in _SUFFIXES) if path.exists()]
        except OSError as error:
            raise SettingError(f"{place}.key_directory", f"{folder}: cannot be read: {error.strerror}") from error
        if not found:
            raise SettingError(f"{place}.key_directory", f"{folder} has no {selector}.pem and no {selector}.private")
        yield "key_directory", found[0]


def read_key_table(text: str) -> tuple[KeyRow, ...]:
    """The rows of an OpenDKIM KeyTable, without reading its keys.

    :param text: the data set, as opendkim.conf(5) has it.
    :raises ValueError: it cannot be read; the message names the place.
    """
    return tuple(key_rows(_entries("key_table", text)[1]).values())


def _signing_table(section: SignSection, keys: Keys) -> SigningTable:
    try:
        loaded: dict[str, LoadedKey] = {}
        for name, row in key_rows(_entries("key_table", section.key_table)[1]).items():
            loaded[name] = LoadedKey(row, dict(_keys_at(f"sign.key_table: {row.place}", row.path, keys)))
    except TableError as error:
        raise SettingError("sign.key_table", str(error)) from error
    try:
        kind, table = _entries("signing_table", section.signing_table)
        rows = signing_rows(kind, table, loaded)
    except TableError as error:
        raise SettingError("sign.signing_table", str(error)) from error
    return SigningTable(kind, rows, loaded, _rules(section), all_matches=section.multiple_signatures)


def _entries(key: str, text: str) -> tuple[DataSet, list[TableEntry]]:
    kind, where = data_set(text)
    return kind, list(entries(kind, where, where if kind is DataSet.LIST else _read(f"sign.{key}", Path(where))))


def _keys_at(key: str, path: str, keys: Keys) -> Iterator[tuple[str | None, dkim.PrivateKey]]:
    """The keys of a path, by the author domain that ``%`` in it stands for."""
    if AUTHOR_DOMAIN not in path:
        yield None, keys.read(key, Path(path))
        return
    pattern, domain_of = files_for(path)
    for found in sorted(glob.glob(pattern)):
        match = domain_of.fullmatch(found)
        if match is None:  # another directory where % is twice
            continue
        try:
            yield Domain.parse_host(match["domain"]).name, keys.read(key, Path(found))
        except InvalidNameError:
            continue  # something else lies there


def _senders(path: str) -> Senders:
    try:
        return parse_senders(_read("sign.senders", Path(path)))
    except SendersError as error:
        raise SettingError("sign.senders", f"{path}:{error}") from error


def _read(key: str, path: Path) -> str:
    try:
        return files.read_text(path)
    except OSError as error:
        raise SettingError(key, f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingError(key, f"{path}: {files.not_text(error)}") from error
