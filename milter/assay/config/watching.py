# SPDX-License-Identifier: GPL-3.0-or-later
"""The sections about what an operator sees of the daemon: the log, the figures and the control socket."""

from __future__ import annotations

import socket
from typing import Annotated

from msgspec import Meta

from assay.config.section import Section, SettingError
from assay.config.sockets import check_endpoint, check_mode


class LogSection(Section, frozen=True):
    """One line per message."""

    to: Annotated[
        str,
        Meta(
            description='"stderr", which suits systemd and containers; "syslog"; or "journald", which gets each value '
            "as a field of its own, such as ASSAY_QUEUE. Mail never waits for a log that is not read."
        ),
    ] = "stderr"
    format: Annotated[
        str, Meta(description='How a line is written: "pairs" as key=value, which people read, or "json".')
    ] = "pairs"
    facility: Annotated[str, Meta(description="The syslog facility.")] = "mail"
    level: Annotated[
        str,
        Meta(
            description='"error": bugs in assay. "warning": also problems in its environment. "info": also '
            'each message. "debug": also the life cycle of processes.'
        ),
    ] = "info"

    facts: Annotated[
        str,
        Meta(
            description="A file to which the facts of every judged message are appended, one JSON object per "
            'line, for "assay policy try". Empty: none. It contains addresses of your users, so restrict who '
            "can read it."
        ),
    ] = ""
    enterprise: Annotated[
        int,
        Meta(
            ge=0,
            description="Also log each refusal as RFC 5424 structured data, for tools such as fail2ban, under "
            "this private enterprise number. 0: no such line. 32473 is the number for examples (RFC 5612).",
        ),
    ] = 0

    def __post_init__(self) -> None:
        if self.to not in ("stderr", "syslog", "journald"):
            raise SettingError("to", f"{self.to!r} is not one of stderr, syslog, journald")
        if self.format not in ("pairs", "json"):
            raise SettingError("format", f"{self.format!r} is not one of pairs, json")
        if self.level not in ("error", "warning", "info", "debug"):
            raise SettingError("level", f"{self.level!r} is not one of error, warning, info, debug")


class MetricsSection(Section, frozen=True):
    """Figures for Prometheus, served by a process of their own."""

    listen: Annotated[
        str,
        Meta(
            description="Where /metrics, /healthz and /readyz are served over HTTP: inet:PORT@HOST, inet6:PORT@HOST or "
            "unix:PATH. Empty: nowhere. Use a loopback address: anyone who can connect can read the names of your "
            "rules and nameservers. A TCP port such as inet:9810@127.0.0.1 is what Prometheus expects."
        ),
    ] = ""

    def __post_init__(self) -> None:
        if self.listen:
            check_endpoint("listen", self.listen, "daemon/metrics.sock")


class ControlSection(Section, frozen=True):
    """The socket of "assay status", "assay reload" and "assay log-level"."""

    socket: Annotated[
        str,
        Meta(
            description="A unix socket, such as unix:/run/assay/daemon/control.sock. Empty: none. Anyone who can "
            "write to it can read the last warnings and the slowest names, reload the configuration and change the "
            "level of the log."
        ),
    ] = ""
    socket_mode: Annotated[
        str, Meta(description="Its permissions, in octal. By default only the daemon's user and root can connect.")
    ] = "0600"

    def __post_init__(self) -> None:
        if self.socket and check_endpoint("socket", self.socket, "daemon/control.sock").family != socket.AF_UNIX:
            raise SettingError(
                "socket", f"{self.socket!r} is not a unix socket; write one such as unix:/run/assay/daemon/control.sock"
            )
        check_mode(self.socket_mode)
