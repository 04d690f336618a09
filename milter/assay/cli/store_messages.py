# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay store export`` and ``forget``: single messages of the database, and what it has about a person."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from datetime import UTC, datetime
from typing import Any

from assay.cli import options as given
from assay.cli.options import add_configuration
from assay.cli.output import say
from assay.cli.serve import name
from assay.config import ConfigError, Configuration, check_store, load
from assay.config.database import open_store
from assay.config.section import SettingError
from assay.policy import Action
from assay.protocol import dmarc

#: What ``forget`` cannot reach.
_STAYS = (
    "not in the database, and so not removed: the log and the facts log; what is not written yet in {directory}/spool; "
    "what went to a broker; reports that were sent; files in reports.incoming.keep_unreadable; backups"
)
_SPAN = "YYYY-MM-DD[THH:MM]"


def add_to(verbs: Any) -> None:
    """Add the subcommands to the parser of ``assay store``."""
    export, forgetting = (
        verbs.add_parser(verb, help=text, description=text[0].upper() + text[1:] + ".")
        for verb, text in (
            ("export", "print messages, the newest first, as JSON lines or CSV"),
            ("forget", "find and remove what is kept about a domain or an address"),
        )
    )
    for command, run in ((export, _export), (forgetting, _forget)):
        add_configuration(command)
        command.set_defaults(run=run)
    export.add_argument("--format", choices=("json", "csv"), default="json", help="default: json, an object a line")
    export.add_argument("--since", type=_time, default=0, metavar=_SPAN, help="in UTC")
    export.add_argument("--until", type=_time, default=0, metavar=_SPAN, help="in UTC; not itself")
    export.add_argument("--queue", default="", metavar="ID", help="queue id")
    export.add_argument("--message-id", default="", metavar="ID", help="the Message-ID, with its angle brackets")
    export.add_argument("--domain", type=given.domain, help="of the sender or of the author")
    export.add_argument("--sender-domain", type=given.domain, metavar="DOMAIN")
    export.add_argument("--author-domain", type=given.domain, metavar="DOMAIN")
    export.add_argument("--address", default="", help="of a sender, author, recipient or user, if addresses are kept")
    export.add_argument("--client", type=given.address, metavar="IP", help="address of the SMTP client")
    export.add_argument("--action", choices=list(map(str, Action)), default="", metavar="ACTION", help="such as reject")
    export.add_argument(
        "--dmarc", choices=list(map(str, dmarc.Result)), default="", metavar="RESULT", help="such as fail"
    )
    whom = forgetting.add_mutually_exclusive_group(required=True)
    whom.add_argument("--domain", type=given.domain, help="the domain and all below it")
    whom.add_argument("--address", type=_person, help="a whole address, or a login name")
    forgetting.add_argument("--yes", action="store_true", help="remove it; without this, it is only counted")


def store_configuration(options: argparse.Namespace) -> Configuration:
    """The configuration, which names a database. Commands import what uses the libraries after it: they are there.

    :raises ConfigError: it does not, or what the database needs is not installed.
    """
    configuration = load(options.config)
    try:
        check_store(configuration)
    except SettingError as error:
        raise ConfigError(f"{name(options.config)}: {error}") from error
    if options.config is None:
        raise ConfigError("no configuration file, so there is no database; name one with -c FILE")
    if not configuration.store.location:
        key = "store.database" if configuration.store.directory else "store.directory"
        raise ConfigError(f"{options.config}: there is no database; set {key}")
    return configuration


def _export(options: argparse.Namespace) -> int:
    section = store_configuration(options).store
    from assay.cli.store_export import write
    from assay.store.search import Criteria
    from assay.store.whole import exported

    texts: dict[str, Any] = {filter_name: str(getattr(options, filter_name) or "") for filter_name in _FILTERS}
    wanted = Criteria(since=options.since, until=options.until, **texts)
    with contextlib.closing(open_store(section, may_write=False)) as database:
        write(exported(database, wanted), options.format, sys.stdout)
    return os.EX_OK


_FILTERS = (
    "queue", "message_id", "domain", "sender_domain", "author_domain", "address", "client", "action", "dmarc"
)  # fmt: skip


def _forget(options: argparse.Namespace) -> int:
    section = store_configuration(options).store
    from assay.store.forgetting import Whom, count, forget

    whom = Whom(options.address or "", str(options.domain or ""))
    with contextlib.closing(open_store(section)) as database:
        found = forget(database, whom) if options.yes else count(database, whom)
    say(f"{'removed' if options.yes else 'would be removed'}: {each.kind}: {each.count}" for each in found)
    if options.address and not section.addresses:
        say(["store.addresses is false, so addresses are not kept now; older rows are found"])
    say([_STAYS.format(directory=section.directory)])
    if not options.yes:
        say(["to remove it, add --yes"])
    return os.EX_OK


def _time(text: str) -> int:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write one such as 2026-11-26T14:30") from error
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def _person(text: str) -> str:
    """An unset variable of a shell script is not an address, and would be found in nearly every message."""
    words = text.strip("<> ").split("@")
    if not all(words):
        raise argparse.ArgumentTypeError(f"{text!r} is not an address; write one such as ann@example.org")
    return text
