# SPDX-License-Identifier: GPL-3.0-or-later
"""What a relay wrote about its client is read only where the client's own words cannot stand: its HELO argument may be
an address literal, and an address of ours or of somebody's mail server at that."""

from __future__ import annotations

import pytest

from assay.protocol.syntax.received import parse_received

STRANGER = "198.51.100.66"


@pytest.mark.parametrize(
    ("value", "address", "helo"),
    [
        pytest.param("from a.test (b.test [198.51.100.66]) by r", STRANGER, "a.test", id="Postfix"),
        pytest.param("from a.test (unknown [IPv6:2001:db8::1])\r\n\tby r", "2001:db8::1", "a.test", id="Postfix, IPv6"),
        pytest.param("from a.test ([198.51.100.66]) by r", STRANGER, "a.test", id="Sendmail without a name"),
        pytest.param("from a.test (b.test [198.51.100.66] (may be forged)) by r", STRANGER, "a.test", id="Sendmail"),
        pytest.param("from a.test (IDENT:joe@b.test [198.51.100.66]) by r", STRANGER, "a.test", id="Sendmail, ident"),
        pytest.param("from b.test ([198.51.100.66] helo=a.test) by r", STRANGER, "a.test", id="Exim"),
        pytest.param("from b.test ([198.51.100.66]:25 helo=a.test)\r\n by r", STRANGER, "a.test", id="Exim with port"),
        pytest.param("from [198.51.100.66] (helo=a.test) by r", STRANGER, "a.test", id="Exim without a name"),
        pytest.param("from [198.51.100.66] (port=25 helo=a.test) by r", STRANGER, "a.test", id="the same with port"),
        pytest.param("from [198.51.100.66]:25 (helo=a.test) by r", STRANGER, "a.test", id="the same in another way"),
    ],
)
def test_forms_of_mtas(value: str, address: str, helo: str) -> None:
    told = parse_received(f" {value}; Thu, 1 Jan 1970".encode())
    assert told is not None
    assert (str(told[0]), told[1]) == (address, helo)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("from [10.0.0.1] (b.test [198.51.100.66]) by r", id="Postfix"),
        pytest.param("from [10.0.0.1] (b.test [198.51.100.66] (may be forged)) by r", id="Sendmail, name forged"),
        pytest.param("from [10.0.0.1] ([198.51.100.66]) by r", id="Sendmail without a name"),
        pytest.param("from [198.51.100.66] (helo=[10.0.0.1]) by r", id="Exim without a name"),
        pytest.param("from [198.51.100.66] (helo=x [10.0.0.1]) by r", id="Exim that takes junk"),
        pytest.param("from [198.51.100.66] (ident=[10.0.0.1] helo=x) by r", id="Exim that asks identd"),
        pytest.param("from b.test ([198.51.100.66] helo=[10.0.0.1]) by r", id="Exim"),
    ],
)
def test_a_literal_in_helo_is_not_the_client(value: str) -> None:
    told = parse_received(f" {value}".encode())
    assert told is not None
    assert str(told[0]) == STRANGER


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("from [10.0.0.1] by r", id="nothing but a name"),
        pytest.param("from [10.0.0.1] (198.51.100.66) by r", id="Exchange"),
        pytest.param("from unknown (HELO [10.0.0.1]) (198.51.100.66) by r", id="qmail"),
        pytest.param("from b.test (EHLO [10.0.0.1]) (198.51.100.66) by r", id="another of its kind"),
        pytest.param("from [10.0.0.1] (may be anything) by r", id="words"),
        pytest.param("from a.test by r ([10.0.0.1])", id="behind by"),
        pytest.param("from a.test ([10.0.0.1.2]) by r", id="no address"),
        pytest.param("by r (Postfix, from userid 0)", id="local"),
        pytest.param("from [10.0.0.1] (helo=x", id="no end"),
    ],
)
def test_a_form_that_is_not_known_tells_nothing(value: str) -> None:
    assert parse_received(f" {value}".encode()) is None
