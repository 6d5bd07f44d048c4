"""Candidate traces for problems, written by a policy and kept by a stated rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labeling import CandidateRule
from stepgold.claims import Share
from stepgold.console import note, progress
from stepgold.golds import list_unusable_golds
from stepgold.hub import input_file
from stepgold.images import ImageOptions
from stepgold.labeling_run import STOPS
from stepgold.models import (
    PolicyOptions,
    RunTerms,
    dispatcher,
    model_folder,
    policy_config,
    policy_server,
    tell_slow,
    template_identity,
)
from stepgold.options import DatasetOptions, EngineOptions, ImageFolderOptions, open_cluster
from stepgold.outcome import LabelingResult, Tally
from stepgold.versions import ModelTruth
from traces import BudgetExhausted, InputError, StrPath, option

if TYPE_CHECKING:
    from inference import LocalSampler
    from labeling import ProblemCandidates, Sampler
    from stepgold.workspace import WorkspaceFolder
    from storage import Store
    from traces import Evidence, Problem

Asked = tuple["Problem", "Sequence[Evidence]"]
"""A problem and the evidence for it."""

Writing = Callable[[Iterable[Sequence[Asked]]], Iterator[Iterable["ProblemCandidates"]]]
"""Writes candidates for groups of problems; the groups come in any order."""
_PROBLEMS_AT_ONCE = 64
"""Problems whose rounds are sampled together, and that one command claims at once."""


class SampleOptions(
    EngineOptions, ImageFolderOptions, PolicyOptions, CandidateRule, DatasetOptions
):
    """Which policy writes candidates for which problems, and which are kept."""

    name: str = option(
        default="sample",
        metavar="NAME",
        help="Name of this set of candidates; part of their ids.",
    )
    problems: StrPath | None = option(
        default=None, metavar="FILE", help="Problems as JSONL [default: those of the dataset]."
    )
    budget: float | None = option(
        default=None,
        metavar="USD",
        between=(0, None),
        help="Stop before spending more than this, in USD [default: no limit].",
    )
    limit: int | None = option(
        default=None,
        metavar="N",
        between=(1, None),
        help="Sample for the first N problems only, as a pilot.",
    )
    replace: bool = option(default=False, help="Replace the candidates stored under this name.")

    def check(self) -> None:
        """Refuse a name that would break trace ids.

        Raises:
            InputError: it holds a colon.
        """
        super().check()
        if ":" in self.name:
            raise InputError(
                f"The name {self.name!r} holds a colon.",
                where="--name",
                remedy="choose another: it becomes part of trace ids",
            )

    def settings(self, images: ImageOptions) -> dict[str, Any]:
        """What shapes the candidates, as stored with them."""
        return (
            self.as_dict()
            | {
                "policy": str(self.spec),
                "max_tokens": self.limit_of_a_text,
                "temperature": self.temperature,
                "evidence": self.with_evidence,
                "template": template_identity(self.template),
            }
            | images.as_dict()
            | self.request_settings()
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class SampleResult(LabelingResult):
    """What was sampled, and what the rule rejected."""

    problems: int
    """Problems that were asked for."""
    rejected: dict[str, int]
    """Rejected candidates by reason; further rounds replaced them where they could."""

    def as_json(self) -> dict[str, Any]:
        """The contract's document, with the counts of problems and rejections."""
        return super().as_json() | {"problems": self.problems, "turned_away": self.rejected}

    def words(self) -> str:
        """The counts in a few lines."""
        if not self.rejected:
            return super().words()
        ordered = sorted(self.rejected.items(), key=lambda each: (-each[1], each[0]))
        reasons = ", ".join(f"{count} with {why}" for why, count in ordered)
        return f"{super().words()}\nrejected and sampled again: {reasons}"


def sample(workspace: WorkspaceFolder, options: SampleOptions) -> SampleResult:
    """Write candidate traces for every problem, split into steps and kept by a stated rule.

    Raises:
        InputError: options that do not fit each other, or a policy or file that cannot be used.
    """
    from inference import Purse

    spec, tally = options.spec, Tally("sample", options.dataset, options.name)
    images = ImageOptions.of(workspace, options.images, ignore=options.ignore_images)
    if options.delimiter is None and options.is_lab:
        options = options.but(delimiter="\n")  # the lab's policy writes one step a line
    given = None if options.problems is None else _read(Path(options.problems))
    with workspace.open_store(create=given is not None) as store, ExitStack() as closing:
        known = given if given is not None else _stored_problems(store, options.dataset)
        images = images.settled(spec, exist=any(problem.images for problem, _ in known))
        wanted = known[: options.limit]
        store.traces.sampled.refuse_changed(options.dataset, [problem for problem, _ in wanted])
        tally.unusable_golds = list_unusable_golds(problem for problem, _ in wanted)
        settings = options.settings(images)
        stored = store.traces.sampled.declare(
            options.dataset, options.name, settings, replace=options.replace
        )
        tally.unchanged = stored.traces
        missing = [pair for pair in wanted if pair[0].id not in stored.problems]
        cluster, truth = open_cluster(options, closing), ModelTruth(allow_mixed=True)
        terms = RunTerms(
            store, closing, truth, Purse(options.budget), images=images, cluster=cluster
        )
        if cluster is not None and options.has_weights:
            pool = cluster.pool(partial(SamplerOnActor, options, images))
            write: Writing = partial(pool.map, expected=-(-len(missing) // _PROBLEMS_AT_ONCE))
        else:
            write = partial(map, partial(_candidates, options, _sampler(options, terms)))
        rejected = _draw(store, tally, missing, write=write, options=options, settings=settings)
    return SampleResult(
        **tally.figures(), problems=len(wanted), rejected=dict(sorted(rejected.items()))
    )


def _draw(
    store: Store,
    tally: Tally,
    missing: Sequence[Asked],
    *,
    write: Writing,
    options: SampleOptions,
    settings: Mapping[str, Any],
) -> Counter[str]:
    """Sample what is missing and store every problem as it is done; count rejected candidates."""
    rejected: Counter[str] = Counter()
    dataset, name = str(tally.dataset), str(tally.labeler)

    def still_open(ids: Sequence[str]) -> list[str]:
        stored = store.traces.sampled.declare(dataset, name, settings)
        return [each for each in ids if each not in stored.problems]

    from storage import Workload

    seen = 0
    with Share(store, "sample", Workload(dataset, name, "problem"), still_open) as share:
        sampled = _sampled(share, missing, write)
        try:
            for one in progress(sampled, total=len(missing), label="sample"):
                if not _store(share, dataset, name, one):
                    continue
                seen += 1
                if one.abstention is not None:
                    tally.abstained[one.abstention.reason.value] += 1
                    continue
                tally.done += len(one.kept)
                tally.failed += options.n - len(one.kept)
                rejected.update(why for _, why in one.refused)
        except STOPS as stop:
            if not tally.done and not isinstance(stop, BudgetExhausted):
                raise
            tally.stopped = stop
            others = share.done_by_others([problem.id for problem, _ in missing])
            tally.failed += (len(missing) - seen - others) * options.n
            note(str(stop))
    stored = store.traces.sampled.declare(dataset, name, settings)
    tally.unchanged = stored.traces - tally.done  # also what other commands sampled meanwhile
    return rejected


def _sampled(share: Share, missing: Sequence[Asked], write: Writing) -> Iterator[ProblemCandidates]:
    """Candidates for the problems that this command could claim, many problems at a time."""
    asked = {problem.id: (problem, evidence) for problem, evidence in missing}
    for ids in share.rounds(list(asked)):
        claimed = share.chunks(([each] for each in ids), fewest=_PROBLEMS_AT_ONCE)
        for written in write([asked[each] for each in some] for some in claimed):
            yield from written


def _candidates(
    options: SampleOptions, sampler: Sampler, group: Sequence[Asked]
) -> Iterator[ProblemCandidates]:
    from labeling import sample_candidates

    return sample_candidates(
        group, sampler, options, name=options.name, generator=str(options.spec)
    )


class SamplerOnActor:
    """A policy with its weights on an actor of a cluster."""

    def __init__(self, options: SampleOptions, images: ImageOptions) -> None:
        """Load the model."""
        self._options, self._sampler = options, _local_sampler(options, images)

    def __call__(self, group: Sequence[Asked]) -> list[ProblemCandidates]:
        """The candidates of some problems."""
        return list(_candidates(self._options, self._sampler, group))


def _store(share: Share, dataset: str, name: str, one: ProblemCandidates) -> bool:
    """Store a problem's candidates; False if another command took it over meanwhile."""
    from traces import Failure

    store, why = share.store, one.abstention
    with store.transaction():
        if not share.settle([one.problem.id]):
            return False
        if why is None:
            store.traces.sampled.add(dataset, name, one.problem, kept=one.kept, refused=one.refused)
        else:
            # Nothing is stored as sampled: the problem stays missing, and the next call asks again.
            failure = Failure(one.problem.id, name, why.reason, retryable=True, detail=why.detail)
            store.labels.failures.put(dataset, [failure])
    return True


def _read(file: Path) -> list[Asked]:
    from formats import read_problems

    return [(problem, ()) for problem in read_problems(input_file(file))]


def _stored_problems(store: Store, dataset: str) -> list[Asked]:
    """The problems of a dataset, with their evidence."""
    store.traces.require_dataset(dataset)
    found: dict[str, Asked] = {}
    for context in store.traces.contexts(dataset):
        found.setdefault(context.problem.id, (context.problem, context.evidence))
    return list(found.values())


def _sampler(options: SampleOptions, terms: RunTerms) -> Sampler:
    """The sampler; marked problems go to no hosted model unless that is allowed."""
    if options.has_weights:
        return _local_sampler(options, terms.images)
    from inference import ServerSampler

    marked = () if options.allow_phi else terms.store.traces.marked_problems(options.dataset)
    return ServerSampler(
        dispatcher(policy_server(options, terms), terms),
        policy_config(options),
        allow_phi=options.allow_phi,
        images=terms.images.loader(),
        marked=marked,
    )


def _local_sampler(options: SampleOptions, images: ImageOptions) -> LocalSampler:
    """The sampler with its weights in this process."""
    from inference import LocalSampler

    config, folder = policy_config(options), model_folder(options.spec, "policy")
    local = LocalSampler(folder, config, images=images.loader())
    tell_slow(options.spec, local.slow_because)
    return local
