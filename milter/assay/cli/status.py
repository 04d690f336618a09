# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay status``, ``assay reload``, ``assay log-level``: ask the running daemon over its control socket."""

from __future__ import annotations

import argparse
import http.client
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from assay.cli.options import add_configuration
from assay.cli.output import complain, say
from assay.config import ConfigError, load
from assay.config.endpoint import Endpoint
from assay.daemon.status import Period, Status
from assay.log import Level
from assay.model.wording import counted

_PATIENCE_SECONDS = 45.0  # longer than a reload may take
_WATCH_SECONDS = 2.0
_ANSWERS = (http.HTTPStatus.OK, http.HTTPStatus.CONFLICT, http.HTTPStatus.GATEWAY_TIMEOUT)
_CLEAR = "\x1b[H\x1b[2J"  # a terminal's: home, and clear
_MAX_ROWS = 12  # of one table


class DaemonError(Exception):
    """The daemon cannot be asked. The message says why and names the fix."""


def add_to(commands: Any) -> None:
    """Add the subcommands to the parser."""
    shown = commands.add_parser(
        "status",
        help="show what the running daemon does",
        description="Show what the running daemon does: since when, with which configuration, the messages of the last "
        "minute and hour, the DNS, and the last warnings. Needs control.socket.",
    )
    add_configuration(shown)
    shown.add_argument("--json", action="store_true", help="print one JSON object")
    shown.add_argument("--watch", action="store_true", help="show it again every two seconds, until Ctrl-C")
    shown.set_defaults(run=_status)
    reloaded = commands.add_parser(
        "reload",
        help="let the running daemon read its configuration again",
        description="Let the running daemon read its configuration again, and report whether it did. Needs "
        "control.socket.",
    )
    add_configuration(reloaded)
    reloaded.set_defaults(run=_reload)
    level = commands.add_parser(
        "log-level",
        help="change the level of the running daemon's log",
        description="Change the level of the running daemon's log until the next reload or restart. Needs "
        "control.socket.",
    )
    level.add_argument("level", choices=[level.name.lower() for level in Level])
    add_configuration(level)
    level.set_defaults(run=_set_level)


def _status(options: argparse.Namespace) -> int:
    while True:
        try:
            _, body = _ask(options, "GET", "/status")
            found = msgspec.json.decode(body, type=Status)
        except DaemonError as error:
            return _complain("status", error)
        except msgspec.MsgspecError:
            return _complain("status", DaemonError("the daemon is of another version; restart it"))
        if options.json:
            print(body.decode().strip())
        else:
            if options.watch:
                print(_CLEAR, end="")
            say(table(found))
        if not options.watch:
            return os.EX_OK
        sys.stdout.flush()
        time.sleep(_WATCH_SECONDS)


def _reload(options: argparse.Namespace) -> int:
    try:
        status, body = _ask(options, "POST", "/reload")
    except DaemonError as error:
        return _complain("reload", error)
    if status == http.HTTPStatus.OK:
        print("reloaded")
        return os.EX_OK
    text = body.decode().strip()
    if status != http.HTTPStatus.CONFLICT:
        return _complain("reload", DaemonError(text))
    complain("reload", f"not reloaded, the old configuration stays: {text}")
    return os.EX_CONFIG


def _set_level(options: argparse.Namespace) -> int:
    try:
        _, body = _ask(options, "POST", f"/log-level/{options.level}")
    except DaemonError as error:
        return _complain("log-level", error)
    print(body.decode().strip())
    return os.EX_OK


def _complain(command: str, error: DaemonError) -> int:
    complain(command, str(error))
    return os.EX_UNAVAILABLE


def _ask(options: argparse.Namespace, method: str, path: str) -> tuple[int, bytes]:
    """Ask the daemon: the status and the body of its answer.

    :raises DaemonError: there is no answer.
    """
    text = load(options.config).control.socket
    if not text:
        where = options.config or "the built-in defaults; name the daemon's file with -c"
        raise ConfigError(
            f"control.socket is not set in {where}; write unix:/run/assay/daemon/control.sock and reload assay"
        )
    connection = _Connection(Endpoint.parse(text))
    try:
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read()
        if response.status not in _ANSWERS:
            raise DaemonError(f"{text}: {response.status} {response.reason}; is this the socket of assay?")
        return response.status, body
    except PermissionError as error:
        raise DaemonError(f"{text}: {error.strerror}; run it as root or as the daemon's user") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or error
        raise DaemonError(f"{text}: {reason}; is the daemon running, with control.socket set?") from error
    finally:
        connection.close()


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__("localhost", timeout=_PATIENCE_SECONDS)
        self._endpoint = endpoint

    def connect(self) -> None:
        self.sock: socket.socket = self._endpoint.connect(_PATIENCE_SECONDS)


def table(status: Status) -> Iterator[str]:
    """The status for a terminal."""
    yield f"assay {status.version}, {_duration(status.now - status.since)} up, since {_when(status.since)}"
    yield f"configuration  {status.configuration}, generation {status.generation}"
    if status.fault:
        yield f"NOT RELOADED   {status.fault}"
    sessions, deaths = counted(status.sessions, "session"), counted(status.deaths, "death")
    yield f"workers        {status.workers} serving, {sessions}, {deaths}"
    for process in status.processes:
        if process.kind == "worker":
            yield f"  pid {process.pid:<10} {counted(process.sessions, 'session')}"
    for number, what in ((status.exceptions, "bugs in assay"), (status.log_lines_lost, "log lines lost")):
        if number:
            yield f"{number} {what}; see the log"
    minute, hour = status.minute, status.hour
    yield ""
    yield f"{'':32}{_head(minute):>16}{_head(hour):>16}"
    yield _row("messages", minute.messages, hour.messages)
    yield _row("  a second", _rate(minute), _rate(hour))
    yield _row("  half waited at most", _wait(minute.half), _wait(hour.half))
    yield _row("  99 % waited at most", _wait(minute.most), _wait(hour.most))
    yield from _rows("action", minute.actions, hour.actions)
    for method in sorted(hour.results):
        yield from _rows(method, minute.results.get(method, {}), hour.results[method])
    yield from _rows("decided by", _flat(minute.decisions), _flat(hour.decisions))
    yield from _rows("questions to the DNS from", minute.questions, hour.questions)
    yield from _rows("queries to nameservers", minute.queries, hour.queries)
    if status.nameservers:
        yield ""
        for server, up in sorted(status.nameservers.items()):
            answers = f"answers {counted(up, 'worker')}" if up else "DOES NOT ANSWER"
            yield f"nameserver {server}  {answers}"
    if status.slowest:
        yield ""
        yield "slowest names of a minute"
        for domain, seconds, number in status.slowest:
            yield f"  {seconds:6.2f} s  {number:5} queries  {domain}"
    if status.warnings:
        yield ""
        yield "last warnings and errors"
        for at, line in status.warnings:
            yield f"  {time.strftime('%H:%M:%S', time.localtime(at))}  {line}"


def _head(period: Period) -> str:
    return f"last {_duration(period.seconds)}"


def _row(name: str, *values: object) -> str:
    return f"{name:32}" + "".join(f"{value:>16}" for value in values)


def _rows(name: str, minute: Mapping[str, int], hour: Mapping[str, int]) -> Iterator[str]:
    """One row for each figure of the hour, the largest first."""
    if hour or minute:
        yield name
    words = sorted({*hour, *minute}, key=lambda word: (-hour.get(word, 0), word))
    for word in words[:_MAX_ROWS]:
        yield _row(f"  {word[:29]}", minute.get(word, 0), hour.get(word, 0))
    if len(words) > _MAX_ROWS:
        yield f"  and {len(words) - _MAX_ROWS} others"


def _flat(values: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {f"{by} {action}": number for by, actions in values.items() for action, number in actions.items()}


def _rate(period: Period) -> str:
    return f"{period.messages / period.seconds:.1f}" if period.seconds else "-"


def _wait(seconds: float) -> str:
    return f"{seconds * 1000:g} ms" if seconds < 1 else f"{seconds:g} s"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (size == 3600 and seconds >= size):
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
