"""`verify`: whether a release is whole and unchanged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgold.hub import CARD, hub_path, snapshot
from stepgold.releasing import (
    FACTS,
    SCHEMA,
    SPLITS,
    SUMS,
    listed_sums,
    release_files,
    sha256_of,
)
from stepgold.results import INCOMPLETE, OK, Result, counted
from traces import Config, StrPath, argument

if TYPE_CHECKING:
    from stepgold.workspace import WorkspaceFolder


class VerifyOptions(Config):
    """The release to check."""

    release: StrPath = argument(
        kw_only=False,
        metavar="DIR",
        help="Folder of a release, or hf://datasets/ORG/NAME[@REVISION].",
    )


@dataclass(frozen=True, kw_only=True, repr=False)
class VerifyResult(Result):
    """Whether a release is whole and unchanged."""

    release: StrPath
    """The folder, or the address on the Hub."""
    files: int
    """Files that the checksums name."""
    traces: int
    """Rows in the files of the splits."""
    problems: tuple[Mapping[str, str], ...]
    """What is wrong: `file`, `kind` (`changed`, `missing`, `additional`, `counts`) and `detail`."""

    @property
    def exit_code(self) -> int:
        """0, or 1 if anything is wrong."""
        return INCOMPLETE if self.problems else OK

    def as_json(self) -> dict[str, Any]:
        """The figures, and what is wrong."""
        return {
            "command": "verify",
            "release": str(self.release),
            "ok": not self.problems,
            "files": self.files,
            "traces": self.traces,
            "problems": [dict(one) for one in self.problems],
        }

    def words(self) -> str:
        """One line, and one for everything that is wrong."""
        state = f"{counted(len(self.problems), 'problem')}" if self.problems else "as released"
        head = f"verify {self.release}: {counted(self.files, 'file')},"
        lines = [f"{one['file']}: {one['detail']}" for one in self.problems]
        return "\n".join([f"{head} {counted(self.traces, 'trace')}: {state}", *lines])


def verify(release: StrPath) -> VerifyResult:
    """Check a release: every byte, no file more or less, and the counts of its card.

    Raises:
        InputError: there is no release.
    """
    shown = hub_path(release)
    folder = Path(release) if shown is None else snapshot(shown, [""]).target
    listed = listed_sums(folder)
    found = [*_wrong_files(folder, listed)]
    traces = 0
    for name, rows, detail in _counted(folder):
        traces += rows
        if detail is not None:
            found.append({"file": name, "kind": "counts", "detail": detail})
    return VerifyResult(
        release=release if shown is None else shown,
        files=len(listed),
        traces=traces,
        problems=tuple(found),
    )


def verify_release(workspace: WorkspaceFolder, options: VerifyOptions) -> VerifyResult:
    """Check a release; see `verify`. The workspace is not used."""
    return verify(options.release)


def _wrong_files(folder: Path, listed: Sequence[tuple[str, str]]) -> Iterator[dict[str, str]]:
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    if len(lines) != len(listed):
        detail = f"{len(lines) - len(listed)} lines are no checksums"
        yield {"file": SUMS, "kind": "changed", "detail": detail}
    names = {name for _, name in listed}
    present = set(release_files(folder))
    for needed in (FACTS, CARD, SCHEMA):
        if needed not in names:
            yield {"file": SUMS, "kind": "changed", "detail": f"{needed} has no checksum"}
    for digest, name in listed:
        if name not in present:
            yield {"file": name, "kind": "missing", "detail": "the file is missing"}
        elif sha256_of(folder / name) != digest:
            yield {"file": name, "kind": "changed", "detail": "its bytes are not those released"}
    for name in sorted(present - names - {SUMS}):
        yield {"file": name, "kind": "additional", "detail": "the release has no such file"}


def _counted(folder: Path) -> Iterator[tuple[str, int, str | None]]:
    """Each split's file with its rows, and how they differ from what data and card say."""
    from huggingface_hub import metadata_load

    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        stated = {name: int(counts["traces"]) for name, counts in facts["splits"].items()}
        card = metadata_load(folder / CARD) or {}
        shown = {one["name"]: one["num_examples"] for one in card["dataset_info"]["splits"]}
    except Exception as fault:  # anyone may have changed them in any way
        yield FACTS, 0, f"the counts cannot be read ({type(fault).__name__})"
        return
    for split in dict.fromkeys([*SPLITS, *stated, *shown]):
        path = folder / f"{split}.jsonl"
        rows = 0
        if split in SPLITS and path.is_file():
            with path.open("rb") as lines:
                rows = sum(bool(line.strip()) for line in lines)
        said = (stated.get(split, 0), shown.get(split, 0))
        detail = f"{rows} rows; {FACTS} says {said[0]}, the card {said[1]}"
        yield path.name, rows, None if said == (rows, rows) else detail
