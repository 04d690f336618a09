# SPDX-License-Identifier: GPL-3.0-or-later
"""The spool: rows on disk that are read in order, as often as needed, and never lost by the death of a process."""

from __future__ import annotations

import errno
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from assay.store import spool as spools
from assay.store.rows import MAX_ROW_OCTETS
from assay.store.spool import Reader, Spool, SpoolFullError, take

PLENTY = 1 << 30


def rows_of(reader: Reader, most: int = 1000) -> list[bytes]:
    """All rows that a reader has not read, in batches."""
    found: list[bytes] = []
    while (batch := reader.read(most)).rows:
        found += batch.rows
        reader.move(batch.position)
    return found


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"row %d" % number for number in range(start, start + count)]


def fill(spool: Spool, count: int) -> None:
    for row in numbered(count):
        spool.append(row)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "SEGMENT_OCTETS", 100)


class TestReading:
    def test_rows_come_in_order_and_once(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, PLENTY, ["database"])
        fill(spool, 50)
        (reader,) = spool.readers
        assert rows_of(reader, 7) == numbered(50)
        assert rows_of(reader) == []

    def test_rows_that_are_not_taken_come_again(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, PLENTY, ["database"])
        spool.append(b"first")
        (reader,) = spool.readers
        assert reader.read(9).rows == reader.read(9).rows == (b"first",)

    def test_no_row_is_passed_over_that_comes_while_the_segment_is_read_and_another_begins(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spool = Spool(tmp_path, PLENTY, ["database"])
        spool.append(b"first")
        (reader,) = spool.readers
        rows = spools._rows

        def meanwhile(path: Path, offset: int, end: int) -> Iterator[tuple[bytes, int]]:
            monkeypatch.setattr(spools, "_rows", rows)
            spool.append(b"second")
            monkeypatch.setattr(spools, "SEGMENT_OCTETS", 0)
            spool.append(b"third")
            yield from rows(path, offset, end)

        monkeypatch.setattr(spools, "_rows", meanwhile)
        assert rows_of(reader) == [b"first", b"second", b"third"]

    @pytest.mark.parametrize("step", ["segment", "segment_after"])
    def test_no_row_is_passed_over_that_comes_between_two_looks_at_the_segments(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        spool = Spool(tmp_path, PLENTY, ["database"])
        spool.append(b"first")
        (reader,) = spool.readers
        look = getattr(Spool, step)

        def meanwhile(of: Spool, number: int) -> object:
            seen = look(of, number)
            if number == 1:
                monkeypatch.setattr(Spool, step, look)
                spool.append(b"second")
                with monkeypatch.context() as patch:
                    patch.setattr(spools, "SEGMENT_OCTETS", 0)
                    spool.append(b"third")
            return seen

        monkeypatch.setattr(Spool, step, meanwhile)
        assert rows_of(reader) == [b"first", b"second", b"third"]

    def test_rows_that_are_appended_together_are_read_one_by_one(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, PLENTY, ["database"])
        spool.append(*numbered(20))
        spool.append(*numbered(30, 20))
        assert rows_of(spool.readers[0], 7) == numbered(50)

    @pytest.mark.usefixtures("small_segments")
    def test_a_batch_is_bounded_by_rows_and_by_octets(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, PLENTY, ["database"])
        fill(spool, 50)  # five octets each, and then six
        (reader,) = spool.readers
        assert (len(reader.read(9).rows), reader.read(9).full) == (9, True)
        assert (len(reader.read(99, 31).rows), reader.read(99, 31).full) == (7, True)
        assert (len(reader.read(99).rows), reader.read(99).full) == (50, False)

    @pytest.mark.usefixtures("small_segments")
    def test_a_backend_goes_on_where_it_was(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, PLENTY, ["database"])
        fill(spool, 50)
        batch = spool.readers[0].read(20)
        spool.readers[0].move(batch.position)
        spool.close()
        again = Spool(tmp_path, PLENTY, ["database"])
        assert rows_of(again.readers[0]) == numbered(30, 20)

    @pytest.mark.usefixtures("small_segments")
    def test_each_backend_has_its_pace(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, PLENTY, ["database", "broker"])
        database, broker = spool.readers
        fill(spool, 50)
        assert rows_of(database) == numbered(50)
        assert rows_of(broker) == numbered(50)

    @pytest.mark.usefixtures("small_segments")
    def test_what_all_have_taken_is_removed(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, PLENTY, ["database", "broker"])
        fill(spool, 50)
        files = len(list(tmp_path.glob("*.rows")))
        assert files > 5
        rows_of(spool.readers[0])
        assert len(list(tmp_path.glob("*.rows"))) == files
        rows_of(spool.readers[1])
        assert not list(tmp_path.glob("*.rows"))
        assert spool.octets == 0

    @pytest.mark.parametrize("ends", [True, False])
    def test_what_is_being_written_is_removed_too_once_it_was_read(self, tmp_path: Path, ends: bool) -> None:
        """Until the segment is full would be weeks on a small host, and it has addresses."""
        spool = Spool(tmp_path, PLENTY, ["database", "broker"])
        database, broker = spool.readers
        spool.append(b"ann@example.org")
        rows_of(database)
        spool.collect()
        assert b"ann@example.org" in next(tmp_path.glob("*.rows")).read_bytes(), "the broker has not read it"
        rows_of(broker)
        spool.collect()
        assert not list(tmp_path.glob("*.rows"))
        if ends:
            spool.close()
            spool = Spool(tmp_path, PLENTY, ["database", "broker"])
        spool.append(b"later")
        assert [rows_of(reader) for reader in spool.readers] == [[b"later"], [b"later"]]

    def test_what_was_read_does_not_outlive_the_process(self, tmp_path: Path) -> None:
        for again in (False, True):  # it ended in order, or was killed
            spool = Spool(tmp_path, PLENTY, ["database"])
            spool.append(b"ann@example.org")
            rows_of(spool.readers[0])
            if again:
                spool._lock.close()
                spool = Spool(tmp_path, PLENTY, ["database"])
            spool.close()
            assert not list(tmp_path.glob("*.rows"))

    def test_nothing_is_lost_if_all_was_read_while_rows_come(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, PLENTY, ["database", "broker"])
        rows = numbered(3000)
        writer = threading.Thread(target=lambda: [spool.append(row) for row in rows])
        found: dict[str, list[bytes]] = {reader.name: [] for reader in spool.readers}

        def read(reader: Reader) -> None:
            while len(found[reader.name]) < len(rows):
                if spool.wait(reader, 0.001):
                    batch = reader.read(7)
                    found[reader.name] += batch.rows
                    reader.move(batch.position)
                spool.collect()

        threads = [writer, *(threading.Thread(target=read, args=(reader,)) for reader in spool.readers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert list(found.values()) == [rows, rows]
        assert not list(tmp_path.glob("*.rows"))

    def test_a_reader_waits_for_the_next_row(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, PLENTY, ["database"])
        (reader,) = spool.readers
        assert not spool.wait(reader, 0.0)
        threading.Timer(0.05, spool.append, [b"late"]).start()
        assert spool.wait(reader, 30.0)
        assert reader.read(9).rows == (b"late",)


class TestCrashes:
    def test_a_torn_row_at_the_end_does_not_hide_later_ones(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, PLENTY, ["database"])
        spool.append(b"whole")
        spool.close()
        with next(tmp_path.glob("*.rows")).open("ab") as file:
            file.write(b"\0\0\0\x20torn")
        again = Spool(tmp_path, PLENTY, ["database"])
        again.append(b"later")
        batch = again.readers[0].read(9)
        assert batch.rows == (b"whole", b"later")
        assert "8 octets" in batch.torn

    def test_the_longest_row_is_read_and_no_longer_one(self, tmp_path: Path) -> None:
        """A length that no row has is damage, and nothing of that size is read into memory."""
        spool = Spool(tmp_path, PLENTY, ["database"])
        longest = bytes(MAX_ROW_OCTETS)
        spool.append(longest)
        assert spool.readers[0].read(9).rows == (longest,)
        spool.append(bytes(MAX_ROW_OCTETS + 1))
        spool.close()
        again = Spool(tmp_path, PLENTY, ["database"])
        again.append(b"later")
        batch = again.readers[0].read(9)
        assert batch.rows == (longest, b"later")
        assert f"{8 + MAX_ROW_OCTETS + 1} octets" in batch.torn

    @pytest.mark.parametrize("size", [0, 3, 20])
    def test_a_segment_shorter_than_the_position_delays_nothing(self, tmp_path: Path, size: int) -> None:
        """After a power failure, the position may be on the disk and the rows before it not."""
        spool = Spool(tmp_path, PLENTY, ["database"])
        fill(spool, 50)
        (path,) = tmp_path.glob("*.rows")
        kept = path.read_bytes()
        rows_of(spool.readers[0])
        spool.close()
        path.write_bytes(kept[:size])
        again = Spool(tmp_path, PLENTY, ["database"])
        again.append(b"later")
        assert again.wait(again.readers[0], 0.0)
        assert rows_of(again.readers[0]) == [b"later"]
        assert again.behind(again.readers[0]) == 0

    def test_a_file_that_was_cut_is_not_rows(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, PLENTY, ["database"])
        fill(spool, 50)
        with next(tmp_path.glob("*.rows")).open("r+b") as file:
            file.truncate(13 + 3)
        assert spool.readers[0].read(9).rows == (b"row 0",)

    @pytest.mark.parametrize("at", [0, 4, 8])
    def test_a_damaged_row_ends_its_segment_only(self, tmp_path: Path, at: int) -> None:
        spool = Spool(tmp_path, PLENTY, ["database"])
        spool.append(b"damaged")
        spool.close()
        path = next(tmp_path.glob("*.rows"))
        octets = bytearray(path.read_bytes())
        octets[at] ^= 0x55
        path.write_bytes(octets)
        again = Spool(tmp_path, PLENTY, ["database"])
        again.append(b"later")
        batch = again.readers[0].read(9)
        assert batch.rows == (b"later",)
        assert batch.torn

    def test_a_position_that_is_damaged_or_lost_means_the_beginning(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, PLENTY, ["database", "broker"])
        spool.append(b"row")
        rows_of(spool.readers[0])
        spool.close()
        (tmp_path / "database.position").write_text("nonsense")
        assert rows_of(Spool(tmp_path, PLENTY, ["database", "broker"]).readers[0]) == [b"row"]

    @pytest.mark.usefixtures("small_segments")
    def test_numbers_never_come_again(self, tmp_path: Path) -> None:
        """Or a position would be ahead of new rows, and they would be taken for taken."""
        spool = Spool(tmp_path, PLENTY, ["database"])
        fill(spool, 50)
        rows_of(spool.readers[0])
        spool.close()
        for path in tmp_path.glob("*.rows"):
            path.unlink()
        again = Spool(tmp_path, PLENTY, ["database"])
        again.append(b"new")
        assert rows_of(again.readers[0]) == [b"new"]

    def test_a_killed_process_loses_nothing_that_it_appended(self, tmp_path: Path) -> None:
        script = """
import sys
from pathlib import Path
from assay.store.spool import Spool
spool = Spool(Path(sys.argv[1]), 1 << 30, ["database"])
number = 0
while True:
    spool.append(b"row %d" % number)
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
    number += 1
"""
        with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = [int(process.stdout.readline()) for _ in range(500)]
            process.send_signal(signal.SIGKILL)
            said += [int(line) for line in process.stdout.read().splitlines()]
        found = rows_of(Spool(tmp_path, PLENTY, ["database"]).readers[0])
        assert found[: len(said)] == numbered(len(said))
        assert len(found) <= len(said) + 1


class TestBounds:
    def test_it_does_not_grow_beyond_its_bound(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, 200, ["database"])
        with pytest.raises(SpoolFullError):
            fill(spool, 100)
        assert spool.octets <= 200
        kept = spool.octets // 13
        assert rows_of(spool.readers[0]) == numbered(kept)

    def test_all_rows_of_an_append_have_a_place_or_none(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, 200, ["database"])
        with pytest.raises(SpoolFullError):
            spool.append(*numbered(100))
        assert spool.octets == 0
        spool.append(b"later")
        assert rows_of(spool.readers[0]) == [b"later"]

    @pytest.mark.usefixtures("small_segments")
    def test_there_is_place_again_when_rows_are_taken(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, 300, ["database"])
        with pytest.raises(SpoolFullError):
            fill(spool, 100)
        rows_of(spool.readers[0])
        spool.append(b"later")
        assert rows_of(spool.readers[0]) == [b"later"]

    def test_a_full_disk_leaves_no_half_row(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, PLENTY, ["database"])
        spool.append(b"before")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (spool.octets + 20, hard))
            with pytest.raises(OSError, match=r".") as raised:
                spool.append(b"x" * 100)
            assert raised.value.errno in (errno.EFBIG, errno.ENOSPC)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, previous)
        spool.append(b"after")
        assert rows_of(spool.readers[0]) == [b"before", b"after"]


class TestSeveralProcesses:
    def test_a_second_daemon_takes_another_spool(self, tmp_path: Path) -> None:
        first, second = take(tmp_path, PLENTY, ["database"]), take(tmp_path, PLENTY, ["database"])
        assert first.directory != second.directory

    @pytest.mark.usefixtures("small_segments")
    def test_what_a_dead_one_left_is_adopted(self, tmp_path: Path) -> None:
        first, second = take(tmp_path, PLENTY, ["database"]), take(tmp_path, PLENTY, ["database"])
        fill(second, 50)
        first.append(b"own")
        assert first.adopt() == 0  # it lives
        second.close()
        assert first.adopt() > 1
        first.append(b"later")
        assert rows_of(first.readers[0]) == [b"own", *numbered(50), b"later"]
        assert first.adopt() == 0

    def test_there_are_not_more_than_a_few(self, tmp_path: Path) -> None:
        held: Sequence[Spool] = [take(tmp_path, PLENTY, ["database"]) for _ in range(spools.MAX_SPOOLS)]
        with pytest.raises(OSError, match="other processes"):
            take(tmp_path, PLENTY, ["database"])
        assert len({spool.directory for spool in held}) == spools.MAX_SPOOLS


def test_only_the_daemon_can_read_it(tmp_path: Path) -> None:
    """It may hold headers for failure reports."""
    spool = Spool(tmp_path / "spool", 1_000_000, ("database",))
    spool.append(b"row")
    (segment,) = (tmp_path / "spool").glob("*.rows")
    assert stat.S_IMODE(segment.stat().st_mode) == 0o600
