# SPDX-License-Identifier: GPL-3.0-or-later
"""The child that answers about the daemon over HTTP: figures for Prometheus, health, and the control socket.

It reads the pages in which all processes count (`assay.metrics`) and stops none of them. If it dies, mail goes on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from http import HTTPStatus

from assay.config import Configuration
from assay.config.endpoint import Endpoint
from assay.daemon.child import Kind, SocketSetting, Tether
from assay.daemon.control import commands
from assay.daemon.http import HttpResponse, HttpServer, Responder
from assay.daemon.status import History
from assay.log import Log
from assay.metrics import Page, read


def kind(configuration: Configuration, served: Endpoint, log: Log) -> tuple[Kind, ...]:
    """The endpoint, if the configuration asks for one.

    :param served: the socket on which workers serve; a service manager may have opened another than ``milter.socket``.
    """
    sockets = []
    if text := configuration.metrics.listen:
        sockets.append(SocketSetting("metrics.listen", Endpoint.parse(text)))
    if text := configuration.control.socket:
        sockets.append(SocketSetting("control.socket", Endpoint.parse(text), int(configuration.control.socket_mode, 8)))
    if not sockets:
        return ()
    return (Kind("endpoint", lambda tether: run(tether, served, log), sockets=tuple(sockets)),)


def run(tether: Tether, served: Endpoint, log: Log) -> int:
    """Serve until the order to drain. Call it in a new child process.

    :returns: the exit code.
    """
    servers = []
    history = History(tether.pages)
    if listening := tether.sockets.get("metrics.listen"):
        servers.append(HttpServer(listening, public(tether.pages.all, served), log))
    if listening := tether.sockets.get("control.socket"):
        servers.append(HttpServer(listening, commands(tether.pages, history, log), log))
    tether.ready()
    tether.wait(history.tick)
    for server in servers:
        server.close()
    history.close()
    return os.EX_OK


def public(pages: tuple[Page, ...], served: Endpoint) -> Mapping[str, Responder]:
    """What is public."""
    from assay.daemon.exposition import exposition  # the library for it is loaded in this process only

    def metrics(accept: str) -> HttpResponse:
        return HttpResponse(HTTPStatus.OK, *exposition(read(pages), accept))

    def ready(_: str) -> HttpResponse:
        faults = tuple(why_not_ready(pages, served))
        if faults:
            return HttpResponse(HTTPStatus.SERVICE_UNAVAILABLE, "".join(f"{fault}\n" for fault in faults).encode())
        return HttpResponse(HTTPStatus.OK, b"ready\n")

    return {
        "GET /metrics": metrics,
        "GET /healthz": lambda _: HttpResponse(HTTPStatus.OK, b"alive\n"),
        "GET /readyz": ready,
    }


def why_not_ready(pages: tuple[Page, ...], served: Endpoint) -> list[str]:
    """Why no mail would be judged now, one clause each; none if all is well."""
    faults = []
    try:
        served.connect(1.0).close()
    except PermissionError:
        pass  # only the MTA may connect, as with assay.socket; whether workers serve is asked below
    except OSError as error:
        faults.append(f"the socket {served}: {error.strerror or error}")
    reading = read(pages)
    if not reading.total("workers"):
        faults.append("no worker serves")
    nameservers = reading.of("dns_nameserver_up")
    if nameservers and not any(nameservers.values()):
        faults.append("no nameserver answers")
    return faults
