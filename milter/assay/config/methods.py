# SPDX-License-Identifier: GPL-3.0-or-later
"""The sections of the methods: how each is evaluated, and the action for each outcome. Defaults refuse nothing."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec.structs
from msgspec import Meta

from assay.config.section import Section, SettingError
from assay.policy import Action, Stage
from assay.protocol import arc, dkim, dmarc, spf

_STAGE = "From which SMTP stage on it may refuse: connect, helo, mail, rcpt or eom (end of message, the default)."
_FIELD_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322, 2.2
_DRY_RUN = "Only log what the actions below would have done."


class IprevSection(Section, frozen=True):
    """Does the client's address have a name that has that address (RFC 8601, 3)?"""

    enabled: Annotated[bool, Meta(description="Check it.")] = True
    stage: Annotated[Stage, Meta(description=_STAGE)] = Stage.EOM
    dry_run: Annotated[bool, Meta(description=_DRY_RUN)] = False
    names_in_mail_from: Annotated[
        str,
        Meta(
            description='"first" or "any": that name of the client, of those that have its address, must lie in the '
            "domain of MAIL FROM, else the outcome is name_mismatch. Empty: no such check. Most honest mail fails it."
        ),
    ] = ""
    fail: Annotated[
        Action,
        Meta(description="Action when the names do not have the address. Many honest small servers fail this."),
    ] = Action.ACCEPT
    permerror: Annotated[Action, Meta(description="Action when the address has no name.")] = Action.ACCEPT
    temperror: Annotated[Action, Meta(description="Action when the DNS did not answer.")] = Action.ACCEPT
    name_mismatch: Annotated[Action, Meta(description="Action when names_in_mail_from is not met.")] = Action.ACCEPT

    def __post_init__(self) -> None:
        if self.names_in_mail_from not in ("", "first", "any"):
            raise SettingError("names_in_mail_from", f"{self.names_in_mail_from!r} is not one of first, any, ''")


class SpfActions(Section, frozen=True):
    """Actions by SPF result (RFC 7208, 2.6)."""

    stage: Annotated[Stage, Meta(description=_STAGE)] = Stage.EOM
    dry_run: Annotated[bool, Meta(description=_DRY_RUN)] = False
    none: Annotated[Action, Meta(description="No record.")] = Action.ACCEPT
    neutral: Annotated[Action, Meta(description="The record says nothing about the client (RFC 7208, 8.2).")] = (
        Action.ACCEPT
    )
    fail: Annotated[
        Action,
        Meta(
            description="The record says that the client may not. Rejecting before the end of the message hides "
            "forwarded mail with a good DKIM signature from DMARC (RFC 9989, 7.1)."
        ),
    ] = Action.ACCEPT
    fail_all: Annotated[
        Action | None,
        Meta(description="The same, where it is the record's final -all that says so. Left out: as fail."),
    ] = None
    softfail: Annotated[Action, Meta(description="The record says that it probably may not.")] = Action.ACCEPT
    softfail_all: Annotated[
        Action | None,
        Meta(description="The same, where it is the record's final ~all that says so. Left out: as softfail."),
    ] = None
    temperror: Annotated[Action, Meta(description="The DNS did not answer.")] = Action.ACCEPT
    permerror: Annotated[Action, Meta(description="The record is broken.")] = Action.ACCEPT


class SpfSection(Section, frozen=True):
    """May the client send for the domains of HELO and MAIL FROM (RFC 7208)?"""

    strict_domains: Annotated[
        tuple[str, ...],
        Meta(description="Domains, and those below them, whose softfail and neutral count as fail."),
    ] = ()
    best_guess: Annotated[
        str,
        Meta(
            description='A record for domains that have none, such as "v=spf1 a/24 mx/24 ptr -all". Its result is '
            "marked as a guess and never counts for DMARC. Empty: no guess."
        ),
    ] = ""
    dns_terms: Annotated[
        int, Meta(ge=1, le=100, description="Terms of a record that may ask the DNS before it is a permerror (4.6.4).")
    ] = 10
    void_lookups: Annotated[
        int, Meta(ge=0, le=100, description="Lookups that may find nothing before it is a permerror (4.6.4).")
    ] = 2
    nested_includes: Annotated[
        int, Meta(ge=0, le=100, description="How deep records may include each other before it is a permerror.")
    ] = 10
    seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=250,
            description="How long one check may wait for the DNS before it is a temperror; RFC 7208, 4.6.4 asks for "
            "20 at least. 0: as long as dns.budget_seconds.",
        ),
    ] = 0.0
    helo: SpfActions = SpfActions()
    mailfrom: SpfActions = SpfActions()

    def __post_init__(self) -> None:
        if self.best_guess:
            faults = spf.parse(self.best_guess.encode()).faults
            if faults or not self.best_guess.lower().startswith("v=spf1"):
                fault = faults[0] if faults else "it does not begin with v=spf1"
                raise SettingError("best_guess", f"{self.best_guess!r} is not a valid SPF record: {fault}")


class DkimSection(Section, frozen=True):
    """Do the message's signatures verify (RFC 6376)? A message has the best result of all its signatures."""

    min_rsa_bits: Annotated[
        int,
        Meta(ge=512, le=4096, description="RSA keys below this do not count. RFC 8301, 3.2 asks for 1024 at least."),
    ] = 1024
    max_signatures: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="Signatures verified in one message, the author domain's first. Bounds what a stranger can "
            "make us compute.",
        ),
    ] = 10
    single_fields: Annotated[
        tuple[str, ...],
        Meta(
            description="Header fields that may stand once (RFC 5322, 3.6). Where one of them stands several times "
            "with different values, and h= names it less often, the result is policy: anybody on the way can put a "
            "second Subject on top of a signed message, and readers see that one (RFC 6376, 8.15). It breaks an ARC "
            "chain too. Empty: no such check."
        ),
    ] = dkim.SINGLE_FIELDS
    required_fields: Annotated[
        tuple[str, ...],
        Meta(
            description='Header fields that a signature must cover to be good, such as ["From", "Subject"]; else the '
            "outcome is unsigned_fields."
        ),
    ] = ()
    test_mode_counts: Annotated[
        bool,
        Meta(
            description="A signature that verifies counts, for DMARC too, although the key is in test mode (t=y). RFC "
            "6376, 3.6.1 has such mail treated as if it were not signed, but many forget the flag for years, and DMARC "
            "would fail their honest mail. false: such a signature is policy, which counts for nothing. One that "
            "does not verify is treated as no signature either way."
        ),
    ] = True
    dry_run: Annotated[bool, Meta(description=_DRY_RUN)] = False
    none: Annotated[Action, Meta(description="No signature. Most mail of small senders has none.")] = Action.ACCEPT
    fail: Annotated[
        Action,
        Meta(description="Verified wrong. RFC 6376, 6.3: treat it as if it were not there; lists break signatures."),
    ] = Action.ACCEPT
    policy: Annotated[
        Action, Meta(description="It verifies, but a local rule is not met, such as content behind l=.")
    ] = Action.ACCEPT
    neutral: Annotated[Action, Meta(description="It cannot be read.")] = Action.ACCEPT
    temperror: Annotated[Action, Meta(description="The key's DNS did not answer.")] = Action.ACCEPT
    permerror: Annotated[Action, Meta(description="It can never verify: no key, revoked, expired.")] = Action.ACCEPT
    unsigned_fields: Annotated[Action, Meta(description="required_fields is not met.")] = Action.ACCEPT
    unaligned: Annotated[
        Action, Meta(description="It verifies, but nothing that verifies is of the author's organizational domain.")
    ] = Action.ACCEPT

    def __post_init__(self) -> None:
        for key, names in (("single_fields", self.single_fields), ("required_fields", self.required_fields)):
            for name in names:
                if not _FIELD_NAME.fullmatch(name):
                    raise SettingError(key, f"{name!r} is not a header field name; write a name such as Subject")
        for key in ("none", "fail", "policy", "neutral", "permerror", "unsigned_fields", "unaligned"):
            # RFC 6376, 6.3: a failed verification MUST NOT lead to a 4xx reply. A retry would get the same result.
            if getattr(self, key) is Action.TEMPFAIL:
                raise SettingError(
                    key, "'tempfail' is allowed for temperror only; write reject, discard, quarantine, tag or accept"
                )


class ArcSection(Section, frozen=True):
    """What did earlier hops find out, and is their chain whole (RFC 8617)? ARC is on its way to historic."""

    enabled: Annotated[bool, Meta(description="Validate chains.")] = True
    max_sets: Annotated[
        int,
        Meta(
            ge=1,
            le=arc.MAX_SETS,
            description="ARC sets in one message; a chain with more fails. Each forwarder adds one, so real chains "
            "have one to three, rarely five. RFC 8617, 4.2.1 allows 50, by which one message could aim 100 DNS "
            "questions at somebody.",
        ),
    ] = 7
    trusted_sealers: Annotated[
        tuple[str, ...],
        Meta(
            description="Domains of sealers you trust. A passing chain that only they sealed, and whose first one "
            "recorded dmarc=pass for the author's domain, overrides a DMARC failure; header and log say so. They can "
            "vouch for anything, so list few."
        ),
    ] = ()
    write_none: Annotated[
        bool,
        Meta(
            description="Write arc=none where there is no chain, for programs behind that tell no chain from no check "
            "by it. By default it is left out: most mail has none, and the result says nothing about a message."
        ),
    ] = False
    dry_run: Annotated[bool, Meta(description=_DRY_RUN)] = False
    none: Annotated[Action, Meta(description="No chain.")] = Action.ACCEPT
    fail: Annotated[Action, Meta(description="A broken chain. RFC 8617, 5.2: as if there were none.")] = Action.ACCEPT


class SenderidSection(Section, frozen=True):
    """May the client send for the purported responsible address (RFC 4406 and RFC 4407)? Historic and off by default:
    read only for those who still publish spf2.0 records, and known to fail honest mailing lists and forwarders."""

    enabled: Annotated[bool, Meta(description="Check it.")] = False
    use_spf1: Annotated[
        bool,
        Meta(
            description="Where a domain has no spf2.0 record for the purported responsible address, its v=spf1 record "
            "stands in (RFC 4406, 3.4 and 4.4). By default it does not: who published it meant other identities, and "
            "the mailing lists and forwarders that its users write to would fail."
        ),
    ] = False
    dry_run: Annotated[bool, Meta(description=_DRY_RUN)] = False
    fail: Annotated[Action, Meta(description="The record says that the client may not.")] = Action.ACCEPT
    softfail: Annotated[Action, Meta(description="The record says that it probably may not.")] = Action.ACCEPT
    neutral: Annotated[Action, Meta(description="The record says nothing about the client.")] = Action.ACCEPT
    none: Annotated[Action, Meta(description="No record.")] = Action.ACCEPT
    temperror: Annotated[Action, Meta(description="The DNS did not answer.")] = Action.ACCEPT
    permerror: Annotated[Action, Meta(description="The record is broken.")] = Action.ACCEPT


class DmarcSection(Section, frozen=True):
    """Does the author's domain vouch for the message (RFC 9989)? For a message that fails, the action is chosen by
    what the domain asks for: none, quarantine or reject."""

    organizational_domain: Annotated[
        dmarc.DiscoveryMethod,
        Meta(
            description="How to find the organizational domain. treewalk: RFC 9989. psl: the public suffix list, to "
            "match receivers of the older RFC 7489; needs the package publicsuffixlist."
        ),
    ] = dmarc.DiscoveryMethod.TREEWALK
    legacy_pct: Annotated[
        dmarc.LegacyPct,
        Meta(
            description="What to make of pct=, which RFC 9989 dropped. ignore: nothing. zero-as-t: pct=0 is test "
            "mode. sample: as RFC 7489 had it, failing messages that are not drawn get the next gentler policy."
        ),
    ] = dmarc.LegacyPct.IGNORE
    stricter_domains: Annotated[
        tuple[str, ...],
        Meta(
            description="Author domains, and those below them, whose failures count as if they asked for reject, "
            "whatever they publish."
        ),
    ] = ()
    list_traffic: Annotated[
        Action,
        Meta(
            description="What becomes of a failure for which the domain asks reject, where the message came through "
            "a mailing list (List-Id) or an ARC sealer (RFC 9989, 7.4): reject: nothing else than otherwise. "
            "quarantine: treated as if quarantine were asked. accept: recorded only. Anybody can write a List-Id or "
            "seal: what is lowered here is lowered for forgers too."
        ),
    ] = Action.REJECT
    dry_run: Annotated[bool, Meta(description=_DRY_RUN)] = False
    none: Annotated[Action, Meta(description="It fails, and the domain asks for nothing (p=none).")] = Action.ACCEPT
    quarantine: Annotated[Action, Meta(description="It fails, and the domain asks for quarantine.")] = Action.ACCEPT
    reject: Annotated[
        Action,
        Meta(
            description="It fails, and the domain asks for rejection. Mailing lists break DMARC, so RFC 9989, 7.4 "
            "warns of rejecting for this alone; most large receivers do it."
        ),
    ] = Action.ACCEPT
    no_policy: Annotated[Action, Meta(description="The author's domain has no DMARC record.")] = Action.ACCEPT
    temperror: Annotated[
        Action | None,
        Meta(
            description="The DNS did not answer. Left out: tempfail where reject (above) keeps a message from its "
            "recipient, else as reject. Who lets these pass lets forgers pass: an attacker may know a name below a "
            "domain whose servers fail, or be able to keep them busy."
        ),
    ] = None
    permerror: Annotated[Action, Meta(description="The record is broken.")] = Action.ACCEPT
    malformed_from: Annotated[
        Action | None,
        Meta(
            description="There is no author domain to ask for: no From, none with a domain, or one that could name "
            "more domains than anybody honest does. Left out: as reject (above), for such mail never passes, and "
            "programs show it as anybody's."
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.list_traffic not in (Action.REJECT, Action.QUARANTINE, Action.ACCEPT):
            raise SettingError("list_traffic", f"{self.list_traffic.value!r} is not one of reject, quarantine, accept")

    @property
    def in_force(self) -> DmarcSection:
        """The same section with defaults for omitted actions, so that a refusal cannot be bypassed."""
        # A deferred message is sent again, and the DNS may answer by then. A quarantined one waits for a person.
        holds = self.reject in (Action.REJECT, Action.TEMPFAIL, Action.QUARANTINE, Action.DISCARD)
        return msgspec.structs.replace(
            self,
            temperror=self.temperror or (Action.TEMPFAIL if holds else self.reject),
            malformed_from=self.malformed_from or self.reject,
        )
