# SPDX-License-Identifier: GPL-3.0-or-later
"""What is counted about reports that go out, in the words of the figures."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum


class Withheld(StrEnum):
    """Why a domain gets no report, or a destination none."""

    UNASKED = "unasked"  #: the record has no rua
    UNDECIDED = "undecided"  #: no message was taken or refused for good
    REPORT_MAIL = "report_mail"  #: all messages were reports or bounces
    FEW = "few"  #: fewer than reports.min_messages, and none passed
    SUPPRESSED = "suppressed"  #: by the operator, or because a report came back
    UNUSABLE = "unusable"  #: not a name or address that can be used, or its host does not agree
    SIZE = "size"  #: larger than is wanted there, or than is sent
    FAILING = "failing"  #: all mail of the destination failed DMARC
    LIMIT = "limit"  #: of reports a day, or of the destination


class Tried(StrEnum):
    """What came of a try to deliver a report."""

    SENT = "sent"
    DEFERRED = "deferred"
    REFUSED = "refused"
    UNKNOWN = "unknown"  #: the DNS did not say whether the destination wants it
    GIVEN_UP = "given_up"
    DIVIDED = "divided"  #: it is too large there, and its parts are reports of their own
    DRY_RUN = "dry_run"


class ReportFigures:
    """Counts since they were last taken."""

    def __init__(self) -> None:
        self.planned = 0
        self.withheld: Counter[Withheld] = Counter()
        self.tried: Counter[Tried] = Counter()

    def clear(self) -> None:
        """They have been taken."""
        self.planned = 0
        self.withheld.clear()
        self.tried.clear()
