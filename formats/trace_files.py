"""Reads and writes files of traces: every row is used, reported with a reason, or counted as
lost."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypedDict, Unpack

from formats.files.container import RawRow, is_object_of_lists, read_mapped_rows, read_rows
from formats.files.parquet import require_pyarrow, write_parquet
from formats.registry import (
    built_in_formats,
    export_formats,
    field_names,
    format_named,
    guess_format,
    import_formats,
)
from formats.rows import (
    CannotCarry,
    ExportRow,
    FileContext,
    FileFormat,
    NeutralPolicy,
    Part,
    Rendered,
    RowFault,
    SkippedTrace,
    parts_of,
)
from traces import (
    ImportedTrace,
    InputError,
    Labeler,
    LabelerKind,
    Problem,
    RejectedRow,
    SourceFile,
    TraceFormatError,
    record_defect,
    unfinished,
    whole_or_nothing,
)

FIRST_ROWS = 5
"""Usable rows in which to look for one of the named format."""


class ReadOptions(TypedDict, total=False):
    """What a file does not say itself."""

    subset: str | None
    """The subset of all traces; None for the format's own field, else `default`."""
    several: bool
    """Whether the call reads other files too: a format may name the subset by the file."""
    labeler: str | None
    """Name of the labeler, for formats that do not name it (trl, openrlhf, qwen-prm, sharegpt)."""
    kind: LabelerKind | None
    """That labeler's kind."""
    neutral: NeutralPolicy
    """How to read a step rated neutral (prm800k, visualprocessbench)."""
    alternatives: bool
    """Whether to yield a trace for each rated completion that was not taken, too: the steps before
    it and the completion (prm800k)."""
    prm: str | None
    """The checkpoint that the file's scores come from (medprm); None if unknown."""
    split: str | None
    """How unsplit responses become steps (responses); None for `auto`."""


Read = ImportedTrace | RejectedRow


def read_file(
    format: str,
    path: Path,
    *,
    problems: ProblemIds | None = None,
    **options: Unpack[ReadOptions],
) -> Iterator[ImportedTrace | RejectedRow]:
    """Yield the traces of a file and the rows that cannot be used, in bounded memory.

    Args:
        format: one of `import_formats()`.
        path: .json, .jsonl, either of them gzipped, or Parquet; detected from the content.
        problems: the problems of the call's earlier files; None for a single file.
        **options: see `ReadOptions`.

    Raises:
        InputError: unknown format, or labeler, kind or another option missing or out of place.
        TraceFormatError: the file cannot be read to its end, or is in another format; raised while
            iterating, so the caller rolls back what it took before.
    """
    known = format_named(format, import_formats())
    labeler, kind = options.get("labeler"), options.get("kind")
    if known.needs_labeler and (labeler is None or kind is None):
        raise InputError(
            f"Files of format {format} do not name their labeler.",
            remedy="add --labeler NAME and --kind KIND",
        )
    if not known.needs_labeler and (labeler is not None or kind is not None):
        raise InputError(
            f"Files of format {format} name their labelers themselves.",
            remedy="omit --labeler and --kind",
        )
    neutral = options.get("neutral", NeutralPolicy.KEEP)
    given = {
        "neutral": neutral is not NeutralPolicy.KEEP,
        "alternatives": options.get("alternatives"),
        "prm": options.get("prm"),
        "split": options.get("split"),
    }
    for option in (name for name, value in given.items() if value):
        _require_option(known, option)
    context = FileContext(
        path=str(path),
        stem=file_stem(path),
        subset=options.get("subset"),
        several=options.get("several", False),
        labeler=Labeler(labeler, kind, {"imported_from": format}) if labeler and kind else None,
        neutral=neutral,
        alternatives=options.get("alternatives", False),
        prm=options.get("prm"),
        split=options.get("split") or "auto",
    )
    found = _traces(known, path, context, ProblemIds() if problems is None else problems)
    return _read_to_its_end(path, found)


def _read_to_its_end(path: Path, found: Iterator[Read]) -> Iterator[Read]:
    with whole_or_nothing(path, error=TraceFormatError):
        yield from found


def _require_option(known: FileFormat, option: str) -> None:
    if option not in known.takes:
        taking = (name for name, one in built_in_formats().items() if option in one.takes)
        raise InputError(
            f"Format {known.name} has no option --{option}.",
            remedy=f"omit --{option}; it is for {', '.join(sorted(taking))}",
        )


def file_stem(path: Path) -> str:
    """The base name without .gz and without .json, .jsonl or .parquet.

    >>> file_stem(Path("a/train.jsonl.gz")), file_stem(Path("v1.2.json"))
    ('train', 'v1.2')
    """
    stem = path.name.removesuffix(".gz").removesuffix(".parquet")
    return stem.removesuffix(".jsonl").removesuffix(".json")


def source_file(path: Path, format: str, options: Mapping[str, Any]) -> SourceFile:
    """The name, hash, format and options of a file, which identify it in a second import.

    Raises:
        TraceFormatError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise TraceFormatError(
            f"File '{path}' not found.", where=str(path), remedy="check the path"
        ) from error
    except OSError as error:
        raise TraceFormatError(
            f"Cannot read '{path}': {error.strerror or error}.",
            where=str(path),
            remedy="name a file that you may read",
        ) from error
    return SourceFile(
        name=path.name, sha256=digest, format=format, options=dict(options), path=str(path)
    )


def checked_rows(
    rows: Iterable[RawRow], path: Path, name: str, fits: Callable[[Mapping[str, Any]], bool]
) -> Iterator[RawRow]:
    """The rows, after checking that one of the first `FIRST_ROWS` usable ones fits the format.

    Raises:
        TraceFormatError: none fits, or the first one is a processbench row for `traces`.
    """
    rows = iter(rows)
    first: list[RawRow] = []
    for row in rows:
        first.append(row)
        if sum(not known.fault for known in first) >= FIRST_ROWS:
            break
    usable = [row for row in first if not row.fault]
    looks = guess_format(usable[0].value, accepts=_accepts) if usable else None
    more_specific = name == "traces" and looks == "processbench"
    if usable and (more_specific or not any(fits(row.value) for row in usable)):
        keys = ", ".join(f"'{key}'" for key in list(usable[0].value)[:8])
        seen = f"its first row has the keys {keys}." if keys else "its first row has no keys."
        raise TraceFormatError(
            f"'{path}' is not in format {name}: " + (f"it looks like {looks}." if looks else seen),
            where=f"{path}, row {usable[0].index + 1}",
            remedy=f"stepgold import {looks} ..."
            if looks
            else "see docs/reference/formats.md for the keys of each format",
        )
    yield from itertools.chain(first, rows)


def _accepts(known: FileFormat, row: Mapping[str, Any]) -> bool:
    """Whether a format makes a trace of a row, so that it may be recommended."""
    if known.parse is None:
        return False
    who = Labeler("any", LabelerKind.JUDGE) if known.needs_labeler else None
    file = FileContext(path="", stem="", labeler=who)
    try:
        found = list(known.parse(RawRow(0, 1, value=dict(row)), file))
    except RowFault:
        return False
    return any(isinstance(one, ImportedTrace) for one in found)


def _traces(
    known: FileFormat, path: Path, file: FileContext, problems: ProblemIds
) -> Iterator[ImportedTrace | RejectedRow]:
    parse = known.parse
    if parse is None:
        raise InputError(f"Format '{known.name}' is only written.", remedy="choose another format")
    mapped = known.maps_lists and is_object_of_lists(path, field_names=field_names())
    rows = read_mapped_rows(path) if mapped else read_rows(path)
    seen = _Seen()
    for row in checked_rows(rows, path, known.name, known.fits):
        if row.fault is not None:
            yield file.rejected(row, None, f"the row {row.fault}")
            continue
        try:
            found = list(parse(row, file))
        except RowFault as fault:
            yield file.rejected(row, known.name_row(row, file), str(fault))
            continue
        except Exception as fault:
            if isinstance(fault, InputError) and (fault.where or "").startswith("--"):
                raise  # an option is wrong, not the row
            # Foreign rows must not end an import, whatever we forgot about them.
            yield file.rejected(row, None, record_defect(fault, f"{path}, row {row.index + 1}"))
            continue
        refused: set[str] = set()
        for item in found:
            if isinstance(item, ImportedTrace):
                reason = seen.clash(item)
                if reason is not None:
                    refused.add(item.trace.id)
                    yield file.rejected(row, item.trace.id, reason)
                    continue
                settled, note = problems.settle(item)
                yield settled
                if note is not None:
                    yield file.note(row, item.trace.id, note)
                continue
            if not item.imported or item.id not in refused:
                yield item


class ProblemIds:
    """Gives problems that share an id but differ in content ids of their own.

    Content that differs in white space only is the same problem, in its first wording; otherwise
    later content gets the id `ID~2`, `ID~3` and so on. Share one between the files of a call.
    """

    def __init__(self) -> None:
        self._known: dict[str, Problem] = {}

    def know(self, problems: Iterable[Problem]) -> None:
        """Take over problems that the dataset already has, with the ids they have there."""
        self._known |= {problem.id: problem for problem in problems}

    def settle(self, item: ImportedTrace) -> tuple[ImportedTrace, str | None]:
        """The trace with its problem's settled id, and a note if that problem is a new variant."""
        problem, number, note = item.problem, 1, None
        if _DERIVED_ID.fullmatch(problem.id):
            return item, None
        while True:
            id = problem.id if number == 1 else f"{problem.id}~{number}"
            known = self._known.get(id)
            if known is None:
                known = self._known[id] = problem if number == 1 else replace(problem, id=id)
                if number > 1:
                    note = f"problem '{problem.id}' differs from an earlier row: kept as '{id}'"
            if known == problem:
                return item, None
            if _without_space(known) == _without_space(problem):
                trace = replace(item.trace, problem_id=id)
                return replace(item, problem=known, trace=trace), note
            number += 1


_DERIVED_ID = re.compile(r"q-[0-9a-f]{16}")
"""Ids that `question_id` derives from the content, so they cannot clash."""


def _without_space(problem: Problem) -> str:
    """The problem's content without any white space."""

    def stripped(value: Any) -> Any:
        if isinstance(value, str):
            return "".join(value.split())
        if isinstance(value, Mapping):
            return {name: stripped(part) for name, part in value.items()}
        return [stripped(part) for part in value] if isinstance(value, list | tuple) else value

    content = [problem.question, problem.options, problem.answer, problem.images, problem.meta]
    return json.dumps(stripped(content), sort_keys=True)


class SubsetFiles:
    """The files of a call by the subset that their traces are in."""

    def __init__(self) -> None:
        self._files: dict[str, dict[Path, None]] = {}

    def watched(
        self, path: Path, rows: Iterable[ImportedTrace | RejectedRow]
    ) -> Iterator[ImportedTrace | RejectedRow]:
        """The rows of a file, while their subsets are noted."""
        for row in rows:
            if isinstance(row, ImportedTrace):
                self._files.setdefault(row.trace.subset, {})[path] = None
            yield row

    def notes(self) -> list[RejectedRow]:
        """A harmless note for every subset that several files share."""
        return [
            RejectedRow(
                str(next(iter(files))),
                None,
                None,
                f"{len(files)} files are in the subset '{subset}', which averages count as one:"
                " import each with its own --subset if they are several",
                imported=True,
                harmless=True,
            )
            for subset, files in self._files.items()
            if len(files) > 1
        ]


class _Seen:
    """Trace ids and labelers of the rows read so far."""

    def __init__(self) -> None:
        self._traces: set[str] = set()
        self._labelers: dict[str, Labeler] = {}

    def clash(self, item: ImportedTrace) -> str | None:
        """Why a trace contradicts an earlier row; None if it does not."""
        if item.trace.id in self._traces:
            return "the id occurs twice in the file"
        for labeler, _ in item.labels:
            known = self._labelers.setdefault(labeler.name, labeler)
            if known != labeler:
                return (
                    f"labeler '{labeler.name}' is of kind {labeler.kind.value} here and"
                    f" {known.kind.value} in an earlier row"
                )
        self._traces.add(item.trace.id)
        return None


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    """What an export wrote, and what it did not."""

    written: int
    """Traces in the file."""
    skipped: tuple[SkippedTrace, ...]
    shortened: int = 0
    """Written traces without their last steps, which have no label."""
    not_carried: Mapping[str, int] = field(default_factory=dict)
    """Written traces with a part that the format has no place for, by part (`Part`)."""


def write_file(format: str, path: Path, rows: Iterable[ExportRow]) -> WriteOutcome:
    """Write the rows to a new file that replaces `path`; on failure `path` stays as it was.

    A path that ends in .json (or format medprm) becomes one JSON list; .jsonl or no ending is
    JSONL; a further .gz compresses. Format `parquet` writes our own rows as a table;
    `critique` writes its messages as one, if the path ends in .parquet.

    Raises:
        InputError: unknown format, an ending that is unknown or does not fit the format, pyarrow
            is missing, or the file cannot be written.
    """
    known = format_named(format, export_formats())
    tally = _Tally()
    rendered: Iterable[Mapping[str, Any]] = tally.rendered(known, rows)
    if known.gather is not None:
        rendered = known.gather(dict(row) for row in rendered)
    if _is_table(known, path):
        require_pyarrow(path)
        with replaced_bytes(path) as stream:
            (known.write_table or write_parquet)(stream, rendered)
        return tally.outcome()
    with replaced(path) as out:
        if known.always_list or path.name.removesuffix(".gz").endswith(".json"):
            _write_list(out, rendered)
        else:
            for row in rendered:
                out.write(f"{_dumped(row)}\n")
    return tally.outcome()


def _is_table(known: FileFormat, path: Path) -> bool:
    wanted = known.name == "parquet"
    if known.write_table is not None and path.name.endswith(".parquet"):
        return True
    if wanted != path.name.endswith(".parquet"):
        raise InputError(
            f"'{path}' does not fit format '{known.name}'.",
            where=str(path),
            remedy="end the path in .parquet" if wanted else "use format parquet, or end in .jsonl",
        )
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix not in ("", ".json", ".jsonl", ".parquet"):
        raise InputError(
            f"No format of export is written as {suffix}.",
            where=str(path),
            remedy="end the path in .jsonl, .json, .jsonl.gz or .json.gz, or in .parquet with"
            " format parquet",
        )
    return wanted


class _Tally:
    """Counts rows while they are written."""

    def __init__(self) -> None:
        self.written = self.shortened = 0
        self.skipped: list[SkippedTrace] = []
        self.lost: Counter[str] = Counter()

    def rendered(self, known: FileFormat, rows: Iterable[ExportRow]) -> Iterator[dict[str, Any]]:
        if known.render is None:
            raise InputError(f"Format '{known.name}' is only read.", remedy="choose another format")
        for row in rows:
            try:
                rendered = known.render(row)
            except CannotCarry as limit:
                self.skipped.append(SkippedTrace(row.trace.id, limit.reason, limit.detail))
                continue
            self.written += 1
            self.shortened += rendered.steps_left_out > 0
            self.lost.update(part.value for part in _lost(row, known, rendered))
            yield rendered.row

    def outcome(self) -> WriteOutcome:
        """The counts, after all rows were written."""
        lost = dict(sorted(self.lost.items()))
        return WriteOutcome(self.written, tuple(self.skipped), self.shortened, lost)


def _lost(row: ExportRow, known: FileFormat, rendered: Rendered) -> frozenset[Part]:
    cut = row.label.step_labels[len(row.trace.steps) - rendered.steps_left_out :]
    later = {Part.LATER_VERDICTS} if any(step.abstention is None for step in cut) else set()
    return (parts_of(row) - known.carries) | rendered.lost | later


def _dumped(row: Mapping[str, Any]) -> str:
    # A NaN here is our defect: better no file than an invalid one.
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def _write_list(out: TextIO, rows: Iterable[Mapping[str, Any]]) -> None:
    separator = "[\n"
    for row in rows:
        out.write(f"{separator}{_dumped(row)}")
        separator = ",\n"
    out.write("\n]\n" if separator == ",\n" else "[]\n")


def _text(packed: BinaryIO | gzip.GzipFile) -> TextIO:
    return io.TextIOWrapper(packed, encoding="utf-8", newline="\n")


@contextmanager
def replaced(path: Path) -> Iterator[TextIO]:
    """A text file that replaces `path` on success; see `replaced_bytes`."""
    with replaced_bytes(path) as plain:
        if not path.name.endswith(".gz"):
            with _text(plain) as out:
                yield out
            return
        # No name and no time in the header, so that equal content gives equal bytes.
        with gzip.GzipFile("", "wb", fileobj=plain, mtime=0) as packed, _text(packed) as out:
            yield out


@contextmanager
def replaced_bytes(path: Path) -> Iterator[BinaryIO]:
    """A temporary file that replaces `path` on success and is deleted on failure.

    Raises:
        InputError: folder missing or read-only, disk full.
    """
    try:
        with unfinished(path) as beside, beside.open("wb") as plain:
            yield plain
    except OSError as error:
        raise InputError(
            f"Cannot write '{path}': {error.strerror or error}.",
            where=str(path),
            remedy="choose a folder with free space that you may write to",
        ) from error
