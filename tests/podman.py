# SPDX-License-Identifier: GPL-3.0-or-later
"""podman for a user without rights ("rootless"), with crun, in a storage of its own.

The programs are those unpacked by ``contrib/fetch.sh`` below ``.cache/podman``. There is no registry in a test, so the
root of a container is made of this machine's directories: Python, its libraries, and the project.

Root prepares in a mount namespace of its own what an administrator prepares once, and nothing of it is seen outside:
podman in ``/usr``, the numbers of users that the user may give away (``/etc/subuid``), and control groups of version 2.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

PROJECT = Path(__file__).parents[1]
PROGRAMS = Path(os.environ.get("ASSAY_PODMAN") or PROJECT / ".cache" / "podman")
MISSING = f"no podman in {PROGRAMS}: run sh contrib/fetch.sh podman"
USER = 65534  #: who runs podman: nobody
FIRST = 200_000  #: the number outside of user 1 in a container
#: The project and its Python, as far as they are not in ``/usr``.
_OURS = sorted({str(PROJECT), sys.base_prefix, sys.prefix} - {"/usr"})
_SUBORDINATE = ("/etc/subuid", "/etc/subgid")

_PREPARE = """\
set -e
folder=$1 programs=$2
shift 2
mount --make-rshared /
mount -t overlay -o "lowerdir=$folder/usr:$programs/usr:/usr" overlay /usr
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
for file in /etc/subuid /etc/subgid; do mount --bind "$folder/subordinate" $file; done
while [ "$1" != -- ]; do
    mkdir -p "$folder/$2"
    mount --bind "$1" "$folder/$2"
    shift 2
done
shift
exec setpriv --reuid=65534 --regid=65534 --clear-groups -- env -i "$@"
"""
_CONTAINERS = """\
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
"""


def why_not() -> str:
    """Why podman cannot be had here at all; empty if it can."""
    if not (PROGRAMS / "usr" / "bin" / "podman").exists():
        return MISSING
    if os.geteuid() != 0:
        return "only root can give a user its subordinate ids"
    absent = [path for path in _SUBORDINATE if not os.path.exists(path)]
    return f"{absent[0]} is missing" if absent else ""


class Podman:
    """A user's podman, with a container root at `root`.

    :ivar folder: a directory that any user may enter.
    :ivar root: the root of each container.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="assay-podman-"))  # pytest's are closed to this user
        self.folder.chmod(0o755)
        self.root = self.folder / "root"

    def __enter__(self) -> Podman:
        (self.folder / "subordinate").write_text(f"{USER}:{FIRST}:65536\n")
        for name in ("home", "run"):
            (self.folder / name).mkdir(mode=0o700)
            os.chown(self.folder / name, USER, USER)
        for name in ("proc", "sys", "dev", "run", "tmp", "var", "etc"):
            (self.root / name).mkdir(parents=True)
            os.chown(self.root / name, USER, USER)  # podman puts files and mount points there
        for name in ("bin", "sbin", "lib", "lib64"):
            if os.path.islink(f"/{name}"):
                (self.root / name).symlink_to(os.readlink(f"/{name}"))
        os.chown(self.root, USER, USER)
        binaries = self.folder / "usr" / "bin"
        binaries.mkdir(parents=True)
        for name in ("newuidmap", "newgidmap"):  # programs with the rights of root, as Debian installs them
            shutil.copy(PROGRAMS / "usr" / "bin" / name, binaries)
            (binaries / name).chmod(0o4755)
        (self.folder / "containers.conf").write_text(_CONTAINERS)
        (self.folder / "storage.conf").write_text('[storage]\ndriver = "vfs"\n')
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, ValueError):  # what holds the namespaces of the user
            os.kill(int((self.folder / "run" / "libpod" / "tmp" / "pause.pid").read_text()), signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def prefix(self) -> list[str]:
        """What comes before the arguments of podman, to run it as the user."""
        system = [path for path in ("/usr", "/bin", "/sbin", "/lib", "/lib64") if not os.path.islink(path)]
        shown = [word for path in system for word in (path, f"root{path}")]
        shown += [word for number, path in enumerate(_OURS) for word in (path, f"shown/{number}")]
        environment = {
            "HOME": self.folder / "home",
            "XDG_RUNTIME_DIR": self.folder / "run",
            "TMPDIR": self.folder / "run",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "CONTAINERS_CONF": self.folder / "containers.conf",
            "CONTAINERS_STORAGE_CONF": self.folder / "storage.conf",
        }
        before = ["unshare", "--mount", "sh", "-c", _PREPARE, "sh", str(self.folder), str(PROGRAMS.resolve()), *shown]
        return [*before, "--", *(f"{name}={value}" for name, value in environment.items()), "podman"]

    def program(self) -> list[str]:
        """The arguments for a container with Python and the project, in place of an image.

        The project is a volume, since it may be below a directory over which podman mounts an empty one, as /var/tmp.
        """
        volumes = [f"--volume={self.folder}/shown/{number}:{path}:ro" for number, path in enumerate(_OURS)]
        return [*volumes, "--rootfs", str(self.root)]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run podman and wait for its end."""
        return subprocess.run([*self.prefix(), *arguments], capture_output=True, text=True, check=False, timeout=120)

    def volume(self, name: str) -> Path:
        """Where a named volume is."""
        return self.folder / "home" / ".local" / "share" / "containers" / "storage" / "volumes" / name / "_data"
