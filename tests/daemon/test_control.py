# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay status``, ``reload`` and ``log-level`` with a real daemon."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from running import PATIENCE, Daemon, until
from sending import BAD, ROWS, greet, message, send


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    control = {"socket": f"unix:{tmp_path}/control"}
    with Daemon(tmp_path, ROWS, control=control, dmarc={"reject": "reject"}) as one:
        until(lambda: assay(one, "status").returncode == 0)
        yield one


def assay(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "assay", *arguments, "-c", str(daemon.configuration)]
    return subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE)


def status(daemon: Daemon) -> dict[str, Any]:
    found = assay(daemon, "status", "--json")
    return dict(json.loads(found.stdout)) if found.returncode == 0 else {}


def send_all(daemon: Daemon) -> None:
    """Three good messages, and one that is refused."""
    with daemon.mta() as mta:
        greet(mta)
        for _ in range(3):
            send(mta)
    with daemon.mta() as mta:
        greet(mta, BAD)
        assert send(mta, message("a@reject.example")).code == 550


def test_the_status_is_that_of_the_daemon(daemon: Daemon) -> None:
    send_all(daemon)
    until(lambda: len(status(daemon).get("processes", ())) == 3)  # each notes itself once a second
    found = status(daemon)
    assert found["configuration"] == str(daemon.configuration)
    assert found["generation"] == 1
    assert found["workers"] == 2
    assert 0 <= found["now"] - found["since"] < 60
    for period in ("minute", "hour"):
        assert found[period]["messages"] == 4
        assert found[period]["actions"] == {"accept": 3, "reject": 1}
        assert found[period]["results"]["dmarc"] == {"pass": 3, "fail": 1}
        assert found[period]["decisions"] == {"dmarc.reject": {"reject": 1}}
        assert found[period]["most"] > 0
    kinds = [process["kind"] for process in found["processes"]]
    assert sorted(kinds) == ["supervisor", "worker", "worker"]
    text = assay(daemon, "status").stdout
    assert "generation 1" in text
    assert re.search(r"^  reject +1 +1$", text, re.MULTILINE)
    ours = [line for line in text.splitlines() if str(daemon.folder) not in line and "runs as root" not in line]
    assert max(map(len, ours)) <= 80


def test_the_last_hour_survives_a_reload(daemon: Daemon) -> None:
    send_all(daemon)
    before = status(daemon)
    done = assay(daemon, "reload")
    assert (done.returncode, done.stdout, done.stderr) == (0, "reloaded\n", "")
    until(lambda: bool(status(daemon)))
    found = status(daemon)
    assert found["generation"] == 2
    assert found["since"] == before["since"]
    assert found["hour"]["messages"] == 4
    assert found["hour"]["seconds"] > before["hour"]["seconds"]


def test_a_reload_that_fails_says_why(daemon: Daemon) -> None:
    daemon.configure(dmarc={"reject": "explode"})
    # The file that the command reads is broken as well, so it is told the socket by the one of before.
    daemon.configuration.rename(daemon.folder / "broken")
    good = daemon.folder / "good.toml"
    good.write_text(f'[control]\nsocket = "unix:{daemon.folder}/control"\n')
    (daemon.folder / "broken").rename(daemon.configuration)
    line = [sys.executable, "-m", "assay", "reload", "-c", str(good)]
    failed = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE)
    assert failed.returncode == os.EX_CONFIG
    assert "not reloaded, the old configuration stays: " in failed.stderr
    assert "explode" in failed.stderr
    line[3] = "status"
    assert "NOT RELOADED" in subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE).stdout


def test_the_level_of_the_log(daemon: Daemon) -> None:
    assert assay(daemon, "log-level", "error").stdout == "log.level is error until the next reload\n"
    send_all(daemon)
    assert "queue=" not in daemon.log()
    assert assay(daemon, "log-level", "debug").returncode == 0
    send_all(daemon)
    daemon.wait_for_log("queue=", 4)
    assert assay(daemon, "log-level", "error").returncode == 0
    assert assay(daemon, "reload").returncode == 0
    send_all(daemon)
    daemon.wait_for_log("queue=", 8)
    assert assay(daemon, "log-level", "loud").returncode == os.EX_USAGE


def test_warnings_and_nameservers_are_shown(tmp_path: Path) -> None:
    dns = {"nameservers": ("127.0.0.1:9",), "timeout_seconds": 0.2, "budget_seconds": 1.0}
    with Daemon(tmp_path, control={"socket": f"unix:{tmp_path}/control"}, dns=dns) as daemon:
        with daemon.mta() as mta:
            greet(mta)
            send(mta)
        until(lambda: any("nameserver" in line for _, line in status(daemon).get("warnings", ())))
        assert "nameserver 127.0.0.1:9  DOES NOT ANSWER" in assay(daemon, "status").stdout


def test_only_the_owner_gets_in(daemon: Daemon) -> None:
    assert (daemon.folder / "control").stat().st_mode & 0o777 == 0o600


def test_requests_for_anything_else(daemon: Daemon) -> None:
    for line in (b"GET /reload", b"POST /status", b"POST /log-level/loud", b"DELETE /status", b"GET /metrics"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(daemon.folder / "control"))
            client.sendall(line + b" HTTP/1.0\r\n\r\n")
            assert client.recv(12) in (b"HTTP/1.0 404", b"HTTP/1.0 501")
    assert "reload" not in daemon.log()


def test_watching(daemon: Daemon) -> None:
    line = [sys.executable, "-m", "assay", "status", "--watch", "-c", str(daemon.configuration)]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        text = b""
        while text.count(b"\x1b[H\x1b[2J") < 2:
            text += os.read(watching.stdout.fileno(), 65536)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(PATIENCE) == 130


@pytest.mark.parametrize(
    ("configuration", "code", "said"),
    [
        ("", os.EX_CONFIG, "control.socket is not set in "),
        ('[control]\nsocket = "unix:{folder}/none"\n', os.EX_UNAVAILABLE, "No such file or directory; is the daemon"),
    ],
)
@pytest.mark.parametrize("command", [["status"], ["reload"], ["log-level", "info"]], ids=str)
def test_without_a_daemon(tmp_path: Path, configuration: str, code: int, said: str, command: list[str]) -> None:
    path = tmp_path / "assay.toml"
    path.write_text(configuration.replace("{folder}", str(tmp_path)))
    line = [sys.executable, "-m", "assay", *command, "-c", str(path)]
    found = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE)
    assert found.returncode == code
    assert said in found.stderr
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "answer", "code", "said"),
    [
        ("status", "200 OK", os.EX_UNAVAILABLE, "the daemon is of another version; restart it"),
        ("status", "400 Bad Request", os.EX_UNAVAILABLE, "400 Bad Request; is this the socket of assay?"),
        ("reload", "404 Not Found", os.EX_UNAVAILABLE, "404 Not Found; is this the socket of assay?"),
        ("reload", "504 Gateway Timeout", os.EX_UNAVAILABLE, 'assay reload: {"some": 1}'),
        ("reload", "409 Conflict", os.EX_CONFIG, 'the old configuration stays: {"some": 1}'),
    ],
)
def test_another_answer_than_expected(tmp_path: Path, command: str, answer: str, code: int, said: str) -> None:
    """Of a daemon of another version, of another program, and of one that still reloads."""
    path = tmp_path / "assay.toml"
    path.write_text(f'[control]\nsocket = "unix:{tmp_path}/control"\n')
    line = [sys.executable, "-m", "assay", command, "-c", str(path)]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "control"))
        listening.listen()
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asking:
            client, _ = listening.accept()
            with client:
                client.recv(65536)
                client.sendall(f'HTTP/1.0 {answer}\r\n\r\n{{"some": 1}}\n'.encode())
            _, found = asking.communicate(timeout=PATIENCE)
    assert asking.returncode == code
    assert said in found
    assert len(found.splitlines()) == 1


def test_json_that_is_watched_is_json(daemon: Daemon) -> None:
    line = [sys.executable, "-m", "assay", "status", "--watch", "--json", "-c", str(daemon.configuration)]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["workers"]
        watching.send_signal(signal.SIGINT)
        watching.wait(PATIENCE)


def test_another_daemon_on_the_same_socket(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    with Daemon(tmp_path / "two", control={"socket": f"unix:{tmp_path}/control"}) as other:
        other.wait_for_log(
            f"cannot start the endpoint: control.socket: unix:{tmp_path}/control: another daemon serves on it"
        )
        assert status(daemon)["configuration"] == str(daemon.configuration)


def test_a_reload_switches_it_on(tmp_path: Path) -> None:
    with Daemon(tmp_path, ROWS) as daemon:
        assert "write unix:/run/assay/daemon/control.sock and reload assay" in assay(daemon, "status").stderr
        daemon.configure(control={"socket": f"unix:{tmp_path}/control"})
        daemon.signal(signal.SIGHUP)
        until(lambda: assay(daemon, "status").returncode == 0)
