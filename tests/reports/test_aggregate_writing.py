# SPDX-License-Identifier: GPL-3.0-or-later
"""A record of a report from what the store has."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from assay.reports.aggregate_writing import VanishedError, record, records
from assay.store.outbox import Group

GROUP = Group("192.0.2.1", "example.com", False, "sender.example", "none", True, False, (), (), None, 3, (1, 1))


@pytest.mark.parametrize(
    ("null_sender", "sender_domain", "expected"),
    [(False, "sender.example", "sender.example"), (True, "", ""), (False, "", None)],
)
def test_the_envelope_sender(null_sender: bool, sender_domain: str, expected: str | None) -> None:
    """Empty for the null reverse-path, none where it has no domain."""
    group = replace(GROUP, null_sender=null_sender, sender_domain=sender_domain)
    assert record(group).envelope_from == expected


def test_signatures_that_made_it_pass_come_first() -> None:
    signatures = (
        ("other.example", "s", "pass", "", False),
        ("broken.example", "s", "fail", "body hash", False),
        ("mail.example.com", "s", "pass", "", True),
        ("example.com", "s", "pass", "", True),
        ("unknown.example", "s", "a word of a later version", "", False),
    )
    found = record(replace(GROUP, dkim=signatures)).dkim
    assert [each.domain for each in found] == ["example.com", "mail.example.com", "other.example", "broken.example"]
    assert found[-1].human_result == "body hash"


@pytest.mark.parametrize(
    ("spf", "expected"),
    [
        (("sender.example", "softfail", "~all"), "softfail"),
        (("sender.example", "a word of a later version", ""), None),
        (None, None),
    ],
)
def test_spf(spf: tuple[str, str, str] | None, expected: str | None) -> None:
    found = record(replace(GROUP, spf=spf)).spf
    assert (found.result if found is not None else None) == expected


def test_a_report_without_records_has_vanished() -> None:
    with pytest.raises(VanishedError):
        list(records([]))
