"""A real PRM: SmolLM2-135M trained on human-annotated mathematics, measured on ProcessBench GSM8K.

    python -m benchmarks.real_prm [--cache DIR] [--epochs N] [--traces N]

The PRM is the model's first 17 layers with a head of two classes after each step, in the layout of
Qwen's PRM. The first 16 layers stay as they are: their hidden states are computed once and kept in
`--cache`, so that a run that was stopped goes on where it was. Of layer 17 only the keys and values
are needed at every token; the rest is computed where steps end, so that an epoch takes seconds.
Trained on errors that were put into PRM800K's solutions (PRMBench) and on the solutions themselves,
up to the first error; the threshold is fitted on problems that were kept out of the training.
Needs `make real-model` and STEPGOLD_REAL_DATA.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import stepgold
from evaluation import auroc
from tools.real_model import folder as model_folder
from traces import Problem, Trace, TraceInContext
from training import TrainConfig, prepare

FROZEN = 16
"""Layers that stay as they are; one more is trained."""
FAMILY: Final = "qwen-prm"
LONGEST = 480
"""Tokens of the longest training trace; longer ones are left out, not cut."""
DEV_SHARE = 0.2
CHUNK, BATCH, BATCH_TOKENS = 40, 16, 2_500
RATES = (1e-4, 3e-4)
RESAMPLES = 2_000
CHECKED = 40
"""Test solutions that `score` scores too."""


@dataclass(frozen=True, slots=True)
class Solution:
    """A solution up to its first error, or a whole one."""

    id: str
    question: str
    steps: tuple[str, ...]
    error: int | None
    """0-based index of the first wrong step; None without one."""
    problem: str
    """What solutions of one problem share."""

    @property
    def is_dev(self) -> bool:
        """Whether the threshold is fitted on it."""
        return int(self.problem[:8], 16) < DEV_SHARE * 2**32

    @property
    def read(self) -> int:
        """Steps that are learned or measured: those up to and with the first error."""
        return len(self.steps) if self.error is None else self.error + 1


def training_solutions(data: Path) -> list[Solution]:
    """PRMBench's altered solutions up to the first altered step, and one original a problem; in an
    order by hash, so that any beginning is a sample of all classes."""
    found: dict[str, Solution] = {}
    for file in sorted((data / "prmbench_train").glob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                problem = sha256(row["original_question"].encode()).hexdigest()
                original = f"original_{problem[:16]}"
                process = tuple(row["original_process"])
                found.setdefault(
                    original, Solution(original, row["original_question"], process, None, problem)
                )
                errors = [at - 1 for at in row["error_steps"]]
                if errors and 0 <= min(errors) < len(row["modified_process"]):
                    id, first = f"{row['classification']}_{row['idx']}", min(errors)
                    steps = tuple(row["modified_process"][: first + 1])
                    found[id] = Solution(id, row["modified_question"], steps, first, problem)
    return in_balance(list(found.values()))


def in_balance(solutions: Sequence[Solution]) -> list[Solution]:
    """The solutions in an order of which any beginning has a third of originals and the kinds of
    altered ones in equal parts, as long as there are any."""
    waiting: dict[str, list[Solution]] = {}
    for one in sorted(solutions, key=lambda one: sha256(f"{one.id}s".encode()).digest()):
        waiting.setdefault(one.id.rpartition("_")[0] if one.error is not None else "", []).append(
            one
        )
    kinds = sorted(waiting.keys() - {""})
    turns = [name for at, kind in enumerate(kinds) for name in ([kind] if at % 2 else ["", kind])]
    order = []
    while any(waiting.values()):
        for name in turns:
            if waiting.get(name):
                order.append(waiting[name].pop(0))
    return order


def test_solutions(data: Path) -> list[Solution]:
    """ProcessBench, GSM8K."""
    rows = json.loads((data / "processbench" / "gsm8k.json").read_text(encoding="utf-8"))
    return [
        Solution(
            row["id"],
            row["problem"],
            tuple(row["steps"]),
            None if row["label"] < 0 else row["label"],
            sha256(row["problem"].encode()).hexdigest(),
        )
        for row in rows
    ]


def laid_out(family: Any, solution: Solution) -> Any:
    """The solution as the PRM reads it."""
    problem = Problem(id="p", question=solution.question)
    trace = Trace(id=solution.id, problem_id="p", steps=solution.steps)
    return family.lay_out(TraceInContext(problem, trace), ())


def batches(rows: Sequence[Any], size: Any) -> Iterator[list[Any]]:
    """Rows by length, in batches of at most `BATCH_TOKENS` tokens with padding."""
    taken: list[Any] = []
    for row in sorted(rows, key=size):
        if taken and (len(taken) + 1) * size(row) > BATCH_TOKENS:
            yield taken
            taken = []
        taken.append(row)
    if taken:
        yield taken


def kept_states(cache: Path) -> dict[str, Path]:
    """The file of each solution whose hidden states are there."""
    found = {}
    for file in sorted(cache.glob("*.npz")):
        with np.load(file) as stored:
            names = [name.removesuffix("|read") for name in stored.files if name.endswith("|read")]
            found.update(dict.fromkeys(names, file))
    return found


def write_states(
    base: Any, solutions: Sequence[Solution], cache: Path, minutes: float | None = None
) -> None:
    """Write the hidden states after the frozen layers, a file per chunk; those that are there are
    skipped, and those that are not there after some minutes are left out."""
    cache.mkdir(parents=True, exist_ok=True)
    kept, began = kept_states(cache), time.monotonic()
    todo = [one for one in solutions if one.id not in kept]
    for start in range(0, len(todo), CHUNK):
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            say(f"{len(todo) - start} solutions are left out after {minutes:g} minutes")
            return
        chunk, since = todo[start : start + CHUNK], time.monotonic()
        stored = states_of(base, chunk)
        file = cache / f"{sha256(repr([one.id for one in chunk]).encode()).hexdigest()[:16]}.npz"
        part = file.with_name(f".{file.name}")
        with part.open("wb") as to:
            np.savez(to, **cast(Any, stored))
        part.rename(file)
        tokens = sum(len(row) for name, row in stored.items() if name.endswith("|states"))
        speed = tokens / (time.monotonic() - since)
        say(f"hidden states of {start + len(chunk)}/{len(todo)}, {speed:.0f} tokens/s")


@torch.no_grad()
def states_of(base: Any, solutions: Sequence[Solution]) -> dict[str, NDArray[Any]]:
    """Hidden states and positions of the steps' markers, under ID|states and ID|read."""
    stored: dict[str, NDArray[Any]] = {}
    backbone = base.model.base_model
    rows = [(one, laid_out(base.family, one)) for one in solutions]
    for batch in batches(rows, lambda row: len(row[1].ids)):
        width = max(len(out.ids) for _, out in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        for at, (_, out) in enumerate(batch):
            ids[at, : len(out.ids)] = torch.tensor(out.ids)
        positions = torch.arange(width)[None]
        with torch.autocast("cpu", torch.bfloat16):
            hidden = backbone.embed_tokens(ids)
            turns = backbone.rotary_emb(hidden, positions)
            for layer in backbone.layers[:FROZEN]:  # padding is at the end: causal suffices
                hidden = layer(hidden, position_embeddings=turns, position_ids=positions)
        for at, (one, out) in enumerate(batch):
            stored[f"{one.id}|states"] = hidden[at, : len(out.ids)].half().numpy()
            stored[f"{one.id}|read"] = np.array([places[0] for places in out.read_at])
    return stored


@dataclass(frozen=True, slots=True)
class Row:
    """A solution's hidden states up to its last learned step."""

    solution: Solution
    states: NDArray[np.float16]
    read: NDArray[np.int64]
    """Positions of the learned steps' markers."""


def read_states(solutions: Sequence[Solution], cache: Path, *, whole: bool = False) -> list[Row]:
    """What `write_states` wrote, for those that are there; up to the first error, or all of it."""
    kept, found = kept_states(cache), {}
    by_file: dict[Path, list[Solution]] = {}
    for one in solutions:
        if one.id in kept:
            by_file.setdefault(kept[one.id], []).append(one)
    for file, members in by_file.items():
        with np.load(file) as stored:
            for one in members:
                read = stored[f"{one.id}|read"]
                read = read if whole else read[: one.read]
                found[one.id] = Row(one, stored[f"{one.id}|states"][: read[-1] + 1], read)
    return [found[one.id] for one in solutions if one.id in found]


class Top(nn.Module):
    """The trained layer, the final norm and the head, computed where steps end."""

    def __init__(self, model: Any) -> None:
        """Copy the parts of a token classification model."""
        super().__init__()
        self.layer = copy.deepcopy(model.model.layers[FROZEN])
        self.norm, self.score = copy.deepcopy(model.model.norm), copy.deepcopy(model.score)
        self.turns = model.model.rotary_emb
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, states: Tensor, read: Tensor) -> Tensor:
        """Logits of incorrect and correct, (rows, steps, 2)."""
        attention, width = self.layer.self_attn, attention_width(states)
        normed = self.layer.input_layernorm(states)
        cosines, sines = self.turns(states, torch.arange(states.shape[1])[None])
        keys, values = (
            heads(project(normed), attention.head_dim)
            for project in (attention.k_proj, attention.v_proj)
        )
        at = read[:, :, None].expand(-1, -1, width)
        asked = heads(attention.q_proj(normed.gather(1, at)), attention.head_dim)
        keys, _ = apply_rotary_pos_emb(keys, keys, cosines, sines)
        asked, _ = apply_rotary_pos_emb(asked, asked, cosines[0][read], sines[0][read])
        seen = torch.arange(states.shape[1])[None, None] <= read[:, :, None]
        mixed = nn.functional.scaled_dot_product_attention(
            asked, keys, values, attn_mask=seen[:, None], enable_gqa=True
        )
        hidden = states.gather(1, at)
        hidden = hidden + attention.o_proj(mixed.transpose(1, 2).flatten(2))
        hidden = hidden + self.layer.mlp(self.layer.post_attention_layernorm(hidden))
        hidden = nn.functional.dropout(self.norm(hidden), 0.1, self.training)
        logits: Tensor = self.score(hidden)
        return logits


def attention_width(states: Tensor) -> int:
    """Size of a hidden state."""
    return states.shape[-1]


def heads(projected: Tensor, size: int) -> Tensor:
    """(rows, tokens, width) as (rows, heads, tokens, size)."""
    return projected.reshape(*projected.shape[:-1], -1, size).transpose(1, 2)


def padded(rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, read positions, which of them are real, and the class of those."""
    width, steps = max(len(row.states) for row in rows), max(len(row.read) for row in rows)
    states = torch.zeros(len(rows), width, rows[0].states.shape[1])
    read = torch.zeros(len(rows), steps, dtype=torch.long)
    real = torch.zeros(len(rows), steps, dtype=torch.bool)
    for at, row in enumerate(rows):
        states[at, : len(row.states)] = torch.from_numpy(row.states.astype(np.float32))
        read[at, : len(row.read)] = torch.from_numpy(row.read)
        real[at, : len(row.read)] = True
    classes = [int(step != row.solution.error) for row in rows for step in range(len(row.read))]
    return states, read, real, torch.tensor(classes)


def shuffled(rows: Sequence[Row], order: Any) -> list[list[Row]]:
    """Batches in random order, of solutions of about the same length."""
    drawn = [rows[at] for at in order.permutation(len(rows))]
    near = [
        sorted(drawn[start : start + 16 * BATCH], key=lambda row: len(row.states))
        for start in range(0, len(drawn), 16 * BATCH)
    ]
    found = [one[at : at + BATCH] for one in near for at in range(0, len(one), BATCH)]
    return [found[at] for at in order.permutation(len(found))]


@dataclass(frozen=True, slots=True)
class Fitted:
    """The best state of a training, by the AUROC of the solutions that are kept out."""

    auroc: float
    setting: str
    weights: dict[str, Tensor]
    curve: list[dict[str, float]]
    """Loss and dev AUROC by epoch."""


def fit(model: Any, rows: Sequence[Row], dev: Sequence[Row], rate: float, asked: Any) -> Fitted:
    """Train the top on the hidden states."""
    torch.manual_seed(asked.seed)
    top, order = Top(model), np.random.default_rng(asked.seed)
    groups = [
        {"params": [*top.layer.parameters(), *top.norm.parameters()], "lr": rate},
        {"params": top.score.parameters(), "lr": 10 * rate},
    ]
    optimizer: Any = torch.optim.AdamW(groups, weight_decay=0.01)
    total = asked.epochs * len(shuffled(rows, np.random.default_rng(0)))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 20) * (1 + np.cos(np.pi * step / total)) / 2
    )
    best, curve = Fitted(0.0, "", {}, []), []
    for epoch in range(1, asked.epochs + 1):
        top.train()
        losses = []
        for batch in shuffled(rows, order):
            states, read, real, classes = padded(batch)
            loss = nn.functional.cross_entropy(top(states, read)[real], classes)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(top.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        solutions = [row.solution for row in dev]
        area, _ = areas(scores_of(top, dev), solutions, ())
        curve.append({"epoch": epoch, "loss": float(np.mean(losses)), "dev_auroc": area})
        setting = f"rate {rate:g}, epoch {epoch}/{asked.epochs}"
        say(f"{setting}: loss {curve[-1]['loss']:.4f}, dev AUROC {area:.4f}")
        if area > best.auroc:
            weights = {name: one.detach().clone() for name, one in top.state_dict().items()}
            best = Fitted(area, setting, weights, curve)
    return best


@torch.no_grad()
def scores_of(top: Top, rows: Sequence[Row]) -> list[list[float]]:
    """P(correct) of the steps that are read."""
    top.eval()
    found: dict[str, list[float]] = {}
    for batch in batches(rows, lambda row: len(row.states)):
        states, read, *_ = padded(batch)
        right = torch.softmax(top(states, read), dim=-1)[:, :, 1]
        for row, of in zip(batch, right.tolist(), strict=True):
            found[row.solution.id] = of[: len(row.read)]
    return [found[row.solution.id] for row in rows]


def write_prm(base: Any, top: Top, to: Path) -> None:
    """Write the PRM as a plain checkpoint of 17 layers."""
    model = base.model
    model.model.layers = model.model.layers[: FROZEN + 1]
    model.config.num_hidden_layers = FROZEN + 1
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[: FROZEN + 1]
    model.model.layers[FROZEN].load_state_dict(top.layer.state_dict())
    model.model.norm.load_state_dict(top.norm.state_dict())
    model.score.load_state_dict(top.score.state_dict())
    model.save_pretrained(to)
    base.tokenizer.save_pretrained(to)


def _log_probabilities(model: Any, ids: Tensor, states: NDArray[Any]) -> Tensor:
    """Of each token after the first, read on from the hidden states of the frozen layers."""
    positions = torch.arange(len(ids))[None]
    hidden = torch.from_numpy(states.astype(np.float32))[None]
    turns = model.model.rotary_emb(hidden, positions)
    for layer in model.model.layers[FROZEN:]:
        hidden = layer(hidden, position_embeddings=turns, position_ids=positions)
    logits = model.lm_head(model.model.norm(hidden))[0, :-1].float()
    return torch.log_softmax(logits, dim=-1).gather(1, ids[1:, None])[:, 0]


def _probability(of: Tensor, *, least: bool) -> float:
    """The least or the geometric mean of token probabilities; 1 where there is no token."""
    return float((of.min() if least else of.mean()).exp()) if len(of) else 1.0


def token_floors(
    family: Any, folder: Path, rows: Sequence[Row], kept: Path
) -> dict[str, list[list[float]]]:
    """Mean and minimum token probability of each step under the untrained model, by floor.

    It goes on from the hidden states: the marker starts as a line break, which is what the
    untrained model reads there. The result is kept.
    """
    if kept.exists():
        known = json.loads(kept.read_text())
        if known["ids"] == [row.solution.id for row in rows]:
            found: dict[str, list[list[float]]] = known["floors"]
            return found
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(folder, dtype=torch.float32).eval()
    found = {"mean token logprob": [], "min token logprob": []}
    for done, row in enumerate(rows):
        ids = torch.tensor(laid_out(family, row.solution).ids)[: len(row.states)]
        ids[ids >= model.config.vocab_size] = family.tokenizer("\n\n")["input_ids"][0]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            of = _log_probabilities(model, ids, row.states)
        first = len(family.tokenizer(row.solution.steps[0].strip())["input_ids"])
        starts = [row.read[0] - first, *(row.read[:-1] + 1)]
        spans = [
            of[max(0, begin - 1) : end - 1] for begin, end in zip(starts, row.read, strict=True)
        ]
        for name, least in (("mean token logprob", False), ("min token logprob", True)):
            found[name].append([_probability(span, least=least) for span in spans])
        if done % 40 == 39:
            say(f"token probabilities of {done + 1}/{len(rows)}")
    kept.write_text(json.dumps({"ids": [row.solution.id for row in rows], "floors": found}))
    return found


def areas(
    scores: Sequence[Sequence[float]], solutions: Sequence[Solution], drawn: Any
) -> tuple[float, NDArray[np.float64]]:
    """The AUROC of steps up to and with the first error, and those of resampled solutions."""
    flat = np.array(
        [one for of, of_whom in zip(scores, solutions, strict=True) for one in of[: of_whom.read]]
    )
    right = np.array([step != one.error for one in solutions for step in range(one.read)])
    owner = np.repeat(np.arange(len(solutions)), [one.read for one in solutions])
    starts = np.r_[0, np.cumsum(np.bincount(owner))]

    def area(chosen: Any) -> float:
        at = np.concatenate([np.arange(starts[who], starts[who + 1]) for who in chosen])
        return auroc(flat[at], right[at]) or 0.0

    return area(range(len(solutions))), np.array([area(chosen) for chosen in drawn])


def imported(
    ws: stepgold.Workspace,
    rows: Sequence[Row],
    scores: Sequence[Sequence[float]],
    dataset: str,
    file: Path,
) -> None:
    """Put solutions into the workspace, with their first error as gold and the step scores."""
    with file.open("w", encoding="utf-8") as lines:
        for row, of in zip(rows, scores, strict=True):
            one = row.solution
            gold = {"kind": "gold", "first_error": one.error}
            labels = {"gold": gold, "prm": {"kind": "prm", "scores": of}}
            entry = {"id": one.id, "problem": one.question, "steps": one.steps, "labels": labels}
            lines.write(json.dumps(entry) + "\n")
    ws.import_("traces", file, dataset=dataset)


def same_by_score(ws: stepgold.Workspace, prm: Path) -> None:
    """Score some solutions through `score`, which must recognize the checkpoint; tell the largest
    difference to the scores from kept states."""
    result = ws.score(dataset="gsm8k", prm=f"hf:{prm}", name="again", limit=CHECKED)
    if result.family != FAMILY:
        raise RuntimeError(f"The checkpoint was taken for {result.family}, not {FAMILY}.")
    kept = {label.trace_id: label for label in ws.labels(dataset="gsm8k", labeler="prm")}
    apart = [
        abs(float(mine.score) - float(theirs.score))
        for label in ws.labels(dataset="gsm8k", labeler="again")
        for mine, theirs in zip(kept[label.trace_id].step_labels, label.step_labels, strict=True)
        if mine.score is not None and theirs.score is not None
    ]
    say(f"`score` of {result.done} solutions: {len(apart)} steps, at most {max(apart):.4f} apart")


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Train, write, score and compare; prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, default=model_folder().parent / "real-prm")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument(
        "--minutes",
        type=float,
        default=40,
        help="for hidden states of training traces; the others are left out [40]",
    )
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    data = Path(os.environ.get("STEPGOLD_REAL_DATA") or default)
    began, source = time.monotonic(), model_folder() / "hf"
    if not data.is_dir() or not source.is_dir():
        raise SystemExit("needs STEPGOLD_REAL_DATA and `make real-model`")
    prm, states = asked.cache / "prm", asked.cache / "states"
    config = TrainConfig(base=str(source), out=prm, family=FAMILY)
    base = prepare(source, FAMILY, config)
    known = [
        one for one in training_solutions(data) if len(laid_out(base.family, one).ids) <= LONGEST
    ]
    tests = test_solutions(data)
    write_states(base, tests, states)
    write_states(base, known, states, asked.minutes)
    learned, dev = split(known, states)
    runs = [fit(base.model, learned, dev, rate, asked) for rate in RATES]
    best = max(runs, key=lambda run: run.auroc)
    say(f"kept: {best.setting}, dev AUROC {best.auroc:.4f}")
    top = Top(base.model)
    top.load_state_dict(best.weights)
    rows = read_states(tests, states, whole=True)
    own = scores_of(top, rows)
    shutil.rmtree(asked.cache / "workspace", ignore_errors=True)
    ws = stepgold.Workspace(asked.cache / "workspace", progress=False)
    imported(ws, dev, scores_of(top, dev), "dev", asked.cache / "dev.jsonl")
    imported(ws, rows, own, "gsm8k", asked.cache / "gsm8k.jsonl")
    floors = token_floors(base.family, source, rows, asked.cache / "floors.json")
    floors["position"] = [
        [1 - at / len(one.steps) for at in range(len(one.steps))] for one in tests
    ]
    report = ws.evaluate(dataset="gsm8k", labeler="prm", threshold="fit:dev/default")
    show(report, own, floors, tests)
    write_prm(base, top, prm)
    same_by_score(ws, prm)
    say(f"{(time.monotonic() - began) / 60:.1f} minutes in all")


def split(known: Sequence[Solution], states: Path) -> tuple[list[Row], list[Row]]:
    """Solutions to learn from, and those for the settings and the threshold."""
    rows = read_states(known, states)
    learned = [row for row in rows if not row.solution.is_dev]
    dev = [row for row in rows if row.solution.is_dev]
    for part, name in ((learned, "to learn"), (dev, "for settings and threshold")):
        right = sum(row.solution.error is None for row in part)
        say(f"{len(part)} solutions {name}, {right} of them without an error")
    return learned, dev


def show(report: Any, own: Any, floors: Any, tests: Sequence[Solution]) -> None:
    """Print the table: the PRM, the floors, and the difference of their AUROCs."""
    drawn = np.random.default_rng(0).integers(len(tests), size=(RESAMPLES, len(tests)))
    value, ours = areas(own, tests, drawn)
    low, high = np.quantile(ours, [0.025, 0.975])
    figures = report.average
    f1, ends = figures.processbench_f1, figures.ci95
    apart = "" if ends is None else f" [{ends[0]:.3f}, {ends[1]:.3f}]"
    print("| labeler | AUROC | PRM above it by (95%) | processbench_f1 |\n|---|---|---|---|")
    print(f"| SmolLM2-135M PRM | {value:.3f} [{low:.3f}, {high:.3f}] | | {f1:.3f}{apart} |")
    for name, scores in floors.items():
        at, theirs = areas(scores, tests, drawn)
        low, high = np.quantile(ours - theirs, [0.025, 0.975])
        print(f"| {name} | {at:.3f} | {value - at:.3f} [{low:.3f}, {high:.3f}] | |")


if __name__ == "__main__":
    main()
