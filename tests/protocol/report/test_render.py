# SPDX-License-Identifier: GPL-3.0-or-later
"""The XML of aggregate reports: valid by both schemas, readable by parsedmarc, whatever a stranger wrote."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from assay.protocol import dkim, spf
from assay.protocol.dmarc import Alignment, DiscoveryMethod, DmarcPolicy
from assay.protocol.report import (
    MAX_SIGNATURES,
    NAMESPACE,
    AggregateReport,
    Disposition,
    DkimResult,
    OverrideReason,
    OverrideType,
    PolicyPublished,
    ReportMetadata,
    ReportRecord,
    Schema,
    SpfResult,
    render,
)
from assay.protocol.report.render import MAX_ERRORS, MAX_NAME, MAX_REASONS, MAX_TEXT
from reporting import (
    BEGIN,
    END,
    METADATA,
    POLICY,
    RECORD,
    REPORT,
    independently_read,
    report_records,
    reports,
    validated,
    written,
)

GOLDEN = Path(__file__).parent / "golden"
UPDATE = bool(os.environ.get("GOLDEN_UPDATE"))

EVERYTHING = AggregateReport(
    ReportMetadata(
        "Example Mail & Sons",
        "postmaster@mx.example.net",
        "2db1d1b3f6f4ac30ca3b3a26ea4fdb0d",
        BEGIN,
        END,
        "https://mx.example.net/reports",
        ("sp= is not none, quarantine or reject", "2 DMARC records at _dmarc.sub.example.org: all are discarded"),
        "assay 0.1",
    ),
    PolicyPublished(
        "bücher.example",
        DmarcPolicy.REJECT,
        DmarcPolicy.QUARANTINE,
        DmarcPolicy.NONE,
        "1:d:s",
        Alignment.STRICT,
        Alignment.RELAXED,
        testing=True,
        discovery_method=DiscoveryMethod.PSL,
        pct=50,
    ),
)
SEVERAL = (
    RECORD,
    ReportRecord(  # a bounce, over IPv6
        "2001:db8::10",
        3,
        Disposition.PASS,
        dkim_aligned=False,
        spf_aligned=True,
        header_from="Bücher.example",
        envelope_from="",
        spf=SpfResult("mail.bücher.example", spf.Result.PASS),
    ),
    ReportRecord(  # through a list, and several reasons
        "192.0.2.20",
        2_000_000,
        Disposition.NONE,
        dkim_aligned=False,
        spf_aligned=False,
        header_from="example.org",
        envelope_from="list.example",
        reasons=(
            OverrideReason(OverrideType.MAILING_LIST, 'rule "lists" <of ours> & more'),
            OverrideReason(OverrideType.POLICY_TEST_MODE),
            OverrideReason(OverrideType.SAMPLED_OUT, "pct=50"),
        ),
        dkim=(
            DkimResult("list.example", "2023", dkim.Result.PASS),
            DkimResult("example.org", "rsa", dkim.Result.FAIL, "the body was changed\r\n]]>"),
        ),
        spf=SpfResult("list.example", spf.Result.SOFTFAIL, "matched ~all"),
    ),
    ReportRecord(  # no SPF, no domain in the reverse-path, nothing signed
        "192.0.2.30", 1, Disposition.REJECT, dkim_aligned=False, spf_aligned=False, header_from="example.org"
    ),
)


@pytest.mark.parametrize("schema", Schema)
def test_the_octets_are_the_golden_ones(schema: Schema) -> None:
    xml = written(EVERYTHING, SEVERAL, schema)
    validated(xml, schema)
    path = GOLDEN / f"rfc{schema.value}.xml"
    if UPDATE:
        path.write_bytes(xml)
    assert xml == path.read_bytes()


@pytest.mark.parametrize("schema", Schema)
def test_another_reader_adds_up_to_the_same(schema: Schema) -> None:
    read = independently_read(written(EVERYTHING, SEVERAL, schema))
    assert read["report_metadata"]["org_name"] == "Example Mail & Sons"
    assert read["report_metadata"]["org_email"] == "postmaster@mx.example.net"
    assert read["policy_published"]["domain"] == "xn--bcher-kva.example"
    assert [record["count"] for record in read["records"]] == [record.count for record in SEVERAL]
    for ours, theirs in zip(SEVERAL, read["records"], strict=True):
        assert theirs["source"]["ip_address"] in (ours.source_ip, "2001:db8:0:0:0:0:0:10")
        assert theirs["alignment"] == {
            "dkim": ours.dkim_aligned,
            "spf": ours.spf_aligned,
            "dmarc": ours.dkim_aligned or ours.spf_aligned,
        }
        assert [one["selector"] for one in theirs["auth_results"]["dkim"]] == [one.selector for one in ours.dkim]


def test_another_reader_sees_what_only_the_newer_schema_says() -> None:
    read = independently_read(written(EVERYTHING, SEVERAL))
    assert read["xml_namespace"] == NAMESPACE
    assert read["policy_published"]["np"] == "none"
    assert read["policy_published"]["testing"] == "y"
    assert read["policy_published"]["discovery_method"] == "psl"
    assert read["report_metadata"]["generator"] == "assay 0.1"
    assert "sp= is not none" in read["report_metadata"]["errors"][0]


@settings(deadline=None)  # the other reader is slow
@given(reports, st.lists(report_records, min_size=1, max_size=3), st.sampled_from(Schema))
def test_a_hostile_report_is_valid_and_readable(
    report: AggregateReport, records: list[ReportRecord], schema: Schema
) -> None:
    xml = written(report, records, schema)
    root = validated(xml, schema)
    assert len(root.findall("{*}record")) == len(records)
    assert all(element.tail is None or not element.tail.strip() for element in root.iter())
    read = independently_read(xml)
    assert sum(record["count"] for record in read["records"]) == sum(record.count for record in records)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("]]>", "]]>"),
        ("<a>&amp;'\"", "<a>&amp;'\""),
        ("a\r\nb\tc\0\x1b", "a\\x0d\\x0ab\\x09c\\x00\\x1b"),
        ("\udcff\ud800\ufffe\uffff", "\\xff\\ud800\\ufffe\\uffff"),
        ("\u202egnp.exe\u2028", "\\u202egnp.exe\\u2028"),
        ("Grüße 😀", "Grüße 😀"),
        ("x" * MAX_TEXT, "x" * MAX_TEXT),
        ("x" * MAX_TEXT + "y", "x" * MAX_TEXT + "..."),
    ],
)
def test_a_comment_comes_out_as_text_of_one_line(text: str, expected: str) -> None:
    record = replace(RECORD, reasons=(OverrideReason(OverrideType.OTHER, text),))
    root = validated(written(records=[record]), Schema.RFC9990)
    assert root.findtext("{*}record/{*}row/{*}policy_evaluated/{*}reason/{*}comment") == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("a b\udcff", "a b\\xff"),
        ("x" * 300, "x" * MAX_NAME + "..."),
        ("", ""),
    ],
)
def test_a_name_is_written_in_a_labels_wherever_it_stands(name: str, expected: str) -> None:
    record = replace(
        RECORD,
        header_from=name,
        envelope_from=name,
        dkim=(DkimResult(name, name, dkim.Result.PASS),),
        spf=SpfResult(name, spf.Result.PASS),
    )
    root = validated(written(AggregateReport(METADATA, replace(POLICY, domain=name)), [record]), Schema.RFC9990)
    names = [
        element.text or ""
        for tag in ("domain", "selector", "header_from", "envelope_from")
        for element in root.iter(f"{{*}}{tag}")
    ]
    assert names == [expected] * 6


def test_an_unknown_envelope_from_is_absent_and_the_null_one_is_empty() -> None:
    for envelope_from, expected in (("", ""), (None, None)):
        record = replace(RECORD, envelope_from=envelope_from)
        root = validated(written(records=[record]), Schema.RFC9990)
        assert root.findtext("{*}record/{*}identifiers/{*}envelope_from") == expected
        older = validated(written(records=[record], schema=Schema.RFC7489), Schema.RFC7489)
        assert older.findtext("record/identifiers/envelope_from") == ""


def test_what_a_schema_has_no_word_for_is_said_in_another() -> None:
    record = replace(
        RECORD,
        reasons=(
            OverrideReason(OverrideType.SAMPLED_OUT, "pct=5"),
            OverrideReason(OverrideType.POLICY_TEST_MODE),
        ),
    )
    said = {}
    for schema in Schema:
        evaluated = validated(written(records=[record], schema=schema), schema).find(
            "{*}record/{*}row/{*}policy_evaluated"
        )
        said[schema] = [
            evaluated.findtext("{*}disposition"),
            *[(one.findtext("{*}type"), one.findtext("{*}comment")) for one in evaluated.iter("{*}reason")],
        ]
    assert said[Schema.RFC9990] == ["pass", ("other", "sampled_out: pct=5"), ("policy_test_mode", None)]
    assert said[Schema.RFC7489] == ["none", ("sampled_out", "pct=5"), ("other", "policy_test_mode")]


def test_lists_are_bounded() -> None:
    record = replace(
        RECORD,
        reasons=(OverrideReason(OverrideType.OTHER, "x"),) * 50,
        dkim=(DkimResult("a.example", "s", dkim.Result.PASS),) * 500,
    )
    errors = tuple(f"fault {number}" for number in range(50))
    report = AggregateReport(replace(METADATA, errors=errors), POLICY)
    for schema in Schema:
        root = validated(written(report, [record], schema), schema)
        assert len(list(root.iter("{*}reason"))) == MAX_REASONS
        assert len(list(root.iter("{*}dkim"))) == MAX_SIGNATURES + 1  # and the one of policy_evaluated
        said = "; ".join(element.text for element in root.iter("{*}error"))
        assert said == "; ".join(errors[:MAX_ERRORS])


def test_a_report_without_records_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        written(records=[])


def test_memory_does_not_grow_with_the_records() -> None:
    def records(number: int) -> Iterator[ReportRecord]:
        for _ in range(number):
            yield RECORD

    peaks = []
    for number in (2_000, 20_000):
        tracemalloc.start()
        for piece in render(REPORT, records(number)):
            assert len(piece) < 1 << 18
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2
