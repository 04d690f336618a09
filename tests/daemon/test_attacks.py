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
from sending import BAD, GOOD, OUR_ID, ROWS, greet, message, results, send

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
