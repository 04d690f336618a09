# SPDX-License-Identifier: GPL-3.0-or-later
"""The inquiries in flight for one connection or one message: started together, given up together."""

from __future__ import annotations

from typing import Protocol, TypeVar

from assay.inquiry import Driver, Inquiry, Pending

T = TypeVar("T")


class NewDriver(Protocol):
    """Makes a driver with a fresh time budget: `seconds` of it, or as much as a message has where that is None."""

    def __call__(self, seconds: float | None = None, /) -> Driver: ...


class Inquiries:
    """Starts inquiries and remembers them, so that an abort can cancel what nobody will ask for."""

    __slots__ = ("_new_driver", "_pending")

    def __init__(self, new_driver: NewDriver) -> None:
        self._new_driver = new_driver
        self._pending: list[Pending[object]] = []

    def driver(self, seconds: float | None = None) -> Driver:
        """A driver whose budget several inquiries may share.

        :param seconds: the budget; a message's where it is None.
        """
        return self._new_driver() if seconds is None else self._new_driver(seconds)

    def start(self, inquiry: Inquiry[T], driver: Driver | None = None) -> Pending[T]:
        """Start an inquiry in the background.

        :param driver: whose budget to use; a fresh one if left out.
        """
        pending = (driver or self._new_driver()).start(inquiry)
        self._pending.append(pending)
        return pending

    def give_up(self, pending: Pending[object]) -> None:
        """Stop working for one of them, and forget it."""
        pending.cancel()
        self._pending = [one for one in self._pending if one is not pending]

    def cancel(self) -> None:
        """Stop working for all of them."""
        for pending in self._pending:
            pending.cancel()
        self._pending = []
