# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.model.message import Header, split_message
from assay.protocol import senderid, spf
from zone import Zone

CLIENT = ip_address("192.0.2.1")


def header(*lines: str) -> Header:
    return split_message("\r\n".join([*lines, "", ""]).encode())[0]


@pytest.mark.parametrize(
    ("lines", "address", "field"),
    [
        (["From: a@f.example"], "a@f.example", "from"),
        (["From: A <a@f.example>", "Sender: s@s.example"], "s@s.example", "sender"),
        (["From: a@f.example", "Sender:  "], "a@f.example", "from"),
        (["From: a@f.example, b@f.example", "Sender: s@s.example"], "s@s.example", "sender"),
        (["Resent-From: r@r.example", "Sender: s@s.example"], "r@r.example", "resent-from"),
        (["Resent-From: ", "Resent-From: r@r.example"], "r@r.example", "resent-from"),
        (["Resent-From: 1@r.example", "Resent-From: 2@r.example"], "1@r.example", "resent-from"),
        (["Resent-Sender: 1@r.example", "Resent-Sender: 2@r.example"], "1@r.example", "resent-sender"),
        # one resending with both fields, in either order
        (["Resent-From: f@r.example", "Resent-Sender: s@r.example"], "s@r.example", "resent-sender"),
        (["Resent-Sender: s@r.example", "Received: x", "Resent-From: f@r.example"], "s@r.example", "resent-sender"),
        (["Received: x", "Resent-From: f@r.example", "Resent-Sender: s@r.example"], "s@r.example", "resent-sender"),
        # two resendings: the Resent-Sender is of the older one
        (["Resent-From: f@r.example", "Received: x", "Resent-Sender: s@r.example"], "f@r.example", "resent-from"),
        (["Resent-From: f@r.example", "Return-Path: <>", "Resent-Sender: s@r.example"], "f@r.example", "resent-from"),
        (["Resent-From:", "Received: x", "Resent-Sender: s@r.example"], "s@r.example", "resent-sender"),
        (
            ["Resent-From: f@r.example", "Received: x", "Resent-From: g@r.example", "Resent-Sender: s@r.example"],
            "f@r.example",
            "resent-from",
        ),
    ],
)
def test_purported_responsible_address(lines: list[str], address: str, field: str) -> None:
    found = senderid.responsible_address(header(*lines))
    assert (str(found.mailbox), found.field, found.fault) == (address, field, "")


@pytest.mark.parametrize(
    ("lines", "field", "fault"),
    [
        ([], "", "no From field"),
        (["From:"], "", "no From field"),
        (["From: a@f.example", "From: b@f.example"], "", "2 From fields where one is allowed"),
        (["Sender: a@f.example", "Sender: a@f.example", "From: a@f.example"], "", "2 Sender fields"),
        (["From: a@f.example, b@f.example"], "from", "does not hold exactly one mailbox"),
        (["From: g: a@f.example;"], "from", "does not hold exactly one mailbox"),
        (["From: a"], "from", "malformed from field"),
        (["From: a@[192.0.2.1]"], "from", "no usable domain in the from field"),
        # a broken field that was chosen is not passed over
        (["Resent-Sender: broken", "From: a@f.example"], "resent-sender", "malformed"),
    ],
)
def test_no_purported_responsible_address(lines: list[str], field: str, fault: str) -> None:
    found = senderid.responsible_address(header(*lines))
    assert found.mailbox is None
    assert found.field == field
    assert fault in found.fault
    evaluation = Zone({}).solve(senderid.check_pra(header(*lines), spf.Request(CLIENT, "h.example")))
    assert evaluation.result is senderid.Result.FAIL
    assert evaluation.reason == found.fault


@pytest.mark.parametrize(
    ("texts", "scope", "spf1", "chosen"),
    [
        (["spf2.0/pra -all"], "pra", "ignore", 1),
        (["SPF2.0/MFROM,Pra a -all"], "pra", "ignore", 2),
        (["spf2.0/pra"], "pra", "ignore", 0),
        (["spf2.0/mfrom -all"], "pra", "ignore", None),
        (["spf2.0/praline -all", "spf2.0/x-pra -all", "spf2.0/ -all", "spf2.0/pra, -all"], "pra", "ignore", None),
        (["spf2.0 -all", "spf2.0/pra\t-all", "spf2.0/pra -all"], "pra", "ignore", 1),
        # RFC 4406, 4.4: the minor version must be well formed, and is otherwise ignored
        (["spf2.1/pra a -all"], "pra", "ignore", 2),
        (["SPF2.042/mfrom,pra a -all", "v=spf1 -all"], "pra", "fallback", 2),
        (
            ["spf2./pra -all", "spf2/pra -all", "spf2.x/pra -all", "spf3.0/pra -all", "spf20/pra -all"],
            "pra",
            "ignore",
            None,
        ),
        (["v=spf1 a mx -all"], "pra", "ignore", None),
        (["v=spf1 a mx -all"], "pra", "fallback", 3),
        (["v=spf1 a mx -all", "spf2.0/mfrom -all"], "pra", "fallback", 3),
        (["v=spf1 a mx -all", "spf2.0/mfrom -all"], "mfrom", "fallback", 1),
        (["v=spf1 a mx -all", "spf2.0/mfrom -all"], "mfrom", "prefer", 3),
        (["spf2.0/mfrom -all"], "mfrom", "prefer", 1),
        (["spf2.0/pra op=x moved=%{d} -all"], "pra", "ignore", 1),
    ],
)
def test_record_selection(texts: list[str], scope: str, spf1: str, chosen: int | None) -> None:
    encoded = [text.encode() for text in texts]
    record = senderid.select_record(encoded, senderid.Scope(scope), spf1=senderid.Spf1(spf1))
    assert (None if record is None else len(record.directives)) == chosen
    assert record is None or not record.faults


def test_two_records_for_a_scope_are_an_error() -> None:
    record = senderid.select_record(
        [b"spf2.0/pra -all", b"spf2.1/mfrom,pra -all"], senderid.Scope.PRA, spf1=senderid.Spf1.FALLBACK
    )
    assert record is not None
    assert record.faults


class TestCheck:
    @staticmethod
    def check(rows: dict[str, list[list[Any]]], **options: Any) -> senderid.Evaluation:
        message = header("From: User <user@example.com>", "Sender: list@lists.example")
        return Zone(rows).solve(senderid.check_pra(message, spf.Request(CLIENT, "h.example"), **options))

    def test_the_pra_domain_is_checked(self) -> None:
        evaluation = self.check({"lists.example": [["TXT", ["spf2.0/pra ip4:192.0.2.1 -all"]]]})
        assert evaluation.result is senderid.Result.PASS
        assert (str(evaluation.domain), evaluation.field) == ("lists.example", "sender")
        assert evaluation.sender == "list@lists.example"
        assert evaluation.mechanism == "ip4:192.0.2.1"

    def test_domain_that_does_not_exist_fails(self) -> None:
        evaluation = self.check({})
        assert evaluation.result is senderid.Result.FAIL
        assert evaluation.reason == "lists.example does not exist"

    def test_domain_that_does_not_exist_is_none_for_another_scope(self) -> None:
        request = spf.Request(CLIENT, "h.example", "n.example", "u@n.example")
        inquiry = senderid.check_host(request, senderid.Scope.MFROM)
        assert Zone({}).solve(inquiry).result is senderid.Result.NONE

    def test_record_for_spf_says_nothing_unless_asked_to(self) -> None:
        rows = {"lists.example": [["TXT", ["v=spf1 -all"]]]}
        assert self.check(rows).result is senderid.Result.NONE
        assert self.check(rows).reason == "lists.example publishes no record for the scope pra"
        assert self.check(rows, spf1=senderid.Spf1.FALLBACK).result is senderid.Result.FAIL

    def test_includes_are_chosen_by_the_same_scope(self) -> None:
        rows = {
            "lists.example": [["TXT", ["spf2.0/pra include:i.example -all"]]],
            "i.example": [["TXT", ["spf2.0/mfrom -all"]], ["TXT", ["spf2.0/pra +all"]]],
        }
        assert self.check(rows).result is senderid.Result.PASS

    def test_every_result_word_of_spf_is_one_of_ours(self) -> None:
        assert {result.value for result in spf.Result} == {result.value for result in senderid.Result}


@settings(deadline=None)
@given(st.binary())
def test_every_header_has_an_address_or_a_reason(message: bytes) -> None:
    for text in (message, b"From: " + message, b"Resent-Sender: a@b.example\r\nSender: " + message):
        found = senderid.responsible_address(split_message(text)[0])
        assert (found.mailbox is None) == bool(found.fault)
