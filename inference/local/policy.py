"""Policies on this machine: each trace or problem is prefilled once and shared by all its samples.

Continuation `index` of a step depends only on (seed, trace id, step index, index), and candidate
`index` of a problem only on (seed, problem id, index), not on batch size, order or what else is in
the batch. Token choices that are nearly tied are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from formats import EncodedImage, ImageError
from inference.images import ProblemImages, unreadable
from inference.local.engines import engine_for
from inference.local.model import load_local_model
from inference.local.shared_attention import common_tokens
from inference.local.shared_prefix import PrefixRow, SharedTrace, WrittenTrace
from inference.local.token_choice import SamplingRule, noise_key
from inference.local.vision import ImageHead
from inference.prompting import PolicyConfig, continuation_messages
from traces import (
    Abstention,
    AbstentionReason,
    Evidence,
    InputError,
    PolicyText,
    Problem,
    ProblemSamples,
    SampledText,
    TraceContinuations,
    TraceInContext,
    Wanted,
)

_SORTED_TOGETHER = 256
"""Traces read ahead, so that traces of similar length share a batch."""


@dataclass(frozen=True, slots=True)
class _TokenizedTrace:
    """A trace's prefixes as token ids."""

    trace_id: str
    prefixes: tuple[tuple[int, ...], ...]
    """One per step; the last one is the whole trace."""
    head: ImageHead | None
    """The shared beginning with the images; None without images."""

    @property
    def longest(self) -> int:
        """Tokens of the longest prefix."""
        return max(map(len, self.prefixes))

    def shared(self, wanted: Sequence[Wanted], *, seed: int, keep: bool = False) -> SharedTrace:
        """The engine's input: a row per continuation, each after its cut of the longest prefix."""
        whole = self.prefixes[max(one.step_index for one in wanted)]
        key = noise_key(seed, self.trace_id)
        rows = []
        for one in wanted:
            ids = self.prefixes[one.step_index]
            # Feed at least the last token to each row: its output is the first choice.
            cut = min(common_tokens(ids, whole), len(ids) - 1)
            rows += [
                PrefixRow(cut, ids[cut:], key, (one.step_index, index))
                for index in range(one.first, one.first + one.count)
            ]
        return SharedTrace(whole, tuple(rows), self.trace_id if keep else None, self.head)


class LocalPolicy:
    """Continues prefixes with a transformers model; implements `labeling.Policy`."""

    def __init__(
        self,
        model_path: str,
        config: PolicyConfig,
        *,
        spec: str,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        cache_tokens: int | None = None,
        batch_rows: int | None = None,
        images: ProblemImages | None = None,
    ) -> None:
        """Load the model.

        Args:
            model_path: folder or hub id of a causal language model, or of an image-text model.
            config: prompt and sampling.
            spec: the policy as the user named it.
            device: a torch device; None uses CUDA if available, else the CPU.
            dtype: of weights and caches.
            cache_tokens: key-value positions cached at once; None derives it from the memory.
            batch_rows: maximum continuations per batch; None derives it from the memory.
            images: loads the images of problems. None shows them to a model that takes images, with
                relative paths resolved from the current folder.

        Raises:
            InputError: a limit or a sampling option out of range.
            ModelRefused: the model cannot be loaded or run.
        """
        self._rule = _sampling_rule(config)
        self._spec, self._config = spec, config
        self._local = load_local_model(model_path, device=device, dtype=dtype)
        self._local.require_continuing()
        self._engine = engine_for(self._local, cache_tokens=cache_tokens, batch_rows=batch_rows)
        self._images = images or ProblemImages(shown=self._local.vision is not None)

    @property
    def spec(self) -> str:
        """The policy as the user named it."""
        return self._spec

    @property
    def resolved_model(self) -> str | None:
        """Fingerprint of the weights; None if unknown."""
        return self._local.fingerprint

    @property
    def near_ties(self) -> int:
        """Nearly tied token choices so far, see `TraceContinuations.near_ties`."""
        return self._engine.near_ties

    @property
    def slow_because(self) -> str | None:
        """Why every continuation is computed alone and slowly; None if prefixes are shared."""
        return self._engine.slow_because

    def continue_traces(
        self, contexts: Iterable[TraceInContext], *, k: int, seed: int
    ) -> Iterator[TraceContinuations]:
        """Continue every prefix of every trace `k` times; yield traces as they are done.

        A trace abstains (`over_length`) if it does not fit in the model's window together with a
        whole continuation, image tokens included; nothing is ever truncated. One with an unreadable
        image abstains too (`unreadable`).

        Args:
            contexts: the traces; a few hundred are read ahead.
            k: continuations per prefix, at least 1.
            seed: seed of the sampling noise.
        """
        if k < 1:
            raise InputError(f'The number of continuations "{k}" must be at least 1.')
        rest = iter(contexts)
        while window := list(islice(rest, _SORTED_TOGETHER)):
            asked = [
                (one, [Wanted(step, 0, k) for step in range(len(one.trace.steps))])
                for one in window
            ]
            yield from self._continue(asked, seed=seed, keep=False)

    def continue_wanted(
        self, asked: Sequence[tuple[TraceInContext, Sequence[Wanted]]], *, seed: int
    ) -> Iterator[TraceContinuations]:
        """Sample exactly these continuations in one batch; yield every trace once.

        Continuation `i` of a step is the one that `continue_traces` samples. A trace is
        `over_length` by its whole length, so that it abstains under every strategy or under none.
        Prefilled tokens are cached for the next round, within the budget, until `release`.
        """
        # Images are in memory from reading to prefilling, so do not load those of a whole round.
        size = len(asked) if self._local.vision is None else _SORTED_TOGETHER
        for start in range(0, len(asked), max(size, 1)):
            yield from self._continue(asked[start : start + size], seed=seed, keep=True)

    def release(self, trace_ids: Sequence[str]) -> None:
        """Free what is cached for these traces."""
        self._engine.release(trace_ids)

    def _continue(
        self,
        asked: Sequence[tuple[TraceInContext, Sequence[Wanted]]],
        *,
        seed: int,
        keep: bool,
    ) -> Iterator[TraceContinuations]:
        fitting: list[tuple[_TokenizedTrace, Sequence[Wanted]]] = []
        for context, wanted in asked:
            try:
                trace = self._tokenize(context, self._images.of(context.problem))
            except ImageError as fault:
                yield self._abstained(context.trace.id, unreadable(fault))
                continue
            if trace.longest + self._config.max_tokens > self._local.window:
                yield self._over_length(trace)
            else:
                fitting.append((trace, wanted))
        fitting.sort(key=lambda pair: pair[0].longest)
        shared = [trace.shared(wanted, seed=seed, keep=keep) for trace, wanted in fitting]
        written = self._engine.continue_all(
            shared,
            self._rule,
            max_new_tokens=self._config.max_tokens,
            stop=self._config.stop,
            tokenizer=self._local.tokenizer,
        )
        for (trace, _), one, done in zip(fitting, shared, written, strict=True):
            yield self._continuations(trace, one, done)

    def _tokenize(
        self, context: TraceInContext, images: tuple[EncodedImage, ...] = ()
    ) -> _TokenizedTrace:
        evidence = context.evidence if self._config.with_evidence else ()
        conversations = [
            continuation_messages(
                context.problem,
                evidence,
                context.trace.prefix(step_index),
                system=self._config.prompt.system,
                separator=self._config.prompt.separator,
                images=images,
            )
            for step_index in range(len(context.trace.steps))
        ]
        prefixes, head = self._local.read(conversations)
        return _TokenizedTrace(context.trace.id, tuple(prefixes), head)

    def _over_length(self, trace: _TokenizedTrace) -> TraceContinuations:
        detail = _too_long(trace.longest, self._config, self._local.window)
        return self._abstained(trace.trace_id, Abstention(AbstentionReason.OVER_LENGTH, detail))

    def _abstained(self, trace_id: str, why: Abstention) -> TraceContinuations:
        return TraceContinuations(trace_id, (), self._local.fingerprint, why)

    def _continuations(
        self, trace: _TokenizedTrace, shared: SharedTrace, written: WrittenTrace
    ) -> TraceContinuations:
        texts = tuple(
            PolicyText(*asked.counter, row.text, row.finish_reason, row.tokens)
            for asked, row in zip(shared.rows, written.rows, strict=True)
        )
        return TraceContinuations(
            trace.trace_id,
            texts,
            self._local.fingerprint,
            prefilled_tokens=written.prefilled_tokens,
            near_ties=sum(row.near_ties for row in written.rows),
        )


_TOGETHER = 64
"""Problems that are sorted by length together; results are yielded after each such group."""


@dataclass(frozen=True, slots=True)
class _Prompted:
    """A problem as token ids, with the candidates wanted."""

    problem_id: str
    ids: tuple[int, ...]
    wanted: range
    head: ImageHead | None
    """The beginning with the images; None without images."""

    def shared(self, seed: int) -> SharedTrace:
        """Rows that all continue the whole prompt, of which each is fed the last token."""
        key = noise_key(seed, f"problem\n{self.problem_id}")
        cut = len(self.ids) - 1
        rows = tuple(PrefixRow(cut, self.ids[cut:], key, (0, index)) for index in self.wanted)
        return SharedTrace(self.ids, rows, head=self.head)


class LocalSampler:
    """Samples solutions with a transformers model; implements `labeling.Sampler`."""

    def __init__(
        self,
        model_path: str,
        config: PolicyConfig,
        *,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        images: ProblemImages | None = None,
    ) -> None:
        """Load the model; arguments and errors as those of `LocalPolicy`."""
        self._rule, self._config = _sampling_rule(config), config
        self._local = load_local_model(model_path, device=device, dtype=dtype)
        self._engine = engine_for(self._local)
        self._images = images or ProblemImages(shown=self._local.vision is not None)

    @property
    def near_ties(self) -> int:
        """Nearly tied token choices so far, see `TraceContinuations.near_ties`."""
        return self._engine.near_ties

    @property
    def slow_because(self) -> str | None:
        """Why every candidate is computed alone and slowly; None if prompts are shared."""
        return self._engine.slow_because

    def sample(
        self, asked: Iterable[tuple[Problem, Sequence[Evidence], range]], *, seed: int
    ) -> Iterator[ProblemSamples]:
        """Sample the candidates wanted.

        A problem whose prompt leaves no room for a candidate abstains (`over_length`, image tokens
        included), as does one with an unreadable image (`unreadable`).
        """
        rest = iter(asked)
        while window := list(islice(rest, _TOGETHER)):
            fitting = []
            for prompted in map(self._tokenize, window):
                if isinstance(prompted, ProblemSamples):
                    yield prompted
                elif len(prompted.ids) + self._config.max_tokens > self._local.window:
                    yield self._over_length(prompted)
                else:
                    fitting.append(prompted)
            fitting.sort(key=lambda prompted: len(prompted.ids))
            written = self._engine.continue_all(
                [prompted.shared(seed) for prompted in fitting],
                self._rule,
                max_new_tokens=self._config.max_tokens,
                stop=self._config.stop,
                tokenizer=self._local.tokenizer,
            )
            for prompted, done in zip(fitting, written, strict=True):
                texts = tuple(
                    SampledText(index, row.text, row.finish_reason, row.tokens)
                    for index, row in zip(prompted.wanted, done.rows, strict=True)
                )
                yield ProblemSamples(prompted.problem_id, texts, self._local.fingerprint)

    def _tokenize(
        self, asked: tuple[Problem, Sequence[Evidence], range]
    ) -> _Prompted | ProblemSamples:
        """The prompt of a problem, or its abstention."""
        problem, evidence, wanted = asked
        try:
            messages = continuation_messages(
                problem,
                evidence if self._config.with_evidence else (),
                (),
                system=self._config.prompt.system,
                separator=self._config.prompt.separator,
                images=self._images.of(problem),
            )
            [ids], head = self._local.read([messages])
        except ImageError as fault:
            return ProblemSamples(problem.id, (), self._local.fingerprint, unreadable(fault))
        return _Prompted(problem.id, ids, wanted, head)

    def _over_length(self, prompted: _Prompted) -> ProblemSamples:
        detail = _too_long(len(prompted.ids), self._config, self._local.window)
        why = Abstention(AbstentionReason.OVER_LENGTH, detail)
        return ProblemSamples(prompted.problem_id, (), self._local.fingerprint, why)


def _sampling_rule(config: PolicyConfig) -> SamplingRule:
    """How tokens are chosen.

    Raises:
        InputError: a limit or a sampling option is missing or out of range.
    """
    if config.max_tokens < 1:
        raise InputError(f'The token limit "{config.max_tokens}" must be at least 1.')
    if config.temperature is None:
        raise InputError("A local policy needs a temperature.", remedy="give --temperature")
    return SamplingRule(config.temperature, top_k=config.top_k, top_p=config.top_p)


def _too_long(tokens: int, config: PolicyConfig, window: int) -> str:
    return (
        f"{tokens} tokens and {config.max_tokens} new ones do not fit in the policy's window of "
        f"{window}."
    )
