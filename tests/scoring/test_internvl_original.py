"""VisualPRM in its original format: other names, joint matrices, the same scores; no code of it is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from inference.images import ProblemImages
from scoring import load_scorer
from scoring.families.visualprm import SYSTEM_OF_TEMPLATE
from tests.scoring.visual_checkpoints import TILE, internvl, internvl_tokenizer, save_visualprm
from tests.tiny_vision import drawing
from traces.errors import PrmError
from traces.problem import Problem, Trace, TraceInContext

SETTINGS: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
}  # fmt: skip
THETA = 5000.0


def original_names(name: str) -> str:
    """A weight's name as InternVL's own code has it (qwen2 inside), from transformers' name."""
    for ours, theirs in (
        ("model.vision_tower.embeddings.cls_token", "vision_model.embeddings.class_embedding"),
        ("model.vision_tower.embeddings.position_embeddings", "vision_model.embeddings.position_embedding"),
        ("model.vision_tower.embeddings.patch_embeddings.projection", "vision_model.embeddings.patch_embedding"),
        ("model.vision_tower.encoder.layer.", "vision_model.encoder.layers."),
        ("attention.projection_layer", "attn.proj"),
        ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"),
        ("lambda_", "ls"),
        ("model.multi_modal_projector.layer_norm", "mlp1.0"),
        ("model.multi_modal_projector.linear_1", "mlp1.1"),
        ("model.multi_modal_projector.linear_2", "mlp1.3"),
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
    ):  # fmt: skip
        name = name.replace(ours, theirs)
    return name


def internlm2_names(name: str) -> str:
    """The same with InternLM2 inside."""
    for ours, theirs in (
        ("embed_tokens", "tok_embeddings"),
        ("language_model.lm_head", "language_model.output"),
        ("self_attn.o_proj", "attention.wo"),
        ("mlp.gate_proj", "feed_forward.w1"),
        ("mlp.up_proj", "feed_forward.w3"),
        ("mlp.down_proj", "feed_forward.w2"),
        ("input_layernorm", "attention_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    ):
        name = name.replace(ours, theirs) if name.startswith("language_model") else name
    return name


def joined(weights: dict[str, Tensor], text: str) -> dict[str, Tensor]:
    """Queries, keys and values in one matrix: one behind the other in the tower, by groups in InternLM2."""
    made: dict[str, Tensor] = {}
    for name, value in weights.items():
        if ".q_proj." in name and "vision_tower" in name:
            parts = [weights[name.replace(".q_proj.", f".{x}_proj.")] for x in "qkv"]
            made[original_names(name).replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
        elif ".q_proj." in name and text == "internlm2":
            q, k, v = (weights[name.replace(".q_proj.", f".{x}_proj.")] for x in "qkv")
            rows = []
            for head in range(2):  # key-value heads; two query heads each, four rows a head
                rows += [q[head * 8 : head * 8 + 8], k[head * 4 : head * 4 + 4], v[head * 4 : head * 4 + 4]]  # fmt: skip
            made[original_names(name).replace("self_attn.q_proj", "attention.wqkv")] = torch.cat(rows)  # fmt: skip
        elif (".k_proj." in name or ".v_proj." in name) and (
            "vision_tower" in name or text == "internlm2"
        ):
            continue
        else:
            made[original_names(name)] = value
    return {internlm2_names(name) if text == "internlm2" else name: made[name] for name in made}


def save_original(folder: Path, text: str, **config: Any) -> tuple[Path, Any]:
    """An original checkpoint of a random model, and that model."""
    tokenizer = internvl_tokenizer()
    kind = {"internlm2": "llama", "qwen2": "qwen2"}[text]
    rotary = {"rope_type": "default", "rope_theta": THETA}
    model = internvl(tokenizer, kind=kind, **SETTINGS, rope_parameters=rotary)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    save_file(joined(weights, text), folder / "model.safetensors", metadata={"format": "pt"})
    vision = model.config.vision_config
    said = {
        "model_type": "internvl_chat", "architectures": ["InternVLRewardModel"], "template": "internvl2_5",
        "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLRewardModel"},
        "ps_version": "v2", "downsample_ratio": 0.5, "force_image_size": TILE, "select_layer": -1,
        "llm_config": {
            **SETTINGS, "vocab_size": model.config.text_config.vocab_size, "rope_theta": THETA,
            "architectures": [{"internlm2": "InternLM2ForCausalLM", "qwen2": "Qwen2ForCausalLM"}[text]],
            "attn_implementation": "eager", **({"bias": False} if text == "internlm2" else {}),
        },
        "vision_config": {
            "hidden_size": vision.hidden_size, "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 448, "patch_size": 7,
            "qkv_bias": vision.attention_bias, "qk_normalization": False, "norm_type": "layer_norm",
            "layer_norm_eps": 1e-6, "drop_path_rate": 0.1, "use_flash_attn": True,
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({**said, **config}))
    tokenizer.save_pretrained(folder)
    return folder, model


def traces(folder: Path) -> list[TraceInContext]:
    """Two of one problem with an image, one without."""
    (folder / "a.png").write_bytes(drawing(1, (60, 30)))
    seen, bare = Problem("p", "Which dose?", images=("a.png",)), Problem("q", "Which dose?")
    steps = ("It shows 6.", "So it is 180.")
    return [
        TraceInContext(seen, Trace("a", "p", steps)),
        TraceInContext(seen, Trace("b", "p", steps[::-1])),
        TraceInContext(bare, Trace("c", "q", steps)),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["internlm2", "qwen2"])
def test_the_scores_are_those_of_the_same_weights_converted(text: str, tmp_path: Path) -> None:
    (tmp_path / "original").mkdir()
    folder, model = save_original(tmp_path / "original", text, system_message="Judge.")
    native = save_visualprm(tmp_path / "native", system="Judge.", model=model)
    contexts, images = traces(tmp_path), ProblemImages(tmp_path)
    found = []
    for each in (folder, native):
        scorer = load_scorer(str(each), family="visualprm", images=images)
        labels = {label.trace_id: label for label in scorer.score(contexts)}
        steps = [step for name in "abc" for step in labels[name].step_labels]
        found.append([step.score for step in steps if step.score is not None])
        assert scorer.family.lay_out(contexts[0], ()).ids[:12] == tuple(
            scorer.family.tokenizer("<|im_start|>system\nJudge.<|im_end|>\n<|im_start|>")[
                "input_ids"
            ]
        )
    assert len(found[0]) == 6
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert max(found[0]) - min(found[0]) > 0.02


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    return save_original(tmp_path_factory.mktemp("original"), "qwen2")


def changed(original: tuple[Path, Any], tmp_path: Path, **config: Any) -> str:
    """The checkpoint with another configuration; the files are the same."""
    for file in original[0].iterdir():
        (tmp_path / file.name).unlink(missing_ok=True)
        (tmp_path / file.name).symlink_to(file)
    said = json.loads((original[0] / "config.json").read_text()) | config
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(said))
    return str(tmp_path)


def test_the_template_of_the_checkpoint_gives_the_system_turn(original: tuple[Path, Any]) -> None:
    assert load_scorer(str(original[0])).config()["system"] == SYSTEM_OF_TEMPLATE["internvl2_5"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"template": "mine"}, "system turn"),
        ({"ps_version": "v1"}, 'over "Qwen2ForCausalLM" with pixel shuffle v1'),
        (
            {"llm_config": {"architectures": ["Phi3ForCausalLM"]}},
            '"Phi3ForCausalLM" .* not supported',
        ),
        ({"vision_config": {"image_size": 28}}, "lacks 'patch_size'"),
    ],
)
def test_what_is_not_known_is_refused(
    original: tuple[Path, Any], tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    with pytest.raises(PrmError, match=said):
        load_scorer(changed(original, tmp_path, **config))


@pytest.mark.parametrize("name", ["mlp1.1.bias", "mlp1.7.bias"])
def test_a_weight_missing_or_too_many_is_refused(
    original: tuple[Path, Any], tmp_path: Path, name: str
) -> None:
    model = original[1]
    weights = joined({key: value.clone() for key, value in model.state_dict().items()}, "qwen2")
    if weights.pop(name, None) is None:
        weights[name] = torch.zeros(3)
    where = Path(changed(original, tmp_path))
    (where / "model.safetensors").unlink()
    save_file(weights, where / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PrmError, match=r"^1 weights .*(linear_1\.bias|mlp1\.7\.bias)"):
        load_scorer(str(where))


def test_damaged_weights_are_told(original: tuple[Path, Any], tmp_path: Path) -> None:
    where = Path(changed(original, tmp_path))
    (where / "model.safetensors").unlink()
    (where / "model.safetensors").write_bytes(b"12345678 no tensors")
    with pytest.raises(PrmError, match="Cannot read the weights"):
        load_scorer(str(where))


def test_a_tokenizer_that_needs_code_is_told(original: tuple[Path, Any], tmp_path: Path) -> None:
    where = Path(changed(original, tmp_path))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (where / name).unlink()
    said = {
        "tokenizer_class": "InternLM2Tokenizer",
        "auto_map": {"AutoTokenizer": ["x.Slow", None]},
    }
    (where / "tokenizer_config.json").write_text(json.dumps(said))
    with pytest.raises(PrmError, match="tokenizer needs the checkpoint's own code"):
        load_scorer(str(where))
