# SPDX-License-Identifier: GPL-3.0-or-later
"""What fails while mail flows. Each scenario is a function that runs under load, and what may become of messages."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from faults.clients import HELD, crowded, held, leaving, silent_client, slow
from faults.run import Run, Scenario
from faults.wire import nonsense, odd_macros
from running import exhaust

BAD = "[dmarc]\nreject = 'explode'\n"
FEW_FILES = 300  # descriptors of a process: 150 for the DNS, 80 for a worker itself, 70 for sessions


def nothing(run: Run) -> None:
    run.pause()


def restart(run: Run) -> None:
    silent = silent_client(run)
    for _ in range(2):
        run.pause(0.3)
        run.daemon.stop()
        run.daemon.start()
    run.pause(0.3)
    silent.leave(reset=False)


def reload(run: Run) -> None:
    good = run.daemon.configuration.read_text()
    bad = 2
    for times in range(1, run.times(5, 20) + 1):
        if times == bad:
            run.daemon.configuration.write_text(BAD)
            run.daemon.signal(signal.SIGHUP)
            run.daemon.wait_for_log("not reloaded")
            run.daemon.configuration.write_text(good)
        else:
            run.daemon.signal(signal.SIGHUP)
            run.daemon.wait_for_log(": reloaded", times - (times > bad))
        run.pause(0.1)


def memory_short(run: Run) -> None:
    run.pause(0.3)
    (worker, *_) = run.daemon.workers()
    exhaust(worker)
    run.daemon.wait_for_log(f"worker {worker} died")
    run.pause(0.5)


def unread_log(run: Run) -> None:
    """Nobody reads the log, and it ends at SIGTERM all the same."""
    reader = run.daemon.reader
    assert reader is not None
    run.pause(0.2)
    reader.stop()
    run.pause()
    run.daemon.stop()
    run.daemon.wait_for_orphans()
    reader.start()
    run.daemon.start()
    run.pause(0.3)


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


def dead_dns(run: Run) -> None:
    """Nobody is at its port for half of the time."""
    run.pause(0.2)
    run.daemon.nameserver.stop()
    run.pause(0.5)
    run.daemon.nameserver.start()
    run.pause(0.3)


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


LATE, LEFT = frozenset(("deferred",)), frozenset(("left",))
#: A genuine message that the DNS does not let us judge, also because it has no descriptors for a moment; and one of a
#: session that ended with its process.
SCENARIOS: dict[str, Scenario] = {
    "nothing": Scenario("Nothing fails", nothing),
    "restart": Scenario("Two restarts, with a client that stays silent in its session", restart, LEFT),
    "reload": Scenario("Twenty reloads, one of a configuration that is not valid", reload),
    "killed-worker": Scenario("A worker is killed", killed_worker, LATE),
    "killed-workers": Scenario("All workers are killed at once", killed_workers, LATE),
    "killed-supervisor": Scenario("The main process is killed, and another daemon started", killed_supervisor),
    "dns-dead": Scenario("The nameserver's port is closed", dead_dns),
    "dns-silent": Scenario("The nameserver does not answer", dns(drop=True), LATE),
    "dns-slow": Scenario("The nameserver takes half a second", dns(delay=0.5)),
    "dns-failing": Scenario("The nameserver answers SERVFAIL", dns(rcodes=_Failing()), LATE),
    "dns-lying": Scenario("Before each answer comes one to another question", dns(wrong_question_first=True)),
    "dns-garbage": Scenario("The nameserver answers with octets that are not a DNS message", dns(garbage=True), LATE),
    "dns-flapping": Scenario("The nameserver stops answering three times", flapping_dns, LATE),
    "disk-full": Scenario("The disk of log.facts is full", nothing, sections={"log": {"facts": "/dev/full"}}),
    "unread-pipe": Scenario("The log goes to a pipe that is not read, and SIGTERM comes", unread_log, log="pipe"),
    "unread-syslog": Scenario("syslogd does not read the log, and SIGTERM comes", unread_log, log="syslog"),
    "unread-journald": Scenario("journald does not read the log, and SIGTERM comes", unread_log, log="journald"),
    "memory-short": Scenario("A worker gets no more memory", memory_short, LATE),
    "held": Scenario(f"{HELD:,} sessions are open and say nothing", held),
    "few-descriptors": Scenario(
        "150 sessions are open and say nothing, and a process may have 300 descriptors", crowded, LATE, files=FEW_FILES
    ),
    "leaving": Scenario("Clients leave at each stage, and after the message before its reply", leaving, LEFT),
    "slow-client": Scenario("Clients send an octet a second, at each stage", slow),
    "nonsense": Scenario("Anything but the protocol comes to the milter socket", nonsense),
    "odd-macros": Scenario("A macro without a value comes to the milter socket: libmilter may crash", odd_macros, LATE),
}
