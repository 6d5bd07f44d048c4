"""The revisions of the schema.

A new database is made from `storage/tables.py` and stamped with HEAD. An existing one at an older
revision is upgraded by alembic. A change of a table adds a revision `bNNNN_*.py` under `versions/`
and its id at the end of `REVISIONS`; a released revision is never edited. There is no alembic.ini
and no env.py: `prepare` is all there is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, inspect

from storage.review_tables import METADATA

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

REVISIONS = ("m0008", "b0002", "b0003", "b0004", "b0005", "b0007")
"""Every revision this program can open, oldest first."""

HEAD = REVISIONS[-1]
"""The revision this program reads and writes."""

TOO_OLD = frozenset(f"m{number:04}" for number in range(1, 8))
"""Revisions of unreleased versions, whose upgrades were dropped."""

_VERSION = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""As alembic makes it, so that making a database does not need to load alembic."""


def prepare(connection: Connection) -> None:
    """Make the schema or bring it to HEAD, in the transaction of `connection`.

    Looks at the database again under the write lock: if two processes open a new file at once, the
    second one has nothing to do.
    """
    if inspect(connection).has_table(_VERSION.name):
        if connection.scalar(_VERSION.select()) != HEAD:
            _upgrade(connection)
        return
    METADATA.create_all(connection)
    _VERSION.create(connection)
    connection.execute(_VERSION.insert().values(version_num=HEAD))


def _upgrade(connection: Connection) -> None:
    # Imported here: alembic takes half a second, and only an older database needs it.
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(__file__).parent))

    def steps(revision: Any, _: MigrationContext) -> Any:
        return script._upgrade_revs(HEAD, revision)

    options = {
        "fn": steps,
        "script": script,
        "transactional_ddl": True,
        "target_metadata": MetaData(naming_convention=METADATA.naming_convention),
    }
    context = MigrationContext.configure(connection, opts=options)
    with Operations.context(context):
        context.run_migrations()
