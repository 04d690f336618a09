# SPDX-License-Identifier: GPL-3.0-or-later
"""Publish and withdraw key records: by a command of the operator, by DNS UPDATE, or by hand."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import IO, Protocol, cast

from assay.model.printable import escaped
from assay.protocol import dkim
from assay.resolver.authority import UnknownZoneError
from assay.resolver.update import UpdateError, Updater

_SECONDS = 120.0  # our choice: a provider's interface may take a minute
_MAX_SHOWN = 200  # characters of what a command prints
_KEPT_OCTETS = 4096  # of what a command prints, the last ones; our choice
_PIPE_OCTETS = 1 << 20  # what a pipe can hold at most, by pipe(7)


class PublishError(Exception):
    """The DNS was not changed. The message is a clause with the reason."""


class Publisher(Protocol):
    """Changes the DNS. Both methods may be called again for what is done already."""

    def publish(self, name: str, record: str) -> bool:
        """Add a TXT record.

        :returns: False if only the operator can.
        :raises PublishError: it was not added.
        """

    def withdraw(self, name: str, record: str) -> bool:
        """Remove it. See `publish`."""


class NoPublisher:
    """The operator publishes by hand."""

    def publish(self, name: str, record: str) -> bool:
        """See `Publisher`."""
        return False

    def withdraw(self, name: str, record: str) -> bool:
        """See `Publisher`."""
        return False


class CommandPublisher:
    """Runs a program with the arguments ``add`` or ``remove``, the name, the TTL and the record. There is no shell."""

    def __init__(self, command: Sequence[str], ttl: int) -> None:
        self._command = command
        self._ttl = ttl

    def publish(self, name: str, record: str) -> bool:
        """See `Publisher`."""
        return self._run("add", name, record)

    def withdraw(self, name: str, record: str) -> bool:
        """See `Publisher`."""
        return self._run("remove", name, record)

    def _run(self, verb: str, name: str, record: str) -> bool:
        program = self._command[0]
        try:
            code, printed = _run_to_its_end([*self._command, verb, name, str(self._ttl), record])
        except TimeoutError as error:
            raise PublishError(f"{program} {verb} {name}: not finished after {_SECONDS:g} s") from error
        except OSError as error:
            raise PublishError(f"{program}: cannot be run: {error.strerror}") from error
        if code:
            lines = printed.decode("utf-8", "replace").strip().splitlines() or ["no output"]
            how = f"exit code {code}" if code > 0 else f"signal {-code}"
            raise PublishError(f"{program} {verb} {name}: {how}: {escaped(lines[-1][:_MAX_SHOWN])}")
        return True


class UpdatePublisher:
    """DNS UPDATE at the primary server of the zone (RFC 2136)."""

    def __init__(self, find: Callable[[], Updater], ttl: int) -> None:
        """
        :param find: makes the updater once something is to be changed. It may raise `UnknownZoneError`: a DNS that does
            not answer is no reason to leave undone what needs no DNS.
        """
        self._find = find
        self._ttl = ttl

    def publish(self, name: str, record: str) -> bool:
        """See `Publisher`."""
        return self._change(name, lambda updater: updater.add(name, dkim.split_strings(record), self._ttl))

    def withdraw(self, name: str, record: str) -> bool:
        """See `Publisher`."""
        return self._change(name, lambda updater: updater.remove(name, dkim.split_strings(record)))

    def _change(self, name: str, change: Callable[[Updater], None]) -> bool:
        try:
            change(self._find())
        except UnknownZoneError as error:
            raise PublishError(
                f"the zone of {name} is not found ({error}); if it stays so, name it in keys.update_zone"
            ) from error
        except UpdateError as error:
            raise PublishError(str(error)) from error
        return True


def _run_to_its_end(command: Sequence[str]) -> tuple[int, bytes]:
    """Run a program; its exit code as `subprocess` has it, and the end of what it printed.

    What it leaves in the background keeps its output open, so the end of the program counts and not that of its output.

    :raises TimeoutError: it did not end. It is killed, with all that it has started.
    :raises OSError: it cannot be run.
    """
    deadline = time.monotonic() + _SECONDS
    with (
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
        selectors.DefaultSelector() as selector,
    ):
        output = cast(IO[bytes], process.stdout).fileno()
        end = os.pidfd_open(process.pid)
        try:
            selector.register(output, selectors.EVENT_READ)
            selector.register(end, selectors.EVENT_READ)
            printed = b""
            while True:
                ready = {key.fd for key, _ in selector.select(max(0.0, deadline - time.monotonic()))}
                if output in ready:
                    chunk = os.read(output, _PIPE_OCTETS)
                    printed = (printed + chunk)[-_KEPT_OCTETS:]
                    if not chunk:
                        selector.unregister(output)
                if end in ready:
                    return process.wait(), printed
                if time.monotonic() >= deadline:
                    raise TimeoutError
        finally:
            os.close(end)
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
