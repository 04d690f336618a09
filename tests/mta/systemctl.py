# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``systemctl`` does with the units of assay, for a private machine without systemd (`mta.machine`).

It opens the socket as ``assay.socket`` with its drop-ins says, and runs the commands of ``assay.service`` as its
dynamic user, with the socket and a socket for notifications. The directories of the unit are made. It does not confine:
that is the subject of ``tests/contrib/test_sandbox.py``. Any other unit is an MTA's, and its init script is called.

It is a program of that machine, and uses the standard library only.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

UNITS = Path("/etc/systemd/system")
PID = Path("/run/assay.service.pid")
FIRST = 3  # SD_LISTEN_FDS_START


def settings(unit: str) -> dict[str, list[str]]:
    """The lines of a unit and its drop-ins by key; an empty value forgets those before it."""
    found: dict[str, list[str]] = {}
    for file in (UNITS / unit, *sorted((UNITS / f"{unit}.d").glob("*.conf"))):
        for line in file.read_text().splitlines():
            key, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                found[key] = [*found.get(key, []), value] if value else []
    return found


def open_socket() -> socket.socket:
    unit = settings("assay.socket")
    (path,) = map(Path, unit["ListenStream"])
    for folder in reversed(path.parents):
        if not folder.exists():
            folder.mkdir()
            folder.chmod(int(unit["DirectoryMode"][-1], 8))
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    path.chmod(int(unit["SocketMode"][-1], 8))
    if "SocketGroup" in unit:
        os.chown(path, 0, grp.getgrnam(unit["SocketGroup"][-1]).gr_gid)
    listening.listen(int(unit["Backlog"][-1]))
    return listening


def user_of(unit: dict[str, list[str]]) -> pwd.struct_passwd:
    """The dynamic user, whose name is that of the unit."""
    assert unit["DynamicUser"] == ["yes"]
    try:
        return pwd.getpwnam("assay")
    except KeyError:
        subprocess.run(["useradd", "--system", "--user-group", "assay"], check=True)
        return pwd.getpwnam("assay")


def start() -> None:
    unit = settings("assay.service")
    user = user_of(unit)
    for key, place in (("RuntimeDirectory", "/run"), ("LogsDirectory", "/var/log"), ("StateDirectory", "/var/lib")):
        for name in unit[key][0].split():
            folder = Path(place) / name
            folder.mkdir(parents=True, exist_ok=True)
            os.chown(folder, user.pw_uid, user.pw_gid)
    listening = open_socket()
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind("/run/assay.notify")
    os.chmod("/run/assay.notify", 0o666)  # noqa: S103 - the daemon is another user
    notify.settimeout(60)
    for command in unit["ExecStartPre"]:
        done = subprocess.run(shlex.split(command), user=user.pw_uid, group=user.pw_gid, extra_groups=[], check=False)
        if done.returncode != 0:
            sys.exit("Job for assay.service failed because the control process exited with error code.")
    (command,) = unit["ExecStart"]
    journal = os.open("/var/log/assay.journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.set_inheritable(listening.fileno(), True)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.dup2(journal, 1)
        os.dup2(journal, 2)
        held = os.dup(listening.fileno()) if listening.fileno() == FIRST else listening.fileno()
        os.dup2(held, FIRST)
        os.closerange(FIRST + 1, 256)
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        os.umask(int(unit["UMask"][-1], 8))
        passed = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "NOTIFY_SOCKET": "/run/assay.notify"}
        program, *arguments = shlex.split(command)
        os.execve(program, [program, *arguments], os.environ | passed)  # noqa: S606 - a command of our own unit
    PID.write_text(str(pid))
    while b"READY=1" not in notify.recv(4096).split(b"\n"):
        pass


def main_process() -> str:
    return PID.read_text()


def reload() -> None:
    for command in settings("assay.service")["ExecReload"]:
        if subprocess.run(shlex.split(command.replace("$MAINPID", main_process())), check=False).returncode != 0:
            sys.exit("Job for assay.service failed.")


def stop() -> None:
    os.kill(int(main_process()), signal.SIGTERM)
    PID.unlink()


def main(verb: str, *names: str) -> None:
    units = [name.removesuffix(".service") for name in names if not name.startswith("-")]
    match verb, units:
        case "daemon-reload", []:
            pass
        case "enable", ["assay.socket", "assay"] if "--now" in names:
            start()
        case "reload", ["assay"]:
            reload()
        case "stop", ["assay.socket", "assay"]:
            stop()
        case "restart" | "reload", ["postfix" | "sendmail" as unit]:
            subprocess.run([f"/etc/init.d/{unit}", verb], check=True)
        case _:
            sys.exit(f"systemctl of the tests: {verb} {' '.join(names)}: not known")


if __name__ == "__main__":
    main(*sys.argv[1:])
