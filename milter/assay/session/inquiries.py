# SPDX-License-Identifier: GPL-3.0-or-later
"""The inquiries in flight for one connection or one message: started together, cancelled together."""

from __future__ import annotations

from typing import Protocol, TypeVar

from assay.inquiry import Asker, Driver, Inquiry, Pending, Urgency
from assay.model.smtp import Address
from assay.session.noted import Notes

T = TypeVar("T")


class NewDriver(Protocol):
    """Makes a driver with a fresh time budget: `seconds`, or a message's budget if that is None."""

    def __call__(self, seconds: float | None = None, /) -> Driver: ...


#: Shares of what a message may wait: before its end, so that its keys have the rest; for the evaluations that DMARC
#: needs; and for DMARC, which comes last.
BEFORE_THE_END, FOR_THE_PARTS, IN_ALL = 0.5, 0.75, 1.0


class WaitLimit(Protocol):
    """How long the MTA may still wait for one message, all stages together."""

    def allow(self, share: float, /) -> None:
        """From now on this share of the whole may be spent."""

    def renew(self) -> None:
        """The next message begins."""


class Unbounded:
    """Only each evaluation has a bound."""

    def allow(self, share: float) -> None:
        """Nothing is counted."""

    def renew(self) -> None:
        """Nothing is counted."""


class Inquiries:
    """Starts inquiries and keeps track of them, so that an abort can cancel those still running."""

    __slots__ = ("_asker", "_new_driver", "_notes", "_pending", "_waiting")

    def __init__(
        self, new_driver: NewDriver, waiting: WaitLimit, client: Address | None = None, notes: Notes | None = None
    ) -> None:
        """
        :param waiting: how long the MTA waits for them.
        :param client: whose connection or message it is.
        :param notes: of what they are answered, if somebody wants them.
        """
        self._notes = notes
        self._waiting = waiting
        self._new_driver = new_driver
        self._asker = Asker(client)
        self._pending: list[Pending[object]] = []

    def on_behalf_of(self, client: Address | None) -> None:
        """Start further inquiries for this client."""
        self._asker = Asker(client)

    def driver(self, seconds: float | None = None) -> Driver:
        """A driver whose budget several inquiries can share.

        :param seconds: the budget; None for a message's.
        """
        return self._new_driver() if seconds is None else self._new_driver(seconds)

    def start(
        self, inquiry: Inquiry[T], driver: Driver | None = None, urgency: Urgency = Urgency.EVIDENCE
    ) -> Pending[T]:
        """Start an inquiry in the background.

        :param driver: whose budget to use; a new one by default.
        :param urgency: how much depends on it.
        """
        if self._notes is not None:
            inquiry = self._notes.of(inquiry)
        pending = (driver or self._new_driver()).start(inquiry, self._asker, urgency)
        self._pending.append(pending)
        return pending

    def give_up(self, pending: Pending[object]) -> None:
        """Cancel one of them, and forget it."""
        pending.cancel()
        self._pending = [other for other in self._pending if other is not pending]

    def allow(self, share: float) -> None:
        """From now on the MTA may have waited for this share of what it waits for the whole message."""
        self._waiting.allow(share)

    def cancel(self) -> None:
        """Cancel all of them."""
        for pending in self._pending:
            pending.cancel()
        self._pending = []
