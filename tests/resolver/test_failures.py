# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from assay.resolver.failures import FIRST_TTL, FORGET, MAX_NAMES, MAX_TTL, Failures


def test_a_name_that_keeps_failing_backs_off_up_to_a_bound() -> None:
    failures = Failures()
    ttls = [failures.failed("a/TXT", float(turn)) for turn in range(10)]
    assert ttls == [1, 2, 4, 8, 16, 32, MAX_TTL, MAX_TTL, MAX_TTL, MAX_TTL]
    assert failures.failed("b/TXT", 10.0) == FIRST_TTL


def test_an_answer_and_time_end_it() -> None:
    failures = Failures()
    failures.failed("a/TXT", 0.0)
    failures.succeeded("a/TXT")
    assert failures.failed("a/TXT", 1.0) == FIRST_TTL
    assert failures.failed("a/TXT", 2.0 + FORGET) == FIRST_TTL


def test_the_names_are_bounded_and_cleared_together() -> None:
    failures = Failures()
    failures.failed("lasting", 0.0)
    for number in range(MAX_NAMES):
        failures.failed(f"{number}", 0.0)
        failures.failed("lasting", 0.0)
    assert len(failures) == MAX_NAMES
    assert "lasting" in failures.clear()
    assert failures.failed("lasting", 0.0) == FIRST_TTL
