# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay serve``: the daemon, in the foreground, as systemd and containers want it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from assay.cli.options import add_configuration
from assay.config import ConfigError, Configuration, load, make_resolver, make_settings
from assay.config.endpoint import Endpoint
from assay.daemon.listener import ListenerError, open_listener
from assay.daemon.supervisor import Supervisor
from assay.log import Log, open_log


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser."""
    parser = commands.add_parser(
        "serve",
        help="serve an MTA",
        description="Serve an MTA in the foreground. SIGTERM drains and ends, SIGHUP reloads the configuration.",
    )
    add_configuration(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Open the socket and supervise."""
    configuration, log = read_configuration(options.config)
    milter = configuration.milter
    try:
        listener = open_listener(
            Endpoint.parse(milter.socket), mode=int(milter.socket_mode, 8), group=milter.socket_group
        )
    except ListenerError as error:
        log.error(str(error))
        return os.EX_UNAVAILABLE
    return Supervisor(listener, configuration, lambda: read_configuration(options.config), log).run()


def read_configuration(path: Path | None) -> tuple[Configuration, Log]:
    """Read the configuration and try all of it, so that a reload cannot fail half-way."""
    configuration = load(path)
    try:
        make_resolver(configuration).close()
        make_settings(configuration)
        return configuration, open_log(configuration.log.to, configuration.log.facility, configuration.log.level)
    except ValueError as error:
        raise ConfigError(f"{path or 'defaults'}: {error}") from error
