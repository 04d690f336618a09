# SPDX-License-Identifier: GPL-3.0-or-later
"""What all sections of the configuration file share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin

import msgspec

from assay.model.name import Domain, InvalidNameError
from assay.packages import installing
from assay.policy.addresses import Entries


class SettingError(ValueError):
    """A key has a value that it cannot have. The message quotes the value and says what to write.

    :ivar key: the key, below its section.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[section]`` of the file."""


def row_type(hint: Any) -> type[Section] | None:
    """The section that each table of a ``[[section]]`` is; None for the type of any other key."""
    if get_origin(hint) is not tuple:
        return None
    row = get_args(hint)[0]
    return row if isinstance(row, type) and issubclass(row, Section) else None


def parse_domain(key: str, text: str) -> Domain:
    """A domain.

    :param key: of the configuration, for the message.
    :raises SettingError: it is not one.
    """
    try:
        return Domain.parse_host(text)
    except InvalidNameError as error:
        raise SettingError(key, f"{text!r} is not a domain: {error}") from error


def parse_entries(key: str, texts: Iterable[str], *, exact: bool = False, delimiters: str = "") -> Entries:
    """A list of addresses and domains.

    :param key: of the configuration, for the message.
    :param exact: as in `Entries.parse`, likewise `delimiters`.
    :raises SettingError: an entry could never match.
    """
    try:
        return Entries.parse(texts, exact=exact, delimiters=delimiters)
    except ValueError as error:
        raise SettingError(key, str(error)) from error


def parse_domain_entries(key: str, texts: Iterable[str]) -> Entries:
    """A list of domains.

    :param key: of the configuration, for the message.
    :raises SettingError: an entry is an address, or could never match.
    """
    entries = parse_entries(key, texts)
    if entries.addresses:
        raise SettingError(key, f"{min(entries.addresses)!r} is not a domain; write one such as example.org")
    return entries


def require(key: str, packages: Mapping[str, str]) -> None:
    """Check that Python packages are installed.

    :param key: of the configuration, which needs them.
    :param packages: the names under which they are installed, by module.
    :raises SettingError: some are not.
    """
    if command := installing(**packages):
        raise SettingError(key, f"this needs Python packages; run: {command}")
