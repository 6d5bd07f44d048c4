"""The lab's judge: reads how likely a language model finds each step. No JSON, no quotes.

It stands behind the same protocol as the Gemini judge, so that the pipeline runs where there is no
key. The rule is that of the likelihood judge in docs/decisions.md: a trace is incorrect from the
first step that holds a token of probability below TAU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from lab.likelihood import TAU
from scoring import load_scorer
from traces import LabeledTrace, StepLabel, TraceInContext, TraceLabel, Verdict


class LikelihoodJudge:
    """Puts verdicts on steps from the token likelihoods of one causal language model."""

    def __init__(self, folder: str, *, tau: float = TAU) -> None:
        """Load the model in `folder`; `tau` in (0, 1) is the probability below which a step is wrong."""
        self._scorer = load_scorer(folder, family="likelihood")
        self._tau = tau

    def config(self) -> dict[str, Any]:
        """The configuration that is stored with the labels."""
        return {"rule": "likelihood", "tau": self._tau, "scorer": self._scorer.config()}

    def judge(self, contexts: Iterable[TraceInContext]) -> Iterator[LabeledTrace]:
        """Yield one label per trace; what does not fit the model's window is an abstention."""
        for label in self._scorer.score(contexts):
            resolved = self._scorer.resolved_model
            yield LabeledTrace(self._verdicts(label), resolved_model=resolved)

    def _verdicts(self, label: TraceLabel) -> TraceLabel:
        steps: list[StepLabel] = []
        wrong = False
        for step in label.step_labels:
            if step.score is None:
                steps.append(step)
                continue
            wrong = wrong or step.score < self._tau
            steps.append(StepLabel(Verdict.INCORRECT if wrong else Verdict.CORRECT))
        resolved = {"resolved_model": self._scorer.resolved_model}
        return replace(label, step_labels=tuple(steps), meta={**label.meta, **resolved})
