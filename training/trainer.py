"""The training loop: transformers' Trainer with a loss over step scores."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from scoring import DEFAULT_WINDOW, FitRules, window_of
from traces import InputError, TraceInContext, TraceLabel
from training.base import TrainableModel, prepare, silent_libraries
from training.config import TrainConfig
from training.examples import UNTRAINED, Example, Examples, balance, collate, examples_of, packed

CHECKPOINTS: Final = "checkpoints"
"""Folder of unfinished trainings in the PRM's folder."""
BEST: Final = "best"
"""Name of the figure by which the best checkpoint is chosen."""

_NO_FIGURES: Final = frozenset({BEST, "runtime", "samples_per_second", "steps_per_second"})

Labeled = Iterable[tuple[TraceInContext, TraceLabel | None]]
Measure = Callable[[Mapping[str, Sequence[float]]], Mapping[str, float]]
"""Figures of the step scores of dev traces by id; has `BEST`, higher is better."""


@dataclass(frozen=True, slots=True)
class Training:
    """What a training starts from."""

    config: TrainConfig
    folder: Path
    """The base checkpoint."""
    family: str
    """Layout and head."""
    train: Labeled
    dev: Labeled
    measure: Measure
    """Called with the scores of dev traces several times in a run."""
    note: Callable[[str], None]
    """Tells the user how far it is."""
    identity: str
    """Hash of all that the weights depend on; an unfinished training of another one is refused."""
    again: bool = False
    """Whether to remove an unfinished training first."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training did."""

    train: Examples
    dev: Examples
    steps: int
    """Optimizer steps of the whole training."""
    history: Sequence[Mapping[str, float]]
    """What was logged: `step`, and `loss` or the dev figures as `eval_NAME`."""
    best: Mapping[str, float]
    """Dev figures of the checkpoint that was kept; empty without dev traces."""
    resumed_at: int | None
    """The step of the checkpoint that this call continued from; None for the beginning."""
    is_main: bool
    """Whether this process is the one that writes."""


class StepTrainer(Trainer):
    """Learns P(correct) of steps, weighted by class, averaged over the steps of a whole batch."""

    def __init__(
        self, *, verdicts: Sequence[int] | None, weights: tuple[float, float], **given: Any
    ) -> None:
        """Take the ids of the tokens for incorrect and correct (None: the head has two classes),
        and the weights of incorrect and correct steps."""
        super().__init__(**given)
        self._verdicts = None if verdicts is None else list(verdicts)
        self._weights = torch.tensor(weights)
        # Trainer then counts the steps of all accumulated batches and processes for the mean.
        self.model_accepts_loss_kwargs = True
        together = self.args.average_tokens_across_devices
        self._shares = self.accelerator.num_processes if together else 1

    def compute_loss(self, model: Any, inputs: dict[str, Any], *more: Any, **given: Any) -> Any:
        """The weighted cross-entropy of the batch's share of the mean."""
        steps = given.get("num_items_in_batch")
        trained = inputs["labels"] != UNTRAINED
        right = inputs["labels"][trained].float()
        logits = self._logits(model, inputs, trained).float()
        both = torch.stack([1 - right, right], dim=1)
        losses = -(torch.log_softmax(logits, dim=-1) * both * self._weights.to(logits)).sum(dim=1)
        if steps is None:
            return losses.mean()
        # Gradients are averaged over processes, but this is a share of a sum over all of them.
        return losses.sum() / steps * self._shares

    def prediction_step(self, model: Any, inputs: dict[str, Any], *more: Any, **given: Any) -> Any:
        """No loss, step scores of traces (one a row, padded), and how many each has."""
        inputs = self._prepare_inputs(inputs)
        read = inputs["read"]
        with torch.no_grad():
            scores = torch.softmax(self._logits(model, inputs, read).float(), dim=-1)[:, 1]
        counts = read.sum(dim=1)
        found = scores.new_full((len(read), int(counts.max())), UNTRAINED)
        found[torch.arange(found.shape[1], device=found.device) < counts[:, None]] = scores
        return None, found, counts

    def _logits(self, model: Any, inputs: Mapping[str, Tensor], at: Tensor) -> Tensor:
        """Logits of incorrect and correct at the places of a mask, in its order."""
        given: dict[str, Any] = {name: inputs[name] for name in ("input_ids", "position_ids")} | {
            "use_cache": False
        }
        logits: Tensor
        if self._verdicts is None:
            logits = model(**given).logits
            return logits[at]
        places = at.any(dim=0).nonzero().squeeze(1)
        if self.args.n_gpu > 1 or not _keeps_logits(self.accelerator.unwrap_model(model)):
            logits = model(**given).logits[:, places]
        else:
            logits = model(**given, logits_to_keep=places).logits
        return logits[:, :, self._verdicts][at[:, places]]


def _keeps_logits(model: Any) -> bool:
    """Whether the model computes the logits of some positions only, which saves their memory."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(inner.forward).parameters


class _Told(TrainerCallback):
    """Passes on what is logged."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        """Tell the figures of the dev traces and of the training."""
        if not state.is_world_process_zero or not logs or "eval_best" not in logs:
            return
        shown = {
            name.removeprefix("eval_"): value
            for name, value in logs.items()
            if name.startswith("eval_") and name.removeprefix("eval_") not in _NO_FIGURES
        }
        figures = ", ".join(f"{name} {value:.3f}" for name, value in shown.items())
        self._note(f"step {state.global_step} of {state.max_steps}: {figures}")


def train_prm(training: Training) -> Trained:
    """Train a PRM, or go on with an unfinished one in the same folder, and write it.

    Raises:
        InputError: no trace can be learned, or an option that TrainingArguments refuses.
        ModelRefused: the base cannot be loaded.
        PrmError: its tokenizer or chat template does not fit the family.
    """
    config, out = training.config, Path(training.config.out)
    set_seed(config.seed)
    base = prepare(training.folder, training.family, config)
    window = window_of(base.family)
    limit = min(config.max_tokens or DEFAULT_WINDOW, window)
    rules = FitRules(max_tokens=limit)
    train = examples_of(base.family, training.train, rules, config)
    dev = examples_of(base.family, training.dev, rules, config)
    if not train.rows:
        why = ", ".join(f"{count} {reason}" for reason, count in train.skipped.items())
        raise InputError(
            f"No trace has a step to learn from: {why or 'there is none'}.",
            remedy="stepgold status shows the labels of each labeler",
        )
    arguments = _arguments(config, out / CHECKPOINTS, train, dev)
    trainer = _trainer(training, base, arguments, (train, dev))
    found = _resumed(training, arguments)
    with silent_libraries():
        trainer.train(resume_from_checkpoint=None if found is None else str(found))
        if arguments.should_save or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            base.save(trainer, out)
    state = trainer.state
    return Trained(
        train=train,
        dev=dev,
        steps=state.global_step,
        history=[dict(row) for row in state.log_history],
        best=_best(state),
        resumed_at=None if found is None else _step(found),
        is_main=state.is_world_process_zero,
    )


def _arguments(
    config: TrainConfig, folder: Path, train: Examples, dev: Examples
) -> TrainingArguments:
    tokens = [len(row.ids) for row in train.rows]
    alone = max(1, config.batch_tokens // max(tokens))
    rate = config.learning_rate or (1e-5 if config.lora is None else 1e-4)
    share = 1 / config.checks if config.checks > 1 else 0.999
    given: dict[str, Any] = {
        "per_device_train_batch_size": 1 if config.packing else alone,
        "per_device_eval_batch_size": alone,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "logging_steps": 1 / max(config.checks, 50),
        "save_total_limit": 2,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **config.training_options,
    }
    checked: dict[str, Any] = {
        "eval_strategy": "steps",
        "eval_steps": share,
        "load_best_model_at_end": True,
        "metric_for_best_model": f"eval_{BEST}",
        "greater_is_better": True,
    }
    try:
        return TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=config.epochs,
            max_steps=config.max_steps or -1,
            learning_rate=rate,
            seed=config.seed,
            data_seed=config.seed,
            save_strategy="steps",
            save_steps=share,
            report_to=config.report_to or "none",
            remove_unused_columns=False,
            **(checked if dev.rows else {}),
            **given,
        )
    except (TypeError, ValueError, ImportError) as fault:
        raise InputError(
            f"transformers refuses the training options: {str(fault).strip().splitlines()[0]}",
            where="--training-option",
            remedy="see the documentation of transformers' TrainingArguments",
        ) from fault


def _trainer(
    training: Training,
    base: TrainableModel,
    arguments: TrainingArguments,
    splits: tuple[Examples, Examples],
) -> StepTrainer:
    config, (train, dev) = training.config, splits
    rows = (
        packed(train.rows, tokens=config.batch_tokens, seed=config.seed)
        if config.packing
        else [[row] for row in train.rows]
    )
    balanced = config.class_weights == "balanced"
    trainer = StepTrainer(
        verdicts=base.verdicts,
        weights=balance(train.rows) if balanced else (1.0, 1.0),
        model=base.model,
        args=arguments,
        data_collator=partial(collate, pad=base.pad),
        train_dataset=_Rows(rows),
        eval_dataset=_Rows([[row] for row in dev.rows]),
        processing_class=base.tokenizer,
        compute_metrics=partial(_figures, dev=dev.rows, measure=training.measure),
        callbacks=[_Told(training.note)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


class _Rows(torch.utils.data.Dataset[Sequence[Example]]):
    """Rows as a dataset of torch."""

    def __init__(self, rows: Sequence[Sequence[Example]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: int) -> Sequence[Example]:
        return self._rows[at]


def _figures(found: Any, *, dev: Sequence[Example], measure: Measure) -> dict[str, float]:
    scores = {
        row.trace_id: [float(score) for score in of[: len(row.read_at)]]
        for row, of in zip(dev, found.predictions, strict=True)
    }
    return dict(measure(scores))


def _last_complete(folder: Path, processes: int) -> Path | None:
    """The newest checkpoint that was written completely; incomplete ones are of a killed run.

    The trainer's state is written last.
    """
    found = []
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            json.loads((checkpoint / "trainer_state.json").read_bytes())
        except (OSError, ValueError):
            shutil.rmtree(checkpoint, ignore_errors=True)
            continue
        states = len(list(checkpoint.glob("rng_state*.pth")))
        if states >= processes:
            found.append(checkpoint)
    return max(found, key=_step, default=None)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _resumed(training: Training, arguments: TrainingArguments) -> Path | None:
    """The checkpoint to go on from; None to begin.

    Raises:
        InputError: the folder holds checkpoints of other options, traces or labels.
    """
    folder = Path(str(arguments.output_dir))
    stated = folder / "identity"
    with arguments.main_process_first(desc="checkpoints"):
        if training.again and arguments.process_index == 0:
            shutil.rmtree(folder, ignore_errors=True)
        if stated.exists() and stated.read_text() != training.identity:
            raise InputError(
                "The folder holds an unfinished training with other options, traces or labels.",
                where=str(folder.parent),
                remedy="choose another --out, or start again with --replace",
            )
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.process_index == 0:
            part = stated.with_suffix(".part")
            part.write_text(training.identity)
            part.replace(stated)
        return _last_complete(folder, arguments.world_size)


def _best(state: Any) -> dict[str, float]:
    """The dev figures at the best checkpoint."""
    for row in state.log_history:
        if row.get("step") == state.best_global_step and f"eval_{BEST}" in row:
            return {
                name.removeprefix("eval_"): float(value)
                for name, value in row.items()
                if name.startswith("eval_") and name.removeprefix("eval_") not in _NO_FIGURES
            }
    return {}
