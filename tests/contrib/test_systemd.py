# SPDX-License-Identifier: GPL-3.0-or-later
"""The units in ``contrib/systemd``: their commands exist, and the two services share the user and the keys."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from assay.cli.main import main
from assay.config import Configuration

UNITS = Path(__file__).parents[2] / "contrib" / "systemd"


def settings(name: str) -> dict[str, list[str]]:
    """The lines of a unit by key; a key may occur several times."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_the_timer_s_service_rotates_what_is_due(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = settings("assay-keys.service")["ExecStart"]
    program, *arguments = shlex.split(command)
    assert program == "/opt/assay/bin/assay"
    (tmp_path / "assay.toml").write_text(f'[keys]\ndirectory = "{tmp_path}"\n')
    at = arguments.index("-c") + 1
    assert arguments[at] == "/etc/assay.toml"
    assert main([*arguments[:at], str(tmp_path / "assay.toml"), *arguments[at + 1 :]]) == 0
    said = f"no keys in {tmp_path}; make some with: assay keys create DOMAIN\n"
    assert capsys.readouterr() == (said, "")


def test_the_daemon_reads_what_the_timer_writes() -> None:
    daemon, timer = settings("assay.service"), settings("assay-keys.service")
    assert daemon["StateDirectory"] == timer["StateDirectory"]
    assert f"/var/lib/{daemon['StateDirectory'][0].split()[-1]}" == Configuration().keys.directory
    assert daemon["DynamicUser"] == timer["DynamicUser"] == ["yes"]
    assert timer["User"] == ["assay"], "the user that DynamicUser gives assay.service"
    assert timer["ExecStopPost"] == ["+/bin/systemctl try-reload-or-restart assay.service"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("name", ["assay.service", "assay-keys.service", "assay-keys.timer"])
def test_systemd_understands_the_units(name: str, tmp_path: Path) -> None:
    for path in UNITS.glob("assay*.*"):
        if path.is_file():
            (tmp_path / path.name).write_text(path.read_text().replace("/opt/assay/bin/assay", "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [line for line in ended.stderr.splitlines() if "assay" in line] == []
