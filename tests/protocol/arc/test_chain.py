# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.model.message import Header, HeaderField
from assay.protocol import arc
from assay.protocol.arc.chain import read_ending

AAR, AMS, AS = "ARC-Authentication-Results", "ARC-Message-Signature", "ARC-Seal"


def results(instance: object, *, value: str | None = None) -> HeaderField:
    return field(AAR, f" i={instance}; mx{instance}.example; spf=pass" if value is None else value)


def message_signature(instance: object, *, more: str = "") -> HeaderField:
    tags = f" i={instance}; a=rsa-sha256; d=m.example.org; s=sel; h=from; bh=QQ==; b=QQ==; {more}"
    return field(AMS, tags)


def seal(instance: object, cv: str | None = None, *, more: str = "") -> HeaderField:
    cv = cv or ("none" if instance == 1 else "pass")
    return field(AS, f" i={instance}; a=rsa-sha256; cv={cv}; d=s{instance}.example.org; s=sel; b=QQ==; {more}")


def field(name: str, value: str) -> HeaderField:
    return HeaderField(name.encode(), value.encode())


def sets(*instances: int) -> list[HeaderField]:
    return [one for i in sorted(instances, reverse=True) for one in (seal(i), message_signature(i), results(i))]


def parse(*fields: HeaderField) -> arc.Chain | arc.Evaluation:
    return arc.parse_chain(Header(fields))


def test_no_arc_field_is_none() -> None:
    evaluation = parse(field("From", " a@example.org"))
    assert isinstance(evaluation, arc.Evaluation)
    assert evaluation.result is arc.Result.NONE


def test_chain() -> None:
    chain = parse(field("From", " a@example.org"), *sets(1, 2, 3))
    assert isinstance(chain, arc.Chain)
    assert [one.instance for one in chain.sets] == [1, 2, 3]
    assert [str(sealer.domain) for sealer in chain.sealers] == ["s1.example.org", "s2.example.org", "s3.example.org"]
    assert [sealer.cv for sealer in chain.sealers] == ["none", "pass", "pass"]
    assert chain.sealers[1].payload == "mx2.example; spf=pass"
    assert len(chain.body_hash_specs) == 1


def test_fields_in_any_order_and_case() -> None:
    shuffled = [HeaderField(one.name.upper(), one.value) for one in sets(1, 2)][::-1]
    assert isinstance(parse(*shuffled), arc.Chain)


@pytest.mark.parametrize(
    "value",
    [
        "i=1;mx.example;spf=pass",
        " i=1; mx.example; spf=pass",
        "\r\n\t(first) i (comment \\) ) = 1\r\n ; mx.example; spf=pass",
        " i=01; mx.example; spf=pass",
    ],
)
def test_results_with_cfws_around_the_instance(value: str) -> None:
    chain = parse(seal(1), message_signature(1), results(1, value=value))
    assert isinstance(chain, arc.Chain)
    assert chain.sealers[0].payload.replace(" ", "") == "mx.example;spf=pass"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param(sets(1)[:2], "no ARC-Authentication-Results field with i=1", id="no results"),
        pytest.param(sets(1)[::2], "no ARC-Message-Signature field with i=1", id="no message signature"),
        pytest.param(sets(1)[1:], "no ARC-Seal field with i=1", id="no seal"),
        pytest.param(sets(2), "no ARC-Authentication-Results field with i=1", id="first set missing"),
        pytest.param(sets(1, 3), "field with i=2", id="set missing inside"),
        pytest.param([*sets(1), seal(1)], "two ARC-Seal fields with i=1", id="seal twice"),
        pytest.param([*sets(1), results(1)], "two ARC-Authentication-Results fields", id="results twice"),
        pytest.param([*sets(1), message_signature(1)], "two ARC-Message-Signature fields", id="signature twice"),
        pytest.param([seal(1), message_signature(1), results(0)], "i=0", id="instance 0"),
        pytest.param([seal(1), message_signature(51), results(1)], "i=51", id="instance 51"),
        pytest.param([seal(1), message_signature(1), results(111)], "start with i=", id="instance of three digits"),
        pytest.param([seal(1), message_signature("x"), results(1)], "without a valid i=", id="instance no number"),
        pytest.param([seal("-1"), message_signature(1), results(1)], "without a valid i=", id="negative instance"),
        pytest.param([seal("1", more="i=1"), *sets(1)[1:]], "two i= tags", id="two instances in one field"),
        pytest.param([*sets(1)[:2], results(1, value=" mx; i=1; spf=pass")], "start with i=", id="instance not first"),
        pytest.param([*sets(1)[:2], results(1, value=" i=1 mx; spf=pass")], "start with i=", id="no semicolon"),
        pytest.param([*sets(1)[:2], results(1, value=" I=1; mx")], "start with i=", id="instance in upper case"),
        pytest.param([*sets(1)[:2], results(1, value=" (i=1; mx")], "start with i=", id="open comment"),
        pytest.param([seal(1, "fail"), *sets(1)[1:]], "cv=fail", id="the last sealer says fail"),
        pytest.param([seal(1, "pass"), *sets(1)[1:]], "cv=pass instead of none", id="first cv is pass"),
        pytest.param([seal(2, "none"), *sets(1, 2)[1:]], "cv=none instead of pass", id="later cv is none"),
        pytest.param([*sets(2), seal(1, "fail"), *sets(1)[1:]], "cv=fail instead of none", id="an older cv is fail"),
        pytest.param([seal(1, "good"), *sets(1)[1:]], "unknown cv=", id="unknown cv"),
        pytest.param([seal(1, more="h=from"), *sets(1)[1:]], "has an h= tag", id="h in a seal"),
        pytest.param([seal(1, more="t="), *sets(1)[1:]], "t= is not a number", id="empty time"),
        pytest.param([seal(1, more="t=1x"), *sets(1)[1:]], "t= is not a number", id="time no number"),
        pytest.param([field(AS, "i=1; cv=none"), *sets(1)[1:]], "no d= tag", id="tags missing in a seal"),
        pytest.param([field(AS, "i=1;; cv=none"), *sets(1)[1:]], "malformed ARC-Seal", id="no tag list"),
    ],
)
def test_broken_structure(fields: list[HeaderField], reason: str) -> None:
    evaluation = parse(*fields)
    assert isinstance(evaluation, arc.Evaluation)
    assert evaluation.result is arc.Result.FAIL
    assert reason in evaluation.reason
    assert evaluation.oldest_pass is None


def test_fifty_sets_are_the_most() -> None:
    assert isinstance(parse(*sets(*range(1, 51))), arc.Chain)
    evaluation = parse(*sets(*range(1, 51)), seal(51))
    assert isinstance(evaluation, arc.Evaluation)
    assert evaluation.reason == "more than 50 ARC sets"


def test_a_lower_bound_on_sets() -> None:
    header = Header(tuple(sets(1, 2, 3)))
    assert isinstance(arc.parse_chain(header, max_sets=3), arc.Chain)
    assert isinstance(arc.parse_chain(header, max_sets=2), arc.Evaluation)


@pytest.mark.parametrize(
    ("more", "fault"),
    [("h=arc-seal", "two h= tags"), ("c=x", "unknown canonicalization"), ("l=x", "l= is not a number")],
)
def test_an_unusable_message_signature_is_kept_for_the_verifier(more: str, fault: str) -> None:
    fields = [*sets(2), seal(1), message_signature(1, more=more), results(1)]
    chain = parse(*fields)
    if fault.startswith("two"):
        assert isinstance(chain, arc.Evaluation)  # without a tag list, not even the instance is known
        return
    assert isinstance(chain, arc.Chain)
    assert chain.sets[0].message_signature is None
    assert fault in chain.sets[0].fault


def test_message_signature_must_not_sign_a_seal() -> None:
    signed = field(AMS, " i=1; a=rsa-sha256; d=m.example.org; s=sel; h=from:ARC-Seal; bh=QQ==; b=QQ==")
    chain = parse(seal(1), signed, results(1))
    assert isinstance(chain, arc.Chain)
    assert chain.sets[0].fault == "h= names ARC-Seal"


@pytest.mark.parametrize(
    ("fields", "ending"),
    [
        ([], (0, False)),
        (sets(1, 2), (2, False)),
        ([results(7)], (7, False)),
        ([seal(1, "fail"), *sets(1)[1:]], (1, True)),
        ([*sets(2), seal(1, "fail")], (2, False)),
        ([seal("x"), field(AAR, "")], (0, False)),
    ],
)
def test_ending(fields: list[HeaderField], ending: tuple[int, bool]) -> None:
    assert read_ending(Header(tuple(fields))) == ending


values = st.binary(max_size=60) | st.sampled_from([one.value for one in sets(1, 2)])
fields = st.builds(HeaderField, st.sampled_from([AAR.encode(), AMS.encode(), AS.encode()]), values)


@given(st.lists(fields, max_size=8))
def test_any_fields_are_a_chain_or_an_evaluation(some: list[HeaderField]) -> None:
    header = Header(tuple(some))
    parsed = arc.parse_chain(header)
    assert isinstance(parsed, arc.Chain) or parsed.reason
    assert 0 <= read_ending(header)[0] <= arc.MAX_SETS


@pytest.mark.parametrize("value", [b"(" * 300_000, b"()" * 150_000, b"(\\" * 150_000, b" i=" + b"(a)" * 100_000])
def test_hostile_results_take_linear_time(value: bytes) -> None:
    start = time.process_time()
    arc.parse_chain(Header((HeaderField(AAR.encode(), value),)))
    assert time.process_time() - start < 0.5
