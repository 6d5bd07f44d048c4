"""`train`: every layout learns, is recognized by `score`, packs exactly and goes on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import stepgold
from tests.training.tiny_base import rows, save_base, workspace
from traces import InputError

QUICK: dict[str, Any] = {"dataset": "d", "labeler": "gold", "batch_tokens": 1024}


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def furthest(one: Path, other: Path) -> float:
    """The largest difference of two checkpoints' weights."""
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen-prm", "medprm", "math-shepherd", "trl"])
def test_every_layout_learns_and_is_recognized(tmp_path: Path, family: Any) -> None:
    ws = workspace(tmp_path, rows(60))
    out = tmp_path / "prm"
    result = ws.train(
        **QUICK,
        base=str(save_base(tmp_path / "base")),
        out=out,
        family=family,
        epochs=10,
        learning_rate=1e-2,
        seed=1,
        checks=3,
    )
    assert result.exit_code == 0
    assert 0 < result.done < 60
    assert result.dev["auroc"] > 0.9
    assert result.dev["processbench_f1"] > result.floors["no-error"]
    scored = ws.score(dataset="d", prm=f"hf:{out}")
    assert (scored.family, scored.done) == (family, 60)
    report = ws.evaluate(dataset="d", labeler="prm", threshold=result.dev["threshold"])
    assert (report.average.processbench_f1 or 0) > 0.4


@pytest.mark.slow
def test_a_trained_prm_opens_in_plain_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    out = tmp_path / "prm"
    base = str(save_base(tmp_path / "base"))
    workspace(tmp_path, rows(12)).train(**QUICK, base=base, out=out, max_steps=1)
    kind: Any = AutoModelForTokenClassification
    model, report = kind.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.config.id2label == {0: "incorrect", 1: "correct"}
    tokenizer: Any = AutoTokenizer.from_pretrained(out)
    assert len(tokenizer("<extra_0>", add_special_tokens=False)["input_ids"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen-prm", "math-shepherd"])
def test_packing_changes_nothing(tmp_path: Path, family: Any) -> None:
    """One step of plain gradient descent on the same batch, packed in one row or padded."""
    ws = workspace(tmp_path, rows(10))
    base = str(save_base(tmp_path / "base", layers=2))
    plain = ["optim=sgd", "lr_scheduler_type=constant", "warmup_steps=0", "max_grad_norm=0"]
    for packing in (True, False):
        ws.train(
            dataset="d",
            labeler="gold",
            base=base,
            family=family,
            out=tmp_path / str(packing),
            packing=packing,
            batch_tokens=20_000,
            max_steps=1,
            learning_rate=0.5,
            dev_share=0,
            training_option=plain,
        )
    assert furthest(tmp_path / "True", tmp_path / "False") < 1e-5
    [packed], [padded] = (
        [
            row["loss"]
            for row in json.loads((tmp_path / name / "training.json").read_text())["history"]
            if "loss" in row
        ]
        for name in ("True", "False")
    )
    assert packed == pytest.approx(padded, abs=1e-5)


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(tmp_path: Path) -> None:
    ws = workspace(tmp_path, rows(12))
    given = {**QUICK, "base": str(save_base(tmp_path / "base")), "out": tmp_path / "prm"}
    first = ws.train(**given, max_steps=1)
    again = ws.train(**given, max_steps=1)
    assert (again.done, again.unchanged, again.dev) == (0, first.done, first.dev)
    with pytest.raises(InputError, match="other options") as refusal:
        ws.train(**given, max_steps=2)
    assert "--replace" in str(refusal.value)
    assert ws.train(**given, max_steps=2, replace=True).updates == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        ws.train(**{**given, "out": tmp_path / "mine"})


@pytest.mark.slow
def test_over_long_traces_are_counted_never_cut(tmp_path: Path) -> None:
    made = rows(12)
    made[0]["steps"] = ["the dose is 6 mg per kg, so " * 40] * 3
    made.append({"id": "bare", "problem": "No labels?", "steps": ["the dose is 1 mg"]})
    ws = workspace(tmp_path, made)
    result = ws.train(
        **QUICK,
        base=str(save_base(tmp_path / "base")),
        out=tmp_path / "prm",
        max_steps=1,
        max_tokens=200,
        dev_share=0,
    )
    assert dict(result.abstained) == {"over_length": 1, "unlabeled": 1}
    assert (result.done, result.exit_code) == (11, 1)


@pytest.mark.slow
def test_killed_and_run_again_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    ws = workspace(tmp_path, rows(12))
    base = save_base(tmp_path / "base")

    def command(out: Path) -> list[str]:
        return [
            *(sys.executable, "-m", "cli", "--workspace", str(ws.folder), "train"),
            *("--dataset", "d", "--labeler", "gold", "--base", str(base), "--out", str(out)),
            *("--max-steps", "9", "--checks", "3", "--batch-tokens", "256", "--json"),
            *("--learning-rate", "1e-2"),
        ]

    done = subprocess.run(command(tmp_path / "whole"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    killed = tmp_path / "killed"
    for written in (3, 6, 9):
        state = killed / "checkpoints" / f"checkpoint-{written}"
        running = subprocess.Popen(
            command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Any moment after a certain checkpoint appears, often while it is being written.
        while not state.exists() and running.poll() is None:
            os.sched_yield()
        running.send_signal(signal.SIGKILL)
        running.wait()
    ended = subprocess.run(command(killed), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["resumed_at"] is not None
    assert furthest(tmp_path / "whole", killed) < 1e-6


@pytest.mark.slow
def test_two_processes_end_where_one_does(tmp_path: Path) -> None:
    """`accelerate launch` with two processes on the CPU: half of each batch is in each."""
    ws = workspace(tmp_path, rows(8))
    base = save_base(tmp_path / "base")
    ends = {}
    for processes, rows_each in ((1, 2), (2, 1)):
        out = tmp_path / str(processes)
        launch = ["-m", "accelerate.commands.launch", "--num_processes", str(processes)]
        launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        # The launcher starts one process on a CPU unless it is told of several devices.
        launch += ["--multi_gpu", "--main_process_port", "0"] if processes > 1 else ["--cpu"]
        run = subprocess.run(
            [
                *(sys.executable, *launch, "-m", "cli", "--workspace", str(ws.folder), "train"),
                *("--dataset", "d", "--labeler", "gold", "--base", str(base), "--out", str(out)),
                *("--max-steps", "2", "--batch-tokens", "300", "--json", "--dev-share", "0"),
                *("--learning-rate", "1e-2", "--training-option", "use_cpu=true"),
                *("--training-option", "logging_steps=1"),
                *("--training-option", f"per_device_train_batch_size={rows_each}"),
            ],
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout)["updates"] == 2  # one process speaks
        history = json.loads((out / "training.json").read_text())["history"]
        ends[processes] = [row["loss"] for row in history if "loss" in row]
    assert len(ends[1]) == 2
    assert ends[1] == pytest.approx(ends[2], abs=1e-4)
    assert furthest(tmp_path / "1", tmp_path / "2") < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen-prm", "medprm"])
def test_lora_is_merged_into_a_plain_checkpoint(tmp_path: Path, family: Any) -> None:
    ws = workspace(tmp_path, rows(24))
    base, out = save_base(tmp_path / "base"), tmp_path / "prm"
    given = {**QUICK, "base": f"hf:{base}", "out": out, "family": family, "lora": 4}
    result = ws.train(**given, max_steps=6, learning_rate=1e-2, checks=2)
    assert result.updates == 6
    assert not list(out.glob("adapter*"))
    assert not [name for name in weights(out) if "lora" in name]
    name = "model.layers.0.self_attn.q_proj.weight"
    assert float((weights(out)[name] - weights(base)[name]).abs().max()) > 1e-4
    scored = ws.score(dataset="d", prm=f"hf:{out}")
    assert (scored.family, scored.done) == (family, 24)
    found = ws.evaluate(dataset="d", labeler="prm").as_json()
    assert found["labeler"] == "prm"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"training_option": ["bf16"]}, "not KEY=VALUE"),
        ({"training_option": ["output_dir=x"]}, "sets the training option 'output_dir' itself"),
        ({"lora_option": ["4"], "lora": 4}, "not KEY=VALUE"),
        ({"family": "skywork-o1"}, "is not a value of --family"),
        ({"dev_share": 1.0}, "--dev-share"),
    ],
)
def test_what_cannot_be_passed_on_is_refused_at_once(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as refusal:
        stepgold.TrainOptions(dataset="d", labeler="g", base="b", out="o", **given)
    assert told in str(refusal.value)
