# SPDX-License-Identifier: GPL-3.0-or-later
"""Which texts name a nameserver, and what the system's configuration names."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.resolver import Nameserver, NameserverError, configured

GOOD = {
    "IPv4": ("192.0.2.1", Nameserver("192.0.2.1", 53), "192.0.2.1"),
    "IPv4 with port": ("192.0.2.1:5353", Nameserver("192.0.2.1", 5353), "192.0.2.1:5353"),
    "IPv6": ("2001:db8::1", Nameserver("2001:db8::1", 53), "2001:db8::1"),
    "IPv6 in brackets": ("[2001:db8::1]", Nameserver("2001:db8::1", 53), "2001:db8::1"),
    "IPv6 with port": ("[2001:db8::1]:5353", Nameserver("2001:db8::1", 5353), "[2001:db8::1]:5353"),
    "IPv6 with zone": ("fe80::1%eth0", Nameserver("fe80::1%eth0", 53), "fe80::1%eth0"),
}


@pytest.mark.parametrize(("text", "expected", "shown"), GOOD.values(), ids=GOOD)
def test_an_address_with_or_without_port_is_a_nameserver(text: str, expected: Nameserver, shown: str) -> None:
    assert configured([text]) == (expected,)
    assert str(expected) == shown


BAD = {
    "nothing": [],
    "empty": [""],
    "a name": ["dns.example.org"],
    "port 0": ["192.0.2.1:0"],
    "port too high": ["192.0.2.1:65536"],
    "port no number": ["192.0.2.1:dns"],
    "port in other digits": ["192.0.2.1:٥٣"],
    "port missing": ["192.0.2.1:"],
    "bracket open": ["[2001:db8::1"],
    "junk behind the bracket": ["[2001:db8::1]5353"],
    "DNS over TLS": ["tls://192.0.2.1"],
    "DNS over HTTPS": ["https://192.0.2.1/dns-query"],
    "system with others": ["system", "192.0.2.1"],
    "none with others": ["192.0.2.1", "none"],
}


@pytest.mark.parametrize("texts", BAD.values(), ids=BAD)
def test_other_texts_are_errors_that_quote_them(texts: list[str]) -> None:
    with pytest.raises(NameserverError) as caught:
        configured(texts)
    assert not texts or any(repr(text) in str(caught.value) for text in texts)


def test_none_means_no_nameserver() -> None:
    assert configured(["none"]) == ()


def test_one_nameserver_written_twice_is_one() -> None:
    assert configured(["192.0.2.1", "[2001:db8::1]", "192.0.2.1:53"]) == (
        Nameserver("192.0.2.1"),
        Nameserver("2001:db8::1"),
    )


RESOLV_CONF = {
    "in order": ("nameserver 192.0.2.2\nnameserver\t2001:db8::1\n", ["192.0.2.2", "2001:db8::1"]),
    "other lines do not count": (
        "# nameserver 192.0.2.9\nsearch example.org\nnameserver fe80::1%eth0 # c\nnameserver\n",
        ["fe80::1%eth0"],
    ),
    "no address is skipped": ("nameserver localhost\nnameserver 192.0.2.1\n", ["192.0.2.1"]),
    "none named is the local host": ("search example.org\n", ["127.0.0.1"]),
    "odd octets": ("nameserver \u00e9\nnameserver 192.0.2.1\n", ["192.0.2.1"]),
}


@pytest.mark.parametrize(("text", "expected"), RESOLV_CONF.values(), ids=RESOLV_CONF)
def test_the_system_names_its_nameservers(tmp_path: Path, text: str, expected: list[str]) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(text, "utf-8")
    assert configured(["system"], path) == tuple(Nameserver(address) for address in expected)


def test_without_resolv_conf_the_local_host_is_asked(tmp_path: Path) -> None:
    assert configured(["system"], tmp_path / "absent") == (Nameserver("127.0.0.1"),)
