"""The database as a whole: compact it, back it up, check it, or copy it into another one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgold.console import progress
from stepgold.results import INCOMPLETE, OK, Result
from stepgold.workspace import WorkspaceFolder
from traces import Config, InputError, StrPath, argument

if TYPE_CHECKING:
    from storage import Store, TableCopy


class DbVacuumOptions(Config):
    """Vacuum has no options."""


class DbBackupOptions(Config):
    """Where the backup goes."""

    file: StrPath = argument(kw_only=False, metavar="FILE", help="The new file.")


class DbCopyOptions(Config):
    """The two databases."""

    source: str = argument(
        kw_only=False, metavar="FROM", help="URL of a database, or a SQLite file."
    )
    target: str = argument(
        kw_only=False, metavar="TO", help="URL or file of an empty or partly copied database."
    )


class DbCheckOptions(Config):
    """Check has no options."""


@dataclass(frozen=True, kw_only=True, repr=False)
class DbVacuumResult(Result):
    """The size of the database."""

    bytes_before: int
    bytes_after: int

    def as_json(self) -> dict[str, Any]:
        """Both sizes in bytes."""
        return {
            "command": "db vacuum",
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
        }

    def words(self) -> str:
        """Both sizes."""
        return f"{self.bytes_before / 1e6:,.1f} MB before, {self.bytes_after / 1e6:,.1f} MB after"


@dataclass(frozen=True, kw_only=True, repr=False)
class DbBackupResult(Result):
    """The new file."""

    file: Path
    bytes: int

    def as_json(self) -> dict[str, Any]:
        """The file and its size."""
        return {"command": "db backup", "file": str(self.file), "bytes": self.bytes}

    def words(self) -> str:
        """The file and its size."""
        return f"{self.file}: {self.bytes / 1e6:,.1f} MB"


@dataclass(frozen=True, kw_only=True, repr=False)
class DbCopyResult(Result):
    """What was copied, table by table; all rows of both databases were compared."""

    source: str
    """Without a password, as `target`."""
    target: str
    tables: tuple[TableCopy, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One row per table."""
        return [asdict(table) for table in self.tables]

    def as_json(self) -> dict[str, Any]:
        """The tables with their counts and hashes."""
        return {
            "command": "db copy",
            "from": self.source,
            "to": self.target,
            "rows": sum(table.rows for table in self.tables),
            "copied": sum(table.copied for table in self.tables),
            "tables": self.rows(),
        }

    def words(self) -> str:
        """The counts."""
        document = self.as_json()
        lines = [f"{table.name}: {table.rows}" for table in self.tables if table.rows]
        total = f"{document['rows']} rows in both databases, {document['copied']} copied now"
        return "\n".join([*lines, f"{total}; the hashes of all tables agree"])


@dataclass(frozen=True, kw_only=True, repr=False)
class DbCheckResult(Result):
    """What the check found."""

    table_rows: dict[str, int]
    """Rows by table."""
    damage: tuple[str, ...]
    """What is wrong."""
    orphans: dict[str, int]
    """Rows that nothing refers to, by table."""

    @property
    def exit_code(self) -> int:
        """0, or 1 if anything is damaged."""
        return INCOMPLETE if self.damage else OK

    def as_json(self) -> dict[str, Any]:
        """Counts, damage and orphans."""
        return {
            "command": "db check",
            "ok": not self.damage,
            "rows": self.table_rows,
            "damage": list(self.damage),
            "orphans": self.orphans,
        }

    def words(self) -> str:
        """The damage, else the counts."""
        rows = [f"{name}: {count}" for name, count in self.table_rows.items() if count]
        idle = [f"{name}: {count} unused" for name, count in self.orphans.items() if count]
        verdict = [f"damaged: {line}" for line in self.damage] or ["no damage"]
        return "\n".join([*rows, *idle, *verdict])


def db_vacuum(workspace: WorkspaceFolder, options: DbVacuumOptions) -> DbVacuumResult:
    """Give the free space of the database back to its disk.

    Raises:
        StoreError: another command is using the database.
    """
    with workspace.open_store() as store:
        before = store.maintenance.size()
        store.maintenance.vacuum()
        return DbVacuumResult(bytes_before=before, bytes_after=store.maintenance.size())


def db_backup(workspace: WorkspaceFolder, options: DbBackupOptions) -> DbBackupResult:
    """Copy the SQLite database to a new file while others go on using it.

    Raises:
        InputError: the file exists, or the database is on PostgreSQL.
    """
    path = Path(options.file)
    with workspace.open_store() as store:
        store.maintenance.backup(path)
    return DbBackupResult(file=path, bytes=path.stat().st_size)


def db_copy(workspace: WorkspaceFolder, options: DbCopyOptions) -> DbCopyResult:
    """Copy a database into an empty one, or finish a copy, and compare all rows.

    Raises:
        InputError: both are the same.
        StoreError: the target holds other rows.
    """
    with _opened(options.source) as source, _opened(options.target, create=True) as target:
        if source.maintenance.where == target.maintenance.where:
            raise InputError("Both databases are the same.", remedy="name another one to copy to")
        tables = source.copy_to(target, watch=_watched)
        return DbCopyResult(
            source=source.maintenance.where, target=target.maintenance.where, tables=tuple(tables)
        )


def _watched(tables: Sequence[Any], phase: str) -> Iterator[Any]:
    return progress(tables, total=len(tables), label=f"{phase} tables")


def _opened(named: str, *, create: bool = False) -> Store:
    from storage import Store, database_url

    url = named if "://" in named else database_url(Path(os.path.expanduser(named)))
    return Store.open(url, create=create)


def db_check(workspace: WorkspaceFolder, options: DbCheckOptions) -> DbCheckResult:
    """Ask the database for damage, decode all labels of steps, and count rows."""
    with workspace.open_store() as store:
        found = store.maintenance.check()
    return DbCheckResult(table_rows=found.rows, damage=found.damage, orphans=found.orphans)
