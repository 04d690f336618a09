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
        pytest.param(
            "from [198.51.100.66] by r with esmtps  (TLS1.3) tls TLS_AES_256_GCM_SHA384\r\n\t(Exim 4.96)",
            STRANGER,
            "[198.51.100.66]",
            id="Exim, whose client greets with its address",
        ),
        pytest.param(
            "from a.test (198.51.100.66) by ex.r.test\r\n (10.0.0.5) with Microsoft SMTP Server (TLS) id 15.1",
            STRANGER,
            "a.test",
            id="Exchange",
        ),
        pytest.param(
            "from a.test (2001:db8::1) by ex.r.test (2001:db8::5) with Microsoft SMTP\r\n Server id 15.20.1",
            "2001:db8::1",
            "a.test",
            id="Exchange, IPv6",
        ),
        pytest.param(
            "from a.test (198.51.100.66)\r\n        by cloudflare-email.net (cloudflare) id Abc for <a@r.test>",
            STRANGER,
            "a.test",
            id="Cloudflare",
        ),
        pytest.param("from unknown (HELO a.test) (198.51.100.66) by r with SMTP", STRANGER, "a.test", id="qmail"),
        pytest.param("from a.test (198.51.100.66)\r\n  by r with SMTP", STRANGER, "a.test", id="qmail, names equal"),
        pytest.param(
            "from b.test (HELO a.test) (joe@198.51.100.66) by r with SMTP", STRANGER, "a.test", id="qmail with ident"
        ),
        pytest.param(
            "from b.test (HELO ?10.0.0.1?) (198.51.100.66) by r", STRANGER, "?10.0.0.1?", id="qmail, literal in HELO"
        ),
        pytest.param(
            "from b.test (EHLO a.test) (198.51.100.66)\r\n    by r (qpsmtpd/0.96) with ESMTP",
            STRANGER,
            "a.test",
            id="qpsmtpd",
        ),
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
        pytest.param("from [10.0.0.1] (198.51.100.66) by r (10.0.0.5) with Microsoft SMTP Server", id="Exchange"),
        pytest.param("from [10.0.0.1] (198.51.100.66) by cloudflare-email.net (cloudflare) id A", id="Cloudflare"),
        pytest.param("from unknown (HELO [10.0.0.1]) (198.51.100.66) by r", id="qmail"),
        pytest.param("from b.test (EHLO [10.0.0.1]) (198.51.100.66) by r", id="qpsmtpd"),
        pytest.param("from b.test (HELO x) (joe@10.0.0.1@198.51.100.66) by r", id="qmail that asks identd"),
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
        pytest.param("from [10.0.0.1] (198.51.100.66) by r", id="either may be HELO"),
        pytest.param("from b.test (HELO x)(10.0.0.1)) (198.51.100.66) by r", id="qpsmtpd, HELO with parentheses"),
        pytest.param("from b.test (HELO x) (10.0.0.1) (198.51.100.66) by r", id="HELO with space and parentheses"),
        pytest.param("from b.test (HELO x) (10.0.0.1) for a (198.51.100.66) by r", id="the same, longer"),
        pytest.param("from b.test (HELO x) (10.0.0.1@x) by r", id="ident alone"),
        pytest.param("from x)(10.0.0.1) (198.51.100.66) by r", id="HELO with parentheses"),
        pytest.param("from x (10.0.0.1) (198.51.100.66) by r with Microsoft SMTP Server", id="HELO with both"),
        pytest.param("from [10.0.0.1] by r with smtp (envelope-from <(Exim 4.9)@x>)", id="not written by Exim"),
        pytest.param("from [10.0.0.1] by r with smtp for <(Exim 4.9)@x>", id="nor this"),
        pytest.param("from [10.0.0.1] (Exim 4.9) by r with smtp", id="nor this either"),
        pytest.param("from [10.0.0.1] (may be anything) by r", id="words"),
        pytest.param("from a.test by r ([10.0.0.1])", id="behind by"),
        pytest.param("from a.test ([10.0.0.1.2]) by r", id="no address"),
        pytest.param("by r (Postfix, from userid 0)", id="local"),
        pytest.param("from [10.0.0.1] (helo=x", id="no end"),
    ],
)
def test_an_unknown_form_gives_no_address(value: str) -> None:
    assert parse_received(f" {value}".encode()) is None
