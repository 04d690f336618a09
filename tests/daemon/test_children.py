# SPDX-License-Identifier: GPL-3.0-or-later
"""The supervisor's children: neither a failing helper nor a lack of system resources takes mail down.

The daemon here is ``odd_daemon.py``, which has a toy kind of child besides the workers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.config import Configuration
from assay.config.endpoint import Endpoint
from assay.daemon.child import BackOff, Kind
from assay.daemon.listener import Listener
from assay.daemon.meter import DaemonMeter
from assay.daemon.supervisor import Supervisor
from assay.log import Log
from assay.store.channel import RowChannel
from running import PATIENCE, Daemon, until
from sending import ROWS, greet, message, results, send

ODD = Path(__file__).with_name("odd_daemon.py")
HELD_SECONDS = 3.0  # how long a fault lasts: longer than the longest wait without any worker
BACK_SECONDS = 5.0  # after its end, on a busy machine


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, ROWS, program=(str(ODD), str(tmp_path / "fault"))) as one:
        one.wait_for_log(" serves")
        yield one


def toys(daemon: Daemon) -> list[int]:
    """Those that have started to serve, in order."""
    return [int(pid) for pid in re.findall(r"toy (\d+) serves", daemon.log())]


def workers(daemon: Daemon) -> set[int]:
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    return {int(pid) for pid in children} - set(toys(daemon))


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def served(daemon: Daemon) -> bool:
    """Send one message, which is judged."""
    with daemon.mta() as mta:
        greet(mta)
        return "dmarc=pass" in results(send(mta, message("joe@example.org")))


class TestHelper:
    def test_a_helper_that_keeps_dying_never_takes_mail_down(self, daemon: Daemon) -> None:
        before = workers(daemon)
        with daemon.mta() as mta:
            greet(mta)
            for times in range(1, 5):
                until(lambda times=times: len(toys(daemon)) == times, "another toy")
                kill(toys(daemon)[-1])
                daemon.wait_for_log("died (signal 9); starting another in ", times)
                assert "dmarc=pass" in results(send(mta))
        assert served(daemon)
        assert workers(daemon) == before
        waits = [
            float(one) for one in re.findall(r"toy \d+ died \(signal 9\); starting another in ([\d.]+) s", daemon.log())
        ]
        assert waits == [1.0, 2.0, 4.0, 8.0], "each wait is twice the one before, and named"

    def test_it_outlives_the_workers_at_shutdown(self, daemon: Daemon) -> None:
        with daemon.mta() as mta:
            greet(mta)
            daemon.signal(signal.SIGTERM)
            daemon.wait_for_log("ending")
            time.sleep(0.5)
            assert "ends" not in daemon.log(), "an open session may need it"
            assert "dmarc=pass" in results(send(mta))
        assert daemon.wait() == 0
        assert daemon.log().count(" ends") == 1

    def test_it_does_not_keep_the_socket_open(self, daemon: Daemon) -> None:
        (toy,) = toys(daemon)
        (worker, *_) = workers(daemon)

        def sockets(pid: int) -> set[str]:
            links = [path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir()]
            return {str(link) for link in links if str(link).startswith("socket:")}

        assert sockets(toy) == set()
        assert sockets(worker)

    def test_a_reload_starts_a_new_one_when_the_old_one_has_ended(self, daemon: Daemon) -> None:
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log(": reloaded")
        until(lambda: len(toys(daemon)) == 2, "another toy")
        log = daemon.log()
        assert log.index(f"toy {toys(daemon)[0]} ends") < log.index(f"toy {toys(daemon)[1]} serves")

    def test_a_failed_reload_does_not_affect_it(self, daemon: Daemon) -> None:
        daemon.configure(dmarc={"reject": "explode"})
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("not reloaded")
        assert "ends" not in daemon.log()
        assert served(daemon)


@pytest.mark.parametrize(
    ("what", "reason"), [("second fork", "fork"), ("memory for select", "no memory is left"), ("select", "Cannot")]
)
def test_a_reload_that_cannot_start_all_workers_ends_those_and_leaves_the_socket_open(
    daemon: Daemon, what: str, reason: str
) -> None:
    before = workers(daemon)
    (daemon.folder / "fault").write_text(what)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_log(f"not reloaded, the old configuration stays: cannot start a worker: {reason}")
    (daemon.folder / "fault").unlink()
    deadline = time.monotonic() + PATIENCE
    while workers(daemon) != before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert served(daemon)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("fork", "fork: Resource temporarily unavailable"),
        ("memory for fork", "fork: Cannot allocate memory"),
        ("pipe", "pipe: Too many open files"),
    ],
)
class TestExhaustedSystem:
    def test_running_children_are_kept_and_the_others_come_back(self, daemon: Daemon, what: str, reason: str) -> None:
        kept, victim = sorted(workers(daemon))
        (daemon.folder / "fault").write_text(what)
        kill(victim)
        daemon.wait_for_log(f"cannot start a worker: {reason}")
        log = daemon.wait_for_log("trying again in ", 2)
        assert served(daemon)
        assert workers(daemon) == {kept}
        assert "Traceback" not in log
        (daemon.folder / "fault").unlink()
        until(lambda: len(workers(daemon)) == 2, "a new worker")
        assert served(daemon)

    def test_it_retries_often_while_no_worker_is_left(self, daemon: Daemon, what: str, reason: str) -> None:
        (daemon.folder / "fault").write_text(what)
        for pid in workers(daemon):
            kill(pid)
        time.sleep(HELD_SECONDS)
        waits = [float(one) for one in re.findall(r"start a worker: .*; trying again in ([\d.]+) s", daemon.log())]
        assert 2 <= len(waits) <= 4
        assert all(0.0 < one < 2.0 for one in waits)
        (daemon.folder / "fault").unlink()
        until(lambda: served(daemon), "mail is served again", BACK_SECONDS)

    def test_a_reload_that_cannot_start_workers_keeps_the_old_ones(
        self, daemon: Daemon, what: str, reason: str
    ) -> None:
        before = workers(daemon)
        (daemon.folder / "fault").write_text(what)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log(f"not reloaded, the old configuration stays: cannot start a worker: {reason}")
        assert workers(daemon) == before
        assert served(daemon)
        (daemon.folder / "fault").unlink()
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log(": reloaded")
        assert served(daemon)

    def test_it_still_obeys_signals(self, daemon: Daemon, what: str, reason: str) -> None:
        (daemon.folder / "fault").write_text(what)
        for pid in workers(daemon):
            kill(pid)
        daemon.wait_for_log("trying again in ")
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0


@pytest.mark.parametrize("what", ["waitpid", "read", "select", "memory for select"])
def test_a_failing_system_call_of_the_supervisor_ends_nothing(daemon: Daemon, what: str) -> None:
    kept, victim = sorted(workers(daemon))
    (daemon.folder / "fault").write_text(what)
    kill(victim)
    assert "Errno" not in daemon.wait_for_log("; continuing")
    assert served(daemon)
    (daemon.folder / "fault").unlink()
    until(lambda: len(workers(daemon) - {victim}) == 2, "the one that died meanwhile is replaced")
    assert kept in workers(daemon)
    assert served(daemon)
    assert "Traceback" not in daemon.log()


def test_no_descriptor_left(daemon: Daemon) -> None:
    """The same from the kernel itself: the pipe fails because the limit is reached."""
    _, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (4, hard))
    for pid in workers(daemon):
        kill(pid)
    daemon.wait_for_log("cannot start a worker: pipe: Too many open files; trying again in ")
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (hard, hard))
    until(lambda: served(daemon), "mail is served again", BACK_SECONDS)


@pytest.mark.parametrize("at_call", ["first pipe", "second pipe", "fork"])
def test_a_child_that_cannot_be_forked_takes_nothing(at_call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor tries again and again: neither its descriptors nor the pages of figures may run out."""
    calls = iter(("first pipe", "second pipe", "fork"))
    ours: list[int] = []
    pipe = os.pipe

    def call() -> tuple[int, int]:
        if next(calls) == at_call:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        ours.extend(ends := pipe())
        return ends

    monkeypatch.setattr(os, "pipe", call)
    monkeypatch.setattr(os, "fork", call)
    log = Log(lambda level, text: None)
    with contextlib.closing(RowChannel()) as channel:
        listener = Listener(Endpoint.parse("inet:1@127.0.0.1"), -1)
        supervisor = Supervisor(listener, Configuration(), lambda: (Configuration(), log), log, _channel=channel)
        supervisor._meter = DaemonMeter(1, log, "")
        pages = supervisor._meter.pages.all
        taken = [page.taken for page in pages]
        with pytest.raises(OSError, match=f"{at_call.split()[-1]}: Resource temporarily unavailable"):
            supervisor._spawn(Kind("toy", lambda tether: os.EX_OK))
    assert [page.taken for page in pages] == taken
    for end in ours:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(end)


class TestWorkers:
    def test_workers_that_die_young_together_are_missing_for_a_second(self, daemon: Daemon) -> None:
        for times in range(1, 4):
            until(lambda: len(workers(daemon)) == 2, "two workers")
            for pid in workers(daemon):
                kill(pid)
            daemon.wait_for_log("died (signal 9)", 2 * times)
        waits = [float(one) for one in re.findall(r"starting another in ([\d.]+) s", daemon.log())]
        assert len(waits) == 6
        assert max(waits[1::2]) < 2.0, "what is logged when the second one is gone, too"
        until(lambda: served(daemon), "mail is served again", BACK_SECONDS)

    def test_two_that_die_together_count_once(self, tmp_path: Path) -> None:
        program = (str(ODD), str(tmp_path / "fault"))
        with Daemon(tmp_path, ROWS, program=program, milter={"workers": 3}) as daemon:
            daemon.wait_for_log(" serves")
            until(lambda: len(workers(daemon)) == 3, "three workers")
            for pid in sorted(workers(daemon))[:2]:
                kill(pid)
            log = daemon.wait_for_log("starting another in ", 2)
            waits = [float(one) for one in re.findall(r"starting another in ([\d.]+) s", log)]
            assert max(waits) <= 1.0
            until(lambda: len(workers(daemon)) == 3, "three workers")


class TestBackOff:
    def test_it_doubles_up_to_a_limit(self) -> None:
        back_off = BackOff()
        waits = []
        for _ in range(7):
            back_off.on_failure(0.1, waiting=False)
            waits.append(back_off.delay(none_serves=False))
        assert waits == [1, 2, 4, 8, 16, 30, 30]

    def test_failures_together_count_once(self) -> None:
        back_off = BackOff()
        for waiting in (False, True, True, True):
            back_off.on_failure(0.1, waiting=waiting)
        assert back_off.delay(none_serves=False) == 1

    def test_a_child_that_lived_long_is_replaced_at_once(self) -> None:
        back_off = BackOff()
        back_off.on_failure(0.1, waiting=False)
        back_off.on_failure(5.0, waiting=False)
        assert back_off.until(none_serves=False) == 0

    def test_it_shrinks_when_the_last_child_is_gone(self) -> None:
        back_off = BackOff()
        for _ in range(6):
            back_off.on_failure(0.1, waiting=False)
        assert back_off.until(none_serves=False) - back_off.until(none_serves=True) == pytest.approx(28.5)
