# SPDX-License-Identifier: GPL-3.0-or-later
"""The inquiries in flight for one connection or one message: started together, cancelled together."""

from __future__ import annotations

from typing import Protocol, TypeVar

from assay.inquiry import Asker, Driver, Inquiry, Pending, Urgency
from assay.model.smtp import Address

T = TypeVar("T")


class NewDriver(Protocol):
    """Makes a driver with a fresh time budget: `seconds`, or a message's budget if that is None."""

    def __call__(self, seconds: float | None = None, /) -> Driver: ...


class Inquiries:
    """Starts inquiries and keeps track of them, so that an abort can cancel those still running."""

    __slots__ = ("_asker", "_new_driver", "_pending")

    def __init__(self, new_driver: NewDriver, client: Address | None = None) -> None:
        """
        :param client: whose connection or message it is.
        """
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
        pending = (driver or self._new_driver()).start(inquiry, self._asker, urgency)
        self._pending.append(pending)
        return pending

    def give_up(self, pending: Pending[object]) -> None:
        """Cancel one of them, and forget it."""
        pending.cancel()
        self._pending = [other for other in self._pending if other is not pending]

    def cancel(self) -> None:
        """Cancel all of them."""
        for pending in self._pending:
            pending.cancel()
        self._pending = []
