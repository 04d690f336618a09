# SPDX-License-Identifier: GPL-3.0-or-later
"""What assay reads in the Authentication-Results of a published case."""

from __future__ import annotations

from assay.protocol import authres
from conformance.cases import Case


def read(case: Case) -> authres.AuthenticationResults | authres.FieldFault:
    """Parse the case's field."""
    return authres.parse(case["header"].encode())


def answer(case: Case) -> tuple[str, str]:
    """Whether the field can be read, and why not."""
    parsed = read(case)
    if isinstance(parsed, authres.FieldFault):
        return "invalid", parsed.reason
    return "valid", ""
