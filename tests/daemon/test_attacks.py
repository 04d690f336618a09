# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages made to be taken for somebody else's, or to slip past the operator's policy, each through a real daemon.

The published attacks on readers of From are in ``conformance/test_attack.py``; these are aimed at a milter: at what it
remembers, at what it reads of relays, at what it writes and removes, and at what it does when something of it breaks.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from assay.cli.mta import Mta
from assay.model.message import split_message
from running import Daemon
from sending import GOOD, OUR_ID, ROWS, greet, message, results, send

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
        pytest.param("from [10.0.0.1] by relay", id="an MTA we do not know"),
        pytest.param(
            "from localhost (localhost [127.0.0.1]) by relay\r\nReceived: from x.test (x.test [192.0.2.7]) by relay",
            id="its content filter",
        ),
        pytest.param("from x (relay [192.0.2.200]) by relay\r\nReceived: from x (x [192.0.2.7]) by relay", id="two"),
        pytest.param("by relay (Postfix) id 4X\r\nReceived: from x (x [10.0.0.1]) by relay", id="what it made itself"),
        pytest.param("from x (x [192.0.2.7]) by relay\r\nReceived: from x (x [10.0.0.1]) by relay", id="below its own"),
    ],
)
@pytest.mark.parametrize("author", ["ceo@reject.example", "joe@example.org"])
def test_a_stranger_behind_a_relay_is_no_host_of_ours(mta: Mta, received: str, author: str) -> None:
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
def test_a_stranger_behind_a_relay_has_nobody_s_spf(mta: Mta, received: str) -> None:
    greet(mta, RELAY)
    assert send(mta, message("joe@example.org", f"Received: {received}")).code == 550


@pytest.mark.parametrize(
    "received",
    [
        pytest.param(f"from x (mail.example.org [{GOOD}]) by relay", id="at once"),
        pytest.param(
            f"from localhost (localhost [127.0.0.1]) by relay\r\nReceived: from x (x [{GOOD}]) by relay",
            id="behind its content filter",
        ),
    ],
)
def test_an_honest_client_of_a_relay_passes(mta: Mta, received: str) -> None:
    greet(mta, RELAY)
    outcome = send(mta, message("joe@example.org", f"Received: {received}"))
    assert "dmarc=pass" in results(outcome)


@pytest.mark.parametrize("octets", [66_000, 102_400])
def test_a_field_that_is_too_long_for_libmilter_hides_no_message(mta: Mta, octets: int) -> None:
    greet(mta, STRANGER)
    assert send(mta, message("ceo@reject.example", f"X-Long: {'x' * octets}"), path="").code == 550


#: What a client may have as its name in the DNS: any octets.
NAMES = {"7.2.0.192.in-addr.arpa": "a\udcff.example", "8.2.0.192.in-addr.arpa": "a\n\r\0\u007f.example"}


@pytest.fixture(scope="module")
def cautious(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that refuses nothing: it holds mail, or marks it."""
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
def test_a_name_of_odd_octets_frees_nobody_from_quarantine(cautious: Daemon, ip: str) -> None:
    with cautious.mta() as mta:
        greet(mta, ip)
        outcome = send(mta)
    assert outcome.quarantine.startswith("iprev.fail: a?")
    assert outcome.quarantine.isascii()
    assert outcome.quarantine.isprintable()
    assert results(outcome)


@pytest.mark.parametrize("octets", [60_000, 102_400])
def test_a_subject_that_is_too_long_to_be_written_is_marked_all_the_same(cautious: Daemon, octets: int) -> None:
    with cautious.mta() as mta:
        greet(mta)
        outcome = send(mta, message("a@none.example").replace(b"Subject: ", b"Subject: " + b"x" * octets), path="")
    names = [name for _, name, _ in outcome.edits]
    assert names[:2] == [b"Subject", b"X-Assay-Tag"]
    assert "dmarc=fail" in results(outcome)


def test_signatures_without_number_do_not_hide_the_results(cautious: Daemon) -> None:
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
def test_all_forged_fields_go_however_many_they_are(mta: Mta, name: str, count: int) -> None:
    greet(mta)
    outcome = send(mta, message("joe@example.org", *[f"{name}: {FORGERIES[name]}"] * count))
    removed = [index for index, of, value in outcome.edits if value is None and of == name.encode()]
    assert removed == list(range(count, 0, -1))
    assert "dmarc=pass" in results(outcome)


@pytest.mark.parametrize("macros", [{}, {"auth_authen": "joe"}], ids=["a stranger", "a user of ours"])
def test_forged_fields_without_number_do_not_keep_the_mta_busy(mta: Mta, macros: dict[str, str]) -> None:
    greet(mta)
    outcome = send(mta, message("joe@example.org", *["Received-SPF: x"] * 20_000), **macros)
    assert outcome.reply.startswith("550 5.6.0 ")
    assert outcome.edits == []
    assert send(mta).code == 250


@pytest.mark.parametrize("value", ["mx.example.com 2; spf=pass", "mx.example.com (x) 02 ; none", "a\r\n\t99;spf=pass"])
def test_results_of_a_version_that_nobody_knows_go_whoever_claims_them(mta: Mta, value: str) -> None:
    # RFC 8601, 5: a MUST for what comes from outside.
    greet(mta)
    kept = "Authentication-Results: mx.example.com 1; spf=pass"
    outcome = send(mta, message("joe@example.org", kept, f"Authentication-Results: {value}", kept))
    assert [index for index, _, written in outcome.edits if written is None] == [2]


@pytest.mark.parametrize("order", [("abuse", "ann"), ("ann", "abuse")])
def test_one_exempt_recipient_opens_no_door_for_another(mta: Mta, order: tuple[str, ...]) -> None:
    greet(mta, STRANGER)
    for names, code in ((order, 550), (("abuse",), 250), (order, 550)):
        mta.mail("")
        for name in names:
            mta.rcpt(f"{name}@example.net")
        assert mta.message(*split_message(FORGED)).code == code


def test_a_client_whose_address_a_proxy_hides_is_no_local_one(mta: Mta) -> None:
    mta.connect("unknown", None, j=OUR_ID, client_addr="unknown")
    mta.helo("localhost")
    assert send(mta, FORGED).code == 550
