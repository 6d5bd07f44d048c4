"""Tokenizers with the rules of the published ones and a vocabulary that fits on a page.

What is real: the splitting, the bytes' ids, the special tokens and every id that the families' cards
name (`+` and `-` are 10 and 12 with Llama 3 and Qwen 2.5; 648, 387 and 12902 with Mistral). The words
have ids from 1,000 on in the order in which they are given, what they are merged from ids from 3,000
on; everything else is spelled in bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors
from tokenizers import pre_tokenizers as split
from transformers import PreTrainedTokenizerFast

_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_SPLIT = rf"{_LETTERS}|\p{{N}}{{1,3}}{_REST}"
QWEN2_SPLIT = rf"{_LETTERS}|\p{{N}}{_REST}"
LLAMA3_WORDS = {
    " +": 489, " -": 482, "\n\n": 271, ".\n\n": 382, ".\n": 627, "user": 882, "system": 9125,
    "assistant": 78191,
}  # fmt: skip
"""Real ids of Llama 3."""
LLAMA3_CONTROL = {
    "<|begin_of_text|>": 128000, "<|start_header_id|>": 128006, "<|end_header_id|>": 128007,
    "<|eot_id|>": 128009,
}  # fmt: skip
QWEN2_WORDS = {"user": 872, "system": 8948, "assistant": 77091, "\n\n": 271, ".\n": 624}
"""Real ids of Qwen 2.5."""
QWEN2_CONTROL = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}
MISTRAL_WORDS = {"▁ки": 12902, "▁+": 648, "▁-": 387}
"""Real ids of Mistral 7B v0.1."""
LLAMA31_TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set task = messages[0]['content']|trim %}"
    "{% set turns = messages[1:] %}{% else %}{% set task = '' %}{% set turns = messages %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n{{ task }}<|eot_id|>"
    "{% for turn in turns %}<|start_header_id|>{{ turn['role'] }}<|end_header_id|>\n\n"
    "{{ turn['content']|trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
"""As Llama 3.1's: one BOS, a date in the system turn whether there is one or not, contents trimmed."""
QWEN2_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are Qwen.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Qwen 2.5's: a system turn of its own where there is none, contents as they are."""


def _byte_signs() -> list[str]:
    """The sign of each byte in the order of their ids (GPT-2's): printable ones first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]


def _spelled(text: str) -> str:
    [(spelled, _)] = split.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return str(spelled)


def _byte_level(
    pattern: str,
    known: Mapping[str, int],
    words: Iterable[str],
    control: Mapping[str, int],
    *,
    ignore_merges: bool,
) -> Tokenizer:
    vocabulary = {sign: number for number, sign in enumerate(_byte_signs())}
    vocabulary |= {_spelled(word): number for word, number in known.items()}
    new = [word for word in map(_spelled, words) if word not in vocabulary]
    vocabulary |= {word: 1000 + number for number, word in enumerate(dict.fromkeys(new))}
    merges: dict[tuple[str, str], None] = {}
    fresh = iter(range(3000, 10000))
    # Words behind a blank first: what merges within them must not come before them.
    for word in sorted((word for word in vocabulary if len(word) > 1), key=lambda w: w[0] != "Ġ"):
        for end in range(2, len(word) + 1):
            merges[(word[: end - 1], word[end - 1])] = None
            if word[:end] not in vocabulary:
                vocabulary[word[:end]] = next(fresh)
    core = Tokenizer(models.BPE({**vocabulary, **control}, [*merges], ignore_merges=ignore_merges))
    core.pre_tokenizer = split.Sequence(
        [
            split.Split(Regex(pattern), behavior="isolated"),
            split.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    return core


def llama31(words: str = "", *, marker: str | None = None) -> Any:
    """Llama 3.1's rules: a BOS before every text, numbers in threes, `ignore_merges`.

    Args:
        words: a text whose pre-tokens become tokens.
        marker: the special token 128256.
    """
    control = LLAMA3_CONTROL | ({} if marker is None else {marker: 128256})
    pieces = [
        text for text, _ in split.Split(Regex(LLAMA3_SPLIT), "isolated").pre_tokenize_str(words)
    ]
    core = _byte_level(LLAMA3_SPLIT, LLAMA3_WORDS, pieces, control, ignore_merges=True)
    core.post_processor = processors.Sequence(
        [
            processors.ByteLevel(add_prefix_space=True, trim_offsets=False),
            processors.TemplateProcessing(
                single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 128000)]
            ),
        ]
    )
    made: Any = PreTrainedTokenizerFast
    return made(
        tokenizer_object=core,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        extra_special_tokens=[*control][1:],
        chat_template=LLAMA31_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def qwen25(
    words: str = "",
    *,
    marker: str | None = None,
    bos: bool = False,
    control: Mapping[str, int] = MappingProxyType({}),
) -> Any:
    """Qwen 2.5's rules: nothing before a text, digits one by one, NFC.

    Args:
        words: a text whose pre-tokens become tokens.
        marker: the special token 151651.
        bos: whether `<|endoftext|>` is named as BOS, as Skywork's tokenizer does.
        control: further special tokens.
    """
    control = {**QWEN2_CONTROL, **({} if marker is None else {marker: 151651}), **control}
    pieces = [
        text for text, _ in split.Split(Regex(QWEN2_SPLIT), "isolated").pre_tokenize_str(words)
    ]
    core = _byte_level(QWEN2_SPLIT, QWEN2_WORDS, pieces, control, ignore_merges=False)
    core.normalizer = normalizers.NFC()
    made: Any = PreTrainedTokenizerFast
    return made(
        tokenizer_object=core,
        bos_token="<|endoftext|>" if bos else None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=[*control][1:],
        chat_template=QWEN2_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def mistral(words: Iterable[str] = (), *, metaspace: bool = False) -> Any:
    """Mistral's sentence-piece rules: a blank before every text, blanks are `▁`, bytes fall back.

    Args:
        words: further pieces, from id 1,000 on; single signs first where a word is made of them.
        metaspace: written with a Metaspace pre-tokenizer instead of the two normalizers.
    """
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocabulary |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    merges: list[tuple[str, str]] = []
    fresh = iter(range(1000, 12000))
    for word in [*MISTRAL_WORDS, *words]:
        for end in range(1, len(word) + 1):
            for part in (word[end - 1], word[:end]):
                number = MISTRAL_WORDS.get(part)
                if part not in vocabulary:
                    vocabulary[part] = next(fresh) if number is None else number
            pair = (word[: end - 1], word[end - 1])
            if end > 1 and pair not in merges:
                merges.append(pair)
    core = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    if metaspace:
        core.pre_tokenizer = split.Metaspace("▁", prepend_scheme="first", split=False)
    else:
        core.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    core.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")]
    )
    made: Any = PreTrainedTokenizerFast
    return made(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
