# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables, as the newest migration leaves them (`assay.store.migrations`).

There are three kinds. *Samples* are single messages with their findings, for search. *Counts* a day are for overviews,
so that no page reads millions of messages. *Groups* are what aggregate reports consist of: one for each combination of
values that RFC 9990, 3.1.1.7 wants a record of its own for. All three are written in one transaction, so they add up,
together with the ids in `seen`, so that a row that comes again is not counted again.

Days are days since 1970-01-01 UTC, times are Unix milliseconds, and domains are A-labels in lower case.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    false,
    text,
)

metadata = MetaData()

#: The ids of all rows that were written, for `assay.store.retention.SEEN_DAYS`: also of those that are only counted.
seen = Table(
    "seen",
    metadata,
    Column("id", LargeBinary(16), primary_key=True),
    Column("day", Integer, nullable=False),  # when it was written
    sqlite_with_rowid=False,
)

#: `MessageRow`, a row each.
messages = Table(
    "messages",
    metadata,
    Column("id", LargeBinary(16), primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("host", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("direction", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("client_name", Text, nullable=False),
    Column("helo", Text, nullable=False),
    Column("null_sender", Boolean, nullable=False),
    Column("sender_domain", Text, nullable=False),
    Column("author_domain", Text, nullable=False),
    Column("organizational_domain", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("recipient_count", Integer, nullable=False),
    Column("recipient_domains", Text, nullable=False),  # JSON: texts; empty without any, as all JSON here
    Column("exempt", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("decided_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("override", Text, nullable=False),
    Column("reply", Text, nullable=False),
    Column("watched", Text, nullable=False),  # JSON: pairs of action and key or rule
    Column("signed", Text, nullable=False),
    Column("sealed", Text, nullable=False),
    Column("rewritten", Text, nullable=False),
    Column("milliseconds", Integer, nullable=False),
    Column("waits", Text, nullable=False),  # JSON: pairs of stage and milliseconds
    Column("further_findings", Integer, nullable=False),
    Column("dmarc_result", Text, nullable=False),  # of its finding; empty without one
    Column("published", BigInteger),  # the record that applied; without it, the rest of DMARC is empty
    Column("policy", Text, nullable=False),
    Column("disposition", Text, nullable=False),
    Column("dkim_aligned", Boolean, nullable=False),
    Column("spf_aligned", Boolean, nullable=False),
    Column("reasons", Text, nullable=False),  # JSON: pairs of type and comment
    Column("report_mail", Boolean, nullable=False),
    Column("sender", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("login", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("report_group", BigInteger),  # in `report_groups`; none if it is in no report
    Index("messages_time", "time"),
    Index("messages_queue", "queue"),
    Index("messages_message_id", "message_id"),
    Index("messages_author_domain", "author_domain", "time"),
    Index("messages_sender_domain", "sender_domain", "time"),
    Index("messages_client", "client", "time"),
)

#: `FindingRow`, a row each.
findings = Table(
    "findings",
    metadata,
    Column("message", LargeBinary(16), nullable=False),
    Column("number", SmallInteger, nullable=False),
    Column("method", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("domain", Text, nullable=False),
    Column("selector", Text, nullable=False),
    Column("aligned", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    PrimaryKeyConstraint("message", "number"),
    sqlite_with_rowid=False,
)

#: What the DNS answered while a message was judged, only if the operator keeps it: a row for each message.
answers = Table(
    "answers",
    metadata,
    Column("message", LargeBinary(16), primary_key=True),
    Column("answers", Text, nullable=False),  # JSON: `AnswerRow` each
    Column("further_answers", Integer, nullable=False),
    sqlite_with_rowid=False,
)

#: The addresses of people, only if the operator keeps them, for search.
addresses = Table(
    "addresses",
    metadata,
    Column("message", LargeBinary(16), nullable=False),
    Column("role", Text, nullable=False),  # sender, author, login, recipient
    Column("number", SmallInteger, nullable=False),
    Column("address", Text, nullable=False),  # as kept in the message
    Column("folded", Text, nullable=False),  # in lower case and without angle brackets, for search
    PrimaryKeyConstraint("message", "role", "number"),
    Index("addresses_folded", "folded"),
    sqlite_with_rowid=False,
)

#: How many verdicts of a day have a word. `kind` says what `subject` and `source` are; the last three are of inbound
#: mail only:
#: - result: a finding's key; the word is its result.
#: - action: the key or rule that decided; the word is the action. watched: the same of what was in dry run.
#: - host: a host of ours; the word is the direction.
#: - domain: an author domain; the word is the DMARC result, or "none".
#: - source: a client address; the word is the DMARC result, or "none".
#: - failing: an author domain, and in `source` the client that failed DMARC with it; the word is the disposition.
#: Of these three, names that are rare on a day are counted together under the empty name (`assay.store.folding`).
counts = Table(
    "counts",
    metadata,
    Column("day", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("word", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    PrimaryKeyConstraint("day", "kind", "subject", "source", "word"),
    sqlite_with_rowid=False,
)

#: The DMARC records that applied, each text once.
published = Table(
    "published",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),  # of its content
    Column("domain", Text, nullable=False),  # the policy domain
    Column("record", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("first_seen", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
    Index("published_domain", "domain"),
)

#: The records of aggregate reports (RFC 9990, 3.1.1.7), by day and published policy.
report_groups = Table(
    "report_groups",
    metadata,
    Column("day", Integer, nullable=False),
    Column("published", BigInteger, nullable=False),
    Column("id", BigInteger, nullable=False),  # of its content
    Column("client", Text, nullable=False),
    Column("author_domain", Text, nullable=False),
    Column("null_sender", Boolean, nullable=False),
    Column("sender_domain", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("disposition", Text, nullable=False),
    Column("dkim_aligned", Boolean, nullable=False),
    Column("spf_aligned", Boolean, nullable=False),
    Column("reasons", Text, nullable=False),  # JSON: pairs of type and comment
    Column("dkim", Text, nullable=False),  # JSON: domain, selector, result, reason, aligned of each signature
    Column("spf", Text, nullable=False),  # JSON: domain, result, reason of MAIL FROM; empty without it
    Column("count", BigInteger, nullable=False),
    Column("report_mail", BigInteger, nullable=False),  # how many of them are reports or bounces themselves
    Column("supplement", Integer, nullable=False, server_default="0"),  # in which report about the day they are
    PrimaryKeyConstraint("day", "published", "id"),
    sqlite_with_rowid=False,
)

#: Which days reports were planned for. What is written after the first report about a day is closed is in a supplement:
#: a further report about the same day.
report_days = Table(
    "report_days",
    metadata,
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("planned", BigInteger, nullable=False),  # Unix seconds
    Column("dry_run", Boolean, nullable=False),
    Column(
        "closed", Integer, nullable=False, server_default="1"
    ),  # the report and supplements that nothing is added to
    Column("noted", Integer, nullable=False, server_default="1"),  # of these, those whose reports are in `reports`
    Column("late", Boolean, nullable=False, server_default=false()),  # whether the next supplement has messages
)

#: The reports that were asked for, and what became of each: an aggregate report for each domain, policy and day; a
#: failure report for messages that failed in the same way.
reports = Table(
    "reports",
    metadata,
    Column("id", Text, primary_key=True),  # the Report-ID (RFC 9990, 3.5.1)
    Column("day", Integer, nullable=False),
    Column("domain", Text, nullable=False),  # the policy domain
    Column("published", Text, nullable=False),  # JSON: the records in `published` that say the same, the newest first
    Column("state", Text, nullable=False),  # `assay.store.outbox.ReportState`
    Column("why", Text, nullable=False),  # it is in that state, in one clause
    Column("due", BigInteger, nullable=False),  # when it is to be sent, in Unix seconds
    Column("planned", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),
    Column("messages", BigInteger, nullable=False),  # that it is about
    Column("octets", BigInteger, nullable=False),  # of the compressed file or the message; 0 before it is made
    Column("kind", Text, nullable=False, server_default="aggregate"),  # `assay.store.outbox.ReportKind`
    Column("form", Text, nullable=False, server_default="whole"),  # `assay.store.outbox.ReportForm`
    Column("part_of", Text, nullable=False, server_default=text("''")),  # the report that was too large
    Column("part", Integer, nullable=False, server_default="0"),  # from 1
    Column("parts", Integer, nullable=False, server_default="0"),  # that there are
    Column(
        "first_group", Text, nullable=False, server_default=text("''")
    ),  # JSON: published and id of a part's first group
    Column("last_group", Text, nullable=False, server_default=text("''")),
    Column("supplement", Integer, nullable=False, server_default="0"),  # to the report about the day; 0 for this
    Index("reports_part_of", "part_of"),
    Index("reports_due", "state", "due"),
    Index("reports_domain", "domain", "day"),
    Index("reports_day", "day", "state", "form"),  # what the page counts
)

#: Where a report goes, and what became of it there.
deliveries = Table(
    "deliveries",
    metadata,
    Column("report", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("organization", Text, nullable=False),  # the organizational domain; empty if the address is a URI still
    Column("state", Text, nullable=False),  # `assay.store.outbox.ReportState`
    Column("why", Text, nullable=False),  # the reply of the relay, or why nothing is sent
    Column("tries", Integer, nullable=False),
    Column("due", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),
    Column("token", Text, nullable=False),  # in the envelope sender, by which a bounce is recognized
    Column("max_octets", BigInteger),  # of a message, that the record wants there
    PrimaryKeyConstraint("report", "address"),
    Index("deliveries_token", "token"),
    Index("deliveries_organization", "organization", "changed"),
)

#: What a failure report is made of, until it has come to its end, or for a day.
incidents = Table(
    "incidents",
    metadata,
    Column("report", Text, primary_key=True),
    Column("time", BigInteger, nullable=False),  # of the first message
    Column("content", LargeBinary, nullable=False),  # `assay.store.incidents.Incident`, with the header
    sqlite_with_rowid=False,
)

#: Addresses and domains that no report goes to; nor is any about the domains, or what is below them.
suppressions = Table(
    "suppressions",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("until", BigInteger, nullable=False),  # Unix seconds; 0 for ever
    Column("why", Text, nullable=False),
    Column("added", BigInteger, nullable=False),
)

#: Reports that came in, each once: DMARC aggregate and failure reports, and TLS reports.
received_reports = Table(
    "received_reports",
    metadata,
    Column("id", LargeBinary(16), primary_key=True),  # of what names it
    Column("kind", Text, nullable=False),  # aggregate, failure, tls
    Column("received", BigInteger, nullable=False),
    Column("sender", Text, nullable=False),  # the author domain of the mail; empty for a file
    Column("sender_dmarc", Text, nullable=False),  # our result of DMARC for it; empty if it is not known
    Column("organization", Text, nullable=False),
    Column("contact", Text, nullable=False),
    Column("report_id", Text, nullable=False),
    Column("domain", Text, nullable=False),
    Column("begin", BigInteger, nullable=False),
    Column("end", BigInteger, nullable=False),
    Column("good", BigInteger, nullable=False),  # messages that passed DMARC; of a TLS report, sessions
    Column("bad", BigInteger, nullable=False),
    Column("report", Text, nullable=False),  # JSON: all it says, but the rows of an aggregate report
    Index("received_reports_received", "received"),
    # In the order of lists, the newest first.
    Index("received_reports_begin", "begin", "received", "id"),
    Index("received_reports_kind", "kind", "begin", "received", "id"),
    Index("received_reports_domain", "domain", "begin", "received", "id"),
)

#: The rows of aggregate reports that came in.
received_rows = Table(
    "received_rows",
    metadata,
    Column("report", LargeBinary(16), nullable=False),
    Column("number", Integer, nullable=False),
    Column("day", Integer, nullable=False),  # on which the period of the report begins
    Column("domain", Text, nullable=False),  # of the report
    Column("source", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("disposition", Text, nullable=False),
    Column("dkim_aligned", Boolean, nullable=False),
    Column("spf_aligned", Boolean, nullable=False),
    Column("author_domain", Text, nullable=False),
    Column("sender_domain", Text, nullable=False),
    Column("recipient_domain", Text, nullable=False),
    Column("reasons", Text, nullable=False),  # JSON: pairs of type and comment
    Column("dkim", Text, nullable=False),  # JSON: domain, selector, result of each signature
    Column("spf", Text, nullable=False),  # JSON: domain, scope, result
    PrimaryKeyConstraint("report", "number"),
    Index("received_rows_source", "source", "day", "report"),
    Index("received_rows_author", "author_domain", "report"),
    sqlite_with_rowid=False,
)

#: What the reports of a kind say, by the day on which their period begins. The columns are those of `received_reports`.
received_days = Table(
    "received_days",
    metadata,
    Column("day", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("good", BigInteger, nullable=False),
    Column("bad", BigInteger, nullable=False),
    PrimaryKeyConstraint("day", "kind"),
    sqlite_with_rowid=False,
)

#: What the rows of aggregate reports say, by day and domain of the report. Names that are rare there are counted
#: together: those of an author domain under the empty source, and rare author domains under the empty name, too
#: (`assay.store.received_counts`).
received_counts = Table(
    "received_counts",
    metadata,
    Column("day", Integer, nullable=False),
    Column("domain", Text, nullable=False),
    Column("author_domain", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("passed", BigInteger, nullable=False),  # messages, by DMARC
    Column("failed", BigInteger, nullable=False),
    PrimaryKeyConstraint("day", "domain", "author_domain", "source"),
    sqlite_with_rowid=False,
)

#: What came in as a report and cannot be used: the newest, with their content if it is not too large.
unreadable_reports = Table(
    "unreadable_reports",
    metadata,
    Column("id", LargeBinary(16), primary_key=True),  # of the content
    Column("received", BigInteger, nullable=False),
    Column("sender", Text, nullable=False),
    Column("sender_dmarc", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("octets", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),  # empty if it is larger than is kept
    Index("unreadable_reports_received", "received"),
)
