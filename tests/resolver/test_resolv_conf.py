# SPDX-License-Identifier: GPL-3.0-or-later
"""The system's nameservers are followed while the resolver runs."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assay.config import Configuration, build, make_resolver
from assay.inquiry import Inquiry, Outcome, Question, RecordType
from assay.resolver import Nameserver, ResolvConf, Resolver, Statistics, configured
from assay.resolver.health import Health
from assay.resolver.resolv_conf import PAUSE
from assay.resolver.transport import Cause, ExchangeFault
from nameserver import NameServer, closed_port
from running import until

PATIENCE = 0.3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\n")
    return path


TIMES = itertools.count(0, PAUSE)


def looks(conf: ResolvConf) -> list[str]:
    """What it finds, a pause later."""
    return [str(one) for one in conf.changed(next(TIMES))]


def test_a_file_that_was_not_written_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = ResolvConf(lambda _: None, path)
    assert looks(conf) == ["192.0.2.1"]
    monkeypatch.setattr(Path, "read_text", lambda *_: pytest.fail("read again"))
    assert looks(conf) == []


def test_a_change_is_found_after_a_pause_and_not_before(path: Path) -> None:
    conf = ResolvConf(lambda _: None, path)
    conf.changed(100.0)
    path.write_text("nameserver 192.0.2.2\nnameserver 192.0.2.3\n")
    assert conf.changed(100.0 + PAUSE - 0.1) == ()
    assert conf.changed(100.0 + PAUSE) == (Nameserver("192.0.2.2"), Nameserver("192.0.2.3"))


def test_a_file_that_is_replaced_is_found_whatever_its_time_and_size(path: Path) -> None:
    """As systemd-resolved and resolvconf write it: another file, renamed, perhaps behind a symbolic link."""
    link = path.with_name("link")
    link.symlink_to(path)
    conf = ResolvConf(lambda _: None, link)
    looks(conf)
    times = path.stat()
    new = path.with_name("new")
    new.write_text("nameserver 192.0.2.9\n")
    os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
    new.rename(path)
    assert looks(conf) == ["192.0.2.9"]


BROKEN = {
    "empty": ("", "names no nameserver"),
    "only names": ("nameserver ns.example\n", "names no nameserver"),
    "octets": ("\x00\xff", "names no nameserver"),
    "gone": (None, "No such file or directory"),
}


@pytest.mark.parametrize(("text", "fault"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_changes_nothing_and_is_logged_once(path: Path, text: str | None, fault: str) -> None:
    told: list[str] = []
    conf = ResolvConf(told.append, path)
    assert looks(conf) == ["192.0.2.1"]
    for number in range(3):
        if text is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(text + "\n" * number, "latin-1")
        assert looks(conf) == []
    assert told == [f"{path}: {fault}; the nameservers stay as they are"]
    path.write_text("nameserver 192.0.2.2\n")
    assert looks(conf) == ["192.0.2.2"]
    path.unlink()
    assert looks(conf) == []
    assert len(told) == 2, "a second fault is another one"


def test_a_system_without_the_file_is_not_a_fault(path: Path) -> None:
    """resolv.conf(5): the local host is asked then, and it was when the resolver was made."""
    path.unlink()
    told: list[str] = []
    conf = ResolvConf(told.append, path)
    assert (looks(conf), looks(conf), told) == ([], [], [])


class Written(ResolvConf):
    """A resolv.conf that can name ports."""

    def __init__(self) -> None:
        super().__init__(lambda _: None)
        self.texts: Sequence[str] = ()

    def changed(self, now: float) -> tuple[Nameserver, ...]:
        texts, self.texts = self.texts, ()
        return configured(texts) if texts else ()


def inquiry(name: str) -> Inquiry[Outcome]:
    (answer,) = yield [Question(name, RecordType.A)]
    return answer.outcome


def ask(resolver: Resolver, name: str) -> Outcome:
    return resolver.driver(5.0).start(inquiry(name)).result()


ROWS = {f"{name}.example": [["A", "192.0.2.1"]] for name in "abcde"}


def test_the_new_nameservers_are_asked_and_the_old_ones_left_alone() -> None:
    told: list[str] = []
    conf = Written()
    with (
        NameServer(ROWS) as first,
        NameServer(ROWS) as second,
        Resolver(configured([first.text]), resolv_conf=conf, tell=told.append) as resolver,
    ):
        assert ask(resolver, "a.example") is Outcome.FOUND
        conf.texts = [second.text]
        assert ask(resolver, "b.example") is Outcome.FOUND
        assert ask(resolver, "c.example") is Outcome.FOUND
        assert (first.count("b.example"), second.count("b.example"), second.count("c.example")) == (0, 1, 1)
        conf.texts = [second.text]
        assert ask(resolver, "d.example") is Outcome.FOUND
        assert told == [f"nameservers are now {second.text}"], "once, and not where nothing is different"


def test_sockets_of_former_nameservers_are_closed() -> None:
    conf = Written()
    with NameServer(ROWS) as server, Resolver(configured([server.text]), resolv_conf=conf) as resolver:
        before = len(os.listdir("/proc/self/fd"))
        for number in range(20):
            conf.texts = [server.text] if number % 2 else [closed_port(), server.text]
            ask(resolver, f"{number}.example")
        conf.texts = [closed_port()]
        ask(resolver, "last.example")
        left = len(os.listdir("/proc/self/fd")) - before
    assert left <= 4, "those of the loop's thread"


def test_what_is_in_flight_to_a_former_nameserver_is_still_answered() -> None:
    conf = Written()
    with (
        NameServer(ROWS, delay=0.3) as former,
        NameServer(ROWS) as new,
        Resolver(configured([former.text]), resolv_conf=conf) as resolver,
    ):
        resolver.start()
        before = len(os.listdir("/proc/self/fd"))
        pending = resolver.driver(5.0).start(inquiry("a.example"))
        until(lambda: resolver.flights == 1)
        conf.texts = [new.text]
        assert ask(resolver, "b.example") is Outcome.FOUND
        assert (pending.result(), former.count(), new.count()) == (Outcome.FOUND, 1, 1)
        assert len(os.listdir("/proc/self/fd")) == before + 1, "the new one's socket"


def test_a_lookup_that_waits_for_a_probe_goes_to_the_new_nameserver() -> None:
    conf = Written()
    with (
        NameServer(ROWS) as former,
        NameServer(ROWS) as new,
        Resolver(configured([former.text]), resolv_conf=conf, patience=1.0) as resolver,
    ):
        assert ask(resolver, "a.example") is Outcome.FOUND
        former.drop = True
        pending = resolver.driver(5.0).start(inquiry("b.example"))
        until(lambda: resolver.statistics.probes == 1)  # its answer would come now
        conf.texts = [new.text]
        began = time.monotonic()
        assert ask(resolver, "c.example") is Outcome.FOUND
        assert pending.result() is Outcome.FOUND
        assert time.monotonic() - began < 0.5


class Exchange:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


def test_a_former_nameserver_is_not_reported() -> None:
    former, new = Nameserver("192.0.2.1"), Nameserver("192.0.2.2")
    told: list[str] = []
    probe = Exchange()
    datagrams: Any = SimpleNamespace(ask=lambda *_: probe)
    health = Health(
        [former], datagrams, Statistics(), time.monotonic, 1.0, lambda: None, lambda: None, told.append, lambda *_: None
    )
    (server,) = health.servers
    health.failed(server, ExchangeFault(Cause.UNREACHABLE, "is gone"), 0.0)
    server.retry_at = 0.0  # the pause is over
    health.revive()
    health.replace([new])
    assert probe.cancelled
    health.heard(server)
    health.failed(server, ExchangeFault(Cause.UNREACHABLE, "is gone again"), 2.0)
    assert (health.any_up, told) == (True, ["nameserver 192.0.2.1 is gone"])


def test_what_is_known_of_a_nameserver_that_stays_is_kept() -> None:
    former, stays = Nameserver("192.0.2.1"), Nameserver("192.0.2.2")
    none: Any = None
    health = Health([former, stays], none, Statistics(), lambda: 1.0, 1.0, none, none, lambda _: None, lambda *_: None)
    health.failed(health.servers[1], ExchangeFault(Cause.UNREACHABLE, "is gone"), 0.0)
    health.replace([stays, Nameserver("192.0.2.3")])
    assert [server.fault is None for server in health.servers] == [False, True]


def test_mail_that_waits_for_dead_nameservers_gets_the_new_ones() -> None:
    """A host that comes up before its network has the wrong file, and lookups wait by then."""
    told: list[str] = []
    conf = Written()
    with (
        NameServer(ROWS, drop=True) as dead,
        NameServer(ROWS) as good,
        Resolver(configured([dead.text]), resolv_conf=conf, patience=PATIENCE, tell=told.append) as resolver,
    ):
        assert ask(resolver, "a.example") is Outcome.TEMPFAIL
        conf.texts = [good.text]
        began = time.monotonic()
        assert ask(resolver, "b.example") is Outcome.FOUND
        assert ask(resolver, "a.example") is Outcome.FOUND, "that it failed is forgotten"
        assert time.monotonic() - began < PATIENCE
        time.sleep(2 * PATIENCE)  # a probe of the former one ends
    assert told[1:] == [f"nameservers are now {good.text}"]


@pytest.mark.parametrize(("nameservers", "followed"), [("system", True), (("192.0.2.53",), False), ("none", False)])
def test_only_the_systems_nameservers_are_followed(
    nameservers: str | tuple[str, ...], followed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    monkeypatch.setattr(build.resolver, "ResolvConf", lambda tell: made.append(tell))
    dns = type(Configuration().dns)(nameservers=nameservers)
    make_resolver(Configuration(dns=dns), print).close()
    assert made == ([print] if followed else [])
