"""Small tokenizers that follow the rules of the families in use, each with a chat template of its kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from tests.tiny_models import tiny_tokenizer

CORPUS = (
    "Step 1: the dose is 6 mg per kg, so 6 x 30 = 180 mg. " * 4,
    "Question: which single dose? The answer is 300 mg.\n\nDocument 1: the cap is 300 mg.\n" * 2,
    "Which single dose does the patient need? No less, no more.",
)
SIZE = 400


@dataclass(frozen=True, slots=True)
class Rule:
    """A tokenizer with what its template writes around one user turn."""

    tokenizer: PreTrainedTokenizerFast
    """With a chat template."""
    head: str
    """What stands before the assistant's first word; `{user}` is the user turn."""
    exact: bool = True
    """Whether decoding gives white space back as it was."""


def bpe_with_chatml() -> Rule:
    """GPT-2's byte-level BPE as Qwen has it: no BOS, ChatML."""
    marks = ["<|im_start|>", "<|im_end|>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=SIZE,
            special_tokens=marks,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    head = "<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
    return Rule(_wrapped(core, template, eos="<|im_end|>", marks=marks), head)


def bpe_with_headers() -> Rule:
    """Llama 3's splitting, headers and one BOS, which template and tokenizer both put."""
    head = "<|begin|><|start|>user<|close|>\n\n{user}<|end|><|start|>assistant<|close|>\n\n"
    return Rule(tiny_tokenizer(), head)


def pieces_with_instructions() -> Rule:
    """Llama 2's and Mistral's pieces: blanks as `▁`, bytes where no piece fits, `[INST]` around the user."""
    marks = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Replace(" ", "▁")])
    core.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), behavior="merged_with_next")
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    core.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=256 + SIZE,
            special_tokens=[*marks, *(f"<0x{byte:02X}>" for byte in range(256))],
            show_progress=False,
        ),
    )
    # The trainer takes bytes in as marks only; in real vocabularies they are pieces like any other.
    saved = json.loads(core.to_str())
    saved["added_tokens"] = [one for one in saved["added_tokens"] if "<0x" not in one["content"]]
    core = Tokenizer.from_str(json.dumps(saved))
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
    )
    template = (
        "<s>{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
        "{% else %} {{ m['content'] | trim }}</s>{% endif %}{% endfor %}"
    )
    tokenizer = _wrapped(core, template, eos="</s>", bos="<s>", marks=marks[3:])
    return Rule(tokenizer, "<s>[INST] {user} [/INST]")


def metaspace(scheme: str) -> Rule:
    """SentencePiece's unigram pieces; `scheme` says where a blank is put before a text."""
    marks = ["<unk>", "<bos>", "<eos>", "<turn>", "</turn>"]
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
    core.decoder = decoders.Metaspace(prepend_scheme=scheme, split=True)
    core.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=SIZE, special_tokens=marks, unk_token="<unk>", show_progress=False
        ),
    )
    template = (
        "<bos>{% for m in messages %}<turn>{{ m['role'] }}\n{{ m['content'] | trim }}</turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<turn>model\n{% endif %}"
    )
    head = "<bos><turn>user\n{user}</turn>\n<turn>model\n"
    tokenizer = _wrapped(core, template, eos="<eos>", bos="<bos>", marks=marks[3:])
    return Rule(tokenizer, head, exact=False)


def word_pieces() -> Rule:
    """BERT's word pieces: white space is not kept, words go on with `##`."""
    marks = ["[UNK]", "[BOS]", "[EOS]", "[USER]", "[MODEL]"]
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(cleanup=False)
    core.train_from_iterator(
        CORPUS,
        trainers.WordPieceTrainer(vocab_size=SIZE, special_tokens=marks, show_progress=False),
    )
    template = "[BOS]{% for m in messages %}[USER]{{ m['content'] }}{% endfor %}[MODEL]"
    tokenizer = _wrapped(core, template, eos="[EOS]", bos="[BOS]", marks=marks[3:])
    return Rule(tokenizer, "[BOS][USER]{user}[MODEL]", exact=False)


RULES: dict[str, Callable[[], Rule]] = {
    "byte-level BPE, ChatML": bpe_with_chatml,
    "byte-level BPE, headers": bpe_with_headers,
    "pieces with byte fallback": pieces_with_instructions,
    "metaspace, first": lambda: metaspace("first"),
    "metaspace, always": lambda: metaspace("always"),
    "metaspace, never": lambda: metaspace("never"),
    "word pieces": word_pieces,
}
"""By name."""


def _wrapped(
    core: Tokenizer, template: str, *, eos: str, marks: list[str], bos: str | None = None
) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        bos_token=bos,
        eos_token=eos,
        pad_token=eos,
        extra_special_tokens=[mark for mark in marks if mark != eos],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    return tokenizer
