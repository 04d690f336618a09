# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's packages of the name server and of the peers, unpacked privately: nothing is installed.

Each package, with those of its dependencies that the machine lacks, is downloaded by apt and unpacked below one
directory. `overlay` then lays that directory over ``/usr`` and ``/etc``, in the mount namespace of the benchmark alone
(`sandbox`), so that the programs find their files where they expect them. No maintainer script runs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

NAMES = ("nsd", "unbound", "opendkim", "opendmarc", "pyspf-milter", "dkimpy-milter", "rspamd", "publicsuffix")
#: Dependencies that no measured program needs: other mail servers, database clients, web pages.
NOT_NEEDED = re.compile(r"postfix|cpio|mariadb|mysql|dbconfig|perl|fonts-|libjs-")
_PLANNED = re.compile(r"^Inst (\S+) \((\S+)", re.MULTILINE)


class PackageError(Exception):
    """A package is not available."""


def fetch(directory: Path) -> dict[str, str]:
    """Unpack all of `NAMES` below `directory`, unless they are there already.

    :returns: version by name, of the programs that are measured.
    :raises PackageError: apt cannot download them.
    """
    stamp = directory / "versions"
    if not stamp.exists() or _versions(stamp).keys() != set(NAMES):
        unpacking = directory.with_name(directory.name + ".unpacking")
        shutil.rmtree(unpacking, ignore_errors=True)
        (unpacking / "debs").mkdir(parents=True)
        versions = _unpack(unpacking)
        (unpacking / "versions").write_text("".join(f"{name} {version}\n" for name, version in versions.items()))
        shutil.rmtree(unpacking / "debs")
        shutil.rmtree(directory, ignore_errors=True)
        unpacking.rename(directory)
    return _versions(stamp)


def _versions(stamp: Path) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in stamp.read_text().splitlines())


def _unpack(directory: Path) -> dict[str, str]:
    plan = _run("apt-get", "install", "--simulate", "--no-install-recommends", *NAMES)
    wanted = dict(_PLANNED.findall(plan))
    wanted = {name: version for name, version in wanted.items() if not NOT_NEEDED.search(name)}
    for name in NAMES:
        if name not in wanted:  # it is installed: unpacked all the same, so that every run measures Debian's files
            wanted[name] = _run("dpkg-query", "-W", "-f", "${Version}", name)
    _run("apt-get", "-qq", "download", *wanted, cwd=directory / "debs")
    for package in sorted((directory / "debs").glob("*.deb")):
        _run("dpkg-deb", "-x", str(package), str(directory))
    for merged in ("bin", "sbin", "lib"):  # Debian's /lib is /usr/lib, but packages may still ship it
        if (directory / merged).is_dir():
            shutil.copytree(directory / merged, directory / "usr" / merged, dirs_exist_ok=True, symlinks=True)
            shutil.rmtree(directory / merged)
    (directory / "etc").mkdir(exist_ok=True)
    return {name: wanted[name] for name in NAMES}


def overlay(directory: Path, changes: Path) -> None:
    """Lay the packages over the system, for this mount namespace. Files changed below /etc land in `changes`.

    Needs a mount namespace of our own, and to be root in it.
    """
    for part in ("etc", "work"):
        (changes / part).mkdir(parents=True)
    layers = f"lowerdir={directory}/etc:/etc,upperdir={changes}/etc,workdir={changes}/work"
    _run("mount", "-t", "overlay", "overlay", "-o", layers, "/etc")
    _run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={directory}/usr:/usr", "/usr")
    _run("mount", "-t", "tmpfs", "tmpfs", "/run")


def _run(*command: str, cwd: Path | None = None) -> str:
    environment = os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise PackageError(f"{command[0]} not found: the peers are fetched from Debian's packages only") from error
    except subprocess.CalledProcessError as error:
        raise PackageError(f"{' '.join(command[:3])}: {error.stderr.strip()}") from error
    return done.stdout
