# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys on disk: a rotation from the first key to the last, stopped anywhere and continued; files that are broken."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import time
import tracemalloc
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay import files
from assay.inquiry import Outcome
from assay.keyring import Directory, KeyringError
from assay.keyring import material as keymaterial
from assay.keyring.directory import Signers
from assay.keyring.material import read_foreign, to_pem
from assay.keyring.publisher import CommandPublisher, NoPublisher, Publisher, PublishError
from assay.keyring.run import Report, advance
from assay.keys.published import ServerAnswer
from assay.keys.rotation import DAY, KeyState, KeyType, Schedule, retire
from assay.model.name import Domain
from assay.protocol import dkim
from signing import ed25519_key, pem, rsa_key

NOW = 1_790_000_000
DOMAIN = Domain("example.org")
BOTH = Schedule((KeyType.RSA, KeyType.ED25519), 180 * DAY, 7 * DAY)


class Dns:
    """Two authoritative servers. What is published is at the first at once, and at the second after `transfer`."""

    def __init__(self) -> None:
        self.first: dict[str, str] = {}
        self.second: dict[str, str] = {}
        self.changes: list[tuple[str, str]] = []

    def publish(self, name: str, record: str) -> bool:
        self.changes.append(("add", name))
        self.first[name] = record
        return True

    def withdraw(self, name: str, record: str) -> bool:
        self.changes.append(("remove", name))
        self.first.pop(name, None)
        return True

    def transfer(self) -> None:
        self.second = dict(self.first)

    def ask(self, name: str) -> list[ServerAnswer]:
        return [
            ServerAnswer(server, Outcome.FOUND, (rows[name].encode(),))
            if name in rows
            else ServerAnswer(server, Outcome.NXDOMAIN)
            for server, rows in (("ns1", self.first), ("ns2", self.second))
        ]


@pytest.fixture(autouse=True)
def quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making an RSA key takes a second: take those of a pool, each once."""
    pool = iter([rsa_key(1024), rsa_key(1032), rsa_key(1040), rsa_key(1048), rsa_key(1056), rsa_key(1064)] * 50)

    def make(kind: KeyType, bits: int = 2048) -> dkim.PrivateKey:
        return next(pool) if kind is KeyType.RSA else Ed25519PrivateKey.generate()

    monkeypatch.setattr("assay.keyring.run.make", make)


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    tmp_path.chmod(0o750)
    made = Directory(tmp_path / "example.org")
    made.begin(DOMAIN)
    return made


def run(directory: Directory, dns: Dns, now: int, publisher: Publisher | None = None) -> Report:
    return advance(directory, BOTH, dns.ask, publisher or dns, now)


def states(directory: Directory) -> dict[str, str]:
    return {key.selector: str(key.state) for key in directory.load().keys}


def test_a_rotation_from_the_first_key_to_the_last(directory: Directory) -> None:
    dns = Dns()
    report = run(directory, dns, NOW)
    assert states(directory) == {"r20260921": "pending", "e20260921": "pending"}
    assert "not every authoritative server answers with it" in report.waiting[0].why
    assert directory.signing() == Signers("example.org", (), ())
    dns.transfer()
    run(directory, dns, NOW + DAY)
    assert states(directory) == {"r20260921": "active", "e20260921": "active"}
    assert [key.selector for key, _ in directory.signing().active] == ["r20260921", "e20260921"]

    later = NOW + 181 * DAY
    run(directory, dns, later)
    assert states(directory) == {
        "r20260921": "active", "e20260921": "active", "r20270321": "pending", "e20270321": "pending"
    }  # fmt: skip
    dns.transfer()
    run(directory, dns, later + DAY)
    run(directory, dns, later + 8 * DAY - 1)
    assert states(directory) == {
        "r20260921": "retiring", "e20260921": "retiring", "r20270321": "active", "e20270321": "active"
    }  # fmt: skip
    assert [key.selector for key, _ in directory.signing().retiring] == ["r20260921", "e20260921"]
    directory.key_file("r20260921").write_bytes(b"broken")
    assert [key.selector for key, _ in directory.signing().retiring] == ["e20260921"], "no mail needs it"
    assert len(dns.first) == 4
    run(directory, dns, later + 8 * DAY)
    assert states(directory)["r20260921"] == "retired"
    assert sorted(dns.first) == ["e20270321._domainkey.example.org", "r20270321._domainkey.example.org"]
    assert sorted(path.name for path in directory.path.glob("*.pem")) == ["e20270321.pem", "r20270321.pem"]
    assert not directory.load().keys[0].gone, "the second server still has it"
    dns.transfer()
    run(directory, dns, later + 9 * DAY)
    assert directory.load().keys[0].gone
    assert run(directory, dns, later + 10 * DAY).taken == ()


def test_a_run_that_is_repeated_changes_nothing(directory: Directory) -> None:
    dns = Dns()
    run(directory, dns, NOW)
    before = directory.state.read_bytes()
    for _ in range(3):
        run(directory, dns, NOW)
        assert directory.state.read_bytes() == before
    assert dns.changes.count(("add", "r20260921._domainkey.example.org")) == 4, "once a run, until it is seen"


def test_without_a_publisher_the_operator_is_asked_to_publish(directory: Directory) -> None:
    dns = Dns()
    report = run(directory, dns, NOW, NoPublisher())
    assert [(step.act, step.selector) for step in report.by_hand] == [
        ("publish", "r20260921"),
        ("publish", "e20260921"),
    ]
    assert run(directory, dns, NOW, NoPublisher()).by_hand == report.by_hand


class StoppedError(BaseException):
    """The machine lost its power."""


class Power:
    """Fails before or after the nth operation that writes, and at all that follow."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, left: int, *more: tuple[Any, str]) -> None:
        self.left = left
        self.done = False
        for module, name in ((os, "rename"), (os, "unlink"), (Path, "unlink"), (files, "sync"), *more):
            self._wrap(monkeypatch, module, name)

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(module, name)

        def operation(*arguments: Any, **options: Any) -> Any:
            self.spend()
            result = real(*arguments, **options)
            self.spend()
            return result

        monkeypatch.setattr(module, name, operation)

    def spend(self) -> None:
        if self.left <= 0:
            self.done = True
            raise StoppedError
        self.left -= 1


class Unsteady(Dns):
    """Its changes may be the last thing that happens."""

    power: Power | None = None

    def publish(self, name: str, record: str) -> bool:
        done = super().publish(name, record)
        if self.power is not None:
            self.power.spend()
        return done

    def withdraw(self, name: str, record: str) -> bool:
        done = super().withdraw(name, record)
        if self.power is not None:
            self.power.spend()
        return done


def days() -> Iterator[int]:
    """The times at which the timer runs: the first key, its activation, its successor, and the end of the overlap."""
    for day in (0, 1, 181, 182, 190, 191):
        yield NOW + day * DAY


def life(directory: Directory, dns: Unsteady, until: int) -> None:
    for moment in days():
        if moment > until:
            return
        run(directory, dns, moment)
        dns.transfer()


@pytest.mark.parametrize("moment", list(days()), ids=lambda moment: f"day {(moment - NOW) // DAY}")
def test_a_run_stopped_after_any_write_is_continued_by_the_next(tmp_path: Path, moment: int) -> None:
    """For each run of a life: stop it after each of its writes in turn, then let the timer run again."""
    tmp_path.chmod(0o750)
    before, dns_before = Directory(tmp_path / "before"), Unsteady()
    before.begin(DOMAIN)
    life(before, dns_before, moment - 1)
    signed = {key.type for key, _ in before.signing().active}
    expected, dns_expected = copied(before, dns_before, tmp_path / "whole")
    settle(expected, dns_expected, moment)
    stops = 0
    while True:
        directory, dns = copied(before, dns_before, tmp_path / f"stopped-{stops}")
        with pytest.MonkeyPatch.context() as patch:
            dns.power = power = Power(patch, stops)
            with contextlib.suppress(StoppedError):
                run(directory, dns, moment)
        dns.power = None
        # What the daemon would load now is whole: each key fits its record, and nothing that signed has been lost.
        active = directory.signing().active
        assert signed <= {key.type for key, _ in active}
        for key, _ in active:
            assert f"{key.selector}._domainkey.example.org" in dns.second
        settle(directory, dns, moment)
        assert facts(directory) == facts(expected)
        assert dns.first.keys() == dns_expected.first.keys()
        stops += 1
        if not power.done:
            break
    assert stops > 2


def copied(directory: Directory, dns: Unsteady, path: Path) -> tuple[Directory, Unsteady]:
    """The same directory and DNS again."""
    shutil.copytree(directory.path, path)
    other = Unsteady()
    other.first, other.second = dict(dns.first), dict(dns.second)
    return Directory(path), other


def settle(directory: Directory, dns: Unsteady, moment: int) -> None:
    """The timer runs now, and twice on the next day; the second server gets what the first has."""
    for later in (moment, moment + DAY, moment + DAY):
        run(directory, dns, later)
        dns.transfer()


def facts(directory: Directory) -> object:
    """The states and the files."""
    names = sorted(path.name for path in directory.path.iterdir())
    return [(key.selector, key.state, key.gone) for key in directory.load().keys], names


def test_a_new_directory_is_for_those_who_may_read_its_parent_whenever_a_run_stops(tmp_path: Path) -> None:
    stops = 0
    while True:
        parent = tmp_path / str(stops)
        parent.mkdir()
        parent.chmod(0o755)
        directory = Directory(parent / "example.org")
        with pytest.MonkeyPatch.context() as patch:
            power = Power(patch, stops, (os, "mkdir"), (os, "chmod"), (os, "chown"))
            with contextlib.suppress(StoppedError):
                directory.begin(DOMAIN)
        directory.begin(DOMAIN)
        assert directory.path.stat().st_mode & 0o777 == 0o750
        assert directory.load().keys == ()
        assert [path.name for path in parent.iterdir()] == ["example.org"]
        stops += 1
        if not power.done:
            break
    assert stops > 5


def test_what_a_dead_run_left_is_removed_though_nothing_is_due(directory: Directory) -> None:
    dns = Dns()
    run(directory, dns, NOW)
    ring = retire(directory.load(), "r20260921", NOW)
    directory.save(ring)
    (directory.path / f"{files.UNFINISHED}x").write_bytes(b"half a key")
    for _ in range(2):
        report = run(directory, dns, NOW, NoPublisher())
        assert {path.name for path in directory.path.iterdir()} == {
            "keys.json", "e20260921.pem", "r20260921b.pem"
        }  # fmt: skip
        (directory.path / f"{files.UNFINISHED}x").write_bytes(b"half a key")
    assert report.taken == ()


def test_a_run_waits_for_another_one(directory: Directory) -> None:
    """A timer and an operator at once: each finds what the other did."""
    dns = Dns()
    with ThreadPoolExecutor(1) as pool:
        with directory.locked():
            other = pool.submit(run, directory, dns, NOW)
            with pytest.raises(TimeoutError):
                other.result(0.3)
            assert directory.load().keys == ()
        assert len(other.result(20).taken) == 4
    assert run(directory, dns, NOW).ring == other.result().ring


def test_of_two_first_runs_one_makes_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second must not replace the states by empty ones."""
    directory, save, pause = Directory(tmp_path / "example.org"), Directory.save, Event()
    arrived = Event()

    def slow_save(self: Directory, ring: Any) -> None:
        if not ring.keys:
            arrived.set()
            assert pause.wait(20)
        save(self, ring)

    monkeypatch.setattr(Directory, "save", slow_save)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(directory.begin, DOMAIN)
        assert arrived.wait(20)
        second = pool.submit(directory.begin, DOMAIN)
        with pytest.raises(TimeoutError):
            second.result(0.3)
        pause.set()
        first.result(20)
        made = run(directory, Dns(), NOW).ring
        second.result(20)
    assert directory.load() == made


def test_a_key_that_does_not_prove_itself_is_not_listed(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.keyring.run.dkim.prove", lambda *_: "the record is that of another key")
    report = run(directory, Dns(), NOW)
    assert report.failed == tuple(
        f"{directory.key_file(name)}: the record is that of another key; remove it"
        for name in ("r20260921", "e20260921")
    )
    assert directory.load().keys == ()


def test_a_failed_publication_is_reported_and_tried_again(directory: Directory) -> None:
    class Broken(Dns):
        def publish(self, name: str, record: str) -> bool:
            raise PublishError("192.0.2.1 answered REFUSED")

    report = run(directory, Broken(), NOW)
    assert report.failed == ("192.0.2.1 answered REFUSED", "192.0.2.1 answered REFUSED")
    dns = Dns()
    run(directory, dns, NOW)
    assert len(dns.first) == 2


class TestBrokenFiles:
    @pytest.fixture
    def filled(self, directory: Directory) -> Directory:
        dns = Dns()
        run(directory, dns, NOW)
        dns.transfer()
        run(directory, dns, NOW)
        return directory

    def broken(self, directory: Directory) -> str:
        with pytest.raises(KeyringError) as caught:
            directory.signing()
        return str(caught.value)

    def test_a_key_of_another_selector(self, filled: Directory) -> None:
        path = filled.key_file("r20260921")
        path.write_bytes(pem(rsa_key()))
        assert self.broken(filled) == (
            f"{path}: not the key of which {filled.state} has the record; restore it from a backup"
        )

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"", "the file is empty"),
            (b"hello", "not a private key in PEM without a password"),
            (b"-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----\n", "not a private key in PEM"),
        ],
    )
    def test_a_broken_key(self, filled: Directory, content: bytes, why: str) -> None:
        path = filled.key_file("r20260921")
        path.write_bytes(content)
        assert self.broken(filled).startswith(f"{path}: {why}")

    def test_a_key_that_anyone_can_read(self, filled: Directory) -> None:
        path = filled.key_file("r20260921")
        path.chmod(0o644)
        assert self.broken(filled) == f"{path}: anyone can read it (mode 0644); run: chmod 0640 {path}"

    def test_a_missing_key(self, filled: Directory) -> None:
        path = filled.key_file("r20260921")
        path.unlink()
        assert self.broken(filled) == f"{path}: cannot be read: No such file or directory"

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"domain": "a b"}, "'a b' is not a domain"),
            ({"selector": "../r"}, "'../r' is not a selector"),
            ({"selector": "R1"}, "the selector 'R1' appears twice or in another spelling"),
            ({"selector": "e20260921"}, "the selector 'e20260921' appears twice"),
            ({"state": "actve"}, "not a state file (Invalid enum value 'actve'"),
            ({"since": -1}, "not a state file (Expected `int` >= 0"),
            ({"since": 1e300}, "not a state file ("),
            ({"since": "now"}, "not a state file (Expected `int`, got `str`"),
            ({"until": 5}, "not a state file (Object contains unknown field `until`"),
        ],
    )
    def test_a_state_file_that_says_nonsense(self, filled: Directory, change: dict[str, Any], why: str) -> None:
        ring = json.loads(filled.state.read_bytes())
        if "domain" in change:
            ring |= change
        else:
            ring["keys"][0] |= change
        filled.state.write_text(json.dumps(ring))
        assert self.broken(filled).startswith(f"{filled.state}: {why}")

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
    def test_a_file_that_is_not_a_state_file(self, filled: Directory, content: bytes) -> None:
        filled.state.write_bytes(content)
        assert re.fullmatch(f"{filled.state}: not .+; restore it from a backup", self.broken(filled))

    @settings(database=None, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.fixed_dictionaries(
            {"domain": st.one_of(st.just("example.org"), st.text(), st.none())},
            optional={
                "keys": st.lists(
                    st.fixed_dictionaries(
                        {"selector": st.one_of(st.sampled_from(["r1", "R1", "r1.", "é"]), st.text())},
                        optional={
                            "type": st.sampled_from(["rsa", "ed25519", "dsa"]),
                            "state": st.sampled_from(["active", "retiring", "x"]),
                            "since": st.one_of(st.integers(), st.floats(allow_nan=False)),
                            "record": st.text(),
                        },
                    ),
                    max_size=3,
                )
            },
        )
    )
    def test_any_state_file_is_read_or_refused(self, filled: Directory, content: dict[str, Any]) -> None:
        filled.state.write_text(json.dumps(content))
        with contextlib.suppress(KeyringError):
            filled.signing()

    def test_a_missing_parent_is_named_with_the_command_that_makes_it(self, tmp_path: Path) -> None:
        with pytest.raises(KeyringError, match=r"none: No such file or directory; make it for the daemon: install -d"):
            Directory(tmp_path / "none" / "example.org").begin(DOMAIN)

    def test_a_run_with_a_broken_key_activates_nothing(self, directory: Directory) -> None:
        dns = Dns()
        run(directory, dns, NOW)
        dns.transfer()
        path = directory.key_file("r20260921")
        path.write_bytes(b"hello")
        report = run(directory, dns, NOW)
        assert states(directory) == {"r20260921": "pending", "e20260921": "active"}
        assert report.failed == (f"{path}: not a private key in PEM without a password",)


class TestCommand:
    @pytest.fixture
    def program(self, tmp_path: Path) -> Path:
        path = tmp_path / "publish"
        path.write_text(
            "#!/bin/sh\n"
            f'printf "%s\\n" "$@" >>{tmp_path}/arguments\n'
            'if [ "$2" = no.example ]; then echo "looking"; printf "no \\033[31mzone\\n" >&2; exit 3; fi\n'
        )
        path.chmod(0o755)
        return path

    def test_it_gets_arguments_and_no_shell(self, program: Path) -> None:
        publisher = CommandPublisher([str(program), "--with", "a b; $(id)"], 3600)
        assert publisher.publish("r._domainkey.example.org", "v=DKIM1; p=x y")
        assert publisher.withdraw("r._domainkey.example.org", "v=DKIM1; p=x y")
        lines = (program.parent / "arguments").read_text().splitlines()
        assert lines[:6] == ["--with", "a b; $(id)", "add", "r._domainkey.example.org", "3600", "v=DKIM1; p=x y"]
        assert lines[8] == "remove"

    def test_its_failure_is_reported_in_its_own_words(self, program: Path) -> None:
        with pytest.raises(PublishError) as caught:
            CommandPublisher([str(program)], 60).publish("no.example", "x")
        assert str(caught.value) == f"{program} add no.example: exit code 3: no \\x1b[31mzone"

    def test_a_program_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(PublishError, match="cannot be run: No such file"):
            CommandPublisher([str(tmp_path / "none")], 60).publish("a.example", "x")

    def test_a_program_that_reads_gets_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("assay.keyring.publisher._SECONDS", 5.0)
        reading, writing = os.pipe()
        before = os.dup(0)
        os.dup2(reading, 0)
        try:
            assert CommandPublisher(["/bin/sh", "-c", "cat"], 60).publish("a.example", "x")
        finally:
            os.dup2(before, 0)
            for descriptor in (before, reading, writing):
                os.close(descriptor)

    def test_a_program_that_does_not_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("assay.keyring.publisher._SECONDS", 0.2)
        with pytest.raises(PublishError, match=r"not finished after 0\.2 s"):
            CommandPublisher(["/bin/sh", "-c", "sleep 5"], 60).publish("a.example", "x")

    def test_what_a_program_starts_ends_with_it_if_it_does_not_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("assay.keyring.publisher._SECONDS", 0.5)
        os.mkfifo(tmp_path / "fifo")
        held = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        script = f"exec 9>{tmp_path}/fifo; sleep 60; echo"
        with pytest.raises(PublishError, match="not finished"):
            CommandPublisher(["/bin/sh", "-c", script], 60).publish("a.example", "x")
        ready, _, _ = select.select([held], [], [], 15)
        assert ready, "the sleep has gone too, so nobody has the other end"
        assert os.read(held, 1) == b""
        os.close(held)

    def test_what_a_program_leaves_in_the_background_is_not_waited_for(self) -> None:
        began = time.monotonic()
        assert CommandPublisher(["/bin/sh", "-c", "sleep 20 & echo done"], 60).publish("a.example", "x")
        with pytest.raises(PublishError, match="exit code 1: no zone"):
            CommandPublisher(["/bin/sh", "-c", "sleep 20 & echo no zone; exit 1"], 60).publish("a.example", "x")
        assert time.monotonic() - began < 15

    def test_a_program_that_closes_its_output_and_goes_on_takes_no_time(self) -> None:
        began = time.process_time()
        assert CommandPublisher(["/bin/sh", "-c", "exec >&- 2>&-; sleep 2"], 60).publish("a.example", "x")
        assert time.process_time() - began < 0.2

    def test_no_descriptor_stays_open(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("assay.keyring.publisher._SECONDS", 0.2)
        before = os.listdir("/proc/self/fd")
        for command in ("exit 0", "exit 1", "sleep 5"):
            with contextlib.suppress(PublishError):
                CommandPublisher(["/bin/sh", "-c", command], 60).publish("a.example", "x")
        assert os.listdir("/proc/self/fd") == before

    def test_a_program_that_prints_without_end_takes_no_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("assay.keyring.publisher._SECONDS", 1.0)
        tracemalloc.start()
        try:
            with pytest.raises(PublishError, match="not finished"):
                CommandPublisher(["/usr/bin/yes"], 60).publish("a.example", "x")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 << 20


class TestForeign:
    """Keys as other programs keep them."""

    @pytest.mark.parametrize(
        ("content", "key"),
        [
            (pem(rsa_key()), rsa_key()),
            (rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), rsa_key()),
            (rsa_key().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), rsa_key()),
            (rsa_key().private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()), rsa_key()),
            (b"\n".join(pem(rsa_key()).splitlines()[1:-1]), rsa_key()),
            (b"# made by hand\n" + pem(rsa_key()), rsa_key()),
            (pem(ed25519_key()), ed25519_key()),
            (b64encode(ed25519_key().private_bytes_raw()), ed25519_key()),
            (b64encode(ed25519_key().private_bytes_raw()) + b"\n", ed25519_key()),
            (b64encode(ed25519_key().private_bytes_raw() + bytes(32)), ed25519_key()),
        ],
        ids=["PKCS1", "PKCS8", "DER8", "DER1", "no armour", "comment", "Ed25519", "dkimpy", "dkimpy line", "libsodium"],
    )  # fmt: skip
    def test_each_form_is_read(self, content: bytes, key: dkim.PrivateKey) -> None:
        found = read_foreign(content)
        assert dkim.record_of(found) == dkim.record_of(key)
        assert dkim.record_of(dkim.load_private_key(to_pem(found))) == dkim.record_of(key)

    @pytest.mark.parametrize(
        "content", [b"", b"\n", b"hello", bytes(32), b"AAAA", b"-----BEGIN", b"\xff" * 99, b64encode(bytes(100))]
    )
    def test_anything_else_is_refused(self, content: bytes) -> None:
        with pytest.raises(ValueError, match="not a private key"):
            read_foreign(content)

    def test_a_key_that_is_too_short_is_refused_in_each_form(self, tmp_path: Path) -> None:
        made = subprocess.run(["openssl", "genrsa", "512"], capture_output=True, check=False)
        short = made.stdout
        assert short
        for content in (short, b"\n".join(short.splitlines()[1:-1])):
            with pytest.raises(ValueError, match="RSA key of 512 bits"):
                read_foreign(content)

    def test_the_types_and_sizes_are_known(self) -> None:
        assert (keymaterial.type_of(rsa_key()), keymaterial.bits_of(rsa_key())) == (KeyType.RSA, 2048)
        assert (keymaterial.type_of(ed25519_key()), keymaterial.bits_of(ed25519_key())) == (KeyType.ED25519, 256)
        assert keymaterial.type_of(keymaterial.make(KeyType.ED25519)) is KeyType.ED25519
        assert keymaterial.bits_of(keymaterial.make(KeyType.RSA, 1024)) == 1024


def test_the_states_are_named_in_the_file_in_plain_words(directory: Directory) -> None:
    run(directory, Dns(), NOW)
    first = json.loads(directory.state.read_bytes())["keys"][0]
    assert first["state"] == KeyState.PENDING.value == "pending"
    assert directory.state.stat().st_mode & 0o777 == 0o640
