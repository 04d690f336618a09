# SPDX-License-Identifier: GPL-3.0-or-later
"""The recipes of docs/web.md in real reverse proxies: nginx and Apache of Debian, as unpacked by contrib/fetch.sh."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import sysconfig
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import msgspec
import pytest

from asking import TOKEN
from assay.config import Configuration
from assay.config.endpoint import Endpoint
from assay.config.store import StoreSection
from assay.config.web import WebSection
from assay.daemon.status import History
from assay.log import Log
from assay.metrics import Pages
from assay.store.database import open_database
from assay.web.access import Access, Proxies
from assay.web.app import make_app
from assay.web.server import WebServer
from assay.web.site import open_site
from assay.web.suppressing import PATH
from certificates import CertificateAuthority
from running import PATIENCE
from web.test_child import free_port

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / ".cache" / "proxies"
pytestmark = pytest.mark.skipif(
    not (PROGRAMS / "usr/sbin/apache2").exists(), reason=f"nothing in {PROGRAMS}: run sh contrib/fetch.sh proxies"
)
NAME = "assay.example.org"
USER, PASSWORD = "ann", "correct horse"

#: The blocks of the section, as they are.
_BLOCKS = [
    "\n".join(line[4:] for line in block.splitlines())
    for block in re.findall(
        r"(?:^    .*\n)+",
        (ROOT / "docs/web.md").read_text().partition("## Behind a reverse proxy")[2].partition("\n## ")[0],
        re.MULTILINE,
    )
]
_MODULES = (
    "mpm_event", "authn_core", "authn_file", "auth_basic", "authz_core", "authz_user", "headers", "proxy", "proxy_http",
    "socache_shmcb", "ssl",
)  # fmt: skip
_NGINX = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
{user}
events {{}}
http {{
access_log off;
client_body_temp_path {folder}/body;
proxy_temp_path {folder}/proxy;
fastcgi_temp_path {folder}/fastcgi;
uwsgi_temp_path {folder}/uwsgi;
scgi_temp_path {folder}/scgi;
ssl_certificate "{certificate}";
ssl_certificate_key "{key}";
{recipe}
}}
"""
_APACHE = """
ServerRoot {folder}
ServerName localhost
PidFile {folder}/pid
Mutex posixsem
ErrorLog {folder}/error.log
{user}
{modules}
Listen 127.0.0.1:{port}
SSLCertificateFile "{certificate}"
SSLCertificateKeyFile "{key}"
{recipe}
"""


def block(*marks: str) -> str:
    """The block that has all of these."""
    (found,) = [each for each in _BLOCKS if all(mark in each for mark in marks)]
    return found


class Place:
    """A page, and a proxy in front of it."""

    def __init__(self, folder: Path, page: int, front: int, lines: list[str]) -> None:
        self.folder = folder
        self.page = page
        self.front = front
        self.lines = lines
        self._issued = CertificateAuthority(folder).issue([NAME])

    @contextlib.contextmanager
    def running(self, program: str, form: str, recipe: str) -> Iterator[None]:
        """The proxy, until the context ends."""
        users = self.folder / "users"
        digest = base64.b64encode(hashlib.sha1(PASSWORD.encode(), usedforsecurity=False).digest()).decode()
        users.write_text(f"{USER}:{{SHA}}{digest}\n")
        recipe = re.sub(r"/etc/(nginx|apache2)/assay\.users", str(users), recipe)
        recipe = recipe.replace("127.0.0.1:8891", f"127.0.0.1:{self.page}")
        recipe = recipe.replace("listen 443 ssl", f"listen 127.0.0.1:{self.front} ssl").replace(
            "*:443", f"*:{self.front}"
        )
        root = os.geteuid() == 0
        modules = PROGRAMS / "usr/lib/apache2/modules"
        written = self.folder / "conf"
        written.write_text(
            form.format(
                folder=self.folder,
                port=self.front,
                recipe=recipe,
                certificate=self._issued[0],
                key=self._issued[1],
                user=("user root;" if "nginx" in program else "User nobody\nGroup nogroup") if root else "",
                modules="\n".join(f"LoadModule {name}_module {modules}/mod_{name}.so" for name in _MODULES),
            )
        )
        for path in (self.folder, *self.folder.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        library = PROGRAMS / "usr/lib" / str(sysconfig.get_config_var("MULTIARCH"))
        command = [
            PROGRAMS / program,
            *(["-c", written] if "nginx" in program else ["-D", "FOREGROUND", "-f", written]),
        ]
        with (self.folder / "output").open("wb") as output:
            process = subprocess.Popen(
                command, env={"LD_LIBRARY_PATH": str(library), "PATH": "/usr/bin"}, stdout=output, stderr=output
            )
        try:
            self._wait(process)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.front), 1).close()
            except OSError:
                errors = [
                    path.read_text() for path in (self.folder / "output", self.folder / "error.log") if path.exists()
                ]
                assert process.poll() is None, errors
                assert time.monotonic() < deadline, errors
                time.sleep(0.02)
            else:
                return

    def ask(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        fields: dict[str, str] | None = None,
        *,
        direct_from: str = "",
    ) -> tuple[int, dict[str, str], str]:
        """A request to the proxy, or around it from an address: status, header fields and text."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            "127.0.0.1", self.front, timeout=PATIENCE, context=context, source_address=("127.0.0.9", 0)
        )
        if direct_from:
            connection = http.client.HTTPConnection(
                "127.0.0.1", self.page, timeout=PATIENCE, source_address=(direct_from, 0)
            )
        sent = {"Host": NAME, **(headers or {})}
        body = None if fields is None else urlencode(fields)
        if body is not None:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        with contextlib.closing(connection):
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read().decode()


Made = Callable[[str], Place]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Made]:
    """Makes a page that is configured by a block of the recipes."""
    with contextlib.ExitStack() as opened:

        def make(section: str) -> Place:
            (tmp_path / "store").mkdir()
            store = StoreSection(directory=str(tmp_path / "store"))
            open_database(store.location).close()
            web = msgspec.convert(tomllib.loads(section)["web"], WebSection)
            figures = Pages(1)
            lines: list[str] = []
            log = Log(lambda _, text: lines.append(text))
            configuration = Configuration(web=web, store=store)
            site = open_site(configuration, figures, History(figures, leaves=False), (), log)
            access = Access("" if web.user_header else TOKEN, web.user_header, Proxies.of(web))
            page = free_port()
            server = WebServer(Endpoint.parse(f"inet:{page}@127.0.0.1"), 0o660, make_app(site, access, log), log)
            for close in (site.store.close, site.lookups.close, server.close):
                opened.callback(close)
            # The proxy's own user has to read what is there, and pytest's folders are for nobody else.
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="assay-proxy-")))
            return Place(folder, page, free_port(), lines)

        yield make


def _by_name(place: Place) -> None:
    """The proxy asks for the password and hands over the name; no client can."""
    known = {"Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
    assert place.ask("GET", "/dns")[0] == 401
    assert place.ask("GET", "/dns", {"X-Remote-User": "root"})[0] == 401
    for headers in (known, {**known, "X-Remote-User": "root"}, {**known, "x-remote-user": "root"}):
        status, _, text = place.ask("GET", "/dns", headers)
        assert status == 200
        assert f'<p class="user">{USER}</p>' in text
    status, headers, _ = place.ask("GET", "/dns", {"X-Remote-User": USER}, direct_from="127.0.0.2")
    assert (status, headers["location"]) == (303, "/login?next=%2Fdns")
    reports = place.ask("GET", "/reports", known)[2]
    form = re.search(rf'<form method="post" action="{PATH}" class="ask".*?</form>', reports, re.DOTALL)
    assert form is not None
    fields = {name: html.unescape(text) for name, text in re.findall(r'name="(\w+)" value="([^"]*)"', form[0])}
    fields["subject"] = "d@example.com"
    assert place.ask("POST", PATH, {**known, "Origin": "https://evil.example"}, fields)[0] == 403
    assert place.ask("POST", PATH, {"X-Remote-User": USER}, fields, direct_from="127.0.0.2")[0] == 403
    assert not [line for line in place.lines if "no reports go to" in line]
    assert place.ask("POST", PATH, {**known, "Origin": f"https://{NAME}"}, fields)[0] == 303
    assert place.lines[-1] == f"page: no reports go to d@example.com; asked for by {USER} from 127.0.0.9"


def test_nginx_with_the_login_by_token(place: Made) -> None:
    there = place(_BLOCKS[_BLOCKS.index(block("server {")) + 1])
    with there.running("usr/sbin/nginx", _NGINX, block("server {")):
        status, headers, _ = there.ask("GET", "/dns")
        assert (status, headers["location"]) == (303, "/login?next=%2Fdns")
        status, headers, _ = there.ask("POST", "/login", {"Origin": f"https://{NAME}"}, {"token": TOKEN})
        assert status == 303
        assert "secure" in headers["set-cookie"].lower()
        assert there.ask("GET", "/dns", {"Cookie": headers["set-cookie"].partition(";")[0]})[0] == 200
        assert there.lines[-1] == "page: login from 127.0.0.9"
        # The throttle counts clients, whatever they say of themselves.
        tries = [
            there.ask("POST", "/login", {"X-Forwarded-For": f"192.0.2.{number}"}, {"token": "guess"})[0]
            for number in range(6)
        ]
        assert tries == [403] * 5 + [429]


def test_nginx_that_authenticates(place: Made) -> None:
    asked = block("auth_basic ")
    recipe = block("server {").replace("proxy_pass", asked + "\nproxy_pass")
    there = place(_BLOCKS[_BLOCKS.index(asked) + 1])
    with there.running("usr/sbin/nginx", _NGINX, recipe):
        _by_name(there)


def test_apache_that_authenticates(place: Made) -> None:
    there = place(_BLOCKS[_BLOCKS.index(block("auth_basic ")) + 1])
    with there.running("usr/sbin/apache2", _APACHE, block("<VirtualHost")):
        _by_name(there)
