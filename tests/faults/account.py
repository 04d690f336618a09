# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbered messages through a real MTA while something fails, and an account of each of them.

Every fifth message is forged in the name of a domain with ``p=reject``. The others are genuine, each from one of
`DOMAINS`, so that results of another message are recognized.
"""

from __future__ import annotations

import smtplib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mta.base import MTA, fields
from mta.laws import HONEST, HONEST_LOOPBACK, OTHER, OTHER_LOOPBACK

DOMAINS = [f"d{number}.example" for number in range(7)]
SPF = f"v=spf1 ip4:{HONEST} ip4:{HONEST_LOOPBACK} -all"
ROWS: dict[str, list[list[Any]]] = {
    **{name: [["TXT", [SPF]]] for name in DOMAINS},
    **{f"_dmarc.{name}": [["TXT", ["v=DMARC1; p=reject"]]] for name in [*DOMAINS, "strict.example"]},
    "strict.example": [["TXT", [SPF]]],
}
FORGED_EVERY = 5
SENDERS = 3
PACE_SECONDS = 0.05  # between two messages of one sender
SETTLE_SECONDS = 15.0  # until what was accepted is stored

#: What becomes of a message, best first. The last five must never happen.
OUTCOMES = (
    *("right", "refused", "left", "deferred", "unstamped"),
    *("let in", "lost", "doubled", "mis-stamped", "wrongly refused"),
)
NEVER = frozenset(("let in", "lost", "doubled", "mis-stamped", "wrongly refused"))


@dataclass
class Account:
    """What was sent through an MTA, and what it said."""

    mta: MTA
    xclient: bool
    numbers: Iterator[int]
    replies: dict[int, int] = field(default_factory=dict)  #: by number: 250, 4xx, 5xx, or 0 for a lost connection
    left: set[int] = field(default_factory=set)  #: those whose client did not wait for a reply

    @contextmanager
    def load(self) -> Iterator[None]:
        """Send messages while the context lasts."""
        stop = threading.Event()
        threads = [threading.Thread(target=self._send, args=(stop,), daemon=True) for _ in range(SENDERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)

    def _send(self, stop: threading.Event) -> None:
        while not stop.is_set():
            number = next(self.numbers)
            self.replies[number] = self._submit(number)
            time.sleep(PACE_SECONDS)

    def origin(self, number: int) -> dict[str, Any]:
        """Where the message of this number comes from, for `MTA.connect`."""
        forged = is_forged(number)
        if self.xclient:
            return {"xclient": {"ADDR": OTHER if forged else HONEST, "NAME": "[UNAVAILABLE]"}}
        return {"client": OTHER_LOOPBACK if forged else HONEST_LOOPBACK}

    def _submit(self, number: int) -> int:
        try:
            self.mta.submit(
                message(number),
                sender=author(number),
                recipients=[recipient(number)],
                helo="h.example",
                **self.origin(number),
            )
        except smtplib.SMTPResponseException as error:
            return error.smtp_code
        except smtplib.SMTPRecipientsRefused as error:
            return next(iter(error.recipients.values()))[0]
        except (OSError, smtplib.SMTPException, AssertionError):  # the last: XCLIENT was deferred
            return 0
        return 250

    def settle(self) -> Counter[str]:
        """Wait until what was accepted is stored, and count what became of each message."""
        accepted = {number for number, code in self.replies.items() if code == 250}
        deadline = time.monotonic() + SETTLE_SECONDS
        stored: dict[int, list[bytes]] = {}
        while True:
            stored = {}
            for recipient, message in self.mta.stored():
                if recipient[0] == "n" and recipient[1:].partition("@")[0].isdigit():
                    stored.setdefault(int(recipient[1:].partition("@")[0]), []).append(message)
            if accepted <= set(stored) or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return Counter(
            "left" if number in self.left and number not in stored else outcome(number, code, stored.get(number, []))
            for number, code in self.replies.items()
        )


def is_forged(number: int) -> bool:
    """Whether the message of this number is forged."""
    return number % FORGED_EVERY == 0


def domain(number: int) -> str:
    """The author domain of a genuine message."""
    return DOMAINS[number % len(DOMAINS)]


def author(number: int) -> str:
    """The author of the message of this number, also in its envelope."""
    return "ceo@strict.example" if is_forged(number) else f"a@{domain(number)}"


def recipient(number: int) -> str:
    """The recipient of the message of this number."""
    return f"n{number}@example.org"


def message(number: int) -> bytes:
    """The message of this number."""
    return f"From: {author(number)}\r\nSubject: {number}\r\n\r\nhello\r\n".encode()


def outcome(number: int, code: int, stored: list[bytes]) -> str:
    """What became of one message."""
    if len(stored) > 1:
        return "doubled"
    if code != 250 and not stored:
        if code >= 500:
            return "refused" if is_forged(number) else "wrongly refused"
        return "deferred"
    if not stored:
        return "lost"
    name, value = fields(stored[0])[0]
    if name != "Authentication-Results":
        return "unstamped"
    if is_forged(number):
        return "let in"
    text = " ".join(value.split())
    if f"header.from={domain(number)} " not in f"{text} ":
        return "mis-stamped"
    return "right" if "dmarc=pass" in text else "mis-stamped"
