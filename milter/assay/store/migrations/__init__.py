# SPDX-License-Identifier: GPL-3.0-or-later
"""How the tables came to be what they are, step by step, with Alembic. `assay.store.schema` is the result."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

_LOCATION = "assay.store:migrations"


def configuration(connection: Connection) -> Config:
    """What Alembic's commands need. There is no file for it: an installed package has the migrations in it."""
    config = Config()
    config.set_main_option("script_location", _LOCATION)
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Migrate to a revision, in the transaction of the caller.

    :raises sqlalchemy.exc.SQLAlchemyError: it is not possible.
    """
    command.upgrade(configuration(connection), revision)
