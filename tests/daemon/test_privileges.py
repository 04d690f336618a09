# SPDX-License-Identifier: GPL-3.0-or-later
"""From root to a user without privileges, and what the service manager is told. Most of it needs root to be tested."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.config.endpoint import Endpoint
from assay.daemon.child import Child, Kind
from assay.daemon.pulse import HANGS, LOOK, Pulse
from assay.metrics import Pages
from running import PATIENCE, Daemon
from sending import ROWS, greet

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
USER = "nobody"


def ids(pid: int, field: str) -> list[int]:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(field + ":")]
    return [int(word, 16 if field.startswith("Cap") else 10) for word in line.split()[1:]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One that every user may enter, unlike pytest's."""
    for above in (tmp_path, *tmp_path.parents):
        if above.owner() == "root" and str(above) not in ("/", "/tmp"):
            above.chmod(above.stat().st_mode | stat.S_IXOTH)
    return tmp_path


@needs_root
class TestUser:
    def test_nothing_of_root_is_left_in_any_process(self, folder: Path) -> None:
        entry = pwd.getpwnam(USER)
        with Daemon(folder, ROWS, milter={"user": USER}) as daemon:
            workers = daemon.workers()
            assert workers
            for pid in (daemon.pid, *workers):
                assert ids(pid, "Uid") == [entry.pw_uid] * 4
                assert ids(pid, "Gid") == [entry.pw_gid] * 4
                assert ids(pid, "Groups") == []
                assert [ids(pid, name) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")] == [[0]] * 4
                assert ids(pid, "NoNewPrivs") == [1]
            with daemon.mta() as mta:
                greet(mta)
            status = os.stat(Endpoint.parse(daemon.socket).path)
            assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (entry.pw_uid, entry.pw_gid, 0o660)
            assert "runs as root" not in daemon.log()

    def test_the_socket_may_have_the_group_of_the_mta(self, folder: Path) -> None:
        with Daemon(folder, ROWS, milter={"user": USER, "socket_group": "mail"}) as daemon:
            status = os.stat(Endpoint.parse(daemon.socket).path)
            assert (status.st_uid, status.st_gid) == (pwd.getpwnam(USER).pw_uid, 8)

    def test_a_reload_that_will_fail_is_announced_at_the_start(self, folder: Path) -> None:
        (folder / "list").write_text("example.org\n")
        (folder / "list").chmod(0o600)
        with Daemon(folder, ROWS, milter={"user": USER}, lists={"l": str(folder / "list")}) as daemon:
            log = daemon.wait_for_log("a reload will fail, because nobody cannot read what root has read")
            assert "lists.l" in log
            daemon.signal(signal.SIGHUP)
            daemon.wait_for_log("not reloaded, the old configuration stays")

    def test_what_the_daemon_writes_is_checked_as_the_user(self, folder: Path) -> None:
        with pytest.raises(AssertionError, match="cannot be written: Permission denied"):
            Daemon(folder, ROWS, milter={"user": USER}, log={"facts": str(folder / "facts")}).__enter__()
        assert not (folder / "facts").exists()

    def test_without_a_user_root_is_warned(self, folder: Path) -> None:
        with Daemon(folder, ROWS) as daemon:
            daemon.wait_for_log("runs as root, which it never needs; set milter.user")

    @pytest.mark.parametrize(
        ("user", "message"),
        [("root", "has the rights of root"), ("nosuch", "run: useradd --system --user-group nosuch")],
    )
    def test_a_user_that_cannot_be(self, folder: Path, user: str, message: str) -> None:
        with pytest.raises(AssertionError, match=message):
            Daemon(folder, ROWS, milter={"user": user}).__enter__()


def test_no_socket_is_left_if_the_process_cannot_become_the_user(tmp_path: Path) -> None:
    user = pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() else USER
    (tmp_path / "c.toml").write_text(f'[milter]\nsocket = "unix:{tmp_path}/socket"\nuser = "{user}"\n')
    code = (
        "import sys\nfrom assay.cli import main, serve\nfrom assay.daemon.privileges import PrivilegesError\n"
        "def become(user): raise PrivilegesError('milter.user: in a container without CAP_SETUID')\n"
        f"serve.become = become\nsys.exit(main.main(['serve', '-c', '{tmp_path}/c.toml']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == os.EX_NOPERM
    assert "c.toml: milter.user: in a container without CAP_SETUID" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["c.toml"]


class TestBecome:
    """In a process of its own, whose identity is changed first."""

    def run(self, *lines: str, **options: object) -> str:
        code = "import os\nfrom assay.daemon.privileges import Account, PrivilegesError, become\n" + "\n".join(lines)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    @needs_root
    def test_another_user_is_refused_with_the_fix(self) -> None:
        said = self.run("os.setresuid(1, 1, 1)", "become(Account('daemon', 2, 2))")
        assert "only root can become 'daemon'; start the daemon as root or as daemon" in said

    @needs_root
    def test_a_process_of_that_user_stays_as_it_is(self) -> None:
        assert (
            self.run("os.setresuid(1, 1, 1)", "become(Account('daemon', 1, 1))", "print(os.getresuid())")
            == "(1, 1, 1)\n"
        )

    @needs_root
    def test_there_is_no_way_back(self) -> None:
        lines = ("become(Account('daemon', 1, 1))", "os.setresuid(0, 0, 0)")
        assert "PermissionError" in self.run(*lines)


class Manager:
    """The service manager: what it has heard, in order."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(PATIENCE)
        self.heard: list[str] = []

    def until(self, wanted: str, times: int = 1) -> None:
        """Listen until it has heard this so many times."""
        ends = time.monotonic() + PATIENCE
        while self.heard.count(wanted) < times:
            assert time.monotonic() < ends, self.heard
            self.heard += self._socket.recv(4096).decode().split("\n")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    one = Manager(tmp_path / "notify")
    yield one
    one.close()


def test_the_service_manager_hears_of_start_reload_life_and_end(tmp_path: Path, manager: Manager) -> None:
    with Daemon(tmp_path, ROWS) as daemon:
        manager.until(f"STATUS=2 of 2 workers serve on {daemon.socket}")
        assert manager.heard.index("READY=1") < len(manager.heard)
        manager.until("WATCHDOG=1", manager.heard.count("WATCHDOG=1") + 1)
        daemon.signal(signal.SIGHUP)
        manager.until("READY=1", 2)
        assert "RELOADING=1" in manager.heard
        assert any(line.startswith("MONOTONIC_USEC=") for line in manager.heard)
        daemon.signal(signal.SIGTERM)
        manager.until("STOPPING=1")


def test_the_status_says_how_many_workers_serve(tmp_path: Path, manager: Manager) -> None:
    with Daemon(tmp_path, ROWS, milter={"workers": 1}) as daemon:
        manager.until(f"STATUS=1 of 1 workers serve on {daemon.socket}")
        (worker,) = daemon.workers()
        manager.heard.clear()
        os.kill(worker, signal.SIGKILL)
        manager.until(f"STATUS=0 of 1 workers serve on {daemon.socket}")
        manager.until(f"STATUS=1 of 1 workers serve on {daemon.socket}")


class TestPulse:
    def child(self) -> Child:
        pages = Pages(1)
        child = Child(Kind("worker", lambda _: 0, serves_mail=True), 4711, 0, -1, -1, pages.take())
        child.serving = True
        return child

    def look(self, pulse: Pulse, child: Child, begin: float, seconds: float, *, beats: bool) -> bool:
        """Whether it ever hangs in this time."""
        hangs = False
        at = begin
        while at <= begin + seconds:
            if beats:
                child.page.note(b"x")
            hangs |= pulse.hanging([child], at) != []
            at += LOOK
        return hangs

    def test_a_worker_that_writes_notes_lives(self) -> None:
        assert not self.look(Pulse(), self.child(), 0, 10 * HANGS, beats=True)

    def test_a_worker_that_writes_none_hangs(self) -> None:
        pulse, child = Pulse(), self.child()
        assert not self.look(pulse, child, 0, HANGS - LOOK, beats=False)
        assert self.look(pulse, child, HANGS, LOOK, beats=False)

    def test_a_pause_of_our_own_proves_nothing(self) -> None:
        pulse, child = Pulse(), self.child()
        self.look(pulse, child, 0, LOOK, beats=True)
        assert pulse.hanging([child], 10 * HANGS) == []
        assert not self.look(pulse, child, 10 * HANGS + LOOK, HANGS - 2 * LOOK, beats=False)

    def test_a_draining_worker_and_one_without_a_shared_page_are_left_alone(self) -> None:
        draining, private = self.child(), self.child()
        draining.draining_until = time.monotonic()
        private.page.taken = False
        pulse = Pulse()
        for child in (draining, private):
            assert not self.look(pulse, child, 0, 2 * HANGS, beats=False)
