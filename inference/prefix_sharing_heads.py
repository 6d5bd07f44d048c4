"""Beginnings with images as keys and values: computed once a problem by the model's own forward pass.

What an architecture does with images (features merged in, tokens of an image that see each other,
features added to deeper layers, positions in rows and columns) happens here and is its own code. What
stands behind is text, which sees all of it, one position after the other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from inference.cache_argument import kept_in
from inference.prefix_sharing import ATTENTION, PrefixLayer
from inference.prefix_sharing_kept import Kept
from inference.vision import ImageHead, VisionReader
from inference.vision_embedding import positions_of, run, text_model, watched


class ImageHeads:
    """Prefilled heads of one image-text model, those used last kept as far as there is room."""

    def __init__(self, model: PreTrainedModel, reader: VisionReader) -> None:
        """Give the text model inside the shared-prefix attention; heads get the one it had.

        Raises:
            ModelRefused: it has no text model of its own inside.
        """
        self._model, self._reader, self._inner = model, reader, text_model(model)
        self._own: str = self._inner.config._attn_implementation or "eager"
        self._inner.set_attn_implementation(ATTENTION)
        self._kept: OrderedDict[ImageHead, Kept] = OrderedDict()
        self.budget = 0
        """Key-value positions kept at most; the head used last stays in any case."""

    def let_go(self) -> None:
        """Keep nothing, and give the model the attention back that it had."""
        self._kept.clear()
        self._inner.set_attn_implementation(self._own)

    def of(self, head: ImageHead) -> tuple[Kept, int]:
        """A head's keys and values, and how many tokens were computed for it: all, or none."""
        computed = 0
        if head not in self._kept:
            self._kept[head] = self._prefill(head)
            computed = len(head.ids)
        self._kept.move_to_end(head)
        while len(self._kept) > 1 and sum(map(_tokens, self._kept)) > self.budget:
            self._kept.popitem(last=False)
        return self._kept[head], computed

    @contextmanager
    def native(self) -> Iterator[None]:
        """Within, the text model has the attention that it was loaded with."""
        self._inner.set_attn_implementation(self._own)
        try:
            yield
        finally:
            self._inner.set_attn_implementation(ATTENTION)

    @torch.inference_mode()
    def _prefill(self, head: ImageHead) -> Kept:
        cache = DynamicCache()
        with self.native(), watched(self._inner) as given:
            inputs = self._reader.inputs(head)
            run(self._model, inputs, **kept_in(self._model.base_model, cache))
        positions = positions_of(given, len(head.ids), self._model.device)
        layers: list[Any] = cache.layers
        whole = tuple(PrefixLayer(one.keys.contiguous(), one.values.contiguous()) for one in layers)
        return Kept(head.ids, whole, int(positions.max()) + 1 - len(head.ids))


def _tokens(head: ImageHead) -> int:
    return len(head.ids)
