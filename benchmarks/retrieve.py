"""Retrieval, measured: `make bench-retrieve`, or `python -m benchmarks.retrieve --only flat`.

Parts: `encode`, `flat`, `hnsw`, `update`, `kill`; what is found is measured by
`benchmarks.retrieve_quality`. Each figure is a ratio against the alternative it names, timed in turns
in the same run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import retrieve_encoding, retrieve_speed, retrieve_update
from benchmarks.retrieve_vectors import (
    RealTexts,
    Vectors,
    enlarged,
    fitting,
    random_units,
    real_texts,
)
from retrieval import load_encoder

PARTS = ("encode", "flat", "hnsw", "update", "kill")


def arguments() -> argparse.Namespace:
    """The sizes; the defaults are those of the figures in docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--sizes", type=int, nargs="*", default=[100_000, 500_000])
    parser.add_argument("--corpus", type=int, default=100_000, help="passages of update and kill")
    parser.add_argument("--encode", type=int, default=5000, help="passages encoded for the rate")
    parser.add_argument("--compare", type=int, default=1000, help="of them against the library")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--keep", type=Path, default=None, help="file for encodings of this run")
    parser.add_argument("--data", type=Path, default=None, help="folder of the public data")
    return parser.parse_args()


def main() -> int:
    """Run the parts that were asked for."""
    options = arguments()
    data = options.data or Path(
        os.environ.get("STEPGOLD_REAL_DATA")
        or Path(__file__).resolve().parents[2] / "shared" / "data"
    )
    texts = real_texts(data, options.encode, retrieve_speed.BATCH)
    vectors, queries, rate = _encoded(options, texts)
    if "encode" in options.only:
        fit = fitting(texts.passages, load_encoder())
        retrieve_encoding.against_the_library(fit[: options.compare])
    if "flat" in options.only:
        _flat(options, vectors, queries)
    if "hnsw" in options.only:
        _hnsw(options, vectors, queries)
    if {"update", "kill"} & set(options.only):
        _update(options, texts, vectors, queries, rate)
    return 0


def _encoded(options: argparse.Namespace, texts: RealTexts) -> tuple[Vectors, Vectors, float]:
    """Vectors of passages and questions and the passages' rate, from an earlier run if kept."""
    if options.keep is not None and options.keep.exists():
        with np.load(options.keep) as kept:
            return kept["vectors"], kept["queries"], float(kept["rate"])
    print("## Encoding\n")
    queries = load_encoder().encode(texts.questions, query=True)
    vectors, rate = retrieve_encoding.encoding_rate(texts.passages)
    if options.keep is not None:
        np.savez(options.keep, vectors=vectors, queries=queries, rate=rate)
    return vectors, queries, rate


def _flat(options: argparse.Namespace, vectors: Vectors, queries: Vectors) -> None:
    print(f"\n## Exact search, {len(queries)} queries in one batch, k = 10\n")
    print("| rows | search | bare product (fastest of four) | ratio | top ten as in float64 |")
    print("|---|---|---|---|---|")
    for size in options.sizes:
        rows = enlarged(vectors, size)
        retrieve_speed.flat_search(rows, queries, rounds=options.rounds)
        if size == options.sizes[0]:
            default = retrieve_speed.default_faiss(rows, queries)
    print(
        f"\nFAISS's own search with its defaults, {options.sizes[0]:,} rows: {default * 1e3:.0f} ms"
    )


def _hnsw(options: argparse.Namespace, vectors: Vectors, queries: Vectors) -> None:
    print("\n## One query at a time: HNSW at recall@10 of .95 against exact search\n")
    print("| vectors | rows | efSearch | recall@10 | exact | HNSW | times | in a batch | build |")
    print("|---|---|---|---|---|---|---|---|---|")
    size = options.sizes[0]
    name = f"PubMedQA questions over {len(vectors):,} of its and MedQuAD's passages, enlarged"
    retrieve_speed.single_queries(name, enlarged(vectors, size), queries)
    few = max(1000, size // 10)
    retrieve_speed.single_queries(
        "random", random_units(few, vectors.shape[1]), random_units(100, vectors.shape[1], 99)
    )


def _update(
    options: argparse.Namespace, texts: RealTexts, vectors: Vectors, queries: Vectors, rate: float
) -> None:
    print("\n## A corpus through `stepgold index`\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        workspace = Path(name) / "workspace"
        rows = enlarged(vectors, options.corpus)
        really = max(1, options.corpus // 100)
        retrieve_update.build_and_add(workspace, texts.passages, rows, rate, really)
        if "kill" in options.only:
            retrieve_update.kills(workspace, texts.passages, queries, times=options.kills)


if __name__ == "__main__":
    sys.exit(main())
