# SPDX-License-Identifier: GPL-3.0-or-later
"""A restart costs no message: the service manager keeps the socket, and old sessions end in the old workers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.cli.mta import MilterError, Mta
from assay.config.endpoint import Endpoint
from running import PATIENCE, Activated, Daemon, passing
from sending import ROWS, greet, half_a_message, other_half, results, send

PROMPT_SECONDS = 5.0  # for the main process to end; a silent client may stay for 330


@pytest.fixture(params=["unix", "inet", "inet6"])
def daemon(tmp_path: Path, request: pytest.FixtureRequest, free_port: int) -> Iterator[Activated]:
    where = {"unix": f"unix:{tmp_path}/s", "inet": f"inet:{free_port}@127.0.0.1", "inet6": f"inet6:{free_port}@::1"}
    milter = {"socket": "unix:/nowhere/s", "drain_seconds": 120.0}  # a session has to outlive a slow start
    with Activated(tmp_path, ROWS, socket=where[request.param], milter=milter) as one:
        yield one


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


class TestSocketOfTheServiceManager:
    def test_a_restart_refuses_no_connection_and_ends_no_session(self, daemon: Activated) -> None:
        with daemon.mta() as silent:
            half_a_message(silent)
            old = daemon.workers()
            began = time.monotonic()
            assert daemon.stop() == 0
            assert time.monotonic() - began < PROMPT_SECONDS
            waiting = Endpoint.parse(daemon.socket).connect(PATIENCE)  # while no daemon runs
            daemon.start()
            with Mta(waiting) as mta:
                greet(mta)
                assert "dmarc=pass" in results(send(mta))
            assert "dmarc=pass" in other_half(silent), "the old session goes on in its old worker"
        deadline = time.monotonic() + PATIENCE
        while any(map(alive, old)):
            assert time.monotonic() < deadline, "old workers end by themselves"
            time.sleep(0.05)
        assert "ERROR" not in daemon.log()

    def test_a_killed_supervisor_leaves_the_socket_usable(self, daemon: Activated) -> None:
        daemon.orphan()
        daemon.signal(signal.SIGKILL)
        daemon.wait()
        time.sleep(0.5)  # its workers have seen it
        daemon.start()
        with daemon.mta() as mta:
            greet(mta)
            assert "dmarc=pass" in results(send(mta))

    def test_reload_keeps_it(self, daemon: Activated) -> None:
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log(": reloaded")
        with daemon.mta() as mta:
            greet(mta)
            assert "dmarc=pass" in results(send(mta))


def test_restarts_under_load_cost_nothing(tmp_path: Path) -> None:
    stop = threading.Event()
    verdicts: list[str] = []
    faults: list[str] = []

    def load() -> None:
        while not stop.is_set():
            try:
                with daemon.mta() as mta:
                    greet(mta)
                    verdicts.append(results(send(mta)))
            except (OSError, MilterError) as error:
                faults.append(repr(error))
            time.sleep(0.02)

    with Activated(tmp_path, ROWS) as daemon:
        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                daemon.stop()
                daemon.start()
                time.sleep(0.3)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert faults == []
    assert len(verdicts) > 10
    assert all("dmarc=pass" in verdict for verdict in verdicts)
    assert (tmp_path / "assay.sock").exists(), "the path belongs to the service manager"


def serve(folder: Path, one: socket.socket, count: int, pid: str) -> subprocess.CompletedProcess[str]:
    """Start a daemon that exits by itself."""
    path = folder / "assay.toml"
    path.write_text('[milter]\nsocket = "unix:/nowhere/s"\n')
    command = [*passing(one, count=count, pid=pid), sys.executable, "-m", "assay", "serve", "-c", str(path)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False, pass_fds=(one.fileno(),)
    )


@pytest.mark.parametrize(
    ("kind", "listens", "count", "pid", "reason"),
    [
        (socket.SOCK_STREAM, True, 2, "", "passed 2 sockets; keep one ListenStream="),
        (socket.SOCK_DGRAM, False, 1, "", "of another kind; write ListenStream="),
        (socket.SOCK_STREAM, False, 1, "", "passed a connection; write Accept=no"),
        (socket.SOCK_STREAM, True, 1, "1", "unix:/nowhere/s: No such file or directory"),
    ],
    ids=["two", "datagrams", "a connection", "of another process"],
)
def test_what_cannot_be_served_on(tmp_path: Path, kind: int, listens: bool, count: int, pid: str, reason: str) -> None:
    with socket.socket(socket.AF_UNIX, kind) as one:
        one.bind(str(tmp_path / "s"))
        if listens:
            one.listen()
        ended = serve(tmp_path, one, count, pid)
    assert ended.returncode == os.EX_UNAVAILABLE
    assert reason in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_daemon_that_cannot_write_its_facts_leaves_no_socket(tmp_path: Path) -> None:
    path = tmp_path / "assay.toml"
    path.write_text(f'[milter]\nsocket = "unix:{tmp_path}/s"\n[log]\nfacts = "/nowhere/facts"\n')
    command = [sys.executable, "-m", "assay", "serve", "-c", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == os.EX_CONFIG
    assert "log.facts" in ended.stderr
    assert not (tmp_path / "s").exists()


def test_without_a_service_manager_the_path_is_free_at_once(tmp_path: Path) -> None:
    heirs = tmp_path / "heirs"
    heirs.mkdir()
    with Daemon(tmp_path, ROWS) as daemon, daemon.mta() as silent:
        half_a_message(silent)
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_log("ending")
        while time.monotonic() - began < PATIENCE:
            try:
                Endpoint.parse(daemon.socket).connect(1).close()
            except OSError:
                break
        with Daemon(heirs, ROWS, socket=daemon.socket) as heir:
            assert time.monotonic() - began < PATIENCE
            assert "dmarc=pass" in other_half(silent)
            silent.close()
            daemon.wait()
            with heir.mta() as mta:
                greet(mta)
                assert "dmarc=pass" in results(send(mta)), "the old daemon leaves the new one's path"
