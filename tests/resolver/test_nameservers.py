# SPDX-License-Identifier: GPL-3.0-or-later
"""Which texts name a nameserver, and what the system's configuration names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from assay.resolver import CertificatesError, Nameserver, NameserverError, configured, contexts

GOOD = {
    "IPv4": ("192.0.2.1", Nameserver("192.0.2.1", 53), "192.0.2.1"),
    "IPv4 with port": ("192.0.2.1:5353", Nameserver("192.0.2.1", 5353), "192.0.2.1:5353"),
    "IPv6": ("2001:db8::1", Nameserver("2001:db8::1", 53), "2001:db8::1"),
    "IPv6 in brackets": ("[2001:db8::1]", Nameserver("2001:db8::1", 53), "2001:db8::1"),
    "IPv6 with port": ("[2001:db8::1]:5353", Nameserver("2001:db8::1", 5353), "[2001:db8::1]:5353"),
    "IPv6 with zone": ("fe80::1%eth0", Nameserver("fe80::1%eth0", 53), "fe80::1%eth0"),
    "TLS": (
        "tls://9.9.9.9#DNS.quad9.net",
        Nameserver("9.9.9.9", 853, "tls", "dns.quad9.net"),
        "tls://9.9.9.9#dns.quad9.net",
    ),
    "TLS, port": (
        "tls://192.0.2.1:8853#a.example",
        Nameserver("192.0.2.1", 8853, "tls", "a.example"),
        "tls://192.0.2.1:8853#a.example",
    ),
    "TLS, IPv6": (
        "tls://[2001:db8::1]#a.example",
        Nameserver("2001:db8::1", 853, "tls", "a.example"),
        "tls://[2001:db8::1]#a.example",
    ),
    "TLS, IPv6 with port": ("tls://[2001:db8::1]:853", Nameserver("2001:db8::1", 853, "tls"), "tls://[2001:db8::1]"),
    "TLS, IPv6 with zone": (
        "tls://[fe80::1%Eth0]:854",
        Nameserver("fe80::1%Eth0", 854, "tls"),
        "tls://[fe80::1%Eth0]:854",
    ),
    "TLS, certificate for the address": ("tls://192.0.2.1", Nameserver("192.0.2.1", 853, "tls"), "tls://192.0.2.1"),
    "HTTPS": (
        "https://192.0.2.1/dns-query#a.example",
        Nameserver("192.0.2.1", 443, "https", "a.example", "/dns-query"),
        "https://192.0.2.1/dns-query#a.example",
    ),
    "HTTPS, template of RFC 8484": (
        "https://[2001:db8::1]:8443/q{?dns}",
        Nameserver("2001:db8::1", 8443, "https", "", "/q"),
        "https://[2001:db8::1]:8443/q",
    ),
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
    "HTTP in the clear": ["http://192.0.2.1/dns-query"],
    "QUIC": ["quic://192.0.2.1"],
    "no host": ["tls://"],
    "port 0 of TLS": ["tls://192.0.2.1:0"],
    "port of TLS no number": ["tls://192.0.2.1:dns"],
    "bracket open in a URL": ["tls://[2001:db8::1"],
    "IPv6 in a URL without brackets": ["tls://2001:db8::1"],
    "TLS with a path": ["tls://192.0.2.1/dns-query"],
    "HTTPS without a path": ["https://192.0.2.1"],
    "HTTPS with a query": ["https://192.0.2.1/dns-query?dns=x"],
    "HTTPS with a user": ["https://me@192.0.2.1/dns-query"],
    "not a host's name": ["tls://192.0.2.1#a..example"],
    "a path beyond ASCII": ["https://192.0.2.1/\u00e9"],
    "a name and a name": ["tls://dns.google#dns.google"],
    "a word that is not known": ["yahoo_tls"],
    "system with others": ["system", "192.0.2.1"],
    "none with others": ["192.0.2.1", "none"],
}


@pytest.mark.parametrize("texts", BAD.values(), ids=BAD)
def test_other_texts_are_errors_that_quote_them(texts: list[str]) -> None:
    with pytest.raises(NameserverError) as caught:
        configured(texts)
    assert not texts or any(repr(text) in str(caught.value) for text in texts)


@pytest.mark.parametrize("text", ["tls://dns.example.net", "https://dns.example.net/q"])
def test_a_name_that_only_the_dns_knows_is_refused_with_the_form_to_write(text: str) -> None:
    scheme, _, rest = text.partition("://")
    with pytest.raises(NameserverError) as caught:
        configured([text])
    fix = f"write it too, such as {scheme}://192.0.2.53{rest.removeprefix('dns.example.net')}#dns.example.net"
    assert str(caught.value).endswith(fix)
    assert configured([fix.removeprefix("write it too, such as ")])


@pytest.mark.parametrize(
    ("word", "name"),
    [("google_tls", "dns.google"), ("cloudflare_tls", "cloudflare-dns.com"), ("quad9_tls", "dns.quad9.net")],
)
def test_a_public_resolver_is_known_by_a_word_and_by_its_name(word: str, name: str) -> None:
    servers = configured([word])
    assert servers == configured([f"tls://{name}"])
    assert {(server.port, server.scheme, server.name) for server in servers} == {(853, "tls", name)}
    assert [server.is_ipv6 for server in servers] == [False, False, True, True]
    assert {server.address for server in configured([f"https://{name}/dns-query"])} == {
        server.address for server in servers
    }


def test_encrypted_nameservers_need_a_library_or_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over_tls, over_https = configured(["tls://192.0.2.1", "https://192.0.2.1/q"])
    with pytest.raises(CertificatesError, match="cannot be read: No such file or directory"):
        contexts([over_tls], str(tmp_path / "absent"))
    (tmp_path / "junk").write_text("junk")
    with pytest.raises(CertificatesError, match="no certificates in PEM"):
        contexts([over_tls], str(tmp_path / "junk"))
    assert contexts(configured(["192.0.2.1"]), str(tmp_path / "absent")) == {}, "they are not read for nothing"
    monkeypatch.setitem(sys.modules, "h2", None)
    with pytest.raises(NameserverError, match=r"needs Python packages; run: .+ -m pip install h2"):
        contexts([over_tls, over_https], "")


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
