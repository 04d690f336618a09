# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys that ``[sign]`` names, for comparing them with what is published."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from assay.keys.signing import Signing
from assay.model.name import Domain
from assay.protocol import dkim


class ConfiguredKey(Struct, frozen=True):
    """The public half of a key that ``[sign]`` names.

    :ivar place: where it is configured.
    :ivar record: its key record.
    :ivar below: the domain in i= may be below that in d=.
    """

    place: str
    domain: Domain
    selector: Domain
    record: str
    below: bool


def configured(signing: Signing | None) -> Iterator[ConfiguredKey]:
    """All of them, in the order of the tables."""
    for table in signing.tables if signing is not None else ():
        for signatory in table.signatories:
            identity = signatory.identity.rpartition("@")[2].lower()
            below = identity not in ("", signatory.domain.name)
            for key in signatory.keys:
                yield ConfiguredKey(signatory.place, signatory.domain, key.selector, dkim.record_of(key.private), below)
