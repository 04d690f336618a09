# SPDX-License-Identifier: GPL-3.0-or-later
"""The section about the store: every result kept, so that it can be found again."""

from __future__ import annotations

import os
import re
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from msgspec import Meta

from assay.config.section import Section, SettingError

_BROKERS = ("amqp", "amqps")
#: A name of an exchange or a queue; AMQP 0-9-1 has them within 255 octets, our library with these characters.
_AMQP_NAME = re.compile(r"[a-zA-Z0-9\-_.:@#,/+ ]{1,255}")
_PASSWORDS = {"password", "sslpassword"}  # parameters of libpq


class StoreSection(Section, frozen=True):
    """Every result kept in a database. A process of its own writes it; mail never waits for it."""

    directory: Annotated[
        str,
        Meta(
            description="Where results are kept, such as /var/lib/assay: the database, unless it is elsewhere, and the "
            "spool of what is not written yet. Empty: nothing is kept. Several daemons need a directory each."
        ),
    ] = ""
    database: Annotated[
        str,
        Meta(
            description='"sqlite": a file in the directory. Or a PostgreSQL that several hosts share: '
            "postgresql://assay@db.example.org/assay. Create it with: assay store migrate. Empty: no database, if all "
            "rows go to a broker."
        ),
    ] = "sqlite"
    password_file: Annotated[
        str,
        Meta(
            description="A file with the password of the database. Without it, libpq's own ways hold: peer "
            "authentication, PGPASSFILE, certificates."
        ),
    ] = ""
    broker: Annotated[
        str,
        Meta(
            description="An AMQP 0-9-1 broker such as RabbitMQ, to which each message's results are also published as "
            "JSON: amqps://assay@mq.example.org/vhost. Empty: none."
        ),
    ] = ""
    broker_password_file: Annotated[str, Meta(description="A file with the password of the broker.")] = ""
    exchange: Annotated[str, Meta(description="The exchange of the broker. It is created if it does not exist.")] = (
        "assay"
    )
    addresses: Annotated[
        bool,
        Meta(
            description="Keep whole addresses of senders, authors and recipients, and login names. If false, only "
            "their domains are kept."
        ),
    ] = False
    subjects: Annotated[bool, Meta(description="Keep the Subject of messages.")] = False
    dns_answers: Annotated[
        bool,
        Meta(
            description="Keep what the DNS answered while a message was judged, so that the page shows it with the "
            "message: some 2,000 octets each."
        ),
    ] = False
    sample: Annotated[
        float,
        Meta(
            ge=0.0,
            le=1.0,
            description="The share of messages that are kept one by one, for search. Counts and reports are always of "
            "all messages.",
        ),
    ] = 1.0
    messages_days: Annotated[int, Meta(ge=1, le=3650, description="How many days single messages are kept.")] = 30
    counts_days: Annotated[int, Meta(ge=2, le=3650, description="How many days the counts of each day are kept.")] = 400
    received_days: Annotated[
        int, Meta(ge=1, le=3650, description="How many days reports are kept that others sent about your domains.")
    ] = 400
    spool_octets: Annotated[
        int,
        Meta(
            ge=1_048_576,
            description="The most that the spool may take, while the database or the broker is away. Beyond it, the "
            "newest results are dropped, counted and logged. A message takes about 600 octets.",
        ),
    ] = 1_073_741_824

    @property
    def location(self) -> str:
        """The path of the SQLite file, or the URL of the database; empty without one."""
        if not self.directory or self.database != "sqlite":
            return self.database if self.directory else ""
        return f"{self.directory}/store.sqlite"

    def __post_init__(self) -> None:
        if self.directory and not os.path.isabs(self.directory):
            raise SettingError(
                "directory", f"{self.directory!r} is not an absolute path; write one such as /var/lib/assay"
            )
        if self.database not in ("", "sqlite"):
            _check_url("database", self.database, ("postgresql",), "postgresql://assay@db.example.org/assay")
        if self.broker:
            _check_url("broker", self.broker, _BROKERS, "amqps://assay@mq.example.org/")
        if not is_amqp_name(self.exchange):
            raise SettingError("exchange", f"{self.exchange!r} is not a name of an exchange; write one such as assay")
        if self.directory and not self.database and not self.broker:
            raise SettingError("database", 'empty, and there is no broker; write "sqlite" or the URL of a database')
        for key, owner in (("password_file", "database"), ("broker_password_file", "broker")):
            if getattr(self, key) and "://" not in getattr(self, owner):
                raise SettingError(key, f"{owner} is not a URL, so nothing asks for a password; remove this key")


def is_amqp_name(text: str) -> bool:
    """Whether an exchange or a queue can have this name. An empty one is the broker's own."""
    return _AMQP_NAME.fullmatch(text) is not None


def _check_url(key: str, text: str, schemes: tuple[str, ...], example: str) -> None:
    """:raises SettingError: not a URL of one of the schemes, or one with a password, which others could read here."""
    try:
        parts = urlsplit(text)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        raise SettingError(key, f"not a valid URL; write one such as {example}") from None
    if parts.password is not None or _PASSWORDS & {name.lower() for name, _ in parse_qsl(parts.query)}:
        file = "password_file" if key == "database" else f"{key}_password_file"
        raise SettingError(key, f"it contains a password, which everyone who reads this file sees; use {file}")
    if parts.scheme not in schemes or not port_is_valid or re.search(r"[\x00-\x20]", text):
        raise SettingError(key, f"{text!r} is not a URL that can be used; write one such as {example}")
