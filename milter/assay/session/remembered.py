# SPDX-License-Identifier: GPL-3.0-or-later
"""The evaluations that a worker remembers: for each, all that it depends on besides the answers of the DNS.

An incomplete key would give one message another's evaluation, so all keys are in one place.
"""

from __future__ import annotations

from msgspec.structs import replace

from assay.inquiry import Inquiry
from assay.memory import Memory
from assay.model.name import Domain
from assay.model.smtp import Address
from assay.protocol import dmarc, iprev, spf


def check_iprev(memory: Memory, address: Address) -> Inquiry[iprev.Evaluation]:
    """IPREV of a client."""
    return memory.again(("iprev", address.packed), lambda: iprev.evaluate(address))


def check_spf(memory: Memory, request: spf.Request) -> Inquiry[spf.Evaluation]:
    """SPF of one identity. If no macro was expanded, all senders at a domain have the same evaluation."""
    if request.fault:
        return (yield from spf.check(request))
    key = (
        "spf", request.identity, request.domain, request.address.packed, request.limits, request.best_guess,
        request.explain,
    )  # fmt: skip
    found = yield from memory.again(key, lambda: spf.check(request), _is_same_for_all)
    return found if found.sender == request.sender else replace(found, sender=request.sender)


def discover_policy(
    memory: Memory, domain: Domain, public_suffix: dmarc.PublicSuffix | None
) -> Inquiry[dmarc.Discovery]:
    """The DMARC policy of an author domain."""
    return memory.again(
        ("dmarc", domain.name, public_suffix), lambda: dmarc.discover(domain, public_suffix=public_suffix)
    )


def _is_same_for_all(evaluation: spf.Evaluation) -> bool:
    """Whether it is the same for every sender at this domain and client: only macros use sender and HELO."""
    return not evaluation.uses_macros
