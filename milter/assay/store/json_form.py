# SPDX-License-Identifier: GPL-3.0-or-later
"""A row as a JSON object with the names of its members, for other systems. The id is a UUID as text."""

from __future__ import annotations

import uuid
from typing import Any, TypeVar

import msgspec

from assay.policy.vocabulary import sound
from assay.store.rows import AnswerRow, DmarcRow, FindingRow, MessageRow, PublishedRow

MAX_OCTETS = 1024 * 1024  # of an object that is read, our choice: the longest of ours is a fifth of it

#: Of a row, without what a failure report is made of: no header leaves by a broker.
MEMBERS = tuple([name for name in MessageRow.__struct_fields__ if name != "incident"])

Row = TypeVar("Row", bound=msgspec.Struct)

_decoder = msgspec.json.Decoder()


def as_object(row: MessageRow) -> dict[str, Any]:
    """The row as a dict of JSON values."""
    found = {name: getattr(row, name) for name in MEMBERS}
    found["id"] = str(uuid.UUID(bytes=row.id))
    found["findings"] = [_members(finding) for finding in row.findings]
    found["answers"] = [_members(answer) for answer in row.answers]
    if row.dmarc is not None:
        found["dmarc"] = {**_members(row.dmarc), "published": _members(row.dmarc.published)}
    return found


def to_json(row: MessageRow) -> bytes:
    """The octets of the object."""
    try:
        return msgspec.json.encode(as_object(row))
    except UnicodeEncodeError:  # octets of a stranger that are not UTF-8
        return msgspec.json.encode(sound(as_object(row)))


def from_json(octets: bytes) -> MessageRow:
    """The row of an object. Members that we do not know are ignored, so that a newer sender can be read.

    :raises ValueError: it is not the object of a row.
    """
    if len(octets) > MAX_OCTETS:
        raise ValueError(f"longer than {MAX_OCTETS} octets")
    try:
        found = _decoder.decode(octets)
        found["id"] = uuid.UUID(found["id"]).bytes
        found["findings"] = [_row(FindingRow, finding) for finding in found["findings"]]
        found["answers"] = [_row(AnswerRow, answer) for answer in found.get("answers", ())]
        if dmarc := found.get("dmarc"):
            found["dmarc"] = _row(DmarcRow, {**dmarc, "published": _row(PublishedRow, dmarc["published"])})
        return _row(MessageRow, found)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a result: {error!r}") from error


def _members(value: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__struct_fields__}


def _row(kind: type[Row], members: dict[str, Any]) -> Row:
    """A struct from its members by name. Structs in an array's form are converted from a list."""
    values = []
    for field in msgspec.structs.fields(kind):
        if field.name not in members and field.default is msgspec.NODEFAULT:
            raise ValueError(f"{field.name} is missing")
        values.append(members.get(field.name, field.default))
    return msgspec.convert(values, kind)
