# SPDX-License-Identifier: GPL-3.0-or-later
"""What fails while mail flows. Each scenario is a function that runs under load, and what may become of messages."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from msgspec import Struct

from assay.cli.mta import MilterError, Mta
from assay.config.endpoint import Endpoint
from mta.base import HOST, MTA
from running import Activated

BAD = "[dmarc]\nreject = 'explode'\n"
FEW_FILES = 300  # descriptors of a process: 150 for the DNS, 80 for a worker itself, 70 for sessions


class Run(Struct):
    """What a scenario works on."""

    daemon: Activated
    mta: MTA
    seconds: float

    def pause(self, part: float = 1.0) -> None:
        """Let mail flow for a part of the time."""
        time.sleep(self.seconds * part)


class Scenario(Struct, frozen=True):
    """One fault.

    :ivar text: what an operator reads.
    :ivar allowed: what may become of messages beside ``right`` and ``refused``.
    :ivar sections: of the daemon's configuration.
    :ivar files: how many descriptors each of its processes may have, 0 for the usual.
    """

    text: str
    run: Callable[[Run], None]
    allowed: frozenset[str] = frozenset()
    sections: Mapping[str, Mapping[str, Any]] = {}
    files: int = 0


def nothing(run: Run) -> None:
    run.pause()


def silent_client(mta: MTA, until: bytes = b"") -> socket.socket:
    """A client that says no more after these lines."""
    client = socket.create_connection((HOST, mta.port), timeout=10)
    client.recv(512)
    for line in [b"EHLO silent.example", *until.splitlines()]:
        client.sendall(line + b"\r\n")
        client.recv(2048)
    return client


def restart(run: Run) -> None:
    with silent_client(run.mta, b"MAIL FROM:<a@d1.example>\nRCPT TO:<silent@example.org>"):
        for _ in range(2):
            run.pause(0.3)
            run.daemon.stop()
            run.daemon.start()
        run.pause(0.3)


def reload(run: Run) -> None:
    good = run.daemon.configuration.read_text()
    for times in range(1, 5):
        if times == 2:
            run.daemon.configuration.write_text(BAD)
        run.daemon.signal(signal.SIGHUP)
        run.daemon.wait_for_log(
            "not reloaded" if times == 2 else ": reloaded", 1 if times == 2 else times - (times > 2)
        )
        run.daemon.configuration.write_text(good)
        run.pause(0.2)


def killed_worker(run: Run) -> None:
    run.pause(0.3)
    os.kill(min(run.daemon.workers()), signal.SIGKILL)
    run.pause()


def killed_workers(run: Run) -> None:
    run.pause(0.3)
    for pid in run.daemon.workers():
        os.kill(pid, signal.SIGKILL)
    run.pause()


def killed_supervisor(run: Run) -> None:
    run.pause(0.3)
    run.daemon.orphan()
    run.daemon.signal(signal.SIGKILL)
    run.daemon.wait()
    run.daemon.start()
    run.pause(0.5)


def dns(**options: Any) -> Callable[[Run], None]:
    """The nameserver misbehaves for half of the time."""

    def act(run: Run) -> None:
        run.pause(0.2)
        before = {name: getattr(run.daemon.nameserver, name) for name in options}
        for name, value in options.items():
            setattr(run.daemon.nameserver, name, value)
        run.pause(0.5)
        for name, value in before.items():
            setattr(run.daemon.nameserver, name, value)
        run.pause(0.3)

    return act


def flapping_dns(run: Run) -> None:
    for _ in range(3):
        run.daemon.nameserver.drop = not run.daemon.nameserver.drop
        run.pause(0.2)
    run.daemon.nameserver.drop = False
    run.pause(0.4)


class _Failing(dict[str, str]):
    """Every name is answered with SERVFAIL."""

    def get(self, _key: str, _default: Any = None) -> Any:
        return "SERVFAIL"

    def __contains__(self, _key: object) -> bool:
        return True

    def __getitem__(self, _key: str) -> str:
        return "SERVFAIL"


def held(run: Run) -> None:
    """Many sessions are open and say nothing, at the milter itself."""
    with ExitStack() as open_ones:
        for _ in range(150):
            one = Endpoint.parse(run.daemon.socket).connect(10)
            open_ones.callback(one.close)
        run.pause()


def leaving(run: Run) -> None:
    lines = ["", "MAIL FROM:<a@d1.example>", "RCPT TO:<gone@example.org>", "DATA", "From: a@d1.example", "", "x"]
    for count in range(len(lines)):
        silent_client(run.mta, "\n".join(lines[:count]).encode()).close() if count < 4 else leave_in_data(
            run, lines, count
        )
    run.pause(0.5)


def leave_in_data(run: Run, lines: list[str], count: int) -> None:
    client = silent_client(run.mta, "\n".join(lines[:4]).encode())
    client.sendall("".join(f"{line}\r\n" for line in lines[4:count]).encode())
    client.close()


def slow_client(run: Run) -> None:
    with silent_client(run.mta) as client:
        for octet in b"MAIL FROM:<a@d1.example>\r\n"[: max(3, int(run.seconds))]:
            client.sendall(bytes([octet]))
            time.sleep(1)


def nonsense(run: Run) -> None:
    for octets in (
        b"\0",
        b"\xff" * 64,
        b"GET / HTTP/1.0\r\n\r\n",
        b"\0\0\0\1O",
        b"\0\0\0\x0dO" + b"\xff" * 12,
        b"\0\0\0\1E",
    ):
        with Endpoint.parse(run.daemon.socket).connect(10) as one:
            one.sendall(octets)
    for command in b"CHMRTLNBEADQKU?":
        try:
            with run.daemon.mta() as one_mta:
                one_mta._send(bytes([command]), b"\0")
                Mta.abort(one_mta)
        except (MilterError, OSError):
            pass
    run.pause(0.5)


LATE = frozenset(("deferred",))
#: A genuine message that the DNS does not let us judge, also because it has no descriptors for a moment; and one of a
#: session that ended with its process.
SCENARIOS: dict[str, Scenario] = {
    "nothing": Scenario("Nothing fails", nothing),
    "restart": Scenario("Two restarts, with a client that stays silent in its session", restart),
    "reload": Scenario("Four reloads, one of a configuration that is not valid", reload),
    "killed-worker": Scenario("A worker is killed", killed_worker, LATE),
    "killed-workers": Scenario("All workers are killed at once", killed_workers, LATE),
    "killed-supervisor": Scenario("The main process is killed, and another daemon started", killed_supervisor),
    "dns-silent": Scenario("The nameserver does not answer", dns(drop=True), LATE),
    "dns-slow": Scenario("The nameserver takes half a second", dns(delay=0.5)),
    "dns-failing": Scenario("The nameserver answers SERVFAIL", dns(rcodes=_Failing()), LATE),
    "dns-lying": Scenario("Before each answer comes one to another question", dns(wrong_question_first=True)),
    "dns-garbage": Scenario("The nameserver answers with octets that are not a DNS message", dns(garbage=True), LATE),
    "dns-flapping": Scenario("The nameserver stops answering three times", flapping_dns, LATE),
    "disk-full": Scenario("The disk of log.facts is full", nothing, sections={"log": {"facts": "/dev/full"}}),
    "held": Scenario("150 sessions are open and say nothing", held),
    "few-descriptors": Scenario("The same where a process may have 300 descriptors", held, LATE, files=FEW_FILES),
    "leaving": Scenario("Clients leave at each stage", leaving),
    "slow-client": Scenario("A client sends an octet a second", slow_client),
    "nonsense": Scenario("Anything but the protocol comes to the milter socket", nonsense),
}
