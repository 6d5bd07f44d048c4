"""PRM scoring: one checkpoint or server over a dataset, candidates of a problem together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from retrieval import PACKINGS
from scoring import (
    WITH_REFERENCE,
    GenerativeFamily,
    GenericLayout,
    Mode,
    describe_families,
    named_family,
    refuse_mismatch,
)
from stepgold.console import note
from stepgold.generative_prm import asked_family, score_by_asking, stored_family
from stepgold.images import ImageOptions
from stepgold.labeling_run import (
    EVIDENCE_KEY,
    LabelStage,
    ProblemByProblem,
    Reading,
    evidence_source,
    label_missing,
)
from stepgold.models import model_folder, parse_spec
from stepgold.options import (
    EngineOptions,
    HostedOptions,
    ImageFolderOptions,
    LabelingOptions,
    SpendingOptions,
    open_cluster,
)
from stepgold.outcome import LabelingResult, Tally
from traces import Config, InputError, LabeledTrace, Labeler, LabelerKind, Need, StrPath, option

if TYPE_CHECKING:
    from scoring import Family, FitOptions, Scorer, ServerScorer
    from stepgold.workspace import WorkspaceFolder
    from storage import Store
    from traces import TraceInContext


PARITY_KEY = "parity"
"""Under which a labeler's configuration says how the server compared with the checkpoint."""
PROVED_ON = 4
"""Imported traces that a checkpoint scores again before a retry stores anything."""
PROVED_WITHIN = 0.05
"""Largest mean difference of their step scores: other hardware and kernels differ by less."""


def _is_served(config: Any) -> bool:
    return parse_spec(config.prm).kind == "openai"


_SERVED = Need("--prm openai:MODEL", _is_served)


class ScorerOptions(Config):
    """What a PRM is, and how traces are laid out for it."""

    prm: str = option(metavar="MODEL", help="hf:PATH, lab, or openai:MODEL (vLLM or SGLang).")
    family: GenericLayout | GenerativeFamily | str | None = option(
        default=None,
        metavar="NAME",
        help=f"{describe_families()} [default: recognized from tokens and heads, or implicit-prm if"
        " a reference is given].",
    )
    reference: str | None = option(
        default=None,
        metavar="MODEL",
        help="hf:PATH: the model that an implicit PRM (EurusPRM) was trained from.",
    )
    mode: Mode = option(
        default="strict",
        choices=get_args(Mode),
        help="medprm-compat reproduces the numbers of Med-PRM's released script.",
    )
    max_tokens: int | None = option(
        default=None,
        between=(1, None),
        metavar="N",
        help="Window in tokens [default: the model's, at most 4096; visualprm's whole].",
    )
    overflow: Literal["drop-documents", "error", "abstain"] = option(
        default="drop-documents",
        choices=("drop-documents", "error", "abstain"),
        help="If a trace does not fit with all its documents: use fewer, stop, or abstain.",
    )
    reserve: int = option(
        default=0,
        between=(0, None),
        metavar="N",
        help="Tokens reserved for question and solution, so that traces up to this length see the"
        " same documents.",
    )
    packing: str = option(
        default="fit",
        choices=PACKINGS,
        help="How documents are chosen: what fits, or Med-PRM's published rule.",
    )
    device: str | None = option(
        default=None,
        metavar="DEVICE",
        help="cpu, cuda, cuda:N or mps [default: the fastest available].",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="Type of the weights; auto: float32 on a CPU, else bfloat16.",
    )

    def check(self) -> None:
        """Read a family's file, and refuse what cannot work before a model is loaded.

        Raises:
            InputError: an unknown family, or options that do not fit each other.
        """
        super().check()
        named = named_family(self.family, self.mode)
        object.__setattr__(self, "family", named)
        compared = self.reference is not None
        if _is_served(self) and (compared or named in WITH_REFERENCE):
            raise InputError(
                "An implicit PRM and its reference run on this machine; no server can score them.",
                remedy="use --prm hf:PATH",
            )
        if named is not None:
            name = named if isinstance(named, str) else named.name
            refuse_mismatch(name, self.mode, reference=compared)
        if self.reference is not None and parse_spec(self.reference).kind != "hf":
            raise InputError(
                f'"{self.reference}" is not a checkpoint.', remedy="name it as --reference hf:PATH"
            )

    def fit_options(self) -> FitOptions:
        """Window and documents, in the form of the scoring engine."""
        from scoring import FitOptions, Overflow

        return FitOptions(self.max_tokens, Overflow(self.overflow), self.reserve, self.packing)


def _is_generative(config: Any) -> bool:
    return isinstance(config.family, GenerativeFamily)


_GENERATIVE = Need("a generative --family", _is_generative)


class ScoreOptions(
    EngineOptions,
    ImageFolderOptions,
    SpendingOptions,
    HostedOptions,
    ScorerOptions,
    LabelingOptions,
):
    """Which PRM scores which traces, here or on a server."""

    inherited_needs: ClassVar[Mapping[str, Need]] = {
        "base_url": _SERVED,
        "concurrency": _SERVED,
        "allow_phi": _SERVED,
        "insecure_http": _SERVED,
        "budget": _GENERATIVE,
        "allow_mixed": _GENERATIVE,
    }

    name: str = option(default="prm", metavar="NAME", help="Name of the PRM's labeler.")
    votes: int | None = option(
        default=None,
        between=(1, None),
        metavar="N",
        help="Votes of a generative PRM per step; the score is their mean [default: the family's].",
        needs=_GENERATIVE,
    )
    template: StrPath | None = option(
        default=None,
        metavar="DIR",
        help="Tokenizer folder, for servers that cannot continue an assistant turn.",
        needs=_SERVED,
    )
    checkpoint: str | None = option(
        default=None,
        metavar="MODEL",
        help="hf:PATH of the PRM that openai:MODEL serves: prepares traces on this machine, and"
        " checks the server's scores.",
        needs=_SERVED,
    )
    route: str | None = option(
        default=None,
        metavar="ROUTE",
        help="Endpoint: pooling or completions (vLLM), generate (SGLang) [default:"
        " pooling for heads, completions for tokens].",
        needs=_SERVED,
    )
    parity_sample: int = option(
        default=32,
        between=(1, None),
        metavar="N",
        help="Traces scored by both server and checkpoint before labels are stored.",
        needs=_SERVED,
    )
    parity_limit: float = option(
        default=0.02,
        between=(0, 1),
        metavar="X",
        help="Largest allowed difference of a step score between server and checkpoint.",
        needs=_SERVED,
    )

    def check(self) -> None:
        """Refuse a served PRM without its checkpoint, or from a cluster.

        Raises:
            InputError: there is none, or its mode or engine does not suit a server.
        """
        super().check()
        if self.on_ray and _is_served(self) and not _is_generative(self):
            raise InputError(
                "A PRM on a server is asked by this command, which checks it against its"
                " checkpoint.",
                where="--engine",
                remedy="leave --engine out and name all servers with --base-url, or use"
                " --prm hf:PATH",
            )
        if not _is_served(self) or (_is_generative(self) and self.checkpoint is None):
            return
        if self.checkpoint is None:
            raise InputError(
                f'"{self.prm}" needs its checkpoint on this machine too: its tokenizer lays the'
                " traces out, and its weights prove that the server gives the same scores.",
                remedy="add --checkpoint hf:PATH",
            )
        if parse_spec(self.checkpoint).kind != "hf":
            raise InputError(
                f'"{self.checkpoint}" is not a checkpoint.',
                remedy="name it as --checkpoint hf:PATH",
            )
        if self.mode != "strict":
            raise InputError(
                f"The mode {self.mode} is not available on a server.",
                remedy="leave --mode out, or use --prm hf:PATH",
            )


@dataclass(frozen=True, kw_only=True, repr=False)
class ScoreResult(LabelingResult):
    """What a PRM scored."""

    shortened: int
    """Traces that were scored with fewer documents than they have."""
    family: str
    """The family it was read as."""
    aggregation: str
    """How its authors make one score of a trace."""
    parity: Mapping[str, Any] | None
    """How the server compared with the checkpoint; None for a PRM on this machine."""

    def as_json(self) -> dict[str, Any]:
        """The contract's document, with the family."""
        document = super().as_json() | {
            "shortened": self.shortened,
            "family": self.family,
            "aggregation": self.aggregation,
        }
        return document if self.parity is None else document | {PARITY_KEY: dict(self.parity)}

    def words(self) -> str:
        """The counts, and the family."""
        lines = [super().words()]
        if self.shortened:
            lines.append(
                f"{self.shortened} of them with fewer documents: stepgold status lists them"
            )
        lines.append(
            f"read as {self.family}, which was published with the aggregation {self.aggregation}"
        )
        return "\n".join(lines)


def score(workspace: WorkspaceFolder, options: ScoreOptions) -> ScoreResult:
    """Score every step with a process reward model; traces that do not fit are never truncated.

    Raises:
        InputError: options that do not fit, or an unknown dataset.
        PrmError: the checkpoint cannot be used, or the server does not score as it does.
        ModelError: the server cannot be asked.
    """
    images = ImageOptions.of(workspace, options.images, ignore=options.ignore_images)
    tally = Tally("score", options.dataset, options.name)
    asked = asked_family(options)
    with workspace.open_store() as store, ExitStack() as closing:
        store.traces.require_dataset(options.dataset)
        if asked is not None:
            tally = score_by_asking(store, closing, options, asked)
            return ScoreResult(
                **tally.figures(),
                shortened=0,
                family=asked.name,
                aggregation=asked.aggregation,
                parity=None,
            )
        images = images.for_prm(exist=(exist := store.traces.has_images(options.dataset)))
        cluster = open_cluster(options, closing)
        if cluster is None:
            prm, stage, reading = _here(store, closing, options, images)
        else:
            from stepgold.served_prm import score_on_cluster as spread

            prm, stage, reading = spread(store, cluster, options, images)
        if exist and prm.unseen is not None:
            note(prm.unseen)
        if prm.not_shared is not None:
            note(f"candidates are scored one by one: {prm.not_shared}")
        labeler = Labeler(
            options.name, LabelerKind.PRM, prm.config, model=str(parse_spec(options.prm))
        )
        if prm.takes_documents:
            labeler = evidence_source(store, options.dataset, labeler)
        shortened: list[str] = []
        stage = partial(_noting_shortened, stage, shortened)
        label_missing(store, tally, labeler, stage, options=options, reading=reading)
    return ScoreResult(
        **tally.figures(),
        shortened=len(shortened),
        family=prm.family,
        aggregation=prm.aggregation,
        parity=labeler.config.get(PARITY_KEY),
    )


@dataclass(frozen=True, slots=True)
class PrmFacts:
    """What a run says of a PRM and stores with its labels, wherever it is loaded."""

    config: dict[str, Any]
    """The labeler's configuration."""
    family: str
    """Its family."""
    aggregation: str
    """How the family's authors make one score of a trace."""
    takes_documents: bool
    """Whether it is shown evidence."""
    unseen: str | None
    """A note that it is not shown the images of problems; None if it is."""
    not_shared: str | None
    """Why common prefixes are not computed once; None if they are."""

    @classmethod
    def of(cls, scorer: Scorer | ServerScorer) -> PrmFacts:
        """Those of a loaded PRM, or of a server's."""
        family = scorer.family
        return cls(
            scorer.config(),
            family.name,
            family.aggregation,
            takes_documents=family.takes_documents,
            unseen=_unseen(family),
            not_shared=scorer.not_shared,
        )


def _here(
    store: Store, closing: ExitStack, options: ScoreOptions, images: ImageOptions
) -> tuple[PrmFacts, LabelStage, Reading]:
    """A PRM in this process, or on a server."""
    scorer = _scorer(store, closing, options, images)
    scorer.refuse_over_length(store.traces.contexts(options.dataset, limit=options.limit))
    stage = ScoreStage(scorer, batched=not _is_served(options))
    return PrmFacts.of(scorer), stage, stage.reading(store, options.dataset)


def _noting_shortened(
    stage: LabelStage, shortened: list[str], contexts: Iterable[TraceInContext]
) -> Iterator[LabeledTrace]:
    """Label; add the traces that were scored with fewer documents than they have."""
    for one in stage(contexts):
        if one.label.meta.get("documents_dropped"):
            shortened.append(one.label.trace_id)
        yield one


def _scorer(
    store: Store, closing: ExitStack, options: ScoreOptions, images: ImageOptions
) -> Scorer | ServerScorer:
    """The PRM on this machine, or one on a server that scores as its checkpoint does."""
    if not _is_served(options):
        return open_scorer(options, images)
    from stepgold.served_prm import open_server_scorer, pass_gate

    scorer = open_server_scorer(options, closing)
    pass_gate(store, scorer, options, images)
    return scorer


def open_scorer(options: ScorerOptions, images: ImageOptions) -> Scorer:
    """The PRM on this machine.

    Raises:
        InputError: an option that does not fit.
        PrmError: the checkpoint cannot be used.
    """
    from scoring import load_scorer

    # The likelihood family reads a language model: in the lab that is the policy, never the judge.
    role: Literal["policy", "prm"] = "policy" if options.family == "likelihood" else "prm"
    return load_scorer(
        model_folder(parse_spec(options.prm), role),
        family=options.family,
        mode=options.mode,
        options=options.fit_options(),
        device=options.device,
        dtype=None if options.dtype == "auto" else options.dtype,
        images=images.loader(),
        reference=options.reference,
    )


def _unseen(family: Family) -> str | None:
    """A note that a family is not shown the images that problems have, if so."""
    from scoring import ShowsImages

    if not isinstance(family, ShowsImages):
        return "The PRM is not shown the images of problems: their steps are scored as text."
    if not family.image_tokens.shown:
        return f"{family.name} is not shown the images of problems; the labels record this."
    return None


def stored_options(labeler: Labeler, dataset: str, **changed: Any) -> ScoreOptions:
    """The options that a stored PRM labeler was made with.

    Args:
        labeler: as stored, with the version that answered.
        dataset: whose traces it scored.
        **changed: other options; a `max_tokens` of None keeps the stored one.
    """
    stored = labeler.config
    # A family from a file is stored with all that the file said.
    family: GenericLayout | GenerativeFamily | str = stored["family"]
    if "layout" in stored:
        family = GenericLayout(**stored["layout"])
    if "generative" in stored:
        family = stored_family(stored)
    how: dict[str, Any] = {
        "family": family,
        "overflow": stored["overflow"],
        "reserve": stored["reserve"],
        "packing": stored.get("packing", "fit"),
        "dtype": stored.get("dtype", "auto"),
        "mode": stored["mode"],
        "reference": stored.get("reference"),
        **changed,
    }
    how["max_tokens"] = changed.get("max_tokens") or stored["max_tokens"]
    return ScoreOptions(dataset=dataset, prm=str(labeler.model), name=labeler.name, **how)


def score_again(
    store: Store,
    labeler: Labeler,
    dataset: str,
    *,
    prm: str | None,
    max_tokens: int | None,
    images: ImageOptions,
) -> ScoreStage:
    """The stage of a stored PRM labeler, for traces that were shortened or abstained from.

    Args:
        store: the workspace's database.
        labeler: as stored, with the version that answered.
        dataset: whose traces it scored.
        prm: the checkpoint of scores that were imported without one; None for the stored one.
        max_tokens: another window; None keeps the stored one.
        images: where the images of problems are.

    Raises:
        InputError: the checkpoint or its family is not what it was, or does not repeat the scores
            that were imported.
        PrmError: the checkpoint cannot be used.
    """
    labeler = _with_model(labeler, dataset, prm)
    seen = replace(images, shown=labeler.config.get("images", True))
    scorer = open_scorer(stored_options(labeler, dataset, max_tokens=max_tokens), seen)
    refuse_changed(labeler, scorer.config())
    if is_imported(labeler):
        _refuse_other_scores(store, labeler, dataset, scorer)
    return ScoreStage(scorer)


def _with_model(labeler: Labeler, dataset: str, prm: str | None) -> Labeler:
    """The labeler with its checkpoint, which an imported one may lack."""
    named = None if prm is None else str(parse_spec(prm))
    if labeler.model is None and named is None:
        raise InputError(
            f"Labeler '{labeler.name}' was imported, and the file does not say which checkpoint"
            " scored it.",
            remedy=f"add --prm: stepgold retry --dataset {dataset} --labeler {labeler.name}"
            " --prm hf:PATH --max-tokens N",
        )
    if None not in (labeler.model, named) and labeler.model != named:
        raise InputError(
            f"Labeler '{labeler.name}' is '{labeler.model}', not '{named}'.",
            where="--prm",
            remedy="omit --prm, or score under another --name",
        )
    return replace(labeler, model=labeler.model or named)


def is_imported(labeler: Labeler) -> bool:
    """Whether a labeler's scores came from a file."""
    return "imported_from" in labeler.config


def refuse_changed(labeler: Labeler, config: Mapping[str, Any]) -> None:
    """Refuse to continue a labeler whose checkpoint has changed; the window may differ.

    Of an imported labeler only the file's configuration is known.

    Raises:
        InputError: something else of its configuration differs.
    """
    apart = {EVIDENCE_KEY, "imported_from"}
    stored = {key: value for key, value in labeler.config.items() if key not in apart}
    now = {**config, "max_tokens": stored["max_tokens"]}
    known = stored.keys() if is_imported(labeler) else now.keys() | stored.keys()
    if changed := sorted(key for key in known if now.get(key) != stored.get(key)):
        raise InputError(
            f"The {' and '.join(changed)} of '{labeler.model}' changed since labeler"
            f" '{labeler.name}' was made.",
            remedy="score under another --name",
        )


def _refuse_other_scores(store: Store, labeler: Labeler, dataset: str, scorer: Scorer) -> None:
    """Score a few imported traces again: a file does not prove which checkpoint it comes from.

    Raises:
        InputError: the scores differ too much on average.
    """
    stored = {
        trace_id: [step.score for step in label.step_labels]
        for trace_id, label in store.labels.load(dataset, labeler.name).items()
        if label.abstention is None and not label.meta.get("retries")
    }
    ids = list(stored)[:PROVED_ON]
    contexts = list(store.traces.contexts(dataset, trace_ids=ids)) if ids else []
    differences = [
        abs(old - new.score)
        for label in scorer.score(contexts)
        for old, new in zip(stored[label.trace_id], label.step_labels, strict=False)
        if old is not None and new.score is not None
    ]
    if not differences:
        return
    mean = sum(differences) / len(differences)
    if mean > PROVED_WITHIN:
        raise InputError(
            f"'{labeler.model}' does not reproduce the imported scores of '{labeler.name}': they"
            f" differ by {mean:.3f} on average over {len(differences)} steps.",
            remedy="name the checkpoint that the file was scored with; to import it again:"
            f" stepgold remove labeler {labeler.name} --dataset {dataset}",
        )
    note(
        f"'{labeler.model}' reproduces the imported scores of {len(ids)} traces: mean difference"
        f" {mean:.4f}."
    )


@dataclass(slots=True)
class ScoreStage:
    """A scorer as `label_missing` takes it."""

    scorer: Scorer | ServerScorer
    """Scores."""
    batched: bool = True
    """Whether what is done comes in batches, with long work between them."""

    def reading(self, store: Store, dataset: str) -> ProblemByProblem:
        """How the stage wants the traces of a dataset."""
        return ProblemByProblem(store, dataset, self.scorer.expected_work)

    def __call__(self, contexts: Iterable[TraceInContext]) -> Iterator[LabeledTrace]:
        """Score; after each forward pass what is done is stored at once."""
        for batch in self.scorer.score_batches(contexts):
            for number, label in enumerate(batch, 1):
                yield LabeledTrace(
                    label,
                    resolved_model=self.scorer.resolved_model,
                    last_of_batch=self.batched and number == len(batch),
                )
