# SPDX-License-Identifier: GPL-3.0-or-later
"""What other programs of this kind got wrong, and where we see to it that we do not.

=== =====================================================  ==========================================================
 1  removing fields from the first to the last             ``daemon/test_forged.py``, ``test_trace.py``
 2  inserting below the MTA's own Received                 ``daemon/test_forged.py::test_our_field_is_on_top``
 3  more than one results field, unregistered properties   ``test_trace.py::test_every_property_is_registered``, here
 4  the connect name instead of HELO                       ``daemon/test_stages.py::test_the_connect_name_...``, here
 5  deciding once a connection who is internal             ``session/test_session.py``, ``daemon/test_stages.py``
 6  decoded header octets, a lost leading space            ``daemon/test_stages.py::test_header_octets_reach_dkim...``
 7  a pass of HELO counted for DMARC                       ``session/test_transaction.py::TestDmarc``
 8  strict alignment that falls through                    ``session/test_transaction.py``, ``protocol/dmarc``
 9  a From field read in two ways                          ``protocol/dmarc/test_author.py``, here
10  the first of several DMARC records                     ``session/test_transaction.py``, ``protocol/dmarc``
11  a temporary error taken for a failure                  ``daemon/test_dns.py``, ``session/test_transaction.py``, here
12  ARC chains of other programs                           ``conformance/test_arc.py``
13  a body that goes on behind l=                          ``protocol/dkim/test_verify.py``, here
14  the disposition before local overrides                 ``test_trace.py::test_the_policy_as_it_was_applied``
15  VERP and U-labels in MAIL FROM                         here
16  networks in odd forms                                  ``session/test_session.py::test_who_is_exempt``, here
17  long TXT records over TCP                              ``resolver/test_resolver.py``, here through a daemon
18  the tree walk's order and bound                        ``protocol/dmarc/test_discovery.py``
19  report XML that others refuse                          no reports are written yet
20  reports about reports                                  no reports are written yet
21  values that break out of the results field             ``test_trace.py::test_a_stranger_cannot_write_results``
=== =====================================================  ==========================================================
"""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.model.network import Networks
from assay.model.smtp import parse_address
from assay.policy import Action
from assay.protocol import iprev, spf
from assay.session import Settings
from running import Daemon
from sending import BAD, GOOD, MESSAGE, OUR_ID, ROWS, message, results, send
from sending import greet as greet_over_the_wire
from signing import sign_rsa
from talking import REJECT_FAILURES, greet, inserted, policy_of, session, talk

STRICT = Settings(policy=policy_of(REJECT_FAILURES))


def test_3_one_results_field() -> None:
    one = session()
    greet(one)
    verdict = talk(one, sign_rsa(sign_rsa(MESSAGE)))
    assert len(inserted(verdict)) == 1
    assert inserted(verdict)[0].count("dkim=") == 2


@pytest.mark.parametrize(
    "author",
    [
        "ceo@reject.example, joe@example.org",
        "ceo@reject.example joe@example.org",
        "<ceo@reject.example> <joe@example.org>",
        "joe@example.org@reject.example",
        "<ceo@reject.example",
        "ceo@reject.example>",
        '"joe@example.org" ceo@reject.example joe@example.org',
        "=?utf-8?q?ceo=40reject.example?=",
        "joe@example.org\r\nFrom: ceo@reject.example",
    ],
)
def test_9_an_author_that_can_be_read_in_two_ways_does_not_pass(author: str) -> None:
    one = session()
    greet(one)
    found = talk(one, message(author)).assessment
    assert found.dmarc is not None
    assert found.author is not None
    assert str(found.author.domain) in ("None", "reject.example")
    if found.author.domains:  # else there are too many to ask for
        assert (found.dmarc.result, found.dmarc.disposition) == ("fail", "reject")
    else:
        assert found.dmarc.result == "permerror"


@pytest.mark.parametrize("name", sorted({*ROWS} - {"mail.example.org"}))
def test_11_a_temporary_error_never_rejects(name: str) -> None:
    one = session(STRICT, rows={name: [["SERVFAIL", "*"]]} | {n: rows for n, rows in ROWS.items() if n != name})
    greet(one)
    verdict = talk(one, sign_rsa(MESSAGE))
    assert verdict.action is (Action.TEMPFAIL if name == "_dmarc.example.org" else Action.ACCEPT)


def test_13_what_follows_l_is_not_vouched_for() -> None:
    one = session()
    greet(one, BAD)
    verdict = talk(one, sign_rsa(MESSAGE, length=True) + b"and this too\r\n")
    assert "dkim=policy" in inserted(verdict)[0]
    assert "dmarc=fail" in inserted(verdict)[0]


@pytest.mark.parametrize(
    ("path", "domain"),
    [
        ("<bounce+ann=example.net@example.org>", "example.org"),
        ("<prvs=0123456789=joe@example.org>", "example.org"),
        ("<SRS0=abcd=AB=example.net=ann@example.org>", "example.org"),
        ("<joe@EXAMPLE.org>", "example.org"),
        ("<joe@example.org.>", "example.org"),
        ("<joe@bücher.example>", "xn--bcher-kva.example"),
        ("<jürgen@bücher.example>", "xn--bcher-kva.example"),
        ("<joe@xn--bcher-kva.example>", "xn--bcher-kva.example"),
        ("<@relay.example:joe@example.org>", "example.org"),
        ('<"joe@evil.example"@example.org>', "example.org"),
    ],
)
def test_15_reverse_paths_in_odd_forms(path: str, domain: str) -> None:
    one = session(rows=ROWS | {"xn--bcher-kva.example": [["TXT", ["v=spf1 ip4:192.0.2.1 -all"]]]})
    greet(one)
    found = talk(one, path=path).assessment.spf_mail_from
    assert found is not None
    assert (str(found.domain), found.result) == (domain, spf.Result.PASS)


@pytest.mark.parametrize(
    ("network", "address", "holds"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "::ffff:c000:201", True),
        ("::ffff:192.0.2.0/120", "192.0.2.1", True),
        ("2001:DB8::/32", "2001:db8:0:0::1", True),
        ("[2001:db8::]/32", "IPv6:2001:db8::1", True),
        ("[2001:db8::1]", "2001:db8::1", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("0.0.0.0/0", "192.0.2.1", True),
        ("::/0", "192.0.2.1", False),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("192.0.2.0/24", "192.0.20.1", False),
        ("1.2.3.0/24, 192.0.2.0/24,", "192.0.2.1", True),
    ],
)
def test_16_networks_and_addresses_in_odd_forms(network: str, address: str, holds: bool) -> None:
    parsed = parse_address(address)
    assert parsed is not None
    assert (Networks.parse([network]).find(parsed) is not None) is holds


@pytest.mark.parametrize(
    ("text", "network", "host"),
    [("10.0.0.1/8", "10.0.0.0/8", "10.0.0.1"), ("[2001:db8::1]/32", "2001:db8::/32", "2001:db8::1")],
)
def test_16_a_network_with_host_bits_is_refused_and_the_likely_ones_are_named(
    text: str, network: str, host: str
) -> None:
    with pytest.raises(ValueError, match=f"; write {network}, or {host} for that host alone"):
        Networks.parse([text])


@pytest.mark.parametrize(
    "text", ["192.0.2", "192.0.2.0/33", "mx.example", "192.0.2.0/24/24", "::g", "*", "fe80::1%eth0", "::%\x00"]
)
def test_16_a_text_that_is_not_a_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an IP address or a network"):
        Networks.parse([text])


def test_17_a_long_record_comes_over_tcp(tmp_path: Path) -> None:
    long = "v=spf1 " + " ".join(f"ip4:198.51.100.{number}" for number in range(250)) + f" ip4:{GOOD} -all"
    rows = ROWS | {"example.org": [["TXT", [long]], ["TXT", ["x" * 2000]]]}
    with Daemon(tmp_path, rows) as daemon, daemon.mta() as mta:
        greet_over_the_wire(mta)
        assert "spf=pass smtp.mailfrom=example.org" in results(send(mta))
        assert daemon.nameserver.streams >= 1


def test_4_the_forward_name_must_lead_back() -> None:
    one = session()
    greet(one, BAD)
    found = talk(one).assessment.iprev
    assert found is not None
    assert found.result is iprev.Result.FAIL
    assert OUR_ID not in found.reason
