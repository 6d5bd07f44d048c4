"""Sharing changes nothing: greedy output equals plain `generate`, for every prefix and every model kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from inference.local.shared_attention import ATTENTION, PrefixLayer, SharedPrefix, prefill
from inference.local.shared_prefix import PrefixEngine, PrefixRow, SharedTrace, WrittenRow
from inference.local.token_choice import SamplingRule, noise_key
from tests.tiny_models import evaluating, tiny_llama, tiny_tokenizer
from traces.errors import ModelRefused

NEW = 8


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


def llama(tokenizer: PreTrainedTokenizerFast, **changes: Any) -> Any:
    return tiny_llama(tokenizer, attn_implementation=ATTENTION, **changes)


def qwen2(tokenizer: PreTrainedTokenizerFast) -> Any:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "initializer_range": 0.35,
        "attn_implementation": ATTENTION,
    }  # fmt: skip
    return evaluating(Qwen2ForCausalLM(Qwen2Config(**settings)))


def gpt2(tokenizer: PreTrainedTokenizerFast) -> Any:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer), "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64,
        "initializer_range": 0.35, "bos_token_id": 1, "eos_token_id": 4, "attn_implementation": ATTENTION,
    }  # fmt: skip
    return evaluating(GPT2LMHeadModel(GPT2Config(**settings)))


def random_traces(
    tokenizer: PreTrainedTokenizerFast, lengths: list[int], k: int
) -> list[SharedTrace]:
    """Traces of random tokens; each continued from three cuts, with tails of 1, 2 and 5 tokens."""
    draw = torch.Generator().manual_seed(5)
    made = []
    for number, length in enumerate(lengths):
        ids = torch.randint(5, len(tokenizer), (length,), generator=draw).tolist()
        rows = []
        for step, (cut, tail) in enumerate([(length // 3, 5), (length // 2, 2), (length - 1, 1)]):
            forced = ids[cut : cut + 1] if tail == 1 else [7, 8, 9, 10, 11][:tail]
            rows += [
                PrefixRow(cut, tuple(forced), noise_key(0, f"t{number}"), (step, i))
                for i in range(k)
            ]
        made.append(SharedTrace(tuple(ids), tuple(rows)))
    return made


def write(
    engine: PrefixEngine,
    tokenizer: PreTrainedTokenizerFast,
    traces: list[SharedTrace],
    **options: Any,
) -> list[list[WrittenRow]]:
    rule = options.pop("rule", SamplingRule())
    settings: dict[str, Any] = {"max_new_tokens": NEW, "stop": (), "tokenizer": tokenizer} | options
    return [list(done.rows) for done in engine.continue_all(traces, rule, **settings)]


def plain(model: Any, tokenizer: PreTrainedTokenizerFast, ids: list[int], end: int) -> WrittenRow:
    """What `generate` writes after `ids`, alone, greedily, with its own cache and attention."""
    output = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=end,
        pad_token_id=0,
    )
    new = output[0, len(ids) :].tolist()
    ended = new[-1] == end
    text = tokenizer.decode(new[:-1] if ended else new, skip_special_tokens=True)
    return WrittenRow(str(text), "stop" if ended else "length", len(new))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grouped heads", "all heads", "qwen2", "gpt2"])
def test_greedy_output_equals_generate_for_every_prefix(
    tokenizer: PreTrainedTokenizerFast, kind: str
) -> None:
    model = {
        "grouped heads": lambda: llama(tokenizer),
        "all heads": lambda: llama(tokenizer, num_key_value_heads=4, seed=3),
        "qwen2": lambda: qwen2(tokenizer),
        "gpt2": lambda: gpt2(tokenizer),
    }[kind]()
    traces = random_traces(tokenizer, [9, 40, 23, 6], k=1)
    # The token that one of the continuations writes third ends all of them that meet it.
    first = [*traces[0].ids[: traces[0].rows[0].cut], *traces[0].rows[0].tail]
    end = int(model.generate(torch.tensor([first]), max_new_tokens=3, do_sample=False)[0, -1])
    got = write(PrefixEngine(model, frozenset({end})), tokenizer, traces)
    model.set_attn_implementation("sdpa")
    wanted = [
        [plain(model, tokenizer, [*trace.ids[: row.cut], *row.tail], end) for row in trace.rows]
        for trace in traces
    ]
    assert got == wanted
    reasons = {row.finish_reason for rows in got for row in rows}
    assert reasons == {"stop", "length"}


@pytest.mark.slow
@pytest.mark.parametrize("cache_tokens", [20, 90, 100_000])
def test_samples_do_not_depend_on_the_budget(
    tokenizer: PreTrainedTokenizerFast, cache_tokens: int
) -> None:
    model, rule = llama(tokenizer), SamplingRule(0.9)
    traces = random_traces(tokenizer, [9, 25, 6], k=2)
    end = frozenset(range(5, 60))
    whole = PrefixEngine(model, end)
    cut = PrefixEngine(model, end, cache_tokens=cache_tokens)
    wanted = write(whole, tokenizer, traces, rule=rule)
    assert whole.near_ties == cut.near_ties == 0
    assert write(cut, tokenizer, traces, rule=rule) == wanted
    assert len({row.tokens for rows in wanted for row in rows}) > 4


@pytest.mark.slow
def test_samples_do_not_depend_on_the_company(tokenizer: PreTrainedTokenizerFast) -> None:
    engine = PrefixEngine(llama(tokenizer), frozenset(range(5, 40)))
    traces, rule = random_traces(tokenizer, [9, 40, 23], k=4), SamplingRule(1.0)
    together = write(engine, tokenizer, traces, rule=rule)
    assert write(engine, tokenizer, traces[::-1], rule=rule) == together[::-1]
    for trace, rows in zip(traces, together, strict=True):
        alone = SharedTrace(trace.ids, trace.rows[5:7])
        assert write(engine, tokenizer, [alone], rule=rule) == [rows[5:7]]


def test_near_ties_are_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    model = llama(tokenizer)
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    engine = PrefixEngine(model, frozenset())
    write(engine, tokenizer, random_traces(tokenizer, [9], k=2), max_new_tokens=3)
    assert engine.near_ties == 3 * 2 * 3


def test_a_trace_without_rows_and_a_first_token_work(tokenizer: PreTrainedTokenizerFast) -> None:
    model = llama(tokenizer)
    engine = PrefixEngine(model, frozenset({4}))
    alone = SharedTrace((9,), (PrefixRow(0, (9,), (0, 0), (0, 0)),))
    [nothing, [one]] = write(engine, tokenizer, [SharedTrace((5, 6), ()), alone])
    assert nothing == []
    model.set_attn_implementation("sdpa")
    assert one == plain(model, tokenizer, [9], 4)


def test_each_trace_is_prefilled_once(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def counting(model: Any, ids: list[tuple[int, ...]]) -> Any:
        seen.extend(map(len, ids))
        return prefill(model, ids)

    engine = PrefixEngine(llama(tokenizer), frozenset(), cache_tokens=60)
    monkeypatch.setattr("inference.local.shared_attention.prefill", counting)
    write(engine, tokenizer, random_traces(tokenizer, [9, 21, 30], k=2))
    assert seen == [8, 20, 29]


def test_finished_rows_leave_the_batch(tokenizer: PreTrainedTokenizerFast) -> None:
    model = llama(tokenizer)
    widths: list[int] = []
    model.lm_head.register_forward_hook(lambda _, args, __: widths.append(len(args[0])))
    engine = PrefixEngine(model, frozenset(range(5, 100)))
    widths.clear()
    rows = [row for rows in write(engine, tokenizer, random_traces(tokenizer, [20] * 6, k=8), rule=SamplingRule(1.0)) for row in rows]  # fmt: skip
    assert widths[0] == 6 * 3 * 8
    assert widths == sorted(widths, reverse=True)
    needed = sum(row.tokens for row in rows) + 6 * 8 * (4 + 1)
    assert sum(widths) < 1.5 * needed


def test_the_grid_keeps_rows_apart() -> None:
    keys = torch.randn(3, 1, 4, 2)
    rows_of = torch.tensor([0, 0, 2])
    shared = SharedPrefix([PrefixLayer(keys, keys)], rows_of, torch.tensor([1, 4, 2]))
    rows = torch.arange(6.0).view(3, 2)
    assert torch.equal(shared.from_grid(shared.to_grid(rows)), rows)
    hidden = (shared.bias < 0).view(3, 2, 4)
    assert hidden[0].tolist() == [[False, True, True, True], [False] * 4]
    assert hidden[2, 0].tolist() == [False, False, True, True]
    kept = shared.select(torch.tensor([2]))
    assert torch.equal(kept.layers[0].values, keys[2:])


def test_attention_that_sharing_does_not_cover_is_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "head_dim": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "attn_logit_softcapping": 2.0,
        "attn_implementation": ATTENTION,
    }  # fmt: skip
    model = evaluating(Gemma2ForCausalLM(Gemma2Config(**settings)))
    with pytest.raises(ModelRefused, match="does not support"):
        PrefixEngine(model, frozenset())


def test_a_wrong_attention_is_found_out(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        SharedPrefix, "from_grid", lambda self, cells: torch.zeros_like(cells)[self.cell_of]
    )
    with pytest.raises(ModelRefused, match="logits differ"):
        PrefixEngine(llama(tokenizer), frozenset())
