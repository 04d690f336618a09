# SPDX-License-Identifier: GPL-3.0-or-later
"""Remembered evaluations: whatever changes in the DNS between two messages, remembering changes neither a result nor
a question."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.inquiry import PENDING, Answer, Eager, Inquiry, Outcome, Question, RecordType
from assay.memory import Memory
from assay.model.name import Domain, ReversePath
from assay.protocol import spf
from assay.session.remembered import check_iprev, check_spf, discover_policy
from protocol.spf.test_properties import CLIENTS, zones
from zone import Rows, Zone

CLIENT = ip_address("192.0.2.1")
SPF = {"a.example": [["TXT", ["v=spf1 include:b.example -all"]]], "b.example": [["TXT", ["v=spf1 ip4:192.0.2.1 ~all"]]]}


class Count:
    """How often an evaluation was begun."""

    def __init__(self) -> None:
        self.begun = 0

    def evaluate(self, *names: str) -> Inquiry[str]:
        """Asks for one name after another and tells what was answered."""
        self.begun += 1
        told = []
        for name in names:
            (answer,) = yield [Question(name, RecordType.TXT)]
            told.append(repr((answer.outcome, answer.records, answer.secure, answer.reason)))
        return " ".join(told)


def mail_from(memory: Memory, sender: str = "user@a.example", client: str = "192.0.2.1") -> Inquiry[spf.Evaluation]:
    request = spf.Request(ip_address(client), "e.example").of_mail_from(ReversePath.parse(sender))
    return check_spf(memory, request)


#: What may differ from one message to the next.
messages = st.fixed_dictionaries(
    {
        "rows": zones,
        "client": st.sampled_from(CLIENTS),
        "sender": st.sampled_from(["user@a.example", "é@a.example", "@b.example", "x@c.example", ""]),
        "helo": st.sampled_from(["e.example", "E.example", "c.example"]),
        "receiver": st.sampled_from(["one.example", "two.example"]),
        "now": st.integers(1, 2),
        "limits": st.sampled_from([spf.Limits(), spf.Limits(dns_terms=1, void_lookups=0)]),
        "best_guess": st.sampled_from([b"", b"v=spf1 a/24 mx -all"]),
    }
)


@settings(max_examples=400, deadline=None)
@given(st.lists(messages, min_size=2, max_size=4), st.booleans())
def test_remembering_changes_no_result_and_no_question(many: list[dict[str, Any]], same_zone: bool) -> None:
    memory = Memory()
    for one in many:
        client, path = ip_address(one["client"]), ReversePath.parse(one["sender"])
        common = {name: one[name] for name in ("receiver", "now", "limits", "best_guess")}
        request = spf.Request(client, one["helo"], **common)
        for identity in (request.of_helo(), request.of_mail_from(path)):
            rows = (many[0] if same_zone else one)["rows"]
            plain, remembering = Zone(rows), Zone(rows)
            assert remembering.solve(check_spf(memory, identity)) == plain.solve(spf.check(identity))
            assert remembering.asked == plain.asked


def test_what_ended_with_an_answer_pending_is_not_remembered() -> None:
    def first_of(*names: str) -> Inquiry[Answer]:
        answers = yield Eager(Question(name, RecordType.TXT) for name in names)
        return next(answer for answer in answers if answer is not PENDING)

    memory, zone = Memory(), Zone(SPF)
    inquiry = memory.again("key", lambda: first_of("a.example", "b.example"))
    asked = next(inquiry)
    with pytest.raises(StopIteration):
        inquiry.send([PENDING, zone.answer(asked[1])])
    assert len(memory) == 0
    assert zone.solve(memory.again("key", lambda: first_of("a.example", "b.example"))) == zone.answer(asked[0])
    assert len(memory) == 1


def test_what_is_answered_the_same_is_not_evaluated_again() -> None:
    count, memory, zone = Count(), Memory(), Zone(SPF)
    first = zone.solve(memory.again("key", lambda: count.evaluate("a.example", "b.example")))
    second = zone.solve(memory.again("key", lambda: count.evaluate("a.example", "b.example")))
    assert first == second
    assert count.begun == 1
    assert [question.name for question in zone.asked] == ["a.example", "b.example"] * 2


@pytest.mark.parametrize(
    "other",
    [
        Answer(Outcome.FOUND, (b"other",), ttl=300),
        Answer(Outcome.NODATA),
        Answer(Outcome.FOUND, (b"text",), secure=True, ttl=300),
        Answer(Outcome.TEMPFAIL, reason="timeout"),
    ],
)
def test_another_answer_is_seen(other: Answer) -> None:
    count, memory = Count(), Memory()
    told = []
    for answer in (Answer(Outcome.FOUND, (b"text",), ttl=300), other):
        inquiry = memory.again("key", lambda: count.evaluate("a.example"))
        next(inquiry)
        with pytest.raises(StopIteration) as end:
            inquiry.send([answer])
        told.append(end.value.value)
    assert told[0] != told[1]
    assert count.begun == 2


def test_another_ttl_is_not_another_answer() -> None:
    count, memory = Count(), Memory()
    for ttl in (300, 299):
        inquiry = memory.again("key", lambda: count.evaluate("a.example"))
        next(inquiry)
        with pytest.raises(StopIteration):
            inquiry.send([Answer(Outcome.FOUND, (b"text",), ttl=ttl)])
    assert count.begun == 1


def test_a_failure_is_not_remembered() -> None:
    count, memory, zone = Count(), Memory(), Zone({"a.example": [["SERVFAIL", "*"]]})
    for _ in range(2):
        zone.solve(memory.again("key", lambda: count.evaluate("a.example")))
    assert count.begun == 2
    assert len(memory) == 0


#: Five mx with ten names of 250 octets each.
LONG = {"a.example": [["TXT", ["v=spf1 " + " ".join(f"mx:m{number}.a.example" for number in range(5)) + " -all"]]]} | {
    f"m{number}.a.example": [["MX", [0, f"{name}.{'x' * 60}.{'y' * 60}.{'z' * 60}.a.example"]] for name in range(10)]
    for number in range(5)
}


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ({"a.example": [["TXT", ["v=spf1 " + "ip4:192.0.2.2 " * 100 + "-all"]]]}, 1),
        ({"a.example": [["TXT", ["v=spf1 " + "ip4:192.0.2.2 " * 2000 + "-all"]]]}, 0),
        (LONG, 0),
    ],
    ids=["long", "very long", "many long names"],
)
def test_what_takes_much_is_not_kept(rows: Rows, kept: int) -> None:
    memory = Memory()
    Zone(rows).solve(mail_from(memory))
    assert len(memory) == kept


def test_no_more_is_kept_than_was_allowed_and_the_frequent_one_stays() -> None:
    count, memory, zone = Count(), Memory(octets=20_000), Zone(SPF)
    for number in range(1000):
        zone.solve(memory.again(number, lambda: Count().evaluate("a.example")))
        zone.solve(memory.again("frequent", lambda: count.evaluate("a.example")))
        assert len(memory) <= 20
    assert count.begun == 1


def test_a_bug_is_not_remembered() -> None:
    def faulty() -> Inquiry[str]:
        yield [Question("a.example", RecordType.TXT)]
        raise ZeroDivisionError

    memory = Memory()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            Zone(SPF).solve(memory.again("key", faulty))


def test_each_sender_of_a_domain_is_reported_as_itself() -> None:
    memory, zone = Memory(), Zone(SPF)
    evaluations = [zone.solve(mail_from(memory, f"{name}@a.example")) for name in ("one", "two")]
    assert [one.sender for one in evaluations] == ["one@a.example", "two@a.example"]
    assert len(memory) == 1


@pytest.mark.parametrize("record", ["v=spf1 exists:%{l}.x.example -all", "v=spf1 -all exp=%{d}", "v=spf1 a:%{h} -all"])
def test_what_macros_saw_is_not_remembered(record: str) -> None:
    """They see the sender, the HELO name and the time, which the next message has others of."""
    memory = Memory()
    zone = Zone({"a.example": [["TXT", [record]]], "one.x.example": [["A", "127.0.0.1"]]})
    assert zone.solve(mail_from(memory, "two@a.example")).result == "fail"
    one = zone.solve(mail_from(memory, "one@a.example"))
    assert one.result == ("pass" if "%{l}" in record else "fail")
    assert len(memory) == 0


def test_another_client_is_another_evaluation() -> None:
    memory, zone = Memory(), Zone(SPF)
    assert zone.solve(mail_from(memory)).result == "pass"
    assert zone.solve(mail_from(memory, client="192.0.2.2")).result == "fail"


def test_another_way_to_find_the_organizational_domain_is_another_discovery() -> None:
    memory, zone = Memory(), Zone({"_dmarc.b.example": [["TXT", ["v=DMARC1; p=reject"]]]})
    domain = Domain("a.b.example")
    assert zone.solve(discover_policy(memory, domain, None)).policy == "reject"
    by_list = zone.solve(discover_policy(memory, domain, lambda _: "b.example"))
    assert by_list.organizational_domain == domain
    assert by_list.policy is None


def test_all_who_remember_share_a_memory_and_do_not_mix() -> None:
    memory = Memory()
    rows = SPF | {
        "1.2.0.192.in-addr.arpa": [["PTR", "a.example"]],
        "_dmarc.a.example": [["TXT", ["v=DMARC1; p=reject"]]],
    }
    for _ in range(2):
        zone = Zone(rows)
        assert zone.solve(check_iprev(memory, CLIENT)).result == "fail"
        assert zone.solve(mail_from(memory)).result == "pass"
        assert zone.solve(check_spf(memory, spf.Request(CLIENT, "a.example").of_helo())).identity is spf.Identity.HELO
        found = zone.solve(discover_policy(memory, Domain("a.example"), None))
        assert found.policy == "reject"
