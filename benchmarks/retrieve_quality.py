"""What retrieval finds and what packing keeps of it: PubMedQA and MedQuAD, in real parts.

    python -m benchmarks.retrieve_quality [--questions N] [--topics N] [--labs N]

PubMedQA: the paragraphs of 1,000 abstracts are the passages; to a question the paragraphs of its
own abstract are relevant. Dense, lexical and hybrid search of the same run, the intervals of the
differences by 2,000 paired bootstraps over questions.

MedQuAD: what rules of packing keep, see benchmarks/packing.py.

The lab: how often the passage that decides a problem comes first, and how often any passage of the
right guideline does; made-up drug names look alike to an encoder.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.packing import interval, medquad, packing
from evaluation import RankedProblem, evaluate_rankings, ndcg
from lab import build_workspace
from retrieval import (
    Dense,
    Encoder,
    LexicalIndex,
    PassageIndex,
    PassageRetriever,
    Query,
    RetrievalConfig,
    encode_in_batches,
    load_encoder,
    text_to_embed,
)
from retrieval.documents import make_document, split_document
from traces import Passage


def data_folder() -> Path:
    """The folder with the public data.

    Raises:
        SystemExit: it is not there.
    """
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("STEPGOLD_REAL_DATA") or default)
    if not (folder / "pubmedqa").is_dir():
        raise SystemExit("no public data: set STEPGOLD_REAL_DATA")
    return folder


def pubmedqa(data: Path, questions: int, encoder: Encoder) -> list[str]:
    """Table of the three ways to search, on the first `questions` questions."""
    rows = json.loads((data / "pubmedqa" / "ori_pqal.json").read_text(encoding="utf-8"))
    chosen = dict(list(rows.items())[:questions])
    paragraphs = [(key, text) for key, row in chosen.items() for text in row["CONTEXTS"]]
    stored = {
        number: Passage("pubmedqa", f"{key}#{number}", 0, 0, len(text), text)
        for number, (key, text) in enumerate(paragraphs)
    }
    grades: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for passage in stored.values():
        grades[passage.document.split("#")[0]][passage.document] = 1
    lines = [
        f"PubMedQA, {len(chosen)} questions over {len(stored)} paragraphs, {encoder.name}",
        "",
        "| search | nDCG@10 [95%] | recall@10 | recall@100 | MRR | nDCG@10 minus dense [95%] |",
        "|---|---|---|---|---|---|",
    ]
    base: list[float] = []
    for mode, searching in _ways(stored, encoder, k=100).items():
        asked = [(key, (Query(row["QUESTION"]),)) for key, row in chosen.items()]
        ranked = [
            RankedProblem(tuple(hit.passage.document for hit in found), grades[key])
            for key, found in searching.retrieve_for(asked)
        ]
        gains = [ndcg(problem, 10) for problem in ranked]
        base = base or gains
        difference = interval([own - other for own, other in zip(gains, base, strict=True)])
        lines.append(_row(mode, ranked, "-" if mode == "dense" else difference))
    return lines


def _row(mode: str, ranked: Sequence[RankedProblem], difference: str) -> str:
    measures = evaluate_rankings(ranked, recall_at=(10, 100))
    low_high = measures["ndcg@10_ci95"]
    shown = ", ".join(f"{bound:.3f}" for bound in low_high) if isinstance(low_high, list) else ""
    return (
        f"| {mode} | {measures['ndcg@10']:.4f} [{shown}] | {measures['recall@10']:.4f}"
        f" | {measures['recall@100']:.4f} | {measures['mrr']:.4f} | {difference} |"
    )


def lab(labs: int, problems: int, distractors: int, encoder: Encoder) -> list[str]:
    """Table of the ways to search on several labs as the demo builds them."""
    hits: defaultdict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for seed in range(labs):
        built = build_workspace(seed, problems, n_distractors=distractors)
        documents = [
            make_document(each.name, each.text.partition("\n")[0].strip("# "), each.text, "")
            for each in built.documents
        ]
        split = (split_document(each, corpus="lab", target_tokens=160) for each in documents)
        stored = dict(enumerate(passage for part in split for passage in part))
        searching = _ways(stored, encoder, k=1)
        asked = [problem.question for problem in built.problems]
        for mode, retriever in searching.items():
            for problem, [first] in zip(built.problems, retriever.search_many(asked), strict=True):
                decisive = problem.decisive_passage.split(". ")[0] in first.passage.text
                right = first.passage.document == f"{problem.drug.lower()}.md"
                hits[mode].append((decisive, right))
    lines = [
        f"The lab, {labs} times {problems} problems and {distractors} further documents",
        "",
        "| search | deciding passage first | right guideline first |",
        "|---|---|---|",
    ]
    for mode, found in hits.items():
        decisive, right = np.mean(found, axis=0)
        lines.append(f"| {mode} | {decisive:.3f} | {right:.3f} |")
    return lines


def _ways(stored: Mapping[int, Passage], encoder: Encoder, k: int) -> dict[str, PassageRetriever]:
    """A retriever for each mode over the same passages."""
    texts = [text_to_embed(passage) for passage in stored.values()]
    index = PassageIndex.build(list(stored), encode_in_batches(encoder, texts))
    lexical = LexicalIndex.build(
        list(stored),
        [each.title for each in stored.values()],
        [each.text for each in stored.values()],
    )

    def by_id(ids: Collection[int]) -> dict[int, Passage]:
        return {each: stored[each] for each in ids}

    return {
        mode: PassageRetriever(
            RetrievalConfig(k=k, mode=mode), by_id, dense=Dense(index, encoder), lexical=lexical
        )
        for mode in ("dense", "bm25", "hybrid")
    }


def tables(questions: int, topics: int, labs: int) -> list[str]:
    """All tables as markdown lines."""
    data, encoder = data_folder(), load_encoder()
    drawn = medquad(data, topics, encoder.count_tokens)
    return [
        *pubmedqa(data, questions, encoder),
        "",
        *packing(drawn, encoder.count_tokens),
        "",
        *lab(labs, 16, 10, encoder),
        "",
        *lab(labs, 60, 60, encoder),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=1000, help="questions of PubMedQA")
    parser.add_argument("--topics", type=int, default=300, help="diseases of MedQuAD")
    parser.add_argument("--labs", type=int, default=5, help="labs of each size")
    chosen = parser.parse_args()
    print("\n".join(tables(chosen.questions, chosen.topics, chosen.labs)))


if __name__ == "__main__":
    main()
