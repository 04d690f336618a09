# SPDX-License-Identifier: GPL-3.0-or-later
"""What assay answers to a published SRS case."""

from __future__ import annotations

from assay.protocol import srs
from conformance.cases import Case


def answer(case: Case) -> tuple[str, str]:
    """The address, or ``error``; and the reason. Addresses of local domains are not rewritten, as in the milter."""
    scheme = srs.Scheme(
        case["srs_domain"],
        tuple(secret.encode() for secret in case["secret"]),
        separator=case["separator"],
        hash_length=case["hash_length"],
        min_hash_length=case["hash_length"],
        max_age_days=case["max_age_days"],
    )
    address = case["address"]
    if case["op"] == "forward" and address.rpartition("@")[2] in case["local_domains"]:
        return address, "local domain"
    try:
        return getattr(srs, case["op"])(address, scheme, case["now"]), ""
    except srs.SrsError as error:
        return "error", str(error)
