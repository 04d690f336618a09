# SPDX-License-Identifier: GPL-3.0-or-later
"""A report is divided into parts of a size."""

from __future__ import annotations

import itertools
import random
import string
import time

import pytest
from msgspec.structs import replace

from assay.protocol.report import (
    Divider,
    DkimResult,
    RecordTooLargeError,
    ReportRecord,
    Schema,
    compressed,
    file_room,
    mail_size,
    render,
)
from reporting import RECORD, REPORT


def records(number: int, *, incompressible: bool) -> list[ReportRecord]:
    drawn = random.Random(number)  # noqa: S311  # the same each time

    def word() -> str:
        return "".join(drawn.choices(string.ascii_lowercase + string.digits, k=60))

    found = []
    for each in range(number):
        record = replace(RECORD, source_ip=f"192.0.{each // 250}.{each % 250}", count=drawn.randint(1, 10_000))
        if incompressible:
            signature = DkimResult(word(), word(), RECORD.dkim[0].result, " ".join(word() for _ in range(10)))
            record = replace(record, dkim=(signature,) * drawn.randint(1, 3), header_from=word())
        found.append(record)
    return found


def divided(found: list[ReportRecord], most: int, schema: Schema) -> list[list[ReportRecord]]:
    divider = Divider(REPORT, schema, most)
    parts: list[list[ReportRecord]] = []
    for record in found:
        if divider.begins_part(record):
            parts.append([])
        parts[-1].append(record)
    return parts


@pytest.mark.parametrize("schema", list(Schema))
@pytest.mark.parametrize("incompressible", [False, True])
@pytest.mark.parametrize("most", [1500, 5000, 20_000])
def test_parts_are_as_large_as_they_may_be(schema: Schema, incompressible: bool, most: int) -> None:
    found = records(500, incompressible=incompressible)
    parts = divided(found, most, schema)
    assert [record for part in parts for record in part] == found
    sizes = [sum(map(len, compressed(render(REPORT, part, schema)))) for part in parts]
    assert max(sizes) <= most
    for part, follower in itertools.pairwise(parts):
        longer = sum(map(len, compressed(render(REPORT, [*part, follower[0]], schema))))
        assert longer > most


def test_a_record_that_does_not_fit_alone() -> None:
    with pytest.raises(RecordTooLargeError):
        divided([RECORD], 100, Schema.RFC9990)


def test_it_takes_linear_time() -> None:
    found = records(5000, incompressible=False)

    def seconds(times: int) -> float:
        began = time.process_time()
        divided(found * times, 8000, Schema.RFC9990)
        return time.process_time() - began

    assert seconds(4) < 4 * seconds(1) * 1.7 + 0.2


@pytest.mark.parametrize("most", [0, 1900, 1977, 1978, 5000, 1_000_000])
def test_what_fits_into_a_mail(most: int) -> None:
    room = file_room(most)
    assert room == 0 or mail_size(room) <= most
    assert mail_size(room + 100) > most
