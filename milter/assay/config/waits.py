# SPDX-License-Identifier: GPL-3.0-or-later
"""How long an MTA must wait for us, for comparison with its own time-outs."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from assay.config.build import make_policy
from assay.config.configuration import Configuration
from assay.policy import Stage
from assay.session import BEFORE_THE_END

_MARGIN_SECONDS = 10.0  # beyond the waiting for the DNS: the rest takes milliseconds, and on a busy host longer


class Waits(Struct, frozen=True):
    """Seconds that the MTA must wait.

    :ivar command: for the reply to a command; 0 if we act at the end of a message only.
    :ivar end: for the verdict on a message.
    """

    command: float
    end: float


def needed(configuration: Configuration) -> Waits:
    """What the configuration needs."""
    budget = configuration.dns.budget_seconds
    early = make_policy(configuration).stages - {Stage.EOM}
    return Waits(BEFORE_THE_END * budget + _MARGIN_SECONDS if early else 0.0, budget + _MARGIN_SECONDS)


def too_short(configuration: Configuration, needs: float, name: str, written: str, seconds: float) -> Iterator[str]:
    """A time-out of the MTA that is shorter than we may take.

    :param name: of the time-out.
    :param written: as the MTA has it, such as ``milter_content_timeout = 30s``.
    """
    if seconds < needs:
        yield (
            f"{written}: assay may take {needs:g} s (dns.budget_seconds = {configuration.dns.budget_seconds:g}); "
            f"write {name}{needs:.0f}s or more, or a smaller dns.budget_seconds"
        )


def drained_too_soon(configuration: Configuration, name: str, seconds: float, mta: str) -> Iterator[str]:
    """Old workers end while the MTA may still wait for the verdict on a message.

    :param name: of the time-out for the verdict, with its value.
    :param mta: its name.
    """
    drain = configuration.milter.drain_seconds
    if seconds > drain:
        yield (
            f"milter.drain_seconds = {drain:g}: shorter than {name}, so a restart may end a session in which {mta} "
            f"still waits; write {seconds + 30:.0f}"
        )
