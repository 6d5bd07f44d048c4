"""`review export` and `review import`: experts' answers as files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formats import INTERFACE, read_expert_answers, write_expert_answers
from stepgold.options import DatasetOptions
from stepgold.outcome import LabelingResult, Tally
from stepgold.results import INCOMPLETE, OK, counted
from traces import InputError, RejectedRow, ReviewAnswer, StrPath, argument, paths_of

if TYPE_CHECKING:
    from stepgold.workspace import WorkspaceFolder

SHOWN_ROWS = 5
"""Unusable rows that are listed for a person."""


class ReviewExportOptions(DatasetOptions):
    """Which dataset's answers, and where they go."""

    out: StrPath = argument(
        kw_only=False,
        metavar="FILE",
        help="A .csv or .jsonl file with the log of answers, or an .xml file for Label Studio's"
        " labeling interface.",
    )


class ReviewImportOptions(DatasetOptions):
    """Files with experts' answers."""

    files: Sequence[StrPath] = argument(
        kw_only=False,
        metavar="FILE",
        help="What review export wrote, Potato's prm_training_data.jsonl, or Label Studio's JSON.",
    )


@dataclass(frozen=True, kw_only=True, repr=False)
class ReviewExportResult(LabelingResult):
    """Where the log of answers was written."""

    out: Path
    """The file."""

    def as_json(self) -> dict[str, Any]:
        """The contract's document, with the file."""
        return super().as_json() | {"out": str(self.out)}

    def words(self) -> str:
        """How many answers, and where."""
        return f"review export: {counted(self.done, 'answer')} written to {self.out}"


@dataclass(frozen=True, kw_only=True, repr=False)
class ReviewImportResult(LabelingResult):
    """How many answers were stored, and which rows could not be used."""

    experts: Mapping[str, int]
    """Answers by expert, in all files."""
    rejected: tuple[RejectedRow, ...]
    """Rows that could not be used."""

    @property
    def exit_code(self) -> int:
        """0, or 1 if a row could not be used."""
        return INCOMPLETE if self.rejected else OK

    def as_json(self) -> dict[str, Any]:
        """The contract's document, with the experts and the rejected rows."""
        rows = [
            {"file": one.file, "line": one.line, "id": one.id, "reason": one.reason}
            for one in self.rejected
        ]
        return super().as_json() | {"experts": dict(self.experts), "rejected": rows}

    def words(self) -> str:
        """The counts, and the first rows that could not be used."""
        lines = [
            f"review import: {counted(self.done, 'answer')} stored, {self.unchanged} known before,"
            f" {counted(len(self.rejected), 'row')} rejected"
        ]
        lines += [f"  {code}: {counted(count, 'answer')}" for code, count in self.experts.items()]
        lines += [f"  {one.file}:{one.line}: {one.reason}" for one in self.rejected[:SHOWN_ROWS]]
        if len(self.rejected) > SHOWN_ROWS:
            lines.append(f"  ... and {len(self.rejected) - SHOWN_ROWS} more: --json lists them all")
        return "\n".join(lines)


def review_export(workspace: WorkspaceFolder, options: ReviewExportOptions) -> ReviewExportResult:
    """Write the log of a dataset's answers, oldest first.

    Raises:
        InputError: there is no such dataset, or the file has another ending or cannot be written.
    """
    out, tally = Path(options.out), Tally("review export", options.dataset)
    if out.suffix not in (".csv", ".jsonl", ".xml"):
        raise InputError(
            f"'{out.name}' does not end in .csv, .jsonl or .xml.", remedy="name another file"
        )
    with workspace.open_store() as store:
        log = store.reviews.log(options.dataset)
        try:
            if out.suffix == ".xml":
                out.write_text(INTERFACE, encoding="utf-8")
            else:
                tally.done = write_expert_answers(out, log)
        except OSError as fault:
            raise InputError(
                f"The file cannot be written: {fault.strerror}.",
                where=str(out),
                remedy="name a file you may write",
            ) from fault
    return ReviewExportResult(**tally.figures(), out=out)


def review_import(workspace: WorkspaceFolder, options: ReviewImportOptions) -> ReviewImportResult:
    """Store experts' answers on traces of a dataset; importing a file twice changes nothing.

    Raises:
        InputError: there is no such dataset, or a file cannot be read.
    """
    tally, rejected = Tally("review import", options.dataset), list[RejectedRow]()
    with workspace.open_store() as store:
        known = {
            id_: steps
            for page in store.traces.columns(options.dataset)
            for id_, steps in zip(page.ids, page.n_steps.tolist(), strict=True)
        }
        answers: list[ReviewAnswer] = []
        for path in paths_of(options.files):
            for row in read_expert_answers(Path(path)):
                if isinstance(row, RejectedRow):
                    rejected.append(row)
                elif row.trace_id not in known:
                    rejected.append(_unknown(path, row, "there is no trace of that id"))
                elif not 0 <= row.step_index < known[row.trace_id]:
                    reason = f"the trace has no step {row.step_index + 1}"
                    rejected.append(_unknown(path, row, reason))
                else:
                    answers.append(row)
        store.reviews.begin(options.dataset, {answer.expert for answer in answers})
        tally.done = store.reviews.add(options.dataset, answers)
    tally.unchanged, tally.failed = len(answers) - tally.done, len(rejected)
    experts = Counter(answer.expert for answer in answers)
    return ReviewImportResult(
        **tally.figures(), experts=dict(sorted(experts.items())), rejected=tuple(rejected)
    )


def _unknown(path: StrPath, row: ReviewAnswer, reason: str) -> RejectedRow:
    return RejectedRow(str(path), None, row.trace_id, f"{row.trace_id}: {reason}")
