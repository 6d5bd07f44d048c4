"""Releases: an exported dataset in splits with checksums, a schema and a card; and `verify`.

Files of a release: `train.jsonl`, `dev.jsonl` and `test.jsonl` (a split without a trace has none),
`schema.json` (JSON Schema of a row), `release.json` (everything that the card says, as data),
`README.md` (the card in the Hub's format) and `SHA256SUMS`. There is no date in them: the same
store gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from formats import ExportRow, WriteOutcome, case_schema, write_file
from labeling import FilterCounts, Filtered
from stepgold.card import card_text
from stepgold.hub import CARD, Output, hub_path, output_folder
from stepgold.labeling_run import sources_in
from stepgold.overlap import dataset_rows, evaluated_problems
from stepgold.results import counted
from traces import (
    ORIGIN,
    InputError,
    LabelerKind,
    StrPath,
    first_error,
    unfinished,
)

if TYPE_CHECKING:
    from evaluation import EvaluatedProblem
    from stepgold.workspace import WorkspaceFolder
    from storage import LabelerSummary, Store
    from traces import Problem

SPLITS = ("train", "dev", "test")
SUMS, FACTS, SCHEMA = "SHA256SUMS", "release.json", "schema.json"
NEAR_DUPLICATE = 0.8
"""Share of a question's n-grams found in another question from which they share a split."""
_NOT_LINES = ("parquet", "medprm", "label-studio")
"""Formats whose files are no lines of one trace each."""
LISTED = 20
"""Overlapping problems that are listed by id."""


class Released(Protocol):
    """The options of an export that a release needs."""

    @property
    def dataset(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def labeler(self) -> str: ...
    @property
    def license(self) -> str | None: ...
    @property
    def against(self) -> Sequence[str]: ...
    @property
    def splits(self) -> str: ...


def shares_of(text: str) -> tuple[float, float, float]:
    """The shares of train, dev and test from `0.8,0.1,0.1` (or `80,10,10`).

    Raises:
        InputError: they are not three numbers, one is negative, or all are 0.
    """
    parts = [part.strip() for part in text.split(",")]
    numbers = [float(part) for part in parts if re.fullmatch(r"\d+(\.\d*)?|\.\d+", part)]
    if len(parts) != 3 or len(numbers) != 3 or not sum(numbers):
        raise InputError(
            f"--splits is '{text}', not three shares.", remedy="write --splits 0.8,0.1,0.1"
        )
    train, dev, test = (number / sum(numbers) for number in numbers)
    return train, dev, test


def split_of(problem_id: str, shares: tuple[float, float, float]) -> str:
    """The split of a problem: by the SHA-256 of its id, whatever else is in the dataset."""
    digest = hashlib.sha256(problem_id.encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    _, dev, test = shares
    return "test" if place < test else "dev" if place < test + dev else "train"


@dataclass(slots=True)
class _Row:
    """What is counted of a written trace."""

    trace: str
    problem: str
    split: str
    steps: int
    verdicts: Counter[str]
    error: bool | None
    """Whether the label names an error; None if it leaves the first error open."""
    corpora: frozenset[str]
    abstained: str | None
    """Why the labeler has no label; None if it has one."""


def write_release(
    workspace: WorkspaceFolder,
    store: Store,
    options: Released,
    *,
    rows: Iterable[ExportRow],
    filtered: Sequence[tuple[str, Filtered]],
    folder: Path,
) -> tuple[WriteOutcome, dict[str, Any]]:
    """Write a release of these rows into an empty folder.

    Args:
        workspace: where the labels are evaluated.
        store: what the card is made from.
        options: the dataset, the labeler and the splits.
        rows: the labeled traces.
        filtered: traces that filters removed, complete once all rows were read.
        folder: where the files go.

    Returns:
        What was written and left out, and what the card says, as data.

    Raises:
        InputError: the format is no file of lines, a benchmark is unknown, or a file cannot be
            written.
    """
    if options.format in _NOT_LINES:
        raise InputError(
            f"A release of format '{options.format}' cannot be split by line.",
            remedy="choose another format, such as traces or trl",
        )
    for name in options.against:
        store.traces.require_dataset(name)
    shares = shares_of(options.splits)
    assigned, moved = splits_of(store.traces.problems(options.dataset), shares)
    seen: list[_Row] = []
    with tempfile.TemporaryDirectory(prefix="stepgold-") as scratch:
        whole = Path(scratch, "all.jsonl")
        outcome = write_file(options.format, whole, _watched(rows, assigned, seen))
        skipped = {one.trace_id for one in outcome.skipped}
        written = [row for row in seen if row.trace not in skipped]
        schema = _split(whole, [row.split for row in written], folder)
    _write_json(folder / SCHEMA, case_schema() if options.format == "case" else schema.document())
    facts = _facts(workspace, store, options, written=written, outcome=outcome)
    facts["left_out"] |= _dropped(
        {row.trace: row.abstained for row in seen if row.trace in skipped}, outcome, filtered
    )
    facts["near_duplicates"] = {"share": NEAR_DUPLICATE, "moved": moved}
    facts["contamination"] = [
        _contamination(store, options, name, {row.trace for row in written})
        for name in options.against
    ]
    facts["shares"] = dict(zip(SPLITS, shares, strict=True))
    _write_json(folder / FACTS, facts)
    (folder / CARD).write_text(card_text(facts), encoding="utf-8", newline="\n")
    _write_sums(folder)
    return outcome, facts


def _write_sums(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    sums = "".join(f"{sha256_of(folder / name)}  {name}\n" for name in names)
    (folder / SUMS).write_text(sums, encoding="utf-8", newline="\n")


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(f"{text}\n", encoding="utf-8", newline="\n")


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def splits_of(
    problems: Iterable[Problem], shares: tuple[float, float, float]
) -> tuple[dict[str, str], dict[str, str]]:
    """The split of every problem, and those moved to the split of a near-duplicate.

    The same question about other pictures is another problem.
    """
    from evaluation import EvaluatedProblem

    assigned: dict[str, str] = {}
    pictured = defaultdict[tuple[str, ...], list[EvaluatedProblem]](list)
    for one in problems:
        assigned[one.id] = split_of(one.id, shares)
        question = "\n".join([one.shown_question, *one.options])
        pictured[tuple(one.images)].append(EvaluatedProblem(one.id, question, (), ()))
    moved: dict[str, str] = {}
    for alike in pictured.values():
        moved |= _near_duplicates(alike, assigned)
    return assigned | moved, dict(sorted(moved.items()))


def _near_duplicates(
    problems: Sequence[EvaluatedProblem], assigned: Mapping[str, str]
) -> dict[str, str]:
    """Problems with the split that each moves to, so that near-duplicates share one.

    What is like a problem of train moves to train, then what is like one of dev to dev, until
    nothing moves; the order of the problems does not count.
    """
    from evaluation import TrainingRow, find_overlap

    moved: dict[str, str] = {}
    for target, others in (("train", ("dev", "test")), ("dev", ("test",))):
        now = {
            one.problem_id: moved.get(one.problem_id, assigned[one.problem_id]) for one in problems
        }
        fresh = [one for one in problems if now[one.problem_id] == target]
        asked = [one for one in problems if now[one.problem_id] in others]
        while fresh and asked:
            rows = [TrainingRow(target, None, (one.problem_id,), (one.question,)) for one in fresh]
            like = {
                match.problem_id
                for match in find_overlap(asked, rows).matches
                if match.question_share >= NEAR_DUPLICATE
            }
            moved |= dict.fromkeys(like, target)
            fresh = [one for one in asked if one.problem_id in like]
            asked = [one for one in asked if one.problem_id not in like]
    return moved


def _watched(
    rows: Iterable[ExportRow], assigned: Mapping[str, str], seen: list[_Row]
) -> Iterator[ExportRow]:
    for row in rows:
        error, said = first_error(row.label), row.label.step_labels
        why = row.label.abstention
        seen.append(
            _Row(
                trace=row.trace.id,
                problem=row.problem.id,
                split=assigned[row.problem.id],
                steps=len(row.trace.steps),
                verdicts=Counter(str(step.verdict) for step in said if step.verdict),
                error=None if error.missing else error.index is not None,
                corpora=frozenset(found.passage.corpus for found in row.evidence),
                abstained=None if why is None else why.reason.value,
            )
        )
        yield row


def _split(whole: Path, splits: Sequence[str], folder: Path) -> _Schema:
    """Write each line to the file of its split; the schema of all lines."""
    schema = _Schema()
    files = {name: (folder / f"{name}.jsonl").open("wb") for name in dict.fromkeys(splits)}
    try:
        with whole.open("rb") as lines:
            for line, split in zip(lines, splits, strict=True):
                files[split].write(line)
                schema.see(json.loads(line))
    finally:
        for file in files.values():
            file.close()
    return schema


_TYPES: dict[type, str] = {
    bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object",
    type(None): "null",
}  # fmt: skip


@dataclass(slots=True)
class _Schema:
    """The JSON Schema that rows show: types of keys, and keys that every row has."""

    rows: int = 0
    types: dict[str, set[str]] = field(default_factory=dict)
    items: dict[str, set[str]] = field(default_factory=dict)
    count: Counter[str] = field(default_factory=Counter)

    def see(self, row: Mapping[str, Any]) -> None:
        """Take a row into account."""
        self.rows += 1
        self.count.update(row.keys())
        for key, value in row.items():
            self.types.setdefault(key, set()).add(_TYPES[type(value)])
            if isinstance(value, list):
                self.items.setdefault(key, set()).update(_TYPES[type(each)] for each in value)

    def document(self) -> dict[str, Any]:
        """The schema (draft 2020-12)."""
        properties: dict[str, Any] = {}
        for key, types in self.types.items():
            properties[key] = {"type": sorted(types)}
            if self.items.get(key):
                properties[key]["items"] = {"type": sorted(self.items[key])}
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "required": [key for key, count in self.count.items() if count == self.rows],
            "properties": properties,
        }


def _facts(
    workspace: WorkspaceFolder,
    store: Store,
    options: Released,
    *,
    written: Sequence[_Row],
    outcome: WriteOutcome,
) -> dict[str, Any]:
    """What the card says, from the rows and the store."""
    dataset, name = options.dataset, options.labeler
    summaries = {row.labeler.name: row for row in store.labels.labelers(dataset)}
    chain = _chain(summaries, name)
    golds = [
        one for one, row in summaries.items() if row.labeler.kind is LabelerKind.GOLD and row.traces
    ]
    whole = store.traces.datasets()[dataset]
    return {
        "release": 1,
        "made_with": f"stepgold {version('stepgold')}",
        "dataset": dataset,
        "format": options.format,
        "labeler": name,
        "license": options.license,
        "splits": {
            split: _counts([row for row in written if row.split == split])
            for split in SPLITS
            if any(row.split == split for row in written)
        },
        "total": _counts(written),
        "in_the_store": {
            "problems": whole.problems,
            "traces": whole.traces,
            "steps": whole.steps,
        },
        "left_out": {"without_label": whole.traces - summaries[name].traces},
        "not_carried": dict(outcome.not_carried),
        "labelers": [_labeler(summaries[one]) for one in chain],
        "sources": list(_sources(store, dataset)),
        "corpora": list(_corpora(store, written)),
        "costs": list(_costs(store, {summaries[one].labeler.model for one in chain})),
        "agreement": _agreement(workspace, dataset, [*chain, *golds]),
        "quality": [_quality(workspace, dataset, name, gold) for gold in golds if gold != name],
    }


def _dropped(
    skipped: Mapping[str, str | None],
    outcome: WriteOutcome,
    filtered: Sequence[tuple[str, Filtered]],
) -> dict[str, dict[str, int]]:
    """Traces with a label of the labeler that are not in the release, each under one reason."""
    unfit = [one.reason.value for one in outcome.skipped if skipped[one.trace_id] is None]
    removed = FilterCounts.of(0, Counter(why.name for _, why in filtered)).removed
    return {
        "abstained": dict(sorted(Counter(why for why in skipped.values() if why).items())),
        "filtered": dict(removed),
        "skipped": dict(sorted(Counter(unfit).items())),
    }


def _sources(store: Store, dataset: str) -> Iterator[dict[str, Any]]:
    for one in store.traces.source_files(dataset):
        hub = one.options.get(ORIGIN)
        yield {"file": one.name, "format": one.format, "sha256": one.sha256, "hub": hub}


def _corpora(store: Store, written: Sequence[_Row]) -> Iterator[dict[str, Any]]:
    """The corpora that the evidence of the traces is from."""
    known = {one.name: one for one in store.corpora.summaries()}
    for name in sorted(frozenset[str]().union(*(row.corpora for row in written))):
        found = known.get(name)
        yield {
            "name": name,
            "license": found and found.licence,
            "source": found and found.source,
        }


def _costs(store: Store, models: Collection[str | None]) -> Iterator[dict[str, Any]]:
    """What calls of these models cost, as in the ledger."""
    for call in store.replies.spending():
        if call.model in models:
            yield {
                "model": call.model,
                "resolved_model": call.resolved_model,
                "purpose": call.purpose,
                "sent": call.sent,
                "cached": call.cached,
                "usd": call.usd,
                "unpriced": call.unpriced,
            }


def _counts(rows: Sequence[_Row]) -> dict[str, Any]:
    verdicts = sum((row.verdicts for row in rows), Counter[str]())
    return {
        "problems": len({row.problem for row in rows}),
        "traces": len(rows),
        "steps": sum(row.steps for row in rows),
        "with_error": sum(row.error is True for row in rows),
        "without_error": sum(row.error is False for row in rows),
        "open": sum(row.error is None for row in rows),
        "verdicts": {one: verdicts[one] for one in ("correct", "incorrect", "neutral")},
    }


def _chain(summaries: Mapping[str, LabelerSummary], name: str) -> list[str]:
    """The labeler and those that it was made from, as far as they are still there."""
    found, waiting = dict[str, None](), [name]
    while waiting:
        one = waiting.pop(0)
        if one in found or one not in summaries:
            continue
        found[one] = None
        waiting += [source["labeler"] for source in sources_in(summaries[one].labeler.config)]
    return list(found)


def _labeler(row: LabelerSummary) -> dict[str, Any]:
    labeler = row.labeler
    return {
        "name": labeler.name,
        "kind": labeler.kind.value,
        "model": labeler.model,
        "resolved_model": labeler.resolved_model,
        "prompt_sha256": labeler.config.get("prompt_sha256"),
        "traces": row.traces,
        "steps": row.steps,
        "abstained": row.abstained,
    }


def _agreement(
    workspace: WorkspaceFolder, dataset: str, names: Sequence[str]
) -> list[dict[str, Any]]:
    """How far the labelers agree, pair by pair."""
    from stepgold.comparing import CompareOptions, compare

    names = list(dict.fromkeys(names))
    if len(names) < 2:
        return []
    found = compare(workspace, CompareOptions(names, dataset=dataset, disagreements=0))
    keys = ("a", "b", "n_steps", "agreement", "cohen_kappa", "n_first_errors",
            "first_error_agreement")  # fmt: skip
    return [{key: pair.row()[key] for key in keys} for pair in found.pairs]


def _quality(workspace: WorkspaceFolder, dataset: str, name: str, gold: str) -> dict[str, Any]:
    """The labeler against gold (ProcessBench's protocol), beside the floors."""
    from stepgold.evaluating import EvaluateOptions, evaluate_one

    options = EvaluateOptions(dataset=dataset, labeler=[name], gold=gold)
    document = evaluate_one(workspace, options).as_json()
    own = document["average"]
    floors = {one: floor.get("processbench_f1") for one, floor in document["floors"].items()}
    return {
        "gold": gold,
        "threshold": document["threshold"],
        "processbench_f1": own["processbench_f1"],
        "ci95": own["ci95"],
        "floors": floors,
    }


def _contamination(
    store: Store, options: Released, benchmark: str, traces: set[str]
) -> dict[str, Any]:
    """The problems of a benchmark that occur in the release."""
    from evaluation import find_overlap

    rows = dataset_rows(store, options.dataset, within=traces)
    report = find_overlap(list(evaluated_problems(store, benchmark)), rows)
    return {
        "benchmark": benchmark,
        "problems": report.problems,
        "ngram": report.ngram,
        "counts": report.counts(),
        "listed": [match.problem_id for match in report.matches[:LISTED]],
    }


def release_lines(facts: Mapping[str, Any]) -> list[str]:
    """What a person reads of a release: splits, near-duplicates, contamination."""
    splits = (f"{name} {counts['traces']}" for name, counts in facts["splits"].items())
    lines = [f"splits (traces): {', '.join(splits)}"]
    if moved := facts["near_duplicates"]["moved"]:
        lines.append(f"{counted(len(moved), 'problem')} joined the split of a near-duplicate")
    for one in facts["contamination"]:
        counts = one["counts"]
        found = max(counts["by_id"], counts["question_half"])
        lines.append(
            f"{one['benchmark']}: {found} of {one['problems']} problems are in the release (by id"
            f" {counts['by_id']}, half of the question or more {counts['question_half']})"
        )
    return lines


@contextmanager
def release_folder(out: StrPath, *, private: bool) -> Iterator[Output]:
    """A folder to write a release to, which replaces `out` or is pushed when the block ends well.

    Raises:
        InputError: `out` has files that are not those of a release, or cannot be written; or see
            `stepgold.hub.output_folder`.
    """
    shown = hub_path(out)
    if shown is not None:
        with output_folder(shown, private=private) as pushed:
            yield pushed
        return
    path = Path(out)
    foreign = _foreign(path) if path.is_dir() else []
    if foreign or (path.exists() and not path.is_dir()):
        what = f"'{path}' is a file" if not foreign else f"'{path}' has '{foreign[0]}'"
        raise InputError(
            f"{what}, which is not of a release.",
            where=str(path),
            remedy="name a new folder, or move the file away",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(path) as beside:
            beside.mkdir()
            with _removed_on_failure(beside):
                yield Output(beside, out)
                if path.is_dir():
                    shutil.rmtree(path)
    except OSError as error:
        raise InputError(
            f"Cannot write '{path}': {error.strerror or error}.",
            where=str(path),
            remedy="choose a folder with free space that you may write to",
        ) from error


@contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    finished = False
    try:
        yield
        finished = True
    finally:
        if not finished:
            shutil.rmtree(folder, ignore_errors=True)


def _foreign(folder: Path) -> list[str]:
    """What is in a folder, hidden or not, that no release of it wrote: it must not be removed."""
    known: set[str] = set()
    if (folder / SUMS).is_file():
        listed = {name for _, name in listed_sums(folder)}
        written = {SUMS, FACTS, SCHEMA, CARD, *(f"{split}.jsonl" for split in SPLITS)}
        # Other programs write files of this name too, about files that are not ours.
        known = written & {SUMS, *listed} if FACTS in listed else known
    return sorted({path.relative_to(folder).as_posix() for path in folder.rglob("*")} - known)


def release_files(folder: Path) -> list[str]:
    """The files of a folder and those below it, without hidden ones."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return [one.as_posix() for one in found if not any(part.startswith(".") for part in one.parts)]


_SUM = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def listed_sums(folder: Path) -> list[tuple[str, str]]:
    """The hashes and names in the checksums.

    Raises:
        InputError: there are none, or a line is none.
    """
    path = folder / SUMS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"'{folder}' has no {SUMS} that can be read, so it is no release.",
            where=str(path),
            remedy="name the folder that `stepgold export ... --release DIR` wrote",
        ) from error
    matches = [_SUM.fullmatch(line) for line in lines]
    return [(match[1], match[2]) for match in matches if match is not None]
