"""Which step labels make a better PRM, in miniature: `make bench-lessons`.

The lab's version of arXiv 2501.07301: one pool of traces, half corrupted and half written by the
policy, is labeled by Monte Carlo (hard and soft), by the judge, by their strict consensus, by the
posterior of the first error (60 traces anchored), and by the exact truth. Policy and judge are the
bundled models, and imperfect. The same small PRM is trained on each with several seeds, and measured
on held-out problems: processbench_f1, macro_f1 and best-of-8, each over all seeds, with intervals
from resampled problems, beside what was kept and the published figures.

The small PRM is a head on the frozen policy: hidden states and token probabilities of a step, one
hidden layer, the probability that the step is correct. It learns the steps up to the first error.
That trains in seconds, so that many seeds are affordable; a PRM that is trained as a whole may learn
other lessons.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.lab import Labels, Source, decisive_passages, source, staged
from evaluation import (
    EvaluatedTrace,
    evaluate_macro_f1,
    evaluate_processbench,
    paired_difference,
)
from inference import LocalPolicy, PolicyConfig
from lab import LikelihoodJudge, build_workspace, bundled_model_folder, prompts, sample_traces
from lab.build import load_bundled
from labeling import (
    ConsensusConfig,
    MonteCarloConfig,
    NamedFirstErrors,
    agree_among,
    continue_traces,
    first_error_posterior,
    judge_traces,
)
from traces import StepLabel, TraceInContext, TraceLabel, first_error

ANCHORED = 60
HIDDEN = 64
PUBLISHED = {
    "mc_hard": {"processbench_f1": 0.401, "best_of_8": 0.659},
    "judge": {"processbench_f1": 0.465, "best_of_8": 0.653},
    "strict": {"processbench_f1": 0.463, "best_of_8": 0.657, "kept": 0.4},
    "human (PRM800K)": {"processbench_f1": 0.565, "best_of_8": 0.649},
    "majority of 8": {"best_of_8": 0.662},
    "3M responses: mc hard, mc soft": {"processbench_f1": [0.402, 0.402]},
    "3M responses: strict hard, strict soft": {"processbench_f1": [0.665, 0.493], "kept": 0.5},
}
"""arXiv 2501.07301: a 7B PRM on 860,000 responses unless said otherwise."""
Floats = NDArray[np.float32]
Targets = Mapping[str, Sequence[float | None]]
"""By trace the target of each step, the probability that it is correct; None for no target."""


@dataclass(frozen=True)
class Split:
    """Traces with their features."""

    parts: tuple[Source, ...]
    candidates: Mapping[str, list[tuple[TraceInContext, bool]]]
    """By problem eight candidates, and whether the answer is right; empty for training."""
    features: Mapping[str, Floats]
    """By trace one row per step."""

    @property
    def contexts(self) -> list[TraceInContext]:
        """The traces of all parts."""
        return [context for part in self.parts for context in part.contexts]


def draw(seed: int, problems: int, *, candidates: int) -> Split:
    """Problems with two corrupted and two sampled traces each, and candidates for best-of-N."""
    lab = build_workspace(seed, problems, problems_per_drug=2, n_distractors=0)
    passages = decisive_passages(lab)
    shown = {problem.id: passages[problem.drug].text for problem in lab.problems}
    sampled = sample_traces(lab.problems, shown, per_problem=2 + candidates, seed=seed)
    plain = [one for one in sampled if int(one.id.rpartition("-s")[2]) < 2]
    parts = (
        source("corrupted", lab.problems, lab.traces, passages),
        source("sampled", lab.problems, plain, passages),
    )
    rest = [one for one in sampled if int(one.id.rpartition("-s")[2]) >= 2]
    answers = {problem.id: problem.answer for problem in lab.problems}
    pool: dict[str, list[tuple[TraceInContext, bool]]] = {}
    given = source("pool", lab.problems, rest, passages)
    for trace, context in zip(rest, given.contexts, strict=True):
        right = trace.final_answer == answers[trace.problem_id]
        pool.setdefault(trace.problem_id, []).append((context, right))
    contexts = [context for part in (*parts, given) for context in part.contexts]
    return Split(parts, pool, step_features(contexts))


@torch.inference_mode()
def step_features(contexts: Sequence[TraceInContext]) -> dict[str, Floats]:
    """By trace one row per step, from the frozen policy.

    Hidden states of two layers at the step's last token, their mean over the step, the mean and
    the lowest log-probability of its tokens, and the step's number.
    """
    model, tokenizer = load_bundled("policy")
    found: dict[str, Floats] = {}
    for context in contexts:
        user = prompts.user_text(context.evidence[0].passage.text, context.problem.question)
        ids = list(tokenizer.encode(prompts.generation_prompt(user), add_special_tokens=False))
        ends = []
        for step in context.trace.steps:
            ids += tokenizer.encode(step + prompts.STEP_SEPARATOR, add_special_tokens=False)
            ends.append(len(ids))
        begin = len(tokenizer.encode(prompts.generation_prompt(user), add_special_tokens=False))
        out = model(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)
        known = out.logits[0, :-1].float().log_softmax(-1)
        likely = known.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        layers = torch.cat([out.hidden_states[each][0] for each in (4, -1)], dim=1).float()
        rows = []
        for number, (first, end) in enumerate(zip([begin, *ends], ends, strict=False)):
            own = likely[first - 1 : end - 1]
            rows.append(
                torch.cat(
                    [
                        layers[end - 1],
                        layers[first:end].mean(0),
                        torch.stack([own.mean(), own.min(), torch.tensor(float(number))]),
                    ]
                )
            )
        found[context.trace.id] = torch.stack(rows).numpy()
    return found


def targets_of(labels: Mapping[str, TraceLabel], *, soft: Labels | None = None) -> Targets:
    """The targets of labels: verdicts up to the first error, or the scores `soft` on these steps.

    Traces whose label leaves the first error open have none.
    """
    found: dict[str, list[float | None]] = {}
    for id, label in labels.items():
        error = first_error(label)
        if error.missing or not label.step_labels:
            continue
        length = len(label.step_labels) if error.index is None else error.index + 1
        if soft is None:
            found[id] = [float(step != error.index) for step in range(length)]
        else:
            found[id] = [step.score for step in soft[id].step_labels[:length]]
    return found


def labelings(pool: Split, k: int, seed: int) -> tuple[dict[str, Targets], dict[str, Labels]]:
    """The targets of every labeling, and the labels of judge and Monte Carlo."""
    policy = LocalPolicy(
        str(bundled_model_folder("policy")),
        PolicyConfig(max_tokens=130, temperature=1.0),
        spec="lab",
    )
    judge = staged(judge_traces(pool.contexts, LikelihoodJudge(str(bundled_model_folder("judge")))))
    config = MonteCarloConfig(k=k, seed=seed)
    mc = staged(continue_traces(pool.contexts, policy, config=config))
    gold = {id: label for part in pool.parts for id, label in part.gold.items()}
    strict = {
        context.trace.id: agree_among(
            context, {"judge": judge[context.trace.id], "mc": mc[context.trace.id]}
        )
        for context in pool.contexts
    }
    return {
        "mc_hard": targets_of(mc),
        "mc_soft": targets_of(mc, soft=mc),
        "judge": targets_of(judge),
        "strict": targets_of(strict),
        "strict_soft": targets_of(strict, soft=mc),
        "bayes": targets_of(_by_posterior(pool, [judge, mc], gold, seed)),
        "exact": targets_of(gold),
    }, {"judge": judge, "mc": mc}


def _by_posterior(pool: Split, labels: Sequence[Labels], gold: Labels, seed: int) -> Labels:
    """The most probable first error where its posterior is at least .9; 60 traces are known."""
    contexts = pool.contexts
    steps = np.array([len(context.trace.steps) for context in contexts])

    def named(name: str, of: Labels, known: NDArray[np.bool_]) -> NamedFirstErrors:
        errors = [first_error(of[context.trace.id]) for context in contexts]
        index = [
            n if one.index is None else one.index for one, n in zip(errors, steps, strict=True)
        ]
        given = np.array([not one.missing for one in errors]) & known
        return NamedFirstErrors(name=name, given=given, index=np.array(index))

    known = np.zeros(len(steps), bool)
    known[np.random.default_rng(seed).choice(len(steps), ANCHORED, replace=False)] = True
    fitted = first_error_posterior(
        steps,
        [named(str(n), of, np.ones(len(steps), bool)) for n, of in enumerate(labels)],
        groups=[context.trace.id.rpartition("-")[2][:1] for context in contexts],
        anchor=named("gold", gold, known),
    )
    rule = ConsensusConfig(rule="bayes")
    return {
        context.trace.id: agree_among(
            context,
            {str(n): of[context.trace.id] for n, of in enumerate(labels)},
            rule,
            posterior=[float(p) for p in fitted.probabilities[row][: steps[row] + 1]],
        )
        for row, context in enumerate(contexts)
    }


def trained(pool: Split, targets: Targets, seed: int, epochs: int) -> Callable[[Floats], Floats]:
    """A PRM on these targets: features of steps -> the probability that each is correct."""
    every = np.concatenate(list(pool.features.values()))
    mean, spread = every.mean(0), every.std(0) + 1e-6
    rows = [
        (pool.features[id][step], goal)
        for id, goals in sorted(targets.items())
        for step, goal in enumerate(goals)
        if goal is not None
    ]
    x = torch.tensor((np.stack([row for row, _ in rows]) - mean) / spread)
    y = torch.tensor([goal for _, goal in rows], dtype=torch.float32)
    torch.manual_seed(seed)
    head = torch.nn.Sequential(
        torch.nn.Linear(x.shape[1], HIDDEN),
        torch.nn.GELU(),
        torch.nn.Dropout(0.1),
        torch.nn.Linear(HIDDEN, 1),
    )
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for part in (order[n : n + 256] for n in range(0, len(x), 256)):
            optimizer.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                head(x[part])[:, 0], y[part]
            )
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
    head.eval()

    @torch.inference_mode()
    def scores(features: Floats) -> Floats:
        given = torch.tensor((features - mean) / spread)
        found: Floats = head(given)[:, 0].sigmoid().numpy()
        return found

    return scores


def scored(part: Source, test: Split, prm: Callable[[Floats], Floats]) -> Labels:
    """The PRM's labels of a part."""
    return {
        context.trace.id: TraceLabel(
            context.trace.id,
            tuple(StepLabel(score=float(p)) for p in prm(test.features[context.trace.id])),
        )
        for context in part.contexts
    }


def evaluated(test: Split, prms: Sequence[Callable[[Floats], Floats]]) -> list[EvaluatedTrace]:
    """Every test trace once per seed; a problem stays one unit of the bootstrap."""
    return [
        replace(one, trace_id=f"{one.trace_id}#{number}")
        for number, prm in enumerate(prms)
        for part in test.parts
        for one in part.evaluated(scored(part, test, prm))
    ]


AGGREGATIONS: dict[str, Callable[[Floats], float]] = {
    "min": lambda scores: float(scores.min()),
    "product": lambda scores: float(np.log(np.maximum(scores, 1e-9)).sum()),
    "last": lambda scores: float(scores[-1]),
}


def best_of_n(
    test: Split, prms: Sequence[Callable[[Floats], Floats]], seed: int
) -> dict[str, dict[str, Any]]:
    """By aggregation the share of problems whose best candidate is right, over all seeds."""
    found = {}
    for name, aggregate in AGGREGATIONS.items():
        right = np.array(
            [
                [
                    max(
                        (aggregate(prm(test.features[one.trace.id])), -place, is_right)
                        for place, (one, is_right) in enumerate(candidates)
                    )[2]
                    for prm in prms
                ]
                for candidates in test.candidates.values()
            ]
        ).mean(1)
        found[name] = with_interval(right, seed)
    return found


def with_interval(values: NDArray[Any], seed: int) -> dict[str, Any]:
    """The mean over problems with its bootstrap interval."""
    drawn = np.random.default_rng(seed).choice(values, (2000, len(values))).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"mean": _short(values.mean()), "ci95": [_short(low), _short(high)]}


def _short(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)


def figures(
    pool: Split, test: Split, targets: Mapping[str, Targets], seeds: Sequence[int], epochs: int
) -> dict[str, Any]:
    """All figures of every labeling, and its paired difference to `mc_hard`."""
    rows: dict[str, list[EvaluatedTrace]] = {}
    found: dict[str, Any] = {}
    gold = {id: label for part in pool.parts for id, label in part.gold.items()}
    for name, goals in targets.items():
        prms = [trained(pool, goals, seed, epochs) for seed in seeds]
        rows[name] = evaluated(test, prms)
        report = evaluate_processbench(rows[name]).as_json(dataset="", labeler="", gold="")
        steps = evaluate_macro_f1(rows[name]).as_json(dataset="", labeler="", gold="")
        with_error = {id for id, label in gold.items() if label.first_error_index is not None}
        found[name] = {
            "kept": _short(len(goals) / len(gold)),
            "kept_with_error": _short(len(with_error & goals.keys()) / len(with_error)),
            "processbench_f1": {
                subset: {"f1": _short(of["processbench_f1"]), "ci95": of["ci95"]}
                for subset, of in report["subsets"].items()
            },
            "average": report["average"],
            "macro_f1": _short(steps["overall"]["macro_f1"]),
            "best_of_8": best_of_n(test, prms, seeds[0]),
        }
        difference = paired_difference(rows[name], rows["mc_hard"], "processbench_f1")
        found[name]["f1_minus_mc_hard"] = difference.as_json()
        print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
    return found


def label_quality(pool: Split, labels: Mapping[str, Labels]) -> dict[str, dict[str, float | None]]:
    """How good the two labelers are on the pool, by source: processbench_f1."""
    return {
        name: {
            part.name: _short(
                evaluate_processbench(part.evaluated(dict(of))).as_json(
                    dataset="", labeler="", gold=""
                )["subsets"][part.name]["processbench_f1"]
            )
            for part in pool.parts
        }
        for name, of in labels.items()
    }


def references(test: Split, seed: int) -> dict[str, Any]:
    """What candidates are worth without a PRM: their mean, and one of eight being right."""
    right = [[is_right for _, is_right in each] for each in test.candidates.values()]
    return {
        "mean_accuracy": with_interval(np.array([np.mean(each) for each in right]), seed),
        "pass_at_8": with_interval(np.array([float(any(each)) for each in right]), seed),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Label, train, measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=500, help="of the pool, four traces each")
    parser.add_argument("--held-out", type=int, default=250, help="problems to measure on")
    parser.add_argument("--seeds", type=int, default=5, help="trainings per labeling")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the pool")
    parser.add_argument("--seed", type=int, default=20_261_201, help="of the draws")
    parser.add_argument("-k", type=int, default=8, help="continuations a prefix")
    given = parser.parse_args(argv)
    began = time.monotonic()
    pool = draw(given.seed, given.problems, candidates=0)
    test = draw(given.seed + 1, given.held_out, candidates=8)
    targets, labels = labelings(pool, given.k, given.seed)
    print(f"labeled after {time.monotonic() - began:.0f} s", file=sys.stderr)
    document = {
        "pool": {part.name: len(part.contexts) for part in pool.parts},
        "held_out": {part.name: len(part.contexts) for part in test.parts},
        "seeds": given.seeds,
        "labelers_on_the_pool": label_quality(pool, labels),
        "references": references(test, given.seed),
        "labelings": figures(pool, test, targets, range(given.seeds), given.epochs),
        "published": PUBLISHED,
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(document, indent=1), flush=True)


if __name__ == "__main__":
    main()
