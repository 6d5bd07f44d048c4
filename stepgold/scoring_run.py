"""PRM scoring as a labelling stage: candidates of a problem together, time left told in work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from stepgold.console import note
from stepgold.images import ImageOptions
from stepgold.labeling_run import EVIDENCE_KEY, Labelled
from stepgold.models import model_folder, parse_spec
from traces import InputError

if TYPE_CHECKING:
    from scoring import Scorer
    from scoring.families.generic_layout import GenericLayout
    from scoring.family import Family
    from scoring.server.scorer import ServerScorer
    from storage import Store
    from traces import Labeler, TraceInContext


OverflowChoice = Literal["drop-documents", "error", "abstain"]
DtypeChoice = Literal["auto", "float32", "bfloat16", "float16"]
_TOGETHER = 500
"""Traces asked for in one query, whole problems."""


@dataclass(frozen=True, slots=True)
class ScorerOptions:
    """The options of the command line that say what a PRM is and how traces are laid out for it."""

    prm: str
    """The model as the user names it."""
    family: str | GenericLayout | None = None
    """Its family; None recognises it."""
    max_tokens: int | None = None
    """The window; None takes the default."""
    overflow: OverflowChoice = "drop-documents"
    """What happens to a trace that is too long with all its documents."""
    reserve: int = 0
    """Tokens kept free for question and solution."""
    packing: str = "fit"
    """Which documents are shown."""
    device: str | None = None
    """Where it runs; None takes the fastest device."""
    dtype: DtypeChoice = "auto"
    """Of the weights."""
    mode: str = "strict"
    """strict, or as a released script scores."""
    images: ImageOptions = field(default_factory=ImageOptions)
    """Where the images of problems are, for a family that is shown them."""
    reference: str | None = None
    """What an implicit PRM is held against; None for other families."""

    def check(self) -> None:
        """Look at what can be told without a model: a slip costs no seconds of loading.

        Raises:
            InputError: an unknown family, mode or packing, or options that do not go together.
        """
        from retrieval.packing import refuse_unknown_packing
        from scoring.families.generic_layout import GenericLayout, named_family
        from scoring.names import COMPARED, refuse_mismatch

        refuse_unknown_packing(self.packing)
        named = named_family(self.family, self.mode)
        compared = self.reference is not None
        if parse_spec(self.prm).kind == "openai" and (compared or named in COMPARED):
            raise InputError(
                "An implicit PRM and its reference are read on this machine, by no server.",
                remedy="take --prm hf:PATH",
            )
        if named is not None:
            name = named.name if isinstance(named, GenericLayout) else named
            refuse_mismatch(name, self.mode, reference=compared)
        if self.reference is not None and parse_spec(self.reference).kind != "hf":
            raise InputError(
                f'"{self.reference}" is no checkpoint.', remedy="name it as --reference hf:PATH"
            )


def open_scorer(chosen: ScorerOptions) -> Scorer:
    """The scorer behind the options of the command line.

    Raises:
        InputError: an option that does not fit.
        PrmError: the checkpoint cannot be used.
    """
    chosen.check()
    from scoring import load_scorer
    from scoring.engine.fit import Overflow

    # The likelihood family reads a language model: in the lab that is the policy, never the judge.
    role: Literal["policy", "prm"] = "policy" if chosen.family == "likelihood" else "prm"
    return load_scorer(
        model_folder(parse_spec(chosen.prm), role),
        family=chosen.family,
        mode=chosen.mode,
        max_tokens=chosen.max_tokens,
        overflow=Overflow(chosen.overflow),
        reserve=chosen.reserve,
        packing=chosen.packing,
        device=chosen.device,
        dtype=None if chosen.dtype == "auto" else chosen.dtype,
        images=chosen.images.loader(),
        reference=chosen.reference,
    )


def note_unseen(family: Family) -> None:
    """Say that a family is not shown the images that problems have, if so."""
    from scoring.images.tokens import ShowsImages

    if not isinstance(family, ShowsImages):
        note("Problems have images, which a PRM is not shown: their steps are scored as text.")
    elif not family.image_tokens.shown:
        note(f"Problems have images, which {family.name} is not shown: its labels say so.")


def score_again(labeler: Labeler, max_tokens: int | None, images: ImageOptions) -> ScoreStage:
    """The stage of a stored PRM labeler, for traces that were shortened or abstained from.

    Args:
        labeler: as stored, with the version that answered.
        max_tokens: another window; None keeps the stored one.
        images: where the images of problems are.

    Raises:
        InputError: the checkpoint or its family is not what it was.
        PrmError: the checkpoint cannot be used.
    """
    seen = replace(images, shown=labeler.config.get("images", True))
    scorer = open_scorer(replace(stored_options(labeler, max_tokens), images=seen))
    refuse_changed(labeler, scorer.config())
    return ScoreStage(scorer)


def stored_options(labeler: Labeler, max_tokens: int | None) -> ScorerOptions:
    """The options that a stored PRM labeler was made with, but for the window where one is given."""
    from scoring.families.generic_layout import GenericLayout

    stored = labeler.config
    # A family from a file is stored with all that the file said.
    layout = stored.get("layout")
    return ScorerOptions(
        prm=str(labeler.model),
        family=stored["family"] if layout is None else GenericLayout(**layout),
        max_tokens=max_tokens or stored["max_tokens"],
        overflow=stored["overflow"],
        reserve=stored["reserve"],
        packing=stored.get("packing", "fit"),
        dtype=stored.get("dtype", "auto"),
        mode=stored["mode"],
        reference=stored.get("reference"),
    )


def refuse_changed(labeler: Labeler, config: Mapping[str, Any]) -> None:
    """Refuse to go on with a labeler whose checkpoint is another one now; the window may differ.

    Raises:
        InputError: something else of its configuration differs.
    """
    stored = {key: value for key, value in labeler.config.items() if key != EVIDENCE_KEY}
    now = {**config, "max_tokens": stored["max_tokens"]}
    if changed := sorted(
        key for key in now.keys() | stored.keys() if now.get(key) != stored.get(key)
    ):
        raise InputError(
            f"Labeler '{labeler.name}' was made with another {' and '.join(changed)} than"
            f" '{labeler.model}' has now.",
            remedy="score under another --name",
        )


@dataclass(slots=True)
class ScoreStage:
    """A scorer as `label_missing` takes it."""

    scorer: Scorer | ServerScorer
    """Scores."""
    shortened: int = 0
    """Traces that were scored with fewer documents than they have."""
    batched: bool = True
    """Whether what is done comes in batches, with long work between them."""

    def reading(self, store: Store, dataset: str) -> ProblemByProblem:
        """How the stage wants the traces of a dataset."""
        return ProblemByProblem(store, dataset, self.scorer.expected_work)

    def __call__(self, contexts: Iterable[TraceInContext]) -> Iterator[Labelled]:
        """Score; after each forward pass what is done is stored at once."""
        for batch in self.scorer.score_batches(contexts):
            for number, label in enumerate(batch, 1):
                self.shortened += bool(label.meta.get("documents_dropped"))
                yield Labelled(
                    label,
                    resolved_model=self.scorer.resolved_model,
                    last_of_batch=self.batched and number == len(batch),
                )


@dataclass(frozen=True, slots=True)
class ProblemByProblem:
    """Traces problem by problem, wherever in the dataset a problem's candidates stand."""

    store: Store
    """Where they are."""
    dataset: str
    """Theirs."""
    measure: Callable[[Iterable[TraceInContext]], Mapping[str, float]]
    """What each trace will take, from its texts."""

    def contexts(self, trace_ids: Sequence[str]) -> Iterator[TraceInContext]:
        """Problems in the order of their first trace here, candidates in the order of import."""
        wanted = set(trace_ids)
        problems: dict[str, list[str]] = {}
        for context in self.store.traces.contexts(self.dataset, with_evidence=False):
            if context.trace.id in wanted:
                problems.setdefault(context.problem.id, []).append(context.trace.id)
        if [each for ids in problems.values() for each in ids] == list(trace_ids):
            # As most files are: no need to ask problem by problem.
            yield from self.store.traces.contexts(self.dataset, trace_ids=trace_ids)
            return
        for ids in _chunks(problems.values()):
            found = {c.trace.id: c for c in self.store.traces.contexts(self.dataset, trace_ids=ids)}
            yield from (found[each] for each in ids if each in found)

    def work(self, trace_ids: Sequence[str]) -> Mapping[str, float]:
        """Operations, from the lengths of texts."""
        return self.measure(self.contexts(trace_ids))


def _chunks(problems: Iterable[list[str]]) -> Iterator[list[str]]:
    """Whole problems until there are some hundred traces."""
    chunk: list[str] = []
    for ids in problems:
        chunk += ids
        if len(chunk) >= _TOGETHER:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
