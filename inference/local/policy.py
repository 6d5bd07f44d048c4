"""A policy on this machine: every prefix of a trace continued from one prefill of the trace.

Continuation `index` of step `step_index` depends on (seed, trace id, step index, index) alone, not
on batch size, order or what else is in the batch; choices too close to be sure of are counted.

Whole solutions from a policy on this machine: one prefill a problem, forked over its candidates.

Candidate `index` of a problem depends on (seed, problem id, index) alone, not on batch or order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from formats.files.images import EncodedImage, ImageError
from inference.images import ProblemImages, unreadable
from inference.local.engines import engine_for
from inference.local.model import load_local_model
from inference.local.shared_attention import common_tokens
from inference.local.shared_prefix import Row, SharedTrace, WrittenTrace
from inference.local.token_choice import SamplingRule, noise_key
from inference.local.vision import ImageHead
from inference.prompting import ContinuationPrompt, continuation_messages
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
"""Traces read ahead, so that traces of like length share a batch."""


@dataclass(frozen=True, slots=True)
class _Tokenised:
    """A trace's prefixes as token ids."""

    trace_id: str
    prefixes: tuple[tuple[int, ...], ...]
    """One per step; the last one holds the whole trace."""
    head: ImageHead | None
    """What they all begin with where images are shown."""

    @property
    def longest(self) -> int:
        """Tokens of the longest prefix."""
        return max(map(len, self.prefixes))

    def shared(self, wanted: Sequence[Wanted], *, seed: int, keep: bool = False) -> SharedTrace:
        """What the engine writes: a row a continuation, each behind its cut of the longest prefix."""
        whole = self.prefixes[max(one.step_index for one in wanted)]
        key = noise_key(seed, self.trace_id)
        rows = []
        for one in wanted:
            ids = self.prefixes[one.step_index]
            # At least the last token is fed to each row: its output is the first choice.
            cut = min(common_tokens(ids, whole), len(ids) - 1)
            rows += [
                Row(cut, ids[cut:], key, (one.step_index, index))
                for index in range(one.first, one.first + one.count)
            ]
        return SharedTrace(whole, tuple(rows), self.trace_id if keep else None, self.head)


class LocalPolicy:
    """Continues prefixes of traces with a transformers model; implements `labeling.stages.Policy`."""

    def __init__(
        self,
        model_path: str,
        *,
        spec: str,
        prompt: ContinuationPrompt,
        max_new_tokens: int,
        temperature: float,
        top_p: float | None = None,
        top_k: int | None = None,
        stop: Sequence[str] = (),
        with_evidence: bool = False,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        cache_tokens: int | None = None,
        batch_rows: int | None = None,
        images: ProblemImages | None = None,
    ) -> None:
        """Load the model.

        Args:
            model_path: folder or hub id of a causal language model, or of an image-text model.
            spec: the policy as the user named it.
            prompt: what surrounds the question and the prefix.
            max_new_tokens: limit of one continuation, at least 1.
            temperature: 0 is greedy.
            top_p: nucleus, in (0, 1]; None for all tokens.
            top_k: only the k most probable tokens; None for all.
            stop: strings that end a continuation (cut off from the text).
            with_evidence: whether the problem's evidence stands before its question.
            device: a torch device; None takes CUDA where there is one, else the processor.
            dtype: of weights and caches.
            cache_tokens: key-value positions kept at once; None derives it from the memory.
            batch_rows: continuations written together at most; None derives it from the memory.
            images: loads the images of problems; None shows them, relative paths from the current
                folder, to a model that takes images, and no others.

        Raises:
            InputError: a limit or a sampling number out of range.
            ModelRefused: the model cannot be loaded or driven.
        """
        if max_new_tokens < 1:
            raise InputError(f'The token limit "{max_new_tokens}" must be at least 1.')
        self._rule = SamplingRule(temperature, top_k=top_k, top_p=top_p)
        self._spec, self._prompt, self._stop = spec, prompt, tuple(stop)
        self._max_new_tokens, self._with_evidence = max_new_tokens, with_evidence
        self._local = load_local_model(model_path, device=device, dtype=dtype)
        self._engine = engine_for(self._local, cache_tokens=cache_tokens, batch_rows=batch_rows)
        self._images = images or ProblemImages(shown=self._local.vision is not None)

    @property
    def spec(self) -> str:
        """The policy as the user named it."""
        return self._spec

    @property
    def resolved_model(self) -> str | None:
        """Fingerprint of the weights; None if it cannot be told."""
        return self._local.fingerprint

    @property
    def near_ties(self) -> int:
        """Choices so far in which the two best lay within 1e-4: another batch may choose otherwise."""
        return self._engine.near_ties

    @property
    def slow_because(self) -> str | None:
        """Why every continuation is written alone and slowly; None where prefixes are shared."""
        return self._engine.slow_because

    def continue_traces(
        self, contexts: Iterable[TraceInContext], *, k: int, seed: int
    ) -> Iterator[TraceContinuations]:
        """Continue every prefix of every trace `k` times; yield traces as they are done.

        A trace that does not fit into the model's window together with a whole continuation is
        abstained from (`over_length`, image tokens count); nothing is ever cut. One with an image
        that cannot be read is `unreadable`.

        Args:
            contexts: the traces; read ahead by some hundred.
            k: continuations a prefix, at least 1.
            seed: of the sampling noise.
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
        """Draw just these continuations, all traces together; yield every trace once.

        Continuation `i` of a step is the one that `continue_traces` draws. A trace that does not fit
        is `over_length`, by its whole length: so a trace abstains under every strategy or under none.
        Prefilled tokens are kept for the next round, as far as the budget goes, until `release`.
        """
        # Images are held from reading to prefilling: not those of all traces of a round at once.
        size = len(asked) if self._local.vision is None else _SORTED_TOGETHER
        for start in range(0, len(asked), max(size, 1)):
            yield from self._continue(asked[start : start + size], seed=seed, keep=True)

    def release(self, trace_ids: Sequence[str]) -> None:
        """Let go what is kept of these traces."""
        self._engine.release(trace_ids)

    def _continue(
        self,
        asked: Sequence[tuple[TraceInContext, Sequence[Wanted]]],
        *,
        seed: int,
        keep: bool,
    ) -> Iterator[TraceContinuations]:
        fitting: list[tuple[_Tokenised, Sequence[Wanted]]] = []
        for context, wanted in asked:
            try:
                trace = self._tokenise(context, self._images.of(context.problem))
            except ImageError as fault:
                yield self._abstained(context.trace.id, unreadable(fault))
                continue
            if trace.longest + self._max_new_tokens > self._local.window:
                yield self._over_length(trace)
            else:
                fitting.append((trace, wanted))
        fitting.sort(key=lambda pair: pair[0].longest)
        shared = [trace.shared(wanted, seed=seed, keep=keep) for trace, wanted in fitting]
        written = self._engine.continue_all(
            shared,
            self._rule,
            max_new_tokens=self._max_new_tokens,
            stop=self._stop,
            tokenizer=self._local.tokenizer,
        )
        for (trace, _), one, done in zip(fitting, shared, written, strict=True):
            yield self._continuations(trace, one, done)

    def _tokenise(
        self, context: TraceInContext, images: tuple[EncodedImage, ...] = ()
    ) -> _Tokenised:
        evidence = context.evidence if self._with_evidence else ()
        conversations = [
            continuation_messages(
                context.problem,
                evidence,
                context.trace.prefix(step_index),
                system=self._prompt.system,
                separator=self._prompt.separator,
                images=images,
            )
            for step_index in range(len(context.trace.steps))
        ]
        prefixes, head = self._local.read(conversations)
        return _Tokenised(context.trace.id, tuple(prefixes), head)

    def _over_length(self, trace: _Tokenised) -> TraceContinuations:
        detail = (
            f"{trace.longest} tokens and {self._max_new_tokens} new ones do not fit into the "
            f"policy's window of {self._local.window}."
        )
        return self._abstained(trace.trace_id, Abstention(AbstentionReason.OVER_LENGTH, detail))

    def _abstained(self, trace_id: str, why: Abstention) -> TraceContinuations:
        return TraceContinuations(trace_id, (), self._local.fingerprint, why)

    def _continuations(
        self, trace: _Tokenised, shared: SharedTrace, written: WrittenTrace
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


# --- Whole solutions from a policy on this machine: one prefill a problem, forked over its


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
        """Load the model; arguments as those of `inference.local.policy.LocalPolicy`.

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
