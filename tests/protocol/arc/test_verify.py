# SPDX-License-Identifier: GPL-3.0-or-later
"""Chains that dkimpy and we sealed, in turns, validated and broken."""

from __future__ import annotations

import hashlib

import dkim as dkimpy
import pytest

from assay.model.message import Header, HeaderField, split_message
from assay.model.name import Domain
from assay.protocol import arc, dkim
from assay.protocol.arc import Result
from assay.protocol.dkim.canonical import canonical_field, canonical_signature_field
from assay.protocol.syntax.tags import decode_base64, parse_tags
from signing import KEY_NAME, MESSAGE, NOW, ed25519_key, pem, record, rsa_key, zone
from zone import Zone

SIGNED = ("from", "to", "subject")
AUTHSERV_ID = "mx.example.org"


@pytest.fixture
def dns() -> Zone:
    return zone(record(rsa_key()))


def evaluate(message: bytes, dns: Zone) -> arc.Evaluation:
    header, body = split_message(message)
    chain = arc.parse_chain(header)
    if isinstance(chain, arc.Evaluation):
        return chain
    hashes = dkim.BodyHashes(chain.body_hash_specs)
    hashes.update(body)
    return arc.verify(chain, dns.solve(arc.fetch_keys(chain, header)), header, hashes, now=NOW)


def seal(message: bytes, dns: Zone, **changes: object) -> bytes:
    """The message with a set of ours on top; as it is where we add none."""
    header, body = split_message(message)
    hashes = dkim.BodyHashes([arc.BODY_HASH_SPEC])
    hashes.update(body)
    arguments = {
        "validation": evaluate(message, dns),
        "authserv_id": AUTHSERV_ID,
        "authentication_results": ("spf=pass smtp.mailfrom=example.org", "dkim=none"),
        "domain": Domain.parse("example.org"),
        "selector": Domain.parse("sel"),
        "private_key": rsa_key(),
        "timestamp": NOW,
        "sign_headers": SIGNED,
        **changes,
    }
    fields = arc.seal(header, hashes, **arguments)
    return b"".join(field.raw for field in fields) + message


def seal_by_peer(message: bytes, dns: Zone) -> bytes:
    """The message with a set by dkimpy on top, which reads the chain's state from Authentication-Results."""
    verdict = evaluate(message, dns).result
    stamped = f"Authentication-Results: {AUTHSERV_ID}; arc={verdict}; spf=none\r\n".encode() + message
    names = [name.encode() for name in SIGNED]
    lines = dkimpy.arc_sign(
        stamped, b"sel", b"example.org", pem(rsa_key()), AUTHSERV_ID.encode(), include_headers=names
    )
    return b"".join(lines) + stamped


@pytest.mark.parametrize("sealers", [(seal,), (seal_by_peer,), (seal, seal_by_peer, seal), (seal_by_peer, seal, seal)])
def test_chain_of_different_sealers(sealers: tuple, dns: Zone) -> None:
    message = MESSAGE
    for add in sealers:
        message = add(message, dns)
    evaluation = evaluate(message, dns)
    assert evaluation.result is Result.PASS, evaluation.reason
    assert (evaluation.instance, evaluation.oldest_pass) == (len(sealers), 0)
    assert [sealer.instance for sealer in evaluation.sealers] == list(range(1, len(sealers) + 1))
    assert all(sealer.payload.startswith(AUTHSERV_ID) for sealer in evaluation.sealers)
    assert peer_says(message) == b"pass"


def peer_says(message: bytes) -> bytes:
    verdict, _, _ = dkimpy.arc_verify(message, dnsfunc=lambda name, timeout=5: record(rsa_key()).encode())
    return verdict


def test_our_seal_convinces_a_peer(dns: Zone) -> None:
    message = seal(MESSAGE, dns)
    assert peer_says(message) == b"pass"
    assert peer_says(message.replace(b"noon", b"nine")) == b"fail"


def test_ed25519_seal() -> None:
    dns = zone(record(ed25519_key()))
    message = seal(seal(MESSAGE, dns, private_key=ed25519_key()), dns, private_key=ed25519_key())
    assert evaluate(message, dns).result is Result.PASS


def batches(message: bytes, dns: Zone) -> list[list[str]]:
    """The selectors of the keys that are asked for, batch by batch."""
    header, _ = split_message(message)
    chain = arc.parse_chain(header)
    assert isinstance(chain, arc.Chain)
    inquiry = arc.fetch_keys(chain, header)
    found = []
    try:
        batch = next(inquiry)
        while True:
            found.append([question.name.partition(".")[0] for question in batch])
            batch = inquiry.send([dns.answer(question) for question in batch])
    except StopIteration:
        return found


class TestQuestions:
    """Whoever wants others asked for their keys has to own one himself."""

    @pytest.fixture
    def dns(self) -> Zone:
        names = (KEY_NAME, *(f"{selector}._domainkey.example.org" for selector in ("one", "two", "three")))
        return Zone({name: [["TXT", [record(rsa_key())]]] for name in names})

    @pytest.fixture
    def message(self, dns: Zone) -> bytes:
        message = MESSAGE
        for selector in ("one", "two", "three"):
            message = seal(message, dns, selector=Domain.parse(selector))
        return message

    def test_the_newest_sets_keys_come_first_and_all_others_at_once(self, message: bytes, dns: Zone) -> None:
        assert batches(message, dns) == [["three"], ["one", "two"]]
        assert evaluate(message, dns).result is Result.PASS

    def test_each_is_asked_for_once(self, dns: Zone) -> None:
        assert batches(seal(seal(MESSAGE, dns), dns), dns)[0] == ["sel"]

    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            pytest.param(b"Subject: lunch", b"Subject: dinner", "ARC-Message-Signature with i=3", id="its signature"),
            pytest.param(b"spf=pass", b"spf=fail", "ARC-Seal with i=3", id="its seal"),
            pytest.param(b"c=relaxed/relaxed", b"c=other", "unknown canonicalization", id="a signature of no use"),
        ],
    )
    def test_no_other_where_the_newest_set_does_not_verify(
        self, old: bytes, new: bytes, reason: str, message: bytes, dns: Zone
    ) -> None:
        broken = message.replace(old, new, 1)
        assert batches(broken, dns) in ([["three"]], [])
        evaluation = evaluate(broken, dns)
        assert evaluation.result is Result.FAIL
        assert reason in evaluation.reason

    @pytest.mark.parametrize("rows", [[], [["SERVFAIL", "TXT"]], [["TXT", ["v=DKIM1; p="]]]])
    def test_no_other_without_the_newest_sets_key(self, rows: list, message: bytes, dns: Zone) -> None:
        without = Zone({**dns.rows, "three._domainkey.example.org": rows})
        assert batches(message, without) == [["three"]]
        assert evaluate(message, without).result is Result.FAIL


def test_changed_body_breaks_the_chain_and_a_new_seal_records_it(dns: Zone) -> None:
    changed = seal(MESSAGE, dns).replace(b"noon", b"nine")
    evaluation = evaluate(changed, dns)
    assert (evaluation.result, evaluation.instance, evaluation.oldest_pass) == (Result.FAIL, 1, None)
    assert evaluation.reason == "ARC-Message-Signature with i=1: body hash did not verify"
    marked = seal(changed, dns)
    assert b"cv=fail; d=example.org; s=sel" in marked
    evaluation = evaluate(marked, dns)
    assert evaluation.result is Result.FAIL
    assert "received a broken chain" in evaluation.reason
    assert seal(marked, dns) == marked  # RFC 8617, 5.1: nothing is added after cv=fail


def test_a_seal_of_a_broken_chain_covers_only_its_own_set(dns: Zone) -> None:  # RFC 8617, 5.1.2
    header, _ = split_message(seal(seal(MESSAGE, dns).replace(b"noon", b"nine"), dns))
    newest, *_ = header.all("ARC-Seal")
    relaxed = dkim.Canonicalization.RELAXED
    octets = b"".join(
        canonical_field(header.all(name)[0], relaxed)
        for name in ("ARC-Authentication-Results", "ARC-Message-Signature")
    )
    digest = hashlib.sha256(octets + canonical_signature_field(newest, relaxed)).digest()
    signature = decode_base64(parse_tags(newest.value)["b"])
    key = dkim.parse_key(record(rsa_key()).encode())
    assert isinstance(key, dkim.Key)
    assert key.verify(dkim.Algorithm.RSA_SHA256, signature, digest)


@pytest.mark.parametrize("name", ["Subject", "To", "From", "Content-Type "])
def test_a_second_field_of_what_may_stand_once_breaks_the_chain(name: str, dns: Zone) -> None:  # RFC 6376, 8.15
    message = seal(MESSAGE.replace(b"\r\n\r\n", b"\r\nContent-Type: text/plain\r\n\r\n", 1), dns)
    assert evaluate(message, dns).result is Result.PASS
    evaluation = evaluate(f"{name}: other\r\n".encode() + message, dns)
    assert evaluation.result is Result.FAIL
    assert f"of 2 {name.strip()} fields" in evaluation.reason


def test_oldest_pass_is_the_set_since_which_nothing_changed(dns: Zone) -> None:
    message = seal(MESSAGE, dns)
    changed = message.replace(b"noon", b"nine")
    # A list changes the message and seals what it sends, with the status from arrival.
    resealed = seal(changed, dns, validation=evaluate(message, dns))
    evaluation = evaluate(seal(resealed, dns), dns)
    assert (evaluation.result, evaluation.instance, evaluation.oldest_pass) == (Result.PASS, 3, 2)


def test_a_change_and_a_replaced_seal_are_found(dns: Zone) -> None:
    message = seal(seal(MESSAGE, dns), dns)
    header, body = split_message(message)
    fields = list(header)
    first = next(
        number for number, field in enumerate(fields) if b"i=1;" in field.value and field.key.endswith(b"results")
    )
    fields[first] = HeaderField(fields[first].name, fields[first].value.replace(b"spf=pass", b"spf=fail"))
    tampered = b"".join(field.raw for field in fields) + b"\r\n" + body
    evaluation = evaluate(tampered, dns)
    assert (evaluation.result, evaluation.reason) == (Result.FAIL, "ARC-Seal with i=2: seal did not verify")


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ({}, "no key at"),
        ({KEY_NAME: [["SERVFAIL", "TXT"]]}, "failed temporarily"),
        ({KEY_NAME: [["TXT", ["v=DKIM1; p="]]]}, "key revoked"),
        ({KEY_NAME: [["TXT", [record(ed25519_key())]]]}, "another type"),
    ],
)
def test_every_key_fault_is_a_permanent_fail(records: dict, reason: str, dns: Zone) -> None:  # RFC 8617, 5.2.1
    evaluation = evaluate(seal(MESSAGE, dns), Zone(records))
    assert evaluation.result is Result.FAIL
    assert reason in evaluation.reason


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "no key at one._domainkey.example.org"),
        ([["SERVFAIL", "TXT"]], "key lookup of one._domainkey.example.org failed"),
        ([["TXT", ["v=DKIM1; p="]]], "key revoked at one._domainkey.example.org"),
        ([["TXT", [record(rsa_key(1024))]]], "seal did not verify"),
        ([["TXT", [record(ed25519_key())]]], "key is of another type than rsa-sha256 at one._domainkey.example.org"),
    ],
)
def test_an_older_seal_without_its_key(rows: list, reason: str, dns: Zone) -> None:
    both = Zone({**dns.rows, "one._domainkey.example.org": dns.rows[KEY_NAME]})
    message = seal(seal(MESSAGE, both, selector=Domain.parse("one")), both)
    assert evaluate(message, both).result is Result.PASS
    evaluation = evaluate(message, Zone({**dns.rows, "one._domainkey.example.org": rows}))
    assert (evaluation.result, evaluation.reason) == (Result.FAIL, f"ARC-Seal with i=1: {reason}")


def test_the_last_message_signature_must_be_usable(dns: Zone) -> None:
    evaluation = evaluate(seal(MESSAGE, dns).replace(b"c=relaxed/relaxed", b"c=other"), dns)
    assert evaluation.reason == "ARC-Message-Signature with i=1: unknown canonicalization in c="


def test_sha1_is_never_accepted(dns: Zone) -> None:
    message = seal(MESSAGE, dns).replace(b"ARC-Seal: i=1; a=rsa-sha256", b"ARC-Seal: i=1; a=rsa-sha1")
    evaluation = evaluate(message, dns)
    assert (evaluation.result, evaluation.reason) == (Result.FAIL, "ARC-Seal with i=1: rsa-sha1 is not accepted")


def test_a_key_in_test_mode_is_a_key() -> None:
    """t=y is about DKIM (RFC 6376, 3.6.1): a chain is never worth more than the operator's trust in its sealers."""
    dns = zone(record(rsa_key(), tags="t=y;"))
    header, body = split_message(seal(MESSAGE, dns))
    chain = arc.parse_chain(header)
    assert isinstance(chain, arc.Chain)
    hashes = dkim.BodyHashes(chain.body_hash_specs)
    hashes.update(body)
    settings = dkim.SignatureRules(test_mode_counts=False)
    lookups = dns.solve(arc.fetch_keys(chain, header, settings))
    assert arc.verify(chain, lookups, header, hashes, now=NOW, settings=settings).result is Result.PASS


def test_header_without_arc_is_none(dns: Zone) -> None:
    assert arc.parse_chain(Header()) == arc.Evaluation(Result.NONE, "no ARC set")
    assert evaluate(MESSAGE, dns).result is Result.NONE
