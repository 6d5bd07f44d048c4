"""The lab: a workspace of known truth from one seed, and the bundled models that write traces."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lab import names, prompts
from lab.corruption import draw_trace
from lab.domain import DrugFacts, Question, decisive_passage, draw_facts, draw_question
from lab.prose import draw_document
from lab.solution import check, final_answer, gold_answer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from inference import WrittenTrace


@dataclass(frozen=True)
class LabDocument:
    """One guideline document; each drug of a workspace has exactly one."""

    name: str
    text: str
    drug: str


@dataclass(frozen=True)
class LabProblem:
    """A question with its gold answer and the facts that decide it."""

    id: str
    question: str
    answer: str
    facts: DrugFacts
    patient: Question

    @property
    def drug(self) -> str:
        """Return the drug asked about."""
        return self.facts.drug

    @property
    def decisive_passage(self) -> str:
        """Return the guideline sentences that decide the answer."""
        return decisive_passage(self.facts)

    def first_error_index(self, steps: Sequence[str]) -> int | None:
        """Return the exact first error of any trace for this problem, None where there is none."""
        return check(steps, self.facts, self.patient)

    def verdicts(self, steps: Sequence[str]) -> list[bool]:
        """Return for each step whether the trace is correct up to and including it."""
        wrong = self.first_error_index(steps)
        return [wrong is None or index < wrong for index in range(len(steps))]


@dataclass(frozen=True)
class LabTrace:
    """A trace with its exact first error (None: correct throughout)."""

    id: str
    problem_id: str
    steps: tuple[str, ...]
    final_answer: str | None
    first_error_index: int | None


@dataclass(frozen=True)
class LabWorkspace:
    """The documents, problems and traces of one seed."""

    documents: tuple[LabDocument, ...]
    problems: tuple[LabProblem, ...]
    traces: tuple[LabTrace, ...]


def build_workspace(
    seed: int,
    n_problems: int = 60,
    *,
    traces_per_problem: int = 2,
    problems_per_drug: int = 2,
    n_distractors: int = 40,
    error_share: float = 0.65,
) -> LabWorkspace:
    """Draw documents, problems and corrupted traces; the same arguments give the same workspace.

    `n_distractors` further documents are about drugs that no problem asks about.

    Raises:
        ValueError: more drugs than there are names.
    """
    n_asked = -(-n_problems // problems_per_drug)
    if n_asked + n_distractors > len(names.DRUG_NAMES):
        raise ValueError(
            f"{n_asked} asked drugs and {n_distractors} distractors exceed the pool of "
            f"{len(names.DRUG_NAMES)} names: lower n_problems or n_distractors."
        )
    rng = random.Random(f"stepgold lab {seed}")
    drugs = rng.sample(names.DRUG_NAMES, n_asked + n_distractors)
    facts = [draw_facts(rng, drug) for drug in drugs]
    documents = [LabDocument(f"{f.drug.lower()}.md", draw_document(rng, f), f.drug) for f in facts]
    rng.shuffle(documents)
    problems = [
        _draw_problem(rng, index, facts[index // problems_per_drug]) for index in range(n_problems)
    ]
    traces = [
        _draw_lab_trace(rng, problem, number, error_share=error_share, facts=facts)
        for problem in problems
        for number in range(traces_per_problem)
    ]
    return LabWorkspace(tuple(documents), tuple(problems), tuple(traces))


def _draw_problem(rng: random.Random, index: int, facts: DrugFacts) -> LabProblem:
    patient = draw_question(rng, facts)
    return LabProblem(
        f"lab-{index:04d}",
        question=patient.text,
        answer=gold_answer(facts, patient),
        facts=facts,
        patient=patient,
    )


def _draw_lab_trace(
    rng: random.Random,
    problem: LabProblem,
    number: int,
    *,
    error_share: float,
    facts: Sequence[DrugFacts],
) -> LabTrace:
    lender = rng.choice([f for f in facts if f.drug != problem.drug] or [draw_facts(rng)])
    made = draw_trace(rng, problem.facts, problem.patient, error_share=error_share, other=lender)
    return LabTrace(
        f"{problem.id}-c{number}",
        problem.id,
        steps=made.steps,
        final_answer=final_answer(made.steps),
        first_error_index=made.first_error_index,
    )


def trace_row(problem: LabProblem, trace: LabTrace, subset: str = "corrupted") -> dict[str, object]:
    """Return a trace as one row of the `traces` JSONL format, its exact truth as labeler `gold`."""
    verdicts = [1 if right else -1 for right in problem.verdicts(trace.steps)]
    gold = {"kind": "gold", "verdicts": verdicts, "first_error": trace.first_error_index}
    return {
        "id": trace.id,
        "problem": problem.question,
        "answer": problem.answer,
        "subset": subset,
        "steps": list(trace.steps),
        "final_answer": trace.final_answer,
        "final_answer_correct": trace.final_answer == problem.answer,
        "labels": {"gold": gold},
        "meta": {"drug": problem.drug, "problem_id": problem.id},
    }


def write_workspace_files(workspace: LabWorkspace, out_dir: Path) -> None:
    """Write `guidelines/*.md`, `traces.jsonl` and `qrels.jsonl` below `out_dir`."""
    folder = out_dir / "guidelines"
    folder.mkdir(parents=True, exist_ok=True)
    for document in workspace.documents:
        (folder / document.name).write_text(document.text, encoding="utf-8")
    problems = {problem.id: problem for problem in workspace.problems}
    rows = (json.dumps(trace_row(problems[t.problem_id], t)) for t in workspace.traces)
    (out_dir / "traces.jsonl").write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    judged = (json.dumps(relevance_row(problem)) for problem in workspace.problems)
    (out_dir / "qrels.jsonl").write_text("".join(row + "\n" for row in judged), encoding="utf-8")


def relevance_row(problem: LabProblem) -> dict[str, object]:
    """Return the document and sentence that decide a problem, as a row of JSONL qrels."""
    return {
        "problem": problem.question,
        "document": f"{problem.drug.lower()}.md",
        "relevance": 1,
        "decisive": problem.decisive_passage.split(". ")[0].rstrip(".") + ".",
    }


MAX_NEW_TOKENS = 130
"""The longest correct solution has about 110 tokens."""


def sample_traces(
    problems: Sequence[LabProblem],
    passages: Mapping[str, str],
    *,
    per_problem: int,
    seed: int,
    temperature: float = 1.0,
) -> list[LabTrace]:
    """Sample `per_problem` solutions of each problem from the bundled policy.

    Args:
        problems: the problems.
        passages: the retrieved top passage by problem id; a problem without one gets none.
        per_problem: solutions per problem, at least 1.
        seed: seed of the sampler.
        temperature: sampling temperature.

    Returns:
        One trace per completion with at least one step, ids `<problem id>-s<number>`.
    """
    from inference import (
        PrefixEngine,
        PrefixRow,
        SamplingRule,
        SharedTrace,
        load_local_model,
        noise_key,
    )

    local = load_local_model(str(bundled_model_folder("policy")))
    engine = PrefixEngine(local.model, local.end_ids)
    asked = []
    for problem in problems:
        user = prompts.user_text(passages.get(problem.id), problem.question)
        ids = tuple(
            local.tokenizer.encode(prompts.generation_prompt(user), add_special_tokens=False)
        )
        key = noise_key(seed, problem.id)
        # The last token of the prompt is fed to each row: its output is the first choice.
        rows = [
            PrefixRow(len(ids) - 1, ids[-1:], key, (0, number)) for number in range(per_problem)
        ]
        asked.append((problem, SharedTrace(ids, tuple(rows))))
    asked.sort(key=lambda pair: len(pair[1].ids))
    written = engine.continue_all(
        [shared for _, shared in asked],
        SamplingRule(temperature),
        max_new_tokens=MAX_NEW_TOKENS,
        stop=(),
        tokenizer=local.tokenizer,
    )
    traces = [
        trace
        for (problem, _), done in zip(asked, written, strict=True)
        for trace in _written_traces(problem, done)
    ]
    return sorted(traces, key=lambda trace: trace.id)


def _written_traces(problem: LabProblem, written: WrittenTrace) -> Iterator[LabTrace]:
    """The completions of a problem that have at least one step."""
    for number, row in enumerate(written.rows):
        steps = tuple(prompts.split_steps(row.text))
        if steps:
            yield LabTrace(
                f"{problem.id}-s{number}",
                problem.id,
                steps=steps,
                final_answer=final_answer(steps),
                first_error_index=problem.first_error_index(steps),
            )


ModelName = Literal["policy", "judge", "prm"]


def bundled_model_folder(name: ModelName) -> Path:
    """Return the folder of a shipped model; it works wherever `hf:PATH` does."""
    return Path(__file__).parent / "models" / name


def load_bundled(
    name: ModelName, folder: Path | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a shipped model in float32 and evaluation mode, with its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = folder if folder is not None else bundled_model_folder(name)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        place, dtype="float32", trust_remote_code=False
    )
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        place, trust_remote_code=False
    )
    model.eval()  # type: ignore[no-untyped-call]
    return model, tokenizer
