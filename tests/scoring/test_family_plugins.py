"""A PRM family of another distribution, really installed, scores like a built-in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scoring import describe_families, known_families, load_scorer
from scoring.families.generic_layout import GenericLayout
from scoring.names import PLUGIN_GROUP, refuse_unknown
from tests.installed import install
from traces.errors import InputError
from traces.problem import TraceInContext

FAMILY = """
from scoring.families.medprm import MedPrm


class Theirs(MedPrm):
    name = "{name}"


def bind(checkpoint):
    return Theirs(checkpoint.tokenizer, checkpoint.model())
"""
Plug = Callable[[str, str], None]


@pytest.fixture
def plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plug:
    """Install a distribution `stepgold-NAME` with a family of that name and the given code."""
    monkeypatch.syspath_prepend(tmp_path / "site")

    def install_family(name: str, code: str) -> None:
        entry = f"{name} = {{module}}:bind"
        install(tmp_path / "site", f"stepgold-{name}", PLUGIN_GROUP, entry, code=code)

    return install_family


def test_it_scores_and_is_stored_under_its_name(
    plug: Plug, medprm_folder: Path, contexts: list[TraceInContext]
) -> None:
    plug("theirs", FAMILY.format(name="theirs"))
    scorer = load_scorer(str(medprm_folder), family="theirs")
    ours = load_scorer(str(medprm_folder), family="medprm")
    assert scorer.config()["family"] == "theirs"
    assert list(scorer.score(contexts)) == list(ours.score(contexts))


def test_help_and_errors_name_it(plug: Plug) -> None:
    plug("shown", FAMILY.format(name="shown"))
    assert known_families()[-1] == "shown"
    assert "r-prm, shown, or a FILE.toml" in describe_families()
    refuse_unknown("shown", "strict")
    with pytest.raises(InputError) as caught:
        refuse_unknown("shone", "strict")
    assert "shown" in (caught.value.remedy or "")


def test_a_family_file_cannot_take_its_name(plug: Plug, tmp_path: Path) -> None:
    plug("taken", FAMILY.format(name="taken"))
    file = tmp_path / "mine.toml"
    file.write_text(
        'name = "taken"\nprompt = "{question}"\nmarker = "!"\npositive = "+"\nnegative = "-"\n'
    )
    with pytest.raises(InputError, match='"taken" of another family'):
        GenericLayout.from_file(file)


def test_it_cannot_take_the_name_of_a_built_in_family(plug: Plug, medprm_folder: Path) -> None:
    plug("medprm", FAMILY.format(name="medprm"))
    with pytest.raises(InputError, match="'stepgold-medprm'"):
        load_scorer(str(medprm_folder), family="medprm")


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("no-import", "import nothing_of_this_name\n", "ModuleNotFoundError"),
        ("no-function", "bind = 3\n", "'int' object is not callable"),
        ("raises", "def bind(checkpoint):\n    return checkpoint.folders\n", "folders"),
        ("no-family", "def bind(checkpoint):\n    return checkpoint\n", "has no 'aggregation'"),
        ("other-name", FAMILY.format(name="else"), "'else'"),
    ],
)
def test_a_broken_one_names_its_distribution(
    plug: Plug, medprm_folder: Path, name: str, code: str, reason: str
) -> None:
    plug(name, code)
    with pytest.raises(InputError) as caught:
        load_scorer(str(medprm_folder), family=name)
    assert f"distribution 'stepgold-{name}'" in caught.value.what
    assert reason in caught.value.what
    assert f"stepgold-{name}" in (caught.value.remedy or "")
