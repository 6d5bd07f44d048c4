"""Whole solutions from a policy on this machine: one prefill a problem, forked over its candidates.

Candidate `index` of a problem depends on (seed, problem id, index) alone, not on batch or order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from formats.image_error import ImageError
from inference.images import ProblemImages, unreadable
from inference.local_engine import engine_for
from inference.local_model import load_local_model
from inference.noise import noise_key
from inference.prefix_sharing_choice import SamplingRule
from inference.prefix_sharing_engine import SharedTrace
from inference.prefix_sharing_wave import Row
from inference.rendering import ContinuationPrompt, continuation_messages
from inference.vision import ImageHead
from traces.abstention import Abstention, AbstentionReason
from traces.continuation import ProblemSamples, SampledText
from traces.errors import InputError
from traces.evidence import Evidence
from traces.problem import Problem

_TOGETHER = 64
"""Problems sorted by length together; what is written is yielded after each such group."""


@dataclass(frozen=True, slots=True)
class _Prompted:
    """A problem as token ids, with the candidates wanted."""

    problem_id: str
    ids: tuple[int, ...]
    wanted: range
    head: ImageHead | None
    """What the ids begin with where images are shown."""

    def shared(self, seed: int) -> SharedTrace:
        """Rows that all continue the whole prompt; at least its last token is fed to each."""
        key = noise_key(seed, f"problem\n{self.problem_id}")
        cut = len(self.ids) - 1
        rows = tuple(Row(cut, self.ids[cut:], key, (0, index)) for index in self.wanted)
        return SharedTrace(self.ids, rows, head=self.head)


class LocalSampler:
    """Samples with a transformers model; implements `labeling.candidates.Sampler`."""

    def __init__(
        self,
        model_path: str,
        *,
        prompt: ContinuationPrompt,
        max_new_tokens: int,
        temperature: float,
        top_p: float | None = None,
        top_k: int | None = None,
        stop: Sequence[str] = (),
        with_evidence: bool = False,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        images: ProblemImages | None = None,
    ) -> None:
        """Load the model; arguments as those of `inference.local_policy.LocalPolicy`.

        Raises:
            InputError: a limit or a sampling number out of range.
            ModelRefused: the model cannot be loaded or driven.
        """
        if max_new_tokens < 1:
            raise InputError(f'The token limit "{max_new_tokens}" must be at least 1.')
        self._rule = SamplingRule(temperature, top_k=top_k, top_p=top_p)
        self._prompt, self._stop, self._with_evidence = prompt, tuple(stop), with_evidence
        self._max_new_tokens = max_new_tokens
        self._local = load_local_model(model_path, device=device, dtype=dtype)
        self._engine = engine_for(self._local)
        self._images = images or ProblemImages(shown=self._local.vision is not None)

    @property
    def near_ties(self) -> int:
        """Choices so far in which the two best lay within 1e-4: another batch may choose otherwise."""
        return self._engine.near_ties

    @property
    def slow_because(self) -> str | None:
        """Why every candidate is written alone and slowly; None where prompts are shared."""
        return self._engine.slow_because

    def sample(
        self, asked: Iterable[tuple[Problem, Sequence[Evidence], range]], *, seed: int
    ) -> Iterator[ProblemSamples]:
        """Write the candidates wanted.

        A problem whose prompt leaves no room for one is `over_length` (image tokens count), one with
        an image that cannot be read `unreadable`.
        """
        rest = iter(asked)
        while window := list(islice(rest, _TOGETHER)):
            fitting = []
            for prompted in map(self._tokenise, window):
                if isinstance(prompted, ProblemSamples):
                    yield prompted
                elif len(prompted.ids) + self._max_new_tokens > self._local.window:
                    yield self._over_length(prompted)
                else:
                    fitting.append(prompted)
            fitting.sort(key=lambda prompted: len(prompted.ids))
            written = self._engine.continue_all(
                [prompted.shared(seed) for prompted in fitting],
                self._rule,
                max_new_tokens=self._max_new_tokens,
                stop=self._stop,
                tokenizer=self._local.tokenizer,
            )
            for prompted, done in zip(fitting, written, strict=True):
                texts = tuple(
                    SampledText(index, row.text, row.finish_reason, row.tokens)
                    for index, row in zip(prompted.wanted, done.rows, strict=True)
                )
                yield ProblemSamples(prompted.problem_id, texts, self._local.fingerprint)

    def _tokenise(
        self, asked: tuple[Problem, Sequence[Evidence], range]
    ) -> _Prompted | ProblemSamples:
        """The prompt of a problem, or why it has none."""
        problem, evidence, wanted = asked
        try:
            messages = continuation_messages(
                problem,
                evidence if self._with_evidence else (),
                (),
                system=self._prompt.system,
                separator=self._prompt.separator,
                images=self._images.of(problem),
            )
            [ids], head = self._local.read([messages])
        except ImageError as fault:
            return ProblemSamples(problem.id, (), self._local.fingerprint, unreadable(fault))
        return _Prompted(problem.id, ids, wanted, head)

    def _over_length(self, prompted: _Prompted) -> ProblemSamples:
        detail = (
            f"{len(prompted.ids)} tokens and {self._max_new_tokens} new ones do not fit into the "
            f"policy's window of {self._local.window}."
        )
        why = Abstention(AbstentionReason.OVER_LENGTH, detail)
        return ProblemSamples(prompted.problem_id, (), self._local.fingerprint, why)
