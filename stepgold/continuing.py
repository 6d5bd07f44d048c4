"""Monte Carlo labels: continue every prefix, and count how often the gold answer is reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from labeling import MonteCarloConfig
from stepgold.golds import list_unusable_golds
from stepgold.images import ImageOptions
from stepgold.labeling_run import LabelStage, Units, evidence_source, label_missing
from stepgold.models import (
    PolicyOptions,
    RunTerms,
    checker_factory,
    local_policy,
    open_policy,
    template_identity,
    withholds_phi,
)
from stepgold.options import (
    EngineOptions,
    ImageFolderOptions,
    LabelingOptions,
    SpendingOptions,
    open_cluster,
)
from stepgold.outcome import LabelingResult, Tally
from stepgold.versions import ModelTruth
from traces import InputError, LabeledTrace, Labeler, LabelerKind, defaults_of, option

if TYPE_CHECKING:
    from stepgold.workspace import WorkspaceFolder
    from traces import TraceInContext

_TOGETHER = {True: 32, False: 128}
"""Traces of a unit for an actor, by whether every prefix is continued at once: rounds of a
strategy ask for less at a time, and need more traces to fill a batch."""


class ContinueOptions(
    EngineOptions,
    ImageFolderOptions,
    SpendingOptions,
    PolicyOptions,
    MonteCarloConfig,
    LabelingOptions,
):
    """Who continues prefixes, how often, and what the counts mean."""

    name: str = option(default="mc", metavar="NAME", help="Name of the Monte Carlo labeler.")
    step_separator: str = option(
        default="\n",
        style="escaped",
        metavar="TEXT",
        help="Text between two steps; \\n is a line break.",
    )
    stop: Sequence[str] = option(
        default=(),
        style="escaped",
        metavar="TEXT",
        help="Stop a continuation at this string; \\n is a line break; may be repeated.",
    )
    answer_judge: str | None = option(
        default=None,
        metavar="MODEL",
        help="Model that compares free-text answers [default: compare their spelling].",
    )

    def check(self) -> None:
        """Refuse an empty stop string: servers refuse it, or end every continuation at once.

        Raises:
            InputError: there is one, or an answer judge beside a policy on a cluster.
        """
        super().check()
        if "" in self.stop:
            raise InputError(
                "A stop string is empty.",
                where="--stop",
                remedy="leave --stop out, or give it some text",
            )
        if self.on_ray and self.has_weights and self.answer_judge is not None:
            raise InputError(
                "A policy on a cluster checks its answers there, where no reply can be stored.",
                where="--answer-judge",
                remedy="leave --answer-judge out, or serve the policy: --policy openai:MODEL",
            )

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any], **more: Any) -> Self:
        """The options of a stored labeler; `more` are fields that it does not store."""
        known = {name: stored[name] for name in defaults_of(MonteCarloConfig) if name in stored}
        kept = {
            "max_tokens": stored["max_tokens"],
            "temperature": stored["temperature"],
            "step_separator": stored["separator"],
            "system": stored["system"],
            "evidence": stored["evidence"],
            "stop": stored.get("stop", ()),
            "answer_judge": stored.get("answer_judge"),
            "request_option": stored.get("request_options", {}),
        }
        return cls(**{**known, **kept, **more})

    def settings(self, images: ImageOptions) -> dict[str, Any]:
        """The labeler's configuration: what shapes its labels.

        Stop strings and the answer judge are included only if used, so that labelers stored before
        these options existed stay the same.
        """
        seldom = {"stop": list(self.stop), "answer_judge": self.answer_judge}
        return (
            {"strategy": "all"}
            | self.as_dict()
            | {
                "max_tokens": self.limit_of_a_text,
                "temperature": self.temperature,
                "separator": self.step_separator,
                "system": self.system_turn,
                "evidence": self.with_evidence,
                "template": template_identity(self.template),
                **images.as_dict(),
                **self.request_settings(),
            }
            | {name: value for name, value in seldom.items() if value}
        )


def continue_(workspace: WorkspaceFolder, options: ContinueOptions) -> LabelingResult:
    """Label steps by how often a policy reaches the gold answer from them.

    Raises:
        InputError: options that do not fit each other, or a policy that cannot be used.
    """
    from inference import Purse

    spec, tally = options.spec, Tally("continue", options.dataset, options.name)
    images = ImageOptions.of(workspace, options.images, ignore=options.ignore_images)
    with workspace.open_store() as store, ExitStack() as closing:
        store.traces.require_dataset(options.dataset)
        images = images.settled(spec, exist=store.traces.has_images(options.dataset))
        labeler = Labeler(options.name, LabelerKind.MC, options.settings(images), model=str(spec))
        if options.with_evidence:
            labeler = evidence_source(store, options.dataset, labeler)
        tally.unusable_golds = list_unusable_golds(store.traces.golds(options.dataset))
        truth = ModelTruth(allow_mixed=options.allow_mixed)
        cluster, reading = open_cluster(options, closing), None
        terms = RunTerms(
            store, closing, truth, Purse(options.budget), images=images, cluster=cluster
        )
        if cluster is not None and options.has_weights:
            reading = Units.of(store, options, _TOGETHER[options.strategy == "all"])
            stage = reading.stage(cluster.pool(partial(PolicyOnActor, options, images)))
        else:
            stage = continue_stage(options, terms)
        label_missing(store, tally, labeler, stage, options=options, truth=truth, reading=reading)
    return tally.result()


class PolicyOnActor:
    """A policy with its weights on an actor of a cluster."""

    def __init__(self, options: ContinueOptions, images: ImageOptions) -> None:
        """Load the model."""
        separator, stop = options.step_separator, options.stop
        self._policy = local_policy(options, images, separator=separator, stop=stop)
        self._options = options

    def __call__(self, contexts: Sequence[TraceInContext]) -> list[LabeledTrace]:
        """The labels of a unit."""
        from labeling import AnswerChecker, continue_traces

        checkers = partial(AnswerChecker.for_problem, tolerance=self._options.answer_tolerance)
        return list(
            continue_traces(contexts, self._policy, config=self._options, checkers=checkers)
        )


def continue_stage(options: ContinueOptions, terms: RunTerms) -> LabelStage:
    """The Monte Carlo labeler as a stage of a labeling run."""
    policy, hosted = open_policy(
        options, terms, separator=options.step_separator, stop=options.stop
    )
    from labeling import continue_traces

    judge = options.answer_judge
    return partial(
        continue_traces,
        policy=policy,
        config=options,
        checkers=checker_factory(judge, terms, options, tolerance=options.answer_tolerance),
        withhold_phi=withholds_phi(options, answer_judge=judge, hosted=hosted),
    )
