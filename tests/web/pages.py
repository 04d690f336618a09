# SPDX-License-Identifier: GPL-3.0-or-later
"""A page on a store that the tests have filled, and what strangers wrote into it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from asking import TOKEN
from assay.config import Configuration
from assay.config.site import DnsSection, IdentitySection
from assay.config.store import StoreSection
from assay.config.web import WebSection
from assay.daemon.status import History
from assay.log import Log
from assay.metrics import Pages
from assay.store.database import Database, connect
from assay.store.folding import Folding
from assay.store.rows import AnswerRow, FindingRow, MessageRow
from assay.web.access import Access, Proxies
from assay.web.app import make_app
from assay.web.headers import SafeHeaders
from assay.web.site import open_site
from postgresql import PASSWORD, Postgresql
from store_generator import OURS, fill, generated
from web.judged import judged
from web.reports import SECTION, fill_reports

COUNT = 100_000  # messages of the store that most tests look at
#: What a stranger writes where he can.
ATTACKS = (
    "<script>document.title='owned'</script>",
    "\"'><img src=x onerror=\"document.title='owned'\">",
    "{{7*7}}{% raw %}",
    "\u202eevil\u2066",
    "a" * 255,
    "\x1b[31m\x00\x7f",
    "javascript:document.title='owned'",
    '=HYPERLINK("http://evil.example")',
    "</td></table></main>",
)
ZONE = """
example.org. MX 10 mx1.example.org.
example.org. TXT "v=spf1 mx include:_spf.provider.example ~all"
_spf.provider.example. TXT "v=spf1 ip4:198.51.100.0/24 -all"
mx1.example.org. A 192.0.2.25
25.2.0.192.in-addr.arpa. PTR mx1.example.org.
_dmarc.example.org. TXT "v=DMARC1; p=reject; rua=mailto:d@example.org,mailto:x@reports.example"
shop.example.com. TXT "<script>document.title='owned'</script>"
shop.example.com. TXT "v=spf1 include:<script>alert(1)</script> -all"
"""


def attacks(end: int) -> Iterator[MessageRow]:
    """A row for each, in every field that a stranger has influence on."""
    base = tuple(generated(40, days=1, end=end, seed=7))
    failed = next(row for row in base if row.by == "dmarc.reject")
    for number, text in enumerate(ATTACKS):
        identity = (end + 1 + number).to_bytes(6, "big") + b"attack" + number.to_bytes(4, "big")
        findings = tuple(
            FindingRow(found.method, found.key, found.result, text, text if found.method == "dkim" else "", False, text)
            for found in failed.findings
        )
        yield replace(
            failed, id=identity, time=end + 1 + number, queue=f"{text}"[:200], client_name=text, helo=text,
            sender_domain=text, author_domain=text, message_id=text, reason=text, reply=text, override=text,
            by=f"rule {text}"[:200], watched=(("reject", text),), findings=findings, sender=text, author=text,
            login=text, answers=(
                AnswerRow(text, "TXT", "found", (text, text), True, True, 300, text, 5),
                AnswerRow(text, "A", "tempfail", reason=text),
            ), further_answers=3,
            recipients=(text,), recipient_domains=(text,), subject=text, rewritten=text,
        )  # fmt: skip


def filled(folder: Path, count: int, server: Postgresql | None = None) -> StoreSection:
    """A store with so many generated messages, the last of them now, and those of strangers."""
    section = section_of(folder, server)
    with opened(section) as database:
        _fill(database, count)
    return section


def section_of(folder: Path, server: Postgresql | None = None) -> StoreSection:
    """The section of a new store: in SQLite, or in a database of a server."""
    section = StoreSection(directory=str(folder), addresses=True, subjects=True)
    if server is None:
        return section
    password = folder / "password"
    password.touch(0o600)
    password.write_text(f"{PASSWORD}\n")
    return replace(section, database=server.create(), password_file=str(password))


@contextlib.contextmanager
def opened(section: StoreSection) -> Iterator[Database]:
    """Its database, with tables."""
    with contextlib.closing(connect(section.location, PASSWORD)) as database:
        database.migrate()
        yield database


def _fill(database: Database, count: int) -> None:
    end = (int(time.time()) // 600 - 1) * 600_000  # the same in stores that are filled one after the other
    fill(database, generated(count, days=30, end=end))
    fill(database, (judged(end), *attacks(end)))
    Folding(database, OURS).fold(time.time())  # as the recorder does once an hour
    texts = [text.replace("\0", "\N{REPLACEMENT CHARACTER}") for text in ATTACKS]  # as it is read from a report
    fill_reports(database, end, OURS, texts)


@contextlib.contextmanager
def serving(folder: Path, store: StoreSection, domains: Sequence[str] = OURS) -> Iterator[SafeHeaders]:
    """The application on a store, as the child makes it."""
    zone = folder / "zone"
    zone.write_text(ZONE)
    configuration = Configuration(
        identity=IdentitySection(authserv_id="mx1.example.org"),
        dns=DnsSection(nameservers="none", zone=str(zone)),
        store=store,
        reports=SECTION,
        web=WebSection(domains=tuple(domains)),
    )
    figures = Pages(1)
    log = Log(lambda *_: None)
    site = open_site(configuration, figures, History(figures, leaves=False), (), log)
    try:
        yield make_app(site, Access(TOKEN, "", Proxies()), log)
    finally:
        site.lookups.close()
        site.store.close()
