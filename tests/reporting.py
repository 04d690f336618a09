# SPDX-License-Identifier: GPL-3.0-or-later
"""DMARC reports for the tests: samples, strategies for hostile ones, the schemas, and other people's readers."""

from __future__ import annotations

import gzip
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from functools import cache
from pathlib import Path
from typing import Any

import parsedmarc
import pytest
from hypothesis import strategies as st
from lxml import etree

from assay.model.name import Domain
from assay.protocol import dkim, spf
from assay.protocol.dmarc import Alignment, DiscoveryMethod, DmarcPolicy
from assay.protocol.report import (
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
    report_id,
)
from conformance.cases import FOLDER

RFCS = Path(os.environ.get("ASSAY_RFCS", Path(__file__).parents[2] / "shared" / "reference" / "rfc"))
BEGIN, END = 1_700_006_400, 1_700_092_800  # 2023-11-15, UTC

POLICY = PolicyPublished("example.org", DmarcPolicy.REJECT, DmarcPolicy.REJECT, DmarcPolicy.REJECT)
METADATA = ReportMetadata(
    "Example Mail",
    "postmaster@mx.example.net",
    report_id(Domain("mx.example.net"), POLICY, BEGIN, END, source="a"),
    BEGIN,
    END,
)
REPORT = AggregateReport(METADATA, POLICY)
RECORD = ReportRecord(
    "192.0.2.10",
    1,
    Disposition.PASS,
    dkim_aligned=True,
    spf_aligned=True,
    header_from="example.org",
    envelope_from="example.org",
    dkim=(DkimResult("example.org", "rsa", dkim.Result.PASS),),
    spf=SpfResult("example.org", spf.Result.PASS),
)


def written(
    report: AggregateReport = REPORT,
    records: Iterable[ReportRecord] = (RECORD,),
    schema: Schema = Schema.RFC9990,
) -> bytes:
    """A whole report."""
    return b"".join(render(report, records, schema))


@cache
def _schema(schema: Schema) -> etree.XMLSchema:
    path = RFCS / "rfc7489.txt" if schema is Schema.RFC7489 else FOLDER / "schemas" / "rfc9990-draft32-dmarc-2.0.xsd"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    text = path.read_text("utf-8")
    return etree.XMLSchema(etree.fromstring((_appendix_c(text) if schema is Schema.RFC7489 else text).encode()))


def _appendix_c(text: str) -> str:
    """The schema of RFC 7489, with two changes.

    The target namespace is left out: its types refer to each other without it, and no report has it. The pattern of an
    address is on one line, and its dots are dots.
    """
    text = re.sub(r"\n+Kucherawy & Zwicky .*\n\f?\n?RFC 7489 .*\n+", "\n", text)
    found = re.search(r"<\?xml .*?</xs:schema>", text[text.index("\nAppendix C.") :], re.DOTALL)
    assert found is not None
    schema = found[0].replace('targetNamespace="http://dmarc.org/dmarc-xml/0.1"', "")
    return re.sub(
        r'<xs:pattern value="[^"]*"', lambda tag: re.sub(r"\s+(?=[(])", "", tag[0]).replace(").)", r")\.)"), schema
    )


def validated(xml: bytes, schema: Schema) -> Any:
    """The root of a report that its schema accepts."""
    root = etree.fromstring(xml, etree.XMLParser(resolve_entities=False, no_network=True))
    _schema(schema).assertValid(root)
    return root


def independently_read(xml: bytes) -> Any:
    """What parsedmarc makes of a report, without the network. It must find nothing to complain about."""
    with no_complaints():
        return parsedmarc.parse_aggregate_report_xml(
            xml, offline=True, always_use_local_files=True, normalize_timespan_threshold_hours=1e6
        )


def mailed(octets: bytes, schema: Schema = Schema.RFC9990) -> tuple[EmailMessage, Mapping[str, Any]]:
    """A mail with a report, and the report, which its schema accepts, as parsedmarc reads it."""
    message = message_from_bytes(octets, policy=policy.default)
    assert isinstance(message, EmailMessage)
    (attachment,) = message.iter_attachments()
    xml = gzip.decompress(attachment.get_payload(decode=True))  # type: ignore[arg-type]  # it is an attachment
    validated(xml, schema)
    return message, independently_read(xml)


def counted(reports: list[Mapping[str, Any]]) -> Counter[str]:
    """How many messages of each client some reports are about."""
    found: Counter[str] = Counter()
    for report in reports:
        for each in report["records"]:
            found[each["source"]["ip_address"]] += each["count"]
    return found


@contextmanager
def no_complaints() -> Iterator[None]:
    """Fail where parsedmarc warns: it goes on with what it can read of a report that is not right."""
    complaints: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: complaints.append(record.getMessage())  # type: ignore[method-assign]  # meant
    logger = logging.getLogger("parsedmarc")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    assert not complaints


#: Any text: control characters, lone surrogates, what XML forbids, what XML gives a meaning to.
hostile = st.one_of(
    st.text(max_size=40),
    st.text(st.characters(categories=("Cc", "Cf", "Cn", "Cs", "Zl", "Zp")), max_size=10),
    st.text("<>&\"'[]!-\x00\t\r\n\x1b\x85\ufffe\udcff é", max_size=30),
    st.sampled_from(["]]>", "<!--", "</domain>", "&bogus;", "<?xml?>", "x" * 3000, "ü" * 300, "\U0010ffff"]),
)
domains = st.one_of(st.sampled_from(["example.org", "sub.example.org", "bücher.example"]), hostile)
_reasons = st.builds(OverrideReason, st.sampled_from(OverrideType), hostile)
_dkim = st.builds(DkimResult, domains, hostile.map(lambda text: "s" + text), st.sampled_from(dkim.Result), hostile)
_spf = st.builds(SpfResult, domains, st.sampled_from(spf.Result), hostile)
report_records = st.builds(
    ReportRecord,
    st.ip_addresses().map(str),
    st.integers(1, 2**40),
    st.sampled_from(Disposition),
    st.booleans(),
    st.booleans(),
    domains,
    st.none() | domains,
    st.lists(_reasons, max_size=12).map(tuple),
    st.lists(_dkim, max_size=3).map(tuple),
    st.none() | _spf,
)
_policies = st.sampled_from(DmarcPolicy)
reports = st.builds(
    AggregateReport,
    st.builds(
        ReportMetadata,
        hostile.map(lambda text: "Org " + text),
        hostile,
        hostile.map(lambda text: "id" + text),
        st.integers(0, 2**33),
        st.integers(0, 2**33),
        hostile,
        st.lists(hostile, max_size=12).map(tuple),
        hostile,
    ),
    st.builds(
        PolicyPublished,
        domains,
        _policies,
        _policies,
        _policies,
        st.sampled_from(["0", "1", "1:d:s"]),
        st.sampled_from(Alignment),
        st.sampled_from(Alignment),
        st.booleans(),
        st.sampled_from(DiscoveryMethod),
        st.integers(0, 100),
    ),
)
