# SPDX-License-Identifier: GPL-3.0-or-later
"""Slow and failing names and servers: one line a minute, and none while all is well."""

from __future__ import annotations

from assay.resolver.troubles import MAX_DOMAINS, PERIOD, Troubles

SERVER = "192.0.2.53"


def test_nothing_is_said_while_all_is_well() -> None:
    troubles = Troubles()
    for second in range(200):
        troubles.note("example.org", SERVER, "found", 0.1, second)
        assert troubles.line(second) == ""


def test_one_line_a_minute() -> None:
    troubles = Troubles()
    said = []
    for second in range(300):
        troubles.note("good.example", SERVER, "nxdomain", 0.1, second)
        troubles.note("slow.example", SERVER, "found", 0.7, second)
        if second % 10 == 0:
            troubles.note("dead.example", SERVER, "timeout", 2.0, second)
        if line := troubles.line(second):
            said.append((second, line))
    assert [second for second, _ in said] == [60, 121, 182, 243]
    assert said[1][1] == (
        "DNS: of 127 queries in a minute 6 failed and 61 were slow; "
        "about slow.example (61 slow, up to 0.7 s), dead.example (6 timeout, up to 2.0 s); "
        f"to {SERVER} (61 slow), {SERVER} (6 timeout)"
    )
    assert troubles.slowest == (("dead.example", 2.0, 6), ("slow.example", 0.7, 61))


def test_the_worst_names_are_shown_and_the_others_counted() -> None:
    troubles = Troubles()
    for number in range(2 * MAX_DOMAINS):
        troubles.note(f"{number}.example", SERVER, "tempfail", 0.1, 0.0)
    line = troubles.line(PERIOD)
    assert f" and {MAX_DOMAINS - 5} others; " in line
    assert f"{2 * MAX_DOMAINS} failed;" in line
    assert len(line) < 500


def test_names_are_escaped() -> None:
    troubles = Troubles()
    troubles.note("dmarc=pass\n", SERVER, "timeout", 2.0, 0.0)
    line = troubles.line(PERIOD)
    assert "dmarc=pass" not in line
    assert line.isprintable()


def test_expired_answers_are_counted_in_the_same_line() -> None:
    troubles = Troubles()
    troubles.note_stale(0.0)
    assert troubles.line(PERIOD) == "DNS: expired answers used: 1"
    troubles.note("dead.example", SERVER, "timeout", 2.0, PERIOD)
    troubles.note_stale(PERIOD)
    troubles.note_stale(PERIOD)
    assert troubles.line(2 * PERIOD).endswith(f"to {SERVER} (1 timeout); expired answers used: 2")
    assert troubles.line(9 * PERIOD) == ""
