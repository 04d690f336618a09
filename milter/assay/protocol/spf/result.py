# SPDX-License-Identifier: GPL-3.0-or-later
"""The words in which SPF answers (RFC 7208, 2.6): the result, what was checked, and why it came out so.

Values only. What a result means for the message is the policy's affair, not SPF's (RFC 7208, 8).
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from assay.model.name import Domain


class Result(StrEnum):
    """The seven results of check_host() (RFC 7208, 2.6), in the words of RFC 8601, 2.7.2."""

    NONE = "none"  #: no domain to check, or it publishes no record
    NEUTRAL = "neutral"  #: the domain says nothing about this client; to be treated like none (RFC 7208, 8.2)
    PASS = "pass"
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"  #: the DNS did not answer; a later try may succeed
    PERMERROR = "permerror"  #: the record is broken or costs more than the limits allow


class Identity(StrEnum):
    """Whose name was checked, in the words of the ``identity`` key (RFC 7208, 9.1)."""

    HELO = "helo"
    MAILFROM = "mailfrom"
    PRA = "pra"  #: Sender ID's purported responsible address (RFC 4407)


class Limits(Struct, frozen=True, cache_hash=True):
    """What one check may cost (RFC 7208, 4.6.4). The defaults are the RFC's own numbers; fewer break good senders."""

    dns_terms: int = 10
    """Terms that ask the DNS: include, a, mx, ptr, exists and redirect, over all included records. MUST be 10."""

    void_lookups: int = 2
    """Terms whose lookups may find nothing (NXDOMAIN or no data). SHOULD be 2, and MAY be made configurable."""

    mx_names: int = 10
    """Names one ``mx`` may have; one with more is a permerror. MUST be 10."""

    ptr_names: int = 10
    """Names of the client's address that ``ptr`` and ``%{p}`` look at; the rest is ignored. MUST be 10."""

    nested_includes: int = 10
    """How deep policies may include each other. The RFC has no such limit: ten terms that ask the DNS imply it."""

    questions_ahead: int = 32
    """Questions that may be asked before it is known that they are needed, for speed; 0 asks strictly in order. Our
    choice: enough for honest policies, and a hostile one cannot make us ask much more than it could in order."""


class Trouble(Struct, frozen=True):
    """An error that ends the whole check (RFC 7208, 2.6.6 and 2.6.7)."""

    result: Result
    reason: str


#: Whether a term matched. False is also said of a term that still waits for an answer.
Match = bool | Trouble


class Evaluation(Struct, frozen=True):
    """What SPF found out about one identity of one transaction.

    All text that the sender chose is printable and bounded here, except `sender`, which is as it came.
    """

    result: Result
    identity: Identity
    domain: Domain | None
    """The checked ``<domain>``; None where there is none, such as for an address literal."""

    sender: str
    """The ``<sender>`` as macros saw it: local part, not quoted, ``@`` and domain."""

    mechanism: str = ""
    """The term that matched, as written; ``default`` where none did; empty where the record was not evaluated to an
    end."""

    reason: str = ""
    """One clause for a postmaster."""

    explanation: str = ""
    """What the sender says to a rejected client by ``exp=`` (RFC 7208, 6.2), in printable ASCII. It is third-party
    text, unless the caller gave a default for those who say nothing."""

    dns_terms: int = 0
    void_lookups: int = 0
    all_matched: bool = False
    """Whether ``all`` decided in the domain's record or the one it redirects to, and not a more special mechanism."""

    uses_local_part: bool = False
    """Whether an evaluated term had ``%{l}`` or ``%{s}``: only then may a trace name the local part (RFC 8601,
    2.7.2)."""

    uses_macros: bool = False
    """Whether a macro was expanded on the way, to become a name or a part of an explanation. If not, neither HELO nor
    local part, receiver or time had a say, and `sender` only stands here as it was given."""

    domain_exists: bool = True
    """False where the DNS says that `domain` does not exist (NXDOMAIN)."""

    guessed: bool = False
    """Whether a record of the receiver's own choice decided, for a domain that has none. Nobody vouches for such a
    result, so it must not be taken for the domain's word."""
