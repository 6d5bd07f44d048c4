"""The dataset card of a release, in the format of the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stepgold.results import counted

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def card_text(facts: Mapping[str, Any]) -> str:
    """The card that says what `release.json` has."""
    sections = [
        ("", _summary(facts)),
        ("Splits", _splits(facts)),
        ("Labels", _labelers(facts)),
        ("Agreement", _agreement(facts)),
        ("Quality", _quality(facts)),
        ("Left out", _left_out(facts)),
        ("Sources and licenses", _sources(facts)),
        ("Cost", _costs(facts)),
        ("Contamination", _contamination(facts)),
        ("Known limits", _limits(facts)),
        ("Check", ["`sha256sum -c SHA256SUMS`, or `stepgold verify DIR`."]),
    ]
    parts = [f"---\n{_head(facts)}\n---\n\n# {facts['dataset']}"]
    for title, lines in sections:
        body = "\n".join(lines)
        if body:
            parts.append(f"## {title}\n\n{body}" if title else body)
    return "\n\n".join(parts) + "\n"


def _head(facts: Mapping[str, Any]) -> str:
    """The YAML that the Hub and `load_dataset` read."""
    from huggingface_hub import DatasetCardData

    splits = facts["splits"]
    size = next((name for limit, name in _SIZES if facts["total"]["traces"] < limit), "n>1M")
    data = DatasetCardData(
        pretty_name=facts["dataset"],
        license=facts["license"] or "unknown",
        task_categories=["text-classification"],
        tags=["process-reward-model", "step-labels", "stepgold"],
        size_categories=[size],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": name, "path": f"{name}.jsonl"} for name in splits],
            }
        ],
        dataset_info={
            "splits": [
                {"name": name, "num_examples": counts["traces"]} for name, counts in splits.items()
            ]
        },
    )
    return data.to_yaml().strip()


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = [_cells(row) for row in rows]
    return [_cells(head), "|---" * len(head) + "|", *lines] if lines else []


def _cells(values: Sequence[Any]) -> str:
    texts = ("-" if value is None else str(value) for value in values)
    return "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in texts) + " |"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _summary(facts: Mapping[str, Any]) -> list[str]:
    total = facts["total"]
    return [
        f"{counted(total['traces'], 'reasoning trace')} of {counted(total['problems'], 'problem')}"
        f" with labels on {counted(total['steps'], 'step')} by `{facts['labeler']}`, in the format"
        f" `{facts['format']}`. Written by {facts['made_with']}."
    ]


def _splits(facts: Mapping[str, Any]) -> list[str]:
    head = ("split", "problems", "traces", "steps", "with error", "without error", "open",
            "correct", "incorrect", "neutral")  # fmt: skip
    rows = []
    for name, counts in [*facts["splits"].items(), ("total", facts["total"])]:
        verdicts = counts["verdicts"]
        figures = [counts[key] for key in ("problems", "traces", "steps", "with_error")]
        more = [counts["without_error"], counts["open"]]
        rows.append((name, *figures, *more, *(verdicts[one] for one in verdicts)))
    shares = ", ".join(f"{name} {share:.2f}" for name, share in facts["shares"].items())
    moved = facts["near_duplicates"]["moved"]
    return [
        *_table(head, rows),
        "",
        f"All traces of a problem are in one split, chosen by the SHA-256 of its id ({shares})."
        f" {counted(len(moved), 'problem')} joined the split of a near-duplicate"
        f" (at least {facts['near_duplicates']['share']:.0%} of the question's word 13-grams).",
    ]


def _labelers(facts: Mapping[str, Any]) -> list[str]:
    head = ("labeler", "kind", "model", "version that answered", "prompt (SHA-256)", "traces",
            "steps", "abstained")  # fmt: skip
    keys = ("name", "kind", "model", "resolved_model", "prompt_sha256", "traces", "steps",
            "abstained")  # fmt: skip
    return _table(head, ([one[key] for key in keys] for one in facts["labelers"]))


def _agreement(facts: Mapping[str, Any]) -> list[str]:
    head = ("labelers", "steps", "agreement", "kappa", "traces", "same first error")
    return _table(
        head,
        (
            (
                f"{pair['a']}, {pair['b']}",
                pair["n_steps"],
                _number(pair["agreement"]),
                _number(pair["cohen_kappa"]),
                pair["n_first_errors"],
                _number(pair["first_error_agreement"]),
            )
            for pair in facts["agreement"]
        ),
    )


def _quality(facts: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for one in facts["quality"]:
        low, high = one["ci95"] or (None, None)
        figures = [(facts["labeler"], _number(one["processbench_f1"]))]
        figures += [(f"floor: {name}", _number(value)) for name, value in one["floors"].items()]
        lines += [
            f"ProcessBench F1 on all labeled traces against `{one['gold']}`"
            f" (95% interval {_number(low)} to {_number(high)}; threshold {one['threshold']}):",
            "",
            *_table(("what", "F1"), figures),
        ]
    return lines


def _left_out(facts: Mapping[str, Any]) -> list[str]:
    left, store = facts["left_out"], facts["in_the_store"]
    rows = [("no label yet", left["without_label"])]
    rows += [
        (f"{kind}: {why}", count)
        for kind in ("abstained", "filtered", "skipped")
        for why, count in left[kind].items()
    ]
    rows += [("in the release", facts["total"]["traces"])]
    lost = ", ".join(f"{part} ({count})" for part, count in facts["not_carried"].items())
    return [
        f"Of {counted(store['traces'], 'trace')} ({counted(store['problems'], 'problem')},"
        f" {counted(store['steps'], 'step')}):",
        "",
        *_table(("reason", "traces"), rows),
        *(["", f"Not carried by the format (traces): {lost}."] if lost else []),
    ]


def _sources(facts: Mapping[str, Any]) -> list[str]:
    files = [(one["file"], one["format"], _origin(one), one["sha256"]) for one in facts["sources"]]
    corpora = [(one["name"], one["license"], one["source"]) for one in facts["corpora"]]
    listed = _table(("file", "format", "from", "SHA-256"), files)
    evidence = _table(("corpus", "license", "source"), corpora)
    stated = facts["license"] or "not stated"
    return [
        *listed,
        *(["", *evidence] if evidence else []),
        "",
        f"License of the labels: {stated}. A source keeps its own license.",
    ]


def _origin(source: Mapping[str, Any]) -> str | None:
    hub = source["hub"]
    return hub and f"{hub['repository']}@{hub['commit']}"


def _costs(facts: Mapping[str, Any]) -> list[str]:
    head = ("model", "version that answered", "for", "calls", "from the cache", "USD", "unpriced")
    rows = [
        (one["model"], one["resolved_model"], one["purpose"], one["sent"], one["cached"],
         f"{one['usd']:.4f}", one["unpriced"])
        for one in facts["costs"]
    ]  # fmt: skip
    listed = _table(head, rows)
    whole = "All calls of these models in the workspace, those for other datasets included."
    return [*listed, "", whole] if listed else []


def _contamination(facts: Mapping[str, Any]) -> list[str]:
    rows = [
        (one["benchmark"], one["problems"], one["counts"]["by_id"],
         one["counts"]["question_any"], one["counts"]["question_half"],
         one["counts"]["question_whole"])
        for one in facts["contamination"]
    ]  # fmt: skip
    head = ("benchmark", "problems", "by id", "any 13-gram", "half of the question", "all of it")
    return _table(head, rows) or ["No benchmark was named (`--against NAME`)."]


def _limits(facts: Mapping[str, Any]) -> list[str]:
    kinds = {one["kind"] for one in facts["labelers"]}
    total = facts["total"]
    limits = [
        "Near-duplicates and contamination are found by words, so paraphrases and translations"
        " are missed.",
    ]
    if not kinds & {"gold", "expert"}:
        limits.append("No person labeled these steps; see the agreement and quality above.")
    if not facts["quality"]:
        limits.append(
            "There is no gold in the store, so the quality of the labels is not measured."
        )
    if total["open"]:
        limits.append(
            f"{counted(total['open'], 'trace')} leave the first error open: a step before it has no"
            " label."
        )
    if any(one["model"] and not one["resolved_model"] for one in facts["labelers"]):
        limits.append("A model did not state the version that answered.")
    if "images" in facts["not_carried"] or facts["format"] in ("case", "traces"):
        limits.append("Images are named by path and are not part of the release.")
    return [f"- {limit}" for limit in limits]
