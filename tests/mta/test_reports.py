# SPDX-License-Identifier: GPL-3.0-or-later
"""A day of mail for 50 domains on two hosts with one database, and the reports about it, through real MTAs.

`contrib/run-reports.py` does the same with more of everything, and faults at random.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mta.base import UnavailableError
from mta.night import Day, Night, messages, said
from mta.postfix import Postfix
from mta.sendmail import Sendmail
from postgresql import Postgresql

DOMAINS = 50
BOUNCING, REFUSING, DEFERRING = "d7.example", "d8.example", "d9.example"
DAY = Day(DOMAINS, frozenset((BOUNCING,)), frozenset((REFUSING,)), frozenset((DEFERRING,)))


@pytest.fixture
def night(tmp_path: Path, postgresql: Postgresql) -> Iterator[Night]:
    try:
        Postfix.check()
        Sendmail.check()
    except UnavailableError as missing:
        pytest.skip(str(missing))
    with ExitStack() as stack:
        yield Night(DAY, tmp_path, postgresql, Sendmail, stack)


def test_a_day(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    mail = list(messages(DAY))
    night.send(mail)
    night.end_the_day()

    # The relay is dead.
    night.report()
    night.wait(lambda: any("50 reports waiting" in daemon.log() for daemon in night.daemons), "no report was planned")
    relay = night.relay()
    night.sql("UPDATE reports SET due = 0")
    night.kill_reporters()
    # Senders are killed in the middle.
    night.wait(lambda: night.states()["sent"] >= 10, "nothing was sent")
    night.kill_reporters()
    night.wait(night.only_deferred_wait, "reports wait")
    # A destination defers until it is too late.
    night.let_deferred_end()
    night.kill_reporters()
    night.wait(lambda: night.states()["waiting"] == 0, "reports wait")
    # A report comes back.
    night.wait(lambda: night.states()["bounced"] == 1, "the bounce was not taken")
    maybe_taken = night.states()["given up"] - 1  # what each sender that was killed was just handing over
    assert 0 <= maybe_taken <= 2
    assert night.states() == {
        "sent": DOMAINS - 3 - maybe_taken,
        "bounced": 1,
        "refused": 1,
        "given up": 1 + maybe_taken,
    }
    for domain, words in ((BOUNCING, "came back"), (REFUSING, "550 5.1.1"), (DEFERRING, "given up: r@d9.example: 450")):
        night.assay("report", "why", domain)
        assert words in capsys.readouterr().out

    # What came adds up to what was sent: each report once, or it is listed as given up.
    given_up = night.domains("given up")
    certain = set(DAY.names) - DAY.lost - given_up
    relay.wait_until(lambda: certain <= set(said(relay.messages())[1]))
    found, times = said(relay.messages())
    assert set(times) - certain <= given_up - DAY.lost
    assert found == Counter(key for *_, key in mail if key[0] in times)
    assert set(times.values()) == {1}

    # No site reports about reports: neither who received them, nor who sent them and got a bounce.
    night.receiver_reports()
    night.assay("report", "why", "receiver.example", at=night.relay_daemon)
    assert "not sent: all its messages were reports or bounces" in capsys.readouterr().out
    night.end_the_day()
    night.kill_reporters()
    why = "SELECT why FROM reports WHERE domain = 'mx.example.org'"
    night.wait(lambda: bool(night.sql(why)), "the bounce was not seen")
    assert night.sql(why) == "all its messages were reports or bounces"
    assert "receiver.example" not in night.sql("SELECT domain FROM reports").split("\n")
