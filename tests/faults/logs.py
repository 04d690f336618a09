# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon whose log has a reader that can stop, and is full from then on."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from pathlib import Path
from typing import Any, Self

from running import Activated

_ODD_LOG = Path(__file__).parents[1] / "daemon" / "odd_log.py"
_BUFFER = "16384"  # octets that a process keeps of its log: the load fills it in a moment
_OCTETS = 65536  # of one read, more than a datagram of ours has


class Reader:
    """Copies what comes through a pipe or a socket of datagrams into a file, while it runs."""

    def __init__(self, kind: str, place: Path, file: Path) -> None:
        """:param place: of the socket; a pipe has none."""
        self.place = place
        self.writing = -1  #: the end of the pipe for the daemon
        self._file = file
        self._thread: threading.Thread | None = None
        self._waking, self._wake = os.pipe()
        if kind == "pipe":
            self._reading, self.writing = os.pipe()
        else:
            place.unlink(missing_ok=True)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
                listening.bind(str(place))
                self._reading = listening.detach()

    def start(self) -> None:
        """Read, in a thread."""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read no more, and fill what is between, so that not one line more goes in."""
        self._end()
        if self.writing >= 0:
            self._fill_pipe()
        else:
            while self._fill_queue():
                pass

    def close(self) -> None:
        """End it for good."""
        self._end()
        for descriptor in {self._reading, self.writing, self._waking, self._wake} - {-1}:
            os.close(descriptor)

    def _read(self) -> None:
        with self._file.open("ab", buffering=0) as file:
            while self._waking not in (ready := select.select([self._reading, self._waking], [], [])[0]):
                assert ready
                file.write(os.read(self._reading, _OCTETS).strip(b"\n\0") + b"\n")
        os.read(self._waking, 1)

    def _end(self) -> None:
        if self._thread is not None:
            os.write(self._wake, b"x")
            self._thread.join()
            self._thread = None

    def _fill_pipe(self) -> None:
        filling = os.open(f"/proc/self/fd/{self.writing}", os.O_WRONLY | os.O_NONBLOCK)
        for piece in (4096, 1):
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(filling, b"\n" * piece)
        os.close(filling)

    def _fill_queue(self) -> int:
        """Send until this socket can send no more; how many datagrams that were."""
        sent = 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(BlockingIOError):
            sender.setblocking(False)
            sender.connect(str(self.place))
            while True:
                sender.send(b"\n")
                sent += 1
        return sent


class Logged(Activated):
    """A daemon whose log goes to a file, or to a `Reader`; its processes may have few descriptors."""

    def __init__(self, files: int, log: str, folder: Path, /, *arguments: Any, **sections: Any) -> None:
        """
        :param files: descriptors of each process, 0 for the usual number.
        :param log: see `faults.run.Scenario`.
        """
        self._files = files
        self._kind = log
        self.reader: Reader | None = None
        if log in ("syslog", "journald"):
            sections |= {"log": {"to": log}, "program": (str(_ODD_LOG), _BUFFER, str(folder / "log"))}
        super().__init__(folder, *arguments, **sections)

    def __enter__(self) -> Self:
        self._log.write_bytes(b"")
        if self._kind != "file":
            self.reader = Reader(self._kind, self.folder / "log", self._log)
            self.reader.start()
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        super().__exit__(*_)
        if self.reader is not None:
            self.reader.close()

    def start(self, *before: str, **options: Any) -> None:
        limit = ("sh", "-c", f'ulimit -n {self._files}; exec "$@"', "sh") if self._files else ()
        if self.reader is not None and self.reader.writing >= 0:
            options |= {"stderr": self.reader.writing}
        super().start(*before, *limit, **options)
