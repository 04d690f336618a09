# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay report``: what DMARC reports were sent, what was not and why, who gets none, and what came in."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from assay.cli.options import UsageError, add_configuration, domain, file_path
from assay.cli.output import complain, say
from assay.cli.report_read import read_reports
from assay.cli.serve import name
from assay.cli.store_messages import store_configuration
from assay.config import ConfigError, Configuration, make_resolver
from assay.config.correspondence import reports_redactor, reports_signing, reports_suppressed
from assay.config.database import open_store
from assay.config.section import SettingError
from assay.log import Level, Log
from assay.model.name import InvalidNameError
from assay.model.wording import counted

if TYPE_CHECKING:  # the library is loaded by these commands only
    from assay.store.database import Database
    from assay.store.outbox import OutgoingReport
    from assay.store.report_deliveries import ReportDelivery
    from assay.store.suppressions import Suppression

_Command = Callable[[argparse.Namespace, Configuration], int]

_DAY_SECONDS = 86_400
_MAX_LISTED = 10_000
_MAX_DAYS = 36_500


def add_to(commands: Any) -> None:
    """Add the subcommands to the parser."""
    parser = commands.add_parser(
        "report", help="DMARC reports that were sent, those that were not, and those that came in"
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb_name, run, text in (
        ("list", _list, "list reports, the newest first"),
        ("show", _show, "show one report and its deliveries"),
        ("why", _why, "say for the last days of a domain what was sent, and what was not and why"),
        ("send", _send, "plan and send what is due, and end"),
        ("suppress", _suppress, "send no reports to an address, or to a domain and about it, or list these"),
        ("bounced", _bounced, "note by hand that a report came back, by the token in its bounce address"),
        ("read", read_reports, "read reports that others sent, from files and maildirs, into the store"),
    ):
        verb = verbs.add_parser(verb_name, help=text, description=text[0].upper() + text[1:] + ".")
        add_configuration(verb)
        verb.set_defaults(run=partial(_with_store, run))
        if run is _list:
            verb.add_argument("--day", type=_day, metavar="YYYY-MM-DD", help="of this day, in UTC")
            verb.add_argument("--state", default="", help="in this state, such as sent or 'given up'")
        elif run is _show:
            verb.add_argument("report", metavar="REPORT-ID")
        elif run is _why:
            verb.add_argument("domain", type=domain, metavar="DOMAIN")
        elif run is _suppress:
            verb.add_argument(
                "subject",
                nargs="?",
                default="",
                metavar="ADDRESS|DOMAIN",
                help="a domain stands for all below it too; default: list them",
            )
            verb.add_argument("--days", type=_days, default=0, help="for this many days (default: for ever)")
            verb.add_argument("--remove", action="store_true", help="send reports again")
        elif run is _bounced:
            verb.add_argument("token", metavar="TOKEN", help="what is after the + in the address")
        elif run is read_reports:
            verb.add_argument("paths", nargs="+", type=file_path, metavar="PATH", help="a mail, a report, or a maildir")


def _with_store(command: _Command, options: argparse.Namespace) -> int:
    """Run a command, which imports what uses the libraries: they are there."""
    return command(options, store_configuration(options))


@contextmanager
def _database(configuration: Configuration) -> Iterator[Database]:
    """:raises UnavailableError: it cannot be used now."""
    with closing(open_store(configuration.store)) as database:
        yield database


def _list(options: argparse.Namespace, configuration: Configuration) -> int:
    from assay.store import outbox

    known = [str(state) for state in outbox.REPORT_STATES]
    if options.state and options.state not in known:
        raise UsageError(f"{options.state!r} is not the state of a report; write one of: {', '.join(known)}")
    states = (options.state,) if options.state else ()
    with _database(configuration) as database, database.reading() as connection:
        found = outbox.find_reports(connection, day=options.day, states=states, most=_MAX_LISTED + 1)
    say(_line(each) for each in _cut(found, "; narrow it with --day or --state"))
    return os.EX_OK


def _cut(found: list[OutgoingReport], fix: str) -> list[OutgoingReport]:
    """At most `_MAX_LISTED` reports; says if there are more."""
    if len(found) > _MAX_LISTED:
        complain("report", f"only the newest {_MAX_LISTED:,} are listed{fix}")
    return found[:_MAX_LISTED]


def _why(options: argparse.Namespace, configuration: Configuration) -> int:
    from assay.store import outbox, report_deliveries

    with _database(configuration) as database, database.reading() as connection:
        found = _cut(outbox.find_reports(connection, domain=options.domain.name, most=_MAX_LISTED + 1), "")
        for each in found:
            say([_line(each)])
            deliveries = report_deliveries.deliveries_of(connection, each.id)
            if len(deliveries) > 1:  # each may have met with something else
                say(map(_delivery, deliveries))
        # A domain without a record of its own is in the reports about the domain whose record applies to it.
        above = () if found else _above(options.domain.name)
        others = [each for each in above if outbox.find_reports(connection, domain=each, most=1)]
    if not found:
        say([f"{options.domain}: no report was planned: the store had no mail to which its DMARC record applied"])
    say(f"its mail may be in the reports about {each}: ask for that domain" for each in others)
    return os.EX_OK


def _above(domain: str) -> Iterator[str]:
    """The domains above a domain, the next one first."""
    while domain := domain.partition(".")[2]:
        yield domain


def _show(options: argparse.Namespace, configuration: Configuration) -> int:
    from assay.store import outbox, report_deliveries

    with _database(configuration) as database, database.reading() as connection:
        found = outbox.report(connection, options.report)
        deliveries = report_deliveries.deliveries_of(connection, options.report)
        parts = outbox.parts_of(connection, options.report)
    if found is None:
        complain("report show", f"{options.report}: there is no such report; assay report list prints their ids")
        return os.EX_DATAERR
    say([_line(found)])
    say(map(_delivery, deliveries))
    say(map(_line, parts))
    return os.EX_OK


def _send(options: argparse.Namespace, configuration: Configuration) -> int:
    if not configuration.reports.enabled:
        where = name(options.config)
        raise ConfigError(f"{where}: reports.organization: not set, so no reports are made; see docs/reports.md")
    from assay.daemon.reporter import ReportTurns

    lines: list[str] = []
    try:
        signing = reports_signing(configuration)
        listed = reports_suppressed(configuration.reports.suppress)
        redactor = reports_redactor(configuration.reports.failure)
    except SettingError as error:
        raise ConfigError(f"{name(options.config)}: {error}") from error
    with make_resolver(configuration) as resolver:
        log = Log(lambda _, text: lines.append(text), Level.WARNING)
        with closing(ReportTurns(configuration, signing, listed, resolver, log, redactor=redactor, once=True)) as turns:
            done = turns.turn(int(time.time()))
            leads = turns.leads
    say(lines)
    if not leads and not lines:
        say(["another process sends reports from this database; nothing was done"])
        return os.EX_TEMPFAIL
    say([f"reports dealt with: {done}"])
    return os.EX_TEMPFAIL if lines else os.EX_OK


def _suppress(options: argparse.Namespace, configuration: Configuration) -> int:
    from assay.store import suppressions

    if options.remove and options.days:
        raise UsageError("--days and --remove exclude each other")
    if (options.remove or options.days) and not options.subject:
        raise UsageError("write the address or domain before --days or --remove")
    with _database(configuration) as database:
        if not options.subject:
            with database.reading() as connection:
                say(_suppression(each) for each in suppressions.all_suppressions(connection))
            return os.EX_OK
        try:
            subject = suppressions.subject_of(options.subject)
        except InvalidNameError as error:
            raise UsageError(f"{options.subject!r} is not an address or a domain: {error}") from error
        now = int(time.time())
        with database.writing() as connection:
            if options.remove:
                found = suppressions.unsuppress(connection, subject)
                if not found:
                    complain("report suppress", f"{subject}: is not suppressed; assay report suppress lists what is")
                    return os.EX_DATAERR
                say([f"{subject}: reports are sent again"])
                return os.EX_OK
            until = now + options.days * _DAY_SECONDS if options.days else 0
            added = suppressions.Suppression(subject, until, "by the operator", now)
            suppressions.suppress(connection, added)
        say([_suppression(added)])
    return os.EX_OK


def _bounced(options: argparse.Namespace, configuration: Configuration) -> int:
    from assay.store.bounced import note_bounce

    with _database(configuration) as database, database.writing() as connection:
        days = configuration.reports.cool_down_days
        token = options.token.lower()  # some MTAs change the case
        stopped = note_bounce(connection, token, days, now=int(time.time()))
    if stopped is None:
        complain("report bounced", f"{options.token}: no report has this token")
        return os.EX_DATAERR
    until = f"until {_time(stopped.until)}" if stopped.until else "any more"
    say([f"{stopped.address}: gets no reports {until}"])
    return os.EX_OK


def _line(report: OutgoingReport) -> str:
    day = datetime.fromtimestamp(report.day * _DAY_SECONDS, UTC).date()
    when = f", due {_time(report.due)}" if report.state == "waiting" else ""
    why = f": {report.why}" if report.why else ""
    kind = "failure report, " if report.kind == "failure" else ""
    if report.supplement:
        kind = f"supplement {report.supplement}, "
    if report.form == "part":
        kind += f"part {report.part} of {report.parts} of {report.part_of}, "
    elif report.form == "error report":
        return f"{day} {report.domain} {report.id} error report about {report.part_of}: {report.state}{when}{why}"
    messages = counted(report.messages, "message")
    return f"{day} {report.domain} {report.id} {kind}{messages}: {report.state}{when}{why}"


def _delivery(delivery: ReportDelivery) -> str:
    tried = f"tried {counted(delivery.tries, 'time')}, last at {_time(delivery.changed)}"
    return f"  {delivery.address}: {delivery.state}, {tried}: {delivery.why}"


def _suppression(suppression: Suppression) -> str:
    until = f"until {_time(suppression.until)}" if suppression.until else "for ever"
    return f"{suppression.subject} {until}: {suppression.why}"


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _day(text: str) -> int:
    try:
        return (date.fromisoformat(text) - date(1970, 1, 1)).days
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day; write one such as 2026-11-26") from None


def _days(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= _MAX_DAYS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 1 to {_MAX_DAYS:,}")
    return int(text)
