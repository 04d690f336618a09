# SPDX-License-Identifier: GPL-3.0-or-later
"""More sessions than a worker can serve: the others wait, the DNS keeps its descriptors, and no core runs hot."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from assay.cli.mta import MilterError, Mta
from assay.config.endpoint import Endpoint
from assay.daemon import capacity as capacities
from assay.daemon.capacity import DNS_DESCRIPTORS, FEW, MOST, Capacity, Grant, capacity, warning
from assay.daemon.gate import Gate
from assay.inquiry import Answer, Inquiry, Outcome, Question, RecordType
from assay.log import Log
from assay.resolver import Resolver, configured
from nameserver import NameServer
from running import PATIENCE, Daemon
from sending import ROWS, greet, results, send

WAITS_SECONDS = 1.0  # how long a session that must wait is watched


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, ROWS, milter={"workers": 1, "max_sessions": 3}) as one:
        yield one


def answered(daemon: Daemon, seconds: float) -> Mta | None:
    """A session, if the daemon takes one in this time."""
    connection = Endpoint.parse(daemon.socket).connect(seconds)
    try:
        mta = Mta(connection)
    except MilterError:
        connection.close()
        return None
    connection.settimeout(PATIENCE)
    return mta


class TestSessions:
    def test_beyond_the_bound_they_wait_until_one_ends(self, daemon: Daemon) -> None:
        with contextlib.ExitStack() as open_ones:
            first = daemon.mta()
            for _ in range(2):
                open_ones.enter_context(daemon.mta())
            waiting = Endpoint.parse(daemon.socket).connect(WAITS_SECONDS)
            with pytest.raises(MilterError, match="no answer within"):
                Mta(waiting)
            log = daemon.wait_for_log("new sessions wait: 3 sessions open, the most by milter.max_sessions")
            assert log.count("new sessions wait") == 1
            waiting.close()
            began = time.monotonic()
            first.close()
            with contextlib.closing(answered(daemon, PATIENCE)) as mta:  # type: ignore[type-var]  # it is one
                assert mta is not None
                assert time.monotonic() - began < 4, "libmilter is woken: it looks by itself only after 5 s"
                greet(mta)
                assert "dmarc=pass" in results(send(mta))

    def test_the_warning_comes_once_a_minute(self, daemon: Daemon) -> None:
        for _ in range(5):
            with daemon.mta(), daemon.mta(), daemon.mta():
                pass
        daemon.wait_for_log("new sessions wait")
        assert daemon.log().count("new sessions wait") == 1

    def test_open_sessions_are_served_meanwhile(self, daemon: Daemon) -> None:
        with daemon.mta() as one, daemon.mta(), daemon.mta():
            daemon.wait_for_log("new sessions wait")
            greet(one)
            assert "dmarc=pass" in results(send(one))

    def test_it_drains_while_it_is_full(self, daemon: Daemon) -> None:
        with daemon.mta() as one, daemon.mta() as two, daemon.mta() as three:
            daemon.wait_for_log("new sessions wait")
            daemon._process.terminate()  # type: ignore[union-attr]  # it runs
            daemon.wait_for_log("ending")
            greet(one)
            assert "dmarc=pass" in results(send(one))
            for mta in (two, three):
                mta.close()
        assert daemon.wait() == 0


class TestDescriptors:
    LIMIT = 120

    @pytest.fixture
    def full(self, tmp_path: Path) -> Iterator[tuple[Daemon, list[socket.socket]]]:
        """A worker whose sessions have all descriptors."""
        with Daemon(tmp_path, ROWS, milter={"workers": 1}) as daemon:
            (pid,) = daemon.workers()
            time.sleep(1)  # it keeps descriptors by now
            used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 20, hard))
            sessions = [Endpoint.parse(daemon.socket).connect(PATIENCE) for _ in range(60)]
            try:
                yield daemon, sessions
            finally:
                for one in sessions:
                    one.close()

    def test_the_dns_has_some_and_no_core_runs_hot(self, full: tuple[Daemon, list[socket.socket]]) -> None:
        daemon, sessions = full
        with Mta(sessions[0]) as mta:
            greet(mta)
            daemon.wait_for_log("new sessions wait: no descriptor is left")
            assert "dmarc=pass" in results(send(mta)), "answers of the DNS need descriptors"
            before = cpu_seconds(daemon)
            time.sleep(2)
            assert cpu_seconds(daemon) - before < 1

    def test_it_accepts_again_when_sessions_end(self, full: tuple[Daemon, list[socket.socket]]) -> None:
        daemon, sessions = full
        daemon.wait_for_log("new sessions wait: no descriptor is left")
        for one in sessions:
            one.close()
        mta = answered(daemon, PATIENCE)
        assert mta is not None
        with mta:
            greet(mta)
            assert "dmarc=pass" in results(send(mta))


def test_the_dns_of_a_worker_asks_its_gate_for_room(tmp_path: Path) -> None:
    """At once: the next look at the descriptors, which helps as well, is an hour away."""
    program = (str(Path(__file__).with_name("odd_gate.py")),)
    with Daemon(tmp_path, ROWS, program=program, milter={"workers": 1}) as daemon, contextlib.ExitStack() as ending:
        (pid,) = daemon.workers()
        with daemon.mta() as mta:  # the gate has looked by now
            greet(mta)
        used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 3, hard))
        sessions = [ending.enter_context(Endpoint.parse(daemon.socket).connect(PATIENCE)) for _ in range(8)]
        with Mta(sessions[0]) as mta:
            greet(mta)
            assert "dmarc=pass" in results(send(mta))
        assert "new sessions wait: no descriptor is left" in daemon.log()


class FewAddresses(Daemon):
    """A daemon whose processes may map little: each thread needs its stack, used or not."""

    LIMIT = 480 << 20

    def start(self, *before: str, **options: Any) -> None:
        super().start(*before, "prlimit", f"--as={self.LIMIT}", **options)


def test_a_worker_takes_no_more_sessions_than_it_can_map_stacks_for(tmp_path: Path) -> None:
    with FewAddresses(tmp_path, ROWS, milter={"workers": 1}) as daemon, contextlib.ExitStack() as open_ones:
        text = daemon.wait_for_log("because of the limit of address space (LimitAS=, LimitDATA=, ulimit -v, ulimit -d)")
        (sessions,) = map(int, re.findall(r"a worker serves (\d+) sessions at a time, not 100", text))
        first = daemon.mta()
        for _ in range(sessions - 1):
            open_ones.enter_context(daemon.mta())
        assert answered(daemon, WAITS_SECONDS) is None
        greet(first)
        assert "dmarc=pass" in results(send(first))
        first.close()
        last = answered(daemon, PATIENCE)
        assert last is not None
        open_ones.enter_context(last)
        assert "cannot go on" not in daemon.log()


class TestLook:
    @pytest.fixture
    def taken(self) -> Iterator[list[int]]:
        """Descriptors of this process, whose limit comes back."""
        limits, handler = resource.getrlimit(resource.RLIMIT_NOFILE), signal.getsignal(signal.SIGURG)
        taken: list[int] = []
        yield taken
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        signal.signal(signal.SIGURG, handler)

    def test_it_stays_closed_until_descriptors_have_come_free(self, taken: list[int]) -> None:
        lines: list[str] = []
        with socket.create_server(("127.0.0.1", 0)) as listening:
            gate = Gate(listening.fileno(), Capacity(20, "x"), 8, Log(lambda _, line: lines.append(line)))
            gate.look()
            assert not gate.closed
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            gate.look()
            assert gate.closed
            gate.look()
            assert gate.closed, "those that the DNS got are free, but nothing has ended"
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            gate.look()
            assert gate.closed, "the DNS uses what it got, and none is left to look with"
            while taken:
                os.close(taken.pop())
            gate.look()
            assert not gate.closed
            gate.end(refusing=False)
        assert len(lines) == 1

    @pytest.mark.parametrize("truncate", [False, True], ids=["UDP", "TCP"])
    def test_the_dns_has_its_own_at_the_moment_when_the_last_is_taken(self, taken: list[int], truncate: bool) -> None:
        lines: list[str] = []
        with NameServer(ROWS, truncate=truncate) as server, socket.create_server(("127.0.0.1", 0)) as listening:
            gate = Gate(listening.fileno(), Capacity(20, "x"), 8, Log(lambda _, line: lines.append(line)))
            with Resolver(configured([server.text]), make_room=gate.make_room) as resolver:
                resolver.start()
                gate.look()
                with contextlib.suppress(OSError):
                    while True:
                        taken.append(os.open(os.devnull, os.O_RDONLY))
                (answer,) = resolver.driver(5.0).start(question("example.org")).result()
                assert answer.outcome is Outcome.FOUND, answer.reason
                assert gate.closed, "else libmilter would take what was kept"
                assert not gate.make_room()
            gate.end(refusing=False)
        assert len(lines) == 1


def question(name: str) -> Inquiry[list[Answer]]:
    return list((yield [Question(name, RecordType.TXT)]))


class FewThreads(Daemon):
    """A daemon whose user may have few processes and threads. It stays root for files, as which it would have any."""

    LIMIT = 200
    DROPPED = "-sys_resource,-sys_admin"  # see RLIMIT_NPROC in setrlimit(2)

    def start(self, *before: str, **options: Any) -> None:
        limited = (f"--nproc={self.LIMIT}", "setpriv", "--ruid=54321", f"--bounding-set={self.DROPPED}")
        super().start(*before, "prlimit", *limited, **options)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user with a limit of its own")
def test_more_sessions_than_threads_are_all_answered(tmp_path: Path) -> None:
    """Each waits for the DNS in a thread. Beyond the limit libmilter has none, and would never answer."""
    answers: list[int] = []

    def send_one() -> None:
        with contextlib.suppress(MilterError), daemon.mta() as mta:
            greet(mta)
            answers.append(send(mta).code)

    with FewThreads(tmp_path, ROWS, milter={"workers": 1, "max_sessions": 60}) as daemon:
        daemon.nameserver.delay = 0.5
        threads = [threading.Thread(target=send_one) for _ in range(FewThreads.LIMIT + 50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [250] * len(threads)


class FewFiles(Daemon):
    """A daemon whose processes may have few descriptors."""

    def start(self, *before: str, **options: Any) -> None:
        super().start(*before, "prlimit", "--nofile=200:200", **options)


def test_the_start_warns_of_a_low_limit(tmp_path: Path) -> None:
    with FewFiles(tmp_path, ROWS) as daemon:
        daemon.wait_for_log("a worker serves 20 sessions at a time, not 100, because of the limit of open files")


def cpu_seconds(daemon: Daemon) -> float:
    """CPU time of the workers so far."""
    total = 0
    for pid in daemon.workers():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / 100


class TestCapacity:
    @pytest.mark.parametrize(
        ("configured", "workers", "grant", "sessions", "by"),
        [
            (0, 2, Grant(), MOST, "the default"),
            (7, 2, Grant(), 7, "milter.max_sessions"),
            (0, 2, Grant(descriptors=1024), 1024 - DNS_DESCRIPTORS - 80, "LimitNOFILE="),
            (0, 2, Grant(descriptors=200), 20, "LimitNOFILE="),
            (0, 2, Grant(threads=1000), 192, "TasksMax="),
            (0, 8, Grant(threads=1000), 4, "TasksMax="),
            (500, 2, Grant(threads=1000), 192, "TasksMax="),
            (0, 2, Grant(memory=1536 << 20), 100 + 288 * 8, "MemoryMax="),
            (0, 8, Grant(memory=1536 << 20), 100, "MemoryMax="),
            (0, 2, Grant(threads=10), 1, "TasksMax="),
            (0, 2, Grant(addresses=1 << 30), 374, "LimitAS="),
            (0, 8, Grant(addresses=1 << 30), 374, "LimitAS="),
            (0, 2, Grant(addresses=1 << 20), 1, "LimitAS="),
        ],
    )
    def test_the_least_counts(self, configured: int, workers: int, grant: Grant, sessions: int, by: str) -> None:
        found = capacity(configured, workers, grant)
        assert found.sessions == sessions
        assert by in found.by

    @pytest.mark.parametrize(
        ("configured", "found", "text"),
        [
            (0, Capacity(FEW, "x"), ""),
            (0, Capacity(20, "the limit of y"), "20 sessions at a time, not 100, because of the limit of y; raise it"),
            (500, Capacity(300, "z"), "300 sessions at a time, not 500, because of z; raise it"),
            (3, Capacity(3, "milter.max_sessions"), ""),
        ],
    )
    def test_what_is_warned_of(self, configured: int, found: Capacity, text: str) -> None:
        assert warning(configured, found).endswith(text)
        assert bool(warning(configured, found)) is bool(text)


class TestGrant:
    """What the control groups grant: version 2 has one tree, version 1 one for each controller."""

    @pytest.fixture
    def write(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, str]], None]:
        def write(ours: str, files: dict[str, str]) -> None:
            for name, text in (files | {"ours": ours}).items():
                path = tmp_path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)

        def found(text: str) -> Path:
            return tmp_path / "ours" if text == "/proc/self/cgroup" else Path(text)

        monkeypatch.setattr(capacities, "_CGROUPS", tmp_path)
        monkeypatch.setattr(capacities, "Path", found)
        return write

    def test_a_group_above_ours_may_grant_less(self, write: Callable[[str, dict[str, str]], None]) -> None:
        write("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "2000", "memory.max": "3000"})
        assert capacities.granted.__wrapped__().memory == 2000

    def test_no_limit_in_version_1_is_a_number(self, write: Callable[[str, dict[str, str]], None]) -> None:
        name = "memory.limit_in_bytes"
        write("5:cpu,memory:/a\n", {f"memory/a/{name}": str((1 << 63) - 4096)})
        assert capacities.granted.__wrapped__().memory is None
        write("5:cpu,memory:/a\n", {f"memory/{name}": "4000"})
        assert capacities.granted.__wrapped__().memory == 4000

    def test_other_programs_in_our_group_have_taken_some(self, write: Callable[[str, dict[str, str]], None]) -> None:
        write("0::/a\n", {"a/pids.max": "100", "a/pids.current": "30", "pids.max": "90", "pids.current": "80"})
        assert capacities._pids() == 60
