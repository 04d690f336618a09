# SPDX-License-Identifier: GPL-3.0-or-later
"""One worker process: libmilter's threads, one DNS loop thread, and one control thread that reads a pipe.

HUP, TERM and INT end it at once, by libmilter's own thread or the kernel, and Python's handlers never run under
``milter.main()``. So the supervisor controls a worker by a pipe (`Tether`), which a separate thread reads.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable

from assay import files, policy
from assay.config import ConfigError, Configuration, make_resolver, make_settings, make_trust
from assay.daemon import callbacks, connection, fitness
from assay.daemon.capacity import DNS_DESCRIPTORS, STACK, capacity, granted, kept_descriptors
from assay.daemon.child import Kind, Order, Tether
from assay.daemon.gate import Gate
from assay.daemon.journal import open_journal
from assay.daemon.keeper import Keeper, keeper_of
from assay.daemon.listener import Listener
from assay.daemon.meter import Copies, LogMeter, Meter
from assay.inquiry import Driver
from assay.log import Log
from assay.memory import Memory
from assay.model.wording import counted
from assay.resolver import Allowance, Resolver
from assay.session import Publications, Session, Settings
from assay.store.channel import RowChannel

#: When the garbage collector looks for cycles (``gc.set_threshold``). A message makes about two thousand objects and no
#: cycle, so the default of 700 objects is wasted work. Twenty thousand objects are a few megabytes.
COLLECT = (20_000, 20, 50)
_M_ARENA_MAX = -8  # <malloc.h>, mallopt(3)
#: The depth at which a recursion ends with an error; we use a tenth. A level takes less than 2 KiB of stack, so that
#: the error does not become a crash.
RECURSION = 500
_ATTRIBUTES = 64  # octets: more than a pthread_attr_t has anywhere
_POLL_SECONDS = 0.1  # how often a draining worker checks its sessions
_LAST_LINES_SECONDS = 1.0  # at most, for lines that nobody has read when a process ends
_GRACE_SECONDS = 10.0  # beyond drain_seconds: longer than the supervisor's, which kills and logs
_LAST_SECONDS = 5.0  # for open sessions of a worker that cannot go on; some may hang
_LINGER_SECONDS = 1.0  # a session accepted just before the socket went deaf may not be counted yet


def kind(configuration: Configuration, listener: Listener, channel: RowChannel, log: Log) -> Kind:
    """The workers, each on its own core if there are enough.

    All files are read here, once for all workers: a worker that is restarted must not sign with a key that was put
    in place since, under the selector of the old one.

    The order of the cores is random, so that several daemons with few workers do not share the same cores.
    """
    cores = list(os.sched_getaffinity(0))
    random.shuffle(cores)
    try:
        settings, trust = make_settings(configuration), make_trust(configuration)
    except ValueError as error:  # changed since the configuration was checked
        raise ConfigError(str(error)) from error
    return Kind(
        name="worker",
        run=lambda tether: run(
            tether, configuration, settings, trust, listener, channel, log, core=cores[tether.slot % len(cores)]
        ),
        count=configuration.milter.worker_count,
        drain_seconds=configuration.milter.drain_seconds,
        serves_mail=True,
    )


def run(
    tether: Tether,
    configuration: Configuration,
    settings: Settings,
    trust: policy.Trust,
    listener: Listener,
    channel: RowChannel,
    log: Log,
    *,
    core: int,
) -> int:
    """Serve until the order to drain. Call it in a new child process.

    :param core: the core to run on.
    :returns: the exit code.
    """
    keep_to(core, log)
    share_one_arena()
    give_small_stacks()
    meter = Meter(tether.page)
    budget = configuration.dns.budget_seconds
    bound = capacity(configuration.milter.max_sessions, configuration.milter.worker_count, granted())
    sessions = Gate(listener.descriptor, bound, kept_descriptors(granted().descriptors or DNS_DESCRIPTORS * 2), log)
    resolver = make_resolver(configuration, log.warning, meter.query, sessions.make_room)
    resolver.start()
    keeper = keeper_of(configuration, settings, channel, log)

    publications = Publications(lambda _=None: resolver.driver(budget), log.warning)
    service = connection.Service(
        new_session=session_maker(
            settings,
            trust,
            resolver,
            budget,
            publications,
            notes=keeper is not None and configuration.store.dns_answers,
        ),
        no_reply=connection.silent_steps(settings),
        actions=connection.actions(settings),
        # A dry run refuses nothing, not even a message that we failed to judge.
        on_error=policy.OnError.ACCEPT if configuration.milter.dry_run else configuration.milter.on_error,
        on_no_client=policy.OnError.ACCEPT if configuration.milter.dry_run else policy.OnError.TEMPFAIL,
        journal=open_journal(log, configuration.log.facts, configuration.log.enterprise, meter, keeper),
        sessions=sessions,
    )
    callbacks.install(service)
    tick = _ticker(tether, meter, resolver, sessions, keeper, log)
    fitness.watch_threads(sessions)
    _begin("gate", sessions.watch)
    _begin("control", _control, tether, listener, sessions, configuration.milter.drain_seconds, log, tick, keeper)
    if settings.signing is not None:
        publications.prepare(settings.signing, int(time.time()))
    collect_garbage_seldom()
    tether.ready()
    return callbacks.serve(log)


def session_maker(
    settings: Settings,
    trust: policy.Trust,
    resolver: Resolver,
    budget: float,
    publications: Publications | None = None,
    *,
    notes: bool = False,
) -> Callable[[Callable[[], None]], Session]:
    """What makes the session of each connection, from what to call before the MTA waits. They share one memory.

    :param budget: seconds that a message may wait for the DNS.
    :param notes: whether verdicts have the answers of the DNS.
    """
    memory = Memory()
    clock = time.monotonic if notes else None

    def new_session(on_wait: Callable[[], None]) -> Session:
        allowance = Allowance(budget, on_wait)  # all drivers of a connection share it, one message after the other

        def new_driver(seconds: float | None = None) -> Driver:
            return resolver.driver(seconds or budget, allowance=allowance)

        return Session(settings, trust, new_driver, memory, publications, allowance, clock)

    return new_session


def _ticker(
    tether: Tether,
    meter: Meter,
    resolver: Resolver,
    sessions: connection.SessionCount,
    keeper: Keeper | None,
    log: Log,
) -> Callable[[], None]:
    """What the control thread does again and again: publish what is counted, and log troubles of the DNS."""
    log_meter, copies = LogMeter(tether.page, "worker", log), Copies(tether.page)

    def tick() -> None:
        troubles = resolver.statistics.troubles
        if line := troubles.line(time.monotonic()):
            log.info(line)
        meter.publish(sessions.value, resolver)
        if keeper is not None:
            keeper.tick(copies)
        log_meter.publish(troubles.slowest)

    return tick


def keep_to(core: int, log: Log) -> None:
    """Run this process on one core, and keep its threads from interrupting each other.

    Only one of our threads can run Python at a time. On several cores, threads wake up at every callback and find the
    interpreter taken, which nearly doubles a message's CPU time when sessions overlap. With SCHED_BATCH (sched(7)) a
    thread that wakes another one keeps the core until it waits itself, since the other one could not run Python before
    that anyway. Neither needs a privilege.
    """
    try:
        os.sched_setaffinity(0, {core})
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except (OSError, AttributeError) as error:  # forbidden here, the core is gone, or not Linux
        log.debug(f"threads are not kept to one core: {files.fault(error)}")


def collect_garbage_seldom() -> None:
    """Let the garbage collector skip the objects that there are by now, which live as long as the process."""
    gc.freeze()
    gc.set_threshold(*COLLECT)


def share_one_arena() -> None:
    """Make glibc's malloc serve all threads from one heap. Call it before there are threads.

    glibc gives each thread its own heap, up to eight per core, and each heap keeps the largest body chunks its thread
    ever held: megabytes that grow with the messages. Only the thread that has the interpreter allocates much, so
    threads do not contend for the heap.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def give_small_stacks() -> None:
    """Give new threads a stack of `STACK`, and end recursions well within it. Call it before there are threads."""
    sys.setrecursionlimit(RECURSION)
    with contextlib.suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL(None)
        attributes = ctypes.create_string_buffer(_ATTRIBUTES)
        if not library.pthread_attr_init(attributes):
            library.pthread_attr_setstacksize(attributes, ctypes.c_size_t(STACK))
            library.pthread_setattr_default_np(attributes)


def _begin(name: str, act: Callable[..., None], *arguments: object) -> None:
    """Begin a thread of ours."""
    threading.Thread(target=act, args=arguments, name=name, daemon=True).start()


def _control(
    tether: Tether,
    listener: Listener,
    sessions: Gate,
    patience: float,
    log: Log,
    tick: Callable[[], None],
    keeper: Keeper | None,
) -> None:
    """Wait for the order to drain, or until the worker cannot go on. Drain, and end the process.

    libmilter cannot drain: stopping it resets live sessions. So we make the listening socket deaf and end the process
    after the last session.
    """
    code = os.EX_SOFTWARE
    try:
        replaced = _wait(tether, sessions, log, tick)
        signal.alarm(math.ceil(patience + _GRACE_SECONDS))  # the kernel ends us if we cannot, and no supervisor is left
        sessions.end(refusing=not replaced and not listener.lent)
        log.debug(f"draining {counted(sessions.value, 'session')}")
        if still_open := _drain(sessions, patience, tick):
            log.warning(f"closing {counted(still_open, 'session')} still open after {patience:g} s")
        if keeper is not None:
            keeper.end()
        tick()
        log.flush(_LAST_LINES_SECONDS)
        code = os.EX_SOFTWARE if sessions.given_up else os.EX_OK
    except Exception as error:  # a bug, or no memory: only this thread can end the process
        log.error(f"this worker cannot go on: {error!r}")
    finally:
        os._exit(code)  # a thread cannot make libmilter's main() return


def _wait(tether: Tether, sessions: Gate, log: Log, tick: Callable[[], None]) -> bool:
    """Wait until the worker has to end.

    :returns: whether others serve in its place.
    """

    def look() -> None:
        tick()
        fitness.check(sessions)

    try:
        return tether.wait(look) is Order.REPLACED
    except Exception as error:
        sessions.give_up(repr(error))
        log.error(f"this worker cannot go on: {sessions.given_up}")
        return True


def _drain(sessions: Gate, patience: float, tick: Callable[[], None]) -> int:
    """Wait for the last session.

    :returns: how many are still open.
    """
    quiet_since = time.monotonic()
    deadline = quiet_since + patience
    while time.monotonic() < deadline:
        if sessions.given_up:
            deadline = min(deadline, time.monotonic() + _LAST_SECONDS)
        time.sleep(_POLL_SECONDS)
        tick()
        if sessions.value:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since >= _LINGER_SECONDS:
            return 0
    return sessions.value
