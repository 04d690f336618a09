# SPDX-License-Identifier: GPL-3.0-or-later
"""The trace fields: one Authentication-Results that says what was found, and nothing of a stranger's that says more."""

from __future__ import annotations

from typing import Any

import pytest

from assay.findings import MAX_B_PREFIX
from assay.model.edits import Insert, Remove
from assay.model.message import Header, HeaderField
from assay.protocol import authres, dkim
from assay.session import Settings, Verdict
from assay.trace import MAX_RESULTS, Forgeries, Wanted, remove_edits
from sending import BAD, GOOD, MESSAGE, OUR_ID, ROWS, message
from signing import sign_rsa
from talking import greet, inserted, policy_of, session, talk


def verdict(
    octets: bytes = MESSAGE,
    *,
    ip: str = GOOD,
    helo: str = "mail.example.org",
    path: str = "<joe@example.org>",
    settings: Settings | None = None,
    rows: object = None,
) -> Verdict:
    one = session(settings, rows=rows)
    greet(one, ip, helo)
    return talk(one, octets, path=path)


def parsed(of: Verdict) -> list[tuple[str, str, dict[str, str]]]:
    """Method, result and properties, as a reader of RFC 8601 sees them."""
    edits = [edit for edit in of.edits if isinstance(edit, Insert) and edit.name == "Authentication-Results"]
    assert len(edits) == 1
    found = authres.parse(b" " + edits[0].value.encode())
    assert isinstance(found, authres.AuthenticationResults), found
    assert found.authserv_id == OUR_ID
    return [
        (one.method, str(one.result), {f"{p.ptype}.{p.name}": p.value for p in one.properties})  # as written
        for one in found.results
    ]


def methods(of: Verdict) -> dict[str, list[tuple[str, dict[str, str]]]]:
    found: dict[str, list[tuple[str, dict[str, str]]]] = {}
    for method, result, properties in parsed(of):
        found.setdefault(method, []).append((result, properties))
    return found


def test_a_true_message() -> None:
    found = parsed(verdict(sign_rsa(MESSAGE, include_headers=[b"from"])))
    assert [(method, result) for method, result, _ in found] == [
        ("iprev", "pass"),
        ("spf", "pass"),
        ("spf", "pass"),
        ("dkim", "pass"),
        ("dmarc", "pass"),
    ]
    properties = [properties for _, _, properties in found]
    assert properties[0] == {"policy.iprev": GOOD}
    assert properties[1] == {"smtp.mailfrom": "example.org"}
    assert properties[2] == {"smtp.helo": "mail.example.org"}
    assert properties[3].items() >= {"header.d": "example.org", "header.s": "sel", "header.a": "rsa-sha256"}.items()
    assert len(properties[3]["header.b"]) == 8
    assert properties[4] == {"header.from": "example.org", "policy.dmarc": "none"}


@pytest.mark.parametrize(
    ("signatures", "length"),
    [
        pytest.param(["abcdefghijkl"], 8, id="one"),
        pytest.param(["abcdefghijkl", "abcdefghiXkl"], 10, id="two that begin alike"),
        pytest.param(["abcdefghijkl", "abcdefghijkl"], 8, id="the same one twice"),
        pytest.param(["a" * 20000 + "bbbb", "a" * 20000 + "cccc"], MAX_B_PREFIX, id="made to be alike"),
    ],
)
def test_header_b_distinguishes_signatures(signatures: list[str], length: int) -> None:
    # RFC 6008, 4: the fields cannot be verified, but are told of all the same.
    fields = [f"DKIM-Signature: v=1; a=rsa-sha256; d=a.example; s=s; h=from; bh=AAAA; b={b}" for b in signatures]
    found = methods(verdict(message("joe@example.org", *fields)))["dkim"]
    assert {len(properties["header.b"]) for _, properties in found} == {length}


def test_of_more_results_than_are_written_those_that_passed_are() -> None:
    junk = [f"DKIM-Signature: v=1; a=rsa-sha256; d=a{n}.example; s=s; h=from; bh=AAAA; b=AAAA" for n in range(30)]
    octets = "".join(f"{one}\r\n" for one in junk).encode() + sign_rsa(MESSAGE, include_headers=[b"from"])
    of = verdict(octets, settings=Settings(dkim=dkim.SignatureRules(max_signatures=50)))
    results = [result for result, _ in methods(of)["dkim"]]
    assert len(results) == MAX_RESULTS
    assert results[0] == "pass"


def test_every_property_is_registered() -> None:
    for of in (verdict(), verdict(ip=BAD), verdict(sign_rsa(MESSAGE), path="<>")):
        for method, _, properties in parsed(of):
            for name in properties:
                ptype, _, property_name = name.partition(".")
                assert ptype == "policy" or property_name in {
                    "mailfrom", "helo", "d", "i", "s", "a", "b", "from", "oldest-pass", "remote-ip",
                }, (method, name)  # fmt: skip


def test_a_null_reverse_path_has_one_result_of_spf() -> None:
    assert [properties for _, properties in methods(verdict(path="<>"))["spf"]] == [{"smtp.helo": "mail.example.org"}]


def test_the_local_part_is_written_only_if_the_record_used_it() -> None:
    rows = ROWS | {"example.org": [["TXT", ["v=spf1 exists:%{l}.example.net ip4:192.0.2.1 -all"]]]}
    assert methods(verdict())["spf"][0][1] == {"smtp.mailfrom": "example.org"}
    assert methods(verdict(rows=rows))["spf"][0][1] == {"smtp.mailfrom": "joe@example.org"}


@pytest.mark.parametrize(
    ("domain", "rules", "asked", "comment"),
    [
        ("reject.example", {}, "reject", "(p=reject, accepted)"),
        ("reject.example", {"dmarc": {"reject": "quarantine"}}, "reject", "(p=reject, quarantined)"),
        ("testing.example", {}, "quarantine", "(p=reject, accepted)"),
        ("none.example", {"dmarc": {"none": "tag"}}, "none", "(p=none, tagged)"),
    ],
)
def test_what_the_owner_asks_for_and_what_was_done(
    domain: str, rules: dict[str, Any], asked: str, comment: str
) -> None:
    of = verdict(message(f"a@{domain}"), settings=Settings(policy=policy_of(rules)))
    ((result, properties),) = methods(of)["dmarc"]
    assert result == "fail"
    assert properties == {"header.from": domain, "policy.dmarc": asked}
    assert f"dmarc=fail {comment}" in " ".join(inserted(of)[0].split())


def test_no_arc_chain_is_written_on_request() -> None:
    """RFC 8617, 4.4 has "none" as a result; most readers take it from the field's silence."""
    assert "arc" not in methods(verdict())
    assert methods(verdict(settings=Settings(trace=Wanted(arc_none=True))))["arc"] == [
        ("none", {"smtp.remote-ip": GOOD})
    ]
    assert "arc" not in methods(verdict(settings=Settings(arc=False, trace=Wanted(arc_none=True))))


@pytest.mark.parametrize("wanted", [True, False])
def test_received_spf(wanted: bool) -> None:
    fields = inserted(verdict(settings=Settings(trace=Wanted(received_spf=wanted))), "Received-SPF")
    assert len(fields) == (2 if wanted else 0)
    if wanted:
        assert {field.partition("identity=")[2].partition(";")[0] for field in fields} == {"mailfrom", "helo"}
        assert all(f"receiver={OUR_ID};" in field for field in fields)


@pytest.mark.parametrize(
    ("path", "shown"), [("<joe@localhost>", "localhost"), ("<joe@a..example>", "a..example"), ("<joe>", "")]
)
def test_a_domain_that_cannot_be_asked_brings_no_local_part(path: str, shown: str) -> None:
    assert methods(verdict(path=path))["spf"][0][1]["smtp.mailfrom"] == shown


def test_received_spf_without_the_local_part() -> None:
    rows = ROWS | {"example.org": [["TXT", ["v=spf1 exists:%{l}.example.net ip4:192.0.2.1 -all"]]]}
    without = Settings(trace=Wanted(received_spf_local_part=False))
    assert "envelope-from=example.org;" in inserted(verdict(settings=without), "Received-SPF")[0]
    assert "joe@example.org" in inserted(verdict(settings=without, rows=rows), "Received-SPF")[0]
    assert "joe@example.org" in inserted(verdict(), "Received-SPF")[0]


def test_results_that_are_none_are_left_out_on_request() -> None:
    assert methods(verdict())["dkim"] == [("none", {})]
    found = methods(verdict(settings=Settings(trace=Wanted(hide_none=True, arc_none=True))))
    assert not {"dkim", "arc"} & set(found)
    assert "spf" in found


def test_one_result_of_spf_on_request() -> None:
    single = Settings(trace=Wanted(single_spf=True))
    found = [methods(verdict(settings=single, path=path))["spf"] for path in ("<joe@example.org>", "<>")]
    assert [[one for _, one in results] for results in found] == [
        [{"smtp.mailfrom": "example.org"}],
        [{"smtp.helo": "mail.example.org"}],
    ]


def test_the_order_of_insertion_puts_the_results_on_top() -> None:
    names = [edit.name for edit in verdict().edits]
    assert names == ["Received-SPF", "Received-SPF", "Authentication-Results"]


HOSTILE = [
    'x"; dmarc=pass header.from=bank.example; x="',
    "x) dmarc=pass (",
    "x\r\nAuthentication-Results: mx.example.net; dmarc=pass",
    "x;dmarc=pass",
    "x\\",
    "(((((",
    "\udcff\udcfe",
    "=?utf-8?q?=0D=0AX:_y?=",
    "x" * 5000,
    "\x00\x07\x7f",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("place", ["helo", "path", "domain", "from", "reverse name", "signature"])
def test_a_stranger_cannot_write_results(text: str, place: str) -> None:
    raw = text.replace("\r\n", "\r\n ").encode("utf-8", "surrogateescape")
    signature = b"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=%b; h=from; bh=AAAA; b=AAAA; i=%b@example.org\r\n"
    octets = {
        "from": MESSAGE.replace(b"joe@", raw + b"@"),
        "signature": signature % (raw, raw) + MESSAGE,
    }.get(place, MESSAGE)
    path = {"path": f"<{text}@example.org>", "domain": f"<joe@{text}>"}.get(place, "<joe@example.org>")
    rows = dict(ROWS)
    if place == "reverse name":
        rows["1.2.0.192.in-addr.arpa"] = [["PTR", text]]
    of = verdict(octets, helo=text if place == "helo" else "mail.example.org", path=path, rows=rows)
    found = methods(of)
    assert set(found) <= {"iprev", "spf", "dkim", "dmarc"}
    assert len(found["dmarc"]) == 1
    assert len(found["spf"]) == 2
    for edit in of.edits:
        assert isinstance(edit, Insert)
        lines = edit.value.split("\r\n")
        assert all(line[:1] in (" ", "\t") and line.strip() for line in lines[1:])
        assert all(len(line.encode()) <= 998 for line in lines)
        assert edit.value.replace("\r\n", "").replace("\t", " ").isprintable()


def test_an_ipv6_client_is_quoted() -> None:
    edit = verdict(ip="2001:db8::1").edits[-1]
    assert isinstance(edit, Insert)
    assert 'policy.iprev="2001:db8::1"' in edit.value


def test_removals_go_upward() -> None:
    assert remove_edits(Header(), (), [("A", 1), ("B", 2), ("A", 3), ("A", 2)]) == (
        Remove("A", 3),
        Remove("B", 2),
        Remove("A", 2),
        Remove("A", 1),
    )


@pytest.mark.parametrize(
    ("name", "value", "claims"),
    [
        ("Authentication-Results", f" {OUR_ID}; x", True),
        ("authentication-RESULTS", f"{OUR_ID};", True),
        ("Received-SPF", f" pass receiver={OUR_ID}", True),
        ("ARC-Authentication-Results", f" i=1; {OUR_ID}; x", False),
        ("Authentication-Results", " other.example; x", False),
        ("X-Received-SPF", f" pass receiver={OUR_ID}", False),
        ("Subject", f" {OUR_ID};", False),
    ],
)
def test_what_claims_to_be_ours(name: str, value: str, claims: bool) -> None:
    assert Forgeries((OUR_ID,)).claims(HeaderField(name.encode(), value.encode())) is claims


def test_there_is_nothing_to_stamp_without_a_client() -> None:
    one = session()
    one.connect(None, "", mta_name=OUR_ID)
    assert talk(one).edits == ()
