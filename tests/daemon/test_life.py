# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of the daemon: it starts or reports why not, and reloads, stops and recovers without losing a message."""

from __future__ import annotations

import grp
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.cli.mta import MilterError
from assay.cli.serve import read_for_serving
from assay.config import ConfigError
from assay.config.endpoint import Endpoint
from assay.daemon.worker import keep_to
from assay.log import Level, Log
from running import PATIENCE, Daemon, fill, until
from sending import OUR_ID, ROWS, greet, half_a_message, message, other_half, results, send

QUICK = 5.0  # seconds that "soon" may take on a busy machine
AT_ONCE = 3.0  # seconds; less than the 5 s that libmilter may sleep in poll() with the old socket


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, ROWS) as one:
        yield one


def workers(daemon: Daemon) -> set[int]:
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    return {int(pid) for pid in children}


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def serve(folder: Path, text: str, *, name: str = "other.toml") -> subprocess.CompletedProcess[str]:
    """Start a daemon that is expected to exit by itself."""
    path = folder / name
    path.write_text(text)
    command = [sys.executable, "-m", "assay", "serve", "-c", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


class TestEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_starts_draining(self, daemon: Daemon, number: signal.Signals) -> None:
        with daemon.mta() as mta:
            half_a_message(mta)
            began = time.monotonic()
            daemon.signal(number)
            until(lambda: refused(daemon), "new connections are refused while old ones drain")
            assert time.monotonic() - began < AT_ONCE
            assert daemon._process is not None
            assert daemon._process.poll() is None
            assert "dmarc=pass" in other_half(mta)
        began = time.monotonic()
        assert daemon.wait() == 0
        assert time.monotonic() - began < QUICK
        assert not Path(daemon.socket.partition(":")[2]).exists()
        assert "queue=4L1" in daemon.log()
        assert "ERROR" not in daemon.log()

    @pytest.mark.parametrize("kind", ["inet:{port}@127.0.0.1", "inet6:{port}@::1"])
    def test_a_port_is_free_at_once(self, tmp_path: Path, kind: str, free_port: int) -> None:
        heirs = tmp_path / "heirs"
        heirs.mkdir()
        with Daemon(tmp_path, ROWS, socket=kind.format(port=free_port)) as daemon, daemon.mta() as mta:
            half_a_message(mta)
            began = time.monotonic()
            daemon.signal(signal.SIGTERM)
            until(lambda: refused(daemon), "new connections are refused")
            assert time.monotonic() - began < AT_ONCE
            with Daemon(heirs, ROWS, socket=daemon.socket) as heir, heir.mta() as another:
                greet(another)
                assert "dmarc=pass" in results(send(another))
            assert "dmarc=pass" in other_half(mta)

    def test_an_idle_connection_may_still_send(self, daemon: Daemon) -> None:
        with daemon.mta() as mta:
            greet(mta)
            assert "dmarc=pass" in results(send(mta))
            daemon.signal(signal.SIGTERM)
            daemon.wait_for_log("ending")
            time.sleep(0.5)
            assert "dmarc=pass" in results(send(mta))
        assert daemon.wait() == 0

    def test_without_sessions_it_stops_soon(self, daemon: Daemon) -> None:
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0
        assert time.monotonic() - began < QUICK

    def test_a_closed_connection_is_not_waited_for(self, daemon: Daemon) -> None:
        mta = daemon.mta()
        half_a_message(mta)
        mta._stream.close()
        mta._connection.close()
        daemon.signal(signal.SIGTERM)
        began = time.monotonic()
        assert daemon.wait() == 0
        assert time.monotonic() - began < QUICK

    def test_a_second_signal_stops_at_once(self, daemon: Daemon) -> None:
        with daemon.mta() as mta:
            half_a_message(mta)
            daemon.signal(signal.SIGTERM)
            daemon.wait_for_log("ending")
            began = time.monotonic()
            daemon.signal(signal.SIGTERM)
            daemon.wait()
            assert time.monotonic() - began < QUICK
            with pytest.raises(MilterError):
                other_half(mta)

    def test_draining_has_a_time_limit(self, tmp_path: Path) -> None:
        with Daemon(tmp_path, ROWS, milter={"drain_seconds": 1.0}) as daemon, daemon.mta() as mta:
            half_a_message(mta)
            daemon.signal(signal.SIGTERM)
            assert daemon.wait() == 0
            assert "closing 1 session still open after 1 s" in daemon.log()

    def test_where_pinning_to_a_core_is_forbidden_a_worker_continues_and_logs_it(self) -> None:
        logged: list[tuple[Level, str]] = []
        no_such_core = max(os.sched_getaffinity(0)) + 1000
        keep_to(no_such_core, Log(lambda level, text: logged.append((level, text)), Level.DEBUG))
        assert logged == [(Level.DEBUG, "threads are not kept to one core: Invalid argument")]

    @pytest.mark.parametrize("share", [1.0, 0.5], ids=["a worker for each core", "fewer workers than cores"])
    def test_each_worker_is_pinned_to_a_core_and_its_threads_do_not_preempt_each_other(
        self, tmp_path: Path, share: float
    ) -> None:
        cores = os.sched_getaffinity(0)
        count = max(1, int(share * len(cores)))
        with Daemon(tmp_path, ROWS, milter={"workers": count}) as daemon:
            until(lambda: len(workers(daemon)) == count, "all workers")
            pids = workers(daemon)
            until(lambda: all(len(os.sched_getaffinity(pid)) == 1 for pid in pids), "all are pinned")
            assert len(set().union(*map(os.sched_getaffinity, pids))) == count
            until(lambda: {os.sched_getscheduler(pid) for pid in pids} == {os.SCHED_BATCH}, "none preempts another")

    def test_workers_drain_and_exit_when_their_supervisor_is_killed(self, daemon: Daemon) -> None:
        pids = workers(daemon)
        assert len(pids) == 2
        with daemon.mta() as mta:
            half_a_message(mta)
            began = time.monotonic()
            daemon.signal(signal.SIGKILL)
            daemon.wait()
            until(lambda: refused(daemon), "new connections are refused")
            assert time.monotonic() - began < AT_ONCE
            assert any(map(alive, pids))
            assert "dmarc=pass" in other_half(mta)
        until(lambda: not any(map(alive, pids)), "workers exit by themselves")


def refused(daemon: Daemon) -> bool:
    try:
        Endpoint.parse(daemon.socket).connect(1).close()
    except OSError:
        return True
    return False


class TestReload:
    def test_a_good_configuration_takes_effect(self, daemon: Daemon) -> None:
        with daemon.mta() as old:
            half_a_message(old)
            daemon.configure(dmarc={"reject": "reject"}, identity={"authserv_id": "new.example.net"})
            daemon.signal(signal.SIGHUP)
            daemon.wait_for_log("reloaded")

            def new() -> bool:
                with daemon.mta() as mta:
                    greet(mta)
                    return (
                        results(send(mta)).startswith("new.example.net;")
                        and send(mta, message("a@reject.example")).code == 550
                    )

            until(new, "an old worker may still take a session")
            assert other_half(old).startswith(OUR_ID), "an open session keeps the configuration it began with"

    @pytest.mark.parametrize(
        ("broken", "reason"),
        [
            pytest.param({"dmarc": {"reject": "explode"}}, "dmarc.reject", id="a wrong word"),
            pytest.param({"dmarc": {"rejct": "reject"}}, "did you mean reject?", id="an unknown key"),
            pytest.param({"dns": {"zone": "/nonexistent"}}, "/nonexistent: No such file", id="a missing zone file"),
            pytest.param({"log": {"to": "syslog", "facility": "nowhere"}}, "log.facility", id="an unknown facility"),
        ],
    )
    def test_a_broken_configuration_keeps_the_old_one(
        self, daemon: Daemon, broken: dict[str, dict[str, str]], reason: str
    ) -> None:
        pids = workers(daemon)
        daemon.configure(**broken)
        daemon.signal(signal.SIGHUP)
        log = daemon.wait_for_log("not reloaded, the old configuration stays: ")
        assert reason in log
        assert workers(daemon) == pids
        with daemon.mta() as mta:
            greet(mta)
            assert "dmarc=pass" in results(send(mta))
        daemon.configure()
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log(": reloaded")

    def test_a_missing_file_keeps_the_old_configuration(self, daemon: Daemon) -> None:
        daemon.configuration.unlink()
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("not reloaded, the old configuration stays: ")
        with daemon.mta() as mta:
            greet(mta)
            assert "dmarc=pass" in results(send(mta))

    def test_another_socket_needs_a_restart(self, daemon: Daemon) -> None:
        daemon.configure(milter={"socket": "inet:1@127.0.0.1"})
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log("milter.socket has changed")
        with daemon.mta() as mta:
            greet(mta)
            assert "dmarc=pass" in results(send(mta))

    def test_new_workers_that_cannot_serve_do_not_replace_the_old(self, tmp_path: Path) -> None:
        # A zone that differs each time it is read: valid when the supervisor checks it, then broken for the worker.
        zone = tmp_path / "zone"
        os.mkfifo(zone)

        good = "nothing.example. A 192.0.2.1\n"
        writer = fill(zone, good, good)
        with Daemon(tmp_path, ROWS, dns={"zone": str(zone)}, milter={"workers": 1}) as daemon:
            writer.join()
            old = workers(daemon)
            writer = fill(zone, good, "broken\n")
            daemon.signal(signal.SIGHUP)
            daemon.wait_for_log("a worker with the new configuration cannot serve")
            writer.join()
            assert "cannot serve: SettingError" in daemon.log()
            with daemon.mta() as mta:
                greet(mta)
                assert "dmarc=pass" in results(send(mta))
            until(lambda: workers(daemon) == old, "the old worker and no other")

    def test_a_worker_that_dies_later_is_replaced_by_one_of_the_new_configuration(self, daemon: Daemon) -> None:
        daemon.configure(identity={"authserv_id": "new.example.net"})
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_log(": reloaded")
        until(lambda: len(workers(daemon)) == 2, "drained workers are gone")
        for pid in workers(daemon):
            os.kill(pid, signal.SIGKILL)
        daemon.wait_for_log("died (signal 9)", 2)
        with daemon.mta() as mta:
            greet(mta)
            assert results(send(mta)).startswith("new.example.net;")

    def test_a_second_reload_while_old_workers_drain(self, daemon: Daemon) -> None:
        with daemon.mta() as first, daemon.mta() as second:
            half_a_message(first)
            half_a_message(second)
            for times in range(1, 4):
                daemon.signal(signal.SIGHUP)
                daemon.wait_for_log(": reloaded", times)
                with daemon.mta() as mta:
                    greet(mta)
                    assert "dmarc=pass" in results(send(mta))
            assert "dmarc=pass" in other_half(first)
            assert "dmarc=pass" in other_half(second)
        until(lambda: len(workers(daemon)) == 2, "drained workers are gone")
        assert "ERROR" not in daemon.log()

    def test_no_session_is_lost_under_load(self, daemon: Daemon) -> None:
        stop = threading.Event()
        verdicts: list[str] = []
        faults: list[str] = []

        def load() -> None:
            while not stop.is_set():
                try:
                    with daemon.mta() as mta:
                        greet(mta)
                        for _ in range(3):
                            verdicts.append(results(send(mta)))
                except (OSError, MilterError) as error:
                    faults.append(repr(error))

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for times in range(1, 6):
                daemon.signal(signal.SIGHUP)
                daemon.wait_for_log(": reloaded", times)
                time.sleep(0.3)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert faults == []
        assert len(verdicts) > 50
        assert all("dmarc=pass" in verdict for verdict in verdicts)
        assert "ERROR" not in daemon.log()


class TestWorkers:
    def test_a_killed_worker_is_replaced(self, daemon: Daemon) -> None:
        old = workers(daemon)
        victim = min(old)
        os.kill(victim, signal.SIGKILL)
        daemon.wait_for_log(f"worker {victim} died (signal 9)")
        until(lambda: len(workers(daemon)) == 2 and victim not in workers(daemon), "a new worker")
        with daemon.mta() as mta:
            greet(mta)
            assert "dmarc=pass" in results(send(mta))

    def test_workers_that_die_young_are_restarted_with_back_off(self, daemon: Daemon) -> None:
        for times in range(1, 3):
            until(lambda: len(workers(daemon)) == 2, "two workers")
            os.kill(max(workers(daemon)), signal.SIGKILL)
            daemon.wait_for_log("(signal 9)", times)
        began = time.monotonic()
        until(lambda: len(workers(daemon)) == 2, "workers come back")
        assert time.monotonic() - began > 1, "the second wait is longer"
        with daemon.mta() as mta:
            greet(mta)
            assert "dmarc=pass" in results(send(mta))

    def test_a_stop_while_no_worker_is_left(self, daemon: Daemon) -> None:
        for pid in workers(daemon):
            os.kill(pid, signal.SIGKILL)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0


class TestSocket:
    @pytest.mark.parametrize("kind", ["unix", "inet", "inet6"])
    def test_a_socket_in_use(self, tmp_path: Path, kind: str, free_port: int) -> None:
        text = {
            "unix": f"unix:{tmp_path}/assay.sock",
            "inet": f"inet:{free_port}@127.0.0.1",
            "inet6": f"inet6:{free_port}@::1",
        }[kind]
        with Daemon(tmp_path, ROWS, socket=text) as daemon:
            second = serve(tmp_path, f'[milter]\nsocket = "{text}"\n[dns]\nnameservers = "none"\n')
            assert second.returncode == 69
            assert text in second.stderr
            assert "another daemon" in second.stderr or "Address already in use" in second.stderr
            assert "Traceback" not in second.stderr
            with daemon.mta() as mta:
                greet(mta)
                assert "dmarc=pass" in results(send(mta))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["assay.log", "assay.toml", "other.toml"]

    def test_a_stale_path_is_replaced(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(tmp_path / "assay.sock"))
        with Daemon(tmp_path, ROWS) as daemon, daemon.mta() as mta:
            greet(mta)
            assert "dmarc=pass" in results(send(mta))

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            pytest.param(
                "file", ": not a socket; remove the file, or write another path", id="a file is not overwritten"
            ),
            pytest.param("folder", ": not a socket; remove the file, or write another path", id="a directory"),
            pytest.param("link", ": not a socket; remove the file, or write another path", id="a symbolic link"),
            pytest.param(
                "missing/assay.sock", "No such file or directory; create the directory ", id="a missing directory"
            ),
            pytest.param(
                "file/assay.sock", "Not a directory; write a path below a directory", id="a file for a directory"
            ),
            pytest.param("x" * 120, "too long; write a shorter path", id="a path beyond what sockets can carry"),
        ],
    )
    def test_an_unusable_path(self, tmp_path: Path, path: str, reason: str) -> None:
        (tmp_path / "file").write_text("precious")
        (tmp_path / "folder").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "file")
        ended = serve(tmp_path, f'[milter]\nsocket = "unix:{tmp_path}/{path}"\n')
        assert ended.returncode == 69
        assert f"other.toml: milter.socket: unix:{tmp_path}/{path}: " in ended.stderr
        assert reason in ended.stderr
        assert "Traceback" not in ended.stderr
        assert (tmp_path / "file").read_text() == "precious"

    def test_socket_mode_and_group(self, tmp_path: Path) -> None:
        group = grp.getgrgid(os.getgroups()[-1] if os.getuid() else 1)
        milter = {"socket_mode": "0606", "socket_group": group.gr_name}
        with Daemon(tmp_path, ROWS, milter=milter):
            status = (tmp_path / "assay.sock").stat()
            assert stat.S_IMODE(status.st_mode) == 0o606
            assert status.st_gid == group.gr_gid

    def test_an_unknown_group(self, tmp_path: Path) -> None:
        ended = serve(tmp_path, f'[milter]\nsocket = "unix:{tmp_path}/s"\nsocket_group = "no-such-group"\n')
        assert ended.returncode == 78
        assert "other.toml: milter.socket_group: 'no-such-group' is not a group of this host; create it" in ended.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["other.toml"]

    @pytest.mark.parametrize(
        ("user", "message"),
        [
            ("no-such-user", "is not a user of this host; run: useradd"),
            ("root", "has the rights of root; write a user"),
        ],
    )
    def test_a_user_that_it_cannot_become(self, tmp_path: Path, user: str, message: str) -> None:
        text = f'[milter]\nsocket = "unix:{tmp_path}/s"\nuser = "{user}"\n'
        ended = serve(tmp_path, text)
        assert ended.returncode == 78
        assert f"other.toml: milter.user: '{user}' {message}" in ended.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["other.toml"]
        with pytest.raises(ConfigError, match=r"milter\.user: "):
            read_for_serving(tmp_path / "other.toml")

    def test_what_a_child_needs_is_missing(self, tmp_path: Path) -> None:
        store = f'[store]\ndirectory = "{tmp_path}/store"\n'
        reports = '[reports]\norganization = "Example Ltd"\ncontact = "dmarc@example.org"\n'
        ended = serve(tmp_path, f'[milter]\nsocket = "unix:{tmp_path}/s"\n{store}{reports}')
        assert ended.returncode == 78
        assert "other.toml: reports.contact: nothing signs as example.org" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert not (tmp_path / "s").exists()

    def test_an_address_of_another_host(self, tmp_path: Path) -> None:
        ended = serve(tmp_path, '[milter]\nsocket = "inet:8899@192.0.2.1"\n')
        assert ended.returncode == 69
        assert (
            "milter.socket: inet:8899@192.0.2.1: Cannot assign requested address; write an address of this host"
            in ended.stderr
        )

    def test_a_broken_configuration(self, tmp_path: Path) -> None:
        ended = serve(tmp_path, "[milter]\nsocket = 1\n")
        assert ended.returncode == 78
        assert "milter.socket" in ended.stderr
