"""Steps scored by a real model behind vLLM's and SGLang's shapes, family by family, against its own tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.openai.json_client import JsonClient
from inference.retries import RetryPolicy
from scoring import FitOptions
from scoring.server.routes import ACTIVATED, LOGITS, LOGPROBS
from scoring.server.scorer import ServerScorer, load_server_scorer
from tests.loopback.prm_server import Manners, PrmServer, TinyPrm
from tests.scoring.golden_cases import CASES, Case, checkpoint
from tests.scoring.golden_ids import GOLDEN
from traces.errors import InputError, ModelRefused
from traces.labels import TraceLabel
from traces.problem import Problem, Trace, TraceInContext

Served = Callable[[Case], tuple[Path, TinyPrm]]
HEADS = ("qwen-prm", "trl", "skywork-o1")
VERDICTS = ("medprm-documents", "math-shepherd", "rlhflow-deepseek", "medprm-orm")
TRAPS = ("qwen-prm800k-traps", "pure-traps", "skywork-o1-traps")
ROUTES = ("completions", "generate", "pooling")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A case's checkpoint and the model in it; made once for all cases that share them."""
    made: dict[Any, tuple[Path, TinyPrm]] = {}

    def find(case: Case) -> tuple[Path, TinyPrm]:
        key = case.tokenizer, case.head
        if key not in made:
            folder = checkpoint(tmp_path_factory.mktemp("served"), case)
            made[key] = folder, TinyPrm(folder, case.head)
        return made[key]

    return find


@contextmanager
def scoring(
    served: Served,
    case: Case,
    manners: Manners | None = None,
    attempts: int = 3,
    **options: Any,
) -> Iterator[tuple[ServerScorer, PrmServer]]:
    """The scorer of a case over its server, as if it had passed the gate."""

    async def sleep(_: float) -> None:
        """Waiting is not what is tested."""

    folder, model = served(case)
    policy = RetryPolicy(attempts=attempts)
    with (
        PrmServer(model, manners or Manners()) as stub,
        JsonClient("prm", base_url=stub.url, retry=policy, sleep=sleep, environ={}) as server,
    ):
        scorer = load_server_scorer(server, f"hf:{folder}", family=case.family, **options)
        stub.calls.clear()
        scorer.reading = scorer.route.readings[0]
        yield scorer, stub


def labels(scorer: ServerScorer, *contexts: TraceInContext) -> dict[str, TraceLabel]:
    batches = list(scorer.score_batches(contexts))
    found = {label.trace_id: label for batch in batches for label in batch}
    assert sum(map(len, batches)) == len(found) == len(contexts), "each trace once"
    return found


def wanted(served: Served, case: Case, name: str) -> list[float | None]:
    """The scores of a case from the model's tensors at the places that were written down."""
    ids, read_at = GOLDEN[name]
    rows = served(case)[1].rows(list(ids)).double()
    if case.head == "signs":
        good = torch.softmax(rows[:, list(case.signs)], dim=1)[:, 0]
    elif case.head == "classes":
        good = torch.softmax(rows, dim=1)[:, 1]
    else:
        good = torch.sigmoid(rows[:, 0])
    return [min((float(good[place]) for place in places), default=None) for places in read_at]


def check(served: Served, name: str, manners: Manners, route: str, reading: str = "") -> None:
    case = CASES[name]
    with scoring(served, case, manners, route=route) as (scorer, stub):
        scorer.reading = reading or scorer.reading
        label = labels(scorer, case.context)["t"]
        [(path, body, _)] = stub.calls
    assert path == scorer.route.path
    ids, _ = GOLDEN[name]
    sent = next(body[key] for key in ("input", "prompt", "input_ids") if key in body)
    assert tuple(sent[: len(ids)]) == ids, "our own ids go out"
    assert len(sent) == len(ids) + (route != "pooling")
    for step, value in zip(label.step_labels, wanted(served, case, name), strict=True):
        assert step.score == (value if value is None else pytest.approx(value, abs=1e-5))
    assert label.meta["tokens"] == len(ids)


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS + TRAPS)
def test_heads_by_row_and_by_step_token_raw_and_activated(name: str, served: Served) -> None:
    ids, read_at = GOLDEN[name]
    marker = ids[read_at[0][0]]
    for manners in (Manners(), Manners(step_tag=marker)):
        check(served, name, manners, "pooling", LOGITS)
        check(served, name, replace(manners, activated=True), "pooling", ACTIVATED)


@pytest.mark.slow
@pytest.mark.parametrize("name", VERDICTS)
@pytest.mark.parametrize("route", ROUTES)
def test_signs_by_every_route(name: str, route: str, served: Served) -> None:
    case = CASES[name]
    right, wrong = case.signs
    columns = (wrong, right) if route == "pooling" else ()
    check(
        served, name, Manners(named=case.signs, columns=columns), route,
        LOGITS if route == "pooling" else LOGPROBS,
    )  # fmt: skip


def test_one_family_by_the_quick(served: Served) -> None:
    check(served, "qwen-prm", Manners(), "pooling", LOGITS)


def contexts(count: int) -> list[TraceInContext]:
    made = []
    for number in range(count):
        steps = tuple(f"{number} x {step} = {number * step} mg." for step in range(1 + number % 5))
        problem = Problem(f"p{number // 4}", f"Which dose for patient {number // 4}?")
        made.append(TraceInContext(problem, Trace(f"t{number}", problem.id, steps), ()))
    return made


@pytest.mark.slow
def test_bad_luck_on_the_way_changes_no_score(served: Served) -> None:
    case, asked = CASES["qwen-prm"], contexts(12)
    with scoring(served, case) as (scorer, _):
        calm = labels(scorer, *asked)
    bad = ["429", "ok", "reset", "500", "html", "ok", "ok", "reset"] * 2
    with scoring(served, case, Manners(script=bad), attempts=len(bad)) as (scorer, stub):
        assert labels(scorer, *asked) == calm
        assert scorer.server.retries == len(stub.calls) - len(asked) > 5


@pytest.mark.parametrize(
    ("manners", "words"),
    [
        (Manners(dropped=1), "rows for"),
        (Manners(second_bos=True), "tokens, expected"),
        (Manners(always="other"), "it has: model, object, results"),
        (Manners(missing=("/pooling",)), "404 for /pooling: Not Found"),
        (Manners(answering="other-model"), 'answers as "other-model" instead of "prm"'),
    ],
)
def test_what_is_no_answer_to_the_question_is_never_a_score(
    manners: Manners, words: str, served: Served
) -> None:
    with (
        scoring(served, CASES["qwen-prm"], manners) as (scorer, _),
        pytest.raises(ModelRefused, match=words),
    ):
        list(scorer.score_batches(contexts(3)))


@pytest.mark.parametrize(
    ("what", "reason"), [("nan", "model_error"), ("400", "over_length"), ("html", "model_error")]
)
def test_a_trace_without_a_number_is_an_abstention_and_the_others_go_on(
    what: str, reason: str, served: Served
) -> None:
    script = [what] * (3 if what == "html" else 1)
    one, *others = contexts(6)
    with scoring(served, CASES["qwen-prm"], Manners(script=script)) as (scorer, _):
        first = labels(scorer, one)["t0"]
        assert first.abstention is not None
        assert (first.abstention.reason.value, first.abstention.retryable) == (reason, True)
        assert all(label.abstention is None for label in labels(scorer, *others).values())


def test_a_sign_that_the_server_does_not_name_is_no_score(served: Served) -> None:
    with scoring(served, CASES["math-shepherd"], Manners()) as (scorer, _):
        label = labels(scorer, CASES["math-shepherd"].context)["t"]
    assert label.abstention is not None
    assert "not among the 20 most probable" in label.abstention.detail


@pytest.mark.slow
def test_over_long_ones_are_named_and_never_sent(served: Served) -> None:
    asked = contexts(10)
    with scoring(served, CASES["qwen-prm"]) as (scorer, _):
        sizes = sorted(label.meta["tokens"] for label in labels(scorer, *asked).values())
    limit = sizes[5]
    with scoring(served, CASES["qwen-prm"], options=FitOptions(limit)) as (scorer, stub):
        found = labels(scorer, *asked)
    lost = {name for name, label in found.items() if label.abstention is not None}
    assert 0 < len(lost) < len(asked)
    assert len(stub.calls) == len(asked) - len(lost)
    assert all(len(body["input"]) <= limit for _, body, _ in stub.calls)


def test_the_window_is_the_least_of_model_and_server(served: Served) -> None:
    case = CASES["math-shepherd"]
    with scoring(served, case, Manners(max_model_len=300)) as (scorer, _):
        # One token more is sent and one is generated.
        assert scorer.rules.max_tokens == 298
    with (
        pytest.raises(InputError, match="300 tokens is outside"),
        scoring(served, case, Manners(max_model_len=300), options=FitOptions(300)),
    ):
        pass


def test_problems_that_must_stay_are_not_sent_elsewhere(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JsonClient, "hosted", True)
    one, other = contexts(2)
    marked = replace(one, problem=replace(one.problem, meta={"phi_removed": False}))
    with scoring(served, CASES["qwen-prm"]) as (scorer, stub):
        label = labels(scorer, marked, other)["t0"]
        assert label.abstention is not None
        assert label.abstention.reason.value == "filtered"
        assert len(stub.calls) == 1
        assert not scorer.is_comparable(marked)
        scorer.allow_phi = True
        assert labels(scorer, marked)["t0"].abstention is None


def test_nothing_is_scored_before_the_gate(served: Served) -> None:
    with scoring(served, CASES["qwen-prm"]) as (scorer, stub):
        scorer.reading = None
        with pytest.raises(ValueError, match="parity gate"):
            list(scorer.score_batches(contexts(1)))
        assert stub.calls == []


def test_a_server_that_gives_other_numbers_than_at_the_gate_ends_the_run(served: Served) -> None:
    with scoring(served, CASES["qwen-prm"]) as (scorer, _):
        scorer.reading = ACTIVATED
        with pytest.raises(ModelRefused, match="returned probabilities at first"):
            list(scorer.score_batches(contexts(4)))


def test_a_model_that_is_not_served_is_told_with_those_that_are(served: Served) -> None:
    with (
        pytest.raises(ModelRefused, match='does not serve "prm"') as refused,
        scoring(served, CASES["qwen-prm"], Manners(served="another")),
    ):
        pass
    assert refused.value.remedy == "use one of its models: another"


def test_a_family_that_reads_every_token_needs_this_machine(served: Served) -> None:
    case = replace(CASES["rlhflow-deepseek"], family="likelihood")
    with (
        pytest.raises(InputError, match="likelihood cannot be served"),
        scoring(served, case),
    ):
        pass
