"""The options of a PRM training, checked before a model library is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

from traces import Config, InputError, Need, StrPath, option

TrainableFamily = Literal["qwen-prm", "medprm", "math-shepherd", "trl"]
"""Layouts and heads: two classes at `<extra_0>`; two tokens at ` ки`, in a chat or numbered lines;
two classes at a line break (token classification)."""
_OURS: Final = frozenset(
    {
        "output_dir",
        "max_steps",
        "num_train_epochs",
        "learning_rate",
        "seed",
        "data_seed",
        "report_to",
        "remove_unused_columns",
        "load_best_model_at_end",
        "metric_for_best_model",
        "greater_is_better",
        "save_only_model",
        "resume_from_checkpoint",
        "label_names",
        "push_to_hub",
    }
)
"""Fields of TrainingArguments that StepGold sets itself, or that would break a resumed run."""


class TrainConfig(Config):
    """How a PRM is trained; everything else is an option of transformers' TrainingArguments."""

    base: str = option(
        metavar="MODEL", help="Model to start from: a path or hub ID, with or without hf:, or lab."
    )
    out: StrPath = option(
        metavar="DIR", help="Folder of the PRM; the same command continues what is in it."
    )
    family: TrainableFamily | None = option(
        default=None,
        choices=get_args(TrainableFamily),
        help="Layout and head: qwen-prm (two classes at a marker), medprm or math-shepherd (two"
        " tokens at a marker), trl (token classification) [default: the base's, else qwen-prm].",
    )
    targets: Literal["hard", "soft"] = option(
        default="hard",
        choices=("hard", "soft"),
        help="Learn verdicts, or the labeler's scores as probabilities.",
    )
    hard_threshold: int = option(
        default=0,
        between=(0, None),
        metavar="N",
        help="A Monte Carlo step is correct if more than N continuations succeeded.",
    )
    after_error: Literal["mask", "keep"] = option(
        default="mask",
        choices=("mask", "keep"),
        help="Steps after the first error: leave them out, or learn them too.",
    )
    class_weights: Literal["none", "balanced"] = option(
        default="none",
        choices=("none", "balanced"),
        help="balanced: correct and incorrect steps weigh the same in sum.",
    )
    max_tokens: int | None = option(
        default=None,
        between=(1, None),
        metavar="N",
        help="Window in tokens; longer traces drop documents, then are skipped and counted"
        " [default: the model's, at most 4096].",
    )
    packing: bool = option(
        default=True,
        flags=("--packing/--no-packing",),
        help="Put several traces in one row; none sees another.",
    )
    batch_tokens: int = option(
        default=4096,
        between=(1, None),
        metavar="N",
        help="Tokens of an optimizer step of one process; a longer trace makes its own.",
    )
    epochs: float = option(
        default=3.0, between=(0, None), metavar="X", help="Passes over the traces."
    )
    max_steps: int | None = option(
        default=None, between=(1, None), metavar="N", help="Optimizer steps, in place of --epochs."
    )
    learning_rate: float | None = option(
        default=None,
        between=(0, None),
        metavar="X",
        help="Peak rate [default: 1e-5, with LoRA 1e-4].",
    )
    lora: int | None = option(
        default=None,
        between=(1, None),
        metavar="RANK",
        help="Train LoRA adapters of this rank, merged at the end [default: all weights].",
    )
    checks: int = option(
        default=10,
        between=(1, None),
        metavar="N",
        help="Times that the dev traces are scored and a checkpoint is written.",
    )
    seed: int = option(
        default=0, between=(0, None), metavar="N", help="Seed of order, split and new weights."
    )
    dtype: Literal["float32", "bfloat16"] = option(
        default="float32",
        choices=("float32", "bfloat16"),
        help="Type of the weights that are trained; mixed precision: --training-option bf16=true.",
    )
    report_to: str | None = option(
        default=None,
        metavar="NAME",
        help="Tracker: wandb, mlflow, tensorboard or trackio [default: none].",
    )
    training_option: Sequence[str] | Mapping[str, Any] = option(
        default=(),
        metavar="KEY=VALUE",
        help="Further field of transformers' TrainingArguments, e.g. gradient_checkpointing=true;"
        " may be repeated.",
    )
    lora_option: Sequence[str] | Mapping[str, Any] = option(
        default=(),
        metavar="KEY=VALUE",
        help="Further field of peft's LoraConfig, e.g. lora_alpha=64; may be repeated.",
        needs=Need("--lora RANK", lambda config: config.lora is not None),
    )

    def check(self) -> None:
        """Refuse options that cannot be passed on.

        Raises:
            InputError: one is not KEY=VALUE, or StepGold sets it itself.
        """
        super().check()
        if mine := sorted(self.training_options.keys() & _OURS):
            raise InputError(
                f"StepGold sets the training option '{mine[0]}' itself.",
                where="--training-option",
                remedy="leave it out; see the options of stepgold train --help",
            )
        _ = self.lora_options

    @property
    def training_options(self) -> dict[str, Any]:
        """The fields of TrainingArguments that the user adds."""
        return _fields(self.training_option, "--training-option")

    @property
    def lora_options(self) -> dict[str, Any]:
        """The fields of LoraConfig that the user adds."""
        return _fields(self.lora_option, "--lora-option")

    def identity(self) -> dict[str, Any]:
        """What the trained weights depend on besides base and data (strict JSON)."""
        names = (
            *("base", "family", "targets", "hard_threshold", "after_error", "class_weights"),
            *("max_tokens", "packing", "batch_tokens", "epochs", "max_steps", "learning_rate"),
            *("lora", "checks", "seed", "dtype"),
        )
        return {name: getattr(self, name) for name in names} | {
            "training_option": self.training_options,
            "lora_option": self.lora_options,
        }


def _fields(given: Sequence[str] | Mapping[str, Any], flag: str) -> dict[str, Any]:
    """Fields as they are typed; a value that is not JSON is text.

    >>> _fields(["bf16=true", "optim=adamw_torch"], "--training-option")
    {'bf16': True, 'optim': 'adamw_torch'}
    """
    if isinstance(given, Mapping):
        return dict(given)
    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key.strip().isidentifier():
            raise InputError(
                f"{text!r} is not KEY=VALUE.", where=flag, remedy=f"e.g. {flag} bf16=true"
            )
        try:
            found[key.strip()] = json.loads(value)
        except ValueError:
            found[key.strip()] = value
    return found
