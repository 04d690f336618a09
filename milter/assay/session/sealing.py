# SPDX-License-Identifier: GPL-3.0-or-later
"""Sealing mail that leaves again: the ARC set of this hop (RFC 8617, 5.1)."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from assay.model.edits import Edit, Insert, edited
from assay.model.message import NO_HEADER, Header
from assay.policy import SealingKey
from assay.protocol import arc, dkim


class Sealed(Struct, frozen=True):
    """The ARC set of a message, or why it has none. `edits` insert it, the uppermost field last."""

    edits: tuple[Insert, ...] = ()
    by: str = ""
    why: str = ""

    @property
    def word(self) -> str:
        """As in the log: domain and selector, or ``none``."""
        return self.by or "none"


def seal(
    key: SealingKey,
    header: Header,
    edits: Sequence[Edit],
    hashes: dkim.BodyHashes,
    validation: arc.Evaluation | None,
    *,
    authserv_id: str,
    now: int,
) -> Sealed:
    """Make the set, over the message as it leaves.

    :param header: as it arrived.
    :param edits: all edits of the header so far, with our Authentication-Results.
    :param hashes: made for a set of specs that includes ``arc.BODY_HASH_SPEC``, and fed with the whole body.
    :param validation: of the chain that arrived.
    :param now: Unix time in seconds, for t=.
    """
    if validation is None:
        return Sealed(why="the chain was not validated")
    # RFC 8617, 4.1.1: exactly what we found. Fields that arrived in our name are those of a host that we trust.
    written = edited(NO_HEADER, [edit for edit in edits if isinstance(edit, Insert)])
    fields = arc.seal(
        edited(header, edits),
        hashes,
        validation=validation,
        authserv_id=authserv_id,
        authentication_results=arc.recorded_results(written, authserv_id),
        domain=key.domain,
        selector=key.key.selector,
        private_key=key.key.private,
        timestamp=now,
    )
    if not fields:  # RFC 8617, 5.1, steps 2 and 3
        failed = validation.result is arc.Result.FAIL
        return Sealed(why="the chain failed before" if failed else f"the chain has {arc.MAX_SETS} sets")
    inserted = tuple(
        Insert(field.name.decode(), field.value.decode("utf-8", "surrogateescape").removeprefix(" "))
        for field in reversed(fields)
    )
    return Sealed(inserted, f"{key.domain}/{key.key.selector}")
