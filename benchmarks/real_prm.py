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
from typing import Any, Final

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
DEV_SHARE = 0.15
CHUNK, BATCH_TOKENS = 40, 2_500
RESAMPLES = 2_000


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
    return sorted(found.values(), key=lambda one: sha256(f"{one.id}s".encode()).digest())


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


def chunk_file(cache: Path, start: int, total: int) -> Path:
    """The file of a chunk; the last one of a smaller run is not that of a larger one."""
    return cache / f"{start:05d}-{min(start + CHUNK, total):05d}.npz"


@torch.no_grad()
def write_states(base: Any, solutions: Sequence[Solution], cache: Path) -> None:
    """Write the hidden states after the frozen layers, a file per chunk; done ones are skipped."""
    cache.mkdir(parents=True, exist_ok=True)
    backbone = base.model.base_model
    for start in range(0, len(solutions), CHUNK):
        file = chunk_file(cache, start, len(solutions))
        if file.exists():
            continue
        began, stored, tokens = time.monotonic(), {}, 0
        rows = [(one, laid_out(base.family, one)) for one in solutions[start : start + CHUNK]]
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
                tokens += len(out.ids)
        part = file.with_name(f".{file.name}")
        np.savez(part, **stored)
        part.rename(file)
        speed = tokens / (time.monotonic() - began)
        say(f"hidden states of {start + len(rows)}/{len(solutions)}, {speed:.0f} tokens/s")


@dataclass(frozen=True, slots=True)
class Row:
    """A solution's hidden states up to its last learned step."""

    solution: Solution
    states: NDArray[np.float16]
    read: NDArray[np.int64]
    """Positions of the learned steps' markers."""


def read_states(solutions: Sequence[Solution], cache: Path) -> list[Row]:
    """What `write_states` wrote."""
    found = []
    for start in range(0, len(solutions), CHUNK):
        with np.load(chunk_file(cache, start, len(solutions))) as stored:
            for one in solutions[start : start + CHUNK]:
                read = stored[f"{one.id}|read"][: one.read]
                found.append(Row(one, stored[f"{one.id}|states"][: read[-1] + 1], read))
    return found


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


def fit(model: Any, rows: Sequence[Row], epochs: int, seed: int) -> Top:
    """Train the top on the hidden states."""
    torch.manual_seed(seed)
    top, order = Top(model), np.random.default_rng(seed)
    groups = [
        {"params": [*top.layer.parameters(), *top.norm.parameters()], "lr": 1e-4},
        {"params": top.score.parameters(), "lr": 1e-3},
    ]
    optimizer: Any = torch.optim.AdamW(groups, weight_decay=0.01)
    size, done = 16, 0
    total = epochs * -(-len(rows) // size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 20) * (1 + np.cos(np.pi * step / total)) / 2
    )
    for epoch in range(epochs):
        top.train()
        losses, shuffled = 0.0, order.permutation(len(rows))
        for start in range(0, len(rows), size):
            states, read, real, classes = padded(
                [rows[at] for at in shuffled[start : start + size]]
            )
            loss = nn.functional.cross_entropy(top(states, read)[real], classes)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(top.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses, done = losses + loss.item(), done + 1
        say(f"epoch {epoch + 1}/{epochs}: loss {losses * size / len(rows):.4f}")
    return top


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


@torch.no_grad()
def token_floors(family: Any, folder: Path, solutions: Sequence[Solution]) -> dict[str, list[Any]]:
    """Mean and minimum token probability of each step under the untrained model, by floor."""
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(folder, dtype=torch.float32).eval()
    found: dict[str, list[Any]] = {"mean token logprob": [], "min token logprob": []}
    for one in solutions:
        out = laid_out(family, one)
        ids = torch.tensor(out.ids)
        ids[ids >= model.config.vocab_size] = family.tokenizer("\n\n")["input_ids"][0]
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.model(ids[None]).last_hidden_state[0, :-1]
            logits = model.lm_head(hidden).float()
        of = torch.log_softmax(logits, dim=-1).gather(1, ids[1:, None])[:, 0]
        ends = [places[0] for places in out.read_at]
        starts = [ends[0] - len(family.tokenizer(one.steps[0].strip())["input_ids"]), *ends[:-1]]
        spans = [
            of[max(0, begin - (at == 0)) : end - 1]
            for at, (begin, end) in enumerate(zip(starts, ends, strict=True))
        ]
        for name, reduce in (
            ("mean token logprob", Tensor.mean),
            ("min token logprob", Tensor.min),
        ):
            found[name].append([float(reduce(span).exp()) if len(span) else 1.0 for span in spans])
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
    ws: stepgold.Workspace, solutions: Sequence[Solution], dataset: str, file: Path
) -> None:
    """Put solutions into the workspace, with their first error as gold."""
    with file.open("w", encoding="utf-8") as lines:
        for one in solutions:
            gold = {"kind": "gold", "first_error": one.error}
            row = {
                "id": one.id,
                "problem": one.question,
                "steps": one.steps,
                "labels": {"gold": gold},
            }
            lines.write(json.dumps(row) + "\n")
    ws.import_("traces", file, dataset=dataset)


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Train, write, score and compare; prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, default=model_folder().parent / "real-prm")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--traces", type=int, default=None, help="training traces [all]")
    parser.add_argument("--tests", type=int, default=None, help="test traces [all]")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    data = Path(os.environ.get("STEPGOLD_REAL_DATA") or default)
    began, source = time.monotonic(), model_folder() / "hf"
    if not data.is_dir() or not source.is_dir():
        raise SystemExit("needs STEPGOLD_REAL_DATA and `make real-model`")
    prm = asked.cache / "prm"
    config = TrainConfig(base=str(source), out=prm, family=FAMILY)
    base = prepare(source, FAMILY, config)
    known = [
        one for one in training_solutions(data) if len(laid_out(base.family, one).ids) <= LONGEST
    ]
    known = known[: asked.traces]
    write_states(base, known, asked.cache / "states")
    rows = read_states(known, asked.cache / "states")
    learned = [row for row in rows if not row.solution.is_dev]
    dev = [row.solution for row in rows if row.solution.is_dev]
    say(f"{len(learned)} solutions to learn, {len(dev)} for the threshold")
    top = fit(base.model, learned, asked.epochs, asked.seed)
    floor_family = base.family
    write_prm(base, top, prm)
    shutil.rmtree(asked.cache / "workspace", ignore_errors=True)
    ws = stepgold.Workspace(asked.cache / "workspace", progress=False)
    tests = test_solutions(data)  # those with an error come first
    tests = tests[:: len(tests) // (asked.tests or len(tests))]
    for dataset, part in (("dev", dev), ("gsm8k", tests)):
        imported(ws, part, dataset, asked.cache / f"{dataset}.jsonl")
        say(f"scoring {dataset}")
        result = ws.score(dataset=dataset, prm=f"hf:{prm}")
        assert result.family == FAMILY
    report = ws.evaluate(dataset="gsm8k", labeler="prm", threshold="fit:dev/default")
    own = {
        label.trace_id: [step.score for step in label.step_labels]
        for label in ws.labels(dataset="gsm8k", labeler="prm")
    }
    say("floors")
    floors = token_floors(floor_family, source, tests)
    floors["position"] = [
        [1 - at / len(one.steps) for at in range(len(one.steps))] for one in tests
    ]
    show(report, own, floors, tests)
    say(f"{(time.monotonic() - began) / 60:.1f} minutes in all")


def show(report: Any, own: Any, floors: Any, tests: Sequence[Solution]) -> None:
    """Print the table: the PRM, the floors, and the difference of their AUROCs."""
    drawn = np.random.default_rng(0).integers(len(tests), size=(RESAMPLES, len(tests)))
    value, ours = areas([own[one.id] for one in tests], tests, drawn)
    low, high = np.quantile(ours, [0.025, 0.975])
    figures = report.average
    print("| labeler | AUROC | PRM above it by (95%) | processbench_f1 |\n|---|---|---|---|")
    print(
        f"| SmolLM2-135M PRM | {value:.3f} [{low:.3f}, {high:.3f}] | | {figures.processbench_f1:.3f} {figures.ci95} |"
    )
    for name, scores in floors.items():
        at, theirs = areas(scores, tests, drawn)
        low, high = np.quantile(ours - theirs, [0.025, 0.975])
        print(f"| {name} | {at:.3f} | {value - at:.3f} [{low:.3f}, {high:.3f}] | |")


if __name__ == "__main__":
    main()
