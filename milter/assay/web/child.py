# SPDX-License-Identifier: GPL-3.0-or-later
"""The child that serves the page. If it dies, mail goes on, and the next one starts."""

from __future__ import annotations

import os
import time

from assay.config import Configuration
from assay.config.endpoint import Endpoint
from assay.config.web import read_token
from assay.daemon.child import Kind, Tether
from assay.daemon.status import History
from assay.log import Log
from assay.web.access import Access, Proxies

_MODE = 0o660  # of a unix socket, as for the MTA's


def kind(configuration: Configuration, log: Log) -> tuple[Kind, ...]:
    """The page, if the configuration asks for it.

    :raises ValueError: the token cannot be used.
    """
    section = configuration.web
    if not section.listen:
        return ()
    access = Access(read_token(section), section.user_header, Proxies.of(section))
    return (Kind("page", lambda tether: run(tether, configuration, access, log)),)


def run(tether: Tether, configuration: Configuration, access: Access, log: Log) -> int:
    """Serve until the order to drain. Call it in a new child process.

    :returns: the exit code.
    """
    # The libraries for it are loaded in this process only.
    from assay.web.app import make_app
    from assay.web.server import WebServer
    from assay.web.site import Site

    history = History(tether.pages, leaves=False)
    site = Site(configuration, tether.pages, history, time.time)
    try:
        server = WebServer(Endpoint.parse(configuration.web.listen), _MODE, make_app(site, access, log), log)
    except OSError as error:
        log.error(f"page: {configuration.web.listen}: {error.strerror or error}")
        return os.EX_UNAVAILABLE
    tether.ready()
    tether.wait(history.tick)
    server.close()
    return os.EX_OK
