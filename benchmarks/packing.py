"""What four rules of packing keep of what was retrieved: MedQuAD into 3,072 tokens.

Whole answers of 50 to 1,500 tokens are the passages; a query names a disease, and all answers about
that disease are relevant (the disease is read off the published titles, which are not searched).
The first 32 by BM25 are packed, counted with MiniLM's tokenizer. A relevant passage counts as kept
also where it is cut; the share of the relevant tokens that is kept stands beside it.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation import RankedProblem, recall_within
from retrieval import LexicalIndex, PackedEvidence, pack_evidence, pack_like_medprm
from retrieval.documents import TokenCounter, cut_to_tokens
from traces import Evidence, Passage

RESAMPLES = 2000
BUDGET = 3072
CAP = 512
DEPTH = 32
_TOPIC = re.compile(
    r"^(?:What (?:is|are) \(are\) |What (?:are|is) the (?:symptoms|treatments|outlook|genetic changes)"
    r"[\w ]*? (?:of|for|related to) |What causes |What is |Is |How to (?:diagnose|prevent) "
    r"|How many people are affected by |Who is at risk for )(?P<topic>.+?)(?: inherited)? ?\?+ ?\??$"
)


def interval(differences: Sequence[float]) -> str:
    """Mean of paired differences with its 95% bootstrap interval."""
    values = np.asarray(differences)
    draws = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return f"{values.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


@dataclass(frozen=True)
class Topic:
    """A disease, what was found for it, and which of that is about it."""

    found: tuple[Evidence, ...]
    relevant: frozenset[str]


def medquad(data: Path, topics: int, count: TokenCounter) -> list[Topic]:
    """Topics with at least three answers of 50 to 1,500 tokens, and the first 32 by BM25 for each."""
    texts: dict[str, str] = {}
    about: defaultdict[str, list[str]] = defaultdict(list)
    for name in ("nih", "rare_diseases"):
        with gzip.open(data / "medquad" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                named = _TOPIC.match(row["title"].strip())
                if named and 50 <= count(row["content"]) <= 1500:
                    texts[row["id"]] = row["content"]
                    about[named["topic"].strip()].append(row["id"])
    names = list(texts)
    lexical = LexicalIndex.build(range(len(names)), [""] * len(names), list(texts.values()))
    wanted = sorted(topic for topic, ids in about.items() if len(ids) >= 3)
    drawn = random.Random(0).sample(wanted, min(topics, len(wanted)))
    rankings = lexical.search(drawn, DEPTH)
    return [
        Topic(
            tuple(
                Evidence(
                    Passage("medquad", names[i], 0, 0, len(texts[names[i]]), texts[names[i]]),
                    None,
                    rank,
                )
                for rank, i in enumerate(ranking.ids.tolist())
            ),
            frozenset(about[topic]),
        )
        for topic, ranking in zip(drawn, rankings, strict=True)
    ]


def skip_and_continue(
    evidence: Sequence[Evidence], count: TokenCounter, cap: int | None
) -> PackedEvidence:
    """The alternative: whole passages, or their first `cap` tokens, as long as they fit."""
    kept: list[Evidence] = []
    text = ""
    for item in evidence:
        passage = item.passage
        if cap is not None and count(passage.text) > cap:
            _, end = cut_to_tokens(passage.text, cap, count)[0]
            passage = replace(passage, text=passage.text[:end], end=end)
        longer = f"{text}Document {len(kept) + 1}: {passage.text}\n\n"
        if count(longer) <= BUDGET:
            kept.append(replace(item, passage=passage))
            text = longer
    return PackedEvidence(tuple(kept), (), text, count(text), BUDGET)


def packing(topics: Sequence[Topic], count: TokenCounter) -> list[str]:
    """Table of the packing rules."""
    rules: Mapping[str, Callable[[Sequence[Evidence]], PackedEvidence]] = {
        "ours": lambda found: pack_evidence(found, budget=BUDGET, count_tokens=count),
        f"skip and continue, cap {CAP}": lambda found: skip_and_continue(found, count, CAP),
        "skip and continue": lambda found: skip_and_continue(found, count, None),
        "break (published)": lambda found: pack_like_medprm(found, count_tokens=count),
    }
    lengths: NDArray[np.int64] = np.array(
        [count(each.passage.text) for topic in topics for each in topic.found]
    )
    lines = [
        f"MedQuAD, {len(topics)} diseases, the first {DEPTH} answers of 50 to 1,500 tokens each"
        f" (median {int(np.median(lengths))}), packed into {BUDGET} tokens",
        "",
        "| rule | relevant recall | minus ours [95%] | relevant tokens kept | passages | budget used |",
        "|---|---|---|---|---|---|",
    ]
    ours: list[float] = []
    for name, rule in rules.items():
        packed = [rule(topic.found) for topic in topics]
        recalls = [
            recall_within(_ranked(each, topic), DEPTH)
            for each, topic in zip(packed, topics, strict=True)
        ]
        ours = ours or recalls
        difference = interval([one - other for one, other in zip(recalls, ours, strict=True)])
        tokens = np.mean(
            [_tokens_kept(each, topic, count) for each, topic in zip(packed, topics, strict=True)]
        )
        used = np.mean([each.tokens / BUDGET for each in packed])
        passages = np.mean([len(each.kept) for each in packed])
        lines.append(
            f"| {name} | {np.mean(recalls):.4f} | {'-' if name == 'ours' else difference}"
            f" | {tokens:.4f} | {passages:.1f} | {used:.3f} |"
        )
    return lines


def _ranked(packed: PackedEvidence, topic: Topic) -> RankedProblem:
    documents = tuple(each.passage.document for each in packed.kept)
    return RankedProblem(documents, dict.fromkeys(topic.relevant, 1))


def _tokens_kept(packed: PackedEvidence, topic: Topic, count: TokenCounter) -> float:
    """Of the tokens of the relevant passages found, the share that is in the packed ones."""

    def tokens(evidence: Sequence[Evidence]) -> int:
        return sum(
            count(each.passage.text) for each in evidence if each.passage.document in topic.relevant
        )

    found = tokens(topic.found)
    return tokens(packed.kept) / found if found else 0.0
