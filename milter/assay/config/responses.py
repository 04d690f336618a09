# SPDX-License-Identifier: GPL-3.0-or-later
"""The sections for what is written into messages, for SMTP replies, and for the operator's own rules."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from assay import policy
from assay.config.section import Section, SettingError
from assay.policy import Action, Stage

_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322, 2.2
_PLAIN = re.compile(r"[ -~]*")  # printable ASCII on one line: every program on the way reads it alike
_RECIPIENT = re.compile(r"[!-;=?-~]+@[!-;=?-~]+")  # no white space, no angle brackets: these are added around it
_FIELD = re.compile(r"([!-9;-~]+):[ \t]*([ -~]*)")  # RFC 5322, 2.2: a field name and printable ASCII on one line


def split_field(text: str) -> tuple[str, str]:
    """Split ``Name: value``.

    :raises ValueError: not a header field; the message quotes it.
    """
    match = _FIELD.fullmatch(text)
    if match is None:
        raise ValueError(f'{text!r} is not a header field; write "Name: value" in printable ASCII')
    return match[1], match[2]


def _check_plain(key: str, text: str) -> None:
    if not _PLAIN.fullmatch(text):
        raise SettingError(key, f"{text!r} is not plain text; write printable ASCII on one line")


def _check_field(key: str, text: str) -> None:
    try:
        split_field(text)
    except ValueError as error:
        raise SettingError(key, str(error)) from error


class HeadersSection(Section, frozen=True):
    """What is written into messages besides Authentication-Results."""

    received_spf: Annotated[
        bool, Meta(description="Write Received-SPF for each SPF identity that was checked (RFC 7208, 9.1).")
    ] = True
    received_spf_local_part: Annotated[
        bool,
        Meta(
            description="Write the whole reverse-path into Received-SPF. false: its domain only, unless the record "
            "looked at the local part, as in Authentication-Results (RFC 7208, 9.2)."
        ),
    ] = True
    hide_none: Annotated[
        bool,
        Meta(
            description="Leave results that are none out of Authentication-Results. By default they are written, so "
            "that a reader can see that the check was made. Takes precedence over arc.write_none."
        ),
    ] = False
    single_spf: Annotated[
        bool,
        Meta(
            description="Write only one result of SPF, for programs that two confuse: that of MAIL FROM, or that of "
            "HELO if there is no other. By default both are written (RFC 8601, 2.7.2)."
        ),
    ] = False
    authenticated: Annotated[
        bool,
        Meta(
            description="Write auth=pass smtp.auth=LOGIN into an Authentication-Results field of mail from users who "
            "have logged in (RFC 8601, 2.7.4). By default nothing is written, because every recipient can read the "
            "login name."
        ),
    ] = False
    tag_field: Annotated[
        str, Meta(description='The field that the action tag adds, as "Name: value". Empty: none.')
    ] = "X-Assay-Tag: suspicious"
    tag_subject: Annotated[
        str,
        Meta(
            description='The text that the action tag inserts before the Subject, such as "[suspicious] ". Empty: none.'
        ),
    ] = ""

    def __post_init__(self) -> None:
        if self.tag_field:
            _check_field("tag_field", self.tag_field)
        _check_plain("tag_subject", self.tag_subject)


class RepliesSection(Section, frozen=True):
    """The texts of SMTP replies. The codes are those of RFC 7372. Fields in braces are replaced: {address}, {helo},
    {sender}, {sender_domain}, {author_domain}, {reason}."""

    generic: Annotated[
        bool,
        Meta(
            description="Do not give senders the reason: use one code, 5.7.1, and one text for all refusals "
            "(RFC 7372, 5)."
        ),
    ] = False
    explain: Annotated[
        bool,
        Meta(
            description="Add the domain's own explanation of an SPF or Sender ID failure (exp=), marked as such. "
            "false, or if replies.generic is on: do not look it up; it is then empty in rules and the facts log too."
        ),
    ] = True
    texts: Annotated[
        dict[str, str],
        Meta(
            description="Texts by method, or by method and outcome. Example: "
            '{ "dmarc" = "DMARC of {author_domain}: {reason}", "spf.mailfrom.fail" = "not for {sender_domain}" }'
        ),
    ] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, text in self.texts.items():
            try:
                policy.check_reply(key, text)
            except ValueError as error:
                raise SettingError(f'texts."{key}"', str(error)) from error


class RuleSection(Section, frozen=True):
    """One rule. Rules are tried in order, before the actions of the methods; the first that matches decides. Each rule
    is a separate [[rule]]."""

    name: Annotated[str, Meta(min_length=1, description="The name in the log and in headers.")]
    when: Annotated[str, Meta(min_length=1, description="A CEL expression over the facts; see docs/policy.md.")]
    stage: Annotated[Stage, Meta(description="The SMTP stage: connect, helo, mail, rcpt or eom.")] = Stage.EOM
    action: Annotated[
        Action | None,
        Meta(description="What to do. accept ends judging. If not set: make the changes below and continue."),
    ] = None
    sign: Annotated[
        bool | str | None,
        Meta(
            description="Whether to sign mail of yours, or the domain to sign as, one of [sign]. Such a rule does "
            "nothing else, and the first that matches decides. It applies to mail from outside only if it names "
            "direction. If not set: the rule is not about signing."
        ),
    ] = None
    forward: Annotated[
        bool | None,
        Meta(
            description="Whether to treat the message as forwarded: to rewrite its sender ([srs]) and to seal it "
            "([[arc.seal]]) regardless of its recipients, or to do neither. Such a rule does nothing else, and the "
            "first that matches decides. If not set: the rule is not about forwarding."
        ),
    ] = None
    reason: Annotated[str, Meta(description="The reason, for the log, the reply and Authentication-Results.")] = ""
    reply: Annotated[str, Meta(description='The SMTP reply, such as "550 5.7.1 No mail from {helo}".')] = ""
    add_fields: Annotated[tuple[str, ...], Meta(description='Header fields to add, as "Name: value".')] = ()
    remove_fields: Annotated[tuple[str, ...], Meta(description="Names of header fields to remove.")] = ()
    tag_subject: Annotated[str, Meta(description="The text to insert before the Subject.")] = ""
    add_recipients: Annotated[tuple[str, ...], Meta(description="Additional recipients of the message.")] = ()
    dry_run: Annotated[bool, Meta(description="Only log that it would have matched.")] = False

    def __post_init__(self) -> None:
        for key in ("name", "reason", "reply", "tag_subject"):
            _check_plain(key, getattr(self, key))
        for text in self.add_fields:
            _check_field("add_fields", text)
        for name in self.remove_fields:
            if not _NAME.fullmatch(name):
                raise SettingError(
                    "remove_fields", f"{name!r} is not a header field name; write a name such as Subject"
                )
        for path in self.add_recipients:
            if not _RECIPIENT.fullmatch(path):
                raise SettingError(
                    "add_recipients", f"{path!r} is not an address; write one such as postmaster@example.org"
                )
