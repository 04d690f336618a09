# SPDX-License-Identifier: GPL-3.0-or-later
"""The families of figures: name, type, labels and meaning. Exposition, documentation and dashboard are made of them.

Names and labels are the words of the configuration and the log. Prometheus gets them with ``assay_`` in front and, for
counters, ``_total`` behind.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

#: Bounds of the classes of waiting, in seconds: from an answer of the cache to the whole budget of a message.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Type(StrEnum):
    """Types of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Family(Struct, frozen=True):
    """One family.

    :ivar help: one sentence.
    :ivar labels: the names of its labels.
    """

    name: str
    type: Type
    help: str
    labels: tuple[str, ...] = ()

    @property
    def exposed(self) -> str:
        """The name in Prometheus, as in a query; of a histogram, without ``_bucket``, ``_sum`` or ``_count``."""
        return f"assay_{self.name}_total" if self.type is Type.COUNTER else f"assay_{self.name}"


FAMILIES = (
    Family(
        "verdicts",
        Type.COUNTER,
        "Verdicts. A message that reaches its end has one at stage eom; one at an earlier stage refused it.",
        ("stage", "action"),
    ),
    Family("results", Type.COUNTER, "Results of the judged messages, in the words of the log.", ("method", "result")),
    Family(
        "decisions",
        Type.COUNTER,
        "Verdicts that a configuration key or a rule decided, by its name.",
        ("by", "action"),
    ),
    Family("dry_run_decisions", Type.COUNTER, "What keys and rules in dry run would have done.", ("by", "action")),
    Family(
        "outgoing",
        Type.COUNTER,
        "Messages of your own at their end, by whether they are signed: yes or no.",
        ("signed",),
    ),
    Family(
        "forwarded",
        Type.COUNTER,
        "What was done with mail that leaves again: rewritten (its sender), unhelped (rewritten, but DMARC still fails "
        "at the next hop), turned_back (an SRS address among its recipients) or sealed.",
        ("act",),
    ),
    Family("wait_seconds", Type.HISTOGRAM, "How long the MTA waited for the reply at a stage.", ("stage",)),
    Family("message_wait_seconds", Type.HISTOGRAM, "How long the MTA waited for one message, all stages together."),
    Family("sessions", Type.GAUGE, "Open connections of MTAs."),
    Family("exceptions", Type.COUNTER, "Bugs in assay that a message ran into; milter.on_error decided about it."),
    Family("log_lines_lost", Type.COUNTER, "Lines of the log that were lost because it did not take them."),
    Family(
        "dns_questions",
        Type.COUNTER,
        "Questions of the evaluations, by where the answer came from: local, cache, shared (another message's query "
        "was in flight), asked, refused (too many at a time) or spent (no time left).",
        ("source",),
    ),
    Family(
        "dns_stale",
        Type.COUNTER,
        "Failed lookups, and questions for which no time was left, that an expired answer stood in for "
        "(dns.stale_seconds).",
    ),
    Family(
        "dns_queries",
        Type.COUNTER,
        "Queries to nameservers, by outcome: found, nodata, nxdomain, tempfail (an answer of no use), "
        "truncated, timeout, unreachable, other "
        "or too long.",
        ("server", "transport", "outcome"),
    ),
    Family("dns_query_seconds", Type.HISTOGRAM, "How long nameservers took to answer.", ("server",)),
    Family("dns_nameserver_up", Type.GAUGE, "How many workers believe that a nameserver answers.", ("server",)),
    Family("dns_slow_names", Type.GAUGE, "Domains whose nameservers have been slow in the last minute."),
    Family(
        "store_rows",
        Type.COUNTER,
        "Verdicts on their way to the store: spooled, lost (the recorder took none) or dropped (the spool was full).",
        ("outcome",),
    ),
    Family(
        "store_rows_taken",
        Type.COUNTER,
        "Verdicts that the database or the broker has taken; some twice, if a process died.",
        ("backend",),
    ),
    Family("store_rows_refused", Type.COUNTER, "Verdicts that can never be written and are left out.", ("backend",)),
    Family("store_up", Type.GAUGE, "1 if the database or the broker takes verdicts.", ("backend",)),
    Family("store_spool_octets", Type.GAUGE, "The size of the spool."),
    Family("store_spool_seconds", Type.GAUGE, "How long the oldest verdict in the spool has waited; 0 for none."),
    Family("reports_sender", Type.GAUGE, "1 if this host is the one that sends DMARC reports now."),
    Family(
        "incoming_reports",
        Type.COUNTER,
        "Reports that came in by LMTP, by kind (aggregate, failure, tls; unknown if it cannot be read) and outcome: "
        "new, known (it came before), replaces (it passed DMARC, and a copy that did not is removed) or unreadable (it "
        "cannot be used).",
        ("kind", "outcome"),
    ),
    Family(
        "incoming_bounces",
        Type.COUNTER,
        "Mails to the bounce addresses of reports: stopped (the destination gets no more), ignored (it does not say "
        "that the report came back) or unknown (no report has this address).",
        ("outcome",),
    ),
    Family(
        "incoming_deferred", Type.COUNTER, "Mails with reports that the MTA has to bring again: the store was away."
    ),
    Family("reports_planned", Type.COUNTER, "Aggregate reports that were planned, without those that are withheld."),
    Family(
        "reports_withheld",
        Type.COUNTER,
        "Reports that a domain, or one of its destinations, does not get, by kind (aggregate or failure) and reason: "
        "unasked (no rua), undecided (no message was taken or refused for good), report_mail (all messages were "
        "reports or bounces), few (reports.min_messages), suppressed, unusable (the address, or its host does not "
        "agree), size, failing (all mail of the destination failed DMARC) or limit (reports.max_a_day, "
        "reports.max_per_destination, and those of reports.failure).",
        ("kind", "reason"),
    ),
    Family(
        "reports_tried",
        Type.COUNTER,
        "Tries to deliver a report to a destination, by kind (aggregate or failure) and outcome: sent, deferred, "
        "refused, divided (it is too large there, and its parts are sent), unknown (the DNS did not say whether it "
        "wants reports), given_up or dry_run.",
        ("kind", "outcome"),
    ),
    Family("reports_waiting", Type.GAUGE, "Reports that wait to be sent; 0 on a host that does not send."),
    Family("reports_waiting_seconds", Type.GAUGE, "How long ago the oldest of these was planned; 0 for none."),
    Family(
        "reports_looked_seconds", Type.GAUGE, "When this host last looked for reports to send, in seconds since 1970."
    ),
    Family("info", Type.GAUGE, "1, with the version of assay.", ("version",)),
    Family("workers", Type.GAUGE, "Workers that serve new connections."),
    Family("deaths", Type.COUNTER, "Processes that died and were replaced.", ("kind",)),
    Family("reloads", Type.COUNTER, "Reloads of the configuration: done or failed.", ("result",)),
    Family("configuration_generation", Type.GAUGE, "1 for the configuration of the start, one more with each reload."),
    Family("start_time_seconds", Type.GAUGE, "When the daemon started, in seconds since 1970."),
)
BY_NAME = {family.name: family for family in FAMILIES}
