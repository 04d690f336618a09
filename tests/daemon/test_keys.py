# SPDX-License-Identifier: GPL-3.0-or-later
"""Signing keys in a running daemon: rotated on the disk, read at a reload, all together or not at all."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from assay.cli.mta import FilterOutcome, apply
from assay.keyring import Directory
from assay.keyring.material import to_pem
from assay.keys.rotation import Act, KeyRing, KeyState, KeyStep, KeyType, take
from assay.model.message import Header, split_message
from assay.model.name import Domain
from assay.protocol import dkim
from running import PATIENCE, Daemon
from sending import MESSAGE, RECEIVED, ROWS, greet, send
from signing import rsa_key
from zone import Zone

KEYS = {"r1": rsa_key(1024), "r2": rsa_key(2048)}
RECORDS = {f"{name}._domainkey.example.org": [["TXT", [dkim.record_of(key)]]] for name, key in KEYS.items()}


@pytest.fixture
def keys(tmp_path: Path) -> Directory:
    """r1 signs, and r2 waits."""
    tmp_path.chmod(0o755)
    directory = Directory(tmp_path / "example.org")
    directory.begin(Domain("example.org"))
    ring = KeyRing("example.org")
    for selector, key in KEYS.items():
        directory.save_key(selector, to_pem(key))
        ring = take(ring, KeyStep(Act.CREATE, KeyType.RSA, selector), 1_700_000_000, dkim.record_of(key))
    directory.save(take(ring, KeyStep(Act.ACTIVATE, KeyType.RSA, "r1"), 1_700_000_000))
    return directory


def start(folder: Path, keys: Directory, rows: dict[str, list[list[object]]], unpublished: str = "sign") -> Daemon:
    sign = {"unpublished": unpublished, "domain": ({"domain": "example.org", "key_directory": str(keys.path)},)}
    return Daemon(folder, ROWS | rows, sign=sign, milter={"workers": 1})


@pytest.fixture
def daemon(tmp_path: Path, keys: Directory) -> Iterator[Daemon]:
    with start(tmp_path, keys, RECORDS) as one:
        yield one


def submit(daemon: Daemon) -> FilterOutcome:
    """A message of an authenticated user, on a connection of its own."""
    with daemon.mta() as mta:
        greet(mta)
        return send(mta, auth_authen="joe", auth_type="PLAIN")


def selectors(outcome: FilterOutcome) -> list[str]:
    """The selectors whose signatures verify with the record of that selector."""
    assert outcome.code == 250, outcome.reply
    header, body = split_message(MESSAGE)
    values = [value for _, name, value in outcome.edits if name == b"DKIM-Signature" and value is not None]
    left = Header(tuple(apply(outcome.edits, header, RECEIVED)))
    found = []
    for field in left.all("DKIM-Signature"):
        signature = dkim.parse(field)
        assert isinstance(signature, dkim.Signature)
        hashes = dkim.BodyHashes([signature.body_hash_spec])
        hashes.update(body)
        lookup = Zone(RECORDS).solve(dkim.fetch_key(signature))
        evaluation = dkim.verify(signature, lookup, left, hashes, now=int(time.time()))
        found.append(f"{signature.selector} {evaluation.result}")
    assert len(found) == len(values)
    return found


def workers(daemon: Daemon) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()]


def rotate(keys: Directory) -> None:
    keys.save(take(keys.load(), KeyStep(Act.ACTIVATE, KeyType.RSA, "r2"), 1_700_000_000))


def test_the_active_key_signs_and_a_rotation_counts_from_the_reload(daemon: Daemon, keys: Directory) -> None:
    assert selectors(submit(daemon)) == ["r1 pass"]
    rotate(keys)
    assert selectors(submit(daemon)) == ["r1 pass"]
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_log("reloaded")
    deadline = time.monotonic() + PATIENCE
    while (found := selectors(submit(daemon))) != ["r2 pass"]:  # the old worker may still take a session
        assert found == ["r1 pass"]
        assert time.monotonic() < deadline
    assert keys.load().keys[0].state is KeyState.RETIRING


def test_messages_that_come_during_rotations_verify_with_the_key_of_their_selector(
    daemon: Daemon, keys: Directory
) -> None:
    over = threading.Event()

    def load() -> set[str]:
        found: set[str] = set()
        while not over.is_set():
            found.update(selectors(submit(daemon)))
        return found

    with ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(load) for _ in range(2)]
        try:
            for times, selector in enumerate(("r2", "r1", "r2"), 1):
                keys.save(take(keys.load(), KeyStep(Act.ACTIVATE, KeyType.RSA, selector), 1_700_000_000))
                daemon.signal(signal.SIGHUP)
                daemon.wait_for_log("reloaded", times)
        finally:
            over.set()
    assert {found for each in loads for found in each.result()} == {"r1 pass", "r2 pass"}


def test_a_worker_that_is_replaced_signs_as_its_siblings_do(daemon: Daemon, keys: Directory) -> None:
    """The disk has changed since, and nobody has reloaded: no selector of one key with another key."""
    rotate(keys)
    keys.key_file("r1").unlink()
    (old,) = workers(daemon)
    os.kill(old, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while old in workers(daemon) or not workers(daemon):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert selectors(submit(daemon)) == ["r1 pass"]


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda keys: keys.key_file("r2").write_bytes(b"hello"), "r2.pem: not a private key in PEM without a password"),
        (lambda keys: keys.key_file("r2").write_bytes(to_pem(KEYS["r1"])), "r2.pem: not the key of which"),
        (lambda keys: keys.key_file("r2").unlink(), "r2.pem: cannot be read: No such file or directory"),
        (lambda keys: keys.key_file("r2").chmod(0o644), "r2.pem: anyone can read it (mode 0644); run: chmod 0640"),
        (lambda keys: keys.state.write_bytes(b"{"), "keys.json: not a state file"),
        (lambda keys: keys.state.unlink(), "keys.json: no such file; make keys with: assay keys create example.org"),
    ],
    ids=["broken", "another", "missing", "readable", "broken state", "no state"],
)
def test_a_daemon_that_runs_keeps_its_keys_if_the_new_ones_are_bad(
    daemon: Daemon, keys: Directory, harm: object, why: str
) -> None:
    rotate(keys)
    harm(keys)  # type: ignore[operator]  # any callable
    daemon.signal(signal.SIGHUP)
    log = daemon.wait_for_log("not reloaded, the old configuration stays")
    assert why in log
    assert re.search(r"sign\.domain 1\.key_directory: ", log)
    assert "Traceback" not in log
    assert selectors(submit(daemon)) == ["r1 pass"]


def test_a_key_that_is_not_published_defers_mail_where_the_operator_says_so(tmp_path: Path, keys: Directory) -> None:
    with start(tmp_path, keys, {}, "tempfail") as daemon:
        daemon.wait_for_log("mail is signed with a key that the DNS does not publish at r1._domainkey.example.org")
        outcome = submit(daemon)
        assert outcome.code == 451
        log = daemon.wait_for_log("action=tempfail")
        assert "by=sign.unpublished" in log
        assert "no key of example.org is published" in log


def test_mail_is_signed_with_the_key_that_is_retiring_if_the_new_one_is_not_published(
    tmp_path: Path, keys: Directory
) -> None:
    rotate(keys)
    rows = {name: row for name, row in RECORDS.items() if name.startswith("r1")}
    with start(tmp_path, keys, rows, "fall back") as daemon:
        daemon.wait_for_log("does not publish at r2._domainkey.example.org")
        assert selectors(submit(daemon)) == ["r1 pass"]
