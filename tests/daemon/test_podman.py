# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon in a container of podman that a user without rights runs: the commands of docs/container.md."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import podman
from podman import FIRST, Podman
from running import Daemon
from sending import MESSAGE, ROWS, greet, results, send

PAGE = Path(__file__).parents[2] / "docs" / "container.md"
USER = 12345


def documented(command: str) -> list[str]:
    """The words of a command in the documentation.

    :param command: its first words.
    """
    found = re.search(rf"^    ({command} (?:.*\\\n)*.*)$", PAGE.read_text(), re.MULTILINE)
    assert found, command
    return shlex.split(found[1].replace("\\\n", " "))


class Contained(Daemon):
    """The daemon of ``podman run``, as it is documented, with a root in place of an image, and the host's network."""

    def __init__(self, program: Podman, folder: Path, **sections: Any) -> None:
        super().__init__(folder, ROWS, socket="unix:/run/assay/assay.sock", **sections)
        self.podman = program
        self.configuration_inside = "/etc/assay.toml"

    def start(self, *before: str, **options: Any) -> None:
        words = documented("podman run")
        image = words.index("IMAGE")
        assert words[image + 1 :] == ["assay", "serve", "-c", self.configuration_inside]
        given = [word.replace("./assay.toml", str(self.configuration)) for word in words[1:image]]
        super().start(
            *before,
            *self.podman.prefix(),
            *given,
            *("--rm", "--network=host", f"--pidfile={self.podman.folder}/run/pid"),
            *self.podman.program(),
            **options,
        )
        self.socket = f"unix:{self.podman.volume('assay-run')}/assay.sock"

    @property
    def pid(self) -> int:
        return int((self.podman.folder / "run" / "pid").read_text())


def status(pid: int, field: str) -> list[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith(f"{field}:"))


@pytest.fixture
def daemon() -> Iterator[Contained]:
    if reason := podman.why_not():
        pytest.skip(reason)
    with Podman() as program:
        tried = program.run("run", "--rm", "--network=host", *program.program(), "true")
        if tried.returncode != 0:
            pytest.skip(f"podman runs no container here: {(tried.stderr.splitlines() or ['no reason given'])[-1]}")
        with Contained(program, program.folder) as daemon:
            yield daemon


def judged(daemon: Contained) -> None:
    with daemon.mta() as mta:
        greet(mta)
        assert "dmarc=pass" in results(send(mta))


def test_the_documented_commands_serve_reload_and_end(daemon: Contained) -> None:
    assert status(daemon.pid, "NSpid")[-1] == "1"
    assert status(daemon.pid, "Uid")[0] == str(FIRST + USER - 1)
    assert status(daemon.pid, "CapEff") == status(daemon.pid, "CapBnd") == ["0" * 16]
    assert status(daemon.pid, "NoNewPrivs") == ["1"]
    assert status(daemon.pid, "Seccomp") == ["2"]
    judged(daemon)

    done = daemon.podman.run(*documented("podman kill")[1:])
    assert done.returncode == 0, done.stderr
    daemon.wait_for_log(": reloaded")
    judged(daemon)

    with daemon.mta() as mta:
        greet(mta)
        done = daemon.podman.run("kill", "--signal", "TERM", "assay")
        assert done.returncode == 0, done.stderr
        daemon.wait_for_log("ending")
        assert "dmarc=pass" in results(send(mta))
    assert daemon.wait() == 0
    assert "bug=" not in daemon.log()
    assert "runs as root" not in daemon.log()


def test_an_mta_in_another_container_reaches_the_socket_by_its_group(daemon: Contained) -> None:
    message = daemon.podman.folder / "message"
    message.write_bytes(MESSAGE)

    def probed(user: str) -> tuple[int, str]:
        done = daemon.podman.run(
            *("run", "--rm", "--read-only", "--cap-drop=all", "--user", user, "--network=none"),
            *("--volume", "assay-run:/run/assay", "--volume", f"{message}:/message:ro"),
            *(*daemon.podman.program(), sys.executable, "-m", "assay"),
            *("probe", "unix:/run/assay/assay.sock", "/message", "--ip", "192.0.2.1", "--helo", "mail.example.org"),
            *("--mail-from", "joe@example.org"),
        )
        return done.returncode, done.stdout + done.stderr

    code, said = probed(f"54321:{USER}")
    assert (code, "dmarc=pass" in said) == (0, True), said
    code, said = probed("54321:54321")
    assert code != 0
    assert "Permission denied" in said or "may not" in said, said
