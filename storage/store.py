"""The store: datasets, labels, corpora, evidence and model calls in one database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from storage.browsing import Browsing
from storage.claims import Claims
from storage.corpora import StoredCorpora
from storage.database import Connections, open_connections
from storage.evidence import StoredEvidence
from storage.labels import Labels
from storage.maintenance import Maintenance, TableCopy, Watch, copy_rows
from storage.replies import Replies
from storage.reviews import Reviews
from storage.traces import Traces


class Store:
    """An open database.

    Dataclasses of `traces/` go in and come out. Every writing method is one transaction, committed
    when it returns, all or nothing; inside a `transaction()` block they are one together. It may be
    shared between threads. A dataset, labeler, corpus or trace that does not exist raises
    InputError listing the known ones; a database that cannot be read or written raises StoreError.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.traces = Traces(connections)
        self.labels = Labels(connections)
        self.evidence = StoredEvidence(connections)
        self.corpora = StoredCorpora(connections)
        self.replies = Replies(connections)
        self.claims = Claims(connections)
        self.reviews = Reviews(connections)
        self.browsing = Browsing(connections)
        self.maintenance = Maintenance(connections)

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Store:
        """Open the database at `url` (`sqlite:///FILE`, `sqlite://` in memory, or PostgreSQL).

        An empty or missing file becomes a new database; an older schema is upgraded.

        Raises:
            InputError: the URL is not one of a SQLite or PostgreSQL database.
            StoreError: there is none and `create` is False; it is not writable, belongs to another
                program, or has a schema that is newer than this program or too old. A database
                that is refused is left unchanged.
        """
        return cls(open_connections(url, create=create))

    def close(self) -> None:
        """Release the database."""
        self.browsing.close()
        self._connections.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_empty(self) -> bool:
        """Whether there is no dataset, corpus or recorded call."""
        return not (
            self.traces.datasets() or self.corpora.summaries() or self.replies.totals().sent
        )

    def copy_to(self, target: Store, *, watch: Watch) -> list[TableCopy]:
        """Copy all rows into another database; see `storage.maintenance.copy_rows`."""
        return copy_rows(self._connections, target._connections, watch=watch)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all writes of this thread in the block one: an error in it undoes them all."""
        with self._connections.write():
            yield
