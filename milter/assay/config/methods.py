# SPDX-License-Identifier: GPL-3.0-or-later
"""The sections of the methods: how each is evaluated, and the action for each outcome. Defaults refuse nothing."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec.structs
from msgspec import Meta

from assay.config.section import Section, SettingError
from assay.model.name import Domain, InvalidNameError
from assay.policy import Action, Stage
from assay.protocol import arc, dkim, dmarc, spf

_STAGE = "The first SMTP stage at which it may refuse: connect, helo, mail, rcpt or eom (end of message)."
_FIELD_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322, 2.2
_DRY_RUN = "Only log what the actions below would have done."


class IprevSection(Section, frozen=True):
    """Does the client's address have a name that has that address (RFC 8601, 3)?"""

    enabled: Annotated[bool, Meta(description="Run this check.")] = True
    stage: Annotated[Stage, Meta(description=_STAGE)] = Stage.EOM
    dry_run: Annotated[bool, Meta(description=_DRY_RUN)] = False
    names_in_mail_from: Annotated[
        str,
        Meta(
            description='"first" or "any": of the client\'s names that have its address, the first or any one '
            "must be in the domain of MAIL FROM; otherwise the outcome is name_mismatch. Empty: no such check. "
            "Most honest mail fails it."
        ),
    ] = ""
    fail: Annotated[
        Action,
        Meta(description="Action if the names do not have the address. Many honest small servers fail this."),
    ] = Action.ACCEPT
    permerror: Annotated[Action, Meta(description="Action if the address has no name.")] = Action.ACCEPT
    temperror: Annotated[Action, Meta(description="Action if the DNS did not answer.")] = Action.ACCEPT
    name_mismatch: Annotated[Action, Meta(description="Action if names_in_mail_from is not met.")] = Action.ACCEPT

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
            description="The record says that the client is not authorized. Rejecting before the end of the "
            "message hides forwarded mail with a good DKIM signature from DMARC (RFC 9989, 7.1)."
        ),
    ] = Action.ACCEPT
    fail_all: Annotated[
        Action | None,
        Meta(description="The same, if the final -all of the record says so. If not set, as fail."),
    ] = None
    softfail: Annotated[Action, Meta(description="The record says that the client is probably not authorized.")] = (
        Action.ACCEPT
    )
    softfail_all: Annotated[
        Action | None,
        Meta(description="The same, if the final ~all of the record says so. If not set, as softfail."),
    ] = None
    temperror: Annotated[Action, Meta(description="The DNS did not answer.")] = Action.ACCEPT
    permerror: Annotated[Action, Meta(description="The record is broken.")] = Action.ACCEPT


class SpfSection(Section, frozen=True):
    """May the client send for the domains of HELO and MAIL FROM (RFC 7208)?"""

    strict_domains: Annotated[
        tuple[str, ...],
        Meta(description="Domains whose softfail and neutral count as fail, and all domains below them."),
    ] = ()
    best_guess: Annotated[
        str,
        Meta(
            description='A record for domains that have none, such as "v=spf1 a/24 mx/24 ptr -all". Its result '
            "is marked as a guess and never counts for DMARC. Empty: no guess."
        ),
    ] = ""
    dns_terms: Annotated[
        int, Meta(ge=1, le=100, description="Terms of a record that may query the DNS; more are a permerror (4.6.4).")
    ] = 10
    void_lookups: Annotated[
        int, Meta(ge=0, le=100, description="Lookups that may find nothing; more are a permerror (4.6.4).")
    ] = 2
    nested_includes: Annotated[
        int, Meta(ge=0, le=100, description="How deep includes may be nested; deeper is a permerror.")
    ] = 10
    seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=250,
            description="How long one check may wait for the DNS; longer is a temperror. RFC 7208, 4.6.4 "
            "recommends at least 20. 0: as long as dns.budget_seconds.",
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
        Meta(ge=512, le=4096, description="Shorter RSA keys do not count. RFC 8301, 3.2 requires at least 1024."),
    ] = 1024
    max_signatures: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="Signatures verified in one message, those of the author domain first. Bounds what a "
            "stranger can make us compute.",
        ),
    ] = 10
    single_fields: Annotated[
        tuple[str, ...],
        Meta(
            description="Header fields that may occur once (RFC 5322, 3.6). If one occurs several times with "
            "different values, and h= names it fewer times, the result is policy: anyone on the way can put a "
            "second Subject on top of a signed message, and readers see that one (RFC 6376, 8.15). It also "
            "breaks an ARC chain. Empty: no such check."
        ),
    ] = dkim.SINGLE_FIELDS
    required_fields: Annotated[
        tuple[str, ...],
        Meta(
            description='Header fields that a signature must cover, such as ["From", "Subject"]; otherwise the '
            "outcome is unsigned_fields."
        ),
    ] = ()
    test_mode_counts: Annotated[
        bool,
        Meta(
            description="A signature that verifies counts, also for DMARC, even if its key is in test mode "
            "(t=y). RFC 6376, 3.6.1 treats such mail as unsigned, but many domains forget the flag for years, "
            "and DMARC would fail their honest mail. false: the result of such a signature is policy, which "
            "counts for nothing. Either way, a signature that does not verify is treated as no signature."
        ),
    ] = True
    dry_run: Annotated[bool, Meta(description=_DRY_RUN)] = False
    none: Annotated[Action, Meta(description="No signature. Most mail of small senders has none.")] = Action.ACCEPT
    fail: Annotated[
        Action,
        Meta(
            description="The signature does not verify. RFC 6376, 6.3: treat it as if it were absent; mailing "
            "lists break signatures."
        ),
    ] = Action.ACCEPT
    policy: Annotated[Action, Meta(description="It verifies, but violates a local rule, such as content after l=.")] = (
        Action.ACCEPT
    )
    neutral: Annotated[Action, Meta(description="It cannot be parsed.")] = Action.ACCEPT
    temperror: Annotated[Action, Meta(description="The DNS did not answer for the key.")] = Action.ACCEPT
    permerror: Annotated[Action, Meta(description="It can never verify: no key, revoked, expired.")] = Action.ACCEPT
    unsigned_fields: Annotated[Action, Meta(description="required_fields is not met.")] = Action.ACCEPT
    unaligned: Annotated[
        Action, Meta(description="Signatures verify, but none of them is of the author's organizational domain.")
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


class ArcSealSection(Section, frozen=True):
    """One domain that seals mail that leaves again, with its key (RFC 8617, 5.1). Each is a separate [[arc.seal]]; the
    first one that covers all recipients of a message seals it. Sealing is useful only for mail that you forward:
    receivers who trust you can read what you found before you changed it."""

    domain: Annotated[str, Meta(min_length=1, description="The domain that seals, as d=.")]
    selector: Annotated[str, Meta(min_length=1, description="The selector of its key.")]
    key_file: Annotated[
        str,
        Meta(
            min_length=1,
            description="The private key in PEM. Only its owner and group may have access to it. The record is that of "
            "a DKIM key.",
        ),
    ]
    recipient_domains: Annotated[
        tuple[str, ...],
        Meta(
            description="If set: it seals only mail all of whose recipients are of these domains, each with all "
            "domains below it."
        ),
    ] = ()

    def __post_init__(self) -> None:
        for key in ("domain", "selector"):
            try:
                Domain.parse_host(getattr(self, key))
            except InvalidNameError as error:
                raise SettingError(key, f"{getattr(self, key)!r} is not a {key}: {error}") from error


class ArcSection(Section, frozen=True):
    """What did earlier hops find, and is their chain valid (RFC 8617)? ARC is becoming historic."""

    enabled: Annotated[bool, Meta(description="Validate chains.")] = True
    max_sets: Annotated[
        int,
        Meta(
            ge=1,
            le=arc.MAX_SETS,
            description="ARC sets in one message; a chain with more fails. Each forwarder adds one, so real "
            "chains have one to three, rarely five. RFC 8617, 4.2.1 allows 50, with which one message could "
            "direct 100 DNS questions at a victim.",
        ),
    ] = 7
    trusted_sealers: Annotated[
        tuple[str, ...],
        Meta(
            description="Domains of sealers that you trust. A passing chain that only they sealed, and whose "
            "first sealer recorded dmarc=pass for the author domain, overrides a DMARC failure; header and log "
            "say so. They can vouch for anything, so list few."
        ),
    ] = ()
    write_none: Annotated[
        bool,
        Meta(
            description="Write arc=none if there is no chain, for downstream programs that need to distinguish "
            "no chain from no check. By default it is left out: most mail has no chain, and the result says "
            "nothing about a message."
        ),
    ] = False
    own_domains: Annotated[
        tuple[str, ...],
        Meta(
            description="The domains that this site receives mail for, each with all domains below it: mail to them "
            "does not leave, and is not sealed."
        ),
    ] = ()
    dry_run: Annotated[bool, Meta(description=_DRY_RUN)] = False
    none: Annotated[Action, Meta(description="No chain.")] = Action.ACCEPT
    fail: Annotated[Action, Meta(description="A broken chain. RFC 8617, 5.2: treat it as no chain.")] = Action.ACCEPT
    seal: tuple[ArcSealSection, ...] = ()

    def __post_init__(self) -> None:
        if self.seal and not self.enabled:
            raise SettingError("enabled", "false, but arc.seal records what validation found; write true")
        if self.seal and not self.own_domains:
            raise SettingError("own_domains", "missing; name the domains that this site receives mail for")


class SenderidSection(Section, frozen=True):
    """May the client send for the purported responsible address (RFC 4406 and RFC 4407)? Historic and off by default:
    it is useful only for domains that still publish spf2.0 records, and it fails honest mailing lists and
    forwarders."""

    enabled: Annotated[bool, Meta(description="Run this check.")] = False
    use_spf1: Annotated[
        bool,
        Meta(
            description="If a domain has no spf2.0 record for the purported responsible address, use its "
            "v=spf1 record (RFC 4406, 3.4 and 4.4). Off by default: the record was published for other "
            "identities, and the mailing lists and forwarders that its users write to would fail."
        ),
    ] = False
    dry_run: Annotated[bool, Meta(description=_DRY_RUN)] = False
    fail: Annotated[Action, Meta(description="The record says that the client is not authorized.")] = Action.ACCEPT
    softfail: Annotated[Action, Meta(description="The record says that the client is probably not authorized.")] = (
        Action.ACCEPT
    )
    neutral: Annotated[Action, Meta(description="The record says nothing about the client.")] = Action.ACCEPT
    none: Annotated[Action, Meta(description="No record.")] = Action.ACCEPT
    temperror: Annotated[Action, Meta(description="The DNS did not answer.")] = Action.ACCEPT
    permerror: Annotated[Action, Meta(description="The record is broken.")] = Action.ACCEPT


class DmarcSection(Section, frozen=True):
    """Does the author domain vouch for the message (RFC 9989)? For a message that fails, the policy of the domain
    selects the action: none, quarantine or reject."""

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
            description="How to treat pct=, which RFC 9989 removed. ignore: not at all. zero-as-t: pct=0 is "
            "test mode. sample: as in RFC 7489, failing messages outside the sample get the next weaker policy."
        ),
    ] = dmarc.LegacyPct.IGNORE
    stricter_domains: Annotated[
        tuple[str, ...],
        Meta(
            description="Author domains whose failures count as if they published p=reject, regardless of "
            "what they publish, and all domains below them."
        ),
    ] = ()
    list_traffic: Annotated[
        Action,
        Meta(
            description="How to treat a failure with p=reject if the message came through a mailing list "
            "(List-Id) or an ARC sealer (RFC 9989, 7.4). reject: as any other. quarantine: as a failure with "
            "p=quarantine. accept: only record it. Anyone can write a List-Id or a seal: what is relaxed here "
            "is relaxed for forgers too."
        ),
    ] = Action.REJECT
    dry_run: Annotated[bool, Meta(description=_DRY_RUN)] = False
    none: Annotated[Action, Meta(description="The message fails, and the domain requests nothing (p=none).")] = (
        Action.ACCEPT
    )
    quarantine: Annotated[Action, Meta(description="The message fails, and the domain requests quarantine.")] = (
        Action.ACCEPT
    )
    reject: Annotated[
        Action,
        Meta(
            description="The message fails, and the domain requests rejection. Mailing lists break DMARC, so "
            "RFC 9989, 7.4 warns against rejecting for this alone; most large receivers do."
        ),
    ] = Action.ACCEPT
    no_policy: Annotated[Action, Meta(description="The author domain has no DMARC record.")] = Action.ACCEPT
    temperror: Annotated[
        Action | None,
        Meta(
            description="The DNS did not answer. If not set: tempfail if the strictest of the other actions keeps "
            "a message from its recipient, otherwise that action. Letting these pass lets forgers pass: an attacker "
            "may know a name below a domain whose servers fail, or be able to overload them."
        ),
    ] = None
    permerror: Annotated[Action, Meta(description="The record is broken.")] = Action.ACCEPT
    malformed_from: Annotated[
        Action | None,
        Meta(
            description="There is no author domain: no From, none with a domain, or one that could name more "
            "domains than honest mail does. If not set, the strictest of none, quarantine, reject, no_policy and "
            "permerror: such mail never passes, and mail programs may display any author for it."
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.list_traffic not in (Action.REJECT, Action.QUARANTINE, Action.ACCEPT):
            raise SettingError("list_traffic", f"{self.list_traffic.value!r} is not one of reject, quarantine, accept")

    @property
    def strictest(self) -> tuple[str, Action]:
        """The strictest action for mail that does not pass, and its key: what an omitted action follows."""
        actions = {key: getattr(self, key) for key in ("reject", "quarantine", "none", "no_policy", "permerror")}
        key = max(actions, key=lambda key: actions[key].rank)
        return key, actions[key]

    @property
    def in_force(self) -> DmarcSection:
        """The same section with defaults for omitted actions, so that a refusal cannot be bypassed."""
        _, strictest = self.strictest
        # A deferred message is sent again, and the DNS may answer by then. A quarantined one waits for a person.
        holds = strictest.rank >= Action.QUARANTINE.rank
        return msgspec.structs.replace(
            self,
            temperror=self.temperror or (Action.TEMPFAIL if holds else strictest),
            malformed_from=self.malformed_from or strictest,
        )
