# SPDX-License-Identifier: GPL-3.0-or-later
"""What assay answers to a published IPREV case."""

from __future__ import annotations

from ipaddress import ip_address

from assay.protocol import iprev
from conformance.cases import Case
from zone import Zone


def evaluate(case: Case) -> iprev.Evaluation:
    """The whole evaluation of a case."""
    return Zone(case["dns"]).solve(iprev.evaluate(ip_address(case["ip"])))


def answer(case: Case) -> tuple[str, str]:
    """The result word and the reason."""
    evaluation = evaluate(case)
    return evaluation.result.value, evaluation.reason
