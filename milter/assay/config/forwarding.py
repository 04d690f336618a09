# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn ``[srs]`` and ``[[arc.seal]]`` into what rewrites senders and seals. Secrets and keys are read here, once."""

from __future__ import annotations

from pathlib import Path

from assay import secrets
from assay.config.methods import ArcSection
from assay.config.section import SettingError, parse_domain_entries
from assay.config.signing import Keys
from assay.config.srs import SrsSection
from assay.model.name import Domain
from assay.model.network import Networks
from assay.policy import Rewriting, Sealing, SealingKey
from assay.protocol import dkim, srs


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
        parse_domain_entries("srs.own_domains", (*section.own_domains, domain.name)),
        networks=Networks.parse(section.networks) if section.networks else None,
        daemon_names=frozenset(section.daemon_names),
        logins=frozenset(section.logins),
        senders=parse_domain_entries("srs.sender_domains", section.sender_domains),
        recipients=parse_domain_entries("srs.recipient_domains", section.recipient_domains),
    )


def make_sealing(section: ArcSection) -> Sealing | None:
    """What seals mail that leaves again; None if nothing is configured.

    :raises SettingError: a key cannot be used, or an entry is not a domain; the message names the place and the fix.
    """
    if not section.seal:
        return None
    keys, found = Keys(), []
    for number, row in enumerate(section.seal, 1):
        place = f"arc.seal {number}"
        private = keys.read(f"{place}.key_file", Path(row.key_file))
        found.append(
            SealingKey(
                Domain.parse_host(row.domain),
                dkim.SigningKey(Domain.parse_host(row.selector), private),
                parse_domain_entries(f"{place}.recipient_domains", row.recipient_domains),
            )
        )
    return Sealing(tuple(found), parse_domain_entries("arc.own_domains", section.own_domains))


def _secrets(name: str) -> tuple[bytes, ...]:
    path = Path(name)
    try:
        lines = (line.strip() for line in secrets.read(path).splitlines())
        return tuple(dict.fromkeys(filter(None, lines)))  # each once, in order
    except secrets.SecretError as error:
        raise SettingError("srs.secrets_file", str(error)) from error
