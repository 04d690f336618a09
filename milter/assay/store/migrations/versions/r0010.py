# SPDX-License-Identifier: GPL-3.0-or-later
"""Sums of the reports that came in, by day, and indexes in the order of lists.

The bounds are those of `assay.store.received_counts` at the time. A day and domain with more than 500 names keeps 200,
of 50 author domains.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_DAYS = """
INSERT INTO received_days (day, kind, good, bad)
SELECT "begin" / 86400000, kind, sum(good), sum(bad) FROM received_reports GROUP BY 1, 2
HAVING sum(good) > 0 OR sum(bad) > 0
"""
_COUNTS = """
INSERT INTO received_counts (day, domain, author_domain, source, passed, failed)
SELECT day, domain,
    CASE WHEN names > 500 AND author_place > 50 THEN '' ELSE author_domain END,
    CASE WHEN names > 500 AND (author_place > 50 OR author_domain = '' OR place > 200) THEN '' ELSE source END,
    sum(passed), sum(failed)
FROM (
    SELECT day, domain, author_domain, source, passed, failed,
        count(*) OVER (PARTITION BY day, domain) AS names,
        row_number() OVER (PARTITION BY day, domain ORDER BY passed + failed DESC, author_domain, source) AS place,
        dense_rank() OVER (
            PARTITION BY day, domain ORDER BY author_domain = '', of_author DESC, author_domain
        ) AS author_place
    FROM (
        SELECT day, domain, author_domain, source, passed, failed,
            sum(passed + failed) OVER (PARTITION BY day, domain, author_domain) AS of_author
        FROM (
            SELECT day, domain, author_domain, source,
                sum(CASE WHEN dkim_aligned OR spf_aligned THEN "count" ELSE 0 END) AS passed,
                sum(CASE WHEN dkim_aligned OR spf_aligned THEN 0 ELSE "count" END) AS failed
            FROM received_rows GROUP BY day, domain, author_domain, source
        ) AS summed
    ) AS of_authors
) AS ranked
GROUP BY 1, 2, 3, 4
"""


def upgrade() -> None:
    """Make the tables and indexes, and add up what is there."""
    op.create_table(
        "received_days",
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("good", sa.BigInteger(), nullable=False),
        sa.Column("bad", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "kind"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "received_counts",
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("author_domain", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("passed", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "domain", "author_domain", "source"),
        sqlite_with_rowid=False,
    )
    op.execute(_DAYS)
    op.execute(_COUNTS)
    for table, name, columns in (
        ("received_reports", "begin", ["begin", "received", "id"]),
        ("received_reports", "kind", ["kind", "begin", "received", "id"]),
        ("received_reports", "domain", ["domain", "begin", "received", "id"]),
        ("received_rows", "source", ["source", "day", "report"]),
        ("received_rows", "author", ["author_domain", "report"]),
    ):
        if name not in ("kind", "author"):
            op.drop_index(f"{table}_{name}", table)
        op.create_index(f"{table}_{name}", table, columns)
    op.drop_index("received_rows_day", "received_rows")
