"""Evidence for what has none yet: queries, rewritten ones among them, through the retriever."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from commands.console import note, progress
from commands.outcome import Tally
from commands.retrieval_setup import open_retriever
from commands.workspace import Workspace
from traces.errors import BudgetExhausted, ModelRefused, QuotaExhausted

if TYPE_CHECKING:
    from retrieval.config import RetrievalConfig
    from retrieval.queries import Query
    from storage import Store
    from traces.problem import Problem

Asked = tuple[str, "Sequence[Query]"]
"""A problem or trace id with its queries."""


@dataclass(frozen=True, slots=True)
class Rewriting:
    """Which model writes queries, and within which bounds."""

    model: str
    """Its spec."""
    base_url: str | None
    """Server address; None takes the environment's."""
    concurrency: int | None
    """Requests in flight at once; None leaves the back end's default."""
    budget: float | None
    """Most US dollars to spend; None for no bound."""
    allow_phi: bool
    """Whether problems marked `phi_removed: false` may go to a hosted model."""

    def config(self) -> dict[str, Any]:
        """What of it decides the queries."""
        from commands.query_rewriting import rewriting_config

        return rewriting_config(self.model)


def attach_evidence(
    workspace: Workspace,
    store: Store,
    tally: Tally,
    config: RetrievalConfig,
    rewriting: Rewriting | None,
    encoder: str | None,
    *,
    replace: bool,
) -> None:
    """Retrieve for the problems, or for `step` the traces, for which retrieval has not run.

    Raises:
        InputError: evidence was retrieved in another way, and `replace` is not given.
        IndexMismatch: there is no index, or it does not belong to corpora or encoder.
    """
    from labeling.pipeline import retrieve_evidence

    dataset = str(tally.dataset)
    fingerprint = store.corpus_fingerprint()
    retriever = open_retriever(workspace, store, encoder, config, fingerprint)
    stored = retriever.config() | {"corpus": fingerprint}
    stored |= rewriting.config() if rewriting is not None else {}
    store.declare_retrieval(dataset, stored, replace=replace)
    if config.query == "step":
        missing = store.trace_evidence.missing(dataset)
        tally.unchanged = store.datasets()[dataset].traces - len(missing)
        found = retriever.retrieve_for(_step_queries(store, dataset, missing))
        shown = progress(found, total=len(missing), label="retrieve")
        tally.done = store.trace_evidence.put(dataset, shown)
        return
    problems = store.problems_without_evidence(dataset)
    tally.unchanged = store.datasets()[dataset].problems - len(problems)
    if rewriting is None:
        found = retrieve_evidence(problems, retriever)
        total = len(problems)
    else:
        asked = rewritten(store, tally, problems, rewriting)
        found, total = retriever.retrieve_for(asked), len(asked)
    tally.done = store.put_evidence(dataset, progress(found, total=total, label="retrieve"))


def rewritten(
    store: Store, tally: Tally, problems: Sequence[Problem], rewriting: Rewriting
) -> list[Asked]:
    """The problems' queries, as far as the model wrote some; the others are counted and listed.

    Raises:
        ModelRefused, QuotaExhausted: before the first query was written.
    """
    from commands.backends import dispatcher, parse_spec, text_model
    from commands.query_rewriting import rewrite_queries

    asked: list[Asked] = []
    failures = []
    with ExitStack() as closing:
        model = text_model(
            parse_spec(rewriting.model),
            base_url=rewriting.base_url,
            concurrency=rewriting.concurrency,
        )
        runner = dispatcher(model, store, closing, budget_usd=rewriting.budget)
        written = rewrite_queries(
            problems,
            runner,
            allow_phi=rewriting.allow_phi,
            marked=store.marked_problems(str(tally.dataset)),
        )
        try:
            for each in progress(written, total=len(problems), label="rewrite queries"):
                if each.failure is None:
                    asked.append((each.problem_id, each.queries))
                else:
                    failures.append(each.failure)
        except (BudgetExhausted, QuotaExhausted, ModelRefused) as stop:
            if not asked and not isinstance(stop, BudgetExhausted):
                raise
            tally.stopped = stop
            tally.failed += len(problems) - len(asked) - len(failures)
            note(str(stop))
    store.put_failures(str(tally.dataset), failures)
    tally.abstained.update(failure.reason.value for failure in failures)
    return asked


def _step_queries(store: Store, dataset: str, trace_ids: Sequence[str]) -> Iterator[Asked]:
    from retrieval.queries import step_queries

    contexts: Iterable[Any] = (
        store.contexts(dataset, trace_ids=trace_ids, with_evidence=False) if trace_ids else ()
    )
    for context in contexts:
        yield context.trace.id, step_queries(context.problem, context.trace.steps)
