"""Checkpoints that come with code, or with files that are damaged: refused, never run."""

from __future__ import annotations

import builtins
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from inference.local.checkpoints import load_pretrained
from inference.local.vision_loading import load_processor
from inference.prompting import template_from_tokenizer
from retrieval.index.encoder import load_encoder
from retrieval.search.rerank import load_reranker
from scoring.loading import load_scorer
from tests.tiny_models import save, tiny_llama, tiny_tokenizer
from traces import InputError, ModelRefused, PrmError, ToolkitError

LOADERS: dict[str, Callable[[Path], object]] = {
    "scorer": lambda folder: load_scorer(str(folder)),
    "model": lambda folder: load_pretrained(AutoModelForCausalLM, folder),
    "processor": load_processor,
    "template": template_from_tokenizer,
    "encoder": lambda folder: load_encoder(str(folder)),
    "encoder with pooling": lambda folder: load_encoder(f"{folder}#mean"),
    "reranker": lambda folder: load_reranker(str(folder)),
}


def with_code(folder: Path) -> Path:
    """A checkpoint all parts of which name Python code that leaves a mark when it is run."""
    folder.mkdir()
    mark = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Evil: pass\n")
    models = ("", "ForCausalLM", "ForSequenceClassification")
    parts = [f"AutoModel{name}" for name in models]
    parts += ["AutoConfig", "AutoImageProcessor", "AutoProcessor"]
    code: dict[str, Any] = dict.fromkeys(parts, "evil.Evil")
    code["AutoTokenizer"] = ["evil.Evil", "evil.Evil"]
    said = {"auto_map": code, "model_type": "evil", "architectures": ["Evil"]}
    for name in ("config.json", "preprocessor_config.json", "processor_config.json"):
        (folder / name).write_text(json.dumps({**said, "processor_class": "LlavaProcessor"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({**said, "tokenizer_class": "Evil"}))
    modules = [{"idx": 0, "name": "0", "path": "", "type": "evil.Evil"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


@pytest.mark.parametrize("loader", LOADERS)
def test_code_of_a_checkpoint_is_not_run_even_on_a_terminal(
    tmp_path: Path, loader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*given: object) -> str:
        raise AssertionError("a question on the terminal")

    monkeypatch.setattr(builtins, "input", asked)
    folder = with_code(tmp_path / "evil")
    with pytest.raises(ToolkitError):
        LOADERS[loader](folder)
    assert not (folder / "ran").exists()


class Bomb:
    """Unpickling it would create a file."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self._mark), "w")


@pytest.mark.parametrize("content", ["pickle", "noise", "empty"])
def test_weights_that_are_no_weights_are_refused(tmp_path: Path, content: str) -> None:
    tokenizer = tiny_tokenizer(extra=[" ки"])
    folder = save(tmp_path, tokenizer, tiny_llama(tokenizer))
    mark = tmp_path / "ran"
    weights = {"pickle": pickle.dumps(Bomb(mark)), "noise": b"\x80\x02noise", "empty": b""}
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(weights[content])
    with pytest.raises(ModelRefused, match="cannot be loaded"):
        load_pretrained(AutoModelForCausalLM, folder)
    with pytest.raises(PrmError):
        load_scorer(str(folder))
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x08" + b"\0" * 7 + b"{}      "])
def test_damaged_safetensors_are_refused(tmp_path: Path, content: bytes) -> None:
    tokenizer = tiny_tokenizer(extra=[" ки"])
    folder = save(tmp_path, tokenizer, tiny_llama(tokenizer))
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ToolkitError):
        load_scorer(str(folder))


def test_a_pickle_is_no_encoder_and_no_reranker(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    folder = save(tmp_path, tokenizer, tiny_llama(tokenizer))
    mark = tmp_path / "ran"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    for load in (lambda: load_encoder(f"{folder}#mean"), lambda: load_reranker(str(folder))):
        with pytest.raises(InputError, match="Cannot load"):
            load()
    assert not mark.exists()
