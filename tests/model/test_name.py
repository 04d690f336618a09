# SPDX-License-Identifier: GPL-3.0-or-later
"""Domains and mailboxes have one form each, and a text that is none says why."""

from __future__ import annotations

import idna
import pytest

from assay.model.name import Domain, InvalidNameError, Mailbox, ReversePath, parse_mailbox, quote_local_part

LONGEST = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("example.org", "example.org"),
        ("EXAMPLE.Org.", "example.org"),
        ("org", "org"),
        ("_spf.example.org", "_spf.example.org"),
        ("a-b.1.example", "a-b.1.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("bücher\u3002example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("-a.example", "-a.example"),
        ("a-.example", "a-.example"),
        ("a+b.example", "a+b.example"),
        ("%{d}.!#$&'*/=?^`|~.example", "%{d}.!#$&'*/=?^`|~.example"),
        ("a_b.bücher.example", "a_b.xn--bcher-kva.example"),
        ("A-.bücher.example.", "a-.xn--bcher-kva.example"),
        ("ａ\u3002bücher\uff0eexample\uff61", "a.xn--bcher-kva.example"),
        ("中" * 19 + ".example", "xn--fiq" + "a" * 18 + ".example"),
        (LONGEST, LONGEST),
        (LONGEST + ".", LONGEST),
    ],
)
def test_domains(text: str, name: str) -> None:
    assert Domain.parse(text).name == name


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty domain"),
        (".", "empty domain"),
        ("a..b", "empty label"),
        (".a", "empty label"),
        ("a..", "empty label"),
        ("a b.example", "a domain name cannot have"),
        ("a\n.example", "a domain name cannot have"),
        ("example.org\n", "a domain name cannot have"),
        ("a@b.example", "a domain name cannot have"),
        ("[192.0.2.1]", "a domain name cannot have"),
        ("\x00", "a domain name cannot have"),
        ("x" * 64 + ".example", "longer than 63"),
        ("a" + LONGEST, "longer than"),
        ("a." * 130, "longer than 253"),
        ("ü" * 10_000, "longer than 253"),
        ("\udcff.example", "IDNA"),
        ("\u200b.example", "IDNA"),
        ("☃\ufe0f\u200d.example", "IDNA"),
        ("ü" * 60 + ".example", "IDNA|longer"),
        ("\u0660" * 64 + ".example", "label longer than 63 characters"),
        ("ü." * 100, "domain longer than 253"),
        ("ü..example", "empty label"),
    ],
)
def test_not_a_domain(text: str, reason: str) -> None:
    with pytest.raises(InvalidNameError, match=reason) as caught:
        Domain.parse(text)
    assert str(caught.value).isprintable()
    assert text not in str(caught.value) or text in ("", ".")


@pytest.mark.parametrize("text", ["\u0660" * 64 + ".example", "ü" * 255, "ü." * 128])
def test_names_are_bounded_before_they_are_converted(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    # Some checks of IDNA compare each character with all others.
    monkeypatch.setattr(idna, "encode", lambda *_, **__: pytest.fail("converted"))
    with pytest.raises(InvalidNameError, match="longer than"):
        Domain.parse(text)


@pytest.mark.parametrize("text", ["a-.example", "-a.example", "a+b.example", "*.example", "a'b.bücher.example"])
def test_what_the_dns_carries_and_no_host_has(text: str) -> None:
    assert not Domain.parse(text).is_host_name
    with pytest.raises(InvalidNameError, match="not a letter, digit"):
        Domain.parse_host(text)


@pytest.mark.parametrize("text", ["_spf.example", "A-1.bücher.example", "1.2.example."])
def test_names_of_hosts(text: str) -> None:
    assert Domain.parse_host(text) == Domain.parse(text)


@pytest.mark.parametrize(
    ("name", "other", "below"),
    [
        ("example.org", "example.org", True),
        ("a.example.org", "example.org", True),
        ("aexample.org", "example.org", False),
        ("example.org", "a.example.org", False),
        ("example.org", "org", True),
    ],
)
def test_at_or_below(name: str, other: str, below: bool) -> None:
    assert Domain(name).is_at_or_below(Domain(other)) is below


@pytest.mark.parametrize(
    ("text", "local_part", "domain"),
    [
        ("joe@example.org", "joe", "example.org"),
        ("Joe@EXAMPLE.ORG", "Joe", "example.org"),
        ('"joe b"@example.org', "joe b", "example.org"),
        ('"a\\"b\\\\c"@example.org', 'a"b\\c', "example.org"),
        ('"joe@evil.example"@example.org', "joe@evil.example", "example.org"),
        ('""@example.org', "", "example.org"),
        ("@relay.example:joe@example.org", "joe", "example.org"),
        ("@a.example,@b.example:joe@example.org", "joe", "example.org"),
        ("a=b+c@example.org", "a=b+c", "example.org"),
        ("jürgen@bücher.example", "jürgen", "xn--bcher-kva.example"),
        ("\udcff@example.org", "\udcff", "example.org"),
    ],
)
def test_mailboxes(text: str, local_part: str, domain: str) -> None:
    assert parse_mailbox(text) == Mailbox(local_part, Domain(domain))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("joe", "no @"),
        ("@example.org", "no @"),
        ("joe@", "empty domain"),
        ('"joe@example.org', "quoted string"),
        ('"a"b"@example.org', "quoted string"),
        ("joe@[192.0.2.1]", "a domain name cannot have"),
        ("joe@exa mple.org", "a domain name cannot have"),
    ],
)
def test_a_text_that_is_not_a_mailbox_is_a_path_with_a_fault(text: str, reason: str) -> None:
    with pytest.raises(InvalidNameError, match=reason):
        parse_mailbox(text)
    path = ReversePath.parse(f"<{text}>")
    assert (path.text, path.mailbox) == (text, None)
    assert path.fault
    assert not path.is_null


@pytest.mark.parametrize("text", ["", "<>"])
def test_the_null_reverse_path(text: str) -> None:
    path = ReversePath.parse(text)
    assert (path.text, path.mailbox, path.fault, path.is_null) == ("", None, "", True)


@pytest.mark.parametrize("text", ["<joe@example.org>", "joe@example.org"])
def test_brackets_are_not_part_of_a_path(text: str) -> None:
    path = ReversePath.parse(text)
    assert (path.text, str(path.mailbox)) == ("joe@example.org", "joe@example.org")


@pytest.mark.parametrize("text", ["<", ">", "<<a@b.example>>", "\x00", "\udcff", "a" * 100_000, "@" * 1000])
def test_no_path_raises(text: str) -> None:
    path = ReversePath.parse(text)
    assert path.mailbox is None
    assert path.fault


@pytest.mark.parametrize(
    ("local_part", "written"),
    [
        ("joe", "joe"),
        ("a.b+c=d", "a.b+c=d"),
        ("a b", '"a b"'),
        ("", '""'),
        (".a", '".a"'),
        ("a..b", '"a..b"'),
        ('a"b\\', '"a\\"b\\\\"'),
        ("a@b", '"a@b"'),
        ("jürgen", "jürgen"),
    ],
)
def test_local_parts_are_written_as_they_can_be_read_again(local_part: str, written: str) -> None:
    assert quote_local_part(local_part) == written
    assert parse_mailbox(f"{written}@example.org").local_part == local_part
