"""`stepgold review`: the pages on which experts answer, one step at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from review.server import Running, ServeOptions, ServeResult
from stepgold.console import note
from stepgold.options import DatasetOptions
from traces import InputError, option

if TYPE_CHECKING:
    from review.queue import QueueSettings
    from review.security import Login
    from stepgold.workspace import WorkspaceFolder

LOGINS = "review-logins.json"
"""The file of the workspace that has the hashes of the experts' tokens."""


class ReviewOptions(ServeOptions, DatasetOptions):
    """What experts are asked, and where the pages are."""

    mode: Literal["first-error", "every-step"] = option(
        default="first-error",
        choices=("first-error", "every-step"),
        help="Whether a trace ends at its first incorrect step.",
    )
    show_opinions: Literal["before", "after", "never"] = option(
        default="after",
        choices=("before", "after", "never"),
        help="When the expert sees what labelers say of a step; stored with every answer.",
    )
    expert: Sequence[str] = option(
        default=(),
        metavar="CODE",
        help="Code of an expert; may be repeated. With --host each gets a link of their own.",
    )
    audit: float = option(
        default=0.1, metavar="SHARE", between=(0, 1), help="Share of answers about a random step."
    )
    double: float = option(
        default=0.2, metavar="SHARE", between=(0, 1), help="Share of traces two experts label."
    )
    repeat: float = option(
        default=0.02, metavar="SHARE", between=(0, 1), help="Share of answers asked for again."
    )
    training: int = option(
        default=0,
        metavar="N",
        between=(0, None),
        help="Steps with gold answers that every expert starts with.",
    )
    gold: str = option(default="gold", metavar="NAME", help="Labeler of those gold answers.")
    by: str | None = option(
        default=None,
        metavar="LABELER",
        help="bayes consensus that orders the queue [default: the newest, else disagreement].",
    )
    split_size: int = option(
        default=300, metavar="N", between=(1, None), help="Traces of a split that is checked."
    )
    check_share: float = option(
        default=0.1, metavar="SHARE", between=(0, 1), help="Share of a split that is checked."
    )
    max_errors: float = option(
        default=0.05, metavar="RATE", between=(0, 1), help="Error rate above which it returns."
    )
    seed: int = option(default=0, metavar="N", between=(0, None), help="Seed of all draws.")

    def queue_settings(self) -> QueueSettings:
        """The settings of the queue."""
        from review.queue import QueueSettings

        return QueueSettings(
            mode=self.mode,
            audit=self.audit,
            double=self.double,
            repeat=self.repeat,
            training=self.training,
            gold=self.gold,
            by=self.by,
            seed=self.seed,
        )

    def check(self) -> None:
        """Refuse codes that cannot be stored, and a server for others without codes.

        Raises:
            InputError: one is no code, or there is none and other machines reach the server.
        """
        super().check()
        from storage import expert_labeler

        for code in self.expert:
            expert_labeler(code)
        if not self.is_loopback and not self.expert:
            raise InputError(
                "Experts on other machines need a link each.",
                where="--expert",
                remedy="name them with --expert E1 --expert E2",
            )


@dataclass(frozen=True, kw_only=True, repr=False)
class ReviewResult(ServeResult):
    """A review that was served, and what was answered meanwhile."""

    answers: int
    """New entries of the log."""

    def as_json(self) -> dict[str, Any]:
        """The address and the number of answers."""
        return super().as_json() | {"answers": self.answers}

    def words(self) -> str:
        """That it has ended, and how many answers there are."""
        return f"{super().words()} {self.answers} answers were stored."


def review(workspace: WorkspaceFolder, options: ReviewOptions) -> ReviewResult:
    """Serve the pages of the review until Ctrl-C.

    Raises:
        InputError: no such dataset or labeler, the address cannot be used, or the extra `review`
            is not installed.
        StoreError: there is no database.
    """
    with reviewing(workspace, options) as (running, links):
        before = _entries(workspace, options.dataset)
        if links:
            for code, link in links.items():
                note(f"{code}: {link}")
        else:
            note(f"Reviewing {options.dataset} at {running.url}/review  (Ctrl-C stops)")
        running.serve()
        after = _entries(workspace, options.dataset)
    return ReviewResult(command="review", url=running.url, answers=after - before)


def _entries(workspace: WorkspaceFolder, dataset: str) -> int:
    with workspace.open_store() as store:
        return len(store.reviews.log(dataset))


@contextmanager
def reviewing(
    workspace: WorkspaceFolder, options: ReviewOptions
) -> Iterator[tuple[Running, Mapping[str, str]]]:
    """A server of the review that is not yet started, and the links of experts without one.

    Raises:
        InputError: as in `review`.
    """
    try:
        from review.screens import ReviewedDataset, review_pages
    except ModuleNotFoundError as fault:
        raise InputError(
            f"The pages need the package {fault.name}.", remedy="pip install 'stepgold[review]'"
        ) from fault
    with workspace.open_store() as store:
        store.reviews.begin(options.dataset, options.expert)
        login, tokens = None, dict[str, str]()
        if not options.is_loopback:
            login, tokens = _logins(workspace.folder / LOGINS, options.expert)
        pages = review_pages(ReviewedDataset(store, options))
        running = Running(workspace, options, login=login, routers=[pages])
        yield running, {code: f"{running.url}/login?token={one}" for code, one in tokens.items()}


def _logins(path: Path, codes: Sequence[str]) -> tuple[Login, dict[str, str]]:
    """A login by the stored hashes, and the tokens of experts who had none yet."""
    from review.security import hash_of, new_token

    known: dict[str, str] = {}
    if path.exists():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as fault:
            raise InputError(
                "The file of the experts' logins is damaged.",
                where=str(path),
                remedy="remove it; every expert gets a new link",
            ) from fault
    kept = {hashed: code for hashed, code in known.items() if code in codes}
    tokens = {code: new_token() for code in codes if code not in kept.values()}
    kept |= {hash_of(token): code for code, token in tokens.items()}
    path.touch(mode=0o600)
    path.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    for code in codes:
        if code not in tokens:
            note(f"{code} has a link already; remove {path} to make new ones")
    return kept.get, tokens
