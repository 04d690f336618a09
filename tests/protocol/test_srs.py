# SPDX-License-Identifier: GPL-3.0-or-later
"""SRS: what is written, what is accepted, and which check fails."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from assay.protocol import srs
from assay.protocol.srs import Fault, Scheme, SrsError, forward, reverse

DAY = 86_400
NOW = 1_577_836_860.0  # 2020-01-01
OURS = Scheme("fwd.example", (b"new", b"old"))
OLD = Scheme("fwd.example", (b"old",))
TEXT = st.text(st.characters(exclude_characters="@", exclude_categories=["Cs"]), min_size=1, max_size=30)
HOST = st.from_regex(r"\A[a-z0-9-]{1,9}(\.[a-z0-9-]{1,9}){0,3}\Z").filter(lambda host: not host.isdecimal())


def fault(address: str, scheme: Scheme = OURS, now: float = NOW) -> Fault:
    with pytest.raises(SrsError) as raised:
        reverse(address, scheme, now)
    return raised.value.fault


@given(TEXT.filter(lambda user: not srs.is_srs(user)), HOST, st.sampled_from(srs.SEPARATORS), st.integers(4, 27))
def test_what_is_written_leads_back(user: str, host: str, separator: str, length: int) -> None:
    scheme = replace(OURS, separator=separator, hash_length=length)
    ours = forward(f"{user}@{host}", scheme, NOW)
    assert ours.startswith(f"SRS0{separator}")
    assert ours.endswith("@fwd.example")
    assert reverse(ours, scheme, NOW) == f"{user}@{host}"
    assert reverse(ours, OURS, NOW) == f"{user}@{host}"  # with another separator, and a hash longer than ours


@given(TEXT, st.sampled_from(srs.SEPARATORS), st.sampled_from(srs.SEPARATORS))
def test_the_address_of_another_forwarder_goes_back_to_it(rest: str, theirs: str, ours: str) -> None:
    scheme = replace(OURS, separator=ours)
    address = forward(f"SRS0{theirs}{rest}@first.example", scheme, NOW)
    assert address.startswith(f"SRS1{ours}")
    assert reverse(address, scheme, NOW) == f"SRS0{theirs}{rest}@first.example"


def test_a_third_forwarder_goes_back_to_the_first_one() -> None:
    second = forward("SRS0+abcd=2W=a.example=ann@first.example", replace(OLD, domain="second.example"), NOW)
    third = forward(second, OURS, NOW)
    assert third.count("SRS") == 1
    assert reverse(third, OURS, NOW) == "SRS0+abcd=2W=a.example=ann@first.example"


@pytest.mark.parametrize("age", [0, 1, 21])
def test_an_address_is_valid_until_its_age(age: int) -> None:
    assert reverse(forward("ann@a.example", OURS, NOW), OURS, NOW + age * DAY) == "ann@a.example"


@pytest.mark.parametrize("age", [22, 500, 1023, -1])
def test_an_address_that_is_old_or_from_the_future_is_not_valid(age: int) -> None:
    assert fault(forward("ann@a.example", OURS, NOW), now=NOW + age * DAY) is Fault.AGE


def test_all_secrets_verify_and_the_first_one_signs() -> None:
    assert reverse(forward("ann@a.example", OLD, NOW), OURS, NOW) == "ann@a.example"
    assert fault(forward("ann@a.example", OURS, NOW), OLD) is Fault.HASH


@pytest.mark.parametrize(
    ("was", "becomes"), [("ann", "bob"), ("a.example", "b.example"), ("2W", "2V"), ("SRS0=", "SRS0=x")]
)
def test_nothing_in_an_address_can_be_changed(was: str, becomes: str) -> None:
    address = forward("ann@a.example", OURS, NOW)
    assert was in address
    assert fault(address.replace(was, becomes, 1)) is Fault.HASH


def test_an_mta_may_change_the_case() -> None:
    address = forward("Ann@A.example", replace(OURS, hash_length=27), NOW)
    assert reverse(address.upper(), OURS, NOW) == "ANN@A.EXAMPLE"
    assert reverse(address.lower(), OURS, NOW) == "ann@a.example"


def test_a_short_hash_is_not_accepted() -> None:
    scheme = replace(OURS, hash_length=6, min_hash_length=6)
    address = forward("ann@a.example", scheme, NOW)
    mark = address[5:11]
    assert reverse(address.replace(mark, mark[:5]), OURS, NOW) == "ann@a.example"
    assert fault(address.replace(mark, mark[:5]), scheme) is Fault.HASH
    assert fault(address.replace(mark, ""), scheme) is Fault.FORM
    assert fault(address.replace(mark, mark[:3])) is Fault.HASH


@pytest.mark.parametrize(
    ("local_part", "expected"),
    [
        ("ann", Fault.FORM),
        ("SRS0", Fault.FORM),
        ("SRS2=abcd=2W=a.example=ann", Fault.FORM),
        ("SRS0=", Fault.FORM),
        ("SRS0=abcd==a.example=ann", Fault.FORM),
        ("SRS0=abcd=2W==ann", Fault.FORM),
        ("SRS0=abcd=2W=a.example=", Fault.FORM),
        ("SRS1=", Fault.FORM),
        ("SRS1=abcd", Fault.FORM),
        ("SRS1=abcd=first.example", Fault.FORM),
        ("SRS1=abcd=first.example=", Fault.FORM),
        ("SRS1=abcd=first.example==", Fault.FORM),
        ("SRS1=abcd=first.example=rest", Fault.FORM),
        ("SRS1=abcd=first.example==rest", Fault.HASH),
        ("SRS0=" + "a" * 28 + "=2W=a.example=ann", Fault.HASH),
        ("SRS0=\u0130\u0130\u0130\u0130=2W=a.example=ann", Fault.HASH),
    ],
)
def test_each_check_that_fails_is_named(local_part: str, expected: Fault) -> None:
    assert fault(f"{local_part}@fwd.example") is expected


@pytest.mark.parametrize("date", ["2", "2WW", "21", "\u00df", "0O", "\u017f\u017f"])
def test_a_date_is_two_letters(date: str) -> None:
    mark = srs._hash(b"new", date, "a.example", "ann")[:4]
    assert fault(f"SRS0={mark}={date}=a.example=ann@fwd.example") is Fault.AGE


@pytest.mark.parametrize("address", ["", "ann", "ann@", "@a.example", '""'])
def test_without_a_domain_there_is_nothing_to_go_back_to(address: str) -> None:
    with pytest.raises(SrsError) as raised:
        forward(address, OURS, NOW)
    assert raised.value.fault is Fault.DOMAIN
    assert fault(address) is Fault.DOMAIN


def test_octets_that_are_not_utf_8_come_back() -> None:
    user = b"\xe9\xff".decode("utf-8", "surrogateescape")
    assert reverse(forward(f"{user}@a.example", OURS, NOW), OURS, NOW) == f"{user}@a.example"


def test_mail_that_comes_by_us_again_gets_the_address_that_we_wrote_first() -> None:
    ours = Scheme("ours.example", (b"a secret",))
    theirs = Scheme("theirs.example", (b"their secret",))
    first = forward("ann@a.example", ours, NOW)
    again = forward(forward(first, theirs, NOW), ours, NOW)
    assert again == first
    assert forward(forward(first + ".", theirs, NOW), ours, NOW) == first
    assert reverse(again, ours, NOW) == "ann@a.example"


HOSTS = [Scheme(f"h{number}.example", (b"secret %d" % number,)) for number in range(5)]


@given(st.lists(st.sampled_from(HOSTS), min_size=1, max_size=12), TEXT.filter(lambda user: not srs.is_srs(user)))
def test_a_chain_and_its_loops_stay_short_and_lead_back(path: list[Scheme], user: str) -> None:
    """However many hosts forward it, in any order: each writes SRS0 or SRS1 once, and a bounce goes by two at most."""
    address = f"{user}@a.example"
    for scheme in path:
        address = forward(address, scheme, NOW)
        assert len(address) <= len(f"SRS1=xxxx=h0.example==xxxx=2W=a.example={user}@h0.example")
    by_domain = {scheme.domain: scheme for scheme in HOSTS}
    hops = 0
    while address != f"{user}@a.example":
        address = reverse(address, by_domain[address.rpartition("@")[2]], NOW)
        hops += 1
    assert hops == (1 if path[-1] == path[0] else 2)


def test_srs1_of_srs1_names_the_first_forwarder_and_no_other() -> None:
    first = forward("ann@a.example", HOSTS[0], NOW)
    second = forward(first, HOSTS[1], NOW)
    third = forward(second, HOSTS[2], NOW)
    assert third.endswith("@h2.example")
    assert "h1.example" not in third
    assert reverse(third, HOSTS[2], NOW) == first


@pytest.mark.parametrize(
    "rest", ["=abcd=2W=a.example=ann", "+x", "-x", "==", "=" * 60, "=SRS0=a=b=c=d", "=SRS1=a=b==c"]
)
def test_srs1_that_a_stranger_made_up_goes_to_nobody(rest: str) -> None:
    assert fault(f"SRS1=abcd=victim.example={rest}@fwd.example") is Fault.HASH


@pytest.mark.parametrize("user", ["j\u00f6rg", "\u7528\u6237", "\u0130i", "\u017f", "stra\u00dfe"])
def test_local_parts_beyond_ascii(user: str) -> None:  # RFC 6531
    address = forward(f"{user}@a.example", OURS, NOW)
    assert reverse(address, OURS, NOW) == f"{user}@a.example"
    # A hop that changes the case of ASCII, as hosts may not, but do (RFC 5321, 2.4).
    folded = "".join(letter.lower() if letter.isascii() else letter for letter in address)
    assert reverse(folded, OURS, NOW) == f"{user}@a.example"


@pytest.mark.parametrize(
    "user", ["a@b", "a@b.example", "SRS2=x", "a=b", "=", "+", "-", "a=b+c-d", "=a=", "SRS0", "a b", '"', "\\"]
)
@pytest.mark.parametrize("separator", srs.SEPARATORS)
def test_local_parts_with_at_signs_and_separators(user: str, separator: str) -> None:
    scheme = replace(OURS, separator=separator)
    address = forward(f"{user}@a.example", scheme, NOW)
    assert reverse(address, scheme, NOW) == f"{user}@a.example"
    assert reverse(address, OURS, NOW) == f"{user}@a.example"


def test_a_hash_that_is_cut_off_is_not_accepted() -> None:
    """Four letters are a guess of one in millions; fewer, or none, must not be."""
    address = forward("ann@a.example", replace(OURS, hash_length=27), NOW)
    mark = address[5:32]
    for length in range(28):
        cut = address.replace(mark, mark[:length], 1)
        if length >= OURS.min_hash_length:
            assert reverse(cut, OURS, NOW) == "ann@a.example"
        else:
            assert fault(cut) is (Fault.HASH if length else Fault.FORM)


@given(st.integers(-40, 40), st.integers(0, 3))
def test_dates_around_the_end_of_their_cycle(days: int, cycles: int) -> None:
    """Dates start again after 1024 days: none is valid a cycle later, and none from the future is."""
    start = 18_432 * DAY  # a multiple of 1024 days, when dates are AA again
    address = forward("ann@a.example", OURS, start)
    assert "=AA=" in address
    now = start + days * DAY
    if 0 <= days <= OURS.max_age_days:
        assert reverse(address, OURS, now) == "ann@a.example"
        assert fault(address, now=now + 512 * DAY) is Fault.AGE
    else:
        assert fault(address, now=now + cycles * 1024 * DAY) is Fault.AGE
    before = forward("ann@a.example", OURS, start - DAY)
    assert "=77=" in before
    assert reverse(before, OURS, start + DAY) == "ann@a.example"


def test_a_long_domain_and_a_long_local_part_are_written_whole() -> None:
    """Cut off, they would lead to somebody else. The log warns of what hosts may refuse."""
    host = ".".join(["a" * 63] * 3 + ["b" * 61])
    address = forward(f"{'u' * 250}@{host}", OURS, NOW)
    assert reverse(address, OURS, NOW) == f"{'u' * 250}@{host}"


def test_no_address_that_no_host_takes_is_written() -> None:
    longest = "test@" + "a" * (srs.MAX_ADDRESS_OCTETS - 9) + ".net"
    assert reverse(forward(longest, OURS, NOW), OURS, NOW) == longest
    with pytest.raises(SrsError) as caught:
        forward(f"t{longest}", OURS, NOW)
    assert caught.value.fault is Fault.FORM


def test_an_entry_in_the_database_of_postsrsd_is_no_address() -> None:
    """The hash is right, if its secret is ours now: the bounce would go to the host 1."""
    with pytest.raises(SrsError, match="database") as caught:
        reverse(forward("DCJGDE6N24LCRT41A4T0G1UIF0DTKKQJ@1", OURS, NOW), OURS, NOW)
    assert caught.value.fault is Fault.FORM
