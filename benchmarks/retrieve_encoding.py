"""Encoding against `SentenceTransformer.encode` at its defaults, on the same texts."""

from __future__ import annotations

import time

import numpy as np

from benchmarks.retrieve_vectors import Vectors
from retrieval import encode_in_batches, load_encoder
from retrieval.index.encoder import DEFAULT_MODEL, has_bfloat16_units, packaged_model


def encoding_rate(texts: list[str]) -> tuple[Vectors, float]:
    """Vectors of many passages, and how many of them were encoded a CPU second."""
    encoder = load_encoder()
    began, began_cpu = time.perf_counter(), time.process_time()
    vectors = encode_in_batches(encoder, texts)
    wall, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    print(
        f"{len(texts):,} passages encoded, {encoder.precision}: {len(texts) / wall:.1f} a second,"
        f" {len(texts) / cpu:.1f} a CPU second",
        flush=True,
    )
    return vectors, len(texts) / cpu


def against_the_library(texts: list[str]) -> float:
    """Print rates and cosines on texts that fit the window; return our speed-up in float32."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(packaged_model() or DEFAULT_MODEL),
        trust_remote_code=False,
        model_kwargs={"dtype": "float32"},
    )
    seconds = {"library": 0.0, "float32": 0.0, "bfloat16": 0.0}
    cpu = dict(seconds)
    encoders = {name: load_encoder(precision=name) for name in ("float32", "bfloat16")}
    found: dict[str, Vectors] = {}
    half = len(texts) // 2
    for part in (texts[:half], texts[half:]):  # in turns, so that a busy moment meets all
        for name in seconds:
            began, began_cpu = time.perf_counter(), time.process_time()
            if name == "library":
                rows = np.asarray(model.encode(part, normalize_embeddings=True))
            else:
                rows = encode_in_batches(encoders[name], part)
            seconds[name] += time.perf_counter() - began
            cpu[name] += time.process_time() - began_cpu
            found[name] = np.concatenate([found[name], rows]) if name in found else rows
    print("\n| encoder | a second | times the library's | in CPU time | least cosine to float32 |")
    print("|---|---|---|---|---|")
    for name in seconds:
        cosine = float(np.sum(found[name] * found["library"], axis=1).min())
        print(
            f"| {name} | {len(texts) / seconds[name]:.1f} | {seconds['library'] / seconds[name]:.2f}"
            f" | {cpu['library'] / cpu[name]:.2f} | {cosine:.6f} |",
            flush=True,
        )
    units = "has" if has_bfloat16_units() else "has no"
    print(f"\nThis processor {units} matrix units for bfloat16 (AMX): the default follows that.")
    return seconds["library"] / seconds["float32"]
