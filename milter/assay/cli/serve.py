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
from assay.config import (
    ConfigError,
    Configuration,
    check_metrics,
    check_reports,
    check_store,
    check_web,
    load,
    make_resolver,
    make_settings,
    make_trust,
)
from assay.config.endpoint import Endpoint
from assay.daemon.capacity import capacity, granted, warning
from assay.daemon.journal import check_facts
from assay.daemon.listener import ListenerError, check_group, open_listener
from assay.daemon.notify import Manager
from assay.daemon.privileges import Account, PrivilegesError, become
from assay.daemon.privileges import find as find_user
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
    """Open the socket, give up the rights of root, and supervise."""
    manager = Manager()
    configuration, log = read_configuration(options.config)
    _check_names(options.config, configuration)
    _raise_descriptor_limit()
    milter = configuration.milter
    if text := warning(milter.max_sessions, capacity(milter.max_sessions, milter.worker_count, granted())):
        log.warning(text)
    with contextlib.ExitStack() as stack:
        try:
            user = find_user(milter.user) if milter.user else None
            listener = open_listener(
                Endpoint.parse(milter.socket), mode=int(milter.socket_mode, 8), group=milter.socket_group, user=user
            )
            stack.callback(listener.remove)  # unless it serves
            supervisor = Supervisor(
                listener, configuration, lambda: read_for_serving(options.config), log, name(options.config), manager
            )
            if user is not None:
                become(user)
        except PrivilegesError as error:
            log.error(f"{name(options.config)}: {error}")
            return os.EX_NOPERM
        except ListenerError as error:
            log.error(f"{name(options.config)}: {error}")
            return os.EX_UNAVAILABLE
        except ValueError as error:  # what one of the children needs, such as a key for the reports
            raise ConfigError(f"{name(options.config)}: {error}") from error
        check_outputs(options.config, configuration)
        stack.pop_all()
    if user is not None:
        _check_reload(options.config, user, log)
    elif os.geteuid() == 0:
        log.warning("runs as root, which it never needs; set milter.user")
    return supervisor.run()


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
    _check_names(path, configuration)
    check_outputs(path, configuration)
    return configuration, log


def _check_names(path: Path | None, configuration: Configuration) -> None:
    """Check the group and the user, which must be on this host."""
    try:
        check_group(configuration.milter.socket_group)
        if configuration.milter.user:
            find_user(configuration.milter.user)
    except (ListenerError, PrivilegesError) as error:
        raise ConfigError(f"{name(path)}: {error}") from error


def check_outputs(path: Path | None, configuration: Configuration) -> None:
    """Check what the daemon writes and where it reports, as the user that it is.

    :raises ConfigError: it cannot be used.
    """
    try:
        check_facts(configuration.log.facts)
        check_metrics(configuration)
        check_store(configuration)
        check_web(configuration)
        check_reports(configuration)
    except ValueError as error:
        raise ConfigError(f"{name(path)}: {error}") from error


def _check_reload(path: Path | None, user: Account, log: Log) -> None:
    """Warn now of what only root could read: later, a reload would fail."""
    try:
        read_configuration(path)
    except ConfigError as error:
        log.warning(f"a reload will fail, because {user.name} cannot read what root has read: {error}")


def _raise_descriptor_limit() -> None:
    """Allow each worker many sessions: the usual soft limit of 1,024 exists for select(2) only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # forbidden here: fewer sessions
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
