# SPDX-License-Identifier: GPL-3.0-or-later
"""What assay answers to a published SPF or Sender ID case, for the tests and for the page that lists the answers."""

from __future__ import annotations

from assay.model.name import ReversePath
from assay.model.smtp import Address, parse_address
from assay.protocol import senderid, spf
from conformance.cases import Case
from zone import Zone

#: What ``%{r}`` stands for in the one suite that looks.
RECEIVER = "localdomain.foo.bar"


def evaluate(case: Case, address: Address) -> spf.Evaluation:
    """Run an SPF case: MAIL FROM, which is the postmaster at the HELO name where it is null."""
    reverse_path = ReversePath.parse(case["mailfrom"])
    request = spf.Request(address, case["helo"], receiver=RECEIVER).of_mail_from(reverse_path)
    return Zone(case["dns"]).solve(spf.check(request))


def evaluate_senderid(case: Case, address: Address) -> senderid.Evaluation:
    """Run a Sender ID case: both suites check MAIL FROM.

    They contradict each other on a domain with an spf2.0 and a v=spf1 record. One holds with RFC 4406, 4.4; the other
    comes from an SPF library that looks at spf2.0 only where there is no v=spf1. We can do either.
    """
    sender = case["mailfrom"]
    domain = sender.rpartition("@")[2]
    spf1 = senderid.Spf1.PREFER if case["suite"] == "spf-noxxi-misc" else senderid.Spf1.FALLBACK
    request = spf.Request(address, case["helo"], domain, sender)
    inquiry = senderid.check_host(request, senderid.Scope.MFROM, spf1=spf1)
    return Zone(case["dns"]).solve(inquiry)


def answer(case: Case) -> tuple[str, str]:
    """Our result word and our reason."""
    address = parse_address(case["ip"])
    if address is None:
        return "none", "the client has no address, so no check is begun"
    evaluation = evaluate_senderid(case, address) if case["kind"] == "senderid" else evaluate(case, address)
    return evaluation.result.value, evaluation.reason
