# SPDX-License-Identifier: GPL-3.0-or-later
"""The section about the page: what the store has, in a browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from assay import secrets
from assay.config.section import Section, SettingError, parse_domain
from assay.config.sockets import check_endpoint
from assay.model.network import Networks

#: In `trusted_proxies`: any client that connects to a unix socket.
LOCAL = "local"
MIN_TOKEN = 20  # characters, our choice: 80 bits if they are drawn as hexadecimal digits
_FIELD_NAME = re.compile(r"[A-Za-z0-9-]+")  # of HTTP, as proxies write them


class WebSection(Section, frozen=True):
    """A page that shows what the store has: results, senders, single messages, reports, the records of your domains. It
    is served by a process of its own and changes nothing but who gets no reports. It needs [store]. See docs/web.md."""

    listen: Annotated[
        str,
        Meta(
            description="Where the page is served over HTTP: inet:PORT@HOST, inet6:PORT@HOST or unix:PATH, such as "
            "inet:8891@127.0.0.1. Empty: nowhere. It has no TLS of its own: on other than a loopback address, put a "
            "reverse proxy in front."
        ),
    ] = ""
    token_file: Annotated[
        str,
        Meta(
            description="A file with the token that opens the page: at least 20 characters. Make one with: openssl "
            "rand -hex 32. Only its owner and group may have access to it. Empty: there is no login by a token."
        ),
    ] = ""
    user_header: Annotated[
        str,
        Meta(
            description="The header field in which a reverse proxy that has authenticated the user writes the name, "
            "such as X-Remote-User. It counts only from trusted_proxies. Empty: none."
        ),
    ] = ""
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(
            description='The reverse proxies, as addresses or networks; "local" is any client of a unix socket. '
            "Each must remove user_header from what its clients send."
        ),
    ] = ()
    domains: Annotated[
        tuple[str, ...],
        Meta(
            description="Your domains: mail with them in From that fails DMARC is shown, and their DNS records are "
            "checked. Empty: those of [[sign.domain]] and of srs.own_domains."
        ),
    ] = ()

    def __post_init__(self) -> None:
        if self.listen:
            check_endpoint("listen", self.listen, "daemon/page.sock")
            if not self.token_file and not self.user_header:
                raise SettingError("listen", "no user could log in; set token_file, or user_header and trusted_proxies")
        if self.user_header and not _FIELD_NAME.fullmatch(self.user_header):
            raise SettingError(
                "user_header",
                f"{self.user_header!r} is not the name of a header field; write one such as X-Remote-User",
            )
        if self.user_header and not self.trusted_proxies:
            raise SettingError("user_header", "no client is believed; name the reverse proxy in trusted_proxies")
        try:
            Networks.parse(text for text in self.trusted_proxies if text != LOCAL)
        except ValueError as error:
            raise SettingError("trusted_proxies", str(error)) from error
        for name in self.domains:
            parse_domain("domains", name)


def read_token(section: WebSection) -> str:
    """The token; empty if there is no login by one.

    :raises SettingError: its file cannot be used.
    """
    if not section.token_file:
        return ""
    try:
        token = secrets.read(Path(section.token_file)).decode("ascii").strip()
    except secrets.SecretError as error:
        raise SettingError("web.token_file", str(error)) from error
    except UnicodeDecodeError as error:
        raise SettingError("web.token_file", f"{section.token_file}: not ASCII text (octet {error.start})") from error
    if len(token) < MIN_TOKEN or not token.isprintable() or " " in token:
        raise SettingError(
            "web.token_file",
            f"{section.token_file}: write one line of at least {MIN_TOKEN} characters without spaces; "
            "openssl rand -hex 32 makes one",
        )
    return token
