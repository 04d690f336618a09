# SPDX-License-Identifier: GPL-3.0-or-later
"""The vocabulary of SPF's answers (RFC 7208, 2.6): the result, what was checked, and the reason.

Values only. What a result means for the message is for the policy to decide, not for SPF (RFC 7208, 8).
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from assay.inquiry import Grounds
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
    """What one check may cost (RFC 7208, 4.6.4). The defaults are the RFC's numbers; lower ones break good senders."""

    dns_terms: int = 10
    """Terms that ask the DNS: include, a, mx, ptr, exists and redirect, over all included records. MUST be 10."""

    void_lookups: int = 2
    """Terms whose lookups may find nothing (NXDOMAIN or no data). SHOULD be 2, and MAY be made configurable."""

    mx_names: int = 10
    """Names that one ``mx`` may have; more are a permerror. MUST be 10."""

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

    All text that the sender chose is printable and bounded here, except `sender`, which is unchanged.
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
    text, unless it is the caller's default for domains without one."""

    dns_terms: int = 0
    void_lookups: int = 0
    all_matched: bool = False
    """Whether ``all``, and not a more specific mechanism, decided in the domain's record or the one it redirects to."""

    uses_local_part: bool = False
    """Whether an evaluated term had ``%{l}`` or ``%{s}``: only then may a trace name the local part (RFC 8601,
    2.7.2)."""

    uses_macros: bool = False
    """Whether a macro was expanded, for a name or an explanation. If not, HELO, local part, receiver and time had no
    influence, and `sender` is only repeated here as given."""

    domain_exists: bool = True
    """False where the DNS says that `domain` does not exist (NXDOMAIN)."""

    guessed: bool = False
    """Whether a record of the receiver's own choice decided, because the domain has none. Nobody vouches for such a
    result, so it must not be taken for the domain's word."""

    grounds: Grounds = Grounds.UNPROVEN
    """Of the answers that the evaluation read, up to the term that matched."""
