# SPDX-License-Identifier: GPL-3.0-or-later
"""A mail that the MTA delivers to us: reports, or a report of ours that came back."""

from __future__ import annotations

import contextlib
from pathlib import Path

from msgspec import Struct

from assay.config import Configuration
from assay.config.database import open_store
from assay.model.name import ReversePath
from assay.model.wording import counted
from assay.reports.incoming.bounce import bounce_token, why_no_bounce
from assay.reports.incoming.set_aside import set_aside
from assay.reports.incoming.taking import Taken, Taker
from assay.store.bounced import note_bounce
from assay.store.database import Database
from assay.store.received import ReportOutcome


class DeliveredMail(Struct, frozen=True):
    """What became of a mail.

    :ivar bounce: of mail to a bounce address: ``stopped`` (a destination gets no more reports), ``ignored`` (it is no
        bounce) or ``unknown`` (no report has this address), with `about` in words. Empty for all other mail.
    :ivar bugs: tracebacks.
    :ivar trouble: why it could not be set aside.
    """

    reports: tuple[Taken, ...] = ()
    bounce: str = ""
    about: str = ""
    bugs: tuple[str, ...] = ()
    trouble: str = ""


def deliver(
    configuration: Configuration, sender: ReversePath, recipient: str, mail: bytes, *, now: float
) -> DeliveredMail:
    """Take a mail. Call it in a process with one thread: reading forks.

    :param now: Unix time.
    :raises UnavailableError: the database cannot be used now; nothing was kept.
    :raises OSError: there is no process or descriptor left; nothing was kept.
    """
    token = bounce_token(recipient, configuration.reports.bounces)
    if token is not None and (why := why_no_bounce(sender, mail)):
        return DeliveredMail(bounce="ignored", about=f"{token or 'no token'}: {why}")
    with contextlib.closing(open_store(configuration.store)) as database:
        if token is None:
            return _reports(configuration, database, mail, now)
        return _bounce(configuration, database, token, int(now))


def _reports(configuration: Configuration, database: Database, mail: bytes, now: float) -> DeliveredMail:
    bugs: list[str] = []
    reports = Taker.of(configuration, bugs.append).take(database, mail, now=now)
    trouble = ""
    directory = configuration.reports.incoming.keep_unreadable
    if directory and any(report.outcome is ReportOutcome.UNREADABLE for report in reports):
        try:
            set_aside(Path(directory), mail)
        except OSError as error:
            trouble = f"{directory}: {error.strerror or error}"
    return DeliveredMail(reports, bugs=tuple(bugs), trouble=trouble)


def _bounce(configuration: Configuration, database: Database, token: str, now: int) -> DeliveredMail:
    days = configuration.reports.cool_down_days
    with database.writing() as connection:
        stopped = note_bounce(connection, token, days, now=now)
    if stopped is None:
        return DeliveredMail(bounce="unknown", about=f"{token or 'no token'}: there is no such report")
    return DeliveredMail(bounce="stopped", about=f"{stopped.address} gets no more for {counted(days, 'day')}")
