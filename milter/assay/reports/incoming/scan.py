# SPDX-License-Identifier: GPL-3.0-or-later
"""The text of a report and its bounds, before parsedmarc sees it.

parsedmarc bounds what it decompresses (100 MiB), refuses a DOCTYPE, and expands no entity. It bounds neither the number
of elements nor their depth, and repairs broken XML with libxml2, which took 1.4 GB for 15 MB of it. The bounds here
give reasons that a person understands; those of the process (`confine`) hold for whatever gets through.
"""

from __future__ import annotations

import re
from typing import Any
from xml.parsers import expat

from msgspec import Struct

from assay.reports.incoming.texts import UnreadableError

MAX_RECORDS = 50_000  # our choice: 25 MB of XML; the largest reporters send some thousands
MAX_ELEMENTS = 2_000_000  # our choice: forty for each record; most have twenty
MAX_DEPTH = 32  # our choice: a report has six levels

#: What reporters write. Other codecs are not used: some take quadratic time, and a stranger chooses.
ENCODINGS = {"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin1", "windows-1252", "utf-16"}
_DECLARED = re.compile(rb"""<\?xml[^>]{0,100}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")


def decode(octets: bytes) -> str:
    """The text of a report. Octets that are not of its encoding become U+FFFD."""
    if octets[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return octets.decode("utf-16", "replace").strip()
    declared = _DECLARED.match(octets.lstrip()[:200])
    encoding = declared[1].decode().lower() if declared else ""
    if encoding not in ENCODINGS or encoding == "utf-16":  # it begins with ASCII, so it is not UTF-16
        encoding = "utf-8"
    return octets.decode(encoding, "replace").lstrip("\ufeff").strip()


class Scan(Struct, frozen=True):
    """What an aggregate report consists of.

    :ivar records: how many records it has; in broken XML, those before the fault.
    :ivar sound: whether it is valid XML whose root is that of a report.
    """

    records: int
    sound: bool


def scan(xml: str) -> Scan:
    """Check the bounds of an aggregate report.

    :raises UnreadableError: a bound is exceeded, or there is a DOCTYPE, which no schema of a report has: entities and
        default attributes make gigabytes of a few octets.
    """
    records = elements = depth = 0
    root = ""

    def start(name: str, _attributes: Any) -> None:
        nonlocal records, elements, depth, root
        elements += 1
        depth += 1
        root = root or name
        if depth > MAX_DEPTH:
            raise UnreadableError(f"the XML is nested more than {MAX_DEPTH} levels deep")
        if elements > MAX_ELEMENTS:
            raise UnreadableError(f"the XML has more than {MAX_ELEMENTS:,} elements")
        if depth == 2 and name == "record":
            records += 1
            if records > MAX_RECORDS:
                raise UnreadableError(f"it has more than {MAX_RECORDS:,} records")

    def end(_name: str) -> None:
        nonlocal depth
        depth -= 1

    def refuse(*_declaration: Any) -> None:
        raise UnreadableError("the XML has a DOCTYPE, which no report has")

    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(xml.encode("utf-8", "replace"), True)
    except expat.ExpatError:  # parsedmarc repairs some of what reporters send
        return Scan(records, False)
    return Scan(records, root == "feedback")
