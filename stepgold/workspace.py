"""The workspace: a folder with a database, an index and, optionally, defaults in stepgold.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traces import Config, InputError, StrPath, ToolkitError

if TYPE_CHECKING:
    from storage import Store


DATABASE_NAME = "stepgold.db"
DEFAULTS_NAME = "stepgold.toml"


class WorkspaceFolder:
    """A workspace folder and its database. Nothing is opened or created until it is needed."""

    def __init__(
        self,
        folder: StrPath = ".",
        *,
        db: str | None = None,
        progress: bool = True,
        debug: bool = False,
    ) -> None:
        """Name a workspace.

        Args:
            folder: the workspace folder.
            db: database URL; None means `stepgold.db` in the folder.
            progress: whether progress bars and notes are printed on standard error.
            debug: whether the command line shows tracebacks.
        """
        self.folder = Path(folder)
        self.db = db
        self.progress = progress
        self.debug = debug

    def __repr__(self) -> str:
        db = f", db={self.shown_url!r}" if self.db else ""
        return f"{type(self).__name__}({str(self.folder)!r}{db})"

    @property
    def url(self) -> str:
        """The database URL."""
        from storage import database_url

        return self.db or database_url(self.folder / DATABASE_NAME)

    @property
    def shown_url(self) -> str:
        """The database URL as it may be printed: without a password."""
        from storage import shown_url

        return shown_url(self.url)

    @property
    def index_folder(self) -> Path:
        """The folder of the FAISS index and its manifest."""
        return self.folder / "index"

    def defaults_of(self, config: type[Config]) -> Mapping[str, Any]:
        """Defaults for the options of a method, by field, instead of those in their declaration."""
        return {}

    def open_store(self, *, create: bool = False) -> Store:
        """Open the database; `create` makes a missing database and folder.

        Raises:
            StoreError: it is missing, not a StepGold database, newer than this program, or cannot
                be opened.
            InputError: the folder cannot be created, or `--db` is not a URL.
        """
        from storage import Store

        if self.db is not None and "://" not in self.db:
            raise InputError(
                f"'{self.db}' is not a database URL.", remedy="write --db sqlite:///path/to/file.db"
            )
        if create and self.db is None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as fault:
                raise InputError(
                    f"The workspace '{self.folder}' cannot be created: {fault.strerror}.",
                    remedy="name a folder you may write to with --workspace",
                ) from fault
        return Store.open(self.url, create=create)

    @contextmanager
    def new_store(self) -> Iterator[Store]:
        """Open or create the database; one that is new and refuses its first content is removed.

        Raises:
            StoreError: as in `open_store`.
            InputError: as in `open_store`.
        """
        path = self.folder / DATABASE_NAME
        is_new = self.db is None and not path.exists()
        made_folder = not self.folder.exists()
        with self.open_store(create=True) as store:
            try:
                yield store
                return
            except ToolkitError as fault:
                if not (is_new and store.is_empty()):
                    raise
                refused = fault
        path.unlink(missing_ok=True)
        if made_folder and not any(self.folder.iterdir()):
            self.folder.rmdir()
        raise refused


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dict.

    Raises:
        InputError: it cannot be read or is not TOML.
    """
    return toml_of(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """The bytes of a TOML file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as fault:
        raise InputError(
            f"The TOML file cannot be read: {fault.strerror}.",
            where=str(path),
            remedy="check the path",
        ) from fault


def toml_of(content: bytes, path: Path) -> dict[str, Any]:
    """The bytes of a TOML file as a dict.

    Args:
        content: the bytes.
        path: the file, for messages.

    Raises:
        InputError: it is not TOML.
    """
    try:
        # Editors on Windows write a byte order mark, which TOML does not allow.
        return tomllib.loads(content.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as fault:
        raise InputError(
            "The TOML file is not UTF-8 text.", where=str(path), remedy="save it as UTF-8"
        ) from fault
    # Also a number of 5,000 digits, and tables nested too deeply.
    except (ValueError, RecursionError) as fault:
        raise InputError(
            f"The file is not valid TOML: {fault}.", where=str(path), remedy="correct that line"
        ) from fault


def has_defaults(folder: Path) -> bool:
    """Whether the workspace has a stepgold.toml."""
    return (folder / DEFAULTS_NAME).is_file()
