# SPDX-License-Identifier: GPL-3.0-or-later
"""Where reports go: mailto URIs, and the agreement of hosts outside (RFC 9990, 4)."""

from __future__ import annotations

import pytest

from assay.model.name import Domain
from assay.protocol import dmarc
from assay.protocol.report import MAX_DESTINATIONS, Tag, UriError, Usability, evaluate_destinations, parse_mailto
from assay.protocol.report.destinations import size_limits
from zone import Rows, Zone

USABLE, REFUSED, UNKNOWN = Usability
BLUE = Domain.parse("blue.example.com")
CONFIRMING = "blue.example.com._report._dmarc.red.example.net"


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("mailto:a@b.example", "a@b.example"),
        ("MAILTO:A.B+c@B.Example", "A.B+c@b.example"),
        ("mailto:a%2Bb%40b.example", "a+b@b.example"),
        ("mailto:%22a%20b%22@b.example", '"a b"@b.example'),
        ("mailto:a%2cb@b.example", '"a,b"@b.example'),
        ("mailto:a@b%C3%BCcher.example", "a@xn--bcher-kva.example"),
        ("mailto:a@b.example?cc=victim@c.example&subject=x", "a@b.example"),
        ("mailto:" + "x" * 64 + "@b.example", "x" * 64 + "@b.example"),
    ],
)
def test_an_address_is_read(uri: str, address: str) -> None:
    assert str(parse_mailto(uri)) == address


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("https://b.example/x", "only mailto: is sent to"),
        ("mailto", "no @ in the address"),
        ("mailto:", "no @ in the address"),
        ("mailto:?to=a@b.example", "no @ in the address"),
        ("mailto:@b.example", "no @ in the address"),
        ("mailto:@c.example:a@b.example", "not an address"),
        ("mailto:%22%22@b.example", "not an address"),
        ("mailto:" + "x" * 65 + "@b.example", "not an address"),
        ("mailto:a@b@c.example", "more than one @ in the address"),
        ("mailto:a@b.example%2Cc@d.example", "more than one @ in the address"),
        ("mailto:a%0D%0ADATA@b.example", "the local part is not of printable ASCII characters"),
        ("mailto:%C3%BC@b.example", "the local part is not of printable ASCII characters"),
        ("mailto:%FF@b.example", "not UTF-8"),
        ("mailto:\u00fc@b.example", "not ASCII"),
        ("mailto:\udcff@b.example", "not ASCII"),
        ("mailto:a@localhost", "the host has a single label"),
        ("mailto:a@%5B127.0.0.1%5D", "label with a character that a domain name cannot have"),
        ("mailto:a@b%20c.example", "label with a character that a domain name cannot have"),
        ("mailto:a@-b.example", "label with a character that is not a letter, digit, hyphen or underscore"),
    ],
)
def test_what_cannot_be_sent_to_says_why(uri: str, reason: str) -> None:
    with pytest.raises(UriError) as caught:
        parse_mailto(uri)
    assert str(caught.value).startswith(reason)


def test_size_limits_are_powers_of_two() -> None:
    record = dmarc.parse(
        b"v=DMARC1; p=none; rua=mailto:a@b.c!10m, mailto:d@b.c?subject=x!5k,mailto:e@b.c!7,mailto:f@b.c;"
        b"ruf = mailto:g@b.c!1T, mailto:h@b.c!" + b"9" * 13
    )
    limits = size_limits(record)
    assert limits == {
        "mailto:a@b.c": 10 << 20,
        "mailto:d@b.c?subject=x": 5 << 10,
        "mailto:e@b.c": 7,
        "mailto:g@b.c": 1 << 40,
    }
    assert set(limits) <= {*record.rua, *record.ruf}


def found(rua: str, rows: Rows, domain: Domain = BLUE, tag: Tag = Tag.RUA) -> list[tuple[Usability, str, list[str]]]:
    """Each destination of a record: whether it is usable, why, and what is sent to."""
    record = dmarc.parse(f"v=DMARC1; p=none; {tag}={rua}".encode())
    evaluation = Zone(rows).solve(evaluate_destinations(domain, record, tag))
    assert [each.uri for each in evaluation.uris] == list(record.rua if tag is Tag.RUA else record.ruf)
    return [(each.usability, each.reason, [str(one.mailbox) for one in each.recipients]) for each in evaluation.uris]


RED = "mailto:reports@red.example.net"
EXTERNAL: dict[str, tuple[list[str], Usability, str, list[str]]] = {
    "confirmed": (["v=DMARC1"], USABLE, f"authorized by {CONFIRMING}", ["reports@red.example.net"]),
    "confirmed with a semicolon": (["v=DMARC1;"], USABLE, "authorized by", ["reports@red.example.net"]),
    "one of several texts": (["x", "v=DMARC1"], USABLE, "authorized by", ["reports@red.example.net"]),
    "another version": (["v=DMARC2"], REFUSED, "its host does not ask for these reports", []),
    "version not first": (["p=none; v=DMARC1"], REFUSED, "its host does not ask for these reports", []),
    "no text": ([], REFUSED, "its host does not ask for these reports", []),
    "override": (
        ["v=DMARC1; rua=mailto:b@red.example.net!1k"],
        USABLE,
        "authorized and replaced",
        ["b@red.example.net"],
    ),
    "overrides of several records": (
        ["v=DMARC1; rua=mailto:b@red.example.net", "v=DMARC1; rua=mailto:c@red.example.net,mailto:b@red.example.net"],
        USABLE,
        "authorized and replaced",
        ["b@red.example.net", "c@red.example.net"],
    ),
    "override to another host": (["v=DMARC1; rua=mailto:a@victim.example"], REFUSED, "rua= at", []),
    "override below the host": (["v=DMARC1; rua=mailto:a@x.red.example.net"], REFUSED, "rua= at", []),
    "override to this host and another": (
        ["v=DMARC1; rua=mailto:b@red.example.net,https://victim.example/"],
        REFUSED,
        f"rua= at {CONFIRMING} names another host",
        [],
    ),
    "override with another scheme too": (
        ["v=DMARC1; rua=mailto:b@red.example.net,https://red.example.net/"],
        USABLE,
        "authorized and replaced",
        ["b@red.example.net"],
    ),
    "override with another scheme only": (
        ["v=DMARC1; rua=https://red.example.net/"],
        REFUSED,
        f"rua= at {CONFIRMING} has no address to send to",
        [],
    ),
    "override with a broken host": (["v=DMARC1; rua=https://[x/"], REFUSED, "rua= at", []),
    "override for the other tag": (
        ["v=DMARC1; ruf=mailto:a@victim.example"],
        USABLE,
        "authorized by",
        ["reports@red.example.net"],
    ),
}


@pytest.mark.parametrize(("texts", "usability", "reason", "sent_to"), EXTERNAL.values(), ids=EXTERNAL)
def test_a_host_outside_has_to_agree(texts: list[str], usability: Usability, reason: str, sent_to: list[str]) -> None:
    rows = {CONFIRMING: [["TXT", [text]] for text in texts]}
    ((ours, why, recipients),) = found(RED, rows)
    assert (ours, recipients) == (usability, sent_to)
    assert why.startswith(reason)


def test_a_wildcard_agrees_for_all() -> None:
    # The zone of the tests has none; this is what a resolver answers for it.
    ((usability, _, _),) = found(RED, {CONFIRMING: [["CNAME", "x.example"]], "x.example": [["TXT", ["v=DMARC1"]]]})
    assert usability is USABLE


def test_an_override_has_its_own_size_limit() -> None:
    record = dmarc.parse(b"v=DMARC1; p=none; rua=mailto:a@red.example.net!5m")
    zone = Zone({CONFIRMING: [["TXT", ["v=DMARC1; rua=mailto:b@red.example.net!1k"]]]})
    (recipient,) = zone.solve(evaluate_destinations(BLUE, record, Tag.RUA)).recipients
    assert recipient.max_size == 1024
    zone = Zone({CONFIRMING: [["TXT", ["v=DMARC1"]]]})
    (recipient,) = zone.solve(evaluate_destinations(BLUE, record, Tag.RUA)).recipients
    assert recipient.max_size == 5 << 20


def test_failure_reports_look_at_ruf() -> None:
    ((usability, why, _),) = found(RED, {CONFIRMING: [["TXT", ["v=DMARC1; ruf=mailto:a@victim.example"]]]}, tag=Tag.RUF)
    assert (usability, why) == (REFUSED, f"ruf= at {CONFIRMING} names another host")


@pytest.mark.parametrize("kind", ["TXT", "*"])
def test_no_answer_is_neither_yes_nor_no(kind: str) -> None:
    ((usability, why, recipients),) = found(RED, {CONFIRMING: [["SERVFAIL", kind]]})
    assert (usability, recipients) == (UNKNOWN, [])
    assert why == f"TXT lookup of {CONFIRMING} failed: SERVFAIL"


ORGANIZATIONAL: dict[str, tuple[str, str, Rows, Usability]] = {
    "the same name": ("blue.example.com", "blue.example.com", {}, USABLE),
    "a parent that publishes": (
        "blue.example.com",
        "example.com",
        {"_dmarc.example.com": [["TXT", ["v=DMARC1; p=none"]]]},
        USABLE,
    ),
    "a sibling below one that publishes": (
        "blue.example.com",
        "red.example.com",
        {"_dmarc.example.com": [["TXT", ["v=DMARC1; p=none"]]]},
        USABLE,
    ),
    "a sibling below a public suffix": (
        "blue.example.com",
        "red.example.com",
        {"_dmarc.example.com": [["TXT", ["v=DMARC1; p=none; psd=y"]]]},
        REFUSED,
    ),
    "a sibling, and nobody publishes": ("blue.example.com", "red.example.com", {}, REFUSED),
    "a parent that failed": (
        "blue.example.com",
        "red.example.com",
        {"_dmarc.example.com": [["SERVFAIL", "TXT"]]},
        UNKNOWN,
    ),
}


@pytest.mark.parametrize(("domain", "host", "rows", "usability"), ORGANIZATIONAL.values(), ids=ORGANIZATIONAL)
def test_organizational_domains_are_compared(domain: str, host: str, rows: Rows, usability: Usability) -> None:
    assert [each for each, _, _ in found(f"mailto:a@{host}", rows, Domain.parse(domain))] == [usability]


def test_a_public_suffix_list_does_without_walks() -> None:
    record = dmarc.parse(b"v=DMARC1; p=none; rua=mailto:a@red.example.com,mailto:b@other.com")
    zone = Zone({})
    evaluation = zone.solve(evaluate_destinations(BLUE, record, Tag.RUA, public_suffix=lambda _: "com"))
    assert [each.usability for each in evaluation.uris] == [USABLE, REFUSED]
    assert [question.name for question in zone.asked] == ["blue.example.com._report._dmarc.other.com"]


def test_a_name_that_is_too_long_is_not_asked() -> None:
    domain = Domain.parse(".".join(["x" * 60] * 4))
    zone = Zone({})
    evaluation = zone.solve(evaluate_destinations(domain, dmarc.parse(f"v=DMARC1; rua={RED}".encode()), Tag.RUA))
    assert evaluation.uris[0].usability is REFUSED
    assert "too long" in evaluation.uris[0].reason
    assert not zone.asked


def test_no_failure_report_goes_to_a_public_suffix() -> None:
    record = dmarc.parse(b"v=DMARC1; p=none; psd=y; rua=mailto:a@blue.example.com; ruf=mailto:a@blue.example.com")
    refused = Zone({}).solve(evaluate_destinations(BLUE, record, Tag.RUF))
    assert [each.usability for each in refused.uris] == [REFUSED]
    assert not refused.recipients
    assert Zone({}).solve(evaluate_destinations(BLUE, record, Tag.RUA)).recipients


def test_bad_uris_are_passed_over_and_the_order_is_kept() -> None:
    results = found("https://x.example/,mailto:a@localhost,mailto:b@blue.example.com,mailto:a@blue.example.com", {})
    assert [usability for usability, _, _ in results] == [REFUSED, REFUSED, USABLE, USABLE]
    assert [recipients for _, _, recipients in results[2:]] == [["b@blue.example.com"], ["a@blue.example.com"]]


def test_the_number_of_destinations_and_questions_is_bounded() -> None:
    uris = ",".join(f"mailto:a@{'x.' * 30}h{number}.example.com" for number in range(20))
    record = dmarc.parse(f"v=DMARC1; p=none; rua={uris}".encode())
    zone = Zone({})
    evaluation = zone.solve(evaluate_destinations(BLUE, record, Tag.RUA))
    reasons = [each.reason for each in evaluation.uris]
    assert reasons.count(f"more than {MAX_DESTINATIONS} destinations") == 20 - MAX_DESTINATIONS
    assert len(zone.asked) <= (MAX_DESTINATIONS + 1) * dmarc.MAX_QUERIES + MAX_DESTINATIONS


def test_each_host_is_asked_once_and_each_address_sent_to_once() -> None:
    record = dmarc.parse(f"v=DMARC1; p=none; rua={RED},mailto:b@red.example.net".encode())
    zone = Zone({CONFIRMING: [["TXT", ["v=DMARC1; rua=mailto:c@red.example.net"]]]})
    evaluation = zone.solve(evaluate_destinations(BLUE, record, Tag.RUA))
    assert len(zone.asked) == 1
    assert [str(recipient.mailbox) for recipient in evaluation.recipients] == ["c@red.example.net"]
    assert not evaluation.unknown
