# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts of a message as rules, the JSON log and the documentation name them.

`Facts` is the vocabulary, with its types. Its JSON form is that of the facts log, so that another configuration can
judge a logged message again (``assay policy try``). A rule that names anything else is an error at start.

Of each method, `dnssec` is whether all answers behind the result were secure, and `stale` whether some had expired.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from assay.policy.decision import Stage

_CONNECT, _HELO, _MAIL, _RCPT, _EOM = (Meta(extra={"stage": stage}) for stage in Stage)


class ClientFacts(Struct, frozen=True):
    """The client: its address, the name that the MTA found for it, and the MTA's service that accepted it."""

    address: str = ""
    name: str = ""
    daemon: str = ""


class SenderFacts(Struct, frozen=True):
    """MAIL FROM, and the login name if the client authenticated."""

    address: str = ""
    local_part: str = ""
    domain: str = ""
    authenticated: str = ""


class IprevFacts(Struct, frozen=True):
    """IPREV: the verified name, all names, and those that resolve to the client's address."""

    result: str = ""
    name: str = ""
    names: tuple[str, ...] = ()
    confirmed: tuple[str, ...] = ()
    reason: str = ""
    dnssec: bool = False
    stale: bool = False


class SpfIdentityFacts(Struct, frozen=True):
    """SPF of one identity."""

    result: str = ""
    domain: str = ""
    mechanism: str = ""
    by_all: bool = False
    guessed: bool = False
    reason: str = ""
    explanation: str = ""
    dnssec: bool = False
    stale: bool = False


class SpfFacts(Struct, frozen=True):
    """SPF, by identity."""

    helo: Annotated[SpfIdentityFacts, _HELO] = SpfIdentityFacts()
    mailfrom: Annotated[SpfIdentityFacts, _MAIL] = SpfIdentityFacts()


class AuthorFacts(Struct, frozen=True):
    """The author, or why there is not exactly one."""

    domain: str = ""
    domains: tuple[str, ...] = ()
    address: str = ""
    fault: str = ""


class SignatureFacts(Struct, frozen=True):
    """One DKIM signature."""

    result: str = ""
    domain: str = ""
    selector: str = ""
    identity: str = ""
    algorithm: str = ""
    testing: bool = False
    aligned: bool = False
    fields: tuple[str, ...] = ()
    reason: str = ""
    dnssec: bool = False
    stale: bool = False


class ArcFacts(Struct, frozen=True):
    """The ARC chain, and whether trusted sealers vouch for the author."""

    result: str = ""
    sealers: tuple[str, ...] = ()
    trusted: bool = False
    reason: str = ""
    dnssec: bool = False
    stale: bool = False


class SenderIdFacts(Struct, frozen=True):
    """Sender ID."""

    result: str = ""
    domain: str = ""
    reason: str = ""
    explanation: str = ""
    dnssec: bool = False
    stale: bool = False


class DmarcFacts(Struct, frozen=True):
    """DMARC."""

    result: str = ""
    policy: str = ""
    disposition: str = ""
    domain: str = ""
    organizational_domain: str = ""
    spf_aligned: bool = False
    dkim_aligned: bool = False
    reason: str = ""
    dnssec: bool = False
    stale: bool = False


class ListFacts(Struct, frozen=True):
    """The mailing list."""

    id: str = ""


class Facts(Struct, frozen=True):
    """All facts. Unknown facts are empty or false.

    Each top-level fact is annotated with the stage at which it becomes known; SPF's, by identity. `header` has the
    values of the fields that rules read, by lower-case name, from top to bottom.
    """

    client: Annotated[ClientFacts, _CONNECT] = ClientFacts()
    direction: Annotated[str, _EOM] = ""
    helo: Annotated[str, _HELO] = ""
    mail_from: Annotated[SenderFacts, _MAIL] = SenderFacts()
    rcpt: Annotated[tuple[str, ...], _RCPT] = ()
    iprev: Annotated[IprevFacts, _CONNECT] = IprevFacts()
    spf: Annotated[SpfFacts, _MAIL] = SpfFacts()
    author: Annotated[AuthorFacts, _EOM] = msgspec.field(default=AuthorFacts(), name="from")
    dkim: Annotated[tuple[SignatureFacts, ...], _EOM] = ()
    arc: Annotated[ArcFacts, _EOM] = ArcFacts()
    senderid: Annotated[SenderIdFacts, _EOM] = SenderIdFacts()
    dmarc: Annotated[DmarcFacts, _EOM] = DmarcFacts()
    mailing_list: Annotated[ListFacts, _EOM] = msgspec.field(default=ListFacts(), name="list")
    header: Annotated[dict[str, tuple[str, ...]], _EOM] = {}


class Fact(Struct, frozen=True):
    """One name of the vocabulary: its attribute, its type, and the stage at which it becomes known.

    The stage is None if it is that of the enclosing fact.
    """

    attribute: str
    kind: Any
    stage: Stage | None


@cache
def members(kind: Any) -> Mapping[str, Fact]:
    """The facts in a struct of the vocabulary, by the names that rules and the log use."""
    return {field.encode_name: _fact(field.name, field.type) for field in msgspec.structs.fields(kind)}


def _fact(attribute: str, annotation: Any) -> Fact:
    if get_origin(annotation) is not Annotated:
        return Fact(attribute, annotation, None)
    kind, meta = get_args(annotation)
    return Fact(attribute, kind, meta.extra["stage"])


def is_tree(kind: Any) -> bool:
    """Whether a type of the vocabulary has facts by name."""
    return isinstance(kind, type) and issubclass(kind, Struct)


def element(kind: Any) -> Any:
    """The type of a list's elements; None if it is not a list."""
    return get_args(kind)[0] if get_origin(kind) is tuple else None


def known_from(path: str) -> tuple[str, Stage]:
    """The stage at which a fact becomes known.

    :param path: such as ``helo`` or ``spf.helo.result``.
    :returns: the part of the path that the stage belongs to, such as ``spf.helo``, and the stage.
    """
    kind: Any = Facts
    known = ("", Stage.CONNECT)
    names = path.split(".")
    for number, name in enumerate(names, 1):
        if not is_tree(kind):
            break
        fact = members(kind)[name]
        kind = fact.kind
        if fact.stage is not None:
            known = (".".join(names[:number]), fact.stage)
    return known


def sound(value: Any) -> Any:
    """Plain values with ``\\xNN`` for octets that are not UTF-8: neither CEL nor JSON knows lone surrogates."""
    match value:
        case str():
            return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        case dict():
            return {key: sound(item) for key, item in value.items()}
        case list() | tuple():
            return [sound(item) for item in value]
        case _:
            return value
