"""The judge: models, dispatchers and labels joined together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from judge import JudgeConfig
from stepgold.console import note
from stepgold.images import ImageOptions
from stepgold.labeling_run import LabelStage, Units, evidence_source, label_missing
from stepgold.models import (
    BATCH,
    BatchOptions,
    RunTerms,
    batch_runner,
    dispatcher,
    model_folder,
    parse_spec,
    refuse_batch,
)
from stepgold.options import (
    EngineOptions,
    ImageFolderOptions,
    LabelingOptions,
    RequestOptions,
    SpendingOptions,
    open_cluster,
)
from stepgold.outcome import FAULTS, NO_FAILURE, LabelingResult, Tally
from stepgold.versions import ModelTruth
from traces import AbstentionReason, InputError, LabeledTrace, Labeler, LabelerKind, Need, option

if TYPE_CHECKING:
    from inference import ModelSpec, Runner
    from judge import RagJudge
    from lab import LikelihoodJudge
    from labeling import Judge
    from stepgold.workspace import WorkspaceFolder
    from storage import Store
    from traces import TraceInContext

_QUOTE_KINDS = ("verified", "unverified", "absent")
# A split is no purpose of a judge, and a step whose call went wrong is not done.
_HARMLESS = NO_FAILURE - {AbstentionReason.UNCERTAIN}


_SERVED = Need(
    "--judge openai:MODEL",
    lambda config: "openai:" in (config.judge[:7], (config.escalate or "")[:7]),
)


class JudgeOptions(
    EngineOptions,
    BatchOptions,
    ImageFolderOptions,
    SpendingOptions,
    RequestOptions,
    JudgeConfig,
    LabelingOptions,
):
    """Whom to ask, how, and on what terms."""

    inherited_needs: ClassVar = {"reasoning_effort": _SERVED, "request_option": _SERVED}

    judge: str = option(metavar="MODEL", help="gemini:, vertex: or openai:MODEL, hf:PATH or lab.")
    name: str = option(default="judge", metavar="NAME", help="Name of the judge's labeler.")
    escalate_base_url: Sequence[str] = option(
        default=(),
        metavar="URL",
        help="Base URL of the --escalate model; may be repeated [default: from the environment].",
        needs=Need("--escalate MODEL", lambda config: config.escalate is not None),
    )

    def check(self) -> None:
        """Refuse batch jobs from a cluster.

        Raises:
            InputError: the jobs run at the provider, and a cluster would wait.
        """
        super().check()
        if self.on_ray and self.service == BATCH:
            raise InputError(
                "Batch jobs run at the provider: a cluster could only wait for them.",
                where="--engine",
                remedy="leave --engine out, or use --service standard",
            )

    def refuse_for_lab(self) -> None:
        """Refuse what the lab's judge, which reads likelihoods, cannot do.

        Raises:
            InputError: votes, single steps, quotes, a prompt or an escalation were asked for.
        """
        default = JudgeConfig()
        asked = {
            "--votes": self.votes > 1,
            "--granularity": self.granularity != "trace",
            "--require-quotes": self.require_quotes,
            "--prompt": self.template != default.template,
            "--escalate": self.escalate is not None,
        }
        if wrong := [name for name, given in asked.items() if given]:
            raise InputError(
                f"The lab's judge reads likelihoods and has no {', '.join(wrong)}.",
                remedy="leave it out, or use gemini:MODEL, openai:MODEL or hf:PATH",
            )


@dataclass(frozen=True, kw_only=True, repr=False)
class JudgeResult(LabelingResult):
    """What a judge labeled, and how its quotes stand up."""

    report: dict[str, Any]
    """Quotes and votes of the labeler, as in the document."""

    def as_json(self) -> dict[str, Any]:
        """The contract's document, with the report."""
        return super().as_json() | self.report

    def words(self) -> str:
        """The counts, and the table of quotes."""
        return "\n".join([super().words(), *quote_table(self.report.get("quotes", {}))])


def judge(workspace: WorkspaceFolder, options: JudgeOptions) -> JudgeResult:
    """Put verdicts on the steps of a dataset, grounded in the retrieved evidence.

    Raises:
        InputError: options that do not fit each other, or a prompt, model or service that cannot
            be used.
    """
    tally = Tally("judge", options.dataset, options.name, harmless=_HARMLESS, step_faults=FAULTS)
    images = ImageOptions.of(workspace, options.images, ignore=options.ignore_images)
    with workspace.open_store() as store, ExitStack() as closing:
        store.traces.require_dataset(options.dataset)
        _label(store, closing, tally, options, images=images)
        report = judge_report(store, options.dataset, options.name)
    return JudgeResult(**tally.figures(), report=report)


def _label(
    store: Store, closing: ExitStack, tally: Tally, options: JudgeOptions, *, images: ImageOptions
) -> None:
    spec = parse_spec(options.judge)
    if options.service == BATCH:
        refuse_batch(spec)
    truth = ModelTruth(allow_mixed=options.allow_mixed)
    exist, reading = store.traces.has_images(options.dataset), None
    cluster = open_cluster(options, closing)
    if spec.kind == "lab":
        options.refuse_for_lab()
        if cluster is None:
            bundled = lab_judge()
            stage, settings = judge_stage(bundled), bundled.config()
        else:
            pool = cluster.pool(LabJudge)
            settings = pool.ask("config")
            reading = Units.of_windows(store, options, regrouped=False)
            stage = reading.stage(pool)
        settings |= images.settled(spec, exist=exist).as_dict()
    else:
        from inference import Purse

        specs = [parse_spec(each) for each in (options.judge, options.escalate) if each is not None]
        shown = images.settled(*specs, exist=exist)
        options = options.but(show_images=shown.shown)
        settings = options.as_dict() | options.request_settings()
        terms = RunTerms(
            store, closing, truth, Purse(options.budget), images=shown, cluster=cluster
        )
        stage = judge_stage(rag_judge(options, terms))
    _say_if_ungrounded(store, options)
    labeler = Labeler(options.name, LabelerKind.JUDGE, settings, model=str(spec))
    labeler = evidence_source(store, options.dataset, labeler)
    label_missing(
        store,
        tally,
        labeler,
        stage,
        options=options,
        truth=truth,
        reading=reading,
    )


class LabJudge:
    """The lab's judge on an actor of a cluster."""

    def __init__(self) -> None:
        """Load the model."""
        self._judge = lab_judge()

    def config(self) -> dict[str, Any]:
        """What is stored with the labels."""
        return self._judge.config()

    def __call__(self, contexts: Sequence[TraceInContext]) -> list[LabeledTrace]:
        """The labels of a unit."""
        return list(judge_stage(self._judge)(contexts))


def rag_judge(options: JudgeOptions, terms: RunTerms, *, first_sample: int = 0) -> RagJudge:
    """The judge, with the second judge that decides split votes.

    With `first_sample` above 0, new replies are requested (`judge.prompt.render_vote`).

    Raises:
        InputError: a model or service that cannot be used.
    """
    from judge import RagJudge

    spec = parse_spec(options.judge)
    second = None if options.escalate is None else parse_spec(options.escalate)
    if second is not None and (second == spec or second.kind == "lab"):
        raise InputError(
            f"Split votes cannot be escalated to '{second}'.",
            where="--escalate",
            remedy="use a different model, preferably of another family",
        )
    runners = [
        _runner(each, url, options, terms)
        for each, url in ((spec, options.base_url), (second, options.escalate_base_url))
        if each is not None
    ]
    return RagJudge(
        runners[0],
        options,
        allow_phi=options.allow_phi,
        escalation=None if second is None else lambda: runners[1],
        in_rounds=options.service == BATCH,
        first_sample=first_sample,
        images=terms.images.loader(),
    )


def _runner(
    spec: ModelSpec, base_url: Sequence[str], options: JudgeOptions, terms: RunTerms
) -> Runner:
    """The runner of one model; a second judge without a batch service runs call by call."""
    batch = options.service == BATCH
    if batch and (spec.is_gemini or str(spec) == options.judge):
        return batch_runner(
            spec,
            terms,
            options,
            base_url=base_url,
            insecure_http=options.insecure_http,
            fields=options.request_fields,
            allow_phi=options.allow_phi,
        )
    tier: Literal["standard", "flex"] = "flex" if options.service == "flex" else "standard"
    model = terms.open(
        spec,
        base_url=base_url,
        insecure_http=options.insecure_http,
        service=tier,
        concurrency=options.concurrency,
        fields=options.request_fields,
        allow_phi=options.allow_phi,
    )
    return dispatcher(model, terms, service=tier)


def open_judge(options: JudgeOptions, terms: RunTerms, *, first_sample: int = 0) -> Judge:
    """The judge that the options name, ready for `labeling.judge_traces`."""
    if parse_spec(options.judge).kind == "lab":
        return lab_judge()
    return rag_judge(options, terms, first_sample=first_sample)


def lab_judge() -> LikelihoodJudge:
    """The bundled lab's judge."""
    from lab import LikelihoodJudge

    note("The lab's judge reads token likelihoods: it writes no reasoning and no quotes.")
    return LikelihoodJudge(model_folder(parse_spec("lab"), "judge"))


def judge_stage(judge: Judge) -> LabelStage:
    """A judge as a stage of a labeling run."""
    from labeling import judge_traces

    return partial(judge_traces, judge=judge)


def _say_if_ungrounded(store: Store, options: JudgeOptions) -> None:
    # Check what the judge is shown, not what was retrieved: imports may bring evidence too.
    if any(
        context.evidence for context in store.traces.contexts(options.dataset, limit=options.limit)
    ):
        return
    note("These traces have no evidence: the verdicts will be ungrounded.")
    if options.require_quotes:
        note("With --require-quotes every incorrect verdict will become no_evidence.")


def judge_report(store: Store, dataset: str, labeler: str) -> dict[str, Any]:
    """What `judge` adds to its document: `quotes` by verdict and `votes`, of all stored labels.

    Empty if the labeler does not exist (nothing was stored).
    """
    if all(row.labeler.name != labeler for row in store.labels.labelers(dataset)):
        return {}
    totals = store.labels.votes.totals(dataset, labeler)
    return {
        "quotes": store.labels.votes.quotes(dataset, labeler),
        "votes": {
            "traces": totals.traces,
            "cast": totals.cast,
            "escalated": totals.escalated,
        },
    }


def quote_table(quotes: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The counts as lines of a small table, without verdicts that no step has."""
    rows = [(word, counts) for word, counts in quotes.items() if any(counts.values())]
    if not any(counts["verified"] or counts["unverified"] for _, counts in rows):
        return []  # the judge quotes nothing
    lines = [f"{'quotes':<13}" + "".join(f"{kind:>12}" for kind in _QUOTE_KINDS)]
    lines += [
        f"  {word:<11}" + "".join(f"{counts[kind]:>12}" for kind in _QUOTE_KINDS)
        for word, counts in rows
    ]
    made_up = quotes["incorrect"]["unverified"]
    if made_up:
        lines.append(
            f"{made_up} incorrect verdicts rest on a quote that is not in the evidence: "
            "kept and marked unverified (--require-quotes rejects them)"
        )
    return lines
