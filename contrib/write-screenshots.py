#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the pictures of the page in ``docs/web/``.

::

    sh contrib/fetch.sh chromium
    .venv/bin/pip install pillow
    .venv/bin/python contrib/write-screenshots.py [DIRECTORY]

A real daemon, with a DNS server of its own, judges some messages and shows a store of 20,000 others, and reports of ten
days. Chromium takes the pictures; they get 160 colours, so that they stay small.
"""

from __future__ import annotations

import contextlib
import http.client
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "milter"), str(ROOT / "tests")]

from PIL import Image

from asking import TOKEN
from assay.config.store import StoreSection
from assay.store.database import open_database
from assay.store.folding import Folding
from running import PATIENCE, Daemon
from sending import ROWS, greet, message, send
from signing import pem, record, rsa_key
from store_generator import OURS, fill, generated
from web.browser import Chromium
from web.judged import ROWS as JUDGED
from web.judged import judged
from web.reports import fill_reports
from web.test_child import free_port

COLOURS = 160
PHONE = 390
#: The name of each picture, the page, the width of the window, the height, and whether it is dark.
PICTURES = (
    ("overview", "/overview", 1280, 1000, False),
    ("overview-dark", "/overview", 1280, 700, True),
    ("overview-phone", "/overview", PHONE, 900, False),
    ("messages", "/messages?author=example.org&dmarc=fail", 1280, 700, False),
    ("message", "/messages?q=orders.example /messages/", 1280, 1900, False),
    ("message-phone", "/messages?q=orders.example /messages/", PHONE, 1400, True),
    ("senders", "/senders", 1280, 900, False),
    ("reports", "/reports", 1280, 1100, False),
    ("report", "/reports?kind=aggregate&state=sent /reports/", 1280, 800, False),
    ("received", "/received", 1280, 1100, False),
    ("received-phone", "/received", PHONE, 900, True),
    ("received-report", "/received?kind=aggregate /received/", 1280, 900, False),
    ("domains", "/domains", 1280, 400, False),
    ("domain", "/domains/example.org", 1280, 1100, False),
    ("domain-phone", "/domains/example.org", PHONE, 1100, False),
    ("dry-run", "/dry-run", 1280, 600, False),
    ("dns", "/dns", 1280, 900, False),
    ("configuration", "/configuration", 1280, 700, False),
)
ZONE = {
    **ROWS,
    **JUDGED,
    "example.org": [
        ["MX", [10, "mx1.example.org"]],
        ["TXT", ["v=spf1 mx ip4:192.0.2.1 include:_spf.provider.example ~all"]],
    ],
    "mx1.example.org": [["A", "192.0.2.25"]],
    "25.2.0.192.in-addr.arpa": [["PTR", "mx1.example.org"]],
    "_dmarc.example.org": [["TXT", ["v=DMARC1; p=reject; rua=mailto:d@example.org,mailto:x@reports.example"]]],
    "s1._domainkey.example.org": [["TXT", [record(rsa_key())]]],
    "example.net": [["TXT", ["v=spf1 -all"]], ["MX", [0, "."]]],
    "_dmarc.example.net": [["TXT", ["v=DMARC1; p=reject; rua=mailto:d@example.net"]]],
    "shop.example.com": [["TXT", ["v=spf1 include:_spf.provider.example ?all"]], ["MX", [10, "mx1.example.org"]]],
}
RULES = (
    {"name": "no name", "when": "iprev.result != 'pass'", "action": "reject", "reason": "no name", "dry_run": True},
)


def fill_store(folder: Path) -> None:
    """What the page shows."""
    section = StoreSection(directory=str(folder), addresses=True, subjects=True)
    end = (int(time.time()) // 600 - 1) * 600_000
    with contextlib.closing(open_database(section.location)) as database:
        fill(database, generated(20_000, days=30, end=end))
        fill(database, [judged(end)])
        Folding(database, OURS).fold(time.time())
        fill_reports(database, end, OURS, ())


def wait_for(port: int) -> None:
    """Until the page answers."""
    deadline = time.monotonic() + PATIENCE
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", "/login")
            connection.getresponse().read()
            return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def take(browser: Chromium, base: str, folder: Path) -> None:
    """All pictures."""
    for name, path, width, height, dark in PICTURES:
        browser.look(width=width, height=height, dark=dark)
        listed, _, first = path.partition(" ")
        browser.open(base + listed)
        if first:
            hrefs = browser.run("return [...document.querySelectorAll('main a')].map(a => a.getAttribute('href'))")
            browser.open(base + next(href for href in hrefs if href.startswith(first)))
        file = folder / f"{name}.png"
        browser.screenshot(file)
        with Image.open(file) as picture:
            picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
        print(f"{file}: {file.stat().st_size // 1024} KiB")


def main() -> None:
    """Write them."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "web"
    target.mkdir(parents=True, exist_ok=True)
    # In /tmp whatever TMPDIR is: the configuration is in a picture.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="assay-") as name:  # a directory of its own
        folder, port = Path(name), free_port()
        token = folder / "token"
        token.touch(0o600)
        token.write_text(f"{TOKEN}\n")
        (folder / "store").mkdir()
        key = folder / "s1.pem"
        key.touch(0o600)
        key.write_bytes(pem(rsa_key()))
        fill_store(folder / "store")
        daemon = Daemon(
            folder,
            ZONE,
            identity={"authserv_id": "mx1.example.org"},
            dmarc={"reject": "reject", "quarantine": "quarantine"},
            rule=RULES,
            sign={"domain": ({"domain": "example.org", "selectors": ("s1",), "key_files": (str(key),)},)},
            store={"directory": str(folder / "store"), "addresses": True, "subjects": True, "dns_answers": True},
            reports={"organization": "Example Ltd", "contact": "dmarc@example.org", "dry_run": True},
            web={"listen": f"inet:{port}@127.0.0.1", "token_file": str(token), "domains": list(OURS)},
        )
        with daemon, Chromium(folder / "chromium") as browser:
            wait_for(port)
            with daemon.mta() as mta:
                greet(mta)
                for author in (
                    "joe@example.org",
                    "ann@reject.example",
                    "bob@quarantine.example",
                    "eve@nobody.example",
                ):
                    send(mta, message(author))
            browser.open(f"http://127.0.0.1:{port}/login")
            browser.type("#token", TOKEN)
            browser.follow("form.login button", f"http://127.0.0.1:{port}/overview")
            take(browser, f"http://127.0.0.1:{port}", target)


if __name__ == "__main__":
    main()
