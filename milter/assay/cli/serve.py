# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay serve``: the daemon, in the foreground, as systemd and containers expect."""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
from pathlib import Path
from typing import Any

from assay.cli.options import add_configuration
from assay.config import ConfigError, Configuration, check_metrics, load, make_resolver, make_settings, make_trust
from assay.config.endpoint import Endpoint
from assay.daemon.capacity import capacity, granted, warning
from assay.daemon.journal import check_facts
from assay.daemon.listener import ListenerError, check_group, open_listener
from assay.daemon.supervisor import Supervisor
from assay.log import Log, open_log

#: Descriptors of one worker; a session needs one. More than the SMTP clients that an MTA has at a time.
_DESCRIPTORS = 65536


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
    configuration, log = read_for_serving(options.config)
    _raise_descriptor_limit()
    milter = configuration.milter
    if text := warning(milter.max_sessions, capacity(milter.max_sessions, milter.worker_count, granted())):
        log.warning(text)
    try:
        listener = open_listener(
            Endpoint.parse(milter.socket), mode=int(milter.socket_mode, 8), group=milter.socket_group
        )
    except ListenerError as error:
        log.error(f"{name(options.config)}: {error}")
        return os.EX_UNAVAILABLE
    return Supervisor(
        listener, configuration, lambda: read_for_serving(options.config), log, name(options.config)
    ).run()


def name(path: Path | None) -> str:
    """A configuration file as messages name it."""
    return str(path or "built-in defaults")


def read_configuration(path: Path | None) -> tuple[Configuration, Log]:
    """Read the configuration and check all that the evaluation of a message needs.

    :raises ConfigError: it cannot be used.
    """
    configuration = load(path)
    try:
        make_resolver(configuration).close()
        make_settings(configuration)
        make_trust(configuration)
        log = configuration.log
        return configuration, open_log(log.to, log.facility, log.level, log.format)
    except ValueError as error:
        raise ConfigError(f"{name(path)}: {error}") from error


def read_for_serving(path: Path | None) -> tuple[Configuration, Log]:
    """Read the configuration and check all of it, so that neither a start nor a reload fails half-way.

    :raises ConfigError: it cannot be used.
    """
    configuration, log = read_configuration(path)
    try:
        check_group(configuration.milter.socket_group)
        check_facts(configuration.log.facts)
        check_metrics(configuration)
    except (ValueError, ListenerError) as error:
        raise ConfigError(f"{name(path)}: {error}") from error
    return configuration, log


def _raise_descriptor_limit() -> None:
    """Allow each worker many sessions: the usual soft limit of 1,024 exists for select(2) only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # forbidden here: fewer sessions
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
