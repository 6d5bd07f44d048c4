"""VisualPRM: a conversation with images, one user turn a step, each answered with `+` or `-`.

Wang et al., "VisualPRM: An Effective Process Reward Model for Multimodal Reasoning",
https://arxiv.org/abs/2503.10291; checkpoints `OpenGVLab/VisualPRM-8B` and `-8B-v1_1`. Layout and
read-out: `generate_steps_with_soft_score_v2` of the published modeling_internvl_chat.py. The first
user turn is the question with its images and the first step; every earlier step was answered `+`;
the score is P(+) against P(-) of the next answer, read where the assistant's turn begins. All
answers of a trace are read in one forward pass. Steps stay a list, while the script joins and
splits them at blank lines.

Aggregated by the mean ("soft"). For VisualProcessBench a step is correct above 0.85 (the official
threshold, as third parties quote it; the code's own default is 0.5). The conversation is written as
the script writes it, whatever the checkpoint's chat template. The system turn is the checkpoint's
`system_message` (config.json), as in the script. Without one, the script uses the system turn of
the template named in the original configuration. Converted checkpoints have lost that name and get
the turn of the published training conversations (InternVL 2410d1d,
tools/reasoning_data_pipeline/utils/constants.py).

InternVL checkpoints in their original format (model type `internvl_chat`; VisualPRM-8B is one)
bring their own code, which is never run. Their weights are those of transformers' InternVL under
other names, with queries, keys and values in one matrix. Names and order: transformers,
src/transformers/models/internvl/convert_internvl_weights_to_hf.py (015d3b27), and for InternLM2's
matrix its forward pass in InternVL 2410d1d,
internvl_chat/internvl/model/internlm2/modeling_internlm2.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference import (
    CHECKPOINT_CONFIG,
    checkpoint_settings,
    inner_text_model,
    load_pretrained,
    load_processor,
)
from scoring.family import Aggregation, LaidOutTrace, PrmCheckpoint, hidden_load_reports
from scoring.image_tokens import (
    ExtendedEmbedding,
    ImageTokens,
    ModelImageFeatures,
    PictureReader,
    ProcessorReader,
    TileReader,
)
from scoring.layout import ChatLayout, Turn, single_token
from scoring.read_outs import require_tokens
from traces import Evidence, ModelRefused, PrmError, Problem, TraceInContext

NAME: Final = "visualprm"
ORIGINAL: Final = "InternVLRewardModel"
"""The architecture named in the published checkpoints, implemented in their own code."""
VERDICTS: Final = ("+", "-")
"""The answers whose logits are compared: correct, incorrect."""
IMAGE: Final = "<image>"
"""Placeholder of an image in a question."""
SYSTEM: Final = """\
You are an advanced AI assistant, designed to serve as a process supervision model. In this \
task, I will \
provide a problem statement followed by the first step of the solution process. For each \
subsequent turn, \
I will give you a new step in the solution. Your role is to assess whether the solution process \
is correct \
up to the current step.

- In the **first round**, I will input the problem and the first step of the solution process.
- In **each subsequent round**, I will provide the next step in the solution.

For each step, you should:

- Respond with **"+"** if you believe the solution process is correct up to this step.
- Respond with **"-"** if you detect any issues or errors in the process up to this step.

Please note:
- Only respond with **"+"** or **"-"**. Do not provide any additional explanations, comments, or \
justifications.

Your task is to verify the accuracy and correctness of each step in the given solution process."""
"""The published training conversations' system turn."""
SYSTEM_OF_TEMPLATE: Final = {
    "internvl2_5": "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态"
    "大语言模型。"
}
"""System turns of the templates (conversation.py of InternVL 2410d1d), used by the published code
for checkpoints that name a template and no `system_message`."""
TEMPLATE: Final = (
    "{% for turn in messages %}<|im_start|>{{ turn['role'] }}\n{{ turn['content'] }}<|im_end|>\n"
    "{% endfor %}"
)
"""The conversation as InternVL 2.5's own code writes it."""
MODEL_TYPE: Final = "internvl_chat"
"""Model type of such a checkpoint, in config.json."""
_TEXT: Final[Mapping[str, type[PreTrainedConfig]]] = {
    "InternLM2ForCausalLM": LlamaConfig,
    "LlamaForCausalLM": LlamaConfig,
    "Qwen2ForCausalLM": Qwen2Config,
}
"""The language models inside, and their transformers configurations."""
_NAMES: Final = (
    (r"^vision_model\.embeddings\.class_embedding$", r"model.vision_tower.embeddings.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding$",
     r"model.vision_tower.embeddings.position_embeddings"),
    (r"^vision_model\.embeddings\.patch_embedding\.",
     r"model.vision_tower.embeddings.patch_embeddings.projection."),
    (r"^vision_model\.encoder\.layers\.(\d+)\.", r"model.vision_tower.encoder.layer.\1."),
    (r"(vision_tower.*)\.attn\.proj\.", r"\1.attention.projection_layer."),
    (r"(vision_tower.*)\.attn\.", r"\1.attention."),
    (r"(vision_tower.*)\.norm1\.", r"\1.layernorm_before."),
    (r"(vision_tower.*)\.norm2\.", r"\1.layernorm_after."),
    (r"(vision_tower.*)\.ls([12])$", r"\1.lambda_\2"),
    (r"^mlp1\.0\.", r"model.multi_modal_projector.layer_norm."),
    (r"^mlp1\.1\.", r"model.multi_modal_projector.linear_1."),
    (r"^mlp1\.3\.", r"model.multi_modal_projector.linear_2."),
    (r"^language_model\.(?:lm_head|output)\.", r"lm_head."),
    (r"^language_model\.model\.", r"model.language_model."),
    (r"(language_model)\.tok_embeddings\.", r"\1.embed_tokens."),
    (r"(language_model.*)\.attention\.wqkv\.", r"\1.self_attn.qkv."),
    (r"(language_model.*)\.attention\.wo\.", r"\1.self_attn.o_proj."),
    (r"(language_model.*)\.feed_forward\.w1\.", r"\1.mlp.gate_proj."),
    (r"(language_model.*)\.feed_forward\.w2\.", r"\1.mlp.down_proj."),
    (r"(language_model.*)\.feed_forward\.w3\.", r"\1.mlp.up_proj."),
    (r"(language_model.*)\.attention_norm\.", r"\1.input_layernorm."),
    (r"(language_model.*)\.ffn_norm\.", r"\1.post_attention_layernorm."),
)  # fmt: skip
"""Substitutions applied to each name, all of them, in this order."""
KIND = "internvl"
"""The architecture's name in transformers."""
_FRAME = ("<img>", "<IMG_CONTEXT>", "</img>")
"""What represents an image: the middle token is repeated once per place."""


class VisualPrm:
    """The VisualPRM read-out on one checkpoint."""

    name = NAME
    aggregation: Aggregation = "mean"
    takes_documents = False

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        backbone: PreTrainedModel,
        head: Tensor,
        images: ImageTokens,
        *,
        system: str = SYSTEM,
    ) -> None:
        """Bind the family to a checkpoint.

        Args:
            tokenizer: has `+` and `-` as single tokens.
            backbone: the language model inside, whose embedding knows the ids of `images`.
            head: `[vocabulary, width]`, the rows of the output head.
            images: the images of problems as tokens.
            system: the system turn.

        Raises:
            PrmError: a token of the conversation is missing.
        """
        control = ("<|im_start|>", "<|im_end|>")
        self._plus, minus, *_ = require_tokens(tokenizer, (*VERDICTS, *control), family=NAME)
        self.tokenizer, self.backbone, self.image_tokens = tokenizer, backbone, images
        self._rows = head[[self._plus, minus]].detach().float()
        self._system = system
        self._layouts: dict[int, ChatLayout] = {}

    @property
    def settings(self) -> Mapping[str, Any]:
        """The system turn, which checkpoints may change, and whether images are not shown."""
        unseen = {} if self.image_tokens.shown else {"images": False}
        return {"system": self._system, **unseen}

    def lay_out(self, context: TraceInContext, evidence: Sequence[Evidence]) -> LaidOutTrace:
        """Lay out images, question and first step, then each step, all answered `+`; no evidence.

        Raises:
            CannotLayOut: an image of the problem cannot be read.
        """
        first, *others = context.trace.steps
        asked: list[str | int] = ["### Question:\n", *self._question(context.problem)]
        places: list[list[str | int]] = [[*asked, f"\n\n### Solution Process:\n{first}"]]
        for step in others:
            places += [[self._plus], [step]]
        ids, markers = self._layout(len(context.trace.steps)).fill([*places, [self._plus]])
        # An answer is predicted at the token before it.
        read_at = tuple((place - 1,) for place in markers if ids[place] == self._plus)
        return LaidOutTrace(context.trace.id, ids, read_at)

    def probabilities(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """Return P(+) of the two answers, read before each."""
        return torch.softmax(hidden.float() @ self._rows.T, dim=-1)[:, 0]

    def _question(self, problem: Problem) -> list[str | int]:
        """Return the question with its images at its placeholders, else before it."""
        images = self.image_tokens.of(problem)
        options = (f"\n({chr(65 + i)}) {option}" for i, option in enumerate(problem.options))
        texts = _around(f"{problem.shown_question}{''.join(options)}", len(images))
        pieces: list[str | int] = [texts[0]]
        for image, text in zip(images, texts[1:], strict=True):
            pieces += [*image, text]
        return pieces

    def _layout(self, steps: int) -> ChatLayout:
        """Return the conversation of that many steps, rendered once."""
        if steps not in self._layouts:
            turns: list[Turn] = [
                ("system", self._system),
                *[("user", None), ("assistant", None)] * steps,
            ]
            self._layouts[steps] = ChatLayout(
                self.tokenizer, turns, add_generation_prompt=False, template=TEMPLATE
            )
        return self._layouts[steps]


def _around(question: str, images: int) -> list[str]:
    """Return the texts before, between and after the images.

    One image goes on a line above the question, several on numbered lines (InternVL's convention,
    as in VLMEvalKit e8e78f05, vlmeval/vlm/internvl), unless the question has a placeholder for
    each.

    >>> _around("Which dose?", 1)
    ['', '\\nWhich dose?']
    >>> _around("Is <image> worse than <image>?", 2)
    ['Is ', ' worse than ', '?']
    """
    if images and question.count(IMAGE) == images:
        return question.split(IMAGE)
    if images <= 1:
        return ["", f"\n{question}"] if images else [question]
    lines = [f"\nImage-{number}: " for number in range(1, images + 1)]
    return [lines[0].lstrip(), *lines[1:], f"\n{question}"]


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of any checkpoint.

    Raises:
        ModelRefused: it cannot be loaded.
        PrmError: only the checkpoint's own code could load it; says what to do.
    """
    try:
        with hidden_load_reports():  # transformers warns about model types it does not know
            return cast(PreTrainedTokenizerBase, load_pretrained(AutoTokenizer, folder))
    except ModelRefused as refusal:
        if checkpoint_settings(folder / CHECKPOINT_CONFIG).get("model_type") != MODEL_TYPE:
            raise
        raise PrmError(
            "The checkpoint's tokenizer needs the checkpoint's own code, which is never run.",
            where=str(folder),
            remedy="copy tokenizer.json and tokenizer_config.json of the converted base model into"
            " the folder, for example from OpenGVLab/InternVL2_5-8B-MPO-hf",
        ) from refusal


def converted_config(said: Mapping[str, Any], *, placeholder: int) -> InternVLConfig:
    """Return the configuration in the form of transformers.

    Args:
        said: the checkpoint's config.json.
        placeholder: the id of `<IMG_CONTEXT>`.

    Raises:
        KeyError: a value is missing.
        PrmError: a part is of a kind that transformers does not have.
    """
    text, vision = dict(said["llm_config"]), dict(said["vision_config"])
    kind = (text.get("architectures") or ["unknown"])[0]
    if kind not in _TEXT or said.get("ps_version", "v1") != "v2":
        raise PrmError(
            f'InternVL over "{kind}" with pixel shuffle {said.get("ps_version", "v1")} is not'
            " supported.",
            remedy="use InternVL 2.5 or 3 (over InternLM2, Llama or Qwen2)",
        )
    side = tile_side(said)
    patches = (side // vision["patch_size"]) ** 2
    ratio = said["downsample_ratio"]
    known = _known(_TEXT[kind], text)
    known |= {"attention_bias": text["bias"]} if "bias" in text else {}
    return InternVLConfig(
        text_config=_TEXT[kind](**known),
        vision_config=InternVLVisionConfig(
            **_known(InternVLVisionConfig, vision) | {"image_size": side},
            attention_bias=vision.get("qkv_bias", False),
            use_qk_norm=vision.get("qk_normalization", False),
        ),
        image_token_id=placeholder,
        image_seq_length=int(patches * ratio**2),
        downsample_ratio=ratio,
        vision_feature_layer=said.get("select_layer", -1),
        tie_word_embeddings=bool(text.get("tie_word_embeddings", False)),
    )


def tile_side(said: Mapping[str, Any]) -> int:
    """Return the side of a tile in pixels."""
    return int(said.get("force_image_size") or said["vision_config"]["image_size"])


def load_original(folder: Path, config: InternVLConfig, dtype: torch.dtype) -> Any:
    """Load the weights of an original checkpoint, in evaluation mode on the CPU.

    Raises:
        PrmError: weights cannot be read, are missing, or are not part of the model.
    """
    try:
        weights = {
            name: value.to(dtype)
            for file in sorted(folder.glob("*.safetensors"))
            for name, value in _converted(file, config)
        }
    except (OSError, SafetensorError) as fault:
        raise PrmError(f"Cannot read the weights: {fault}", where=str(folder)) from fault
    kind: Any = InternVLForConditionalGeneration
    with hidden_load_reports():
        model, report = kind.from_pretrained(
            None, config=config, state_dict=weights, dtype=dtype, output_loading_info=True
        )
    wrong = sorted({*report["missing_keys"], *report["unexpected_keys"]})
    wrong += [str(key) for key, *_ in report["mismatched_keys"]]
    if wrong:
        raise PrmError(
            f"{len(wrong)} weights of the checkpoint do not fit an InternVL, including"
            f' "{wrong[0]}".',
            where=str(folder),
            remedy="check that the checkpoint is complete",
        )
    return model.eval()


def _known(kind: type[PreTrainedConfig], said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the class knows, old spellings of rotary settings included."""
    names = {*kind().to_dict(), "rope_theta", "rope_scaling"} - {"architectures", "model_type"}
    return {name: value for name, value in said.items() if name in names}


def _converted(file: Path, config: InternVLConfig) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of one file under transformers' names, joint matrices split."""
    with safe_open(file, framework="pt") as tensors:
        for original in tensors.keys():  # noqa: SIM118
            name, value = original, tensors.get_tensor(original)
            for pattern, replacement in _NAMES:
                name = re.sub(pattern, replacement, name)
            if ".attention.qkv." in name:
                yield from _parts(name, "attention.qkv", value.chunk(3))
            elif ".self_attn.qkv." in name:
                yield from _parts(name, "self_attn.qkv", _of_groups(value, config.text_config))
            else:
                yield name, value


def _parts(name: str, joint: str, parts: tuple[Tensor, ...]) -> Iterator[tuple[str, Tensor]]:
    owner = joint.split(".")[0]
    for letter, part in zip("qkv", parts, strict=True):
        yield name.replace(joint, f"{owner}.{letter}_proj"), part.clone()


def _of_groups(joint: Tensor, text: Any) -> tuple[Tensor, ...]:
    """Split InternLM2's joint matrix: each key-value head holds its queries', keys' and values'
    rows."""
    groups = text.num_attention_heads // text.num_key_value_heads
    heads = text.num_key_value_heads
    rows = joint.view(heads, groups + 2, -1, *joint.shape[1:])
    return rows[:, :groups].flatten(0, 2), rows[:, -2].flatten(0, 1), rows[:, -1].flatten(0, 1)


def bind(it: PrmCheckpoint) -> VisualPrm:
    """Load an InternVL and bind the family to the language model inside.

    Raises:
        ModelRefused: the weights cannot be loaded.
        PrmError: it is no InternVL, or a part of it is missing or unknown.
    """
    said = checkpoint_settings(it.folder / CHECKPOINT_CONFIG)
    if said.get("model_type") == MODEL_TYPE:
        return _original(it, said)
    if said.get("model_type") != KIND:
        raise PrmError(
            f'The family visualprm needs an InternVL model; this is a "{said.get("model_type")}".',
            where=str(it.folder),
            remedy="name the right family with --family",
        )
    model = it.model(AutoModelForImageTextToText)
    reader = ProcessorReader(_processor(it.folder))
    return _bound(it, model, reader, said.get("system_message") or SYSTEM)


def _original(it: PrmCheckpoint, said: Mapping[str, Any]) -> VisualPrm:
    """Bind a checkpoint in the format that brings its own code, which is not run."""
    begin, placeholder, end = (_token(it, token) for token in _FRAME)
    system = said.get("system_message") or SYSTEM_OF_TEMPLATE.get(str(said.get("template")))
    if system is None:
        raise PrmError(
            f'The system turn of the template "{said.get("template")}" is unknown.',
            where=str(it.folder / CHECKPOINT_CONFIG),
            remedy='add it to config.json as "system_message"',
        )
    try:
        config = converted_config(said, placeholder=placeholder)
    except KeyError as fault:
        raise PrmError(
            f"The checkpoint's configuration lacks {fault}.",
            where=str(it.folder / CHECKPOINT_CONFIG),
        ) from fault
    side = tile_side(said)
    tiles: Any = GotOcr2ImageProcessorPil
    cut = tiles(
        size={"height": side, "width": side},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    reader = TileReader(
        cut, begin=begin, placeholder=placeholder, end=end, places=config.image_seq_length
    )
    model = load_original(it.folder, config, it.dtype).to(it.device)
    return _bound(it, model, reader, system)


def _token(it: PrmCheckpoint, text: str) -> int:
    found = single_token(it.tokenizer, text)
    if found is None:
        raise PrmError(f'The checkpoint has no token "{text}".', where=str(it.folder))
    return found


def _bound(
    it: PrmCheckpoint, model: PreTrainedModel, reader: PictureReader, system: str
) -> VisualPrm:
    """Bind the family to a model whose vocabulary is extended by image ids."""
    backbone = inner_text_model(model)
    head = model.get_output_embeddings().weight  # type: ignore[no-untyped-call]
    words = cast(nn.Embedding, backbone.get_input_embeddings())
    images = ImageTokens(ModelImageFeatures(model, reader), it.images, first=words.num_embeddings)
    # The model meets ids only here: the layers below need no change.
    backbone.set_input_embeddings(ExtendedEmbedding(words, images))
    return VisualPrm(it.tokenizer, backbone, head, images, system=system)


def _processor(folder: Path) -> Any:
    try:
        return load_processor(folder)
    except ModelRefused as refusal:
        raise PrmError(
            refusal.what,
            where=str(folder),
            remedy="use the processor and tokenizer files of a converted InternVL",
        ) from refusal
