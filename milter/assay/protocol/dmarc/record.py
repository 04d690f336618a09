# SPDX-License-Identifier: GPL-3.0-or-later
"""The DMARC policy record: from the text of one TXT record to a frozen `DmarcRecord` (RFC 9989, 4.5, 4.7 and 4.8).

Tolerant as the RFC asks: only the version tag decides whether a text is a DMARC record at all; after it, anything
malformed or unknown is dropped in favour of the default and noted in `DmarcRecord.notes`. We are laxer than the ABNF
in one point: tag names may have any case, because deployed parsers accept it and no other reading exists.

Records of RFC 7489's generation are read by the same rules; their ``pct``, ``rf`` and ``ri`` are kept as text only.
Nothing is looked up here, and nothing is decided except whether the record is usable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from assay.caches import remember

MAX_TAGS = 64  # our choice: fifteen tags are known; what follows the 64th is dropped
MAX_URIS = 20  # our choice, for each of rua and ruf: RFC 9989, 4.6 asks for "each" and allows local limits

MAX_REMEMBERED = 4096  # octets of a record that is kept; our choice: no real record is longer


class DmarcPolicy(StrEnum):
    """What the domain owner wants done with failing messages (RFC 9989, 4.7), from lenient to strict."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"

    @property
    def one_lower(self) -> DmarcPolicy:
        """The policy one level below, as for ``t=y`` (RFC 9989, 4.7)."""
        return DmarcPolicy.QUARANTINE if self is DmarcPolicy.REJECT else DmarcPolicy.NONE


class Alignment(StrEnum):
    """How close an identifier must be to the author domain (RFC 9989, 4.4)."""

    RELAXED = "r"
    STRICT = "s"


class DmarcRecord(Struct, frozen=True):
    """One DMARC policy record (RFC 9989, 4.7).

    `p` is None where the record asks for no DMARC processing at all; `malformed` is whether that is because a
    policy tag has a value that is not a policy. Where RFC 9989, 4.10.1 says to act as if it were ``p=none``, `p`, `sp`
    and `np` are set to that. `psd` is "y", "n" or "u". `t` is "y", "n" or empty where it is absent. `fo` has the
    options in their order. `rua` and `ruf` are the usable URIs, without the size limits of RFC 7489. `pct`,
    `rf` and `ri` are as published, empty where absent. `notes` are for a postmaster: what was dropped, and why.
    """

    text: str
    p: DmarcPolicy | None
    sp: DmarcPolicy | None = None
    np: DmarcPolicy | None = None
    malformed: bool = False
    adkim: Alignment = Alignment.RELAXED
    aspf: Alignment = Alignment.RELAXED
    psd: str = "u"
    t: str = ""
    fo: tuple[str, ...] = ("0",)
    rua: tuple[str, ...] = ()
    ruf: tuple[str, ...] = ()
    pct: str = ""
    rf: str = ""
    ri: str = ""
    notes: tuple[str, ...] = ()

    @property
    def testing(self) -> bool:
        """Whether the domain owner asks for the policy one level lower (``t=y``)."""
        return self.t == "y"

    def policy_for(self, *, exists: bool) -> DmarcPolicy | None:
        """The policy for a name below the record's own domain (RFC 9989, 4.10.1); for the domain itself it is `p`.

        :param exists: whether that name exists in the DNS (RFC 9989, 3.2.13).
        :returns: np, sp or p as applies; None where the record is not usable.
        """
        if not exists and self.np is not None:
            return self.np
        return self.sp if self.sp is not None else self.p


#: RFC 9989, 4.8: the version is compared with regard to case, may be followed by white space, but not preceded by it.
_VERSION = re.compile(rb"[vV][ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
#: RFC 9989, 4.8 dmarc-tag: printable ASCII without ";".
_TAG = re.compile(rb"([A-Za-z]++)[ \t]*+=[ \t]*+([\x20-\x7e]++)")
#: RFC 3986 characters without "," and "!", which a record must encode (RFC 9989, 4.8), and RFC 7489's size limit.
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*+:[A-Za-z0-9\-._~:/?#\[\]@$&'()*+;=%]++)(?:![0-9]++[kmgtKMGT]?)?")
_MAILTO = re.compile(r"mailto:[^@?]++@[^@?]++(?:\?.*)?", re.IGNORECASE)
_POLICIES = {policy.value: policy for policy in DmarcPolicy}


def is_record(text: bytes) -> bool:
    """Whether a TXT record is a DMARC record (RFC 9989, 4.5); other texts at the same name are ignored."""
    return _VERSION.match(text) is not None


def parse(text: bytes) -> DmarcRecord:
    """Read a text that `is_record` accepts.

    :param text: the character-strings of one TXT record, joined.
    :returns: the record; never raises, see `DmarcRecord.notes` for what was wrong.
    """
    # One message reads its organizational domain's record several times, and a few records serve most mail.
    return _remembered(text) if len(text) <= MAX_REMEMBERED else _parse(text)


def _parse(text: bytes) -> DmarcRecord:
    notes: list[str] = []
    tags = _tags(text, notes)
    rua, ruf = _uris("rua", tags, notes), _uris("ruf", tags, notes)
    policies: dict[str, DmarcPolicy | None] = {}
    for name in ("p", "sp", "np"):
        value = tags.get(name)
        policies[name] = None if value is None else _POLICIES.get(value.lower())
        if value is not None and policies[name] is None:
            notes.append(f"{name}= is not none, quarantine or reject")
    malformed = any(name in tags and policy is None for name, policy in policies.items())
    p, sp, np = policies["p"], policies["sp"], policies["np"]
    if p is None or malformed:
        # RFC 9989, 4.10.1: if reports can be sent, act as if the record had p=none; else there is no DMARC.
        p, sp, np = (DmarcPolicy.NONE if rua else None), None, None
        notes.append("no usable policy: " + ("p=none because of rua=" if rua else "no DMARC, because there is no rua="))
    return DmarcRecord(
        text=text.decode("ascii", "backslashreplace"),
        p=p,
        sp=sp,
        np=np,
        malformed=malformed,
        adkim=Alignment(_choice("adkim", "rs", "r", tags, notes)),
        aspf=Alignment(_choice("aspf", "rs", "r", tags, notes)),
        psd=_choice("psd", "ynu", "u", tags, notes),
        t=_choice("t", "yn", "", tags, notes),
        fo=_failure_options(tags, notes) if ruf else ("0",),  # RFC 9989, 4.7: ignored without ruf
        rua=rua,
        ruf=ruf,
        pct=tags.get("pct", ""),
        rf=tags.get("rf", ""),
        ri=tags.get("ri", ""),
        notes=tuple(notes),
    )


_remembered = remember("DMARC records")(_parse)


def _tags(text: bytes, notes: list[str]) -> dict[str, str]:
    """The tags after the version, by lower-case name. RFC 9989, 4.8: malformed tags are dropped."""
    tags: dict[str, str] = {}
    pieces = text.split(b";", MAX_TAGS + 1)
    if len(pieces) > MAX_TAGS + 1:
        notes.append(f"more than {MAX_TAGS} tags: the rest is dropped")
        del pieces[MAX_TAGS + 1 :]
    for piece in pieces[1:]:
        piece = piece.strip(b" \t")
        if not piece:
            continue
        match = _TAG.fullmatch(piece)
        name = piece.partition(b"=")[0].strip(b" \t").decode("ascii", "backslashreplace").lower()[:20]
        if match is None:
            notes.append(f"malformed tag {name!r} is dropped")
            if name in ("p", "sp", "np"):  # an empty or non-ASCII policy is a policy that is not valid (4.10.1)
                tags.setdefault(name, "")
        elif name in tags:
            # RFC 9989 is silent; RFC 6376, 3.2, whose syntax it borrows, would refuse the whole record.
            notes.append(f"{name}= occurs twice: the first one counts")
        else:
            tags[name] = match[2].decode("ascii")
    return tags


def _choice(name: str, values: str, default: str, tags: Mapping[str, str], notes: list[str]) -> str:
    """A tag with one letter of `values`, in any case; anything else is the default (RFC 9989, 4.8)."""
    value = tags.get(name)
    if value is None:
        return default
    value = value.lower()
    if len(value) == 1 and value in values:
        return value
    notes.append(f"{name}= is not one of {', '.join(values)}")
    return default


def _failure_options(tags: Mapping[str, str], notes: list[str]) -> tuple[str, ...]:
    """The fo tag (RFC 9989, 4.7): 0 or 1, d and s, each once."""
    value = tags.get("fo")
    if value is None:
        return ("0",)
    options = [option.strip(" \t").lower() for option in value.split(":", 4)]
    if len(set(options)) < len(options) or not set(options) <= {"0", "1", "d", "s"} or {"0", "1"} <= set(options):
        notes.append("fo= is malformed: 0 is assumed")
        return ("0",)
    return tuple(options)


def _uris(name: str, tags: Mapping[str, str], notes: list[str]) -> tuple[str, ...]:
    """The usable URIs of rua or ruf in order (RFC 9989, 4.6 and 4.7); the reporter checks their schemes."""
    found: list[str] = []
    for text in tags.get(name, "").split(",", MAX_URIS)[:MAX_URIS]:
        match = _URI.fullmatch(text.strip(" \t"))
        if match and (match[1][:7].lower() != "mailto:" or _MAILTO.fullmatch(match[1])):
            found.append(match[1])
        elif name in tags:
            notes.append(f"{name}= has something that is not a URI")
    return tuple(dict.fromkeys(found))
