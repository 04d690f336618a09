# SPDX-License-Identifier: GPL-3.0-or-later
"""Every configuration key has an effect: changing it alone changes something that assay creates or does.

A row of `EFFECTS` names a key, a value other than the default, and one of the functions below, which shows the
difference. Most rows use `message`: the golden messages and some others, played to sessions created as in a worker,
with all their output. A key that acts in several places has a row for each. A key without a row fails the last test.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import re
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from asking import Browser
from assay import resolver
from assay.cli import serve
from assay.cli.main import main
from assay.config import Configuration, make_policy, make_resolver, make_settings, show
from assay.config.database import open_store
from assay.config.endpoint import Endpoint
from assay.config.responses import RuleSection
from assay.config.web import read_token
from assay.daemon import collector, connection, endpoint, recorder, reporter, worker
from assay.daemon import kinds as daemon_kinds
from assay.daemon.capacity import Capacity
from assay.daemon.child import Tether
from assay.daemon.held import HeldSockets
from assay.daemon.keeper import keeper_of
from assay.daemon.listener import Listener
from assay.daemon.status import History
from assay.inquiry import Outcome, Question, RecordType
from assay.keys.rotation import KeyType
from assay.log import Level, Log, forms, sinks
from assay.log.sinks import Journald, StandardError, Syslog
from assay.metrics import Pages
from assay.model.message import split_message
from assay.model.name import ReversePath
from assay.model.smtp import parse_address
from assay.policy import Action
from assay.protocol import srs
from assay.reports.incoming.delivery import deliver
from assay.reports.incoming.taking import Taker
from assay.resolver import cache, wire
from assay.resolver.authority import Authority
from assay.resolver.update import Updater
from assay.session import Verdict
from assay.store import outbox, suppressions
from assay.store.channel import RowChannel
from assay.store.rows import decode
from assay.store.writer import Writer
from assay.web.access import Access, Proxies
from assay.web.app import make_app
from assay.web.site import open_site
from certificates import CertificateAuthority
from nameserver import NameServer
from receiving import Receiver
from report_world import EARLIER, NEXT_DAY, Reporting, failed, seen, with_failure
from report_world import ROWS as REPORT_ROWS
from reports.incoming import shapes
from signing import ed25519_key, pem, record, rsa_key, sign_rsa
from store_rows import NOON

GOLDEN = Path(__file__).parents[1] / "golden"
NOW = 1_700_000_000
US = "mx.example.net"

ZONE = f"""
sel._domainkey.example.org.     TXT  {" ".join(f'"{part}"' for part in re.findall(".{1,200}", record(rsa_key())))}
sel._domainkey.example.org.     TXT  "{record(rsa_key(1024), tags="t=y;")}"
deep.example.                   TXT  "v=spf1 include:one.deep.example ?all"
one.deep.example.               TXT  "v=spf1 include:two.deep.example ?all"
two.deep.example.               TXT  "v=spf1 exists:void1.example exists:void2.example ip4:192.0.2.0/24 -all"
plain.example.                  A    192.0.2.77
mx2.example.net.                A    192.0.2.88
88.2.0.192.in-addr.arpa.        PTR  mx2.example.net.
77.2.0.192.in-addr.arpa.        PTR  plain.example.
99.2.0.192.in-addr.arpa.        PTR  plain.example.
strict.example.                 TXT  "v=spf1 -all exp=why.strict.example"
why.strict.example.             TXT  "ask the postmaster"
_dmarc.strict.example.          TXT  "v=DMARC1; p=reject; pct=0"
sender.example.                 TXT  "spf2.0/pra ip4:192.0.2.77 -all"
_dmarc.dept.city.example.       TXT  "v=DMARC1; p=none; psd=n"
_dmarc.list.example.            TXT  "v=DMARC1; p=reject"
"""


def fields(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (*lines, "", "hello")).encode()


#: To an address that was rewritten five days ago.
SECRET = "a secret for the tests"
BOUNCED = srs.forward("ann@list.example", srs.Scheme("srs.example", (SECRET.encode(),)), NOW - 5 * 86_400)

#: Cases that the golden messages do not cover.
MORE: list[dict[str, Any]] = [
    {"ip": "192.0.2.77", "mail_from": "ann@deep.example", "octets": fields("From: ann@deep.example")},
    {"ip": "192.0.2.77", "mail_from": "ann@plain.example", "octets": fields("From: ann@plain.example")},
    {"ip": "192.0.2.77", "mail_from": "ann@sender.example", "octets": fields("From: ann@sender.example")},
    {"ip": "192.0.2.77", "mail_from": "ann@strict.example", "octets": fields("From: ann@strict.example")},
    {"ip": "192.0.2.77", "mail_from": "ann@plain.example", "octets": fields("From: ann@library.dept.city.example")},
    {"ip": "192.0.2.77", "mail_from": "", "octets": fields("List-Id: <x.list.example>", "From: ann@list.example")},
    {
        "ip": "192.0.2.77",
        "daemon": "submission",
        "mail_from": "a@list.example",
        "octets": fields("From: a@list.example"),
    },
    {
        "ip": "192.0.2.77",
        "authenticated": "ann",
        "mail_from": "a@list.example",
        "octets": fields("From: a@list.example"),
    },
    {
        "ip": "192.0.2.77",
        "authenticated": "ann",
        "mail_from": "a@list.example",
        "octets": fields("From: a@list.example", *["List-Id: too many to sign"] * 1001),
    },
    {
        "ip": "192.0.2.77",
        "authenticated": "ann",
        "mail_from": "a@unknown.example",
        "octets": fields("From: a@unknown.example", "Sender: b@list.example"),
    },
    {
        "ip": "192.0.2.77",
        "authenticated": "ann",
        "mail_from": "a@list.example",
        "octets": fields("From: a@unknown.example"),
    },
    {"ip": "192.0.2.10", "mail_from": "ann@example.org", "octets": sign_rsa(sign_rsa())},
    {"ip": "192.0.2.10", "mail_from": "ann@example.org", "octets": b"Subject: added\r\n" + sign_rsa()},
    {"ip": "192.0.2.77", "mail_from": "", "octets": sign_rsa(key=rsa_key(1024))},
    {"ip": "192.0.2.99", "mail_from": "ann@example.com", "octets": fields("From: ann@example.com")},
    {"ip": "192.0.2.77", "mail_from": "", "octets": fields("ARC-Seal: i=2", "ARC-Seal: i=1", "From: ann@list.example")},
    {
        "ip": "192.0.2.77",
        "mail_from": "ann@list.example",
        "rcpt": ("bob@a.example", "eve@b.example"),
        "octets": fields("From: ann@list.example"),
    },
    {"ip": "192.0.2.77", "mail_from": "", "rcpt": (BOUNCED,), "octets": fields("From: MAILER-DAEMON")},
    {
        "ip": "192.0.2.88",
        "name": "mx2.example.net",
        "mail_from": "ann@example.org",
        "octets": fields(
            "Received: from mail.example.org (mail.example.org [192.0.2.10]) by mx2.example.net (Postfix)",
            f"Authentication-Results: {US}; spf=pass smtp.mailfrom=example.org",
            "Authentication-Results: old.example; spf=pass smtp.mailfrom=example.org",
            "From: ann@example.org",
        ),
    },
]


def corpus() -> Iterator[dict[str, Any]]:
    for folder in sorted(path.parent for path in GOLDEN.glob("*/message")):
        envelope = tomllib.loads((folder / "envelope.toml").read_text("utf-8"))
        yield envelope | {"octets": (folder / "message").read_bytes()}
    yield from MORE


CORPUS = list(corpus())


@pytest.fixture(scope="module")
def zone(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("zone") / "zone"
    path.write_text((GOLDEN / "zone").read_text("utf-8") + ZONE, "utf-8")
    return str(path)


@pytest.fixture(scope="module")
def nameserver() -> Iterator[NameServer]:
    with NameServer({"a.example": [["A", "192.0.2.1"]], "b.example": [["A", "192.0.2.2"]]}, secure=True) as server:
        yield server


#: The files that a row may name.
FILES = {
    "zone": "a.example. A 192.0.2.99\n",
    "list": "attacker.example\n",
    "key": pem(rsa_key()).decode(),
    "senders": "ann example.org\n",
    "secrets": f"{SECRET}\n",
    "others": "another secret\n",
    "password": "secret\n",
    "other_password": "other secret\n",
    "no_reports": "example.com\n",
    "token": "a-token-of-the-page-with-more-than-enough-characters\n",
}


class World:
    """The input of a row's function: a configuration, and paths and addresses."""

    def __init__(self, values: Mapping[str, Any], zone: str, nameserver: NameServer, folder: Path) -> None:
        sections: dict[str, Any] = {}
        standard = {"dns.nameservers": "none", "dns.zone": zone, "milter.workers": 1}
        for key, value in (standard | dict(values)).items():
            table, (*path, name) = sections, key.split(".")
            for section in path:
                table = table.setdefault(section, {})
            table[name] = value
        self.folder = folder
        self.nameserver = nameserver
        self.configuration = msgspec.convert(_filled(sections, self), Configuration)
        self.lines: list[str] = []
        self.rows: list[bytes] = []
        self.budgets: list[tuple[str, float]] = []
        self.patience = 0.0
        self.sessions = 0
        self.stage = ""

    @contextlib.contextmanager
    def service(self) -> Iterator[connection.Service]:
        """Assemble it as a worker does, without libmilter and without changes to this process."""
        made: list[connection.Service] = []
        resolvers: list[resolver.Resolver] = []

        def watched(*arguments: Any) -> Any:
            real = make_resolver(*arguments)
            resolvers.append(real)

            def driver(seconds: float, **more: Any) -> Any:
                self.budgets.append((self.stage, seconds))
                return real.driver(seconds, **more)

            return SimpleNamespace(start=real.start, driver=driver)

        def control(*arguments: Any) -> None:
            self.patience = next(one for one in arguments if isinstance(one, float))

        def gate(_descriptor: int, bound: Capacity, *_: object) -> SimpleNamespace:
            self.sessions = bound.sessions
            return SimpleNamespace(watch=lambda: None, make_room=lambda: False)

        log = Log(lambda _, text: self.lines.append(re.sub(r" ms=\d+", "", text)), Level.INFO)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(worker, "keep_to", lambda *_: None)
            patch.setattr(worker, "share_one_arena", lambda: None)
            patch.setattr(worker, "give_small_stacks", lambda: None)
            patch.setattr(worker, "gc", SimpleNamespace(freeze=lambda: None, set_threshold=lambda *_: None))
            patch.setattr(worker, "make_resolver", watched)
            patch.setattr(worker, "_control", control)
            patch.setattr(worker, "Gate", gate)
            patch.setattr(worker.callbacks, "install", made.append)
            patch.setattr(worker.callbacks, "serve", lambda _: 0)
            patch.setattr(Tether, "ready", lambda _: None)
            sender = SimpleNamespace(send=lambda row: self.rows.append(row) is None)
            channel: Any = SimpleNamespace(sender=lambda: sender)
            kind = worker.kind(self.configuration, Listener(None, -1), channel, log)
            kind.run(Tether(-1, -1, 0))
        try:
            yield made[0]
        finally:
            resolvers[0].close()

    def play(self) -> list[list[Verdict]]:
        """The verdicts on each message, stage by stage, which are also written to the journal."""
        with self.service() as service:
            return [self._play(service, one) for one in CORPUS]

    def _play(self, service: connection.Service, message: Mapping[str, Any]) -> list[Verdict]:
        session = service.new_session(lambda: None)
        header, body = split_message(message["octets"])

        def steps() -> Iterator[tuple[str, Callable[[], Verdict | None]]]:
            address = parse_address(message["ip"])
            daemon = message.get("daemon", "")
            yield "connect", lambda: session.connect(address, message.get("name", ""), mta_name=US, daemon=daemon)
            yield "helo", lambda: session.helo(message.get("helo", "mail.example.org"))
            authenticated = message.get("authenticated", "")
            yield "mail", lambda: session.mail(message["mail_from"], authenticated=authenticated, now=NOW)
            for path in message.get("rcpt", ("ann@example.net",)):
                yield "rcpt", lambda path=path: session.rcpt(path)  # type: ignore[misc]  # called at once
            for one in header:
                yield "header", lambda one=one: session.header(one)  # type: ignore[misc]  # called at once
            yield "end of header", session.end_of_header
            yield "body", lambda: session.body(body)
            yield "end", lambda: session.end_of_message(queue_id="4Q", now=NOW, draw=0.5)

        verdicts = []
        for self.stage, step in steps():
            verdict = step()
            if verdict is not None:
                service.journal.enter(verdict, {})
                verdicts.append(verdict)
                if verdict.action.refuses:
                    break
        session.close()
        return verdicts


def _filled(value: Any, world: World) -> Any:
    """Values with ``{folder}`` and ``{nameserver}`` replaced."""
    match value:
        case dict():
            return {key: _filled(one, world) for key, one in value.items()}
        case tuple():
            return tuple(_filled(one, world) for one in value)
        case str() if "{folder}" in value:
            for name in re.findall(r"\{folder\}/(\w+)", value):
                path = world.folder / name
                path.touch(0o600)
                path.write_text(FILES.get(name, ""))
            return value.replace("{folder}", str(world.folder))
        case str() if value == "{nameserver}":
            return (world.nameserver.text,)
    return value


# The functions that show a difference. Each takes a World.


def message(world: World) -> object:
    """Everything done with messages, as the MTA sees it."""
    return [[(one.action, one.reply, one.edits, one.stage) for one in of] for of in world.play()]


def logged(world: World) -> object:
    """The lines of the log."""
    world.play()
    return world.lines


def words(*names: str) -> Callable[[World], object]:
    """Only these words of the log lines."""

    def shown(world: World) -> object:
        world.play()
        return [re.findall(rf"(?<= )(?:{'|'.join(names)})=\S+", line) for line in world.lines]

    return shown


def budget_at(stage: str) -> Callable[[World], object]:
    """How long a lookup started at a stage may wait for the DNS."""

    def shown(world: World) -> object:
        world.play()
        return [seconds for at, seconds in world.budgets if at == stage]

    return shown


def spfquery(world: World) -> object:
    """The limits that the SPF debugger reports and applies."""
    path = world.folder / "spfquery.toml"
    path.write_text(show(world.configuration), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("assay.cli.spfquery.say", lambda lines: said.extend(lines))
        said: list[str] = []
        main(["spfquery", "-v", "-c", str(path), "deep.example"])
    return [line for line in said if line.startswith("limits")]


def keys_made(world: World) -> object:
    """What ``assay keys create`` works with: where, when, whom it asks, and how it publishes."""
    folder = world.folder / "keys"
    folder.mkdir(mode=0o700, exist_ok=True)
    settings = world.configuration.keys
    if settings.directory == Configuration().keys.directory:
        settings = msgspec.structs.replace(settings, directory=str(folder))
    if settings.tsig_file:
        Path(settings.tsig_file).write_text(
            f'key "{Path(settings.tsig_file).name}" {{ algorithm hmac-sha256; secret "AAAA"; }};'
        )
        Path(settings.tsig_file).chmod(0o600)
    configuration = msgspec.structs.replace(world.configuration, keys=settings)
    seen: list[object] = []

    def run(arguments: list[str]) -> tuple[int, bytes]:
        seen.append(arguments[:-1])  # without the record
        return 0, b""

    def add(self: Updater, name: str, _strings: object, ttl: int) -> None:
        seen.append((self._server, self._zone, self._key.name, ttl))

    def texts(self: Authority, name: str) -> tuple[()]:
        seen.append(self._servers)
        return ()

    def make(kind: KeyType, bits: int) -> object:
        seen.append((kind, bits))
        return rsa_key(1024) if kind is KeyType.RSA else ed25519_key()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("assay.cli.key_command.load", lambda _: configuration)
        patch.setattr("assay.keyring.publisher._run_to_its_end", run)
        patch.setattr("assay.keyring.run.make", make)
        patch.setattr(Updater, "add", add)
        patch.setattr(Authority, "texts", texts)
        with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(io.StringIO()):
            main(["keys", "create", "example.org"])
    return settings.schedule, seen, errors.getvalue()


def decided(world: World) -> object:
    """The policy's actions, by method."""
    return [(one.name, one.stage, one.actions, one.dry_run) for one in make_policy(world.configuration).methods]


def service(world: World) -> object:
    """The state shared by all connections of a worker."""
    with world.service() as made:
        return made.on_error, made.no_reply


def patience(world: World) -> object:
    """How long a worker waits for its sessions when it drains."""
    with world.service():
        deadline = time.monotonic() + 5
        while not world.patience and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        return world.patience


def sessions(world: World) -> object:
    """How many sessions a worker serves at a time."""
    with world.service():
        return world.sessions


def children(world: World) -> object:
    """The settings that the supervisor keeps."""
    kinds = daemon_kinds.kinds(world.configuration, Listener(None, -1), None, Log(lambda *_: None))  # type: ignore[arg-type]  # no store
    return [(kind.name, kind.count, kind.drain_seconds) for kind in kinds]


def page(world: World) -> object:
    """Whether the page is shown to who knows the token, and to whom a proxy names; and the domains that are ours."""
    section = world.configuration.web
    site = open_site(world.configuration, Pages(1), History(Pages(1), leaves=False), (), Log(lambda *_: None))
    access = Access(read_token(section), section.user_header, Proxies.of(section))
    someone = Browser(make_app(site, access, Log(lambda *_: None)))
    named = someone.get("/dns", {"X-Name": "ann"}).status
    return named, someone.log_in(FILES["token"].strip()).status, site.domains


def kept(world: World) -> object:
    """What the recorder gets of each message, without the ids, which are random, and times."""
    world.play()
    return [msgspec.structs.replace(decode(row), id=b"", time=0, milliseconds=0, waits=()) for row in world.rows]


def recorded(world: World) -> object:
    """Where the recorder writes, with which passwords, how much waits for that, and what is left out or removed."""
    seen: list[object] = []

    def take(*arguments: object) -> None:
        seen.append(arguments)
        raise FileNotFoundError

    channel, log = RowChannel(), Log(lambda *_: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "take", take)
        patch.setattr("assay.store.database.open_database", lambda *where, **_: seen.append(where))
        patch.setattr("assay.store.writer.Writer", lambda _, sample, **more: seen.append((sample, more)))
        patch.setattr("assay.store.folding.Folding", lambda *_: SimpleNamespace(fold=lambda _: None))
        patch.setattr("assay.config.database.SETTLED_SECONDS", 0)
        patch.setattr("assay.store.retention.prune", lambda _, retention, now: seen.append(retention))
        patch.setattr("assay.store.broker.RowPublisher.__init__", lambda _, *where: seen.append(where))
        recorder.run(Tether(-1, -1, 0), world.configuration, channel, log)
        for connect in recorder.backends(world.configuration).values():
            connect().tidy(0)
    channel.close()
    return repr(seen).replace(str(world.folder), "")


def listening(world: World) -> object:
    """The socket."""
    path = world.folder / "serve.toml"
    path.write_text(show(world.configuration), "utf-8")
    found: list[object] = []

    def opened(endpoint: Endpoint, **more: object) -> Listener:
        found.append((endpoint, more))
        return Listener(endpoint, -1, lent=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve, "open_listener", opened)
        patch.setattr(serve, "Supervisor", lambda *_: SimpleNamespace(run=lambda: 0))
        patch.setattr(serve, "_raise_descriptor_limit", lambda: None)
        patch.setattr(serve, "become", lambda _: None)
        serve.run(argparse.Namespace(config=path))
    return found


def log(world: World) -> object:
    """The log that is opened."""
    path = world.folder / "log.toml"
    path.write_text(show(world.configuration), "utf-8")
    sent: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        for sink in (StandardError, Syslog, Journald):
            patch.setattr(sink, "send", lambda self, octets: sent.append((type(self), octets)) or len(octets))
        patch.setattr(sinks.time, "strftime", lambda *_: "")
        patch.setattr(forms, "datetime", SimpleNamespace(now=lambda _: datetime(2026, 1, 1, tzinfo=UTC)))
        _, made = serve.read_configuration(path)
        made.debug("", (("a", 1),))
        made.info("", (("a", 1),))
    return sent


def control(world: World) -> object:
    """The permissions of the control socket."""
    section = msgspec.structs.replace(world.configuration.control, socket=f"unix:{world.folder}/control")
    configuration = msgspec.structs.replace(world.configuration, control=section)
    (kind,) = endpoint.kind(configuration, Endpoint.parse("unix:/nowhere"), Log(lambda *_: None))
    held = HeldSockets()
    held.opened(kind)
    mode = (world.folder / "control").stat().st_mode
    held.keep(())
    return mode


def facts(world: World) -> object:
    """The file of facts."""
    world.play()
    path = world.folder / "facts"
    return path.exists() and len(path.read_text().splitlines())


def answer(world: World) -> object:
    """The DNS answer for a name, and what is cached of it."""
    with make_resolver(world.configuration) as made:
        found = made.driver(5.0).start(_ask("a.example")).result()
    return found.outcome, found.records, found.secure


def spelling(world: World) -> object:
    """Whether the nameserver sees only lower case."""
    seen: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch, make_resolver(world.configuration) as made:
        patch.setattr(wire, "in_random_case", lambda asked: seen.append(asked) or asked)
        made.driver(5.0).start(_ask("a.example")).result()
    return len(seen)


def authorities(world: World) -> object:
    """How many authorities the connections to encrypted nameservers trust."""
    CertificateAuthority(world.folder, "ca").certificate.touch()
    with make_resolver(world.configuration) as made:
        return {scheme: context.cert_store_stats()["x509_ca"] for scheme, context in made.contexts.items()}


def answers_kept(world: World) -> object:
    """How often one of five names is queried when they are looked up in turn."""
    before = world.nameserver.count("a.example")
    with make_resolver(world.configuration) as made:
        for name in ("a.example", "b.example", "c.example", "d.example", "e.example") * 2:
            made.driver(5.0).start(_ask(name)).result()
    return world.nameserver.count("a.example") - before


def old_answer(world: World) -> object:
    """What is answered for a name that fails and was known before."""
    with pytest.MonkeyPatch.context() as patch, make_resolver(world.configuration) as made:
        patch.setattr(cache, "MAX_TTL", 1e-6)
        made.driver(5.0).start(_ask("a.example")).result()
        patch.setattr(world.nameserver, "rcodes", {"a.example": "SERVFAIL"})
        return made.driver(5.0).start(_ask("a.example")).result().outcome


def seconds_of_silence(world: World) -> object:
    """How soon the next nameserver is tried when one does not answer."""
    with NameServer({}, drop=True) as silent:
        dns = msgspec.structs.replace(world.configuration.dns, nameservers=(silent.text, world.nameserver.text))
        configuration = msgspec.structs.replace(world.configuration, dns=dns)
        with make_resolver(configuration) as made:
            began = time.monotonic()
            found = made.driver(5.0).start(_ask("a.example")).result()
            assert found.outcome is Outcome.FOUND
            return time.monotonic() - began > 1.0


def _ask(name: str) -> Any:
    (found,) = yield [Question(name, RecordType.A)]
    return found


REFUSE_DMARC = {"dmarc.reject": "reject"}
REFUSE_SPF = {"spf.mailfrom.fail": "reject"}
RULE = {"name": "r", "when": "true", "action": "tag"}
LISTED = {"lists": {"bad": "{folder}/empty"}, "rule": (RULE | {"when": "listed(mail_from.domain, 'bad')"},)}
SIGNER = {"domain": "list.example", "selectors": ("s",), "key_files": ("{folder}/key",)}
UPDATED = {"keys.update_server": "192.0.2.53", "keys.update_zone": "org", "keys.tsig_file": "{folder}/tsig"}
SIGNED = {"sign.domain": (SIGNER,)}
KEYS = "csl:k=list.example:s:{folder}/key"
SEALER = {"domain": "first.example", "selector": "s", "key_file": "{folder}/key"}
SEALED = {"arc.own_domains": ("ours.example",), "arc.seal": (SEALER,)}
REWRITTEN = {"srs.domain": "srs.example", "srs.secrets_file": "{folder}/secrets"}
TABLES = {"sign.key_table": KEYS, "sign.signing_table": "csl:list.example=k"}
PAGE = {"web.token_file": "{folder}/token"}
STORE = {"store.directory": "{folder}"}
SERVER = STORE | {"store.database": "postgresql://assay@db.example.org/assay"}
BROKER = STORE | {"store.broker": "amqp://assay@mq.example.org/"}
ASKED = {"dns.nameservers": "{nameserver}", "dns.zone": ""}

LOGIN = {
    "reports.organization": "Receiver Ltd",
    "reports.contact": "dmarc@receiver.example",
    "reports.relay_tls": "required",
    "reports.relay_user": "assay",
    "reports.relay_password_file": "{folder}/password",
}
COLLECTING = STORE | {"reports.incoming.domains": ("example.org",)}
REPORTS = {"reports.organization": "Receiver Ltd", "reports.contact": "dmarc@receiver.example"}


def reported(world: World) -> object:
    """What becomes of the reports about a day of mail, and what a relay gets."""
    with NameServer(REPORT_ROWS) as nameserver, Receiver() as receiver:
        section = world.configuration.reports
        if section.relay_endpoint[1] == 25:
            section = msgspec.structs.replace(section, relay=receiver.url)
        values = {name: getattr(section, name) for name in section.__struct_fields__}
        reporting = Reporting(world.folder, nameserver, receiver, msgspec.to_builtins(values))
        receiver.replies["gone@example.com"] = "550 5.1.1 no such user"
        domains = [f"d{number}.example.net" for number in range(12)]
        reporting.see(
            seen(0, rua="mailto:gone@example.com,mailto:d@example.com"),
            *(seen(number, domain, "mailto:d@example.net") for number, domain in enumerate(domains, 1)),
            *(failed(number, "few.example") for number in range(20, 25)),
        )
        reporting.turn(NEXT_DAY)
        due = sorted(found.due for found in reporting.reports().values())
        for hours in (7, 12):
            reporting.turn(NEXT_DAY + hours * 3600)
        files = sorted(path.name for path in (world.folder / "store" / "reports").iterdir())
        with reporting.database.reading() as connection:
            suppressed = suppressions.all_suppressions(connection)
        states = {name: (found.state, found.why) for name, found in sorted(reporting.reports().items())}
        reporting.database.close()
    taken = sorted((recipient, path.partition("+")[0], _shown(octets)) for path, recipient, octets in receiver.taken)
    connects = vars(reporter._relay(world.configuration, "mx"))
    return due, states, taken, files, suppressed, reporting.lines, connects | {"_connection": None}


FAILURES = REPORTS | {
    "reports.failure.enabled": True,
    "reports.failure.redaction_key_file": "{folder}/secrets",
    "store.directory": "{folder}",
}


def failures_reported(world: World) -> object:
    """What becomes of messages that failed, in two hours, and how much of a header a worker hands over."""
    failure = world.configuration.reports.failure
    with NameServer(REPORT_ROWS) as nameserver, Receiver() as receiver:
        keys = msgspec.to_builtins({name: getattr(failure, name) for name in failure.__struct_fields__})
        reporting = Reporting(world.folder, nameserver, receiver, {"failure": keys})
        with reporting.database.writing() as connection:
            outbox.insert_report(connection, EARLIER)
        reporting.see(seen(1))
        for hour in range(2):
            rows = [
                with_failure(number, time=NOON + 3_600_000 * hour, client=f"203.0.113.{number}")
                for number in range(2 + 10 * hour, 9 + 10 * hour)
            ]
            Writer(reporting.database, clock=lambda: NOON / 1000).write(rows)
            reporting.turn(NOON // 1000 + 3600 * hour + 600)
        whys = sorted(found.why for found in reporting.all_reports())
        reporting.database.close()
    bodies = sorted(octets.partition(b"Original-Mail-From")[2].partition(b"\r\n")[0] for _, _, octets in receiver.taken)
    channel = RowChannel()
    made = keeper_of(world.configuration, make_settings(world.configuration), channel, Log(lambda *_: None))
    channel.close()
    assert made is not None
    return whys, bodies, made._keeping.failure_octets


def _shown(octets: bytes) -> tuple[str, str]:
    """From, and the file inside."""
    message = message_from_bytes(octets)
    attachment = message.get_payload()[1]
    assert isinstance(attachment, Message)
    content = attachment.get_payload(decode=True)
    assert isinstance(content, bytes)
    return str(message["From"]), gzip.decompress(content).decode()


def taken(world: World) -> object:
    """What is used of reports that came in."""
    with contextlib.closing(open_store(world.configuration.store)) as database:
        taker = Taker.of(world.configuration, lambda bug: None)
        return taker.take(database, shapes.GOOGLE.encode(), now=shapes.END)


def collecting(world: World) -> object:
    """Where reports come in."""
    seen: list[object] = []

    def listen(*arguments: object) -> None:
        seen.append(arguments)
        raise OSError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collector, "listen", listen)
        for kind in collector.kind(world.configuration, Log(lambda *_: None)):
            kind.run(Tether(-1, -1, 0))
    return seen


def set_aside(world: World) -> object:
    """What becomes of a mail that is no report."""
    delivered = deliver(world.configuration, ReversePath(""), "dmarc@example.org", b"lunch?", now=NOW)
    assert (delivered.trouble, delivered.bugs) == ("", ())
    return sorted(path.name for path in Path(world.configuration.reports.incoming.keep_unreadable).glob("*.eml"))


#: Key, another value, the function that shows the difference, and other configuration required for an effect.
EFFECTS: list[tuple[str, Any, Callable[[World], object], Mapping[str, Any]]] = [
    ("milter.socket", "inet:1@127.0.0.1", listening, {}),
    ("milter.socket_mode", "0600", listening, {}),
    ("milter.socket_group", "mail", listening, {}),
    ("milter.user", "nobody", listening, {}),
    ("milter.workers", 3, children, {}),
    ("milter.max_sessions", 7, sessions, {}),
    ("milter.on_error", "tempfail", service, {}),
    ("milter.drain_seconds", 1.0, children, {}),
    ("milter.drain_seconds", 1.0, patience, {}),
    ("milter.dry_run", True, message, {}),
    ("milter.dry_run", True, service, {"milter.on_error": "tempfail"}),
    ("milter.dry_run_headers", True, message, {"milter.dry_run": True}),
    ("identity.authserv_id", "other.example", message, {}),
    ("identity.strip", ("old.example",), message, {}),
    ("clients.internal", ("192.0.2.0/24",), words("exempt"), {}),
    ("clients.trusted_results", ("192.0.2.0/24",), message, {}),
    ("clients.daemon_names", ("submission",), words("exempt"), {}),
    ("clients.judge_authenticated", True, words("exempt"), {}),
    ("clients.trusted_forwarders", ("203.0.113.0/24",), message, REFUSE_DMARC),
    ("clients.relay_names", ("MX2.example.net.",), words("client"), {}),
    ("clients.relays", ("192.0.2.88",), words("client"), {}),
    ("clients.exempt_senders", ("attacker.example",), message, REFUSE_DMARC),
    ("clients.exempt_recipients", ("ann@example.net",), message, REFUSE_DMARC),
    ("addresses.exact_local_parts", True, message, REFUSE_DMARC | {"clients.exempt_recipients": ("Ann@example.net",)}),
    ("addresses.subaddress_delimiters", "n", message, REFUSE_DMARC | {"clients.exempt_recipients": ("a@example.net",)}),
    ("dns.nameservers", "{nameserver}", answer, {"dns.zone": ""}),
    ("dns.zone", "{folder}/zone", answer, {"dns.zone": "", "dns.nameservers": "none"}),
    ("dns.stale_seconds", 60.0, old_answer, ASKED),
    ("dns.trust_ad", True, answer, ASKED),
    ("dns.random_case", True, spelling, ASKED),
    ("dns.ca_file", "{folder}/ca.pem", authorities, {"dns.nameservers": ("tls://192.0.2.1",), "dns.zone": ""}),
    ("dns.timeout_seconds", 0.2, seconds_of_silence, ASKED),
    ("dns.cache_entries", 2, answers_kept, ASKED),
    ("dns.budget_seconds", 7.0, budget_at("connect"), {}),
    ("dns.budget_seconds", 7.0, budget_at("end"), {}),
    ("dns.budget_seconds", 7.0, spfquery, {}),
    ("iprev.enabled", False, message, {}),
    ("iprev.enabled", False, words("iprev"), {}),
    ("iprev.stage", "connect", words("stage"), {"iprev.fail": "reject"}),
    ("iprev.dry_run", True, message, {"iprev.fail": "reject"}),
    ("iprev.names_in_mail_from", "first", message, {"iprev.name_mismatch": "reject"}),
    ("spf.strict_domains", ("example.com",), message, REFUSE_SPF),
    ("spf.best_guess", "v=spf1 a -all", message, {}),
    ("spf.dns_terms", 1, words(r"spf\.mailfrom"), {}),
    ("spf.dns_terms", 1, spfquery, {}),
    ("spf.void_lookups", 1, words(r"spf\.mailfrom"), {}),
    ("spf.void_lookups", 1, spfquery, {}),
    ("spf.nested_includes", 1, words(r"spf\.mailfrom"), {}),
    ("spf.seconds", 5.0, budget_at("helo"), {}),
    ("spf.seconds", 5.0, budget_at("mail"), {}),
    ("spf.seconds", 5.0, spfquery, {}),
    ("spf.helo.stage", "helo", words("stage"), {"spf.helo.fail": "reject"}),
    ("spf.helo.dry_run", True, message, {"spf.helo.fail": "reject"}),
    ("spf.mailfrom.stage", "mail", words("stage"), REFUSE_SPF),
    ("spf.mailfrom.dry_run", True, message, REFUSE_SPF),
    ("dkim.min_rsa_bits", 4096, words("dkim"), {}),
    ("dkim.max_signatures", 1, words("dkim"), {}),
    ("dkim.max_signatures", 1, words(r"dkim\.skipped"), {}),
    ("dkim.single_fields", ("X-Never",), message, {}),
    ("dkim.test_mode_counts", False, words("dmarc"), {}),
    ("dkim.required_fields", ("x-never",), message, {"dkim.unsigned_fields": "reject"}),
    ("dkim.dry_run", True, message, {"dkim.none": "reject"}),
    ("arc.enabled", False, message, {}),
    ("arc.enabled", False, words("arc"), {}),
    ("arc.max_sets", 1, message, {}),
    ("arc.write_none", True, message, {}),
    ("arc.trusted_sealers", ("lists.example",), message, {"dmarc.quarantine": "reject"}),
    ("arc.dry_run", True, message, {"arc.none": "reject"}),
    ("senderid.enabled", True, message, {}),
    ("senderid.enabled", True, words("senderid"), {}),
    ("senderid.use_spf1", True, words("senderid"), {"senderid.enabled": True}),
    ("senderid.dry_run", True, message, {"senderid.enabled": True, "senderid.none": "reject"}),
    ("dmarc.organizational_domain", "psl", message, REFUSE_DMARC),
    ("dmarc.legacy_pct", "zero-as-t", message, REFUSE_DMARC),
    ("dmarc.stricter_domains", ("example.com",), message, REFUSE_DMARC),
    ("dmarc.list_traffic", "accept", message, REFUSE_DMARC),
    ("dmarc.dry_run", True, message, REFUSE_DMARC),
    ("sign.domain", (SIGNER,), words("sign"), {}),
    ("sign.unpublished", "tempfail", message, {"sign.domain": (SIGNER,)}),
    ("keys.directory", "/nowhere/keys", keys_made, {}),
    ("keys.types", ("ed25519",), keys_made, {}),
    ("keys.rsa_bits", 3072, keys_made, {}),
    ("keys.rotate_days", 90, keys_made, {}),
    ("keys.overlap_days", 14, keys_made, {}),
    ("keys.ttl_seconds", 300, keys_made, {"keys.publish_command": ("/bin/true",)}),
    ("keys.ttl_seconds", 300, keys_made, UPDATED),
    ("keys.nameservers", ("192.0.2.53",), keys_made, {}),
    ("keys.publish_command", ("/bin/true", "--now"), keys_made, {}),
    ("keys.update_server", "192.0.2.54", keys_made, UPDATED),
    ("keys.update_zone", "example.org", keys_made, UPDATED),
    ("keys.tsig_file", "{folder}/other", keys_made, UPDATED),
    ("sign.domain", (SIGNER | {"canonicalization": "simple/simple"},), message, SIGNED),
    ("sign.domain", (SIGNER | {"identity": "author"},), message, SIGNED),
    ("sign.domain", (SIGNER | {"domain": "example", "subdomains": True},), words("sign"), {}),
    ("sign.signing_table", "csl:*=k", words("sign"), TABLES | {"sign.signing_table": "csl:other.example=k"}),
    ("sign.key_table", KEYS.replace(":s:", ":t:"), words("sign"), TABLES),
    (
        "sign.multiple_signatures",
        True,
        words("sign"),
        TABLES
        | {
            "sign.key_table": KEYS + ",l=example.org:t:{folder}/key",
            "sign.signing_table": "csl:list.example=k,*=l",
        },
    ),
    ("sign.senders", "{folder}/senders", words("sign"), SIGNED),
    ("sign.sender_field", True, words("sign"), SIGNED),
    ("sign.mail_from", True, words("sign"), SIGNED),
    ("sign.canonicalization", "simple/simple", message, SIGNED),
    ("sign.fields", ("From",), message, SIGNED),
    ("sign.oversigned_fields", ("From",), message, SIGNED),
    ("sign.expire_days", 7, message, SIGNED),
    ("sign.on_error", "accept", message, SIGNED),
    ("arc.seal", (SEALER,), message, {"arc.own_domains": ("ours.example",)}),
    ("arc.seal", (SEALER | {"recipient_domains": ("b.example",)},), words("seal"), SEALED),
    ("arc.seal", (SEALER | {"selector": "t"},), words("seal"), SEALED),
    ("arc.seal", (SEALER | {"domain": "second.example"},), words("seal"), SEALED),
    ("arc.own_domains", ("a.example",), words("seal"), SEALED),
    ("srs.domain", "other.example", message, REWRITTEN),
    ("srs.secrets_file", "{folder}/others", message, REWRITTEN),
    ("srs.own_domains", ("list.example",), words("srs"), REWRITTEN),
    ("srs.own_domains", ("b.example",), words("srs"), REWRITTEN),
    ("srs.networks", ("198.51.100.0/24",), words("srs"), REWRITTEN),
    ("srs.daemon_names", ("submission",), words("srs"), REWRITTEN),
    ("srs.logins", ("ann",), words("srs"), REWRITTEN),
    ("srs.sender_domains", ("a.example",), words("srs"), REWRITTEN),
    ("srs.recipient_domains", ("a.example",), words("srs"), REWRITTEN),
    ("srs.separator", "+", message, REWRITTEN),
    ("srs.hash_length", 8, message, REWRITTEN),
    ("srs.min_hash_length", 6, message, REWRITTEN | {"srs.hash_length": 8}),
    ("srs.max_age_days", 4, message, REWRITTEN),
    ("srs.socketmap", "inet:8892@127.0.0.1", children, REWRITTEN),
    ("srs.forward_table", "inet:8892@127.0.0.1", children, REWRITTEN),
    ("srs.reverse_table", "inet:8892@127.0.0.1", children, REWRITTEN),
    ("headers.received_spf", False, message, {}),
    ("headers.received_spf_local_part", False, message, {}),
    ("headers.hide_none", True, message, {}),
    ("headers.single_spf", True, message, {}),
    ("headers.authenticated", True, message, {}),
    ("headers.tag_field", "X-Other: yes", message, {"dmarc.reject": "tag"}),
    ("headers.tag_subject", "[odd] ", message, {"dmarc.reject": "tag"}),
    ("replies.generic", True, message, REFUSE_DMARC),
    ("replies.explain", False, message, REFUSE_SPF),
    ("replies.texts", {"dmarc": "no"}, message, REFUSE_DMARC),
    ("lists", {"bad": "{folder}/list"}, message, LISTED),
    ("rule", (RULE,), message, {}),
    ("log.to", "syslog", log, {}),
    ("log.to", "journald", log, {}),
    ("log.format", "json", log, {}),
    ("log.format", "json", log, {"log.to": "journald"}),
    ("log.facility", "local0", log, {"log.to": "syslog"}),
    ("log.level", "debug", log, {}),
    ("log.facts", "{folder}/facts", facts, {}),
    ("log.enterprise", 32473, logged, REFUSE_DMARC),
    ("metrics.listen", "inet:9810@127.0.0.1", children, {}),
    ("store.directory", "{folder}", children, {}),
    ("store.directory", "{folder}/other", recorded, STORE),
    ("store.database", "postgresql://assay@db.example.org/assay", recorded, STORE),
    ("store.password_file", "{folder}/secrets", recorded, SERVER),
    ("store.broker", "amqp://assay@mq.example.org/", recorded, STORE),
    ("store.broker_password_file", "{folder}/secrets", recorded, BROKER),
    ("store.exchange", "mail", recorded, BROKER),
    ("store.addresses", True, kept, STORE),
    ("store.subjects", True, kept, STORE),
    ("store.dns_answers", True, kept, STORE),
    ("store.sample", 0.1, recorded, STORE),
    ("store.messages_days", 7, recorded, STORE),
    ("store.counts_days", 7, recorded, STORE),
    ("store.received_days", 7, recorded, STORE),
    ("store.spool_octets", 2_097_152, recorded, STORE),
    ("web.listen", "inet:8891@127.0.0.1", children, PAGE),
    ("web.token_file", "{folder}/token", page, {}),
    ("web.user_header", "X-Name", page, {"web.trusted_proxies": ("127.0.0.1",)}),
    ("web.trusted_proxies", ("127.0.0.0/8",), page, {"web.user_header": "X-Name", "web.trusted_proxies": ("::1",)}),
    ("web.domains", ("other.example",), page, {}),
    ("reports.organization", "Other Ltd", reported, REPORTS),
    ("reports.contact", "other@receiver.example", reported, REPORTS),
    ("reports.contact_info", "https://receiver.example/", reported, REPORTS),
    ("reports.receiver", "mx.receiver.example", reported, REPORTS),
    ("reports.bounces", "bounces@receiver.example", reported, REPORTS),
    ("reports.relay", "smtp://127.0.0.1:1", reported, REPORTS),
    ("reports.relay_tls", "required", reported, REPORTS),
    ("reports.relay_user", "other", reported, LOGIN),
    ("reports.relay_password_file", "{folder}/other_password", reported, LOGIN),
    ("reports.dry_run", True, reported, REPORTS),
    ("reports.suppress", "{folder}/no_reports", reported, REPORTS),
    ("reports.older_schema", ("example.com",), reported, REPORTS),
    ("reports.min_messages", 3, reported, REPORTS),
    ("reports.max_a_day", 2, reported, REPORTS),
    ("reports.max_per_destination", 2, reported, REPORTS),
    ("reports.large_destinations", ("example.net",), reported, REPORTS),
    ("reports.spread_hours", 1.0, reported, REPORTS),
    ("reports.cool_down_days", 5, reported, REPORTS),
    ("reports.failure.enabled", True, failures_reported, FAILURES | {"reports.failure.enabled": False}),
    ("reports.failure.redact", False, failures_reported, FAILURES),
    ("reports.failure.redaction_key_file", "{folder}/others", failures_reported, FAILURES),
    ("reports.failure.max_header_octets", 2048, failures_reported, FAILURES),
    ("reports.failure.max_a_day", 2, failures_reported, FAILURES),
    ("reports.failure.max_per_destination_a_day", 6, failures_reported, FAILURES),
    ("reports.failure.max_per_destination_an_hour", 3, failures_reported, FAILURES),
    ("reports.incoming.domains", ("other.example",), taken, STORE),
    ("reports.incoming.listen", "inet:8893@127.0.0.1", collecting, COLLECTING),
    ("reports.incoming.socket_mode", "0666", collecting, COLLECTING | {"reports.incoming.listen": "unix:/run/lmtp"}),
    ("reports.incoming.keep_unreadable", "{folder}", set_aside, COLLECTING),
    ("control.socket", "unix:/run/assay/daemon/control.sock", children, {}),
    ("control.socket_mode", "0660", control, {}),
]
#: Fields of a rule, likewise. The required fields of a rule are in RULE.
OF_A_RULE: list[tuple[str, Any, Callable[[World], object], Mapping[str, Any]]] = [
    ("name", "other", logged, {"action": "reject"}),
    ("when", "false", message, {}),
    ("stage", "helo", words("stage"), {"action": "reject"}),
    ("action", "reject", message, {}),
    ("reason", "because", message, {"action": "reject"}),
    ("reply", "550 5.7.1 no", message, {"action": "reject"}),
    ("add_fields", ("X-A: b",), message, {}),
    ("remove_fields", ("Subject",), message, {}),
    ("tag_subject", "[odd] ", message, {}),
    ("add_recipients", ("a@example.net",), message, {}),
    ("dry_run", True, message, {}),
    ("sign", False, words("sign"), {"action": None, "sign": True}),
    ("forward", False, words("srs"), {"action": None, "forward": True}),
]


def keys(struct: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from keys(field.type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field


def holds_an_action(field: msgspec.structs.FieldInfo) -> bool:
    """Whether a key holds an action for an outcome; all of these are read in one place."""
    return "Action" in str(field.type) or isinstance(field.default, Action)


ROWS = {row[0] for row in EFFECTS}
ACTIONS = [key for key, field in keys(Configuration) if holds_an_action(field) and key not in ROWS]


@pytest.fixture
def differs(zone: str, nameserver: NameServer, tmp_path: Path) -> Callable[..., bool]:
    def compare(key: str, value: Any, show: Callable[[World], object], base: Mapping[str, Any]) -> bool:
        seen = []
        for number, values in enumerate((base, dict(base) | {key: value})):
            folder = tmp_path / str(number)
            folder.mkdir(exist_ok=True)
            seen.append(show(World(values, zone, nameserver, folder)))
        return seen[0] != seen[1]

    return compare


def named(value: object) -> str | None:
    return value if isinstance(value, str) else getattr(value, "__name__", None)


@pytest.mark.parametrize(("key", "value", "show", "base"), EFFECTS, ids=named)
def test_a_key_has_an_effect(
    key: str, value: Any, show: Callable[[World], object], base: Mapping[str, Any], differs: Callable[..., bool]
) -> None:
    assert differs(key, value, show, base), f"{key} = {value!r} does not change the output of {show.__name__}"


@pytest.mark.parametrize("key", ACTIONS)
def test_an_action_has_an_effect(key: str, differs: Callable[..., bool]) -> None:
    assert differs(key, "reject", decided, {})


@pytest.mark.parametrize(("key", "value", "show", "base"), OF_A_RULE, ids=named)
def test_a_field_of_a_rule_has_an_effect(
    key: str, value: Any, show: Callable[[World], object], base: Mapping[str, Any], differs: Callable[..., bool]
) -> None:
    rule = RULE | dict(base)
    assert differs("rule", (rule | {key: value},), show, SIGNED | REWRITTEN | {"rule": (rule,)})


def test_without_a_change_nothing_differs(zone: str, nameserver: NameServer, differs: Callable[..., bool]) -> None:
    """Otherwise the rows would prove nothing."""
    shows = {show.__name__: (show, others) for _, _, show, others in EFFECTS if show is not listening}
    found = {name for name, (show, others) in shows.items() if differs("log.level", "info", show, others)}
    assert found == set()


def test_every_key_has_a_row() -> None:
    assert [key for key, _ in keys(Configuration) if key not in ACTIONS and key not in ROWS] == []
    of_a_rule = {row[0] for row in OF_A_RULE}
    assert [field.name for field in msgspec.structs.fields(RuleSection) if field.name not in of_a_rule] == []
