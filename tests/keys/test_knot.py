# SPDX-License-Identifier: GPL-3.0-or-later
"""With a real authoritative server and its secondary: what is published, updates, and a whole rotation."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assay.cli.main import main
from assay.inquiry import Outcome
from assay.keyring import Directory
from assay.protocol import dkim
from assay.resolver.authority import Authority, UnknownZoneError
from assay.resolver.nameservers import Nameserver
from assay.resolver.update import UpdateError, Updater, read_tsig
from knot import SECRET, TSIG, Knot, needs_knot, zone_text
from nameserver import NameServer
from signing import rsa_key

pytestmark = needs_knot

TEXTS = [f'many._domainkey TXT "{"x" * 250}{number}"' for number in range(8)]
ZONES = {
    "example.org": zone_text(
        "example.org",
        'r1._domainkey TXT "v=DKIM1; k=rsa; " "p=AAAA"',
        "alias._domainkey CNAME r1.dkim.example.net.",
        "inner._domainkey CNAME r1._domainkey",
        "loop._domainkey CNAME loop2._domainkey",
        "loop2._domainkey CNAME loop._domainkey",
        "far._domainkey CNAME r1._domainkey.unknown.example.",
        *TEXTS,
    ),
    "dkim.example.net": zone_text("dkim.example.net", 'r1 TXT "v=DKIM1; p=BBBB"'),
    "lame.example": zone_text("lame.example", "@ NS ns3", "ns3 A 127.0.0.3", 'r1._domainkey TXT "v=DKIM1; p=CCCC"'),
    "empty.example": zone_text("empty.example", "@ NS nowhere.example.org."),
}


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Knot]:
    with Knot(tmp_path_factory.mktemp("primary"), ZONES) as server:
        yield server


@pytest.fixture(scope="module")
def secondary(primary: Knot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Knot]:
    zones = {name: "" for name in ZONES if name != "lame.example"}
    with Knot(tmp_path_factory.mktemp("secondary"), zones, of=primary) as server:
        yield server


@pytest.fixture
def authority(primary: Knot, secondary: Knot) -> Authority:
    return Authority([Nameserver(primary.address, primary.port)], patience=2.0, port=primary.port)


NS1, NS2 = "ns1.example.org (127.0.0.1)", "ns2.example.org (127.0.0.2)"


class TestAuthority:
    def test_each_server_is_asked(self, authority: Authority) -> None:
        answers = authority.texts("r1._domainkey.example.org")
        assert [(one.server, one.outcome, one.texts) for one in answers] == [
            (NS1, Outcome.FOUND, (b"v=DKIM1; k=rsa; p=AAAA",)),
            (NS2, Outcome.FOUND, (b"v=DKIM1; k=rsa; p=AAAA",)),
        ]

    def test_a_name_that_is_not_there(self, authority: Authority) -> None:
        answers = authority.texts("r9._domainkey.example.org")
        assert [(one.server, one.outcome) for one in answers] == [(NS1, Outcome.NXDOMAIN), (NS2, Outcome.NXDOMAIN)]
        assert {one.outcome for one in authority.texts("_domainkey.example.org")} == {Outcome.NODATA}

    def test_an_alias_is_followed_to_the_servers_of_its_zone(self, authority: Authority) -> None:
        answers = authority.texts("alias._domainkey.example.org")
        assert [(one.server, one.texts) for one in answers] == [
            ("ns1.dkim.example.net (127.0.0.1)", (b"v=DKIM1; p=BBBB",)),
            ("ns2.dkim.example.net (127.0.0.2)", (b"v=DKIM1; p=BBBB",)),
        ]

    def test_an_alias_inside_the_zone(self, authority: Authority) -> None:
        answers = authority.texts("inner._domainkey.example.org")
        assert [one.texts for one in answers] == [(b"v=DKIM1; k=rsa; p=AAAA",)] * 2

    def test_aliases_in_a_circle_end(self, authority: Authority) -> None:
        answers = authority.texts("loop._domainkey.example.org")
        assert {one.outcome for one in answers} == {Outcome.TEMPFAIL}

    def test_an_alias_that_leads_nowhere_is_a_fault_and_not_a_missing_record(self, authority: Authority) -> None:
        (answer,) = authority.texts("far._domainkey.example.org")
        assert answer.outcome is Outcome.TEMPFAIL
        assert "REFUSED" in answer.reason

    def test_an_answer_that_is_too_long_for_udp(self, authority: Authority) -> None:
        answers = authority.texts("many._domainkey.example.org")
        assert [(one.truncated, len(one.texts)) for one in answers] == [(True, 8), (True, 8)]

    def test_a_server_that_does_not_know_the_zone(self, authority: Authority) -> None:
        found = {one.server: (one.outcome, one.reason) for one in authority.texts("r1._domainkey.lame.example")}
        assert found.pop("ns1.lame.example (127.0.0.1)") == (Outcome.FOUND, "")
        assert found.pop("ns2.lame.example (127.0.0.2)") == (Outcome.TEMPFAIL, "answered REFUSED")
        ((server, (outcome, reason)),) = found.items()
        assert server == "ns3.lame.example (127.0.0.3)"
        assert outcome is Outcome.TEMPFAIL
        assert reason in ("does not answer", "could not be asked (Connection refused)")

    def test_a_server_that_knows_the_record_from_others_does_not_count(self) -> None:
        with NameServer({"r1._domainkey.example.org": [["TXT", ["v=DKIM1; p=AAAA"]]]}) as cache:
            (answer,) = Authority([], servers=[Nameserver(*cache.address)]).texts("r1._domainkey.example.org")
        assert (answer.outcome, answer.reason) == (Outcome.TEMPFAIL, "is not authoritative for the name")

    def test_a_server_without_an_address(self, authority: Authority) -> None:
        reasons = {one.server: one.reason for one in authority.texts("r1._domainkey.empty.example")}
        assert reasons["nowhere.example.org"] == "has no address"

    def test_a_server_that_only_another_network_reaches(
        self, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It counts as silent, unless the same server has an address that answers."""
        ask = Authority._ask

        def without_second(self: Authority, one: Any, name: Any) -> object:
            return None if "127.0.0.2" in str(one) else ask(self, one, name)

        monkeypatch.setattr(Authority, "_ask", without_second)
        answers = {one.server: one.reason for one in authority.texts("r1._domainkey.example.org")}
        assert answers == {NS1: "", NS2: "this host has no route to it"}

    def test_servers_that_the_operator_names(self, primary: Knot, secondary: Knot) -> None:
        servers = [Nameserver(one.address, one.port) for one in (primary, secondary)]
        answers = Authority([], servers=servers).texts("r1._domainkey.example.org")
        assert [(one.server, one.texts) for one in answers] == [
            (primary.text, (b"v=DKIM1; k=rsa; p=AAAA",)),
            (secondary.text, (b"v=DKIM1; k=rsa; p=AAAA",)),
        ]

    def test_a_resolver_that_is_not_there(self) -> None:
        (answer,) = Authority([Nameserver("127.0.0.1", 9)], patience=0.3).texts("r1._domainkey.example.org")
        assert (answer.server, answer.outcome) == ("DNS", Outcome.TEMPFAIL)
        assert answer.reason.startswith("nameserver 127.0.0.1:9: ")
        (answer,) = Authority([]).texts("r1._domainkey.example.org")
        assert "name the servers to ask in keys.nameservers" in answer.reason

    @pytest.mark.parametrize(
        ("name", "zone"),
        [("example.org", "example.org"), ("a.b._domainkey.example.org", "example.org"), ("dkim.example.net",) * 2],
    )
    def test_the_zone_of_a_name(self, authority: Authority, name: str, zone: str) -> None:
        assert authority.zone(name) == zone

    def test_a_name_in_no_zone(self, authority: Authority) -> None:
        with pytest.raises(UnknownZoneError):
            authority.zone("r1.nowhere.test")


def tsig_file(folder: Path, text: str = TSIG) -> Path:
    path = folder / "tsig"
    path.touch(0o600)
    path.write_text(text)
    return path


class TestUpdate:
    NAME = "new._domainkey.example.org"
    LONG = dkim.split_strings(dkim.record_of(rsa_key()))

    @pytest.fixture
    def updater(self, primary: Knot, tmp_path: Path) -> Iterator[Updater]:
        made = Updater(Nameserver(primary.address, primary.port), "example.org", read_tsig(tsig_file(tmp_path)))
        yield made
        made.remove(self.NAME, self.LONG)

    def test_a_record_is_added_and_removed_each_once(self, updater: Updater, authority: Authority) -> None:
        for _ in range(2):
            updater.add(self.NAME, self.LONG, 300)
            assert authority.texts(self.NAME)[0].texts == ("".join(self.LONG).encode(),)
        for _ in range(2):
            updater.remove(self.NAME, self.LONG)
            assert authority.texts(self.NAME)[0].outcome is Outcome.NXDOMAIN

    def test_a_record_that_assay_did_not_make_stays(self, updater: Updater, authority: Authority) -> None:
        for name in ("r1._domainkey.example.org", "alias._domainkey.example.org"):
            with pytest.raises(UpdateError, match="has another TXT record or a CNAME; remove it, or use another"):
                updater.add(name, self.LONG, 300)
        updater.remove("r1._domainkey.example.org", self.LONG)
        assert authority.texts("r1._domainkey.example.org")[0].texts == (b"v=DKIM1; k=rsa; p=AAAA",)

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            (TSIG.replace('"assay"', '"nobody"'), "does not accept the TSIG key nobody: it does not know the name"),
            (TSIG.replace(SECRET, "AAAA"), "does not accept the TSIG key assay: its secret is another one"),
            (
                TSIG.replace('"assay"', '"powerless"'),
                "does not accept the TSIG key powerless: .* does not let the key change",
            ),
        ],
        ids=["unknown", "wrong secret", "powerless"],
    )
    def test_a_key_that_the_server_does_not_accept(self, primary: Knot, tmp_path: Path, text: str, why: str) -> None:
        key = read_tsig(tsig_file(tmp_path, text))
        with pytest.raises(UpdateError, match=why):
            Updater(Nameserver(primary.address, primary.port), "example.org", key).add(self.NAME, ("x",), 300)

    def test_the_key_changes_nothing_else(self, updater: Updater) -> None:
        """With the settings of docs/keys.md."""
        with pytest.raises(UpdateError, match="does not let the key change this record"):
            updater.add("www.example.org", ("v=spf1 -all",), 300)

    def test_a_name_of_another_zone(self, primary: Knot, tmp_path: Path) -> None:
        key = read_tsig(tsig_file(tmp_path, TSIG.replace('"assay"', '"unlimited"')))
        updater = Updater(Nameserver(primary.address, primary.port), "example.org", key)
        with pytest.raises(
            UpdateError, match=r"NOTZONE to the update of r1\.example\.net in example\.org; the name is not"
        ):
            updater.add("r1.example.net", ("x",), 300)

    def test_a_zone_that_the_server_does_not_have(self, primary: Knot, tmp_path: Path) -> None:
        key = read_tsig(tsig_file(tmp_path))
        with pytest.raises(UpdateError, match=r"answered without TSIG; name the primary server of example\.com"):
            Updater(Nameserver(primary.address, primary.port), "example.com", key).add("a.example.com", ("x",), 300)

    def test_a_server_that_is_not_there(self, tmp_path: Path) -> None:
        key = read_tsig(tsig_file(tmp_path))
        with pytest.raises(UpdateError, match=r"127\.0\.0\.1:9 could not be asked \(Connection refused\)"):
            Updater(Nameserver("127.0.0.1", 9), "example.org", key).add(self.NAME, ("x",), 300)


class TestRotation:
    """`assay keys` from the first key to the removal of its record. The clock is ours, all else is real."""

    @pytest.fixture
    def configuration(self, primary: Knot, secondary: Knot, tmp_path: Path) -> Path:
        (tmp_path / "keys").mkdir(mode=0o750)
        path = tmp_path / "assay.toml"
        path.write_text(
            f'[dns]\nnameservers = ["{primary.text}"]\ntimeout_seconds = 1.0\n'
            f'[keys]\ndirectory = "{tmp_path}/keys"\nnameservers = ["{primary.text}", "{secondary.text}"]\n'
            f'update_server = "{primary.text}"\ntsig_file = "{tsig_file(tmp_path)}"\ntypes = ["rsa", "ed25519"]\n'
        )
        return path

    def keys(self, configuration: Path, *arguments: str, days: float = 0) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("assay.cli.key_command.time", SimpleNamespace(time=lambda: 1_790_000_000 + days * 86_400))
            return main(["keys", *arguments, "-c", str(configuration)])

    def states(self, configuration: Path) -> dict[str, str]:
        ring = Directory(configuration.parent / "keys" / "example.org").load()
        return {key.selector: "gone" if key.gone else key.state for key in ring.keys}

    def test_a_key_from_its_making_to_the_removal_of_its_record(
        self, configuration: Path, secondary: Knot, capsys: pytest.CaptureFixture[str]
    ) -> None:
        secondary.stop()
        try:
            assert self.keys(configuration, "create", "example.org") == 0
            assert set(self.states(configuration).values()) == {"pending"}
            out = capsys.readouterr().out
            assert "publish r20260921" in out
            assert f"{secondary.text}: does not answer" in out
            assert self.keys(configuration, "check") == 0, "a pending key signs nothing"
        finally:
            secondary.start()
        secondary.wait_for("e20260921._domainkey.example.org", "TXT")
        secondary.wait_for("r20260921._domainkey.example.org", "TXT")
        assert self.keys(configuration, "rotate", "--due") == 0
        assert self.states(configuration) == {"r20260921": "active", "e20260921": "active"}
        capsys.readouterr()
        assert self.keys(configuration, "check") == 0
        assert "r20260921._domainkey.example.org (active): every authoritative server" in capsys.readouterr().out

        self.keys(configuration, "rotate", "--due", days=180)
        for kind in "re":
            secondary.wait_for(f"{kind}20270320._domainkey.example.org", "TXT")
        self.keys(configuration, "rotate", "--due", days=180)
        assert list(self.states(configuration).values()) == ["retiring", "retiring", "active", "active"]
        self.keys(configuration, "rotate", "--due", days=187)
        for kind in "re":
            secondary.wait_for(f"{kind}20260921._domainkey.example.org", "TXT", gone=True)
        self.keys(configuration, "rotate", "--due", days=188)
        assert list(self.states(configuration).values()) == ["gone", "gone", "active", "active"]
        capsys.readouterr()
        self.keys(configuration, "rotate", "--due", days=188)
        assert "".join(capsys.readouterr()) == "", "a timer's run says nothing if all is well"
        for kind in "re":
            assert self.keys(configuration, "retire", "example.org", f"{kind}20270320", "--at-once") == 0

    def test_a_zone_that_is_not_found_keeps_only_the_dns_from_being_changed(
        self, configuration: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The resolver is down, and the authoritative servers are not."""
        text = configuration.read_text()
        configuration.write_text(re.sub(r"(\[dns\]\nnameservers = ).*", r'\1["127.0.0.1:9"]', text))
        assert self.keys(configuration, "create", "example.org", "--type", "rsa") == 69
        assert (
            "example.org: the zone of r20260921._domainkey.example.org is not found (nameserver 127.0.0.1:9: "
            in capsys.readouterr().err
        )
        assert self.states(configuration) == {"r20260921": "pending"}
        configuration.write_text(text)
        assert self.keys(configuration, "rotate", "--due") == 0
        assert self.keys(configuration, "retire", "example.org", "r20260921") == 0

    def test_a_wrong_tsig_key_changes_nothing_and_says_so(
        self, configuration: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tsig_file(configuration.parent, TSIG.replace(SECRET, "AAAA"))
        started = time.monotonic()
        assert self.keys(configuration, "create", "example.org", "--type", "rsa") == 69
        assert "does not accept the TSIG key assay" in capsys.readouterr().err
        assert self.states(configuration) == {"r20260921": "pending"}
        assert time.monotonic() - started < 15
