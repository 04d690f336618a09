# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses and domains that get no reports: the only thing that the page changes, by buttons and a form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from assay.config.database import open_store
from assay.model.name import InvalidNameError
from assay.model.wording import counted
from assay.store import schema, suppressions
from assay.store.outbox import DAY_SECONDS
from assay.store.suppressions import MAX_DAYS, Suppression
from assay.web.parts import Cell, ChangeForm, Choice, Column, DataTable, Moment, Part, Press, Remark
from assay.web.site import MAX_ARGUMENT, Site

PATH = "/reports/suppressions"  # where the forms go
ROWS = 200  # of those that are suppressed: each destination that refuses reports is
_STOP, _AGAIN = "suppress", "lift"
_COLUMNS = (
    Column("subject", "address or domain"),
    Column("until", "until (UTC)"),
    Column("why", "why", wide=True),
    Column("added", "since (UTC)"),
)
_BUTTON = Column("", "change")


class ChangeError(ValueError):
    """What a form asks for cannot be done. The text says why."""


def may_change(site: Site) -> bool:
    """Whether the database can be written, so that there are buttons."""
    return site.store.database.can_change(schema.suppressions)


def button(subject: str) -> Press | None:
    """Suppresses a destination; None for a URI of a record, which is not an address."""
    try:
        suppressions.subject_of(subject)
    except InvalidNameError:
        return None
    return _press("Suppress", _STOP, subject)


def parts(site: Site, *, changeable: bool) -> Iterator[Part]:
    """Who gets no reports, and the form that adds others."""
    with site.store.database.reading() as connection:
        found = suppressions.all_suppressions(connection, ROWS + 1)
    now = site.now()
    rows: list[tuple[Cell, ...]] = []
    for each in found[:ROWS]:
        until = Moment(each.until * 1000) if each.until else "for ever"
        over = bool(each.until) and each.until <= now
        why = f"over: {each.why}" if over else each.why
        cells: tuple[Cell, ...] = (each.subject, until, why, Moment(each.added * 1000))
        rows.append((*cells, _press("Send again", _AGAIN, each.subject)) if changeable else cells)
    listed = site.configuration.reports.suppress
    note = "A domain stands for all below it too. No report goes to it or is about it."
    note += f" Those in {listed} (reports.suppress) are not in this table." if listed else ""
    note += f" Only the first {ROWS} are shown; assay report suppress lists all." if len(found) > ROWS else ""
    columns = (*_COLUMNS, _BUTTON) if changeable else _COLUMNS
    yield DataTable("suppressions", "Suppressed", columns, rows, note=note, empty="Nothing is suppressed.")
    if not changeable:
        yield Remark("The database cannot be written from here, so nothing can be changed on this page.")
        return
    yield ChangeForm(
        "suppress",
        "Suppress a destination",
        PATH,
        "The log says who did it. What is being sent at this moment still goes out.",
        (
            Choice("subject", "Address or domain", "", "d@example.com"),
            Choice("days", "For how many days", "", "for ever"),
        ),
        (("do", _STOP),),
        "Suppress",
    )


def _press(label: str, what: str, subject: str) -> Press | None:
    if not subject.isprintable():
        return None
    return Press(label, PATH, (("do", what), ("subject", subject)), f"reports to {subject}")


def change(site: Site, form: Mapping[str, str], user: str) -> str:
    """Do what a form asks for.

    :param user: who sent it.
    :returns: what was done, in one clause, for the log.
    :raises ChangeError: it cannot be done.
    :raises UnavailableError: the database cannot be written now.
    """
    asked = form.get("subject", "").strip()
    if len(asked) > MAX_ARGUMENT:
        raise ChangeError(f"an address has at most {MAX_ARGUMENT} characters")
    try:
        subject = suppressions.subject_of(asked)
    except InvalidNameError as error:
        raise ChangeError(f"this is not an address or a domain: {error}") from error
    days = _days(form.get("days", "").strip())
    if not may_change(site):
        raise ChangeError("the database cannot be written from here")
    match form.get("do", ""):
        case "suppress":
            now = int(site.now())
            until = now + days * DAY_SECONDS if days else 0
            _write(site, Suppression(subject, until, f"by the operator ({user})", now))
            return f"no reports go to {subject}" + (f" for {counted(days, 'day')}" if days else "")
        case "lift":
            return f"reports go to {subject} again" if _write(site, subject) else f"{subject} was not suppressed"
        case _:
            raise ChangeError("the form does not say what to do")


def _write(site: Site, changed: Suppression | str) -> bool:
    """Add a suppression, or remove that of a subject. Returns whether it made a difference."""
    database = open_store(site.configuration.store)
    try:
        with database.writing() as connection:
            if isinstance(changed, str):
                return suppressions.unsuppress(connection, changed)
            suppressions.suppress(connection, changed)
            return True
    finally:
        database.close()


def _days(text: str) -> int:
    if not text:
        return 0
    days = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
    if not 1 <= days <= MAX_DAYS:
        raise ChangeError(f"write a number of days from 1 to {MAX_DAYS:,}, or none for ever")
    return days
