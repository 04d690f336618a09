# SPDX-License-Identifier: GPL-3.0-or-later
"""One worker process: libmilter's threads, one DNS loop thread, and one control thread that reads a pipe.

libmilter takes HUP, TERM and INT in a thread of its own and Python's handlers never run under ``milter.main()``, so
the supervisor commands a worker by a pipe (`Tether`), which a thread of its own reads.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import random
import threading
import time

from assay import policy
from assay.config import Configuration, make_resolver, make_settings, make_trust
from assay.daemon import callbacks, connection
from assay.daemon.child import Kind, Tether
from assay.daemon.journal import open_journal
from assay.daemon.listener import Listener, deafen, refuse
from assay.log import Log
from assay.memory import Memory
from assay.session import Session

#: When the collector looks for cycles (``gc.set_threshold``). A message makes some two thousand objects and no cycle,
#: so the default, every 700 objects, is work in vain; twenty thousand are a few megabytes.
COLLECT = (20_000, 20, 50)
_M_ARENA_MAX = -8  # <malloc.h>, mallopt(3)
_POLL_SECONDS = 0.1  # how often a draining worker looks whether its sessions are gone
_SETTLE_SECONDS = 0.1  # until our siblings have gone deaf too; a shared socket shut down before looks broken to them
_LINGER_SECONDS = 1.0  # a session that was accepted before the socket went deaf may not have been counted yet


def kind(configuration: Configuration, listener: Listener, log: Log) -> Kind:
    """The workers, each on a core of its own as far as there are any.

    The order of the cores is drawn by lot, so that several daemons with few workers do not all come to the same.
    """
    cores = list(os.sched_getaffinity(0))
    random.shuffle(cores)
    return Kind(
        name="worker",
        run=lambda tether: run(tether, configuration, listener, log, core=cores[tether.slot % len(cores)]),
        count=configuration.milter.worker_count,
        drain_seconds=configuration.milter.drain_seconds,
        serves_mail=True,
    )


def run(tether: Tether, configuration: Configuration, listener: Listener, log: Log, *, core: int) -> int:
    """Serve until told to drain. Call it in a fresh child process.

    :param core: the core to run on.
    :returns: the exit code.
    """
    keep_to(core, log)
    share_one_arena()
    resolver = make_resolver(configuration, log.warning)
    resolver.start()
    settings = make_settings(configuration)
    trust = make_trust(configuration)
    budget = configuration.dns.budget_seconds
    sessions = connection.SessionCount()
    memory = Memory()
    service = connection.Service(
        new_session=lambda: Session(settings, trust, lambda seconds=None: resolver.driver(seconds or budget), memory),
        no_reply=connection.silent_steps(settings.policy),
        actions=connection.actions(settings),
        # A dry run refuses nothing, a message that we failed to judge included.
        on_error=policy.OnError.ACCEPT if configuration.milter.dry_run else configuration.milter.on_error,
        journal=open_journal(log, configuration.log.facts, configuration.log.enterprise),
        sessions=sessions,
    )
    callbacks.install(service)
    threading.Thread(
        target=_control,
        args=(tether, listener, sessions, configuration.milter.drain_seconds, log),
        name="control",
        daemon=True,
    ).start()
    gc.freeze()  # what is loaded by now lives as long as the process: the collector need not look at it again
    gc.set_threshold(*COLLECT)
    tether.ready()
    return callbacks.serve(log)


def keep_to(core: int, log: Log) -> None:
    """Have this process run on one core, and its threads not interrupt each other.

    Only one of our threads can run Python at a time. On several cores they wake each other at every callback for
    nothing, to find the interpreter taken again: that nearly doubles a message's CPU when sessions overlap. And a
    thread that wakes another one keeps the core until it has to wait itself (sched(7), SCHED_BATCH), since the other
    one could not run Python before that anyway. Neither needs a privilege.
    """
    try:
        os.sched_setaffinity(0, {core})
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except (OSError, AttributeError) as error:  # forbidden here, the core is gone, or not Linux: then without
        log.debug(f"threads are not kept to one core: {error}")


def share_one_arena() -> None:
    """Have malloc serve all threads from one heap, where it is glibc's. Call it before there are threads.

    glibc gives each thread a heap of its own, up to eight a core, and each keeps the largest pieces of bodies that its
    thread ever held: megabytes that grow with the messages. Only the thread that has the interpreter allocates much, so
    there is nobody to keep apart.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _control(tether: Tether, listener: Listener, sessions: connection.SessionCount, patience: float, log: Log) -> None:
    """Wait for the order to drain, drain, and end the process.

    libmilter has no drain of its own: stopping it resets live sessions. So the listening socket is made deaf and the
    process left when the last session is gone.
    """
    replaced = tether.wait()
    shared = os.dup(listener.descriptor)
    deafen(listener.descriptor)
    if not replaced:
        time.sleep(_SETTLE_SECONDS)
        refuse(shared)
    os.close(shared)
    log.debug(f"draining {sessions.value} sessions")
    deadline = time.monotonic() + patience
    quiet_since = time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        if sessions.value:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since >= _LINGER_SECONDS:
            break
    else:
        log.warning(f"{sessions.value} sessions were still open after {patience:g} s and are cut off")
    os._exit(os.EX_OK)  # libmilter's main() does not return for a thread's sake
