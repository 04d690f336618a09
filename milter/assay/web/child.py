# SPDX-License-Identifier: GPL-3.0-or-later
"""The child that serves the page. If it dies, mail goes on, and the next one starts."""

from __future__ import annotations

import os

from assay.config import Configuration
from assay.config.endpoint import Endpoint
from assay.config.signing import make_signing
from assay.config.web import read_token
from assay.daemon.child import Kind, Tether
from assay.daemon.status import History
from assay.keys.configured import ConfiguredKey, configured
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
    keys = tuple(configured(make_signing(configuration)))  # the page itself reads no private key
    return (Kind("page", lambda tether: run(tether, configuration, access, keys, log)),)


def run(tether: Tether, configuration: Configuration, access: Access, keys: tuple[ConfiguredKey, ...], log: Log) -> int:
    """Serve until the order to drain. Call it in a new child process.

    :param keys: that sign.
    :returns: the exit code.
    """
    # The libraries for it are loaded in this process only.
    from assay.web.app import make_app
    from assay.web.server import ServerEndedError, WebServer
    from assay.web.site import open_site

    history = History(tether.pages, leaves=False)
    site = open_site(configuration, tether.pages, history, keys, log)
    endpoint = Endpoint.parse(configuration.web.listen)
    try:
        server = WebServer(endpoint, _MODE, make_app(site, access, log), log)
    except OSError as error:
        log.error(f"page: web.listen: {configuration.web.listen}: {endpoint.explain(error)}")
        return os.EX_UNAVAILABLE

    def tick() -> None:
        server.check()
        history.tick()

    tether.ready()
    try:
        tether.wait(tick)
    except ServerEndedError as error:  # the supervisor starts another
        log.error(f"page: the HTTP server has ended: {error}")
        return os.EX_SOFTWARE
    server.close()
    site.lookups.close()
    site.store.close()
    return os.EX_OK
