# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn ``[srs]`` into what rewrites senders. The secrets are read here, once."""

from __future__ import annotations

from pathlib import Path

from assay import secrets
from assay.config.section import SettingError
from assay.config.srs import SrsSection
from assay.model.name import Domain
from assay.model.network import Networks
from assay.policy import Rewriting
from assay.policy.addresses import Entries
from assay.protocol import srs


def make_rewriting(section: SrsSection) -> Rewriting | None:
    """What rewrites senders; None if nothing is configured.

    :raises SettingError: the secrets cannot be used, or an entry is not a domain; the message names the place and the
        fix.
    """
    if not section.domain:
        return None
    domain = Domain.parse_host(section.domain)
    return Rewriting(
        srs.Scheme(
            domain.name,
            _secrets(section.secrets_file),
            section.separator,
            section.hash_length,
            section.min_hash_length,
            section.max_age_days,
        ),
        _domains("own_domains", (*section.own_domains, domain.name)),
        networks=Networks.parse(section.networks) if section.networks else None,
        daemon_names=frozenset(section.daemon_names),
        logins=frozenset(section.logins),
        senders=_domains("sender_domains", section.sender_domains),
        recipients=_domains("recipient_domains", section.recipient_domains),
    )


def _secrets(name: str) -> tuple[bytes, ...]:
    path = Path(name)
    try:
        return tuple(line.strip() for line in secrets.read(path).splitlines() if line.strip())
    except secrets.SecretError as error:
        raise SettingError("srs.secrets_file", str(error)) from error


def _domains(key: str, texts: tuple[str, ...]) -> Entries:
    try:
        entries = Entries.parse(texts)
    except ValueError as error:
        raise SettingError(f"srs.{key}", str(error)) from error
    if entries.addresses:
        raise SettingError(f"srs.{key}", f"{min(entries.addresses)!r} is not a domain; write one such as example.org")
    return entries
