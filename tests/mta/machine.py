# SPDX-License-Identifier: GPL-3.0-or-later
"""A private Debian machine for the tests: what an administrator types there works as on a real one, and stays there.

Its file system is this machine's with a layer in memory above it (overlayfs), and it has processes, a host name and a
network of its own, all of which end with it. Postfix or Sendmail is installed there from Debian's packages, as fetched
by ``contrib/fetch.sh deb``, and started. So paths, ports, users, Debian's configuration and Postfix's chroot are the
real ones. Needs root.

What differs from a real machine:

- There is no network but the loopback, which also has `ADDRESS`, the public address of `HOSTNAME`. A client that
  connects there has that address too, so the MTA sees a stranger. A nameserver of the tests answers at 127.0.0.1.
- ``apt-get`` installs nothing: what the page lists is here already.
- ``pip`` works without an index: the program itself is built and installed, and uses the dependencies of the tests.
- ``systemctl`` is ``mta/systemctl.py``, which reads the units and does what they say.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

from mta.base import HOSTNAME, PROJECT, UnavailableError

PACKAGES: Final = Path(os.environ.get("ASSAY_DEB") or PROJECT / ".cache" / "deb")
TESTS: Final = PROJECT / "tests"
ADDRESS: Final = "203.0.113.1"  # not 192.0.2.0/24, which Sendmail of Debian refuses
SYSTEMCTL: Final = TESTS / "mta" / "systemctl.py"
CLONE: Final = "/root/assay"
PATIENCE: Final = 60.0  # seconds, for what takes less than five on an idle machine

#: What `python3` is there: the interpreter of the tests, without their environment.
_PYTHON: Final = Path(sys.base_prefix)
_ROWS: Final = {
    HOSTNAME: [["A", ADDRESS], ["MX", [10, HOSTNAME]]],
    "1.113.0.203.in-addr.arpa": [["PTR", HOSTNAME]],
    # As in the public DNS: this domain sends no mail.
    "example.com": [["A", "198.51.100.1"], ["TXT", ["v=spf1 -all"]]],
    "_dmarc.example.com": [["TXT", ["v=DMARC1;p=reject;sp=reject;adkim=s;aspf=s"]]],
}

_UNSHARE: Final = ("unshare", "--mount", "--net", "--uts", "--ipc")

#: $1 is the directory of the machine, $2 its host name, $3... are directories that must be visible inside.
_SETUP: Final = """\
set -e
folder=$1 name=$2
shift 2
hostname "$name"
mount -t tmpfs -o mode=0755 tmpfs "$folder"
mkdir "$folder/above" "$folder/work" "$folder/root"
mount -t overlay -o "lowerdir=/,upperdir=$folder/above,workdir=$folder/work" overlay "$folder/root"
for place; do
    [ -e "$folder/root$place" ] || { mkdir -p "$folder/root$place"; mount --bind "$place" "$folder/root$place"; }
    while [ "$place" != / ]; do chmod a+rx "$folder/root$place"; place=$(dirname "$place"); done
done
cd "$folder/root"
mount -t proc proc proc
mount -t tmpfs -o mode=0755 tmpfs dev
for device in null zero full random urandom tty; do : >"dev/$device"; mount --bind "/dev/$device" "dev/$device"; done
ln -s /proc/self/fd dev/fd
mkdir dev/shm
mount -t tmpfs -o mode=0755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
exec chroot . sleep infinity
"""

#: Runs inside. Opens the loopback with a second address, which needs no program.
_NETWORK: Final = """\
import fcntl, socket, struct, sys
with socket.socket() as any_socket:
    def request(number, name, value):
        fcntl.ioctl(any_socket, number, struct.pack("16s24s", name, value))
    request(0x8914, b"lo", struct.pack("H", 0x41))  # SIOCSIFFLAGS: IFF_UP, IFF_RUNNING
    address = struct.pack("=HH4s", socket.AF_INET, 0, socket.inet_aton(sys.argv[1]))
    request(0x8916, b"lo:1", address)  # SIOCSIFADDR
"""

_NAMESERVER: Final = """\
import json, sys, threading
from nameserver import NameServer
server = NameServer(json.loads(sys.argv[1]))
server.address = ("127.0.0.1", 53)
with server:
    print("ready", flush=True)
    threading.Event().wait()
"""


_SYSLOG: Final = """\
import os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log, open(sys.argv[1], "ab", buffering=0) as file:
    log.bind("/dev/log")
    os.chmod("/dev/log", 0o666)
    print("ready", flush=True)
    while line := log.recv(65536):
        file.write(line.rstrip(b"\\0\\n") + b"\\n")
"""

#: Start the MTA, which receives mail for its host from everywhere, as a mail server does.
_RECEIVE: Final = {
    "postfix": "/etc/init.d/postfix start",
    "sendmail": "sed -i 's/, Addr=127.0.0.1//; s/^FEATURE(`greet_pause.*$/dnl/' /etc/mail/sendmail.mc\n"
    f"echo {HOSTNAME} >>/etc/mail/local-host-names\n"
    "make -C /etc/mail\n/etc/init.d/sendmail start",
}


class Machine:
    """The machine with one MTA, ``postfix`` or ``sendmail``, while the context lasts."""

    def __init__(self, mta: str) -> None:
        self.mta = mta
        self._ending = contextlib.ExitStack()
        self._init = 0

    @classmethod
    def check(cls) -> None:
        """Raise `UnavailableError` if there can be no such machine here."""
        if not PACKAGES.is_dir():
            raise UnavailableError(f"no packages in {PACKAGES}: run sh contrib/fetch.sh deb")
        if os.geteuid() != 0:
            raise UnavailableError("a private machine needs namespaces: run the tests as root")
        if any(Path(path).exists() for path in ("/etc/postfix", "/etc/mail", "/etc/exim4")):
            raise UnavailableError("this machine has an MTA of its own, which would be in the private one")
        with tempfile.TemporaryDirectory() as folder:
            setup = _SETUP.replace("exec chroot . sleep infinity", "")
            possible = subprocess.run(
                [*_UNSHARE, "sh", "-c", setup, "setup", folder, HOSTNAME],
                capture_output=True,
                text=True,
                check=False,
            )
        if possible.returncode != 0:
            raise UnavailableError(f"no namespaces for a private machine: {possible.stderr.strip()}")

    def __enter__(self) -> Self:
        folder = tempfile.mkdtemp(prefix="assay-machine-")
        self._ending.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            self._boot(folder)
            self._install()
        except BaseException:
            self._ending.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    # -- commands

    def run(self, script: str, *, fails: bool = False, user: str = "root") -> str:
        """Run a script of shell as an administrator would, in the clone; what it printed.

        :param fails: whether it must fail.
        """
        command = ["runuser", "-u", user, "--", "sh", "-ec"] if user != "root" else ["sh", "-ec"]
        done = subprocess.run(
            [*self._inside(), *command, script],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=5 * PATIENCE,
            check=False,
        )
        assert (done.returncode != 0) is fails, f"{script}\n{done.stdout}\n{self.logs()}"
        return done.stdout

    @contextlib.contextmanager
    def running(self, script: str, until: str) -> Iterator[None]:
        """Run a script in the background, as in a second terminal, while the context lasts; end it by Ctrl-C.

        :param until: what it prints when it is ready.
        """
        output = self.root / "var/log/terminal"
        with output.open("ab") as file:
            process = subprocess.Popen(
                [*self._inside(), "sh", "-ec", script],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.wait_for(lambda: until in output.read_text())
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            process.wait(PATIENCE)

    def wait_for(self, condition: Callable[[], bool], what: str = "") -> None:
        """Wait until `condition()` holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come\n{self.logs()}"
            time.sleep(0.05)

    @property
    def root(self) -> Path:
        """Its file system, as seen from outside."""
        return Path(f"/proc/{self._init}/root")

    def logs(self) -> str:
        """What the MTA, the daemon by hand and the daemon as a service have logged."""
        files = [self.root / "var/log" / name for name in ("mail", "terminal", "assay.journal")]
        return "".join(file.read_text("utf-8", "replace") for file in files if file.exists())

    # -- life

    def _boot(self, folder: str) -> None:
        visible = (str(PROJECT), str(_PYTHON), str(PACKAGES.resolve()), sysconfig.get_path("purelib"))
        outer = subprocess.Popen(
            # Also if the tests are killed.
            [
                "setpriv",
                "--pdeathsig",
                "KILL",
                *_UNSHARE,
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                _SETUP,
                "setup",
                folder,
                HOSTNAME,
                *visible,
            ],
            stdin=subprocess.DEVNULL,
        )
        self._ending.callback(outer.wait)
        self._ending.callback(outer.kill)  # and with it all processes of the machine
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")

        def ready() -> bool:
            assert outer.poll() is None, "the machine could not be set up"
            self._init = int(children.read_text() or 0)
            return bool(self._init) and Path(f"/proc/{self._init}/comm").read_text() == "sleep\n"

        self.wait_for(ready, "the machine")

    def _install(self) -> None:
        """Prepare the network, a clone of the project and the MTA."""
        (self.root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{ADDRESS} {HOSTNAME} mx\n")
        (self.root / "etc/resolv.conf").unlink(missing_ok=True)
        (self.root / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
        (self.root / "etc/hostname").write_text(f"{HOSTNAME}\n")
        self._program("usr/local/bin/apt-get", "#!/bin/sh\n")
        self._program("usr/local/bin/systemctl", f"#!{_PYTHON}/bin/python3\n{SYSTEMCTL.read_text()}")
        clone = self.root / CLONE[1:]
        clone.mkdir(parents=True)
        for name in ("milter", "contrib", "docs"):
            shutil.copytree(PROJECT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(PROJECT / name, clone / name)
        self.run(f"{sys.executable} -c '{_NETWORK}' {ADDRESS}")
        self._serve()
        self.run(f"/usr/bin/dpkg --install {PACKAGES.resolve()}/{self.mta}/*.deb")
        self.run("useradd --create-home you")
        self.run(_RECEIVE[self.mta])

    def _program(self, path: str, text: str) -> None:
        program = self.root / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.unlink(missing_ok=True)
        program.write_text(text)
        program.chmod(0o755)

    def _serve(self) -> None:
        """Start the nameserver and the system log."""
        for source, argument in ((_NAMESERVER, json.dumps(_ROWS)), (_SYSLOG, "/var/log/mail")):
            server = subprocess.Popen(
                [*self._inside(), sys.executable, "-c", source, argument],
                env=self._environment() | {"PYTHONPATH": f"{TESTS}:{PROJECT}/milter:{sysconfig.get_path('purelib')}"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )
            self._ending.callback(server.wait)
            self._ending.callback(server.kill)
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            self._ending.callback(server.stdout.close)

    def _inside(self) -> list[str]:
        return [
            "nsenter",
            "-t",
            str(self._init),
            "--mount",
            "--pid",
            "--net",
            "--uts",
            "--ipc",
            "--root",
            f"--wd={self.root}{CLONE}",
        ]

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"/usr/local/bin:{_PYTHON}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
            "PYTHONPATH": sysconfig.get_path("purelib"),
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "false",  # which means: without isolation
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
