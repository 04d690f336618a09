# SPDX-License-Identifier: GPL-3.0-or-later
"""A feeder takes every row in the end, whatever its backend raises, and says what it waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from assay.log import Level, Log
from assay.store import feeding
from assay.store.feeding import Feeder, UnavailableError, UnwritableError
from assay.store.rows import MessageRow, encode
from assay.store.spool import Spool
from running import until
from store_rows import row

PATIENCE = 30.0


class Faulty:
    """A backend that raises what it is told, each once, and then takes rows."""

    def __init__(self, *, of_write: Sequence[Exception] = (), of_tidy: Sequence[Exception] = ()) -> None:
        self.taken: list[MessageRow] = []
        self.batches: list[int] = []  #: how many rows each had
        self.unwritable: set[bytes] = set()
        self._of_write, self._of_tidy = list(of_write), list(of_tidy)

    def write(self, rows: Sequence[MessageRow]) -> None:
        if self._of_write:
            raise self._of_write.pop()
        if self.unwritable & {each.id for each in rows}:
            raise UnwritableError("a value")
        self.taken += rows
        self.batches.append(len(rows))

    def tidy(self, now: float) -> None:
        assert abs(now - time.time()) < PATIENCE
        if self._of_tidy:
            raise self._of_tidy.pop()

    def close(self) -> None:
        pass


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path, 1 << 30, ["database"])


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def start(
    spool: Spool, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[[], Faulty]], Feeder]]:
    monkeypatch.setattr(feeding, "FIRST_WAIT_SECONDS", 0.01)
    started: list[Feeder] = []

    def begin(connect: Callable[[], Faulty]) -> Feeder:
        found = Feeder(spool.readers[0], spool, connect, Log(lambda _, text: said.append(text), Level.INFO))
        started.append(found)
        found.start()
        return found

    yield begin
    for each in started:
        each.end()


Start = Callable[[Callable[[], Faulty]], Feeder]


@pytest.mark.parametrize("error", [UnavailableError("away"), OSError(5, "I/O"), UnwritableError("x"), ValueError("s3")])
def test_rows_outlast_every_exception(spool: Spool, said: list[str], start: Start, error: Exception) -> None:
    spool.append(encode(row(1)))
    backend = Faulty(of_write=[error] * 2 if not isinstance(error, UnwritableError) else (), of_tidy=[error] * 2)
    feeder = start(lambda: backend)
    until(lambda: feeder.taken == 1)
    assert backend.taken == [row(1)]
    until(lambda: any("results wait in" in line for line in said))
    assert "s3" not in str(said)  # the text of an unforeseen exception may have anything


def test_only_rows_that_cannot_be_written_are_left_out(spool: Spool, said: list[str], start: Start) -> None:
    for number in range(9):
        spool.append(encode(row(number)))
    spool.append(b"not a row")
    backend = Faulty()
    backend.unwritable = {row(3).id, row(7).id}
    feeder = start(lambda: backend)
    until(lambda: feeder.refused == 3 and not spool.behind(spool.readers[0]))
    assert [each.queue for each in backend.taken] == [row(number).queue for number in (0, 1, 2, 4, 5, 6, 8)]
    assert sum("is left out" in line for line in said) == 3


def test_what_has_piled_up_is_not_gathered(spool: Spool, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "BATCH_ROWS", 2)
    monkeypatch.setattr(feeding, "GATHER_SECONDS", 1.0)
    for number in range(40):
        spool.append(encode(row(number)))
    begun = time.monotonic()
    feeder = start(Faulty)
    until(lambda: feeder.taken == 40)
    assert time.monotonic() - begun < 10


def test_a_batch_is_bounded_by_octets_too(spool: Spool, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of hostile mail are long, and a batch of the usual number of them would be hundreds of megabytes."""
    octets = [encode(row(number)) for number in range(9)]
    monkeypatch.setattr(feeding, "BATCH_OCTETS", len(octets[0]) + 1)
    monkeypatch.setattr(feeding, "GATHER_SECONDS", 0.0)
    spool.append(*octets)
    backend = Faulty()
    feeder = start(lambda: backend)
    until(lambda: feeder.taken == 9)
    assert max(backend.batches) == 2


def test_what_was_taken_does_not_stay_in_the_spool(spool: Spool, start: Start, tmp_path: Path) -> None:
    """It is personal data, and nobody knows when the next row comes."""
    spool.append(encode(row(1)))
    feeder = start(Faulty)
    until(lambda: feeder.taken == 1)
    until(lambda: not list(tmp_path.glob("*.rows")))


def test_the_end_does_not_wait_for_a_backend_that_is_away(
    spool: Spool, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "LAST_SECONDS", 0.5)
    spool.append(encode(row(1)))

    def away() -> Faulty:
        raise UnavailableError("away")

    feeder = start(away)
    until(lambda: not feeder.up)
    feeder.end()
    assert feeder.name not in {thread.name for thread in threading.enumerate()}
    assert spool.behind(spool.readers[0])  # for the next process
