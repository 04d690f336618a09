# SPDX-License-Identifier: GPL-3.0-or-later
"""Check that the nameservers of a configuration are resolvers, by one name that exists and one that cannot.

A server that knows only its own zones, refuses us, or answers for names that do not exist would disable authentication
for single domains, unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterator

from assay.config import Configuration
from assay.inquiry import Answer, Inquiry, Outcome, Question, RecordType
from assay.resolver import Nameserver, Resolver, configured

#: The root's first nameserver, which every resolver of the public DNS finds.
EXISTS = Question("a.root-servers.net", RecordType.A)
#: RFC 6761, 6.4: a name below it never exists.
MISSING = Question("assay-config-check.invalid", RecordType.A)


def faults(configuration: Configuration) -> Iterator[str]:
    """The fault of each nameserver that is not a resolver, in one sentence."""
    for nameserver in configured(configuration.dns.nameserver_texts):
        existing, missing = _ask(nameserver, configuration)
        if existing.outcome is Outcome.TEMPFAIL:
            yield f"nameserver {existing.reason}"
        elif existing.outcome is not Outcome.FOUND:
            yield f"nameserver {nameserver} reports that {EXISTS.name} does not exist: it does not resolve public names"
        elif missing.outcome is Outcome.TEMPFAIL:
            yield f"nameserver {missing.reason}"
        elif missing.outcome is not Outcome.NXDOMAIN:
            yield f"nameserver {nameserver} answers for {MISSING.name}, which cannot exist"


def _ask(nameserver: Nameserver, configuration: Configuration) -> tuple[Answer, Answer]:
    made = configuration.dns.contexts([nameserver])
    with Resolver([nameserver], patience=configuration.dns.timeout_seconds, contexts=made) as resolver:
        return resolver.driver(configuration.dns.budget_seconds).start(_questions()).result()


def _questions() -> Inquiry[tuple[Answer, Answer]]:
    existing, missing = yield [EXISTS, MISSING]
    return existing, missing
