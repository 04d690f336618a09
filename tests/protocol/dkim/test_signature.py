# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.model.message import HeaderField
from assay.protocol import dkim
from assay.protocol.dkim.signature import MAX_SIGNED_FIELDS

GOOD = {
    "v": "1",
    "a": "rsa-sha256",
    "b": "QQ==",
    "bh": "Qg==",
    "d": "example.org",
    "h": "From:To",
    "s": "sel",
}


def parse(**changes: str | None) -> dkim.Signature | dkim.Evaluation:
    """Parse the good signature with tags changed, or removed where None."""
    tags = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    text = "; ".join(f"{name}={value}" for name, value in tags.items())
    return dkim.parse(HeaderField(b"DKIM-Signature", text.encode("utf-8", "surrogatepass")))


def signature(**changes: str | None) -> dkim.Signature:
    parsed = parse(**changes)
    assert isinstance(parsed, dkim.Signature), parsed
    return parsed


def test_defaults() -> None:
    one = signature()
    assert one.domain.name == "example.org"
    assert one.selector.name == "sel"
    assert one.identity == "@example.org"
    assert one.identity_domain == one.domain
    assert one.algorithm is dkim.Algorithm.RSA_SHA256
    assert one.signed_fields == ("from", "to")
    assert (one.signature, one.body_hash, one.b) == (b"A", b"B", "QQ==")
    assert (one.body_hash_spec.length, one.timestamp, one.expiration) == (None, None, None)
    assert one.body_hash_spec == dkim.BodyHashSpec(dkim.Canonicalization.SIMPLE, "sha256", None)


@pytest.mark.parametrize(
    ("value", "header", "body"),
    [
        ("simple", "simple", "simple"),
        ("relaxed", "relaxed", "simple"),
        ("relaxed/relaxed", "relaxed", "relaxed"),
        ("simple/relaxed", "simple", "relaxed"),
    ],
)
def test_canonicalizations(value: str, header: str, body: str) -> None:
    one = signature(c=value)
    assert (one.header_canonicalization, one.body_hash_spec.canonicalization) == (header, body)


@pytest.mark.parametrize(
    ("value", "identity", "domain"),
    [
        ("@example.org", "@example.org", "example.org"),
        ("Ann@Sub.Example.ORG", "Ann@sub.example.org", "sub.example.org"),
        ("a=20b=40c@example.org", "a b@c@example.org", "example.org"),
        ("an\r\n n@example.org", "ann@example.org", "example.org"),
        ("=C3=A4@example.org", "ä@example.org", "example.org"),
        ("ä@bücher.example.org", "ä@xn--bcher-kva.example.org", "xn--bcher-kva.example.org"),
    ],
)
def test_identity(value: str, identity: str, domain: str) -> None:
    one = signature(i=value)
    assert (one.identity, one.identity_domain.name) == (identity, domain)


def test_u_labels_are_a_labels_for_the_dns() -> None:  # RFC 8616, 5
    one = signature(d="Bücher.example", s="süd", i="x@post.bücher.example")
    assert one.domain.name == "xn--bcher-kva.example"
    assert one.selector.name == "xn--sd-xka"
    (question,) = next(dkim.fetch_key(one))
    assert question.name == "xn--sd-xka._domainkey.xn--bcher-kva.example"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"x-unknown": None, "xyz": "1"}, id="unknown tags"),
        pytest.param({"q": "foo/bar : dns/txt"}, id="an unknown query method beside the known one"),
        pytest.param({"t": "1", "x": "2"}, id="x after t"),
        pytest.param({"t": "999999999999"}, id="t in the far future"),
        pytest.param({"l": "0"}, id="l of nothing"),
        pytest.param({"l": "9" * 76}, id="l of 76 digits"),
        pytest.param({"d": "EXAMPLE.org"}, id="domain in any case"),
        pytest.param({"s": "2024.a_b"}, id="selector of two labels with an underscore"),
        pytest.param({"b": "Q\r\n\tQ = ="}, id="folded b"),
        pytest.param({"h": " from : To:\r\n subject "}, id="white space around the colons of h"),
        pytest.param({"h": "from:from:from"}, id="a name more than once in h"),
        pytest.param({"h": "from:" + ":".join(["x"] * (MAX_SIGNED_FIELDS - 1))}, id="as many names in h as are read"),
    ],
)
def test_good_signature(changes: dict[str, str | None]) -> None:
    assert isinstance(parse(**changes), dkim.Signature)


@pytest.mark.parametrize(
    ("changes", "result", "reason"),
    [
        *(({name: None}, "permerror", f"no {name}= tag") for name in GOOD),
        ({"v": "2"}, "neutral", "version"),
        ({"v": "1.0"}, "neutral", "version"),
        ({"v": ""}, "neutral", "version"),
        ({"a": "rsa-md5"}, "neutral", "algorithm"),
        ({"a": "RSA-SHA256"}, "neutral", "algorithm"),
        ({"c": "relaxed/other"}, "neutral", "canonicalization"),
        ({"c": ""}, "neutral", "canonicalization"),
        ({"c": "relaxed/"}, "neutral", "canonicalization"),
        ({"q": "http"}, "neutral", "q="),
        ({"q": "dns"}, "neutral", "q="),
        ({"b": ""}, "neutral", "b= is empty"),
        ({"b": "!"}, "neutral", "b= is not base64"),
        ({"bh": ""}, "neutral", "bh= is empty"),
        ({"l": "-1"}, "neutral", "l= is not a number"),
        ({"l": ""}, "neutral", "l= is not a number"),
        ({"l": "9" * 77}, "neutral", "l= is not a number"),
        ({"l": "٣"}, "neutral", "l= is not a number"),
        ({"t": "1 2"}, "neutral", "t= is not a number"),
        ({"x": "9" * 13}, "neutral", "x= is not a number"),
        ({"t": "2", "x": "2"}, "permerror", "x= is not after t="),
        ({"t": "3", "x": "2"}, "permerror", "x= is not after t="),
        ({"h": ""}, "neutral", "h= is empty"),
        ({"h": "from::to"}, "neutral", "h= is not a list"),
        ({"h": "from:"}, "neutral", "h= is not a list"),
        ({"h": "fr om"}, "neutral", "h= is not a list"),
        ({"h": "to:subject"}, "permerror", "does not name From"),
        ({"h": "from:" + ":".join(["x"] * MAX_SIGNED_FIELDS)}, "neutral", "h= names more than"),
        ({"d": "org"}, "permerror", "top-level"),
        ({"d": ""}, "permerror", "d= is not a host name"),
        ({"d": "example.org."}, "permerror", "d= is not a host name"),
        ({"d": "exa mple.org"}, "permerror", "d= is not a host name"),
        ({"d": "a@example.org"}, "permerror", "d= is not a host name"),
        ({"d": "example.org/"}, "permerror", "d= is not a host name"),
        ({"d": "x" * 64 + ".org"}, "permerror", "d= is not a host name: label longer"),
        ({"d": ".".join(["x" * 60] * 4) + ".org"}, "permerror", "too long for a DNS name"),
        ({"s": ""}, "permerror", "s= is not a host name"),
        ({"s": "a..b"}, "permerror", "s= is not a host name"),
        ({"s": "*"}, "permerror", "s= is not a host name"),
        ({"i": "example.org"}, "neutral", "no @ in i="),
        ({"i": "a" * 1000 + "@example.org"}, "neutral", "i= is longer than 1000 characters"),
        ({"i": "@example.com"}, "permerror", "not at or below"),
        ({"i": "@badexample.org"}, "permerror", "not at or below"),
        ({"i": "@org"}, "permerror", "not at or below"),
        ({"i": "@"}, "permerror", "domain of i= is not a host name"),
        ({"i": "a=@example.org"}, "neutral", "quoted-printable"),
        ({"i": "a=4x@example.org"}, "neutral", "quoted-printable"),
        ({"i": "a=FF@example.org"}, "neutral", "not UTF-8"),
        ({"i": "a=0D=0AEvil:@example.org"}, "neutral", "control character"),
        ({"i": "a=00@example.org"}, "neutral", "control character"),
    ],
)
def test_bad_signature(changes: dict[str, str | None], result: str, reason: str) -> None:
    parsed = parse(**changes)
    assert isinstance(parsed, dkim.Evaluation)
    assert parsed.result == result
    assert reason in parsed.reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"v=1; v=1", "two v= tags"),
        (b"v=1;; a=rsa-sha256", "empty tag"),
        (b"", "tag list is empty"),
        (b"v=1; d=ex\x00ample.org", "control character"),
        (b"v=1; d=\xff.org", "not UTF-8"),
    ],
)
def test_malformed_tag_list(value: bytes, reason: str) -> None:
    parsed = dkim.parse(HeaderField(b"DKIM-Signature", value))
    assert isinstance(parsed, dkim.Evaluation)
    assert parsed.result is dkim.Result.NEUTRAL
    assert reason in parsed.reason


def test_a_bad_signature_reports_the_names_it_has() -> None:
    parsed = parse(v="2", b="Q Q==")
    assert isinstance(parsed, dkim.Evaluation)
    assert parsed.domain is not None
    assert (parsed.domain.name, parsed.selector, parsed.identity) == ("example.org", "sel", "@example.org")
    assert (parsed.algorithm, parsed.b) == ("rsa-sha256", "QQ==")


tag_values = st.text(st.characters(exclude_characters=";"), max_size=12) | st.sampled_from(list(GOOD.values()))


@given(st.binary())
def test_any_value_is_a_signature_or_an_evaluation(value: bytes) -> None:
    assert isinstance(dkim.parse(HeaderField(b"DKIM-Signature", value)), dkim.Signature | dkim.Evaluation)


@given(st.dictionaries(st.sampled_from("vabdhscilqtxz") | st.just("bh"), tag_values))
def test_any_tags_are_a_signature_or_an_evaluation(changes: dict[str, str]) -> None:
    parsed = parse(**{**changes, "v": "1"})
    if isinstance(parsed, dkim.Evaluation):
        assert parsed.reason
        assert "\n" not in parsed.identity + parsed.selector + parsed.b
    else:
        assert parsed.identity.isprintable()
