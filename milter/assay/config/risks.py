# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that are allowed and open a door which the operator may not see."""

from __future__ import annotations

from collections.abc import Iterator

from assay.config.settings import Configuration


def risks(configuration: Configuration) -> Iterator[str]:
    """Each risk in one sentence that names the key, what may happen, and what to write instead."""
    milter = configuration.milter
    if milter.dry_run and not milter.dry_run_headers:
        yield (
            "milter.dry_run: forged Authentication-Results and Received-SPF fields stay in the messages; "
            "let nothing behind believe them, or set milter.dry_run_headers"
        )
