# SPDX-License-Identifier: GPL-3.0-or-later
"""What assay answers to a published SPF or Sender ID case, for the tests and for the page that lists the answers."""

from __future__ import annotations

from assay.model.name import ReversePath
from assay.model.smtp import Address, parse_address
from assay.protocol import spf
from conformance.cases import Case
from zone import Zone

#: What ``%{r}`` stands for in the one suite that looks.
RECEIVER = "localdomain.foo.bar"


def evaluate(case: Case, address: Address) -> spf.Evaluation:
    """Run an SPF case: MAIL FROM, which is the postmaster at the HELO name where it is null."""
    reverse_path = ReversePath.parse(case["mailfrom"])
    return Zone(case["dns"]).solve(spf.check_mail_from(address, case["helo"], reverse_path, receiver=RECEIVER))


def answer(case: Case) -> tuple[str, str]:
    """Our result word and our reason."""
    address = parse_address(case["ip"])
    if address is None:
        return "none", "the client has no address, so no check is begun"
    evaluation = evaluate(case, address)
    return evaluation.result.value, evaluation.reason
