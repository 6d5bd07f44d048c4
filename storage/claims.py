"""Who works on what: claims on traces and problems, under a lease that their command renews.

Several commands share a labeler: each claims what it is about to label, and no other command takes
it until it is labeled, given back, or the lease has run out. The claims of a command that was
killed on this machine are free at once, because its process is known to have ended.

Leases are written by the clocks of several machines, and a clock may jump. So a lease that seems to
have run out is watched first: a command that lives renews it.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, and_, delete, func, select, update
from sqlalchemy.sql.elements import ColumnElement

from storage.database import Connections
from storage.lookups import dataset_pk
from storage.rows import chunks, delete_where, insert_missing, insert_rows
from storage.tables import CLAIMANTS, CLAIMS, DATASETS

WATCH_S = 60.0
"""How long a lease that seems to have run out must stay as it is before its claims are taken over:
twice the time between two renewals."""


@dataclass(frozen=True, slots=True)
class Claimant:
    """A running command that claims work."""

    token: str
    """A random name that no other claimant has."""
    command: str
    """The name of the command."""
    host: str
    """Name of its machine."""
    pid: int
    """Id of its process."""
    process: str | None
    """Names the process on this machine since its start; None where the system has no such name."""
    started_at: float
    """Seconds since 1970."""

    @classmethod
    def here(cls, command: str, *, at: float) -> Claimant:
        """A claimant for a command of this process."""
        pid = os.getpid()
        return cls(
            token=secrets.token_hex(8),
            command=command,
            host=socket.gethostname(),
            pid=pid,
            process=_process(pid),
            started_at=at,
        )


@dataclass(frozen=True, slots=True)
class Workload:
    """What is shared out: the traces of a labeler, or the problems of a set of candidates."""

    dataset: str
    """Its dataset."""
    labeler: str
    """Name of the labeler or of the set."""
    unit: str = "trace"
    """What is claimed: `trace` or `problem`."""


@dataclass(frozen=True, slots=True)
class ClaimSummary:
    """What one command currently works on."""

    dataset: str
    """Its dataset."""
    labeler: str
    """Name of the labeler or of the set of candidates."""
    unit: str
    """What is claimed: `trace` or `problem`."""
    items: int
    """How many of them."""
    command: str
    """The name of the command."""
    host: str
    """Name of its machine."""
    pid: int
    """Id of its process."""
    started_at: float
    """When it started, seconds since 1970."""
    expires_at: float
    """When its lease runs out if it is not renewed, seconds since 1970."""


class Claims:
    """Claims on work; safe to share between threads and processes.

    Times are seconds since 1970, given by the caller.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        # Since when a lease has been seen to have run out, by claimant and the lease's end.
        self._watched: dict[tuple[str, float], float] = {}

    def take(
        self, claimant: Claimant, work: Workload, items: Sequence[str], *, at: float, until: float
    ) -> set[str]:
        """Claim those of `items` that no living command has, under a lease until `until`.

        Returns:
            The items that the claimant now holds.

        Raises:
            InputError: there is no such dataset.
        """
        with self._connections.write() as connection:
            delete_where(connection, CLAIMANTS.c.token, self._over(connection, at))
            _renew(connection, claimant, until)
            here = _of(connection, work)
            columns = {
                "dataset_pk": dataset_pk(connection, work.dataset),
                "unit": work.unit,
                "labeler": work.labeler,
                "claimant": claimant.token,
            }
            insert_missing(
                connection,
                CLAIMS,
                [columns | {"item": item} for item in items],
                key=["dataset_pk", "unit", "labeler", "item"],
            )
            return _held(connection, here & (CLAIMS.c.claimant == claimant.token), items)

    def settle(self, claimant: Claimant, work: Workload, items: Sequence[str]) -> set[str]:
        """Give up claims whose work is stored in the same transaction.

        Returns:
            The items that the claimant still held: the lease of the others ran out, and another
            command may have labeled them.
        """
        with self._connections.write() as connection:
            mine = _of(connection, work) & (CLAIMS.c.claimant == claimant.token)
            held = _held(connection, mine, items)
            delete_where(connection, CLAIMS.c.item, items, mine)
            return held

    def held(self, work: Workload, *, at: float) -> dict[str, str]:
        """What living commands hold: the item, and who holds it (`pid N on HOST`)."""
        with self._connections.read() as connection:
            ended = self._over(connection, at)
            query = (
                select(CLAIMS.c.item, CLAIMANTS.c.pid, CLAIMANTS.c.host)
                .join(CLAIMANTS, CLAIMS.c.claimant == CLAIMANTS.c.token)
                .where(_of(connection, work), CLAIMS.c.claimant.not_in(ended))
            )
            rows = connection.execute(query)
            return {row.item: f"pid {row.pid} on {row.host}" for row in rows}

    def renew(self, claimant: Claimant, *, until: float) -> None:
        """Extend the lease; one that ran out starts again without the claims it had."""
        with self._connections.write() as connection:
            _renew(connection, claimant, until)

    def leave(self, claimant: Claimant) -> None:
        """Give all claims back."""
        with self._connections.write() as connection:
            connection.execute(delete(CLAIMANTS).where(CLAIMANTS.c.token == claimant.token))

    def live(self, *, at: float) -> list[ClaimSummary]:
        """What every living command works on, by dataset and labeler, oldest command first."""
        by = (CLAIMS.c.dataset_pk, CLAIMS.c.labeler, CLAIMS.c.unit, CLAIMS.c.claimant)
        with self._connections.read() as connection:
            query = (
                select(
                    DATASETS.c.name.label("dataset"),
                    CLAIMS.c.labeler,
                    CLAIMS.c.unit,
                    func.count().label("items"),
                    *(CLAIMANTS.c[name] for name in ("command", "host", "pid")),
                    *(CLAIMANTS.c[name] for name in ("started_at", "expires_at")),
                )
                .join(CLAIMANTS, CLAIMS.c.claimant == CLAIMANTS.c.token)
                .join(DATASETS, CLAIMS.c.dataset_pk == DATASETS.c.pk)
                .where(CLAIMANTS.c.token.not_in([*_gone(connection), *_expired(connection, at)]))
                .group_by(*by, DATASETS.c.pk, CLAIMANTS.c.token)
                .order_by(CLAIMS.c.dataset_pk, CLAIMS.c.labeler, CLAIMANTS.c.started_at)
            )
            return [ClaimSummary(**row._mapping) for row in connection.execute(query)]

    def _over(self, connection: Connection, at: float) -> list[str]:
        """Commands that are known to have ended, or did not renew a lease while it was watched."""
        leases = _expired(connection, at).items()
        self._watched = {lease: min(self._watched.get(lease, at), at) for lease in leases}
        unchanged = [token for (token, _), since in self._watched.items() if at - since >= WATCH_S]
        return [*_gone(connection), *unchanged]


def _of(connection: Connection, work: Workload) -> ColumnElement[bool]:
    return and_(
        CLAIMS.c.dataset_pk == dataset_pk(connection, work.dataset),
        CLAIMS.c.unit == work.unit,
        CLAIMS.c.labeler == work.labeler,
    )


def _held(connection: Connection, here: ColumnElement[bool], items: Collection[str]) -> set[str]:
    return {
        item
        for chunk in chunks(items)
        for item in connection.scalars(select(CLAIMS.c.item).where(here, CLAIMS.c.item.in_(chunk)))
    }


def _renew(connection: Connection, claimant: Claimant, until: float) -> None:
    mine = CLAIMANTS.c.token == claimant.token
    renewed = connection.execute(update(CLAIMANTS).where(mine).values(expires_at=until))
    if not renewed.rowcount:
        insert_rows(connection, CLAIMANTS, [asdict(claimant) | {"expires_at": until}])


def _expired(connection: Connection, at: float) -> dict[str, float]:
    """When the leases that ran out ended, by the token of the command."""
    query = select(CLAIMANTS.c.token, CLAIMANTS.c.expires_at).where(CLAIMANTS.c.expires_at < at)
    return {row.token: row.expires_at for row in connection.execute(query)}


def _gone(connection: Connection) -> list[str]:
    """Commands whose process on this machine has ended."""
    query = select(CLAIMANTS.c.token, CLAIMANTS.c.pid, CLAIMANTS.c.process)
    return [row.token for row in connection.execute(query) if _is_gone(row.pid, row.process)]


def _is_gone(pid: int, process: str | None) -> bool:
    """Whether a process of this machine has ended; False where this machine cannot know."""
    machine = _machine()
    if process is None or machine is None or not process.startswith(f"{machine}:"):
        return False
    return process != _process(pid)


def _process(pid: int) -> str | None:
    """Machine and start time of a process; None if it has ended, or the system does not say."""
    machine = _machine()
    if machine is None:
        return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # proc(5): the name in parentheses may hold spaces; state is the 3rd field, start time the 22nd
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{machine}:{fields[19]}"


@cache
def _machine() -> str | None:
    """This boot of this machine and its namespace of process ids; None where there is no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None
