"""Names of families, modes and aggregations, checked before a model library is loaded.

Another distribution adds a family through the entry-point group `stepgold.families`: the entry
names a function that takes a `scoring.PrmCheckpoint` and returns a `scoring.Family`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Final, Literal, get_args

from traces import InputError
from traces.plugins import broken_plugin, load_plugins

Aggregation = Literal["min", "product", "last", "mean"]
"""How step scores become one score of a whole trace."""
Mode = Literal["strict", "medprm-compat"]
"""strict: one BOS, markers in the solution only, float32; medprm-compat: as Med-PRM's script."""
PLUGIN_GROUP: Final = "stepgold.families"
"""Entry-point group of families that other distributions add."""
BUILT_IN: Final[Mapping[str, str]] = {
    "medprm": "scoring.families.medprm:bind",
    "medprm-orm": "scoring.families.medprm:bind_outcome",
    "qwen-prm": "scoring.families.qwen_prm:bind",
    "qwen-prm800k": "scoring.families.qwen_prm:bind",
    "math-shepherd": "scoring.families.math_shepherd:bind",
    "rlhflow-mistral": "scoring.families.turn_tokens:bind",
    "rlhflow-deepseek": "scoring.families.turn_tokens:bind",
    "fover": "scoring.families.turn_tokens:bind",
    "skywork-o1": "scoring.families.skywork:bind",
    "trl": "scoring.families.trl:bind",
    "pure": "scoring.families.trl:bind",
    "visualprm": "scoring.families.visualprm:bind",
    "eurusprm-stage1": "scoring.families.implicit:bind",
    "eurusprm-stage2": "scoring.families.implicit:bind",
    "implicit-prm": "scoring.families.implicit:bind",
    "reasoneval": "scoring.families.reasoneval:bind",
    "likelihood": "scoring.families.likelihood:bind",
}
"""Built-in families: the name given to `--family`, and the function that binds it."""
GENERATIVE: Final = ("genprm", "thinkprm", "r-prm", "fover")
"""Families that are asked in words (`scoring.generative`); fover is read in one pass on `hf:`."""
WITH_REFERENCE: Final = ("eurusprm-stage1", "eurusprm-stage2", "implicit-prm")
"""Families that compare the PRM with a reference model."""
FILE_ENDING: Final = ".toml"
"""Extension of a file that describes a family."""


def known_families() -> list[str]:
    """Return all family names: built-in ones, then those of installed plug-ins by name."""
    installed = {entry.name for entry in entry_points(group=PLUGIN_GROUP)}
    asked = [name for name in GENERATIVE if name not in BUILT_IN]
    return [*BUILT_IN, *asked, *sorted(installed - set(BUILT_IN))]


def describe_families() -> str:
    """Return what `--family` accepts, as text for help and errors."""
    return f"{', '.join(known_families())}, or a FILE.toml that describes another PRM"


def find_family(name: str) -> EntryPoint:
    """Return the entry of a family, built-in or of a plug-in; nothing is imported yet.

    Raises:
        InputError: no family has this name, or a plug-in uses a name that is taken.
    """
    plugins = load_plugins(PLUGIN_GROUP)
    for taken in sorted(set(plugins) & {*BUILT_IN, *GENERATIVE}):
        raise broken_plugin(plugins[taken], "a built-in family has this name.")
    if name in BUILT_IN:
        return EntryPoint(name, BUILT_IN[name], PLUGIN_GROUP)
    if name not in plugins:
        raise InputError(
            f'Unknown PRM family "{name}".', remedy=f"choose one of {describe_families()}"
        )
    return plugins[name]


def refuse_unknown(family: str | None, mode: str) -> None:
    """Check names given by the user.

    Args:
        family: a family's name or the path of a file; None to detect it from the checkpoint.
        mode: the scoring mode.

    Raises:
        InputError: there is no such family or mode.
    """
    if family is not None and family not in GENERATIVE and not family.endswith(FILE_ENDING):
        find_family(family)
    if mode not in get_args(Mode):
        modes = ", ".join(get_args(Mode))
        raise InputError(f'Unknown scoring mode "{mode}".', remedy=f"choose one of {modes}")


def refuse_mismatch(family: str, mode: str, *, reference: bool) -> None:
    """Check that family, mode and reference go together.

    Args:
        family: its name.
        mode: one of `Mode`.
        reference: whether the user names a reference.

    Raises:
        InputError: they do not.
    """
    if mode == "medprm-compat" and family != "medprm":
        raise InputError(
            "The mode medprm-compat reproduces the released script of the family medprm.",
            remedy="use --family medprm, or drop --mode",
        )
    if reference and family not in WITH_REFERENCE:
        raise InputError(
            f"The family {family} does not use a reference model.",
            remedy=f"drop --reference, or use one of {', '.join(WITH_REFERENCE)}",
        )
    if not reference and family in WITH_REFERENCE:
        raise missing_reference(family)


def missing_reference(family: str) -> InputError:
    """Return the error for an implicit PRM without a reference."""
    return InputError(
        f"The family {family} compares the PRM with the model it was trained from.",
        remedy="add --reference hf:PATH (for EurusPRM: Qwen2.5-Math-7B-Instruct)",
    )
