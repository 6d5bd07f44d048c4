"""A workspace is drawn wholly from its seed, and its truth holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.build import build_workspace, trace_row, write_workspace_files


def test_the_seed_decides_everything() -> None:
    assert build_workspace(7, 20) == build_workspace(7, 20)
    assert build_workspace(7, 20) != build_workspace(8, 20)


def test_every_problem_has_exactly_one_document_with_its_passage() -> None:
    workspace = build_workspace(0, 30, n_distractors=10)
    assert (
        len({document.drug for document in workspace.documents}) == len(workspace.documents) == 25
    )
    for problem in workspace.problems:
        holders = [d for d in workspace.documents if problem.decisive_passage in d.text]
        assert [d.drug for d in holders] == [problem.drug]
        paragraphs = holders[0].text.split("\n\n")
        assert problem.decisive_passage in (paragraph.strip() for paragraph in paragraphs)


def test_no_document_names_another_drug_of_the_workspace() -> None:
    workspace = build_workspace(1, 30)
    drugs = {document.drug for document in workspace.documents}
    for document in workspace.documents:
        assert {drug for drug in drugs if drug in document.text} == {document.drug}


def test_labels_are_cumulative_and_exact() -> None:
    workspace = build_workspace(2, 40)
    problems = {problem.id: problem for problem in workspace.problems}
    assert len({trace.id for trace in workspace.traces}) == len(workspace.traces) == 80
    for trace in workspace.traces:
        problem = problems[trace.problem_id]
        assert problem.first_error_index(trace.steps) == trace.first_error_index
        verdicts = problem.verdicts(trace.steps)
        assert verdicts == sorted(verdicts, reverse=True)
        if trace.first_error_index is None:
            assert all(verdicts)
            assert trace.final_answer == problem.answer
        else:
            assert verdicts.count(True) == trace.first_error_index


def test_too_many_drugs_are_refused() -> None:
    with pytest.raises(ValueError, match="lower n_problems"):
        build_workspace(0, 800)


def test_files_hold_the_workspace(tmp_path: Path) -> None:
    workspace = build_workspace(3, 5, n_distractors=2)
    write_workspace_files(workspace, tmp_path)
    written = {path.name: path.read_text() for path in (tmp_path / "guidelines").iterdir()}
    assert written == {document.name: document.text for document in workspace.documents}
    rows = [json.loads(line) for line in (tmp_path / "traces.jsonl").read_text().splitlines()]
    assert rows[0] == trace_row(workspace.problems[0], workspace.traces[0])
    assert {row["subset"] for row in rows} == {"corrupted"}
    judged = [json.loads(line) for line in (tmp_path / "qrels.jsonl").read_text().splitlines()]
    assert [row["problem"] for row in judged] == [each.question for each in workspace.problems]
    assert all(written[row["document"]].count(row["decisive"]) == 1 for row in judged)
