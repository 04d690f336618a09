# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages as HTML. Every value is escaped by Jinja2, and what does not print is escaped before, so that it is seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from msgspec import Struct

from assay.model.printable import escaped
from assay.web import plot
from assay.web.export import time_text
from assay.web.parts import WebPage

_FOLDER = Path(__file__).parent
STATIC = _FOLDER / "static"


class NavigationEntry(Struct, frozen=True):
    """An entry of the navigation."""

    path: str
    title: str


class Frame(Struct, frozen=True):
    """What is around a page.

    :ivar host: whose page it is.
    :ivar user: who sees it; empty before the login.
    :ivar entries: the navigation.
    :ivar here: the path of the page.
    :ivar export: the address of a table of this page as CSV or JSON, by its name and the suffix.
    :ivar form_token: what a form that changes something brings along.
    :ivar address: of this page with its arguments, where such a form leads back to.
    :ivar seconds: how long the page took until now.
    """

    host: str
    version: str
    user: str
    by_token: bool
    entries: tuple[NavigationEntry, ...]
    here: str
    export: Callable[[str, str], str]
    form_token: str
    address: str
    seconds: Callable[[], float]


class Renderer:
    """Writes pages."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(_FOLDER / "templates"),
            autoescape=True,
            finalize=_printable,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["seen"] = seen
        self._environment.filters["time"] = time_text
        self._environment.filters["kind"] = lambda value: type(value).__name__
        self._environment.globals["bars"] = plot.bars
        self._environment.globals["swatch"] = plot.swatch

    def page(self, page: WebPage, frame: Frame) -> str:
        """A page as HTML."""
        return self._render("page.html", page=page, frame=frame)

    def login(self, fault: str, frame: Frame) -> str:
        """The form to log in.

        :param fault: why the last attempt failed; empty at first.
        """
        return self._render("login.html", fault=fault, frame=frame)

    def _render(self, name: str, **values: Any) -> str:
        return self._environment.get_template(name).render(**values)


def _printable(value: object) -> object:
    """What any place of a template gets: text of which each character prints."""
    return escaped(value, keep="\n") if isinstance(value, str) and not isinstance(value, Markup) else value


def seen(value: object) -> str:
    """A value as people read it: numbers in groups of three."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.2f}"
        case _:
            return str(value)
