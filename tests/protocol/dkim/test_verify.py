# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.model.name import Domain
from assay.protocol.dkim import SINGLE_FIELDS, Result, SignatureRules
from signing import (
    DOMAIN,
    FIELDS,
    KEY_NAME,
    MESSAGE,
    NOW,
    ed25519_key,
    evaluate,
    record,
    rsa_key,
    sign_ed25519,
    sign_rsa,
    zone,
)
from zone import Zone


def _no_line_ends(octets: bytes) -> bytes:
    return octets.translate(None, b"\r\n")


FORMS = ["simple/simple", "simple/relaxed", "relaxed/simple", "relaxed/relaxed"]


@pytest.fixture
def rsa_zone() -> Zone:
    return zone(record(rsa_key()))


@pytest.mark.parametrize("c", FORMS)
def test_rsa_signature_of_a_peer(c: str, rsa_zone: Zone) -> None:
    (evaluation,) = evaluate(sign_rsa(c=c), rsa_zone)
    assert evaluation.result is Result.PASS, evaluation.reason
    assert evaluation.domain == Domain.parse(DOMAIN)
    assert evaluation.identity == f"ann@{DOMAIN}"
    assert (evaluation.selector, evaluation.algorithm, evaluation.key_bits) == ("sel", "rsa-sha256", 2048)
    assert len(evaluation.b) == 344
    assert not evaluation.testing
    assert [question.name for question in rsa_zone.asked] == [KEY_NAME]


@pytest.mark.parametrize("c", FORMS)
def test_ed25519_signature(c: str) -> None:
    (evaluation,) = evaluate(sign_ed25519(c=c), zone(record(ed25519_key())))
    assert evaluation.result is Result.PASS, evaluation.reason
    assert (evaluation.algorithm, evaluation.key_bits) == ("ed25519-sha256", 256)


#: Printable text and white space, with folds, and octets beyond ASCII.
VALUES = st.lists(st.text('ab:;=.,<>@"() \t\u00e9', max_size=60), min_size=1, max_size=3).map(
    lambda lines: "\r\n\t".join(line for number, line in enumerate(lines) if number == 0 or line.strip()).encode()
)
NAMES = st.sampled_from([b"To", b"TO", b"Subject", b"subject", b"Cc", b"X-Any"])
#: Empty, or of whole lines, as SMTP has them. After white space at the very end, dkimpy adds a line end and keeps the
#: space, so such a signature does not survive an MTA.
BODIES = st.builds(
    lambda lines, end: b"\r\n".join(lines) + (end if any(lines) else b""),
    st.lists(st.one_of(st.text(".a= \t", max_size=90).map(str.encode), st.binary(max_size=90).map(_no_line_ends))),
    st.sampled_from([b"\r\n", b"\r\n\r\n", b" \r\n", b"\r\n \t\r\n\r\n"]),
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([sign_rsa, sign_ed25519]), st.sampled_from(FORMS), st.lists(st.tuples(NAMES, VALUES)), BODIES)
def test_any_message_that_dkimpy_signs(
    sign: Callable[..., bytes], c: str, fields: list[tuple[bytes, bytes]], body: bytes
) -> None:
    header = b"".join(b"%s:%s\r\n" % field for field in [*fields, (b"From", b" Ann <ann@example.org>")])
    key = rsa_key() if sign is sign_rsa else ed25519_key()
    message = sign(header + b"\r\n" + body, c=c)
    (evaluation,) = evaluate(message, zone(record(key)), settings=SignatureRules(single_fields=()))
    assert evaluation.result is Result.PASS, evaluation.reason
    (evaluation,) = evaluate(message.replace(b"Ann <", b"Eve <"), zone(record(key)))
    assert evaluation.result is Result.FAIL


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param((b"noon", b"nine"), "body hash did not verify", id="body"),
        pytest.param((b"lunch", b"dinner"), "signature did not verify", id="signed field"),
        pytest.param((b"bob@", b"bo2@"), "signature did not verify", id="another signed field"),
        pytest.param((b" d=", b" zz=x; d="), "signature did not verify", id="own field"),
        pytest.param((b" b=", b" b=QUJD"), "signature did not verify", id="signature"),
    ],
)
@pytest.mark.parametrize("sign", [sign_rsa, sign_ed25519])
def test_changed_message(change: tuple[bytes, bytes], reason: str, sign: Callable[..., bytes]) -> None:
    message = sign(c="relaxed/relaxed").replace(*change, 1)
    (evaluation,) = evaluate(message, zone(record(rsa_key()), record(ed25519_key())))
    assert (evaluation.result, evaluation.reason) == (Result.FAIL, reason)


def test_unsigned_fields_may_change(rsa_zone: Zone) -> None:
    (evaluation,) = evaluate(b"Received: x\r\n" + sign_rsa(), rsa_zone)
    assert evaluation.result is Result.PASS


@pytest.mark.parametrize(
    ("dns", "result", "reason"),
    [
        (Zone({}), "permerror", f"no key at {KEY_NAME}"),
        (Zone({KEY_NAME: [["A", "192.0.2.1"]]}), "permerror", f"no key at {KEY_NAME}"),
        (Zone({KEY_NAME: [["SERVFAIL", "TXT"]]}), "temperror", "SERVFAIL"),
        (zone("v=DKIM1; p="), "permerror", f"key revoked at {KEY_NAME}"),
        (zone("some text"), "permerror", "malformed key record"),
        (zone(record(rsa_key(), tags="h=sha1;")), "permerror", "does not allow sha256"),
        (zone(record(ed25519_key())), "permerror", "another type than rsa-sha256"),
        (zone(record(rsa_key(1024))), "fail", "signature did not verify"),
        (zone(record(rsa_key(), tags="t=s;")), "pass", "2048 bits"),
        (zone("v=DKIM1; p=", record(rsa_key(1024)), record(rsa_key())), "pass", "2048 bits"),
    ],
)
def test_key_records(dns: Zone, result: str, reason: str) -> None:
    (evaluation,) = evaluate(sign_rsa(), dns)
    assert evaluation.result == result
    assert reason in evaluation.reason


def test_cname_is_followed() -> None:
    dns = Zone({KEY_NAME: [["CNAME", "k.example.net"]], "k.example.net": [["TXT", [record(rsa_key())]]]})
    assert evaluate(sign_rsa(), dns)[0].result is Result.PASS


def test_strict_key_forbids_subdomain_identity() -> None:
    message = sign_rsa(identity=f"ann@sub.{DOMAIN}".encode())
    assert evaluate(message, zone(record(rsa_key())))[0].result is Result.PASS
    (evaluation,) = evaluate(message, zone(record(rsa_key(), tags="t=s;")))
    assert evaluation.result is Result.PERMERROR
    assert "t=s" in evaluation.reason


@pytest.mark.parametrize(("body", "result"), [(b"noon", "pass"), (b"nine", "fail")])
def test_testing_domain_gets_the_real_result_and_a_mark(body: bytes, result: str) -> None:
    (evaluation,) = evaluate(sign_rsa().replace(b"noon", body), zone(record(rsa_key(), tags="t=y;")))
    assert (evaluation.result, evaluation.testing) == (result, True)


@pytest.mark.parametrize(("body", "result"), [(b"", "policy"), (b"x", "fail")])
def test_a_key_in_test_mode_does_not_count_on_request(body: bytes, result: str) -> None:
    """RFC 6376, 3.6.1: as if the message were not signed."""
    (evaluation,) = evaluate(
        sign_rsa() + body, zone(record(rsa_key(), tags="t=y;")), settings=SignatureRules(test_mode_counts=False)
    )
    assert (evaluation.result, evaluation.testing) == (result, True)
    assert evaluation.policy == ("test-mode" if result == "policy" else "")


def test_what_does_not_count_is_the_key_that_signed() -> None:
    """Another key at the same name in test mode is another's trouble."""
    both = zone(record(rsa_key(1024), tags="t=y;"), record(rsa_key()))
    (evaluation,) = evaluate(sign_rsa(), both, settings=SignatureRules(test_mode_counts=False))
    assert (evaluation.result, evaluation.testing) == ("pass", False)


@pytest.mark.parametrize(
    ("bits", "settings", "result"),
    [
        (1024, SignatureRules(), "pass"),
        (1024, SignatureRules(min_rsa_bits=2048), "policy"),
        (2048, SignatureRules(min_rsa_bits=2048), "pass"),
        (2048, SignatureRules(max_rsa_bits=1024), "permerror"),
    ],
)
def test_key_size(bits: int, settings: SignatureRules, result: str) -> None:
    message = sign_rsa(key=rsa_key(bits))
    (evaluation,) = evaluate(message, zone(record(rsa_key(bits))), settings=settings)
    assert evaluation.result == result
    assert str(bits) in evaluation.reason
    assert evaluation.policy == ("key-size" if result == "policy" else "")


SHORT_KEY_RECORD = (
    "p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBALgSoqXVSEmfcIsOzw7oRuCCOwsmtX/SJnTWxYyj2leFxfS/AVJ+dYfY+hXqMsT7l+MZvvh/R1WzN4MO"
    "/kI/7XsCAwEAAQ=="
)


def test_a_short_key_is_not_even_tried() -> None:  # RFC 8301, 3.2
    (evaluation,) = evaluate(sign_rsa(), zone(SHORT_KEY_RECORD))
    assert evaluation.result is Result.PERMERROR
    assert "RSA key of only 512 bits" in evaluation.reason
    (evaluation,) = evaluate(sign_rsa(), zone(SHORT_KEY_RECORD), settings=SignatureRules(min_rsa_bits=512))
    assert (evaluation.result, evaluation.key_bits) == (Result.FAIL, 512)


def test_sha1_is_refused_unless_allowed(rsa_zone: Zone) -> None:  # RFC 8301, 3.1
    message = sign_rsa(signature_algorithm=b"rsa-sha1")
    (evaluation,) = evaluate(message, rsa_zone)
    assert evaluation.result is Result.PERMERROR
    assert "rsa-sha1" in evaluation.reason
    assert evaluate(message, rsa_zone, settings=SignatureRules(allow_sha1=True))[0].result is Result.PASS


@pytest.mark.parametrize(
    ("late", "result"), [(-1, "pass"), (0, "pass"), (300, "pass"), (301, "permerror"), (10**9, "permerror")]
)
def test_expiration(late: int, result: str, rsa_zone: Zone) -> None:
    # The signature is broken by the new tag; an expired one is not even tried.
    message = sign_rsa().replace(b"v=1;", b"v=1; x=%d;" % (NOW - late), 1).replace(b" t=", b" zt=")
    (evaluation,) = evaluate(message, rsa_zone)
    assert (evaluation.result is Result.PERMERROR) == (result == "permerror")
    assert (evaluation.reason == "signature expired") == (result == "permerror")


@pytest.mark.parametrize(
    ("tail", "settings", "result"),
    [
        (b"", SignatureRules(), "pass"),
        (b"\r\n\r\n", SignatureRules(), "pass"),
        (b"added\r\n", SignatureRules(), "policy"),
        (b"added\r\n", SignatureRules(refuse_unsigned_body=False), "pass"),
    ],
)
def test_body_beyond_its_signed_length(tail: bytes, settings: SignatureRules, result: str, rsa_zone: Zone) -> None:
    (evaluation,) = evaluate(sign_rsa(length=True) + tail, rsa_zone, settings=settings)
    assert evaluation.result == result, evaluation.reason
    assert evaluation.policy == ("unsigned-body" if result == "policy" else "")
    assert evaluation.body_length is not None


def test_body_shorter_than_its_signed_length(rsa_zone: Zone) -> None:
    (evaluation,) = evaluate(sign_rsa(length=True).replace(b"Ann\r\n\r\n\r\n", b""), rsa_zone)
    assert (evaluation.result, evaluation.reason) == (Result.PERMERROR, "l= is larger than the body")


@pytest.mark.parametrize("place", ["above", "below"])
@pytest.mark.parametrize(
    ("signed", "settings", "result"),
    [
        # From the bottom up, the one From that is signed is the lower one.
        (FIELDS, SignatureRules(), {"above": "policy", "below": "fail"}),
        (FIELDS, SignatureRules(single_fields=()), {"above": "pass", "below": "fail"}),
        ((*FIELDS, b"from"), SignatureRules(), {"above": "fail", "below": "fail"}),
    ],
)
def test_added_from(
    place: str, signed: tuple[bytes, ...], settings: SignatureRules, result: dict[str, str], rsa_zone: Zone
) -> None:
    message = sign_rsa(include_headers=list(signed))
    evil = b"From: evil@example.com\r\n"
    message = evil + message if place == "above" else message.replace(b"\r\n\r\n", b"\r\n" + evil + b"\r\n", 1)
    (evaluation,) = evaluate(message, rsa_zone, settings=settings)
    assert evaluation.result == result[place]
    assert evaluation.policy == ("unsigned-field" if evaluation.result is Result.POLICY else "")


class TestSecondFields:
    """A field that may stand once and that somebody added to a signed message (RFC 6376, 8.15)."""

    #: The message with one of each, signed as most signers do it: each name as often as the field is there.
    ONE_OF_EACH = b"".join(f"{name}: 1\r\n".encode() for name in SINGLE_FIELDS if name != "From") + (
        b"From: Ann <ann@example.org>\r\n\r\nHello\r\n"
    )

    @pytest.mark.parametrize("name", SINGLE_FIELDS)
    @pytest.mark.parametrize("written", ["{}", "{} ", "{}\t", "upper"])
    def test_on_top(self, name: str, written: str, rsa_zone: Zone) -> None:
        message = sign_rsa(self.ONE_OF_EACH, include_headers=[one.lower().encode() for one in SINGLE_FIELDS])
        assert evaluate(message, rsa_zone)[0].result is Result.PASS
        added = name.upper() if written == "upper" else written.format(name)
        (evaluation,) = evaluate(f"{added}: 2\r\n".encode() + message, rsa_zone)
        assert (evaluation.result, evaluation.policy) == (Result.POLICY, "unsigned-field")
        assert evaluation.reason == f"verified, but 1 of 2 {name} fields is not signed"

    def test_where_neither_is_signed(self, rsa_zone: Zone) -> None:
        message = b"Subject: 2\r\n" + sign_rsa(include_headers=[b"from"])
        (evaluation,) = evaluate(message, rsa_zone)
        assert (evaluation.result, evaluation.policy) == (Result.POLICY, "unsigned-field")
        assert evaluation.reason == "verified, but 2 of 2 Subject fields are not signed"

    def test_an_unsigned_single_field_is_not_a_second_one(self, rsa_zone: Zone) -> None:
        (evaluation,) = evaluate(sign_rsa(include_headers=[b"from"]), rsa_zone)
        assert evaluation.result is Result.PASS

    def test_two_that_are_both_signed(self, rsa_zone: Zone) -> None:
        message = sign_rsa(b"To: x@example.org\r\n" + MESSAGE, include_headers=[*FIELDS, b"to"])
        assert evaluate(message, rsa_zone)[0].result is Result.PASS

    @pytest.mark.parametrize("copy", [b"Subject: lunch and dinner\r\n", b"SUBJECT : lunch\r\n and dinner\t\r\n"])
    def test_a_copy_is_harmless(self, copy: bytes, rsa_zone: Zone) -> None:
        assert evaluate(copy + sign_rsa(), rsa_zone)[0].result is Result.PASS
        assert evaluate(copy + b"Subject: 2\r\n" + sign_rsa(), rsa_zone)[0].result is Result.POLICY
        assert evaluate(b"Subject: 2\r\n" + copy + sign_rsa(), rsa_zone)[0].result is Result.POLICY

    def test_of_two_only_one_is_signed(self, rsa_zone: Zone) -> None:
        message = sign_rsa(b"To: x@example.org\r\n" + MESSAGE, include_headers=list(FIELDS))
        assert evaluate(message, rsa_zone)[0].result is Result.POLICY

    def test_which_fields_is_configurable(self, rsa_zone: Zone) -> None:
        message = b"Subject: 2\r\nX-Y: 1\r\nX-Y: 2\r\n" + sign_rsa()
        assert evaluate(message, rsa_zone, settings=SignatureRules(single_fields=("To",)))[0].result is Result.PASS
        assert evaluate(message, rsa_zone, settings=SignatureRules(single_fields=("x-y",)))[0].result is Result.POLICY

    @pytest.mark.parametrize("name", ["Received", "Comments", "Keywords", "DKIM-Signature", "List-Id"])
    def test_what_may_stand_more_than_once(self, name: str, rsa_zone: Zone) -> None:
        message = f"{name}: 1\r\n{name}: 2\r\n".encode() + sign_rsa()
        assert evaluate(message, rsa_zone)[-1].result is Result.PASS


def test_two_from_fields_that_are_both_signed(rsa_zone: Zone) -> None:
    message = sign_rsa(b"From: x@example.org\r\n" + MESSAGE, include_headers=[*FIELDS, b"from"])
    assert evaluate(message, rsa_zone)[0].result is Result.PASS


def test_each_signature_leaves_its_own_field_out() -> None:
    fields = (*FIELDS, b"dkim-signature", b"dkim-signature")  # one is there to sign, and none may be added
    message = sign_ed25519(sign_ed25519(), fields=fields)
    dns = zone(record(ed25519_key()))
    assert [one.result for one in evaluate(message, dns)] == [Result.PASS, Result.PASS]
    assert evaluate(sign_ed25519(message), dns)[1].reason == "signature did not verify"


def test_u_labels_are_hashed_as_written_and_asked_as_a_labels() -> None:  # RFC 8616, 5
    dns = zone(record(ed25519_key()), name="sel._domainkey.xn--bcher-kva.example")
    (evaluation,) = evaluate(sign_ed25519(domain="Bücher.example"), dns)
    assert evaluation.result is Result.PASS, evaluation.reason
    assert evaluation.identity == "@xn--bcher-kva.example"
