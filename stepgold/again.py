"""Labelers made again from what is stored of them, so that what they failed on can be asked anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgold.images import ImageOptions
from stepgold.labeling_run import Labelled, LabelStage
from stepgold.models import (
    ModelTruth,
    PolicyOptions,
    checker_factory,
    parse_spec,
    policy,
    template_identity,
)
from traces import AbstentionReason, InputError, LabelerKind

if TYPE_CHECKING:
    from inference import Purse
    from storage import Store
    from traces import Labeler, TraceInContext, TraceLabel


RETRIES = "retries"
"""Under which a label's meta counts how often its trace was asked anew."""
SAMPLES_A_RETRY = 1000
"""Sample indices that belong to one retry: more than votes on a trace."""


@dataclass(frozen=True, slots=True)
class RetryTerms:
    """What of a labeler may be changed, and on what terms it is asked."""

    max_tokens: int | None
    """Another limit of one reply; None keeps the stored one."""
    purse: Purse
    """What may be spent, over all labelers."""
    base_url: str | None
    """The server; None takes the environment's."""
    service: str
    """Whose prices and patience hold for a judge."""
    concurrency: int | None
    """Requests in flight at once; None leaves the back end's default."""
    template: Path | None
    """Tokenizer folder of a policy that was made with one."""
    allow_phi: bool
    """Whether marked problems may go to a hosted model."""
    truth: ModelTruth
    """Watches the versions that answer."""
    images: ImageOptions = field(default_factory=ImageOptions)
    """Where the images of problems are."""


@dataclass(frozen=True, slots=True)
class Revived:
    """A labeler that can be asked again."""

    store: Store
    """Where it came from."""
    closing: ExitStack
    """Closes its models."""
    labeler: Labeler
    """The labeler as stored."""
    terms: RetryTerms
    """What may be changed."""
    dataset: str
    """Whose traces it labels."""


Revive = Callable[[Revived, int], LabelStage]
"""Makes the stage of a labeler for traces that were asked anew so and so many times before."""


def retries_of(label: TraceLabel) -> int:
    """How often the trace of a label was asked anew before."""
    count = label.meta.get(RETRIES, 0)
    return count if isinstance(count, int) else 0


def faults_of(label: TraceLabel) -> frozenset[AbstentionReason]:
    """The retryable reasons in a label: of the trace as a whole, or of single steps."""
    told = [label.abstention, *(step.abstention for step in label.step_labels)]
    return frozenset(each.reason for each in told if each is not None and each.retryable)


def was_shortened(label: TraceLabel) -> bool:
    """Whether a PRM scored the trace with fewer documents than it has."""
    return bool(label.meta.get("documents_dropped"))


def was_held_back(label: TraceLabel) -> bool:
    """Whether a judge or a policy was not shown the trace: it may hold protected health information."""
    return label.abstention is not None and label.abstention.reason is AbstentionReason.FILTERED


def next_retry(label: TraceLabel) -> int:
    """The number of the retry that a label needs.

    A call that failed left nothing behind, so it is asked as it was; what was paid for beside it is
    found in the store. A reply that cannot be used is in the store too: it is asked anew. Only
    a label that was stored counts a retry, so that one that was killed goes on where it was.
    """
    stored_replies = faults_of(label) - {AbstentionReason.MODEL_ERROR}
    return retries_of(label) + bool(stored_replies)


def judge_again(revived: Revived, retry: int) -> LabelStage:
    """The stage of a judge.

    Raises:
        InputError: its prompt was never kept, or its model cannot be used.
    """
    from stepgold.judging import JudgeOptions, JudgeTerms, lab_judge, rag_judge, rag_stage

    labeler, terms = revived.labeler, revived.terms
    model = str(labeler.model)
    if parse_spec(model).kind == "lab":
        return lab_judge()[0]
    changed = {} if terms.max_tokens is None else {"max_tokens": terms.max_tokens}
    options = JudgeOptions.from_dict(
        labeler.config,
        _prompt(revived.store, labeler.config),
        dataset=revived.dataset,
        judge=model,
        name=labeler.name,
        base_url=terms.base_url,
        service=terms.service,
        concurrency=terms.concurrency,
        allow_phi=terms.allow_phi,
        **changed,
    )
    shared = JudgeTerms(revived.store, revived.closing, terms.truth, terms.purse, terms.images)
    return partial(
        rag_stage, judge=rag_judge(options, shared, first_sample=retry * SAMPLES_A_RETRY)
    )


def continue_again(revived: Revived, _retry: int) -> LabelStage:
    """The stage of a Monte-Carlo labeler: its continuations that are stored are used again.

    Raises:
        InputError: it was made with another template than the one given, or its model cannot be used.
    """
    from labeling import MonteCarloConfig
    from stepgold.continuing import continue_stage

    labeler, terms = revived.labeler, revived.terms
    stored = labeler.config
    given = template_identity(terms.template)
    if stored.get("template") != given:
        raise InputError(
            f"Labeler '{labeler.name}' was made with the template '{stored.get('template')}'.",
            remedy="name that tokenizer folder with --template",
        )
    options = PolicyOptions(
        max_tokens=terms.max_tokens or stored["max_tokens"],
        temperature=stored["temperature"],
        separator=stored["separator"],
        system=stored["system"],
        with_evidence=stored["evidence"],
        images=replace(terms.images, shown=stored.get("images", True)),
        template=terms.template,
        base_url=terms.base_url,
        concurrency=terms.concurrency,
        stop=tuple(stored.get("stop", ())),
        answer_judge=stored.get("answer_judge"),
    )
    known = {each.name for each in fields(MonteCarloConfig)}
    config = MonteCarloConfig(**{key: stored[key] for key in stored if key in known})
    chosen, hosted = policy(
        parse_spec(str(labeler.model)),
        revived.store,
        revived.closing,
        options,
        allow_phi=terms.allow_phi,
        truth=terms.truth,
        budget_usd=terms.purse,
    )
    checkers = checker_factory(
        options.answer_judge,
        revived.store,
        revived.closing,
        purse=terms.purse,
        truth=terms.truth,
        allow_phi=terms.allow_phi,
    )
    return partial(
        continue_stage,
        policy=chosen,
        checkers=checkers,
        config=config,
        hosted=hosted or options.asks_elsewhere(),
        allow_phi=terms.allow_phi,
    )


def score_anew(revived: Revived, _retry: int) -> LabelStage:
    """The stage of a PRM: its window is what `--max-tokens` changes.

    Raises:
        InputError: the checkpoint or its family is not what it was.
        PrmError: the checkpoint cannot be used, or a server does not score as it does.
    """
    from stepgold.scoring_run import score_again
    from stepgold.served_prm import ServerOptions, serve_again

    labeler, terms = revived.labeler, revived.terms
    if "server" not in labeler.config:
        return score_again(labeler, terms.max_tokens, terms.images)
    served = ServerOptions(
        base_url=terms.base_url, concurrency=terms.concurrency, allow_phi=terms.allow_phi
    )
    where = revived.store, revived.dataset
    return serve_again(*where, labeler, terms.max_tokens, served, revived.closing)


REVIVERS: Mapping[LabelerKind, Revive] = {
    LabelerKind.JUDGE: judge_again,
    LabelerKind.MC: continue_again,
    LabelerKind.PRM: score_anew,
}
"""Kinds of labelers that can be asked again, and how; a further kind is a further line."""


def counted(stage: LabelStage, retry: int, max_tokens: int | None) -> LabelStage:
    """The stage with the number of the retry, and what was changed for it, in its labels' meta."""
    noted: dict[str, Any] = {RETRIES: retry} if retry else {}
    if max_tokens is not None:
        noted["max_tokens"] = max_tokens

    def run(contexts: Iterable[TraceInContext]) -> Iterator[Labelled]:
        for labelled in stage(contexts):
            label = replace(labelled.label, meta={**labelled.label.meta, **noted})
            yield replace(labelled, label=label)

    return run


def _prompt(store: Store, config: Mapping[str, Any]) -> Any:
    """The prompt that a judge was made with.

    Raises:
        InputError: it is not the packaged one, and was never kept.
    """
    from judge import JudgePrompt, packaged_prompt

    sha256 = str(config.get("prompt_sha256"))
    packaged = packaged_prompt()
    if packaged.sha256 == sha256:
        return packaged
    text = store.replies.prompt(sha256)
    if text is None:
        raise InputError(
            f"The prompt {sha256[:12]} of the labeler was not kept.",
            remedy="judge these traces under another --name",
        )
    return JudgePrompt.parse(text, where=f"prompt {sha256[:12]}")
