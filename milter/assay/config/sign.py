# SPDX-License-Identifier: GPL-3.0-or-later
"""The section for signing our own mail."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta

from assay.config.section import Section, SettingError
from assay.keys import OnSignError, Unpublished
from assay.keys.table import signer_of
from assay.model.name import Domain, InvalidNameError, Mailbox
from assay.model.wording import counted
from assay.protocol import dkim

_FIELD_NAME = re.compile(r"[!-9<-~]+")  # RFC 5322, 2.2, without the semicolon, which ends a tag (RFC 6376, 3.5)
#: Fields that change on the way or that the MTA removes; RFC 6376, 5.4 and 3.5 (h=).
_CHANGING = frozenset(("return-path", "received", "bcc", "resent-bcc", "dkim-signature"))
_WORDS = tuple(dkim.Canonicalization)


def parse_canonicalization(text: str) -> tuple[dkim.Canonicalization, dkim.Canonicalization]:
    """Those of header and body.

    :raises ValueError: not two words of `dkim.Canonicalization`; the message quotes it.
    """
    header, slash, body = text.partition("/")
    if not slash or header not in _WORDS or body not in _WORDS:
        raise ValueError(f"{text!r} is not a canonicalization; write relaxed/relaxed, relaxed/simple or simple/simple")
    return dkim.Canonicalization(header), dkim.Canonicalization(body)


def _check_canonicalization(text: str | None) -> None:
    if text is not None:
        try:
            parse_canonicalization(text)
        except ValueError as error:
            raise SettingError("canonicalization", str(error)) from error


class SignDomainSection(Section, frozen=True):
    """One domain that signs, with its keys. Each domain is a separate [[sign.domain]]."""

    domain: Annotated[
        str, Meta(min_length=1, description="The domain: mail with it in From is signed, with it as d= (DKIM).")
    ]
    key_directory: Annotated[
        str,
        Meta(
            description='The directory of keys that "assay keys" keeps for the domain: its active keys sign. With '
            "selectors: any directory that has the keys, each as SELECTOR.pem, or as SELECTOR.private, as "
            "opendkim-genkey writes it."
        ),
    ] = ""
    selectors: Annotated[
        tuple[str, ...],
        Meta(
            description="The selectors of the keys. All of them sign each message, for instance one with RSA and one "
            "with Ed25519."
        ),
    ] = ()
    key_files: Annotated[
        tuple[str, ...],
        Meta(
            description="In place of key_directory: the private keys in PEM, one for each selector, in the same order. "
            "Only their owner and group may have access to them."
        ),
    ] = ()
    subdomains: Annotated[
        bool,
        Meta(
            description="Also sign for all domains below, as this domain, which aligns with them in relaxed mode "
            "(RFC 9989, 4.4). A section for one of them takes precedence."
        ),
    ] = False
    canonicalization: Annotated[
        str | None,
        Meta(description='How to canonicalize header and body, such as "relaxed/simple". If not set: as in [sign].'),
    ] = None
    identity: Annotated[
        str,
        Meta(
            description='The i= of signatures: "author" for the author\'s address, or a text such as "@%" or '
            '"@lists.example.org", in which % is the domain in From. Empty: none, because no receiver needs it. It is '
            "left out if it is not at or below the signing domain."
        ),
    ] = ""

    def __post_init__(self) -> None:
        for key, names in (("domain", (self.domain,)), ("selectors", self.selectors)):
            for name in names:
                try:
                    Domain.parse_host(name)
                except InvalidNameError as error:
                    raise SettingError(key, f"{name!r} is not a {key.removesuffix('s')}: {error}") from error
        _check_canonicalization(self.canonicalization)
        selectors = [Domain.parse_host(selector) for selector in self.selectors]
        for selector, text in zip(selectors, self.selectors, strict=True):
            if selectors.count(selector) > 1:  # RFC 6376, 3.6.2.2: a name has one key
                raise SettingError("selectors", f"{text!r} is there twice; a selector names one key")
        domain = Domain.parse_host(self.domain)
        if self.identity and not signer_of(self.identity, Mailbox("someone", domain), domain):
            raise SettingError(
                "identity",
                f"{self.identity!r} is never at or below {self.domain}, as RFC 6376, 3.5 requires; "
                'write "author", or an identity such as "@%"',
            )
        if bool(self.key_directory) is bool(self.key_files):
            raise SettingError(
                "key_directory", "write it, or selectors and key_files: one of the two, so that it is clear what signs"
            )
        if not self.key_directory and len(self.key_files) != len(self.selectors):
            raise SettingError(
                "key_files",
                f"{counted(len(self.key_files), 'file')} for {counted(len(self.selectors), 'selector')}; "
                "write one for each",
            )


class SignSection(Section, frozen=True):
    """DKIM signatures for your mail: mail from internal networks, from authenticated users and through the services of
    clients.daemon_names. Mail from outside is not signed, regardless of its From field. Nothing is signed until a
    domain or a table is configured. See docs/signing.md."""

    domain: tuple[SignDomainSection, ...] = ()
    signing_table: Annotated[
        str,
        Meta(
            description='OpenDKIM\'s SigningTable, from addresses to names of keys: "refile:PATH" with patterns such '
            'as *@example.org, "file:PATH", or "csl:KEY=VALUE,...". It is used if no [[sign.domain]] matches.'
        ),
    ] = ""
    key_table: Annotated[
        str, Meta(description="OpenDKIM's KeyTable, from names of keys to DOMAIN:SELECTOR:PATH, likewise.")
    ] = ""
    multiple_signatures: Annotated[
        bool,
        Meta(description="Sign for all matching rows of the SigningTable, not only for the first."),
    ] = False
    senders: Annotated[
        str,
        Meta(
            description="A file that says who may sign as whom: on each line a login, @ and a domain of logins, * for "
            "every login, a network, or local, and then domains (*.example.org for those below, % for the login's own, "
            "* for any). Mail of others is not signed. Empty: anyone whose mail is yours may sign as each domain, "
            "so a user can send signed mail as another user."
        ),
    ] = ""
    sender_field: Annotated[
        bool,
        Meta(
            description="If the domain in From has no key, sign as the domain in the Sender field. DMARC does not "
            "count such a signature."
        ),
    ] = False
    mail_from: Annotated[
        bool,
        Meta(
            description="In addition, sign as the domain in MAIL FROM, for instance for feedback loops by domain. "
            "DMARC does not count such a signature unless that is also the domain in From."
        ),
    ] = False
    canonicalization: Annotated[
        str,
        Meta(
            description="How to canonicalize header and body before signing, as HEADER/BODY: relaxed or simple. "
            "relaxed survives MTAs that fold header fields again or change white space (RFC 6376, 3.4)."
        ),
    ] = "relaxed/relaxed"
    fields: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            description="The header fields to sign if present. The defaults are those of RFC 6376, 5.4.1 and more.",
        ),
    ] = dkim.SIGNED_FIELDS
    oversigned_fields: Annotated[
        tuple[str, ...],
        Meta(
            description="The header fields to sign once more than they occur, so that none can be added without "
            "breaking the signature. A list server that adds Reply-To breaks it too; it breaks most signatures anyway."
        ),
    ] = dkim.OVERSIGNED_FIELDS
    expire_days: Annotated[
        int,
        Meta(
            ge=0,
            le=3650,
            description="How many days signatures are valid (x=). 0: without limit, since mail may be verified again "
            "when it is read, and replayed mail is seldom that old.",
        ),
    ] = 0
    on_error: Annotated[
        OnSignError,
        Meta(
            description="What to do with a message that should be signed and cannot be. Domains whose policy is "
            "p=reject lose mail that is sent without a signature, so the default defers it."
        ),
    ] = OnSignError.TEMPFAIL
    unpublished: Annotated[
        Unpublished,
        Meta(
            description="What to do when the DNS does not publish a key that signs. It is looked up in the background: "
            "no message waits for it, and a DNS that does not answer changes nothing. With 'fall back', the other keys "
            "of the domain sign, those that are retiring included, if one of them is published; with 'tempfail', mail "
            "for which no published key is left is deferred. The default only warns in the log, because your "
            "resolver may not see what other resolvers see."
        ),
    ] = Unpublished.SIGN

    def __post_init__(self) -> None:
        _check_canonicalization(self.canonicalization)
        for key in ("fields", "oversigned_fields"):
            for name in getattr(self, key):
                if not _FIELD_NAME.fullmatch(name):
                    raise SettingError(key, f"{name!r} is not a header field name; write a name such as Subject")
                if name.lower() in _CHANGING:
                    raise SettingError(key, f"{name!r} changes or is removed in transit (RFC 6376, 5.4); remove it")
        if "from" not in map(str.lower, self.fields):
            raise SettingError("fields", "RFC 6376, 5.4 requires From; add it")
        if bool(self.signing_table) != bool(self.key_table):
            missing = "key_table" if self.signing_table else "signing_table"
            raise SettingError(missing, "missing; the two tables are used together")
        if self.multiple_signatures and not self.signing_table:
            raise SettingError("multiple_signatures", "is never used; set signing_table")
