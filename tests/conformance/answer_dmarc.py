# SPDX-License-Identifier: GPL-3.0-or-later
"""What assay answers to a published DMARC case."""

from __future__ import annotations

from typing import Any

from assay.model.message import HeaderField
from assay.model.name import Domain
from assay.protocol import dmarc
from conformance.cases import Case
from zone import Zone


def evaluate(case: Case) -> tuple[dmarc.Discovery | None, dmarc.Evaluation]:
    """What was discovered for the author of a case, and the verdict."""
    author = dmarc.author([HeaderField(b"From", b" " + case["from"].encode("utf-8", "surrogateescape"))])
    if author.domain is None:
        return None, dmarc.no_author(author.fault)
    zone = Zone(case["dns"])
    discovery = zone.solve(dmarc.discover(author.domain))
    spf = _identifier(case["spf"]) if case.get("spf") else None
    return discovery, zone.solve(dmarc.evaluate(discovery, spf, [_identifier(one) for one in case["dkim"]]))


def answer(case: Case) -> tuple[str, str]:
    """The result word and the reason."""
    _, evaluation = evaluate(case)
    return evaluation.result.value, evaluation.reason


def _identifier(row: dict[str, Any]) -> dmarc.Identifier:
    return dmarc.Identifier(Domain.parse(row["domain"]), row["result"])
