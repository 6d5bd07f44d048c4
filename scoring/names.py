"""What families, modes and aggregations are called: known, and checked, before a model library is loaded."""

from __future__ import annotations

from typing import Final, Literal, get_args

from traces import InputError

Aggregation = Literal["min", "product", "last", "mean"]
"""How step scores become one score of a whole trace."""
Mode = Literal["strict", "medprm-compat"]
"""strict: one BOS, markers in the solution only, float32; medprm-compat: as Med-PRM's released script."""
COMPARED: Final = ("eurusprm-stage1", "eurusprm-stage2", "implicit-prm")
"""Families that hold the PRM against a reference."""
FAMILY_NAMES: Final = (
    "medprm",
    "medprm-orm",
    "qwen-prm",
    "qwen-prm800k",
    "math-shepherd",
    "rlhflow-mistral",
    "rlhflow-deepseek",
    "skywork-o1",
    "trl",
    "pure",
    "visualprm",
    *COMPARED,
    "likelihood",
)
"""What `--family` takes beside a file."""
FILE_ENDING: Final = ".toml"
"""Of a file that describes another family."""


def family_names() -> str:
    """What `--family` takes, in words."""
    return f"{', '.join(FAMILY_NAMES)}, or a FILE.toml that describes another PRM"


def refuse_unknown(family: str | None, mode: str) -> None:
    """Check the names that a user gives.

    Args:
        family: a family's name or the path of a file; None is to be recognised.
        mode: how it is scored.

    Raises:
        InputError: there is no such family or mode.
    """
    if family is not None and family not in FAMILY_NAMES and not family.endswith(FILE_ENDING):
        raise InputError(f'Unknown PRM family "{family}".', remedy=f"take one of {family_names()}")
    if mode not in get_args(Mode):
        modes = ", ".join(get_args(Mode))
        raise InputError(f'There is no scoring mode "{mode}".', remedy=f"take one of {modes}")


def refuse_mismatch(family: str, mode: str, *, reference: bool) -> None:
    """Check that a family is scored in this mode, and with or without a reference.

    Args:
        family: its name.
        mode: one of `Mode`.
        reference: whether the user names a reference.

    Raises:
        InputError: it is not.
    """
    if mode == "medprm-compat" and family != "medprm":
        raise InputError(
            "The mode medprm-compat repeats the released script of the family medprm.",
            remedy="give --family medprm, or leave --mode out",
        )
    if reference and family not in COMPARED:
        raise InputError(
            f"The family {family} compares the PRM with no other model.",
            remedy=f"leave --reference out, or name one of {', '.join(COMPARED)}",
        )
    if not reference and family in COMPARED:
        raise missing_reference(family)


def missing_reference(family: str) -> InputError:
    """Why a family that compares is nothing without a reference."""
    return InputError(
        f"The family {family} compares the PRM with the model that it was trained from.",
        remedy="name that one with --reference hf:PATH (for EurusPRM Qwen2.5-Math-7B-Instruct)",
    )
