"""Shared beginnings give the scores of the one-at-a-time loop, for every model and every cut."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from scoring.engine.engine import Scorer
from scoring.engine.forward import PackedForward, PackView, PaddedForward, plant, prepare
from scoring.families.likelihood import Likelihood
from scoring.families.medprm import MedPrm
from scoring.family import LaidOutTrace
from tests.tiny_models import evaluating, tiny_tokenizer
from traces.problem import Trace, TraceInContext

SETTINGS: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.35, "max_position_embeddings": 2048,
}  # fmt: skip
KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "llama, one head a group": (LlamaConfig, LlamaForCausalLM, {"num_key_value_heads": 4}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 1024}),
}


def random_model(kind: str, vocabulary: int = 60) -> Any:
    config, model, more = KINDS[kind]
    torch.manual_seed(3)
    return evaluating(model(config(vocab_size=vocabulary, **SETTINGS | more)))


def family_trees(seed: int) -> list[LaidOutTrace]:
    """Problems with candidates, shared documents of two depths, and traces that stand alone."""
    draw = random.Random(seed)

    def text(n: int) -> tuple[int, ...]:
        return tuple(draw.randrange(1, 60) for _ in range(n))

    made = []
    for _ in range(draw.randint(1, 3)):
        head, more = text(draw.randint(1, 60)), text(draw.randint(1, 40))
        for _ in range(draw.randint(1, 6)):
            begin = head + more if draw.random() < 0.5 else head
            ids = begin + text(draw.randint(2, 50))
            places = sorted(draw.sample(range(len(begin), len(ids)), draw.randint(1, 2)))
            made.append(LaidOutTrace("", ids, (tuple(places),)))
    return made


def one_at_a_time(model: Any, traces: Sequence[LaidOutTrace]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [
            model.base_model(torch.tensor([t.ids])).last_hidden_state[0, list(t.read_at[0])]
            for t in traces
        ]


def by_packs(forward: PackedForward, traces: Sequence[LaidOutTrace], cut: int) -> dict[int, Any]:
    """Hidden states by trace, `cut` nodes a pack."""
    nodes, found = plant(traces, share=True), {}
    for begin in range(0, len(nodes), cut):
        pack = nodes[begin : begin + cut]
        following = nodes[begin + cut] if begin + cut < len(nodes) else None
        rows = iter(forward.hidden(pack, following))
        forward.keep_for(following)
        for node in pack:
            if node.trace is not None:
                found[node.trace] = torch.stack([next(rows) for _ in node.read_at])
    return found


@pytest.mark.parametrize("joined", [True, False], ids=["joined", "past laid before"])
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_equal_those_of_whole_sequences(
    kind: str, joined: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, model = random_model(kind), random_model(kind)
    forward = prepare(model.base_model)
    assert isinstance(forward, PackedForward)
    if not joined:
        monkeypatch.setattr(PackView, "_joined", PackView._whole)
    shared = 0
    for seed in (0, 4, 5):
        traces = family_trees(seed)
        wanted = one_at_a_time(reference, traces)
        shared += sum(node.trace is None for node in plant(traces, share=True))
        for cut in (1, 2, 5, 1000):
            found = by_packs(forward, traces, cut)
            for number, hidden in enumerate(wanted):
                torch.testing.assert_close(found[number], hidden, atol=2e-5, rtol=2e-5)
    assert shared >= 4, "problems, and documents that only some candidates see"


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(1, 12))
def test_no_tree_and_no_cut_changes_a_hidden_state(seed: int, cut: int) -> None:
    traces = family_trees(seed)
    found = by_packs(MODEL.forward(), traces, cut)
    for number, hidden in enumerate(one_at_a_time(MODEL.reference(), traces)):
        torch.testing.assert_close(found[number], hidden, atol=2e-5, rtol=2e-5)


class _Once:
    """A model for hypothesis, made once."""

    def __init__(self) -> None:
        self._reference: Any = None
        self._forward: Any = None

    def reference(self) -> Any:
        self._reference = self._reference or random_model("llama")
        return self._reference

    def forward(self) -> PackedForward:
        self._forward = self._forward or prepare(random_model("llama").base_model)
        assert isinstance(self._forward, PackedForward)
        return self._forward


MODEL = _Once()


def test_past_keys_are_let_go_when_nothing_stands_behind_them() -> None:
    forward = PackedForward(random_model("llama").base_model)
    forward._model.set_attn_implementation("stepgold_pack")
    traces = family_trees(5)
    by_packs(forward, traces, 1)
    assert forward._past == {}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral"])
@pytest.mark.parametrize("make", [MedPrm, Likelihood], ids=["medprm", "likelihood"])
def test_scores_of_candidates_equal_the_loops(
    kind: str, make: Any, contexts: list[TraceInContext]
) -> None:
    """Eight candidates of a problem with documents, against a forward each."""
    tokenizer = tiny_tokenizer(extra=[" ки"])
    reference, model = (random_model(kind, len(tokenizer)) for _ in range(2))
    candidates = [
        replace(contexts[3], trace=Trace(f"c{i}", "p", (f"Step 1: {i} mg." * (1 + i % 5), "Done.")))
        for i in range(8)
    ]
    scorer = Scorer(make(tokenizer, model), max_tokens=1024, batch_tokens=300)
    assert scorer.config()["prefix"] == "shared"
    found = {label.trace_id: label for label in scorer.score(candidates)}
    alone = make(tokenizer, reference)
    for context in candidates:
        laid_out = alone.lay_out(context, context.evidence)
        ids = torch.tensor([[*laid_out.ids, 0]])
        with torch.no_grad():
            hidden = alone.backbone(ids[:, :-1]).last_hidden_state[0]
            wanted = [
                float(alone.probabilities(hidden[list(at)], ids[0, torch.tensor(at) + 1]).min())
                for at in laid_out.read_at
            ]
        got = [step.score for step in found[context.trace.id].step_labels]
        assert got == pytest.approx(wanted, abs=1e-4)


def test_bfloat16_stays_near_and_its_softmax_is_float32(contexts: list[TraceInContext]) -> None:
    tokenizer = tiny_tokenizer(extra=[" ки"])
    exact, rough = (random_model("llama", len(tokenizer)) for _ in range(2))
    sharp = {
        c.trace_id: c for c in Scorer(MedPrm(tokenizer, exact), max_tokens=1024).score(contexts)
    }
    scorer = Scorer(MedPrm(tokenizer, rough.to(torch.bfloat16)), max_tokens=1024)
    assert scorer.config()["dtype"] == "bfloat16"
    assert scorer.config()["prefix"] == "shared"
    values = []
    for label in scorer.score(contexts):
        for step, wanted in zip(label.step_labels, sharp[label.trace_id].step_labels, strict=True):
            assert step.score == pytest.approx(wanted.score, abs=0.08)
            values.append(float(step.score or 0))
    assert any(float(torch.tensor(v).bfloat16()) != v for v in values), "not rounded to bfloat16"


def soft_capped() -> Any:
    config: dict[str, Any] = SETTINGS | {"head_dim": 8, "attn_logit_softcapping": 0.5}
    made: Any = Gemma2ForCausalLM
    return made(Gemma2Config(vocab_size=60, sliding_window=1024, **config))


def by_distance() -> Any:
    made: Any = BloomForCausalLM
    return made(
        BloomConfig(vocab_size=60, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.35)
    )


@pytest.mark.parametrize("make", [soft_capped, by_distance], ids=["gemma2", "bloom"])
def test_an_attention_that_cannot_be_shared_runs_whole_sequences(make: Any) -> None:
    torch.manual_seed(3)
    model = evaluating(make())
    before = model.config._attn_implementation
    forward = prepare(model.base_model)
    assert isinstance(forward, PaddedForward)
    assert forward.why
    assert model.config._attn_implementation == before
    traces = [t for seed in range(3) for t in family_trees(seed)]
    nodes = plant(traces, share=False)
    rows = iter(forward.hidden(nodes, None))
    for node in nodes:
        assert node.trace is not None
        [wanted] = one_at_a_time(model, [traces[node.trace]])
        got = torch.stack([next(rows) for _ in node.read_at])
        torch.testing.assert_close(got, wanted, atol=2e-5, rtol=2e-5)


def test_the_configuration_says_that_nothing_is_shared(contexts: list[TraceInContext]) -> None:
    tokenizer = tiny_tokenizer(extra=[" ки"])
    torch.manual_seed(3)
    made: Any = BloomForCausalLM
    config = BloomConfig(
        vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=4, initializer_range=0.35
    )
    scorer = Scorer(MedPrm(tokenizer, evaluating(made(config))), max_tokens=1024, batch_tokens=900)
    assert scorer.config()["prefix"] == "full forwards"
    assert scorer.not_shared
    together = {label.trace_id: label for label in scorer.score(contexts)}
    for context in contexts:
        [alone] = scorer.score([context])
        got = [step.score for step in together[context.trace.id].step_labels]
        assert got == pytest.approx([step.score for step in alone.step_labels], abs=1e-5)
