# SPDX-License-Identifier: GPL-3.0-or-later
"""The child to which the MTA hands the reports about our domains, and the bounces of our own reports, by LMTP.

A process of its own takes each mail: it opens the database, has the mail read by one that can open nothing
(`assay.reports.incoming.confine`), writes, and ends. So nothing that a mail does reaches the next one, and a database
that does not answer makes nobody wait but that mail's MTA.

What is taken is answered with 250, also if it is unreadable: a bounce would go to whoever is named as its sender. Only
while the database is away is a mail deferred, and the MTA tries again.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from assay import files
from assay.config import Configuration
from assay.config.endpoint import Endpoint
from assay.daemon.child import Kind, Tether
from assay.daemon.forked import ForkedError, forked
from assay.daemon.held import listen
from assay.daemon.meter import LogMeter
from assay.daemon.seldom import Seldom
from assay.log import Log
from assay.metrics.page import name_of
from assay.model.name import ReversePath
from assay.model.printable import marked
from assay.store.feeding import UnavailableError

if TYPE_CHECKING:  # the libraries for it are loaded in the process of the collector only
    from assay.reports.incoming.delivery import DeliveredMail

MAX_TAKING = 2  # mails at a time, our choice: each may take what `confine` allows
#: How long a mail may wait for its turn, and then take; our choice. Together less than an MTA waits.
TURN_SECONDS = 200.0
TAKE_SECONDS = 390.0
LAST_SECONDS = 20.0  # for the mails that are being taken at the end, our choice; the MTA brings the others again
_TICK_SECONDS = 1.0
_BACKLOG = 64
_LOCAL_OCTETS = 80  # of a recipient in the log


def kind(configuration: Configuration, log: Log) -> tuple[Kind, ...]:
    """The collector, if the configuration asks for one."""
    if not configuration.reports.incoming.listen:
        return ()
    return (Kind("collector", lambda tether: run(tether, configuration, log), drain_seconds=LAST_SECONDS),)


def run(tether: Tether, configuration: Configuration, log: Log) -> int:
    """Take mails until the order to drain. Call it in a new child process.

    :returns: the exit code.
    """
    # The libraries for it are loaded in this process only, and before it forks.
    import assay.reports.incoming.delivery  # noqa: F401  # for the processes that it forks

    section = configuration.reports.incoming
    endpoint = Endpoint.parse(section.listen)
    try:
        listening = listen(endpoint, int(section.socket_mode, 8), _BACKLOG)
    except OSError as error:
        log.error(f"collector: reports.incoming.listen: {section.listen}: {endpoint.explain(error)}")
        return os.EX_UNAVAILABLE
    asyncio.run(_serve(tether, listening, configuration, log))
    if endpoint.path:
        Path(endpoint.path).unlink(missing_ok=True)
    return os.EX_OK


async def _serve(tether: Tether, listening: socket.socket, configuration: Configuration, log: Log) -> None:
    from assay.daemon.lmtp import LmtpServer
    from assay.reports.incoming.read import MAX_MAIL_OCTETS

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: log.error(f"collector: {context.get('exception', context)!r}"))
    collector = Collector(tether, configuration, log)
    host = configuration.identity.authserv_id or socket.gethostname()
    server = LmtpServer(host, MAX_MAIL_OCTETS, collector.take, collector.refused)
    await server.serve(listening)
    ordered = asyncio.Event()
    loop.add_reader(tether.control, ordered.set)
    log_meter = LogMeter(tether.page, "collector", log)
    tether.ready()
    while not ordered.is_set():
        log_meter.publish()
        try:
            async with asyncio.timeout(_TICK_SECONDS):
                await ordered.wait()
        except TimeoutError:
            continue
    loop.remove_reader(tether.control)
    await server.close(LAST_SECONDS)


class Collector:
    """Takes mails, counts them and logs what became of them."""

    def __init__(self, tether: Tether, configuration: Configuration, log: Log) -> None:
        self._page = tether.page
        self._configuration = configuration
        self._log = log
        self._turns = asyncio.Semaphore(MAX_TAKING)
        self._deferring = Seldom()
        self._setting_aside = Seldom()
        for outcome in ("stopped", "ignored", "unknown"):
            self._page.add(name_of("incoming_bounces", outcome), 0)
        for kind_of_report in ("aggregate", "failure", "tls"):
            self._page.add(name_of("incoming_reports", kind_of_report, "new"), 0)
        self._page.add(name_of("incoming_reports", "unknown", "unreadable"), 0)
        self._page.add("incoming_deferred", 0)

    async def take(self, sender: ReversePath, recipient: str, mail: bytes) -> str:
        """Take a mail.

        :returns: the reply.
        """
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            return self._defer("others take too long")
        try:
            answer = await forked(partial(_deliver, self._configuration, sender, recipient, mail), TAKE_SECONDS)
        except (ForkedError, OSError) as error:
            self._log.error(
                f"collector: a mail could not be taken, and the MTA tries again: {_last_line(files.fault(error))}"
            )
            self._page.add("incoming_deferred")
            return "451 4.3.0 the mail could not be taken; the log has the reason"
        finally:
            self._turns.release()
        from assay.reports.incoming.delivery import DeliveredMail

        delivered = msgspec.msgpack.decode(answer, type=str | DeliveredMail)
        if isinstance(delivered, str):
            return self._defer(delivered)
        self._note(delivered)
        return "250 2.0.0 taken"

    def refused(self, recipient: str) -> None:
        """A mail was larger than is taken."""
        about = f" for {marked(recipient[:_LOCAL_OCTETS])}" if recipient else ""
        self._report("unknown", "unreadable", f"a mail{about} is larger than is taken, and was refused")

    def _note(self, delivered: DeliveredMail) -> None:
        for bug in delivered.bugs:
            self._log.error(f"collector: a bug in reading a report, which is kept as unreadable: {_last_line(bug)}")
        if delivered.trouble and self._setting_aside.due(time.monotonic()):
            self._log.warning(f"reports.incoming.keep_unreadable: {delivered.trouble}")
        if delivered.bounce:
            self._page.add(name_of("incoming_bounces", delivered.bounce))
            if delivered.bounce == "stopped":
                self._log.info(f"report came back: {delivered.about}")
            else:
                self._log.info(f"mail to a bounce address: {delivered.about}")
        for report in delivered.reports:
            self._report(report.kind, report.outcome, report.text)

    def _report(self, kind_of_report: str, outcome: str, text: str) -> None:
        self._page.add(name_of("incoming_reports", kind_of_report, outcome))
        self._log.info(f"report came in: {text}")

    def _defer(self, why: str) -> str:
        self._page.add("incoming_deferred")
        if self._deferring.due(time.monotonic()):
            self._log.warning(f"collector: mails with reports are deferred: {why}")
        return "451 4.3.0 the store cannot be used now; try again later"


def _deliver(configuration: Configuration, sender: ReversePath, recipient: str, mail: bytes) -> bytes:
    """In the process for one mail."""
    from assay.reports.incoming.delivery import deliver

    try:
        return _encode(deliver(configuration, sender, recipient, mail, now=time.time()))
    except UnavailableError as error:
        return _encode(str(error))


_encode = msgspec.msgpack.encode


def _last_line(error: object) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[-1]
