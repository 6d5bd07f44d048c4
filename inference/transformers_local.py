"""Models on this machine, loaded by transformers, and the text model over them (`hf:PATH_OR_ID`)."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from inference.chat_tokens import conversation_ids
from inference.images import has_images
from inference.noise import noise_key
from inference.prefix_sharing import ATTENTION
from inference.prefix_sharing_choice import SamplingRule
from inference.prefix_sharing_engine import PrefixEngine, SharedTrace
from inference.prefix_sharing_wave import Row
from inference.protocol import GenerationRequest
from inference.replies import over_length_reply
from traces.errors import ModelRefused
from traces.records import ModelReply, Usage

_FINGERPRINT_LIMIT = 1 << 30
"""Weights up to this many bytes are hashed to say which model answered."""
_UNBOUNDED = 1 << 30
"""A tokenizer without a length limit states an absurd one; from here on it counts as none."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A causal language model with its tokenizer, ready on a device."""

    model: PreTrainedModel
    """In evaluation mode, with the shared-prefix attention."""
    tokenizer: PreTrainedTokenizerBase
    """Its tokenizer."""
    window: int
    """Most tokens it can look at, prompt and continuation together."""
    end_ids: frozenset[int]
    """Token ids that end a turn."""
    fingerprint: str | None
    """Which weights these are; None if that cannot be told cheaply."""


def checkpoint_folder(name: str) -> Path:
    """The folder of a checkpoint: the path itself, or where the hub's snapshot lies.

    Raises:
        ModelRefused: neither a folder nor a model that the hub (or its offline cache) gives.
    """
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name))
    except (OSError, ValueError, HFValidationError) as fault:
        raise ModelRefused(
            f'There is no model "{name}": it is no folder, and the hub does not give it.',
            remedy="give a folder with config.json and *.safetensors, or a model id of the hub",
        ) from fault


def load_pretrained(auto_class: Any, folder: Path, **options: Any) -> Any:
    """Load with a transformers auto class; nothing may be missing from the checkpoint.

    Raises:
        ModelRefused: unreadable, of an unknown kind, or some weights would be made up.
    """
    try:
        if auto_class is AutoTokenizer:
            return auto_class.from_pretrained(folder)
        # The weights' own progress bar would break into the command's.
        disable_progress_bar()  # type: ignore[no-untyped-call]
        model, report = auto_class.from_pretrained(
            folder, output_loading_info=True, trust_remote_code=False, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as fault:
        reason = str(fault).strip().splitlines() or [type(fault).__name__]
        raise ModelRefused(
            f'The model in "{folder}" cannot be loaded: {reason[0][:200]}',
            remedy="check that the folder holds a complete transformers checkpoint",
        ) from fault
    missing = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if missing:
        raise ModelRefused(
            f'The model in "{folder}" lacks {len(missing)} weights, "{missing[0]}" among them.',
            remedy="check that the checkpoint is complete and of this kind",
        )
    return model


def load_local_model(
    name: str, *, device: str | None = None, dtype: torch.dtype = torch.float32
) -> LocalModel:
    """Load a causal language model from a folder or from the hub.

    Args:
        name: folder or hub id.
        device: a torch device; None takes CUDA where there is one, else the processor.
        dtype: of weights and caches; choices are always made in float32.

    Raises:
        ModelRefused: it cannot be loaded.
    """
    folder = checkpoint_folder(name)
    tokenizer = load_pretrained(AutoTokenizer, folder)
    model = load_pretrained(
        AutoModelForCausalLM, folder, dtype=dtype, attn_implementation=ATTENTION
    )
    model = model.to(best_device(device)).eval()
    return LocalModel(
        model=model,
        tokenizer=tokenizer,
        window=model_window(model.config, tokenizer),
        end_ids=_end_ids(model, tokenizer),
        fingerprint=weights_fingerprint(folder),
    )


def best_device(device: str | None) -> torch.device:
    """The device asked for, or CUDA where there is one, else the processor."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def model_window(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """The least of position limit, sliding window and tokenizer limit, in tokens."""
    limits = [getattr(config, "max_position_embeddings", None), tokenizer.model_max_length]
    if getattr(config, "use_sliding_window", True):
        limits.append(getattr(config, "sliding_window", None))
    return min((limit for limit in limits if limit and limit < _UNBOUNDED), default=_UNBOUNDED)


def weights_fingerprint(folder: Path) -> str | None:
    """`sha256:...` over the safetensors files; the hub's snapshot name where they are large."""
    files = sorted(folder.glob("*.safetensors"))
    if sum(file.stat().st_size for file in files) > _FINGERPRINT_LIMIT or not files:
        return folder.name if folder.parent.name == "snapshots" else None
    digest = sha256()
    for file in files:
        digest.update(file.read_bytes())
    return f"sha256:{digest.hexdigest()[:16]}"


def _end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every id that ends a turn, as model, generation defaults and tokenizer say."""
    stated = [tokenizer.eos_token_id, model.config.eos_token_id]
    if model.generation_config is not None:
        stated.append(model.generation_config.eos_token_id)
    ids = {i for item in stated for i in (item if isinstance(item, Sequence) else [item])}
    return frozenset(i for i in ids if isinstance(i, int))


class LocalTextModel:
    """A local model behind the `TextModel` protocol: chat template in, one reply out.

    Greedy where the request gives no temperature. A JSON schema is not enforced: the reply is
    read as it comes. A prompt that does not fit is answered with the finish reason `over_length`.
    """

    def __init__(self, name: str, *, spec: str, device: str | None = None) -> None:
        """Load the model.

        Args:
            name: folder or hub id.
            spec: the model as the user named it.
            device: as for `load_local_model`.

        Raises:
            ModelRefused: it cannot be loaded or driven.
        """
        self._local = load_local_model(name, device=device)
        self._engine = PrefixEngine(self._local.model, self._local.end_ids)
        self._spec = spec
        self._lock = threading.Lock()

    @property
    def spec(self) -> str:
        """The model as the user named it."""
        return self._spec

    @property
    def hosted(self) -> bool:
        """False: no text leaves this machine."""
        return False

    @property
    def concurrency(self) -> int:
        """One: the device is busy with one request at a time."""
        return 1

    def count_tokens(self, text: str) -> int:
        """Tokens of a text by the model's own tokenizer, special tokens not counted."""
        tokenizer = self._local.tokenizer
        return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    async def generate(self, request: GenerationRequest) -> ModelReply:
        """Answer one request; the event loop stays free meanwhile."""
        return await asyncio.to_thread(self._answer, request)

    async def aclose(self) -> None:
        """Nothing to release."""

    def _answer(self, request: GenerationRequest) -> ModelReply:
        if has_images(request):
            raise ModelRefused(
                f'"{self._spec}" is a text model: it cannot see the images of a problem.',
                remedy="take gemini:MODEL or openai:MODEL, or add --ignore-images",
            )
        tokenizer = self._local.tokenizer
        ids = conversation_ids(tokenizer, [request.messages])[0]
        room = self._local.window - len(ids)
        if room < 1:
            window = self._local.window
            return over_length_reply(self._spec, f"{len(ids)} tokens do not fit into {window}.")
        rule = SamplingRule(request.temperature or 0.0, top_p=request.top_p)
        words = json.dumps([[m.role, m.text] for m in request.messages])
        row = Row(
            len(ids) - 1, ids[-1:], noise_key(request.seed or 0, words), (0, request.sample_index)
        )
        with self._lock:
            [done] = self._engine.continue_all(
                [SharedTrace(ids, (row,))],
                rule,
                max_new_tokens=min(request.max_tokens, room),
                stop=request.stop,
                tokenizer=tokenizer,
            )
        [written] = done.rows
        return ModelReply(
            text=written.text,
            finish_reason=written.finish_reason,
            model=self._spec,
            resolved_model=self._local.fingerprint,
            usage=Usage(input_tokens=len(ids), output_tokens=written.tokens),
            usd=0.0,
            raw=written.text,
        )
