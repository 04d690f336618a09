# SPDX-License-Identifier: GPL-3.0-or-later
"""The control socket: the status as JSON, a reload, and the level of the log. HTTP, so that curl can do it too."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus

import msgspec

from assay.daemon.http import HttpResponse, Responder
from assay.daemon.status import History, status
from assay.log import Level, Log
from assay.metrics import Pages, read

_RELOAD_SECONDS = 40.0  # a worker may take 30 to start
_LOOK_SECONDS = 0.02  # between two looks whether the reload has ended


def commands(pages: Pages, history: History, log: Log) -> Mapping[str, Responder]:
    """What can be asked for."""
    levels = {f"POST /log-level/{level.name.lower()}": partial(_set_level, log, level) for level in Level}
    return {
        "GET /status": lambda _: _json(status(pages, history)),
        "POST /reload": lambda _: _reload(pages, history, log),
        **levels,
    }


def _reload(pages: Pages, history: History, log: Log) -> HttpResponse:
    """Let the supervisor reload, and wait for the result."""
    before = read(pages.all)
    log.info("reload requested over the control socket")
    os.kill(os.getppid(), signal.SIGHUP)
    deadline = time.monotonic() + _RELOAD_SECONDS
    while time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        ended = read(pages.all).since(before)
        if ended.total("reloads", result="failed"):
            return HttpResponse(HTTPStatus.CONFLICT, f"{status(pages, history).fault}\n".encode())
        if ended.total("reloads", result="done"):
            return HttpResponse(HTTPStatus.OK, b"reloaded\n")
    return HttpResponse(HTTPStatus.GATEWAY_TIMEOUT, b"the reload has not ended yet; see the log\n")


def _set_level(log: Log, level: Level, _: str) -> HttpResponse:
    log.set_level(level)
    log.warning(f"log.level is {level.name.lower()} until the next reload or restart, by the control socket")
    return HttpResponse(HTTPStatus.OK, f"log.level is {level.name.lower()} until the next reload\n".encode())


def _json(value: object) -> HttpResponse:
    return HttpResponse(HTTPStatus.OK, msgspec.json.encode(value) + b"\n", "application/json")
