# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages: a row for each. A page that has no title here is not in the navigation."""

from __future__ import annotations

from msgspec import Struct

from assay.web import (
    dns,
    domains,
    dry_run,
    message,
    messages,
    overview,
    received,
    received_report,
    senders,
    sent,
    settings,
)
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
    PageEntry("/overview", "Overview", overview.page),
    PageEntry("/messages", "Messages", messages.page),
    PageEntry("/messages", "", message.page, items=True),
    PageEntry("/senders", "Senders", senders.page),
    PageEntry("/reports", "Reports sent", sent.page),
    PageEntry("/reports", "", sent.one_report, items=True),
    PageEntry("/received", "Reports received", received.page),
    PageEntry("/received", "", received_report.page, items=True),
    PageEntry("/domains", "Domains", domains.page),
    PageEntry("/domains", "", domains.one_domain, items=True),
    PageEntry("/dry-run", "Dry run", dry_run.page),
    PageEntry("/dns", "DNS", dns.page),
    PageEntry("/configuration", "Configuration", settings.page),
)
