# SPDX-License-Identifier: GPL-3.0-or-later
"""What a real Postfix and a real Sendmail have in common for the tests.

Each MTA has a private temporary directory with its own complete configuration, listens on a free loopback port, and
stores every message, for any recipient, in a file of that directory. The programs are the copies unpacked by
``contrib/fetch.sh`` below ``.cache/mta`` (or `ASSAY_MTAS`), never the machine's own MTA. Several may run at the
same time. At the end only the processes started here are stopped.

No DNS query and no mail leaves the machine: the configurations can send only to ports of the loopback that the test
names.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
import shutil
import signal
import smtplib
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mta.auth import PASSWORD, USER

PROJECT: Final = Path(__file__).resolve().parents[2]
MTAS: Final = Path(os.environ.get("ASSAY_MTAS") or PROJECT / ".cache" / "mta")

HOST: Final = "127.0.0.1"
HOSTNAME: Final = "mx.example.org"  # the MTA's own host name

#: Seconds. Startup takes less than two on an idle machine, but the machine may be busy.
START: Final = 30.0
STOP: Final = 10.0
#: A free port is found by opening and closing one: another process may take it before the MTA does.
START_ATTEMPTS: Final = 3


class UnavailableError(Exception):
    """This MTA cannot be run here; the message says why and what to do."""


class MTA(ABC):
    """A real MTA, running while the context lasts.

    `milter` is ``inet:HOST:PORT``, ``unix:/path``, or None for no milter at all. `extra` is appended to the MTA's
    configuration (main.cf parameters, or lines of m4) and overrides it.

    `routes` are the loopback ports to which mail for a domain is sent on by SMTP, from the loopback address `source`;
    what is for other domains is stored. `port` is where it listens, if it must be known before it starts.
    """

    name: ClassVar[str]

    def __init__(
        self,
        milter: str | None = None,
        *,
        extra: Mapping[str, str] | str | None = None,
        routes: Mapping[str, int] | None = None,
        source: str = HOST,
        port: int = 0,
    ) -> None:
        self.milter = milter
        self.extra = extra
        self.routes = routes or {}
        self.source = source
        self.port = 0
        self._wanted = port
        self._token = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = contextlib.ExitStack()

    # -- life

    def __enter__(self) -> Self:
        self.check()
        # Not pytest's tmp_path: the unprivileged users of the MTA's processes cannot access it.
        self.directory = Path(tempfile.mkdtemp(prefix=f"assay-{self.name}-"))
        self._ending.callback(shutil.rmtree, self.directory, ignore_errors=True)
        try:
            self.directory.chmod(0o755)
            self.store = self.directory / "store"
            self.prepare()
            self._ending.callback(self._stop)
            self._start()
        except BaseException:
            self._ending.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()

    @classmethod
    @abstractmethod
    def check(cls) -> None:
        """Raise `UnavailableError` if this MTA cannot run."""

    @abstractmethod
    def prepare(self) -> None:
        """Create everything that does not depend on the port."""

    @abstractmethod
    def configure(self) -> None:
        """Write the configuration for `self.port` and the greeting `self._token`."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The program to start, in the foreground."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """The program's complete environment."""

    def _start(self) -> None:
        for _ in range(START_ATTEMPTS):
            self.port = self._wanted or free_port()
            self._token = secrets.token_hex(8)
            self.configure()
            # A new session, and so a new process group: _stop() ends this group and no other process.
            with (self.directory / "output").open("ab") as output:
                self._process = subprocess.Popen(
                    self.command(),
                    env=self.environment(),
                    cwd=self.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            if self._greets():
                return
            self._stop()
        raise AssertionError(f"{self.name} did not start:\n{self.log()}")

    def _greets(self) -> bool:
        """Whether our MTA, recognized by its token, answers at the port."""
        deadline = time.monotonic() + START
        assert self._process is not None
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=5) as probe:
                with probe.makefile("rwb") as stream:
                    greeting = stream.readline()
                    stream.write(b"QUIT\r\n")
                    stream.flush()
                    stream.readline()
                return self._token.encode() in greeting
            time.sleep(0.02)
        return False

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP)
        # Kill the rest of its group. The group's id cannot be reused while the group has members.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP)

    def kill(self) -> None:
        """End it and all its processes at once, as a crash of the machine does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(STOP)
            self._process = None

    def start(self) -> None:
        """Start it again, with what it has in its queue. Its port is the same if one was wanted."""
        self._start()

    # -- results

    def log(self) -> str:
        """Everything that the MTA has logged and printed so far."""
        files = [self.directory / "output", self.directory / "maillog"]
        return "".join(file.read_text("utf-8", "replace") for file in files if file.exists())

    @abstractmethod
    def deliveries(self) -> list[tuple[str, str, bytes]]:
        """(sender, recipient, message as stored) of each delivery so far, oldest first. The sender has angle brackets,
        except that Postfix writes the null one without."""

    def stored(self) -> list[tuple[str, bytes]]:
        """(recipient, message as stored) of each delivery so far, oldest first."""
        return [(recipient, message) for _, recipient, message in self.deliveries()]

    @abstractmethod
    def held(self) -> list[str]:
        """The queue ids of the messages that a milter quarantined."""

    def messages(self, recipient: str | None = None) -> list[bytes]:
        """The messages stored so far (for `recipient`), oldest first, lines ending in LF."""
        return [message for to, message in self.stored() if recipient in (None, to)]

    def wait_for(self, count: int, recipient: str | None = None, timeout: float = 20.0) -> list[bytes]:
        """`messages()`, as soon as there are at least `count`."""
        return self.wait_until(lambda: len(self.messages(recipient)) >= count, timeout) and self.messages(recipient)

    def wait_until(self, condition: Callable[[], bool], timeout: float = 20.0) -> bool:
        """Return True as soon as `condition()` holds; fail with the log if it does not in time."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"timed out after {timeout} s; the log of {self.name}:\n{self.log()}"
            time.sleep(0.02)
        return True

    # -- sending

    @contextlib.contextmanager
    def connect(
        self,
        *,
        helo: str = "client.example.net",
        client: str = HOST,
        xclient: Mapping[str, str] | None = None,
        starttls: bool = False,
        login: bool = False,
    ) -> Iterator[smtplib.SMTP]:
        """An SMTP session, after EHLO.

        `client` is the loopback address (any of 127.0.0.0/8) to connect from. `xclient` are attributes of Postfix's
        XCLIENT (``ADDR``, ``NAME``, ``HELO``, ...), which simulate any other client.
        """
        with smtplib.SMTP(HOST, self.port, local_hostname=helo, timeout=60, source_address=(client, 0)) as session:
            session.ehlo_or_helo_if_needed()
            if xclient is not None:
                answer = session.docmd("XCLIENT", " ".join(f"{key}={value}" for key, value in xclient.items()))
                assert answer[0] == 220, answer
                session.ehlo(helo)
            if starttls:
                session.starttls()  # without a context the self-signed certificate is not verified
                session.ehlo(helo)
            if login:
                session.login(USER, PASSWORD)
            yield session

    def submit(
        self,
        message: bytes,
        *,
        sender: str = "author@example.net",
        recipients: Sequence[str] = ("reader@example.org",),
        helo: str = "client.example.net",
        client: str = HOST,
        xclient: Mapping[str, str] | None = None,
        starttls: bool = False,
        login: bool = False,
    ) -> None:
        """Send one message in a new session. `message` may end its lines in LF or CRLF.

        :raises smtplib.SMTPException: the MTA's reply, if it refused the message or a recipient
        """
        with self.connect(helo=helo, client=client, xclient=xclient, starttls=starttls, login=login) as session:
            session.sendmail(sender, list(recipients), crlf(message))


def crlf(message: bytes) -> bytes:
    """The message in wire format (RFC 5321, 2.3.8), with any line ends as input."""
    return message.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def fields(message: bytes) -> list[tuple[str, str]]:
    """The header fields of a stored message: names as written, values raw, with folds and leading white space."""
    header = message.replace(b"\r\n", b"\n").partition(b"\n\n")[0].decode("utf-8", "surrogateescape")
    found: list[tuple[str, str]] = []
    for line in header.split("\n"):
        if line[:1] in (" ", "\t"):
            name, value = found.pop()
            found.append((name, f"{value}\n{line}"))
        else:
            name, colon, value = line.partition(":")
            assert colon, f"not a header field: {line!r}"
            found.append((name, value))
    return found


def body(message: bytes) -> bytes:
    """The part of a stored message after its first empty line."""
    return message.replace(b"\r\n", b"\n").partition(b"\n\n")[2]


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def library_path() -> str:
    """LD_LIBRARY_PATH for the unpacked MTAs."""
    below = MTAS / "lib"
    folders = sorted({file.parent for file in below.rglob("*.so*")})
    return ":".join(str(folder) for folder in (*folders, MTAS / "postfix/usr/lib/postfix"))


def make_certificate(file: Path, *, owner: int = -1) -> None:
    """Write a self-signed certificate for `HOSTNAME` with its key, for STARTTLS."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOSTNAME)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.touch(mode=0o600)
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
