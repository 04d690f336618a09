# SPDX-License-Identifier: GPL-3.0-or-later
"""What the MTA reports about client and message, in the forms in which MTAs write it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from assay.model.message import Header, HeaderField, field_from_milter
from assay.model.smtp import Client, canonical_address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1 ", "192.0.2.1"),
        ("[192.0.2.1]", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("IPv6:2001:db8::1", "2001:db8::1"),
        ("ipv6:2001:db8::1", "2001:db8::1"),
        ("[IPv6:2001:db8::1]", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("IPv6:::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_addresses(text: str, address: str) -> None:
    assert parse_address(text) == ip_address(address)


@pytest.mark.parametrize(
    "text", ["", "unknown", "localhost", "192.0.2", "192.0.2.256", "192.0.2.01", ":", "IPv6:", "1", "\udcff"]
)
def test_not_an_address(text: str) -> None:
    assert parse_address(text) is None


def test_a_mapped_address_is_the_one_it_stands_for() -> None:
    assert canonical_address(ip_address("::ffff:192.0.2.1")) == ip_address("192.0.2.1")
    assert canonical_address(ip_address("::192.0.2.1")) == ip_address("::192.0.2.1")


def test_the_last_helo_counts() -> None:
    client = Client(ip_address("192.0.2.1"), "name.example", "one")
    assert client.greeted("two") == Client(ip_address("192.0.2.1"), "name.example", "two")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b" x", b" x"),
        (b"x", b"x"),
        (b" a\n\tb", b" a\r\n\tb"),
        (b" a\r\n\tb", b" a\r\n\tb"),
        (b" a\rb", b" a\rb"),
        (b" \xff", b" \xff"),
    ],
)
def test_a_field_of_the_milter_has_the_messages_line_ends(value: bytes, kept: bytes) -> None:
    assert field_from_milter(b"X", value) == HeaderField(b"X", kept)


def test_fields_are_found_in_any_case_from_top_to_bottom() -> None:
    header = Header((HeaderField(b"FROM", b" 1"), HeaderField(b"To", b" 2"), HeaderField(b"from \t", b" 3")))
    assert [one.value for one in header.all("From")] == [b" 1", b" 3"]
    assert header.all("Subject") == ()
    assert [one.raw for one in header] == [b"FROM: 1\r\n", b"To: 2\r\n", b"from \t: 3\r\n"]


def test_unfolding_takes_line_ends_only() -> None:
    assert HeaderField(b"X", b"  a\r\n\tb  c\r\n ").unfolded == b"a\tb  c"
