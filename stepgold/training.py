"""`train`: a process reward model from one labeler's labels."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgold.console import note
from stepgold.models import model_folder, parse_spec
from stepgold.options import DatasetOptions
from stepgold.outcome import LabelingResult, Tally
from stepgold.results import counted
from traces import InputError, Need, StrPath, TraceLabel, option
from training import TrainConfig

if TYPE_CHECKING:
    from stepgold.workspace import WorkspaceFolder
    from storage import Store
    from traces import TraceInContext
    from training import Trained

CARD = "training.json"
"""File in the PRM's folder that says how it was trained; written last."""


class TrainOptions(TrainConfig, DatasetOptions):
    """Which labels a PRM learns, from which base, and what watches it."""

    labeler: str = option(metavar="NAME", help="Labeler whose labels are learned.")
    subset: str | None = option(
        default=None, metavar="NAME", help="Learn from this subset only [default: all]."
    )
    limit: int | None = option(
        default=None, between=(1, None), metavar="N", help="Take the first N traces only."
    )
    dev: str | None = option(
        default=None,
        metavar="DATASET[/SUBSET]",
        help="Traces that watch the training [default: a share of the problems].",
    )
    dev_labeler: str = option(
        default="gold",
        metavar="NAME",
        help="Their labeler.",
        needs=Need("--dev DATASET", lambda config: config.dev is not None),
    )
    dev_share: float = option(
        default=0.1,
        between=(0, 0.9),
        metavar="X",
        help="Share of the problems that are kept out of the training to watch it; 0: none.",
        needs=Need("no --dev", lambda config: config.dev is None),
    )
    replace: bool = option(
        default=False, flags=("--replace",), help="Train again what the folder holds."
    )

    def identity(self) -> dict[str, Any]:
        """What the trained weights depend on besides base and data (strict JSON)."""
        names = ("dataset", "labeler", "subset", "limit", "dev", "dev_labeler", "dev_share")
        return super().identity() | {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True, repr=False)
class TrainResult(LabelingResult):
    """What was trained, and how good it is on the dev traces."""

    out: StrPath
    """Folder of the PRM."""
    family: str
    """Its layout and head; `stepgold score` recognizes it."""
    learned_steps: int
    """Steps of traces that were learned from."""
    updates: int
    """Optimizer steps of the whole training."""
    resumed_at: int | None
    """The optimizer step that this call continued from; None for the beginning."""
    dev: Mapping[str, float]
    """Figures of the kept checkpoint on the dev traces; empty without any."""
    floors: Mapping[str, float]
    """processbench_f1 there of labelers that read nothing, by name."""
    shortened: int
    """Traces that were learned with fewer documents than they have."""

    def as_json(self) -> dict[str, Any]:
        """The contract's document, with the PRM and its figures."""
        return super().as_json() | {
            "out": str(self.out),
            "family": self.family,
            "learned_steps": self.learned_steps,
            "updates": self.updates,
            "resumed_at": self.resumed_at,
            "dev": dict(self.dev),
            "floors": dict(self.floors),
            "shortened": self.shortened,
        }

    def words(self) -> str:
        """Counts, dev figures and what to do next."""
        if self.unchanged:
            return f"train: {self.out} is trained already ({counted(self.unchanged, 'trace')})"
        left = sum(self.abstained.values())
        lines = [
            f"train: {counted(self.done, 'trace')} ({counted(self.learned_steps, 'step')}) learned"
            f" in {counted(self.updates, 'update')} and {self.seconds:.1f} s"
        ]
        if left:
            why = ", ".join(f"{count} {reason}" for reason, count in self.abstained.items())
            lines[0] += f"; {left} left out ({why})"
        if self.shortened:
            lines.append(f"{counted(self.shortened, 'trace')} with fewer documents to fit")
        if self.resumed_at is not None:
            lines.append(f"continued from update {self.resumed_at}")
        if self.dev:
            figures = ", ".join(f"{name} {value:.3f}" for name, value in self.dev.items())
            floors = ", ".join(f"{name} {value:.3f}" for name, value in self.floors.items())
            lines.append(f"dev traces: {figures}")
            if floors:
                lines.append(f"floors (processbench_f1): {floors}")
        lines.append(f"next: stepgold score --prm hf:{self.out} --dataset NAME")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Split:
    """Labeled traces to learn from, and to watch the training with."""

    train: Sequence[tuple[TraceInContext, TraceLabel | None]]
    dev: Sequence[tuple[TraceInContext, TraceLabel | None]]

    def digest(self) -> str:
        """A hash of their texts and labels."""
        seen = sha256()
        for part in (self.train, self.dev):
            seen.update(f"{len(part)}\n".encode())
            for context, label in part:
                seen.update(repr((context, label)).encode())
        return seen.hexdigest()


def train(workspace: WorkspaceFolder, options: TrainOptions) -> TrainResult:
    """Train a process reward model, or go on with an unfinished one.

    Raises:
        InputError: an unknown dataset or labeler, nothing to learn, a folder that holds something
            else, or an option that transformers refuses.
        ModelRefused: the base cannot be loaded.
        PrmError: it does not fit the family.
    """
    from inference import checkpoint_folder, weights_fingerprint

    if not _is_main():
        # Only the first of several processes has a result to report.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    _require_library()
    tally = Tally("train", options.dataset, options.labeler)
    with workspace.open_store() as store:
        split = _split(store, options)
    folder = checkpoint_folder(_base(options.base))
    depends = [options.identity(), split.digest(), weights_fingerprint(folder)]
    identity = sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
    out = Path(options.out)
    card = _card(out)
    if not options.replace:
        _refuse_other(out, card, identity)
        if card is not None:
            tally.unchanged = card["done"]
            return TrainResult(**tally.figures(), **_stored(out, card))
    return _train(options, tally, split, folder=folder, identity=identity)


def _train(
    options: TrainOptions, tally: Tally, split: _Split, *, folder: Path, identity: str
) -> TrainResult:
    from training import Training, find_family, train_prm

    out = Path(options.out)
    watched = _Watched(split.dev)
    family = options.family or _trainable(find_family(folder)) or "qwen-prm"
    trained = train_prm(
        Training(
            config=options,
            folder=folder,
            family=family,
            train=split.train,
            dev=split.dev,
            measure=watched.figures,
            note=note,
            identity=identity,
            again=options.replace,
        )
    )
    tally.done = len(trained.train.rows)
    tally.abstained.update(trained.train.skipped)
    stored: dict[str, Any] = {
        "family": family,
        "learned_steps": trained.train.steps,
        "updates": trained.steps,
        "resumed_at": trained.resumed_at,
        "dev": dict(trained.best),
        "floors": watched.floors(),
        "shortened": trained.train.shortened,
    }
    if trained.is_main:
        _finish(out, options, trained, stored | {"done": tally.done, "identity": identity})
    return TrainResult(**tally.figures(), out=out, **stored)


def _finish(out: Path, options: TrainOptions, trained: Trained, stored: dict[str, Any]) -> None:
    """Write the card, and remove the checkpoints that only a resumed run needs."""
    import shutil

    from training import CHECKPOINTS

    card = {
        **stored,
        "options": options.identity(),
        "skipped": dict(trained.train.skipped),
        "history": list(trained.history),
    }
    part = out / f"{CARD}.part"
    part.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    part.replace(out / CARD)
    for checkpoint in (out / CHECKPOINTS).glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


def _stored(out: Path, card: Mapping[str, Any]) -> dict[str, Any]:
    names = ("family", "learned_steps", "updates", "resumed_at", "dev", "floors", "shortened")
    return {"out": out, **{name: card[name] for name in names}}


def _is_main() -> bool:
    """Whether this process is alone, or the first one that `accelerate launch` started."""
    return os.environ.get("RANK", "0") == "0"


def _require_library() -> None:
    from importlib.util import find_spec

    if find_spec("accelerate") is None:
        raise InputError(
            "Training needs accelerate, which is not installed.",
            remedy="pip install 'stepgold[train]'",
        )


def _base(base: str) -> str:
    if base == "lab":
        return model_folder(parse_spec(base), "policy")
    return base.removeprefix("hf:")


def _trainable(family: str | None) -> str | None:
    from typing import get_args

    from training import TrainableFamily

    return family if family in get_args(TrainableFamily) else None


def _card(out: Path) -> dict[str, Any] | None:
    try:
        card: dict[str, Any] = json.loads((out / CARD).read_bytes())
    except (OSError, ValueError):
        return None
    return card


def _refuse_other(out: Path, card: Mapping[str, Any] | None, identity: str) -> None:
    from training import CHECKPOINTS

    again = "choose another --out, or train again with --replace"
    if card is not None and card.get("identity") != identity:
        raise InputError(
            "The folder holds a PRM that was trained with other options, traces or labels.",
            where=str(out),
            remedy=again,
        )
    if card is None and not (out / CHECKPOINTS).exists() and out.is_dir() and any(out.iterdir()):
        raise InputError("The folder is not empty.", where=str(out), remedy=again)


def _split(store: Store, options: TrainOptions) -> _Split:
    """The traces of the labeler, of which a share of the problems watches the training."""
    found = list(_labeled(store, options.dataset, options.subset, options.labeler))
    found = found[: options.limit]
    if options.dev is not None:
        dataset, _, subset = options.dev.partition("/")
        dev = list(_labeled(store, dataset, subset or None, options.dev_labeler))
        return _Split(found, dev)

    def is_watching(context: TraceInContext) -> bool:
        drawn = sha256(f"{options.seed}\n{context.problem.id}".encode()).digest()[:8]
        return int.from_bytes(drawn) < options.dev_share * 2**64

    return _Split(
        [one for one in found if not is_watching(one[0])],
        [one for one in found if is_watching(one[0])],
    )


def _labeled(
    store: Store, dataset: str, subset: str | None, labeler: str
) -> Iterator[tuple[TraceInContext, TraceLabel | None]]:
    labels = store.labels.load(dataset, labeler)
    for context in store.traces.contexts(dataset):
        if subset is None or context.trace.subset == subset:
            yield context, labels.get(context.trace.id)


class _Watched:
    """The dev traces with their labels, to measure step scores on."""

    def __init__(self, dev: Sequence[tuple[TraceInContext, TraceLabel | None]]) -> None:
        self._dev = {context.trace.id: (context, label) for context, label in dev}
        self._seen: list[Any] = []

    def figures(self, scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """processbench_f1 at its best threshold, that threshold, and the AUROC of steps.

        `best` chooses the checkpoint: processbench_f1, and among equal ones the AUROC. A figure
        that is undefined is left out.
        """
        from evaluation import EvaluatedTrace, auroc, scored_steps, threshold_sweep
        from traces import StepLabel

        self._seen = []
        for id, of in scores.items():
            context, label = self._dev[id]
            predicted = TraceLabel(id, tuple(StepLabel(score=one) for one in of))
            self._seen.append(
                EvaluatedTrace(
                    trace_id=id,
                    problem_id=context.problem.id,
                    subset="dev",
                    n_steps=len(of),
                    gold=label,
                    predicted=predicted,
                )
            )
        found: dict[str, float] = {}
        best = threshold_sweep(self._seen, "processbench_f1").best()
        if best is not None:
            found = {"processbench_f1": best[1], "threshold": best[0]}
        steps = scored_steps(self._seen)
        if (area := auroc(steps.score, steps.correct)) is not None:
            found["auroc"] = area
        chosen = found.get("processbench_f1", 0.0) + found.get("auroc", 0.0) / 1000
        return {**found, "best": chosen}

    def floors(self) -> dict[str, float]:
        """processbench_f1 of labelers that read nothing, on the traces that were measured."""
        from evaluation import protocol_named

        if not self._seen:
            return {}
        report = protocol_named("processbench").floors(self._seen)
        known = {floor.name: floor.overall["processbench_f1"] for floor in report.floors}
        return {name: value for name, value in known.items() if value is not None}
