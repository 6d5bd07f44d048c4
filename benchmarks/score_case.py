"""What `benchmarks.score` measures on: a random Llama, its tokenizer, problems of known lengths."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from scoring.families.medprm import MARKER, VERDICTS, MedPrm
from traces import Evidence, Passage, Problem, Trace, TraceInContext

_TEMPLATE = (
    "{% for message in messages %}<|start|> {{ message['role'] }} {{ message['content'] }} <|end|>"
    "{% endfor %}{% if add_generation_prompt %} <|start|> assistant{% endif %}"
)
_DOCUMENT_WORDS = 256
_STEP_WORDS = 40


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of the random Llama."""

    layers: int = 12
    width: int = 768
    vocabulary: int = 32_000

    def model(self) -> Any:
        """The model: about 110M parameters with the output head, 12 heads, at the default size."""
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.width * 8 // 3,
            num_hidden_layers=self.layers,
            num_attention_heads=self.width // 64,
            max_position_embeddings=8192,
        )
        made: Any = LlamaForCausalLM
        return made(config).eval().requires_grad_(False)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A word is a token, so that lengths are known; the markers are tokens of their own."""
        words = {f"w{i}": i for i in range(self.vocabulary - 6)}
        core = Tokenizer(models.WordLevel(words | {"<unk>": len(words)}, unk_token="<unk>"))
        core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        special = ("<|start|>", "<|end|>", MARKER, *VERDICTS)
        core.add_tokens([AddedToken(token, normalized=False) for token in special])
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")  # type: ignore[no-untyped-call]
        tokenizer.chat_template = _TEMPLATE
        return tokenizer

    def family(self) -> tuple[MedPrm, Any]:
        """The Med-PRM read-out on the random model, and the model."""
        model = self.model()
        return MedPrm(self.tokenizer(), model), model


@dataclass(frozen=True, slots=True)
class Case:
    """Problems of one shape."""

    name: str
    evidence: int
    """Tokens of evidence a problem."""
    question: int
    """Tokens of the question."""
    lengths: tuple[int, int]
    """Least and most tokens of a candidate."""

    def problem(self, number: int, candidates: int) -> list[TraceInContext]:
        """One problem with its candidates; the first `n` are the same whatever `candidates`."""
        draw = random.Random(f"{self.name} {number}")
        documents = [
            self._text(draw, min(_DOCUMENT_WORDS, self.evidence - start))
            for start in range(0, self.evidence, _DOCUMENT_WORDS)
        ]
        evidence = tuple(
            Evidence(Passage("c", f"d{rank}", 0, 0, len(text), text), None, rank)
            for rank, text in enumerate(documents)
        )
        problem = Problem(f"p{number}", self._text(draw, self.question))
        made = []
        for index in range(candidates):
            left, steps = draw.randint(*self.lengths), []
            while left > 0:
                steps.append(self._text(draw, min(left, _STEP_WORDS)))
                left -= _STEP_WORDS + 1
            trace = Trace(f"p{number}:{index}", problem.id, tuple(steps))
            made.append(TraceInContext(problem, trace, evidence))
        return made

    @staticmethod
    def _text(draw: random.Random, words: int) -> str:
        return " ".join(f"w{draw.randrange(20_000)}" for _ in range(words))


RAG = Case("evidence", evidence=3072, question=40, lengths=(150, 450))
MATH = Case("no evidence", evidence=0, question=110, lengths=(500, 500))
