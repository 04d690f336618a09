# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark runs: one second against assay, every reply checked. No figure is asserted: machines differ."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "contrib" / "bench" / "run.py"
NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "true")


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="the name server comes from Debian's packages")
def test_a_second_against_assay() -> None:
    if subprocess.run(NAMESPACES, capture_output=True, check=False).returncode:
        pytest.skip("this kernel does not permit user namespaces")
    done = subprocess.run([sys.executable, RUN, "--smoke"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    row, *stages = json.loads(done.stdout)
    assert "failed" not in row
    assert row["messages"] > 0
    assert 0 < row["generator_cpu_ms"] < row["cpu_ms"]
    assert {"connect", "end of message"} <= {stage["event"] for stage in stages}
