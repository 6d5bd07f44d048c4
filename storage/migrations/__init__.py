"""The history of the schema, applied by alembic whenever a database is opened.

A change of a table adds a revision `mNNNN_*.py` under `versions/` and its id at the end of `REVISIONS`;
a revision that was released is never edited. No alembic.ini and no env.py: `upgrade` is all there is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, MetaData

from storage.tables.base import NAMING

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

REVISIONS = ("m0001", "m0002", "m0003", "m0004", "m0005", "m0006", "m0007", "m0008")
"""Every schema this program knows, oldest first. A database at another one is newer than we are."""

HEAD = REVISIONS[-1]
"""The schema this program reads and writes."""


def upgrade(connection: Connection, target: str = HEAD) -> None:
    """Bring a database to `target`, inside the transaction that `connection` is in.

    Reads the revision again under the write lock: of two processes that open a new file at once, the
    second finds nothing to do.
    """
    # Imported here: alembic takes half a second, and a database at HEAD does not need it.
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(__file__).parent))

    def steps(revision: Any, _: MigrationContext) -> Any:
        return script._upgrade_revs(target, revision)

    options = {
        "fn": steps,
        "script": script,
        "transactional_ddl": True,
        "target_metadata": MetaData(naming_convention=NAMING),
    }
    context = MigrationContext.configure(connection, opts=options)
    with Operations.context(context):
        context.run_migrations()
