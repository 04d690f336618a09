# SPDX-License-Identifier: GPL-3.0-or-later
"""Alembic runs this file for each command."""

from __future__ import annotations

from alembic import context

from assay.store.schema import metadata

# SQLite changes a table by making another.
context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
