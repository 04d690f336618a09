# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages: a row for each. A page that has no title here is not in the navigation."""

from __future__ import annotations

from msgspec import Struct

from assay.web import dns, settings
from assay.web.site import View


class PageEntry(Struct, frozen=True):
    """Where a page is.

    :ivar title: in the navigation.
    :ivar items: whether the path is followed by what is shown, as in /messages/ID.
    """

    path: str
    title: str
    view: View
    items: bool = False


PAGES = (
    PageEntry("/dns", "DNS", dns.page),
    PageEntry("/configuration", "Configuration", settings.page),
)
