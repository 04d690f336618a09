# SPDX-License-Identifier: GPL-3.0-or-later
"""Nameservers over TLS and HTTPS, tested with a real unbound: answers, certificates, failover and restarts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from assay.inquiry import Answer, Inquiry, Outcome, Question, RecordType
from assay.resolver import Resolver, configured, contexts
from assay.resolver.authority import Authority
from assay.resolver.encrypted import CONNECTIONS
from assay.resolver.streams import MAX_ANSWER
from certificates import CertificateAuthority
from nameserver import NameServer, closed_port
from unbound import MISSING, PROGRAM, Unbound

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=MISSING)

NAME = "dns.example.net"
ROWS: dict[str, Any] = {
    "example.org": [["A", "192.0.2.1"], ["TXT", ["v=spf1 ", "-all"]]],
    "long.example.org": [["TXT", ["x" * 200] * 30]],
    "huge.example.org": [["TXT", ["y" * 200] * 120]],
    **{f"n{number}.example.org": [["A", "192.0.2.2"]] for number in range(300)},
}
SCHEMES = ["tls", "https"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def upstream() -> Iterator[NameServer]:
    with NameServer(ROWS) as server:
        yield server


@pytest.fixture(scope="module")
def unbound(
    authority: CertificateAuthority, upstream: NameServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Unbound]:
    with Unbound(tmp_path_factory.mktemp("unbound"), upstream, authority.issue([NAME])) as server:
        yield server


def text(server: Unbound, scheme: str, name: str = NAME, path: str = "/dns-query") -> str:
    name = f"#{name}" if name else ""
    return f"tls://127.0.0.1:{server.tls}{name}" if scheme == "tls" else f"https://127.0.0.1:{server.https}{path}{name}"


@contextmanager
def asking(authority: CertificateAuthority, *texts: str, patience: float = 5.0) -> Iterator[tuple[Resolver, list[str]]]:
    servers = configured(texts)
    log: list[str] = []
    made = contexts(servers, str(authority.certificate))
    with Resolver(servers, contexts=made, patience=patience, tell=log.append) as resolver:
        yield resolver, log


def ask(*names: str, kind: RecordType = RecordType.A) -> Inquiry[list[Answer]]:
    answers = yield [Question(name, kind) for name in names]
    return list(answers)


def one(resolver: Resolver, name: str = "example.org", kind: RecordType = RecordType.A) -> Answer:
    (answer,) = resolver.driver(20.0).start(ask(name, kind=kind)).result()
    return answer


@pytest.mark.parametrize("scheme", SCHEMES)
def test_answers_of_any_length_arrive_over_one_connection(
    scheme: str, unbound: Unbound, authority: CertificateAuthority
) -> None:
    with asking(authority, text(unbound, scheme)) as (resolver, log):
        assert one(resolver).records == (ip_address("192.0.2.1"),)
        assert one(resolver, kind=RecordType.TXT).records == (b"v=spf1 -all",)
        assert one(resolver, "long.example.org", RecordType.TXT).records == (b"x" * 6000,)
        assert one(resolver, "absent.example.org").outcome is Outcome.NXDOMAIN
        assert resolver.statistics.handshakes == 1
        assert resolver.statistics.queries == resolver.statistics.streams == 0, "nothing is asked in the clear"
    assert log == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_answer_beyond_the_bound_fails_alone(scheme: str, unbound: Unbound, authority: CertificateAuthority) -> None:
    with asking(authority, text(unbound, scheme)) as (resolver, _):
        answer = one(resolver, "huge.example.org", RecordType.TXT)
        assert (answer.outcome, f"has an answer of more than {MAX_ANSWER} octets" in answer.reason) == (
            Outcome.TEMPFAIL,
            True,
        )
        assert one(resolver).outcome is Outcome.FOUND
        assert resolver.statistics.handshakes == 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_three_hundred_questions_at_a_time_are_pipelined(
    scheme: str, unbound: Unbound, authority: CertificateAuthority
) -> None:
    with asking(authority, text(unbound, scheme)) as (resolver, _):
        pending = [
            resolver.driver(20.0).start(ask(*(f"n{n}.example.org" for n in range(at, at + 30))))
            for at in range(0, 300, 30)
        ]
        answers = [answer for inquiry in pending for answer in inquiry.result()]
        assert [answer.outcome for answer in answers] == [Outcome.FOUND] * 300
        assert resolver.statistics.handshakes <= CONNECTIONS


WRONG = {
    "wrong name": ([NAME], False, "other.example.net", "certificate is not valid for 'other.example.net'"),
    "no name, and not for the address": ([NAME], False, "", "certificate is not valid for '127.0.0.1'"),
    "expired": ([NAME], True, NAME, "certificate has expired"),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("names", "expired", "wanted", "reason"), WRONG.values(), ids=WRONG)
def test_a_server_without_a_valid_certificate_is_not_asked(
    names: list[str],
    expired: bool,
    wanted: str,
    reason: str,
    scheme: str,
    authority: CertificateAuthority,
    upstream: NameServer,
    tmp_path: Path,
) -> None:
    before = upstream.count()
    with (
        Unbound(tmp_path, upstream, authority.issue(names, expired=expired)) as server,
        asking(authority, text(server, scheme, wanted), patience=0.5) as (resolver, log),
    ):
        answer = one(resolver)
        assert answer.outcome is Outcome.TEMPFAIL
        assert reason in answer.reason
        assert len(log) == 1
        assert log[0].startswith(f"nameserver {text(server, scheme, wanted)} has no valid certificate (")
    assert upstream.count() == before


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_certificate_of_an_untrusted_authority_is_not_valid(
    scheme: str, authority: CertificateAuthority, unbound: Unbound, tmp_path: Path
) -> None:
    with asking(CertificateAuthority(tmp_path, "another"), text(unbound, scheme), patience=0.5) as (resolver, _):
        answer = one(resolver)
    assert answer.outcome is Outcome.TEMPFAIL
    assert "has no valid certificate (unable to get local issuer certificate)" in answer.reason


@pytest.mark.parametrize("scheme", SCHEMES)
def test_without_a_name_the_certificate_must_be_for_the_address(
    scheme: str, authority: CertificateAuthority, upstream: NameServer, tmp_path: Path
) -> None:
    with (
        Unbound(tmp_path, upstream, authority.issue(["127.0.0.1"])) as server,
        asking(authority, text(server, scheme, "")) as (resolver, _),
    ):
        assert one(resolver).outcome is Outcome.FOUND


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_restart_of_the_server_fails_no_lookup_and_is_verified_anew(
    scheme: str, authority: CertificateAuthority, upstream: NameServer, tmp_path: Path
) -> None:
    with (
        Unbound(tmp_path, upstream, authority.issue([NAME])) as server,
        asking(authority, text(server, scheme), patience=1.0) as (resolver, log),
    ):
        assert one(resolver, "n1.example.org").outcome is Outcome.FOUND
        server.stop()
        pending = resolver.driver(20.0).start(ask("n2.example.org"))
        time.sleep(0.3)
        server.start()
        assert [answer.outcome for answer in pending.result()] == [Outcome.FOUND]
        server.stop()
        server.pair = authority.issue(["other.example.net"])
        server.start()
        assert "has no valid certificate" in one(resolver, "n3.example.org").reason
    assert any("answers again" in line for line in log)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_dead_encrypted_server_is_replaced_by_the_next_one_that_is_listed(
    scheme: str, authority: CertificateAuthority, unbound: Unbound
) -> None:
    dead = f"tls://{closed_port()}#{NAME}"
    with asking(authority, dead, text(unbound, scheme), f"127.0.0.1:{unbound.plain}") as (resolver, log):
        assert one(resolver).outcome is Outcome.FOUND
        assert one(resolver, "n5.example.org").outcome is Outcome.FOUND
        assert resolver.statistics.queries == 0, "the plain one is the last"
        assert [line for line in log if line.startswith(f"nameserver {dead} could not be asked")]
    with asking(authority, dead, f"127.0.0.1:{unbound.plain}") as (resolver, _):
        assert one(resolver).outcome is Outcome.FOUND


def test_a_port_that_speaks_no_tls_is_reported_as_such(authority: CertificateAuthority, unbound: Unbound) -> None:
    with asking(authority, f"tls://127.0.0.1:{unbound.plain}#{NAME}", patience=0.5) as (resolver, log):
        assert one(resolver).outcome is Outcome.TEMPFAIL
    assert len(log) == 1


def test_a_wrong_path_is_reported_as_such(authority: CertificateAuthority, unbound: Unbound) -> None:
    with asking(authority, text(unbound, "https", path="/other"), patience=0.5) as (resolver, log):
        assert "answered HTTP status 404; check path and name" in one(resolver).reason
    assert len(log) == 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_slow_names_do_not_harm_the_others(scheme: str, authority: CertificateAuthority, tmp_path: Path) -> None:
    # unbound works on 32 queries of a connection at a time, and closes a connection with an answer that is too late.
    slow = [f"slow{number}.example.org" for number in range(120)]
    with (
        NameServer({name: [["A", "192.0.2.3"]] for name in slow} | ROWS, delays=dict.fromkeys(slow, 2.5)) as upstream,
        Unbound(tmp_path, upstream, authority.issue([NAME])) as server,
        asking(authority, text(server, scheme)) as (resolver, _),
    ):
        answers = []
        for number in range(60):
            resolver.driver(20.0).start(ask(*slow[2 * number : 2 * number + 2]))
            answers.append(one(resolver, f"n{number}.example.org"))
            time.sleep(0.05)
    assert [answer.reason for answer in answers if answer.reason] == []


def test_zones_are_found_through_an_encrypted_resolver_and_never_in_the_clear(
    authority: CertificateAuthority, unbound: Unbound
) -> None:
    servers = configured([text(unbound, "tls")])
    made = contexts(servers, str(authority.certificate))
    (answer,) = Authority(servers, contexts=made, patience=2.0).texts("example.org")
    assert answer.reason == "no zone found: the nameservers do not know the root", "the test has no zones, but answers"
    servers = configured([text(unbound, "tls", "other.example.net")])
    (answer,) = Authority(servers, contexts=contexts(servers, str(authority.certificate))).texts("example.org")
    assert "certificate" in answer.reason
    servers = configured([text(unbound, "https")])
    (answer,) = Authority(servers, contexts={}).texts("example.org")
    assert "name servers in keys.nameservers" in answer.reason
