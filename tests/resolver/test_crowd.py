# SPDX-License-Identifier: GPL-3.0-or-later
"""A stranger whose names take long must not keep us from the records of others: without them DMARC ends in a temporary
error, and what should be refused gets in."""

from __future__ import annotations

import pytest

from assay.inquiry import Answer, Inquiry, Outcome, Question, RecordType
from assay.resolver import Resolver, configured
from assay.resolver.client import MAX_OPEN
from nameserver import NameServer

PATIENCE = 0.4  # each slow name holds a socket for three times as long, in two rounds
CROWD = 5 * MAX_OPEN
VICTIM = "_dmarc.victim.example"


def ask(*names: str) -> Inquiry[list[Answer]]:
    answers = yield [Question(name, RecordType.TXT) for name in names]
    return list(answers)


@pytest.mark.parametrize(
    "slow",
    [
        pytest.param([f"s{number}.evil.example" for number in range(CROWD)], id="of one domain"),
        pytest.param([f"s{number}.evil{number % 50}.example" for number in range(CROWD)], id="of fifty domains"),
    ],
)
def test_a_crowd_of_slow_names_does_not_hold_up_another_domain(slow: list[str]) -> None:
    rows = {VICTIM: [["TXT", ["v=DMARC1; p=reject"]]]}
    with NameServer(rows, drop=set(slow)) as server, Resolver(configured([server.text]), patience=PATIENCE) as resolver:
        crowd = resolver.driver(30.0).start(ask(*slow))
        (answer,) = resolver.driver(5 * PATIENCE).start(ask(VICTIM)).result()
        crowd.cancel()
    assert answer.outcome is Outcome.FOUND, answer.reason
