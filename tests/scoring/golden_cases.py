"""What each family is to be given and what its published script would write: texts, by hand.

`plain` is a text without traps: its ids must be those of the whole written text. `traps` has the
marker, a control token, a line break and blanks inside the texts: its ids must spell the written text
with no more control tokens and markers than the layout itself has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from tests.scoring.golden_tokenizers import llama31, mistral, qwen25
from tests.tiny_models import evaluating, save
from traces.evidence import Evidence, Passage
from traces.problem import Problem, Trace, TraceInContext

STEPWISE = (
    "You are an evaluator assessing the logicality and validity of the reasoning in each step of the "
    "given explanation. In order to support the evaluation, the relevant documents, the question, "
    "and the explanation are provided sequentially. If the reasoning contains errors, output - after "
    "that step. If the reasoning in a step is logical and valid, output + after that step."
)
BARE = (
    "You are an evaluator assessing the logicality and validity of the reasoning in each step of the "
    "given explanation. In order to support the evaluation, the question and the explanation are "
    "provided. If the reasoning contains errors, output - after that step. If the reasoning in a step "
    "is logical and valid, output + after that step."
)
OUTCOME = (
    "You are an evaluator assessing the overall quality and correctness of the final answer in the "
    "given explanation. In order to support the evaluation, the question and the explanation are "
    "provided. If the final answer is incorrect or not well-supported, output -. If the final answer "
    "is correct and well-supported, output +."
)
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
WORDS = (
    f"{STEPWISE} {BARE} {OUTCOME} {BOXED} Which dose? (A) 180 mg\n\nQuestion: Explanation: Document "
    " So it is. Step Today Date Jul You Qwen says fatal 6 x 30 ="
)
Head = Literal["signs", "classes", "three", "value"]


def trace(question: str, *steps: str, options: tuple[str, ...] = (), documents: str = "") -> Any:
    """A trace of one problem; the documents are parted by `|`."""
    problem = Problem("p", question, options)
    evidence = tuple(
        Evidence(Passage("c", f"d{rank}", 0, 0, len(text), text), None, rank)
        for rank, text in enumerate(filter(None, documents.split("|")))
    )
    return TraceInContext(problem, Trace("t", "p", steps), evidence)


def llama(system: str, *turns: str, opened: bool = False) -> str:
    """A conversation as Llama 3.1's template writes it, user and assistant by turns."""
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    text = (
        f"<|begin_of_text|>{header.format('system')}Today Date: 26 Jul 2024\n\n{system}<|eot_id|>"
    )
    for number, turn in enumerate(turns):
        text += header.format(("user", "assistant")[number % 2]) + f"{turn}<|eot_id|>"
    return text + header.format("assistant") * opened


def qwen(system: str, user: str, assistant: str) -> str:
    """A conversation as Qwen 2.5's template writes it."""
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n"
        f"<|im_start|>assistant\n{assistant}<|im_end|>\n"
    )


@dataclass(frozen=True)
class Case:
    """One family on one trace."""

    family: str
    """As given to `--family`."""
    tokenizer: Callable[[], Any]
    """With the published rules."""
    written: str
    """The whole text as its script writes it, BOS included."""
    context: TraceInContext
    """The trace."""
    reads: tuple[str | int, ...]
    """The token read at, and how many places before it (0 or 1) the hidden state is taken."""
    head: Head = "signs"
    """Whether P is read off two signs' logits, two classes or one value."""
    signs: tuple[int, int] = (0, 0)
    """Ids of right and wrong."""
    exact: bool = True
    """Whether the written text, tokenised as a whole, has the same ids: not with traps."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """More for `load_scorer`."""


def checkpoint(folder: Path, case: Case) -> Path:
    """A random checkpoint for a case, with the head that its family has."""
    tokenizer = case.tokenizer()
    size = max(max(tokenizer.get_vocab().values()) + 1, len(tokenizer))
    settings: dict[str, Any] = {
        "vocab_size": size, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.4,
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
    }  # fmt: skip
    torch.manual_seed(5)
    kinds: Any = (LlamaConfig, LlamaForCausalLM)
    if "qwen" in str(tokenizer.eos_token) or "<|im_end|>" in tokenizer.get_vocab():
        kinds = (Qwen2Config, Qwen2ForCausalLM)
    save(folder, tokenizer, evaluating(kinds[1](kinds[0](**settings))))
    if case.head != "signs":
        weights = load_file(folder / "model.safetensors")
        kinds_of_head = {"value": ("v_head.summary", 1), "three": ("score_head", 3)}
        name, rows = kinds_of_head.get(case.head, ("score", 2))
        weights |= {f"{name}.weight": torch.randn(rows, 8), f"{name}.bias": torch.randn(rows)}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _medprm() -> Any:
    return llama31(WORDS, marker=" ки")


def _math_prm() -> Any:
    return qwen25(WORDS, marker="<extra_0>")


def _rlhflow() -> Any:
    return llama31(WORDS)


def _fover() -> Any:
    return llama31(f"{WORDS}\ncorrect\nincorrect")


def _reasoneval() -> Any:
    return mistral(["▁Step", "▁mg", "▁dose", "Step"])


def _skywork() -> Any:
    return qwen25(WORDS, bos=True)


def _trl() -> Any:
    return qwen25(WORDS)


def _shepherd() -> Any:
    return mistral(["▁Step", "▁mg", "▁dose", "Step"])


def _shepherd_metaspace() -> Any:
    return mistral(["▁Step", "▁mg", "▁dose", "Step"], metaspace=True)


_USER = "Question: Which dose? (A) 6 (B) 180 mg\n\nExplanation: "
_PLAIN = trace("Which dose?", "6 x 30 = 180 mg.", "So it is 180.", options=("6", "180 mg"))
_BARE_PLAIN = trace("Which dose?", "6 x 30 = 180 mg.", "So it is 180.")
_WITH = trace("Which dose?", "It is 180.", documents="The dose is 6.|180 ки is fatal.")
_TRAPS = trace("Which <|eot_id|> dose?", "It ки is\n6 <|eot_id|>. ", "So ки")
_TRAPS_QWEN = trace("Which <|im_end|>\ndose?", "It <extra_0> is\n6 <|im_end|>. ", "So.\n")
_TRAPS_PLAIN = trace("Which </s> dose?", "Step 1: ки is\n6 </s>. ", "So ки")
FOVER = (
    "** Problem **\n{}\n\n** Task **\nYour task is to evaluate the accuracy of each step in the provided "
    'solution to the above question. For each step, respond with "correct" if the reasoning is logically '
    "valid and mathematically sound, or if the step is a general statement or transition that does not "
    'contain reasoning. Respond with "incorrect" if the step includes any errors or flawed logic.\n\n'
    "** Sotluion **\n{}"
)
"""The first turn of psunlpgroup/FoVer, src/prm/preprocessing.py, its spelling included."""
_SIGNS, _CLOSED = (489, 482), (10, 12)

CASES: dict[str, Case] = {
    "medprm": Case(
        "medprm", _medprm, llama(BARE, _USER + "6 x 30 = 180 mg. ки So it is 180. ки", opened=True),
        _PLAIN, (" ки", 0), signs=_SIGNS,
    ),
    "medprm-documents": Case(
        "medprm", _medprm,
        llama(STEPWISE, "Document 1: The dose is 6.\n\nDocument 2: 180 ки is fatal.\n\nQuestion: "
              "Which dose?\n\nExplanation: It is 180. ки", opened=True),
        _WITH, (" ки", 0), signs=_SIGNS, exact=False,
    ),
    "medprm-traps": Case(
        "medprm", _medprm,
        llama(BARE, "Question: Which <|eot_id|> dose?\n\nExplanation: It ки is 6 <|eot_id|>. ки So ки "
              "ки", opened=True),
        _TRAPS, (" ки", 0), signs=_SIGNS, exact=False,
    ),
    "medprm-orm": Case(
        "medprm-orm", _medprm, llama(OUTCOME, _USER + "6 x 30 = 180 mg. So it is 180. ки", opened=True),
        _PLAIN, (" ки", 0), signs=_SIGNS,
    ),
    "medprm-orm-documents": Case(
        "medprm-orm", _medprm,
        llama(STEPWISE, "Document 1: The dose is 6.\n\nDocument 2: 180 ки is fatal.\n\nQuestion: "
              "Which dose?\n\nExplanation: It is 180. ки", opened=True),
        _WITH, (" ки", 0), signs=_SIGNS, exact=False,
    ),
    "medprm-compat": Case(
        "medprm", _medprm,
        "<|begin_of_text|>" + llama(STEPWISE, "Document 1: The dose is 6.\n\nDocument 2: 180 ки is "
        "fatal.\n\nQuestion: Which dose?\n\nExplanation: It is 180. ки", opened=True),
        _WITH, (" ки", 0), signs=_SIGNS, options={"mode": "medprm-compat", "dtype": "float32"},
    ),
    "qwen-prm": Case(
        "qwen-prm", _math_prm,
        qwen(BOXED, "Which dose?\n(A) 6\n(B) 180 mg", "6 x 30 = 180 mg.<extra_0>So it is 180.<extra_0>"),
        _PLAIN, ("<extra_0>", 0), "classes",
    ),
    "qwen-prm800k-traps": Case(
        "qwen-prm800k", _math_prm,
        qwen(BOXED, "Which <|im_end|>\ndose?", "It <extra_0> is\n6 <|im_end|>.<extra_0>So.<extra_0>"),
        _TRAPS_QWEN, ("<extra_0>", 0), "classes", exact=False,
    ),
    "math-shepherd": Case(
        "math-shepherd", _shepherd,
        "<s> Which dose? Step 1: 6 x 30 = 180 mg. ки\nStep 2: So it is 180. ки",
        _BARE_PLAIN, ("▁ки", 0), signs=(648, 387),
    ),
    "math-shepherd-metaspace": Case(
        "math-shepherd", _shepherd_metaspace,
        "<s> Which dose? Step 1: 6 x 30 = 180 mg. ки\nStep 2: So it is 180. ки",
        _BARE_PLAIN, ("▁ки", 0), signs=(648, 387),
    ),
    "math-shepherd-traps": Case(
        "math-shepherd", _shepherd,
        "<s> Which </s> dose? Step 1: ки is 6 </s>. ки\nStep 2: So ки ки",
        _TRAPS_PLAIN, ("▁ки", 0), signs=(648, 387), exact=False,
    ),
    "rlhflow-deepseek": Case(
        "rlhflow-deepseek", _rlhflow,
        llama("", "Which dose? 6 x 30 = 180 mg.", "+", "So it is 180.", "+"),
        _BARE_PLAIN, ("+", 1), signs=_CLOSED,
    ),
    "rlhflow-mistral-traps": Case(
        "rlhflow-mistral", _rlhflow,
        llama("", "Which <|eot_id|> dose? It ки is\n6 <|eot_id|>.", "+", "So ки", "+"),
        _TRAPS, ("+", 1), signs=_CLOSED, exact=False,
    ),
    "fover": Case(
        "fover", _fover,
        llama("", FOVER.format("Which dose? (A) 6 (B) 180 mg", "6 x 30 = 180 mg."), "correct",
              "So it is 180.", "correct"),
        _PLAIN, ("correct", 1), signs=(1079, 1080),
    ),
    "reasoneval": Case(
        "reasoneval", _reasoneval,
        "<s> Question:\nWhich dose?\nAnswer:\nLet's think step by step.\n 6 x 30 = 180 mg. So it is 180.",
        _BARE_PLAIN, ("<0x2E>", 0), "three", exact=False,
    ),
    "skywork-o1": Case(
        "skywork-o1", _skywork, "<|endoftext|>Which dose?\n6 x 30 = 180 mg.\nSo it is 180.\n",
        _BARE_PLAIN, ("\n", 0), "value", exact=False,
    ),
    "skywork-o1-traps": Case(
        "skywork-o1", _skywork, "<|endoftext|>Which <|im_end|>\ndose?\nIt <extra_0> is 6 <|im_end|>.\nSo.\n",
        _TRAPS_QWEN, ("\n", 0), "value", exact=False,
    ),
    "trl": Case(
        "trl", _trl, "Which dose?6 x 30 = 180 mg.\nSo it is 180.\n", _BARE_PLAIN, ("\n", 0), "classes",
        exact=False,
    ),
    "trl-bos": Case(
        "trl", _rlhflow, "<|begin_of_text|>Which dose?6 x 30 = 180 mg.\nSo it is 180.\n", _BARE_PLAIN,
        ("\n", 0), "classes", exact=False,
    ),
    "pure-traps": Case(
        "pure", _trl, "Which <|im_end|>\ndose?It <extra_0> is\n6 <|im_end|>. \nSo.\n\n", _TRAPS_QWEN,
        ("\n", 0), "classes", exact=False,
    ),
}  # fmt: skip
