# SPDX-License-Identifier: GPL-3.0-or-later
"""Fields that claim to be ours are removed from the message that the MTA stores, and no others are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from assay.cli.mta import Mta
from assay.model.message import split_message
from running import Daemon
from sending import BAD, OUR_ID, RECEIVED, ROWS, greet, message, results, send, written

FURTHER = "old.example.net"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("daemon")
    with Daemon(folder, ROWS, identity={"strip": (FURTHER,)}, clients={"internal": ("10.0.0.0/8",)}) as d:
        yield d


@pytest.fixture
def mta(daemon: Daemon) -> Iterator[Mta]:
    with daemon.mta() as one:
        yield one


FORGED = [
    f"Authentication-Results: {OUR_ID}; spf=pass",
    f"authentication-results:{OUR_ID};spf=pass",
    f"AUTHENTICATION-RESULTS: {OUR_ID.upper()}; spf=pass",
    f"Authentication-Results: {OUR_ID} 1; spf=pass",
    f"Authentication-Results: {OUR_ID} 2; spf=pass",
    f"Authentication-Results: (a comment (nested)) {OUR_ID} (another) 1; spf=pass",
    f'Authentication-Results: "{OUR_ID}"; spf=pass',
    f"Authentication-Results:\r\n\t{OUR_ID};\r\n\tspf=pass",
    f"Authentication-Results:\r\n (fold\r\n ed) {OUR_ID}\r\n ; spf=pass",
    f"Authentication-Results : {OUR_ID}; spf=pass",
    f"Authentication-Results: {FURTHER}; spf=pass",
    f"Received-SPF: pass ({OUR_ID}: all is well) receiver={OUR_ID}",
    f"received-spf: Pass (x) client-ip=1.2.3.4; receiver={OUR_ID};",
]
HONEST = [
    "Authentication-Results: mx.example.com; spf=pass",
    f"Authentication-Results: {OUR_ID}.evil.example; spf=pass",
    f"Authentication-Results: not{OUR_ID}; spf=pass",
    f"ARC-Authentication-Results: i=1; {OUR_ID}; spf=pass",
    f"X-Authentication-Results: {OUR_ID}; spf=pass",
    "Received-SPF: pass (mx.example.com: all is well) receiver=mx.example.com",
    f"Subject: Authentication-Results: {OUR_ID}; spf=pass",
]


@pytest.mark.parametrize("field", FORGED)
def test_a_forged_field_is_removed(mta: Mta, field: str) -> None:
    greet(mta)
    octets = message("joe@example.org", HONEST[0], field, HONEST[0], HONEST[5])
    outcome = send(mta, octets)
    clean = message("joe@example.org", HONEST[0], HONEST[0], HONEST[5])
    ours = sum(value is not None for _, _, value in outcome.edits)
    assert written(outcome, octets)[ours:] == [(one.name, one.value) for one in (RECEIVED, *split_message(clean)[0])]


@pytest.mark.parametrize("field", HONEST)
def test_an_honest_field_is_kept(mta: Mta, field: str) -> None:
    greet(mta)
    outcome = send(mta, message("joe@example.org", field))
    assert [edit for edit in outcome.edits if edit[2] is None] == []


def test_forged_fields_are_removed_from_the_last_to_the_first(mta: Mta) -> None:
    # CVE-2022-48521: MTAs renumber after each removal, so going downward removes the wrong ones.
    forged, honest = FORGED[0], HONEST[0]
    octets = message("joe@example.org", forged, honest, forged, forged, honest, FORGED[11], HONEST[5], FORGED[11])
    greet(mta)
    outcome = send(mta, octets)
    removed = [(name, index) for index, name, value in outcome.edits if value is None]
    for name in (b"Authentication-Results", b"Received-SPF"):
        indices = [index for of, index in removed if of == name]
        assert indices == sorted(indices, reverse=True)
        assert indices
    assert outcome.edits[: len(removed)] == [(i, n, None) for n, i in removed], "removals come before insertions"
    rest = [pair for pair in written(outcome, octets) if pair[0] != b"Received"][3:]
    clean = split_message(message("joe@example.org", honest, honest, HONEST[5]))[0]
    assert rest == [(one.name, one.value) for one in clean]


def test_our_field_is_on_top(mta: Mta) -> None:
    greet(mta)
    octets = message("joe@example.org", "Received: by a.example", HONEST[0])
    outcome = send(mta, octets)
    assert {index for index, _, value in outcome.edits if value is not None} == {0}
    fields = written(outcome, octets)
    names = [name for name, _ in fields]
    assert names[:4] == [b"Authentication-Results", b"Received-SPF", b"Received-SPF", b"Received"]
    assert fields[3] == (RECEIVED.name, RECEIVED.value)
    assert names.count(b"Authentication-Results") == 2
    assert results(outcome).startswith(f"{OUR_ID}; ")


def test_our_fields_are_well_formed(mta: Mta) -> None:
    hostile = 'x\\"();,\x01\x7f=?utf-8?q?=0AX=3Ay?= '
    greet(mta, BAD, helo=hostile)
    outcome = send(mta, message("joe@example.org"), path=f'"{hostile}"@example.org')
    for _, _, value in outcome.edits:
        assert value is not None
        assert value.startswith(b" ")
        assert not value.startswith(b"  ")
        assert b"\r" not in value
        lines = value.split(b"\n")
        assert all(line[:1] in b" \t" and line.strip() for line in lines[1:])
        assert all(len(line) <= 998 for line in lines)
        assert not any(octet < 0x20 and octet not in b"\n\t" for octet in value)
    assert results(outcome).count("; spf=") == 2


def test_mail_of_internal_clients_is_not_judged_but_forged_results_are_removed(mta: Mta) -> None:
    greet(mta, "10.0.0.1")
    outcome = send(mta, message("joe@example.org", HONEST[0], *FORGED))
    assert {value for _, _, value in outcome.edits} == {None}
    assert len(outcome.edits) == len(FORGED)
