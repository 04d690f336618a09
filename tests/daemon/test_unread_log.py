# SPDX-License-Identifier: GPL-3.0-or-later
"""A log that nobody reads: mail goes on, signals are obeyed, and what was lost is counted."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from assay.cli.mta import Mta
from assay.config.endpoint import Endpoint
from running import PATIENCE
from sending import greet, results, send

ODD_LOG = Path(__file__).with_name("odd_log.py")
PROMPT_SECONDS = 3.0  # a message takes milliseconds; a log that blocks takes for ever
LONG = "x" * 200 + "@example.org"


class Unread:
    """A daemon with one worker whose log goes where the test does not look, or not yet."""

    def __init__(self, folder: Path, stderr: Any, *, log: str = "", program: tuple[str, ...] = ("-m", "assay")) -> None:
        self.socket = folder / "s"
        configuration = folder / "assay.toml"
        configuration.write_text(
            f'[milter]\nsocket = "unix:{self.socket}"\nworkers = 1\ndrain_seconds = 5.0\n'
            f'[dns]\nnameservers = "none"\n[clients]\ninternal = []\n[log]\n{log}'
        )
        line = [sys.executable, *program, "serve", "-c", str(configuration)]
        self.process = subprocess.Popen(line, stderr=stderr)
        deadline = time.monotonic() + PATIENCE
        while not self.socket.exists():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def send_until(self, full: Any, most: int = 6000) -> int:
        """Send messages, each of which must be answered promptly.

        :param full: called with no argument; true when the log is full.
        """
        began = 0.0
        with Mta(Endpoint.parse(f"unix:{self.socket}").connect(PATIENCE)) as mta:
            greet(mta)
            for number in range(most):
                if not number % 50 and full():
                    return number
                began = time.monotonic()
                assert "spf=none" in results(send(mta, path=LONG))
                assert time.monotonic() - began < PROMPT_SECONDS
        raise AssertionError("the log never filled up")

    def end(self) -> None:
        """SIGTERM ends it promptly."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PROMPT_SECONDS + 5) == 0

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def unread(*arguments: Any, **more: Any) -> Iterator[Unread]:
    daemon = Unread(*arguments, **more)
    try:
        yield daemon
    finally:
        daemon.kill()


def beyond(number: int) -> Any:
    """True after so many calls: more messages than any buffer holds."""
    calls = iter(range(number))
    return lambda: next(calls, None) is None


class TestPipe:
    def test_mail_and_signals_go_on(self, tmp_path: Path) -> None:
        reading, writing = os.pipe()
        with unread(tmp_path, writing) as daemon:
            os.close(writing)
            daemon.send_until(beyond(8))  # 400 messages: more than the 64 KiB of a pipe
            daemon.end()
        os.close(reading)

    def test_what_was_lost_is_counted_when_it_flows_again(self, tmp_path: Path) -> None:
        reading, writing = os.pipe()
        with unread(tmp_path, writing, program=(str(ODD_LOG), "100000")) as daemon:
            os.close(writing)
            sent = daemon.send_until(beyond(16))
            lines = read_until(reading, "were lost")
            (lost,) = [
                int(number) for line in lines for number in re.findall(r"WARNING: (\d+) log lines were lost", line)
            ]
            found = [line for line in lines if "queue=" in line]
            assert lost > 0
            assert len(found) + lost == sent
            assert all(re.fullmatch(r"assay\[\d+\]: queue=.* ms=\d+", line) for line in found), "whole lines"
            daemon.send_until(beyond(1))
            assert len([line for line in read_until(reading, "queue=", 50) if "queue=" in line]) == 50
            daemon.end()
        os.close(reading)

    def test_the_description_that_others_share_is_not_changed(self, tmp_path: Path) -> None:
        """O_NONBLOCK on an inherited pipe would make the writes of other programs fail."""
        reading, writing = os.pipe()
        with unread(tmp_path, writing) as daemon:
            daemon.send_until(beyond(1))
            assert os.get_blocking(writing)
            daemon.end()
        os.close(reading)
        os.close(writing)


def read_until(reading: int, text: str, times: int = 1) -> list[str]:
    """Read a pipe until `text` has come so often."""
    octets = b""
    deadline = time.monotonic() + PATIENCE
    os.set_blocking(reading, False)
    while octets.count(text.encode()) < times or not octets.endswith(b"\n"):
        assert time.monotonic() < deadline, octets[-2000:]
        with contextlib.suppress(BlockingIOError):
            octets += os.read(reading, 65536)
            continue
        time.sleep(0.01)
    return octets.decode().splitlines()


def test_a_stream_socket_as_the_journal_gives_it(tmp_path: Path) -> None:
    ours, its = socket.socketpair()
    with ours, unread(tmp_path, its) as daemon:
        its.close()
        daemon.send_until(beyond(12))
        daemon.end()


@pytest.fixture
def datagrams(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket of datagrams, such as /dev/log, that a test reads or not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "log"))
        listening.setblocking(False)
        yield listening


def all_of(listening: socket.socket, text: str, times: int = 1) -> list[str]:
    lines: list[str] = []
    deadline = time.monotonic() + PATIENCE
    while sum(text in line for line in lines) < times:
        assert time.monotonic() < deadline, lines[-5:]
        with contextlib.suppress(BlockingIOError):
            lines.append(listening.recv(65536).decode())
            continue
        time.sleep(0.01)
    return lines


class TestSocket:
    @pytest.mark.parametrize("to", ["syslog", "journald"])
    def test_mail_and_signals_go_on(self, tmp_path: Path, datagrams: socket.socket, to: str) -> None:
        program = (str(ODD_LOG), "100000", str(tmp_path / "log"))
        with unread(tmp_path, None, log=f'to = "{to}"\n', program=program) as daemon:
            sent = daemon.send_until(beyond(24))
            lines = all_of(datagrams, "log lines were lost")
            (lost,) = [int(number) for line in lines for number in re.findall(r"(\d+) log lines were lost", line)]
            found = [line for line in lines if "queue=" in line]
            assert len(found) + lost == sent
            daemon.end()

    def test_syslog_comes_back(self, tmp_path: Path) -> None:
        """It is restarted: its socket is another one."""
        program = (str(ODD_LOG), "1000000", str(tmp_path / "log"))
        with unread(tmp_path, None, log='to = "syslog"\n', program=program) as daemon:
            sent = daemon.send_until(beyond(1))
            for _ in range(2):
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
                    (tmp_path / "log").unlink(missing_ok=True)
                    listening.bind(str(tmp_path / "log"))
                    listening.setblocking(False)
                    found = [line for line in all_of(listening, "queue=", sent) if "queue=" in line]
                    assert re.fullmatch(r"<22>\w{3} [ \d]\d \d\d:\d\d:\d\d assay\[\d+\]: queue=.* ms=\d+", found[0])
                sent = daemon.send_until(beyond(1))
            daemon.end()

    def test_the_journal_gets_fields(self, tmp_path: Path, datagrams: socket.socket) -> None:
        program = (str(ODD_LOG), "1000000", str(tmp_path / "log"))
        with unread(tmp_path, None, log='to = "journald"\n', program=program) as daemon:
            with Mta(Endpoint.parse(f"unix:{daemon.socket}").connect(PATIENCE)) as mta:
                greet(mta)
                send(mta)
            entry = all_of(datagrams, "queue=")[-1]
            fields = dict(line.split("=", 1) for line in entry.splitlines())
            assert fields["PRIORITY"] == "6"
            assert fields["SYSLOG_IDENTIFIER"] == "assay"
            assert fields["ASSAY_ACTION"] == "accept"
            assert fields["ASSAY_SPF_MAILFROM"] == "none"
            assert fields["MESSAGE"].startswith("queue=")
            daemon.end()


def test_json(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with unread(tmp_path, writing, log='format = "json"\n') as daemon:
        os.close(writing)
        with Mta(Endpoint.parse(f"unix:{daemon.socket}").connect(PATIENCE)) as mta:
            greet(mta)
            send(mta)
        lines = [json.loads(line) for line in read_until(reading, '"queue"')]
        (serving,) = [line for line in lines if line.get("text", "").startswith("serving on")]
        assert serving["level"] == "info"
        (found,) = [line for line in lines if "queue" in line]
        assert found["action"] == "accept"
        assert isinstance(found["ms"], int)
        daemon.end()
    os.close(reading)
