# SPDX-License-Identifier: GPL-3.0-or-later
"""A dead DNS delays a message by its budget at most, and a slow DNS only by the longest chain of queries."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from assay.model.message import split_message
from nameserver import closed_port
from running import PATIENCE, Daemon
from sending import BAD, MESSAGE, OUR_ID, ROWS, greet, message, results, send
from signing import record, rsa_key, sign_rsa

BUDGET = 1.5
SLACK = 1.5  # seconds for a busy machine


def timed(daemon: Daemon, octets: bytes = MESSAGE) -> tuple[str, float]:
    with daemon.mta() as mta:
        greet(mta)
        began = time.monotonic()
        return results(send(mta, octets)), time.monotonic() - began


def test_a_silent_nameserver_costs_the_budget(tmp_path: Path) -> None:
    with Daemon(tmp_path, ROWS, dns={"budget_seconds": BUDGET, "timeout_seconds": 5.0}) as daemon:
        daemon.nameserver.drop = True
        text, took = timed(daemon, sign_rsa(MESSAGE, include_headers=[b"from"]))
        for method in ("iprev", "spf", "dkim", "dmarc"):
            assert f"{method}=temperror" in text, text
        assert text.count("spf=temperror") == 2
        assert took < BUDGET + SLACK
        daemon.nameserver.drop = False
        assert "ERROR" not in daemon.log()


DEAD = "dead.example.org"
#: What a message waits for at each stage and in each part of its end, one after the other. DMARC's last question is
#: whether other.org, which is unlike the author's domain, has a policy of its own.
SLOW = {
    **ROWS,
    "1.2.0.192.in-addr.arpa": [["PTR", DEAD]],
    "mail.example.org": [["TXT", [f"v=spf1 a:{DEAD} -all"]]],
    "esp.example": [["TXT", [f"v=spf1 include:{DEAD} -all"]]],
    "sel._domainkey.other.org": [["TXT", [record(rsa_key())]]],
}
BY_STAGE = {
    "iprev": {"fail": "reject", "stage": "connect"},
    "spf": {"helo": {"fail": "reject", "stage": "helo"}, "mailfrom": {"fail": "reject", "stage": "mail"}},
}


@pytest.mark.parametrize("sections", [{}, BY_STAGE], ids=["at its end", "at each stage"])
def test_all_stages_of_a_message_together_wait_for_the_budget(tmp_path: Path, sections: dict[str, Any]) -> None:
    dns = {"budget_seconds": 2 * BUDGET, "timeout_seconds": 60.0}
    with Daemon(tmp_path, SLOW, dns=dns, milter={"workers": 1}, **sections) as daemon:
        daemon.nameserver.drop = {DEAD, "_dmarc.other.org", "_dmarc.org"}
        octets = sign_rsa(MESSAGE, domain="other.org", include_headers=[b"from"])
        with daemon.mta() as mta:
            began = time.monotonic()
            greet(mta)
            before = time.monotonic() - began
            text = results(send(mta, octets, path="joe@esp.example"))
            took = time.monotonic() - began
            assert "dmarc=" in text
            assert took < 2 * BUDGET + SLACK, (before, text)
            if sections:
                assert before < BUDGET + SLACK / 2, "the end of the message has the other half"
            assert "dkim=pass" in text, "it has time for the keys"
            began = time.monotonic()
            send(mta, octets, path="joe@esp.example", queue="4DEF")
            assert time.monotonic() - began > BUDGET, "the next message has as much"


def test_a_dead_nameserver_is_a_temperror_before_the_budget_is_spent(tmp_path: Path) -> None:
    dns = {"nameservers": (closed_port(),), "budget_seconds": 30.0, "timeout_seconds": 1.0}
    with Daemon(tmp_path, dns=dns) as daemon:
        text, took = timed(daemon)
        assert "dmarc=temperror" in text
        assert took < 15


def test_a_dead_nameserver_and_its_return_are_logged(tmp_path: Path) -> None:
    with Daemon(tmp_path, ROWS, dns={"timeout_seconds": 0.3}, milter={"workers": 1}) as daemon:
        address = "{}:{}".format(*daemon.nameserver.address)
        daemon.nameserver.drop = True
        timed(daemon)
        timed(daemon)
        log = daemon.wait_for_log(f"WARNING: nameserver {address} did not answer within ")
        assert log.count("WARNING: nameserver") == 1, "once"
        daemon.nameserver.drop = False
        deadline = time.monotonic() + PATIENCE
        while f"WARNING: nameserver {address} answers again" not in daemon.log():
            assert time.monotonic() < deadline, daemon.log()
            timed(daemon)
            time.sleep(0.5)


@pytest.mark.parametrize(("dmarc", "code"), [({}, 451), ({"temperror": "accept"}, 250)], ids=["default", "accepted"])
def test_a_temporary_error_never_rejects(tmp_path: Path, dmarc: dict[str, str], code: int) -> None:
    refusing = {"reject": "reject"} | dmarc
    sections = {"iprev": {"fail": "reject"}, "spf": {"mailfrom": {"fail": "reject"}}, "dmarc": refusing}
    with Daemon(tmp_path, ROWS, **sections) as daemon:
        daemon.nameserver.rcodes = dict.fromkeys((*ROWS, "_spf.example.org"), "SERVFAIL")
        with daemon.mta() as mta:
            greet(mta, BAD)
            outcome = send(mta)
        assert outcome.code == code
        assert code != 250 or "dmarc=temperror" in results(outcome)


@pytest.mark.parametrize("delay", [0.25])
def test_methods_run_in_parallel(tmp_path: Path, delay: float) -> None:
    # IPREV asks PTR then A, SPF one TXT, DKIM one TXT, DMARC one batch: two round trips are the longest chain. One
    # after another they would take seven.
    with Daemon(tmp_path, ROWS, dns={"timeout_seconds": 5.0, "budget_seconds": 20.0}) as daemon:
        daemon.nameserver.delay = delay
        text, took = timed(daemon, sign_rsa(MESSAGE, include_headers=[b"from"]))
        for method in ("iprev=pass", "spf=pass", "dkim=pass", "dmarc=pass"):
            assert method in text
        assert 2 * delay <= took < 4.5 * delay


def test_lookups_start_as_soon_as_their_input_arrives(tmp_path: Path) -> None:
    with Daemon(tmp_path, ROWS, dns={"timeout_seconds": 5.0, "budget_seconds": 20.0}) as daemon:
        daemon.nameserver.delay = 0.3
        with daemon.mta() as mta:
            greet(mta)
            mta.mail("joe@example.org", j=OUR_ID)
            mta.rcpt("ann@example.net")
            for one in split_message(sign_rsa(MESSAGE, include_headers=[b"from"]))[0]:
                mta.header(one)
            time.sleep(1.5)  # a client that sends the body slowly
            mta.command(b"N", b"", {})
            mta.command(b"B", split_message(MESSAGE)[1], {})
            began = time.monotonic()
            assert "dmarc=pass" in results(mta.end_of_message(i="4ABC"))
            assert time.monotonic() - began < 0.25, "no query is left for the end of the message"


def test_a_query_is_sent_once_and_its_answer_shared(tmp_path: Path) -> None:
    with Daemon(tmp_path, ROWS, milter={"workers": 1}) as daemon:
        for _ in range(3):
            assert "dmarc=pass" in timed(daemon)[0]
        assert daemon.nameserver.count("_dmarc.example.org", "TXT") == 1
        assert daemon.nameserver.count("1.2.0.192.in-addr.arpa", "PTR") == 1


def test_a_zone_file_answers_before_the_dns(tmp_path: Path) -> None:
    zone = tmp_path / "zone"
    zone.write_text('_dmarc.nothing.example. TXT "v=DMARC1; p=reject"\n')
    with Daemon(tmp_path, ROWS, dns={"zone": str(zone)}, dmarc={"reject": "reject"}) as daemon, daemon.mta() as mta:
        greet(mta)
        assert send(mta, message("a@nothing.example")).code == 550
        assert send(mta).code == 250
