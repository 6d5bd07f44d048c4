"""Held-out figures of the lab: `make bench-lab`, or `python -m benchmarks.lab --problems 500`.

Two sources of traces, at least 1,000 each: corrupted by the generator, and written by the policy.
The truth of every step is exact. For each source: judge with the right and with a wrong passage,
Monte-Carlo labels, strict consensus, marker PRM, and the likelihood baseline (policy weights). All
differences are paired over the same problems.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from evaluation import EvaluatedTrace, evaluate_processbench, paired_difference, step_accuracy
from inference import LocalPolicy, PolicyConfig
from lab import (
    LabProblem,
    LabTrace,
    LabWorkspace,
    LikelihoodJudge,
    build_workspace,
    bundled_model_folder,
    sample_traces,
)
from labeling import ConsensusConfig, MonteCarloConfig, agree_on, continue_traces, judge_traces
from retrieval.documents import make_document, split_document
from scoring import load_scorer
from traces import (
    Evidence,
    LabeledTrace,
    Passage,
    Problem,
    StepLabel,
    Trace,
    TraceInContext,
    TraceLabel,
    Verdict,
)

PASSAGE_TOKENS = 160
Labels = dict[str, TraceLabel]


@dataclass(frozen=True)
class Source:
    """Traces of one origin with their exact truth."""

    name: str
    contexts: list[TraceInContext]
    gold: Labels

    def evaluated(self, labels: Labels) -> list[EvaluatedTrace]:
        """The traces with one labeler's words."""
        return [
            EvaluatedTrace(
                c.trace.id,
                c.problem.id,
                self.name,
                len(c.trace.steps),
                self.gold[c.trace.id],
                labels.get(c.trace.id),
            )
            for c in self.contexts
        ]


def decisive_passages(lab: LabWorkspace) -> dict[str, Passage]:
    """By drug, the passage of its document that holds the decisive sentences."""
    wanted = {problem.drug: problem.decisive_passage for problem in lab.problems}
    found: dict[str, Passage] = {}
    for document in lab.documents:
        if document.drug not in wanted:
            continue
        stored = make_document(document.name, document.drug, document.text, document.name)
        passages = split_document(stored, corpus="guidelines", target_tokens=PASSAGE_TOKENS)
        # The first decisive sentence names the dose; the passage that holds it decides.
        first = wanted[document.drug].split(". ")[0]
        found[document.drug] = next(p for p in passages if first in p.text)
    return found


def source(
    name: str,
    problems: Iterable[LabProblem],
    traces: Iterable[LabTrace],
    passages: dict[str, Passage],
) -> Source:
    """Put traces into context with the right passage."""
    by_id = {problem.id: problem for problem in problems}
    contexts, gold = [], {}
    for trace in traces:
        lab_problem = by_id[trace.problem_id]
        problem = Problem(lab_problem.id, lab_problem.question, answer=lab_problem.answer)
        evidence = (Evidence(passages[lab_problem.drug], None, 0),)
        contexts.append(TraceInContext(problem, Trace(trace.id, problem.id, trace.steps), evidence))
        steps = tuple(
            StepLabel(Verdict.CORRECT if right else Verdict.INCORRECT)
            for right in lab_problem.verdicts(trace.steps)
        )
        gold[trace.id] = TraceLabel(trace.id, steps, True, trace.first_error_index)
    return Source(name, contexts, gold)


def with_wrong_passage(contexts: Sequence[TraceInContext], seed: int) -> list[TraceInContext]:
    """The same traces, each with the passage of another problem's drug."""
    rng = random.Random(seed)
    swapped = []
    for context in contexts:
        others = context
        while others.evidence[0].passage.document == context.evidence[0].passage.document:
            others = rng.choice(contexts)
        swapped.append(replace(context, evidence=others.evidence))
    return swapped


def by_id(labels: Iterable[TraceLabel]) -> Labels:
    """Labels by trace."""
    return {label.trace_id: label for label in labels}


def staged(labeled: Iterable[LabeledTrace]) -> Labels:
    """The labels of a stage by trace."""
    return by_id(one.label for one in labeled)


def measure(part: Source, k: int, seed: int) -> dict[str, object]:
    """All figures of one source."""
    judge = LikelihoodJudge(str(bundled_model_folder("judge")))
    policy = LocalPolicy(
        str(bundled_model_folder("policy")),
        PolicyConfig(max_tokens=130, temperature=1.0),
        spec="lab",
    )
    labels: dict[str, Labels] = {"judge": staged(judge_traces(part.contexts, judge))}
    wrong = staged(judge_traces(with_wrong_passage(part.contexts, seed), judge))
    started, cpu = time.monotonic(), time.process_time()
    config = MonteCarloConfig(k=k, seed=seed)
    labels["mc"] = staged(continue_traces(part.contexts, policy, config=config))
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu
    labels["consensus"] = staged(
        agree_on(
            part.contexts,
            {"judge": labels["judge"], "mc": labels["mc"]},
            config=ConsensusConfig(),
        )
    )
    labels["prm"] = by_id(load_scorer(str(bundled_model_folder("prm"))).score(part.contexts))
    labels["likelihood"] = by_id(
        load_scorer(str(bundled_model_folder("policy")), family="likelihood").score(part.contexts)
    )

    figures: dict[str, object] = {"source": part.name, "traces": len(part.contexts)}
    rows = {name: part.evaluated(words) for name, words in labels.items()}
    for name, evaluated in rows.items():
        report = evaluate_processbench(
            evaluated, threshold=0.1 if name == "likelihood" else 0.5, seed=seed
        )
        figures[name] = report.as_json(dataset="lab", labeler=name, gold="gold")["subsets"][
            part.name
        ]
    figures["judge_step_accuracy"] = {
        "right_passage": step_accuracy(rows["judge"]),
        "wrong_passage": step_accuracy(part.evaluated(wrong)),
    }
    for other in ("mc", "judge"):
        difference = paired_difference(
            rows["consensus"], rows[other], "first_error_precision", seed=seed
        )
        figures[f"precision_consensus_minus_{other}"] = {
            "difference": difference.difference,
            "ci95": difference.ci95,
        }
    figures["retention"] = retention(part, labels["consensus"])
    figures["continuation_seconds"] = {
        "wall": round(seconds, 1),
        "cpu": round(cpu_seconds, 1),
        "k": k,
    }
    return figures


def retention(part: Source, consensus: Labels) -> dict[str, float]:
    """Share of traces with and without an error that the consensus kept."""
    kept: dict[str, list[bool]] = {"with_error": [], "without_error": []}
    for trace_id, truth in part.gold.items():
        group = "without_error" if truth.first_error_index is None else "with_error"
        kept[group].append(consensus[trace_id].abstention is None)
    return {group: sum(flags) / len(flags) for group, flags in kept.items() if flags}


def sources(seed: int, problems: int) -> Iterator[Source]:
    """Held-out traces corrupted by the generator, then as many written by the policy."""
    lab = build_workspace(seed, problems, problems_per_drug=2, n_distractors=0)
    passages = decisive_passages(lab)
    shown = {problem.id: passages[problem.drug].text for problem in lab.problems}
    sampled = sample_traces(lab.problems, shown, per_problem=2, seed=seed)
    for name, traces in (("corrupted", lab.traces), ("sampled", tuple(sampled))):
        part = source(name, lab.problems, traces, passages)
        print(f"{name}: {len(part.contexts)} traces", file=sys.stderr)
        yield part


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print one JSON document per source."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=500, help="two traces each a source")
    parser.add_argument(
        "--seed", type=int, default=20_261_121, help="of the draws; no training used it"
    )
    parser.add_argument("-k", type=int, default=4, help="continuations a prefix")
    arguments = parser.parse_args(argv)
    for part in sources(arguments.seed, arguments.problems):
        print(json.dumps(measure(part, arguments.k, arguments.seed), indent=1), flush=True)


if __name__ == "__main__":
    main()
