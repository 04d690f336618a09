# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages made to impersonate somebody, or to evade the operator's policy, each through a real daemon.

The published attacks on readers of From are in ``conformance/test_attack.py``; these target a milter: its memory, its
reading of relays' fields, the fields that it writes and removes, and its behavior when a part of it fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from assay.cli.mta import Mta
from assay.model.message import split_message
from assay.protocol import authres
from running import Daemon
from sending import GOOD, OUR_ID, ROWS, greet, message, results, send
from signing import sign_rsa

RELAY, STRANGER = "192.0.2.200", "192.0.2.7"
FORGED = message("ceo@reject.example")
OPERATOR = {
    "clients": {
        "internal": ("127.0.0.0/8", "10.0.0.0/8"),
        "relays": (RELAY,),
        "exempt_recipients": ("abuse@example.net",),
    },
    "dmarc": {"reject": "reject", "malformed_from": "reject"},
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("daemon"), ROWS, **OPERATOR) as one:
        yield one


@pytest.fixture
def mta(daemon: Daemon) -> Iterator[Mta]:
    with daemon.mta() as one:
        yield one


@pytest.mark.parametrize(
    "received",
    [
        pytest.param("from [10.0.0.1] (x.test [192.0.2.7] (may be forged)) by relay", id="Sendmail"),
        pytest.param("from [192.0.2.7] (helo=[10.0.0.1]) by relay", id="Exim"),
        pytest.param("from [10.0.0.1] by relay", id="an unknown MTA"),
        pytest.param(
            "from localhost (localhost [127.0.0.1]) by relay\r\nReceived: from x.test (x.test [192.0.2.7]) by relay",
            id="its content filter",
        ),
        pytest.param("from x (relay [192.0.2.200]) by relay\r\nReceived: from x (x [192.0.2.7]) by relay", id="two"),
        pytest.param(
            "by relay (Postfix) id 4X\r\nReceived: from x (x [10.0.0.1]) by relay",
            id="a message that it generated itself",
        ),
        pytest.param("from x (x [192.0.2.7]) by relay\r\nReceived: from x (x [10.0.0.1]) by relay", id="below its own"),
    ],
)
@pytest.mark.parametrize("author", ["ceo@reject.example", "joe@example.org"])
def test_a_stranger_behind_a_relay_is_not_internal(mta: Mta, received: str, author: str) -> None:
    greet(mta, RELAY)
    outcome = send(mta, message(author, f"Received: {received}"), path=author)
    assert outcome.reply.startswith("550 5.7.1 ")


@pytest.mark.parametrize(
    "received",
    [
        pytest.param(f"from [{GOOD}] (x.test [192.0.2.7] (may be forged)) by relay", id="Sendmail"),
        pytest.param(f"from [192.0.2.7] (helo=[{GOOD}]) by relay", id="Exim"),
        pytest.param(f"from x (x [192.0.2.7]) by relay\r\nReceived: from x (x [{GOOD}]) by x", id="below its own"),
    ],
)
def test_a_stranger_behind_a_relay_passes_spf_for_no_domain(mta: Mta, received: str) -> None:
    greet(mta, RELAY)
    assert send(mta, message("joe@example.org", f"Received: {received}")).code == 550


@pytest.mark.parametrize(
    "received",
    [
        pytest.param(f"from x (mail.example.org [{GOOD}]) by relay", id="at once"),
        pytest.param(
            f"from localhost (localhost [127.0.0.1]) by relay\r\nReceived: from x (x [{GOOD}]) by relay",
            id="after its content filter",
        ),
    ],
)
def test_an_honest_client_of_a_relay_passes(mta: Mta, received: str) -> None:
    greet(mta, RELAY)
    outcome = send(mta, message("joe@example.org", f"Received: {received}"))
    assert "dmarc=pass" in results(outcome)


@pytest.mark.parametrize("octets", [66_000, 102_400])
def test_a_field_too_long_for_libmilter_does_not_hide_the_message(mta: Mta, octets: int) -> None:
    greet(mta, STRANGER)
    assert send(mta, message("ceo@reject.example", f"X-Long: {'x' * octets}"), path="").code == 550


#: The name of a client in the DNS may have any octets.
NAMES = {"7.2.0.192.in-addr.arpa": "a\udcff.example", "8.2.0.192.in-addr.arpa": "a\n\r\0\u007f.example"}


@pytest.fixture(scope="module")
def cautious(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that refuses nothing: it quarantines mail, or tags it."""
    sections = {
        "iprev": {"fail": "quarantine"},
        "dmarc": {"none": "tag"},
        "headers": {"tag_subject": "[beware] "},
        "dkim": {"max_signatures": 100},
    }
    rows = ROWS | {owner: [["PTR", name]] for owner, name in NAMES.items()}
    with Daemon(tmp_path_factory.mktemp("daemon"), rows, **sections) as one:
        yield one


@pytest.mark.parametrize("ip", ["192.0.2.7", "192.0.2.8"])
def test_a_name_of_odd_octets_does_not_prevent_quarantine(cautious: Daemon, ip: str) -> None:
    with cautious.mta() as mta:
        greet(mta, ip)
        outcome = send(mta)
    assert outcome.quarantine.startswith("iprev.fail: a?")
    assert outcome.quarantine.isascii()
    assert outcome.quarantine.isprintable()
    assert results(outcome)


@pytest.mark.parametrize("octets", [60_000, 102_400])
def test_a_subject_too_long_to_be_written_is_still_tagged(cautious: Daemon, octets: int) -> None:
    with cautious.mta() as mta:
        greet(mta)
        outcome = send(mta, message("a@none.example").replace(b"Subject: ", b"Subject: " + b"x" * octets), path="")
    names = [name for _, name, _ in outcome.edits]
    assert names[:2] == [b"Subject", b"X-Assay-Tag"]
    assert "dmarc=fail" in results(outcome)


def test_countless_signatures_do_not_hide_the_results(cautious: Daemon) -> None:
    long = ".".join(["d" * 60] * 3)
    signature = f"DKIM-Signature: v=1; a=rsa-sha256; d={long}; s={'s' * 40}; i={'u' * 400}@{long}; h=from; bh=AA; b=AA"
    with cautious.mta() as mta:
        greet(mta)
        outcome = send(mta, message("joe@example.org", *[signature] * 200))
    assert "dmarc=pass" in results(outcome)
    assert len(results(outcome)) < 50_000


FORGERIES = {
    "Received-SPF": f"pass ({OUR_ID}: all is well) receiver={OUR_ID}",
    "Authentication-Results": f"{OUR_ID}; spf=pass smtp.mailfrom=reject.example",
}


@pytest.mark.parametrize("count", [101, 900])
@pytest.mark.parametrize("name", FORGERIES)
def test_all_forged_fields_are_removed_however_many(mta: Mta, name: str, count: int) -> None:
    greet(mta)
    outcome = send(mta, message("joe@example.org", *[f"{name}: {FORGERIES[name]}"] * count))
    removed = [index for index, of, value in outcome.edits if value is None and of == name.encode()]
    assert removed == list(range(count, 0, -1))
    assert "dmarc=pass" in results(outcome)


@pytest.mark.parametrize("macros", [{}, {"auth_authen": "joe"}], ids=["a stranger", "an authenticated user"])
def test_countless_forged_fields_do_not_keep_the_mta_busy(mta: Mta, macros: dict[str, str]) -> None:
    greet(mta)
    outcome = send(mta, message("joe@example.org", *["Received-SPF: x"] * 20_000), **macros)
    assert outcome.reply.startswith("550 5.6.0 ")
    assert outcome.edits == []
    assert send(mta).code == 250


@pytest.mark.parametrize("value", ["mx.example.com 2; spf=pass", "mx.example.com (x) 02 ; none", "a\r\n\t99;spf=pass"])
def test_results_of_an_unknown_version_are_removed_for_every_authserv_id(mta: Mta, value: str) -> None:
    # RFC 8601, 5: a MUST for mail from outside.
    greet(mta)
    kept = "Authentication-Results: mx.example.com 1; spf=pass"
    outcome = send(mta, message("joe@example.org", kept, f"Authentication-Results: {value}", kept))
    assert [index for index, _, written in outcome.edits if written is None] == [2]


@pytest.mark.parametrize("order", [("abuse", "ann"), ("ann", "abuse")])
def test_an_exempt_recipient_does_not_exempt_another(mta: Mta, order: tuple[str, ...]) -> None:
    greet(mta, STRANGER)
    for names, code in ((order, 550), (("abuse",), 250), (order, 550)):
        mta.mail("")
        for name in names:
            mta.rcpt(f"{name}@example.net")
        assert mta.message(*split_message(FORGED)).code == code


def test_a_client_hidden_by_a_proxy_is_not_local(mta: Mta) -> None:
    mta.connect("unknown", None, j=OUR_ID, client_addr="unknown")
    mta.helo("localhost")
    assert send(mta, FORGED).code == 550


def signed(**options: Any) -> bytes:
    """A message signed by example.org, which a stranger may have received."""
    return sign_rsa(message("joe@example.org"), include_headers=[b"from", b"subject"], **options)


def tampered(old: bytes, new: bytes, **options: Any) -> bytes:
    octets = signed(**options)
    assert old in octets
    return octets.replace(old, new, 1)


FROM, SECOND = b"From: joe@example.org\r\n", b"From: ceo@example.org\r\n"
SEAL = "ARC-Seal: i=1; a=rsa-sha256; d={0}; s=sel; cv=none; b=AAAA"
SET = (
    "ARC-Message-Signature: i=1; a=rsa-sha256; c=relaxed/relaxed; d={0}; s=sel; h=from; bh=AAAA; b=AAAA",
    "ARC-Authentication-Results: i=1; " + OUR_ID + "; dmarc=pass header.from=example.org",
)
#: All from a client that no domain authorizes, in the name of example.org, which publishes p=reject.
NASTY = {
    "a second From on top of a signed one": SECOND + signed(),
    "a second From below": tampered(FROM, FROM + SECOND),
    "a second From with a space before its colon": tampered(FROM, b"From : ceo@example.org\r\n" + FROM),
    "a second From with a tab there": tampered(FROM, FROM + b"From\t: ceo@example.org\r\n"),
    "a second From in another letter case": b"fROM: ceo@example.org\r\n" + signed(),
    "text after what l= signs": signed(length=True) + b"and pay at once\r\n",
    "an additional line end inside the body": tampered(b"hello\r\n", b"hel\r\nlo\r\n"),
    "a bare line feed in the body": tampered(b"hello\r\n", b"hello\nX"),
    "a bare carriage return in the body": tampered(b"hello\r\n", b"hello\rX"),
    "a folded From whose fold was not signed, simple": tampered(b"From: joe", b"From:\r\n joe", c="simple/simple"),
    "a signature of another domain with our identity": tampered(b"d=example.org", b"d=none.example"),
    "a signature with d= twice": tampered(b"d=example.org;", b"d=example.org; d=example.org;"),
    "a signature for a top-level domain": tampered(b"d=example.org", b"d=org"),
    "a signature that leaves From out": tampered(b"h=from", b"h=to"),
    "a name in full-width letters": message("joe@\uff45xample.org"),
    "a name with an ideographic full stop": message("joe@example\u3002org"),
    "a name with a final dot": message("joe@example.org."),
    "a name with a soft hyphen": message("joe@exam\u00adple.org"),
    "a percent route": message("joe%example.org@example.org"),
    "a From after a megabyte of header": message("joe@example.org", *[f"X: {'x' * 60_000}"] * 20),
    "a From field with a comment that does not end": message("(x joe@example.org"),
    "an address inside quotes": message('"joe@example.org" <joe@none.example'),
    "a Sender that passes, and no From": signed().replace(FROM, b"Sender: joe@example.org\r\n"),
    "a seal of a trusted sealer that does not verify": message("joe@example.org", SEAL.format("list.example"), *SET),
    "a forged mailing list": message(
        "joe@example.org", "List-Id: <list.example>", "Authentication-Results: x; dmarc=pass"
    ),
}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    sections = {
        "dmarc": {"reject": "reject", "malformed_from": "reject", "no_policy": "accept"},
        "arc": {"trusted_sealers": ("list.example",)},
    }
    with Daemon(tmp_path_factory.mktemp("daemon"), ROWS, **sections) as one:
        yield one


@pytest.mark.parametrize("octets", NASTY.values(), ids=NASTY)
def test_a_forged_message_is_refused(strict: Daemon, octets: bytes) -> None:
    with strict.mta() as mta:
        greet(mta, STRANGER, helo="x.test")
        outcome = send(mta, octets, path="")
        assert outcome.code == 550
        assert send(mta, message("a@none.example"), path="").code == 250, "and the next message is judged for itself"


def test_the_genuine_message_passes(strict: Daemon) -> None:
    with strict.mta() as mta:
        greet(mta, STRANGER)
        assert "dmarc=pass" in results(send(mta, signed(), path=""))


LIE = "dmarc=pass header.from=example.org"


@pytest.mark.parametrize(
    ("helo", "path", "author", "field"),
    [
        pytest.param(f"x; {LIE}", "", "a@none.example", "X: 1", id="HELO"),
        pytest.param(f"x\r\n\t; {LIE}", "", "a@none.example", "X: 1", id="HELO with a fold"),
        pytest.param('x"; ' + LIE + '; spf=pass x="', "", "a@none.example", "X: 1", id="HELO with quotes"),
        pytest.param("x", f'"x; {LIE}"@none.example', "a@none.example", "X: 1", id="local part"),
        pytest.param("x", f'"x\\"; {LIE}"@none.example', "a@none.example", "X: 1", id="local part with a quote"),
        pytest.param("x", f"x@none.example; {LIE}", "a@none.example", "X: 1", id="after the domain"),
        pytest.param("x", "", f'"x; {LIE}"@none.example', "X: 1", id="author"),
        pytest.param(
            "x",
            "",
            "a@none.example",
            "DKIM-Signature: v=1; a=rsa-sha256; d=none.example; s=s; h=from; bh=AA; b=AA; "
            "i=x=3B=20dmarc=3Dpass=20header.from=3Dexample.org@none.example",
            id="i=",
        ),
        pytest.param(
            "x",
            "",
            "a@none.example",
            "DKIM-Signature: v=1; a=rsa-sha256; d=none.example; s=s; h=from; bh=AA; b=AA; i=x=0D=0A=20@none.example",
            id="i= with a line end",
        ),
    ],
)
def test_no_value_can_inject_a_result(strict: Daemon, helo: str, path: str, author: str, field: str) -> None:
    with strict.mta() as mta:
        greet(mta, STRANGER, helo=helo)
        outcome = send(mta, message(author, field), path=path)
    assert outcome.code == 250
    (value,) = [value for _, name, value in outcome.edits if name == b"Authentication-Results"]
    assert value is not None
    parsed = authres.parse(value.replace(b"\n", b"\r\n"))
    assert isinstance(parsed, authres.AuthenticationResults)
    assert [one.result for one in parsed.results if one.method == "dmarc"] == ["fail"]
    # A reader that splits at semicolons and ignores quotes must not find it at the beginning of a result either.
    lines = value.decode().split("\n")
    assert not [line for line in lines if line.strip().startswith("dmarc=pass")]


#: More header than an MTA passes on for an honest message, by number and by size.
FLOODS = {"fields": ["X: 1"] * 10_001, "octets": [f"X: {'x' * 60_000}"] * 40}


@pytest.mark.parametrize("place", ["above", "below"])
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_flood_of_header_fields_does_not_hide_the_author(tmp_path: Path, flood: list[str], place: str) -> None:
    above, below = (flood, []) if place == "above" else ([], flood)
    octets = message("ceo@reject.example", *above).replace(b"Subject: x", "\r\n".join(["Subject: x", *below]).encode())
    # The operator accepts a malformed From, but not a From hidden by the flood.
    with Daemon(tmp_path, ROWS, dmarc={"reject": "reject", "malformed_from": "accept"}) as daemon, daemon.mta() as mta:
        greet(mta, STRANGER)
        outcome = send(mta, octets, path="")
        assert outcome.reply.startswith("550 5.6.0 "), outcome.reply
        assert outcome.edits == []
        assert 'by="header flood"' in daemon.wait_for_log("action=reject")
        assert send(mta, message("a@none.example"), path="").code == 250, "and the next message is judged for itself"


@pytest.mark.parametrize(
    "fields",
    [[f"X: {'x' * 60_000}"] * 20, ["X: 1"] * 9_000, [f"X: {'x' * 102_000}"] * 15],
    ids=["twenty of 60 KB", "nine thousand", "fifteen of the maximum length of Postfix"],
)
@pytest.mark.parametrize("place", ["above", "below"])
def test_honest_mail_with_a_big_header_keeps_its_results(mta: Mta, fields: list[str], place: str) -> None:
    greet(mta)
    signed_fields = signed().replace(b"Subject: x", "\r\n".join(["Subject: x", *fields]).encode())
    octets = signed_fields if place == "below" else "\r\n".join([*fields, ""]).encode() + signed()
    found = results(send(mta, octets))
    assert "dkim=pass" in found
    assert "dmarc=pass" in found


def test_remove_fields_sees_every_field_of_an_accepted_message(tmp_path: Path) -> None:
    rules = [{"name": "clean", "when": "true", "remove_fields": ("X-Spam",)}]
    with Daemon(tmp_path, ROWS, rule=rules) as daemon, daemon.mta() as mta:
        greet(mta)
        outcome = send(mta, message("joe@example.org", *["X: 1"] * 9_000, "X-Spam: no"))
        assert (1, b"X-Spam", None) in outcome.edits
        assert send(mta, message("joe@example.org", *["X: 1"] * 10_000, "X-Spam: no")).code == 550


#: Mail that is not judged, and the macros of MAIL and of the connection that identify it.
EXEMPT_WAYS: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    "an internal network": ("10.0.0.1", {}, {}),
    "submission": (STRANGER, {}, {"daemon_name": "submission"}),
    "a user who logged in": (STRANGER, {"auth_authen": "joe"}, {}),
}


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    clients = {
        "internal": ("10.0.0.0/8",),
        "daemon_names": ("submission",),
        "relays": (RELAY,),
        "trusted_results": ("10.9.0.0/16", RELAY),
    }
    with Daemon(tmp_path_factory.mktemp("daemon"), ROWS, clients=clients) as one:
        yield one


@pytest.mark.parametrize(("ip", "login", "connection"), EXEMPT_WAYS.values(), ids=EXEMPT_WAYS)
@pytest.mark.parametrize("name", FORGERIES)
def test_forged_results_are_removed_from_mail_that_is_not_judged(
    trusting: Daemon, ip: str, login: dict[str, str], connection: dict[str, str], name: str
) -> None:
    forged, kept = f"{name}: {FORGERIES[name]}", f"{name}: mx.example.com; none"
    with trusting.mta() as mta:
        greet(mta, ip, **connection)
        outcome = send(mta, message("joe@example.org", kept, forged, kept, forged), **login)
    assert outcome.edits == [(4, name.encode(), None), (2, name.encode(), None)]


def test_forged_results_are_removed_from_mail_without_a_network_client(trusting: Daemon) -> None:
    with trusting.mta() as mta:
        mta.connect("localhost", None, j=OUR_ID)
        mta.helo("localhost")
        outcome = send(mta, message("joe@example.org", f"Received-SPF: {FORGERIES['Received-SPF']}"))
    assert outcome.edits == [(1, b"Received-SPF", None)]


@pytest.mark.parametrize("ip", ["10.9.0.1", RELAY], ids=["internal", "a relay"])
def test_results_of_a_trusted_mta_are_kept(trusting: Daemon, ip: str) -> None:
    with trusting.mta() as mta:
        greet(mta, ip)
        outcome = send(mta, message("joe@example.org", *(f"{name}: {value}" for name, value in FORGERIES.items())))
    assert [edit for edit in outcome.edits if edit[2] is None] == []
