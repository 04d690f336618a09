# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may sign as whom."""

from __future__ import annotations

import re

import pytest

from assay.keys import SendersError, parse_senders
from assay.model.name import Domain
from assay.model.smtp import parse_address

TABLE = """
# who            may sign as
Joe              example.org
ann@example.net  example.com
@example.net     %  *.example.net     # as it, and as the domains below
root             *
10.1.0.0/16      example.org bücher.example
2001:db8::1      example.net
local            *.example.org
"""


@pytest.mark.parametrize(
    ("login", "address", "domain", "expected"),
    [
        pytest.param("joe", "192.0.2.1", "example.org", True, id="a login, in any case"),
        pytest.param("joe", "192.0.2.1", "sub.example.org", False, id="a domain is that alone"),
        pytest.param("joe", "10.1.1.1", "xn--bcher-kva.example", False, id="who has logged in has no other right"),
        pytest.param("bob", "10.1.1.1", "example.org", False, id="a login that is not in the table"),
        pytest.param("", "10.1.1.1", "xn--bcher-kva.example", True, id="a network, and a U-label"),
        pytest.param("", "10.2.1.1", "example.org", False, id="another network"),
        pytest.param("", "2001:db8::1", "example.net", True, id="one address"),
        pytest.param("Ann@Example.NET", "192.0.2.1", "example.net", True, id="the login's own domain"),
        pytest.param("ann@example.net", "192.0.2.1", "example.com", True, id="two rows for one login"),
        pytest.param("bob@example.net", "192.0.2.1", "example.com", False, id="another login's row"),
        pytest.param("bob@example.net", "192.0.2.1", "a.b.example.net", True, id="below"),
        pytest.param("root", "192.0.2.1", "any.example", True, id="any domain"),
        pytest.param("", None, "a.example.org", True, id="the command line"),
        pytest.param("", None, "example.org", False, id="the command line, another domain"),
    ],
)
def test_who_may(login: str, address: str | None, domain: str, expected: bool) -> None:
    client = None if address is None else parse_address(address)
    assert parse_senders(TABLE).allow(Domain(domain), login, client) is expected


def test_a_row_for_every_login() -> None:
    senders = parse_senders("* %\n")
    assert senders.allow(Domain("example.org"), "joe@example.org", None)
    assert not senders.allow(Domain("example.net"), "joe@example.org", None)
    assert not senders.allow(Domain("example.org"), "joe", None)
    assert not senders.allow(Domain("example.org"), "", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\njoe", "2: 'joe' has no domain; write one after it, or * for any"),
        ("joe a.example\nJOE b.example", "2: 'joe' is already in line 1; write its domains there"),
        ("joe -", "1: '-' is not a domain"),
        ("@a..b x.example", "1: '@a..b' is not @ and"),
        ("10.0.0.0/8 %", "1: % is the domain of a login, and '10.0.0.0/8' is not a login"),
        ("local %", "1: % is the domain of a login, and 'local' is not a login"),
    ],
)
def test_what_is_wrong_with_a_table(text: str, message: str) -> None:
    with pytest.raises(SendersError, match=re.escape(message)):
        parse_senders(text)
