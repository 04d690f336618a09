# SPDX-License-Identifier: GPL-3.0-or-later
"""Trouble around the daemon: full disks, closed descriptors, storms of signals, nonsense from the peer."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assay.cli.mta import Mta
from assay.config.endpoint import Endpoint
from running import PATIENCE, Daemon
from sending import ROWS, greet, message, results, send

NEGOTIATION = b"\0\0\0\x0dO" + struct.pack("!III", 6, 0x1FF, 0x1FFFFF)


def workers(daemon: Daemon) -> list[int]:
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    return [int(pid) for pid in children]


def test_a_failure_to_write_facts_does_not_change_the_verdict(tmp_path: Path) -> None:
    with Daemon(tmp_path, ROWS, log={"facts": "/dev/full"}, dmarc={"reject": "reject"}) as daemon:
        with daemon.mta() as mta:
            greet(mta)
            assert send(mta, message("a@reject.example")).code == 550
            assert "dmarc=pass" in results(send(mta))
        log = daemon.wait_for_log("log.facts: No space left on device; the facts of messages are lost")
        assert log.count("log.facts") <= 2, "once for each worker"
        assert "bug=" not in log


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_failure_to_write_the_log_does_not_stop_mail(tmp_path: Path, closed: str) -> None:
    (tmp_path / "assay.toml").write_text(
        f'[milter]\nsocket = "unix:{tmp_path}/s"\nworkers = 1\n[dns]\nnameservers = "none"\n[clients]\ninternal = []\n'
    )
    line = f"exec {sys.executable} -m assay serve -c {tmp_path}/assay.toml {closed}"
    with subprocess.Popen(["/bin/sh", "-c", line]) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while not (tmp_path / "s").exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            with Mta(Endpoint.parse(f"unix:{tmp_path}/s").connect(PATIENCE)) as mta:
                greet(mta)
                for _ in range(3):
                    assert "spf=none" in results(send(mta))
        finally:
            process.terminate()
        assert process.wait(PATIENCE) == 0


def test_a_storm_of_reload_signals_is_one_reload(tmp_path: Path) -> None:
    zone, pipe, text = tmp_path / "zone", tmp_path / "pipe", "nothing.example. A 192.0.2.1\n"
    zone.write_text(text)
    os.mkfifo(pipe)
    with Daemon(tmp_path, ROWS, dns={"zone": str(zone)}, milter={"workers": 1}) as daemon, daemon.mta() as mta:
        greet(mta)
        os.rename(pipe, zone)
        for _ in range(20):  # the first one is kept busy by the pipe
            daemon.signal(signal.SIGHUP)
            time.sleep(0.02)
        writing = os.open(zone, os.O_WRONLY)
        pipe.write_text(text)
        os.rename(pipe, zone)
        os.write(writing, text.encode())
        os.close(writing)
        daemon.wait_for_log(": reloaded", 2)
        time.sleep(2)
        assert daemon.log().count(": reloaded") == 2
        assert len(workers(daemon)) == 2, "one for the open session, one for new ones"
        assert "dmarc=pass" in results(send(mta))
        with daemon.mta() as another:
            greet(another)
            assert "dmarc=pass" in results(send(another))


def test_more_connections_than_the_default_limit_of_descriptors(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 1000:
        pytest.skip("the hard limit is too low")
    daemon = Daemon(tmp_path, ROWS, milter={"workers": 1})
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))  # the daemon inherits it
        daemon.__enter__()
        resource.setrlimit(resource.RLIMIT_NOFILE, (1000, before[1]))
        with contextlib.ExitStack() as stack:
            for _ in range(300):
                idle = stack.enter_context(socket.socket(socket.AF_UNIX))
                idle.settimeout(PATIENCE)
                idle.connect(str(tmp_path / "assay.sock"))
                idle.sendall(NEGOTIATION)
            mta = stack.enter_context(daemon.mta())
            greet(mta)
            assert "dmarc=pass" in results(send(mta))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        daemon.__exit__(None, None, None)


def test_nonsense_from_the_peer_is_harmless(tmp_path: Path) -> None:
    """Not the milter protocol, half of it, or its commands in any order with any octets."""
    lottery = random.Random(7)  # noqa: S311 - the same nonsense each time
    with Daemon(tmp_path, ROWS) as daemon:
        before = workers(daemon)
        nonsense = [b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 64, b"\0" * 400, b"\x7f\xff\xff\xffO", NEGOTIATION[:7], b""]
        for _ in range(100):
            packets = [NEGOTIATION]
            for _ in range(lottery.randrange(1, 8)):
                data = lottery.choice(b"CHMRTLNBEADQOKU").to_bytes() + lottery.randbytes(lottery.randrange(200))
                packets.append(struct.pack("!I", len(data)) + data)
            nonsense.append(b"".join(packets))
        for octets in nonsense:
            with Endpoint.parse(daemon.socket).connect(PATIENCE) as connection, contextlib.suppress(OSError):
                connection.sendall(octets)
        with daemon.mta() as mta:
            greet(mta)
            assert "dmarc=pass" in results(send(mta))
        assert workers(daemon) == before
        assert "ERROR" not in daemon.log()
