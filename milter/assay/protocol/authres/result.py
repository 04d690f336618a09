# SPDX-License-Identifier: GPL-3.0-or-later
"""The content of an Authentication-Results field as types (RFC 8601, 2.2), and the registered words.

The same types are rendered and parsed. A field that we write may use registered words only (RFC 8601, 2.7 and 6);
one that we read may use any, because a consumer must ignore words that it does not know (RFC 8601, 4.1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct


class Property(Struct, frozen=True):
    """One ``ptype.property=pvalue`` (RFC 8601, 2.2 and 2.3).

    `ptype` and `name` are lower case. `value` is without the field's quoting, but an e-mail identity is written as in
    an address: ``"a b"@example.org`` keeps the quotes of its local part.
    """

    ptype: str
    name: str
    value: str


class MethodResult(Struct, frozen=True):
    """One resinfo: a method, its result word, and what the result is about (RFC 8601, 2.2).

    `reason` and `comment` are plain text for people, without quoting, empty where absent; runs of white space in them
    count as one space. `comment` is the one right after the result word.
    """

    method: str
    result: str
    reason: str = ""
    comment: str = ""
    properties: tuple[Property, ...] = ()


class AuthenticationResults(Struct, frozen=True):
    """A parsed field.

    `authserv_id` is as written, without quotes, and empty in the fields of writers that omit it (Office 365). `results`
    has only those that a reader may use: a result of an unknown method version is omitted (RFC 8601, 2.6). It is empty
    if the service did no check (``none``).
    """

    authserv_id: str
    version: int = 1
    results: tuple[MethodResult, ...] = ()


class FieldFault(Struct, frozen=True):
    """Why a field could not be read, for a postmaster; it quotes nothing of the field.

    `unsupported_version` marks the one fault for which the field must be removed on untrusted connections (RFC 8601,
    5).
    """

    reason: str
    unsupported_version: bool = False


class RegisteredMethod(Struct, frozen=True):
    """The result words and ``ptype.property`` names of a registered method."""

    results: frozenset[str]
    properties: frozenset[str]


def _method(results: str, properties: str) -> RegisteredMethod:
    return RegisteredMethod(frozenset(results.split()), frozenset(properties.split()))


_FULL = "none pass fail policy neutral temperror permerror"
_PLAIN = "none pass fail temperror permerror"

#: IANA's registry "Email Authentication Methods" with its result names and the names of the methods' properties.
#: The ``policy`` ptype is not here: each administration has its own names for it (RFC 8601, 2.4).
METHODS: Mapping[str, RegisteredMethod] = {
    "arc": _method("none pass fail", "header.oldest-pass smtp.remote-ip"),  # RFC 8617, 10
    "auth": _method(_PLAIN, "smtp.auth smtp.mailfrom"),  # RFC 8601, 2.7.4
    "dkim": _method(_FULL, "header.d header.i header.s header.a header.b"),  # RFC 8601, 2.7.1; RFC 6008
    "dkim-adsp": _method("none pass unknown fail discard nxdomain temperror permerror", "header.from"),  # RFC 5617
    "dkim-atps": _method(_PLAIN, "header.from"),  # RFC 6541
    "dmarc": _method(_PLAIN, "header.from"),  # RFC 9989, 9.2; also policy.dmarc
    "dnswl": _method("none pass temperror permerror", "dns.zone dns.sec"),  # RFC 8904; also policy.ip, policy.txt
    "domainkeys": _method(_FULL, "header.d header.from header.sender"),  # RFC 8601, 2.7.1; deprecated
    "iprev": _method("pass fail temperror permerror", ""),  # RFC 8601, 2.7.3: no "none"; policy.iprev
    "rrvs": _method("none unknown temperror permerror pass fail", "smtp.rcptto"),  # RFC 7293
    "sender-id": _method(  # RFC 8601, 2.7.2: the field that the PRA (RFC 4407) came from
        _FULL + " softfail", "header.from header.sender header.resent-from header.resent-sender"
    ),
    "smime": _method(  # RFC 7281
        _FULL, "body.smime-part body.smime-identifier body.smime-serial body.smime-issuer"
    ),
    "spf": _method(_FULL + " softfail", "smtp.mailfrom smtp.helo"),  # RFC 8601, 2.7.2: "hardfail" is obsolete
    "vbr": _method(_PLAIN, "header.md header.mv"),  # RFC 6212
}

_KEYWORD = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")  # RFC 5321, 4.1.2 "Keyword": Ldh-str


def unregistered(found: MethodResult) -> str:
    """What in a result is not registered, in words; empty for nothing.

    For callers that repeat results of others in our own field (RFC 8617, 4.1.1); `render` refuses such a result.
    """
    method = METHODS.get(found.method)
    if method is None:
        return "the method is not registered"
    if found.result not in method.results:
        return f"the result is not one of {found.method}'s"
    for evidence in found.properties:
        if evidence.ptype == "policy":  # RFC 8601, 2.4: names below "policy" need no registration
            if not _KEYWORD.fullmatch(evidence.name):
                return "a policy property's name is not a keyword"
        elif f"{evidence.ptype}.{evidence.name}" not in method.properties:
            return f"a property is not one of {found.method}'s"
    return ""
