"""The local policy on image-text models: what `generate` gives, image by image, whatever the batch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.images import ProblemImages
from inference.local.engines import LocalTextModel, PlainEngine, engine_for
from inference.local.model import LocalModel, load_local_model
from inference.local.policy import LocalPolicy, LocalSampler
from inference.local.shared_attention import ATTENTION
from inference.local.shared_prefix import PrefixEngine, PrefixRow, SharedTrace, WrittenTrace
from inference.local.token_choice import SamplingRule, noise_key
from inference.local.vision import inner_text_model, run_model
from inference.prompting import ContinuationPrompt, PolicyConfig, continuation_messages
from inference.protocol import GenerationRequest, Message
from tests.policies import local_policy
from tests.tiny_vision import KINDS, drawing, save_vision, shown
from traces.errors import ModelRefused, ModelUnavailable
from traces.labels import AbstentionReason
from traces.problem import PolicyText, Problem, Trace, TraceContinuations, TraceInContext, Wanted

STEPS = (
    "Step 1: the dose is 6 mg.",
    "Step 2: 6 x 30 = 180 mg,\nso 180 mg.",
    "The answer is 180 mg.",
)
QUESTION = "Which single dose does the scan allow?"


def context(number: int, *images: str, steps: int = 3) -> TraceInContext:
    problem = Problem(f"p{number}", QUESTION, answer="180 mg", images=images)
    return TraceInContext(problem, Trace(f"t{number}", problem.id, STEPS[:steps]), ())


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for number, size in enumerate([(84, 56), (56, 84), (84, 84)]):
        (folder / f"{number}.png").write_bytes(drawing(number, size))
    (folder / "broken.png").write_bytes(drawing(9)[:70])
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_vision(tmp_path_factory.mktemp(kind), kind) for kind in ("llava", "qwen2_vl")}  # fmt: skip


def policy(folder: Path, scans: Path, **changes: Any) -> LocalPolicy:
    settings: dict[str, Any] = {
        "spec": "hf:tiny",
        "prompt": ContinuationPrompt(),
        "max_tokens": 8,
        "temperature": 0.8,
        "images": ProblemImages(scans),
    }
    return local_policy(folder, **settings | changes)


@pytest.fixture(scope="module")
def made(folders: dict[str, Path], scans: Path) -> dict[str, LocalPolicy]:
    return {kind: policy(folder, scans) for kind, folder in folders.items()}


def drawn(
    policy: LocalPolicy, contexts: Sequence[TraceInContext], *, k: int = 2
) -> dict[str, TraceContinuations]:
    return {one.trace_id: one for one in policy.continue_traces(contexts, k=k, seed=0)}


def texts(drawn: dict[str, TraceContinuations]) -> dict[str, tuple[PolicyText, ...]]:
    """What was written; what was computed for it depends on the images seen before."""
    return {name: one.texts for name, one in drawn.items()}


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_greedy_texts_are_those_of_generate(
    kind: str, folders: dict[str, Path], scans: Path
) -> None:
    greedy = policy(folders[kind], scans, temperature=0.0)
    assert greedy.slow_because is None
    asked = [context(0, "0.png", "1.png"), context(1, "2.png", steps=1), context(2, steps=1)]
    got = drawn(greedy, asked, k=1)
    local = load_local_model(str(folders[kind]))
    assert local.vision is not None
    for one in asked:
        images = ProblemImages(scans).of(one.problem)
        for text in got[one.trace.id].texts:
            prefix = one.trace.prefix(text.step_index)
            messages = continuation_messages(
                one.problem, (), prefix, system=None, separator="\n", images=images
            )
            inputs = local.vision.read(messages)
            model: Any = local.model
            ids = run_model(model, inputs, model.generate, max_new_tokens=8, do_sample=False)
            new = ids[0, len(inputs.ids) :]
            assert text.text == local.tokenizer.decode(new, skip_special_tokens=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_the_image_decides_and_not_its_name(
    kind: str,
    folders: dict[str, Path],
    made: dict[str, LocalPolicy],
    scans: Path,
    tmp_path: Path,
) -> None:
    written = [
        [text.text for text in drawn(made[kind], [context(0, *images)], k=4)["t0"].texts]
        for images in (("0.png",), ("2.png",), ("0.png", "1.png"), ("1.png", "0.png"), ())
    ]
    assert all(written[i] != written[j] for i in range(5) for j in range(i))
    (tmp_path / "other.png").write_bytes((scans / "0.png").read_bytes())
    elsewhere = policy(folders[kind], tmp_path)
    same = drawn(elsewhere, [context(0, "other.png")], k=4)["t0"].texts
    assert [text.text for text in same] == written[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_same_whatever_the_batch_and_the_company(
    kind: str, batch: int, folders: dict[str, Path], made: dict[str, LocalPolicy], scans: Path
) -> None:
    asked = [context(n, *images) for n, images in enumerate([("0.png",), ("1.png", "2.png"), ()])]
    wanted = texts(drawn(made[kind], asked))
    small = policy(folders[kind], scans, batch_rows=batch, cache_tokens=100 * batch)
    assert texts(drawn(small, asked[::-1])) == wanted
    alone = drawn(small, asked[1:2], k=3)["t1"].texts
    assert tuple(text for text in alone if text.index < 2) == wanted["t1"]


@pytest.mark.slow
@pytest.mark.parametrize("cache_tokens", [None, 300])
def test_rounds_draw_the_same(
    cache_tokens: int | None, folders: dict[str, Path], made: dict[str, LocalPolicy], scans: Path
) -> None:
    other = policy(folders["qwen2_vl"], scans, cache_tokens=cache_tokens)
    # Two traces of one problem, and one of another with the same text.
    problem = context(0, "0.png").problem
    asked = [context(0, "0.png"), TraceInContext(problem, Trace("t1", problem.id, STEPS[:2]), ()), context(2, "1.png")]  # fmt: skip
    wanted = drawn(made["qwen2_vl"], asked)
    for step in (2, 0, 1):
        ready = [one for one in asked if step < len(one.trace.steps)]
        for done in other.continue_wanted([(one, [Wanted(step, 0, 2)]) for one in ready], seed=0):
            wholly = wanted[done.trace_id].texts
            assert done.texts == tuple(text for text in wholly if text.step_index == step)
    other.release(["t0", "t1", "t2"])


def test_a_head_is_prefilled_once_for_all_traces_of_its_problem(
    folders: dict[str, Path], scans: Path
) -> None:
    fresh = policy(folders["llava"], scans)
    problem = context(0, "0.png", "1.png").problem
    asked = [TraceInContext(problem, Trace(f"t{n}", problem.id, STEPS[:1]), ()) for n in range(3)]
    first, *others = [one.prefilled_tokens for one in fresh.continue_traces(asked, k=1, seed=0)]
    assert first is not None
    local = load_local_model(str(folders["llava"]))
    assert local.vision is not None
    images = ProblemImages(scans).of(problem)
    head = local.vision.head([Message("user", f"Question: {QUESTION}", images)])
    assert head is not None
    assert others == [first - len(head.ids)] * 2


def test_an_image_that_cannot_be_read_concerns_its_problem_alone(
    made: dict[str, LocalPolicy],
) -> None:
    got = drawn(
        made["llava"], [context(0, "0.png"), context(1, "broken.png"), context(2, "none.png")]
    )
    assert got["t0"].abstention is None
    assert len(got["t0"].texts) == 6
    for name, path in (("t1", "broken.png"), ("t2", "none.png")):
        abstention = got[name].abstention
        assert abstention is not None
        assert abstention.reason is AbstentionReason.UNREADABLE
        assert abstention.detail.startswith(f"{path}: ")
        assert got[name].texts == ()


def test_an_image_that_the_processor_does_not_take_concerns_its_problem_alone(
    made: dict[str, LocalPolicy], folders: dict[str, Path], scans: Path
) -> None:
    (scans / "thin.png").write_bytes(drawing(5, (2100, 10)))  # Qwen2-VL takes up to 200 to 1
    got = drawn(made["qwen2_vl"], [context(0, "thin.png"), context(1, "0.png")], k=1)
    thin = got["t0"].abstention
    assert thin is not None
    assert (thin.reason, thin.detail[:10]) == (AbstentionReason.UNREADABLE, "thin.png: ")
    assert len(got["t1"].texts) == 3
    sampler = LocalSampler(
        str(folders["qwen2_vl"]),
        PolicyConfig(max_tokens=5, temperature=0.8, with_evidence=False),
        images=ProblemImages(scans),
    )
    asked = [(context(0, "thin.png").problem, (), range(2)), (context(1, "0.png").problem, (), range(2))]  # fmt: skip
    drew = {one.problem_id: one for one in sampler.sample(asked, seed=0)}
    assert drew["p0"].abstention == thin
    assert len(drew["p1"].texts) == 2
    image = ProblemImages(scans).of(context(0, "thin.png").problem)
    asking = GenerationRequest((Message("user", QUESTION, image),), 5)
    model = LocalTextModel(str(folders["qwen2_vl"]), spec="hf:tiny")
    with pytest.raises(ModelUnavailable, match=r"thin\.png: "):
        asyncio.run(model.generate(asking))


def test_image_tokens_count_for_the_window(tmp_path: Path, scans: Path) -> None:
    messages = continuation_messages(
        context(0).problem, (), STEPS, system=None, separator="\n", images=()
    )
    whole = load_local_model(str(save_vision(tmp_path / "whole", "llava"))).read([messages])
    fitting = len(whole[0][0]) + 8
    bare = save_vision(tmp_path / "m", "llava", max_position_embeddings=fitting)
    got = drawn(policy(bare, scans), [context(0), context(1, "0.png")])
    assert got["t0"].abstention is None
    over = got["t1"].abstention
    assert over is not None
    assert over.reason is AbstentionReason.OVER_LENGTH
    assert f"of {fitting}." in over.detail


def test_images_that_are_not_shown_change_nothing(
    folders: dict[str, Path], made: dict[str, LocalPolicy], scans: Path
) -> None:
    blind = policy(folders["llava"], scans, images=ProblemImages(scans, shown=False))
    with_image = texts(drawn(blind, [context(0, "0.png")]))
    assert with_image == texts(drawn(blind, [context(0)]))
    assert with_image != texts(drawn(made["llava"], [context(0, "0.png")]))


def test_a_text_model_refuses_images(tiny_folder: Path, scans: Path) -> None:
    with pytest.raises(ModelRefused, match="cannot see the images"):
        drawn(policy(tiny_folder, scans), [context(0, "0.png")])


@pytest.fixture(params=list(KINDS))
def local(request: pytest.FixtureRequest, tmp_path: Path) -> LocalModel:
    return load_local_model(str(save_vision(tmp_path, request.param)))


def by_engine(engine: Any, local: LocalModel, rule: SamplingRule, **changes: Any) -> list[Any]:
    messages = [Message("user", QUESTION, (shown(0), shown(1))), Message("assistant", STEPS[0])]
    [ids], head = local.read([messages])
    rows = tuple(PrefixRow(len(ids) - cut, ids[len(ids) - cut :], noise_key(0, "a"), (cut, n)) for cut in (1, 6) for n in range(2))  # fmt: skip
    made: Iterator[WrittenTrace] = engine.continue_all(
        [SharedTrace(ids, rows, head=head)],
        rule,
        **{"max_new_tokens": 7, "stop": (), "tokenizer": local.tokenizer} | changes,
    )
    return [row for trace in made for row in trace.rows]


@pytest.mark.slow
def test_both_engines_write_the_same_with_every_architecture(local: LocalModel) -> None:
    assert local.vision is not None
    plain = PlainEngine(local.model, local.vision, local.end_ids, slow_because="for comparison")
    rules = [SamplingRule(), SamplingRule(0.9, top_k=20, top_p=0.9)]
    # Before the other engine changes the attention of the model.
    slow = [by_engine(plain, local, rule) for rule in rules]
    halted = by_engine(plain, local, rules[1], stop=[slow[1][0].text[-1:]])
    engine = engine_for(local)
    assert isinstance(engine, PrefixEngine)
    assert [by_engine(engine, local, rule) for rule in rules] == slow
    assert by_engine(engine, local, rules[1], stop=[slow[1][0].text[-1:]]) == halted != slow[1]
    assert {row.finish_reason for row in halted} >= {"stop"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_what_is_not_proven_is_written_slowly_and_the_same(
    kind: str,
    folders: dict[str, Path],
    made: dict[str, LocalPolicy],
    scans: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = [context(0, "0.png", steps=1), context(1, steps=1)]
    wanted = drawn(made[kind], asked)
    # A mistake in the positions behind images, or in the keys, must not get through the proof.
    monkeypatch.setattr("inference.local.shared_prefix.positions_of", lambda *_: torch.tensor([99]))  # fmt: skip
    slow = policy(folders[kind], scans)
    assert slow.slow_because is not None
    assert slow.slow_because.startswith("logits differ by ")
    assert texts(drawn(slow, asked)) == texts(wanted)


def test_what_neither_engine_covers_is_refused(
    folders: dict[str, Path], scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.local.engines.sharing_fault", lambda *_: "logits differ by 1")
    monkeypatch.setattr("inference.local.engines.plain_fault", lambda *_: "logits differ by 2")
    with pytest.raises(ModelRefused, match=r"does not support .*logits differ by 2"):
        policy(folders["llava"], scans)


def test_a_head_gets_the_attention_and_the_masks_that_the_model_came_with(
    folders: dict[str, Path],
) -> None:
    local = load_local_model(str(folders["llava"]))
    assert local.vision is not None
    inner = inner_text_model(local.model)
    came_with = inner.config._attn_implementation
    engine = engine_for(local)
    used = []
    inner.register_forward_pre_hook(lambda module, _: used.append(module.config._attn_implementation))  # fmt: skip
    by_engine(engine, local, SamplingRule())
    assert used[0] == came_with != ATTENTION
    assert set(used[1:]) == {ATTENTION}


def test_the_text_model_sees_the_images(folders: dict[str, Path]) -> None:
    model = LocalTextModel(str(folders["llava"]), spec="hf:tiny")
    local = load_local_model(str(folders["llava"]))
    assert local.vision is not None
    generate: Any = local.model.generate
    replies = []
    for images in ((shown(0),), (shown(1),), (shown(0), shown(1)), ()):
        turns = (Message("system", "Be brief."), Message("user", QUESTION, images))
        reply = asyncio.run(model.generate(GenerationRequest(turns, 6)))
        inputs = local.vision.read(turns)
        new = run_model(local.model, inputs, generate, max_new_tokens=6, do_sample=False)[0]
        assert reply.usage.input_tokens == len(inputs.ids)
        wanted = local.tokenizer.decode(new[len(inputs.ids) :], skip_special_tokens=True)
        assert reply.text == wanted
        replies.append(reply.text)
    assert len(set(replies)) == 4
