# SPDX-License-Identifier: GPL-3.0-or-later
"""A real RabbitMQ on loopback.

The program is the copy unpacked by ``contrib/fetch.sh`` below ``.cache/rabbitmq`` (or `ASSAY_RABBITMQ`), never the
machine's own. It has a node name, a port mapper and a cookie of its own, and listens on loopback only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from assay.store.broker import open_consumer
from assay.store.json_form import from_json
from assay.store.rows import MessageRow

PROGRAMS = Path(os.environ.get("ASSAY_RABBITMQ") or Path(__file__).parents[1] / ".cache" / "rabbitmq")
SCRIPTS = next(PROGRAMS.glob("usr/lib/rabbitmq/lib/*/sbin"), PROGRAMS)
ERLANG = PROGRAMS / "usr/lib/erlang"
MISSING = f"no RabbitMQ in {PROGRAMS}: run sh contrib/fetch.sh rabbitmq"
START = 120.0  # seconds

CONFIGURATION = """
listeners.tcp.1 = 127.0.0.1:{port}
loopback_users = none
default_user = assay
default_pass = secret
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 10MB
log.file.level = info
"""

EMULATOR = """#!/bin/sh
EMU=beam ROOTDIR={root} BINDIR={binaries} PROGNAME=erl
export EMU ROOTDIR BINDIR PROGNAME
exec {binaries}/erlexec "$@"
"""


class RabbitMq:
    """The program, running while the context lasts. `kill` and `start` restart it with what it had on its disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self._mapper, self._distribution = _free_ports(3)
        self._process: subprocess.Popen[bytes] | None = None
        self._mapping: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For ``store.broker``."""
        return f"amqp://assay@127.0.0.1:{self.port}/"

    @property
    def password(self) -> str:
        """The user's."""
        return "secret"

    @property
    def _binaries(self) -> Path:
        return next(ERLANG.glob("erts-*/bin"))

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.folder}:{self._binaries}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"assay{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "no-such-file"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def __enter__(self) -> RabbitMq:
        (self.folder / "rabbitmq.conf").write_text(CONFIGURATION.format(port=self.port))
        (self.folder / "plugins").write_text("[].\n")
        emulator = self.folder / "erl"  # Debian's has the path of an installed Erlang in it
        emulator.write_text(EMULATOR.format(root=ERLANG, binaries=self._binaries))
        emulator.chmod(0o755)
        # Erlang's port mapper would otherwise start by itself, stay, and listen on all addresses.
        mapper = [self._binaries / "epmd", "-port", str(self._mapper), "-address", "127.0.0.1"]
        self._mapping = subprocess.Popen(mapper, stdout=subprocess.DEVNULL)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if self._mapping is not None:
            self._mapping.kill()
            self._mapping.wait()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [SCRIPTS / "rabbitmq-server"],
                env=self._environment,
                cwd=self.folder,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
                connection.sendall(b"AMQP\0\0\x09\x01")
                connection.settimeout(5.0)
                if connection.recv(1):
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"RabbitMQ does not run: {(self.folder / 'output').read_text()}")
            time.sleep(0.1)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It hangs while the context lasts: connections stay, and nothing is answered."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def received(broker: RabbitMq, name: str, count: int, *, acknowledge: bool = True) -> list[MessageRow]:
    """So many rows from the queue."""

    async def receive() -> list[MessageRow]:
        consumer = await open_consumer(broker.url, broker.password, name, name, 1000)
        rows: list[MessageRow] = []
        try:
            async with asyncio.timeout(30):
                async for batch in consumer.batches(100, 0.1):
                    rows += [from_json(message.body) for message in batch]
                    if acknowledge:
                        await batch[-1].ack(multiple=True)
                    if len(rows) >= count:
                        break
        finally:
            await consumer.close()
        return rows

    return asyncio.run(receive())


def declare(broker: RabbitMq, name: str) -> None:
    """Make the queue, as ``assay store consume`` does when it runs for the first time."""

    async def open_and_close() -> None:
        await (await open_consumer(broker.url, broker.password, name, name, 1)).close()

    asyncio.run(open_and_close())


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
