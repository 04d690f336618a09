# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay store``: the tables of the database, and a consumer that fills it from a broker.

`assay.cli.store_messages` has what reads and removes single messages.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assay.cli import store_messages
from assay.cli.options import add_configuration
from assay.cli.output import say
from assay.cli.store_messages import store_configuration
from assay.config import ConfigError
from assay.config.database import StoreBackend, open_store, read_password
from assay.config.store import is_amqp_name
from assay.log import Level, Log
from assay.model.wording import counted

QUEUE = "assay.store"


def add_to(commands: Any) -> None:
    """Add the subcommands to the parser."""
    parser = commands.add_parser("store", help="the database with results")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb_name, run, text in (
        ("check", _check, "say whether the database can be used, and how much is in it"),
        ("migrate", _migrate, "make the tables, or bring those of an older version up to date"),
        ("consume", _consume, "write what other hosts publish to the broker into the database, until interrupted"),
    ):
        verb = verbs.add_parser(verb_name, help=text, description=text[0].upper() + text[1:] + ".")
        add_configuration(verb)
        verb.set_defaults(run=run)
        if run is _consume:
            verb.add_argument(
                "--queue", type=_queue, default=QUEUE, help="the queue; made if needed (default: %(default)s)"
            )
    store_messages.add_to(verbs)


def _migrate(options: argparse.Namespace) -> int:
    section = store_configuration(options).store
    from assay.store.database import connect
    from assay.store.revisions import NEWEST

    with contextlib.closing(connect(section.location, read_password(section.password_file))) as database:
        before = database.migrate()
    change = "nothing to do" if before == NEWEST else f"was {before}" if before else "was empty"
    say([f"{section.location}: the tables are of revision {NEWEST} ({change})"])
    return os.EX_OK


def _check(options: argparse.Namespace) -> int:
    section = store_configuration(options).store
    from assay.store.condition import MOST_COUNTED, condition

    with contextlib.closing(open_store(section, may_write=False)) as database:
        found = condition(database)
    messages = (
        f"more than {MOST_COUNTED} messages" if found.messages > MOST_COUNTED else counted(found.messages, "message")
    )
    say([f"{section.location}: {messages}, {found.octets} octets"])
    if found.messages:
        say([f"the oldest message is of {_time(found.oldest)}, the newest of {_time(found.newest)}"])
    if found.last_day:
        say([f"counts of {_day(found.first_day)} to {_day(found.last_day)}"])
    waiting = 0
    for path in Path(section.directory).glob("spool/*/*.rows"):
        with contextlib.suppress(FileNotFoundError):  # the recorder has just removed it
            waiting += path.stat().st_size
    say([f"{section.directory}/spool: {waiting} octets"])
    return os.EX_OK


def _consume(options: argparse.Namespace) -> int:
    configuration = store_configuration(options)
    section = configuration.store
    if not section.broker:
        raise ConfigError("store.broker: not set, so there is nothing to consume")
    from assay.store.consuming import Consuming

    log = Log(lambda _, text: print(text, file=sys.stderr, flush=True), Level.INFO)
    password = read_password(section.broker_password_file)
    with contextlib.closing(StoreBackend(configuration)) as backend:
        consuming = Consuming(section.broker, password, section.exchange, options.queue, backend, log)
        asyncio.run(_until_ended(consuming.run()))
    log.info(f"store: ending; {counted(consuming.written, 'result')} written")
    return os.EX_OK


async def _until_ended(work: Coroutine[Any, Any, None]) -> None:
    """Run until SIGTERM or SIGINT."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _queue(text: str) -> str:
    if not is_amqp_name(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of a queue; write one such as {QUEUE}")
    return text


def _day(number: int) -> str:
    return f"{datetime.fromtimestamp(number * 86_400, UTC):%Y-%m-%d}"


def _time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M} UTC"
