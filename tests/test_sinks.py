# SPDX-License-Identifier: GPL-3.0-or-later
"""Where lines go: what other programs have open stays theirs, and a full socket stays open."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from assay.log import sinks

SEND = "import os; from assay.log.sinks import StandardError; os.write(2, b'one\\n'); StandardError().send(b'two\\n')"


def test_a_file_has_one_offset_for_all_who_write_to_standard_error(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        subprocess.run([sys.executable, "-c", SEND], stderr=file, timeout=60, check=True)
    assert path.read_bytes() == b"one\ntwo\n"


def fill(sink: sinks.Sink) -> None:
    while True:
        sink.send(b"more")


def test_a_socket_that_is_full_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "SYSLOG", str(tmp_path / "log"))
    sink = sinks.Syslog(0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(sinks.SYSLOG)
        sink.send(b"one")
        connection = sink._socket
        with pytest.raises(BlockingIOError):
            fill(sink)
        assert sink._socket is connection
        assert daemon.recv(100) == b"one"
        assert sink.send(b"last") == 4
    sink.close()


FILL = """
import os
from assay.log.sinks import StandardError

def forbidden(*_):
    raise PermissionError

os.open = forbidden  # as for the pipe of another user
sink = StandardError()
try:
    while True:
        sink.send(b"more")
except BlockingIOError:
    os._exit(7)
"""


def test_a_pipe_that_cannot_be_opened_anew_never_blocks() -> None:
    reading, writing = os.pipe()
    ended = subprocess.run([sys.executable, "-c", FILL], stderr=writing, timeout=30, check=False)
    os.close(reading)
    os.close(writing)
    assert ended.returncode == 7
