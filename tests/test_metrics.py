# SPDX-License-Identifier: GPL-3.0-or-later
"""The memory in which processes count, and what is read from it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from assay.daemon.meter import Copies, Meter
from assay.findings import Finding
from assay.metrics import FAMILIES, Figures, Histogram, Page, Pages, read
from assay.metrics.page import _PAGE_OCTETS, MAX_ENTRIES, NAME_OCTETS, NOTE_OCTETS, name_of
from assay.policy import Action, Decision, Stage
from assay.resolver.client import State
from assay.resolver.statistics import Statistics
from assay.session import Verdict
from assay.session.outgoing import Signed

VERDICT = name_of("verdicts", "eom", "accept")


def verdict(stage: Stage = Stage.EOM, action: Action = Action.ACCEPT, **more: Any) -> Verdict:
    """A verdict, as far as it is counted."""
    findings = (Finding("dmarc", "pass", key="dmarc"), Finding("spf", "fail", key="spf.helo"))
    given: dict[str, Any] = {"decision": Decision(), "findings": findings} | more
    return Verdict(action, None, (), assessment=None, stage=stage, **given)  # type: ignore[arg-type]  # not looked at


def counted(*verdicts: Any) -> Figures:
    page = Page.private()
    meter = Meter(page)
    for one in verdicts:
        meter.verdict(one)
    return read([page])


def test_results_are_counted_once_for_each_message() -> None:
    """A refused recipient ends no message, and neither does a verdict that lets it pass."""
    rcpt = verdict(Stage.RCPT, Action.REJECT)
    passed = verdict(Stage.MAIL, Action.ACCEPT)
    refused = verdict(Stage.MAIL, Action.REJECT)
    figures = counted(rcpt, rcpt, passed, verdict(), refused)
    assert figures.of("results") == {("dmarc", "pass"): 2, ("spf.helo", "fail"): 2}
    assert figures.total("verdicts") == 5
    assert figures.total("verdicts", stage="rcpt", action="reject") == 2


def test_what_decided_and_what_would_have() -> None:
    decision = Decision(Action.REJECT, by="rule a", watched=(Decision(Action.TAG, by="rule b"),))
    figures = counted(verdict(action=Action.REJECT, decision=decision), verdict())
    assert figures.of("decisions") == {("rule a", "reject"): 1}
    assert figures.of("dry_run_decisions") == {("rule b", "tag"): 1}


def test_outgoing_messages() -> None:
    signed, unsigned = Signed(signers=(("example.org", ("s",)),)), Signed()
    figures = counted(verdict(signed=signed), verdict(signed=signed), verdict(signed=unsigned), verdict())
    assert figures.of("outgoing") == {("yes",): 2, ("no",): 1}


def test_each_question_to_the_dns_is_counted_once() -> None:
    class Known:
        statistics = Statistics(local=1, hits=2, misses=7, shared=3, refused=4, spent=5)
        state = State()

    page = Page.private()
    Meter(page).publish(0, Known())  # type: ignore[arg-type]  # all that is read of a resolver
    assert read([page]).of("dns_questions") == {
        ("local",): 1, ("cache",): 2, ("shared",): 3, ("asked",): 4, ("refused",): 4, ("spent",): 5
    }  # fmt: skip


def in_child(work: object) -> None:
    pid = os.fork()
    if pid == 0:
        work()  # type: ignore[operator]  # any callable
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def test_what_a_child_counts_is_seen_and_stays() -> None:
    pages = Pages(2)
    page = pages.take()
    for _ in range(2):  # one dies, the next has the same page
        in_child(lambda: (page.add(VERDICT), page.add(name_of("verdicts", "eom", "reject")), page.set("sessions", 5)))
        assert read(pages.all).of("sessions") == {(): 5}
        pages.release(page)
        assert pages.take() is page
    assert read(pages.all).of("verdicts") == {("eom", "accept"): 2, ("eom", "reject"): 2}
    assert read(pages.all).of("sessions") == {(): 0}, "its process is gone"


def test_pages_are_added_up() -> None:
    pages = Pages(3)
    for _ in range(2):
        page = pages.take()
        page.add(VERDICT, 3)
        page.set("sessions", 2)
    reading = read(pages.all)
    assert reading.total("verdicts") == 6
    assert reading.total("verdicts", action="accept") == 6
    assert reading.total("verdicts", action="reject") == 0
    assert reading.total("sessions") == 4


def test_without_a_page_left_nothing_fails() -> None:
    pages = Pages(1)
    pages.take()
    page = pages.take()
    page.add(VERDICT)
    pages.release(page)
    assert not read(pages.all).values


def test_entries_beyond_the_bound_share_one() -> None:
    page = Page.private()
    for number in range(MAX_ENTRIES + 10):
        page.add(name_of("decisions", f"rule {number}", "reject"))
    for number in range(MAX_ENTRIES + 10):
        page.add(name_of("decisions", f"rule {number}", "reject"))
    entries = dict(page.entries())
    assert len(entries) == MAX_ENTRIES
    assert entries["overflow"] == 22
    assert sum(entries.values()) == 2 * (MAX_ENTRIES + 10)


@pytest.mark.parametrize("label", ["x" * 500, "ü" * 500, "\ud800", "\x1f", "", "\0"])
def test_any_label(label: str) -> None:
    page = Page.private()
    page.add(name_of("decisions", label, "reject"))
    page.add(VERDICT)
    assert all(len(name.encode()) <= NAME_OCTETS for name, _ in page.entries())
    reading = read([page])
    assert reading.total("verdicts") == 1
    assert [action for _, action in reading.of("decisions")] == ([] if label == "\x1f" else ["reject"])


@pytest.mark.parametrize("length", range(60, 130))
def test_a_long_name_of_a_nameserver(length: int) -> None:
    """Whatever is cut, all figures are there, also those of another one with the same beginning."""
    first = name_of("dns_query_seconds", "ü" + "a" * length + "1")
    second = name_of("dns_query_seconds", "ü" + "a" * length + "2")
    memory = memoryview(bytearray(_PAGE_OCTETS))
    for _ in range(2):  # the second time as the next process with this page
        page = Page(memory)
        for name in (first, second):
            Histogram(page, name).observe(60.0)
    found = read([page]).waits("dns_query_seconds")
    assert [waits.counts[-1] for waits in found.values()] == [2, 2]
    assert [waits.seconds for waits in found.values()] == [120.0, 120.0]
    assert len(list(page.entries())) == 2 * len(found[next(iter(found))].counts) + 2


def test_a_histogram() -> None:
    page = Page.private()
    histogram = Histogram(page, name_of("wait_seconds", "eom"))
    for seconds in (0.0005, 0.001, 0.002, 0.2, 60.0):
        histogram.observe(seconds)
    (waits,) = read([page]).waits("wait_seconds").values()
    assert waits.counts == (2, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1)
    assert waits.number == 5
    assert waits.seconds == pytest.approx(60.2035)
    assert waits.quantile(0.5) == 0.0025
    assert waits.quantile(0.99) == float("inf")


def test_since_an_earlier_reading() -> None:
    page = Page.private()
    page.add(VERDICT, 3)
    page.set("sessions", 2)
    before = read([page])
    page.add(VERDICT, 4)
    page.set("sessions", 1)
    found = read([page]).since(before)
    assert found.total("verdicts") == 4
    assert found.total("sessions") == 1


def test_notes() -> None:
    page = Page.private()
    assert page.noted == b""
    page.note(b"one two")
    page.note(b"three")
    assert page.noted == b"three"
    turns = page.turns
    page.note(b"x" * (NOTE_OCTETS + 1))
    assert page.noted == b"three"
    assert page.turns > turns, "else the supervisor takes the process for one that hangs"


def test_a_note_that_a_killed_process_began_is_replaced() -> None:
    class Killed(bytes):
        def __len__(self) -> int:
            if page.turns % 2:
                raise InterruptedError
            return super().__len__()

    page = Page.private()
    page.note(b"whole")
    with pytest.raises(InterruptedError):
        page.note(Killed(b"half"))
    assert page.noted == b""
    before = page.turns
    page.note(b"next")
    assert page.noted == b"next"
    assert page.turns != before


def test_a_copied_counter_never_goes_back() -> None:
    page = Page.private()
    copies = Copies(page)
    for value in (3, 5, 4, 6):
        copies.copy("exceptions", value)
    Copies(page).copy("exceptions", 2)  # the next process
    assert read([page]).total("exceptions") == 8


def test_the_page_lists_the_figures(pytestconfig: pytest.Config) -> None:
    page = pytestconfig.rootpath / "docs" / "metrics.md"
    rows = []
    for family in FAMILIES:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        rows.append(f"| `{family.exposed}` | {labels} | {family.type} | {family.help} |\n")
    table = "| name | labels | type | meaning |\n|---|---|---|---|\n" + "".join(rows)
    _, _, rest = page.read_text().partition("tests/test_metrics.py -->\n")
    listed, _, tail = rest.partition("<!-- end of figures")
    assert listed == table, f"write this table into {page}:\n{table}"
    assert tail
