"""200 corrupted rows for every reader: no crash, no silent skip, read + rejected = rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from formats import read_file, read_scores
from formats.rows import REASON_LIMIT
from storage import Store
from tests.formats.fuzz import ID_KEYS, ROWS, corrupted_file
from tests.formats.samples import SAMPLES, WANT_LABELER
from traces.labels import LabelerKind, TraceLabel
from traces.records import ImportedTrace, RejectedRow, SourceFile

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]
SCORES = {"id": "id-0", "scores": [0.5, 0.25], "first_error": 1}


def read_all(format: str, path: Path) -> list[ImportedTrace | RejectedRow]:
    wants = format in WANT_LABELER
    return list(
        read_file(
            format,
            path,
            labeler="who" if wants else None,
            kind=LabelerKind.MC if wants else None,
        )
    )


def fuzzed(tmp_path: Path, format: str, seed: int) -> tuple[Path, int]:
    lines = corrupted_file(format, SAMPLES[format], seed)
    path = tmp_path / "fuzzed.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path, len(lines)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("format", sorted(SAMPLES))
def test_every_row_is_read_or_rejected_by_name(tmp_path: Path, format: str, seed: int) -> None:
    path, n_rows = fuzzed(tmp_path, format, seed)
    found = read_all(format, path)
    traces = [item for item in found if isinstance(item, ImportedTrace)]
    listed = [item for item in found if isinstance(item, RejectedRow)]
    refused = [row for row in listed if not row.imported]

    # A row of medprm holds several traces; the fuzzer may give it none or two.
    per_line = dict.fromkeys(range(1, n_rows + 1), 0)
    for place in [*(item.line for item in traces), *(row.line for row in refused)]:
        assert place is not None
        per_line[place] += 1
    assert all(per_line.values())
    if format != "medprm":
        assert set(per_line.values()) == {1}
        assert len(traces) + len(refused) == n_rows
    assert len(refused) > ROWS / 4

    for row in listed:
        assert row.file == str(path)
        assert 0 < len(row.reason) <= REASON_LIMIT
        assert "\n" not in row.reason
    unreadable = [row for row in refused if row.id is None]
    assert all(row.reason.startswith("the row ") or format in ID_KEYS for row in unreadable)

    # A label that could not be used is an abstention, and stands in the list.
    named = {(row.line, row.id) for row in listed if row.imported}
    for item in traces:
        for _, label in item.labels:
            if label.abstention is not None:
                assert (item.line, item.trace.id) in named
            assert len(label.step_labels) in (0, len(item.trace.steps))


@pytest.mark.parametrize("format", sorted(SAMPLES))
@pytest.mark.slow
def test_the_store_takes_what_was_read(tmp_path: Path, format: str) -> None:
    path, n_rows = fuzzed(tmp_path, format, 0)
    found = read_all(format, path)
    with Store.open(f"sqlite:///{tmp_path / 'fuzz.db'}") as store:
        outcome = store.traces.import_file("d", SourceFile("fuzzed", "0" * 64, format), found)
        refused = [row for row in outcome.rejected if not row.imported]
        n_found = sum(isinstance(item, ImportedTrace) or not item.imported for item in found)
        assert outcome.done + len(refused) == n_found
        assert store.traces.import_summary("d").traces == outcome.done
    assert n_found >= n_rows


@pytest.mark.parametrize("seed", SEEDS)
def test_every_row_of_scores_is_read_or_rejected_by_name(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "scores.jsonl"
    lines = corrupted_file("traces", SCORES, seed)
    path.write_bytes(b"\n".join(lines) + b"\n")
    found = list(read_scores(path, {f"id-{number}": 2 for number in range(ROWS + 2)}))
    labels = [item for item in found if isinstance(item, TraceLabel)]
    refused = [item for item in found if isinstance(item, RejectedRow)]
    assert len(labels) + len(refused) == len(lines)
    assert len({label.trace_id for label in labels}) == len(labels)
    assert all(row.line and row.reason and row.file == str(path) for row in refused)
