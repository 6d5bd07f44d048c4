"""What people in their roles get wrong: the error names the remedy, which is typed and works.

Each remedy is taken from the text of the error, never from what the test knows.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import stepgold
from cli import execute
from inference import ModelSpec
from tests.commands.conftest import Called, Cli
from tests.commands.labelled_workspace import make_workspace
from traces import InputError

Remedy = Callable[[list[str], str], list[str]]
ON = ("--resamples", "20")


def meant(argv: list[str], remedy: str) -> list[str]:
    """Replace the word that is closest to what the error suggests."""
    suggested = re.findall(r"did you mean '([^']+)'", remedy)[0]
    wrong = max(argv, key=lambda word: len(set(word) & set(suggested)) - abs(len(word) - len(suggested)) - 99 * word.startswith("--"))  # fmt: skip
    return [suggested if word == wrong else word for word in argv]


def typed(argv: list[str], remedy: str) -> list[str]:
    """Type the command that the error gives."""
    del argv
    words = shlex.split(remedy.split(", or ")[0])
    assert words[0] == "stepgold"
    return words[1:]


def added(*values: str) -> Remedy:
    """Add the option that the error names, with a value of one's own for a placeholder."""

    def apply(argv: list[str], remedy: str) -> list[str]:
        flag = re.findall(r"add (--[a-z-]+)", remedy)[0]
        return [*argv, flag, *values]

    return apply


def left_out(argv: list[str], remedy: str) -> list[str]:
    """Leave out the option that the error names, with its value if it has one."""
    flag = re.findall(r"leave (?:out )?(--[a-z-]+)(?: out)?", remedy)[-1]
    at = argv.index(flag)
    values = 1 if at + 1 < len(argv) and not argv[at + 1].startswith("--") else 0
    return argv[:at] + argv[at + 1 + values :]


def ended(argv: list[str], remedy: str) -> list[str]:
    """End the file as the error says."""
    ending = re.findall(r"end the (?:file|path) in (\.[a-z]+)", remedy)[0]
    return [re.sub(r"\.(?:pdf|csv)$", ending, word) for word in argv]


def of_format(argv: list[str], remedy: str) -> list[str]:
    """Import in the format that the error names."""
    return [argv[0], shlex.split(remedy)[2], *argv[2:]]


def of_the_first_form(argv: list[str], remedy: str) -> list[str]:
    """Keep the options of the first form that the error gives, and leave out those of the second."""
    second = re.findall(r"--[a-z]+", remedy.partition(", or ")[2])
    at = argv.index(next(word for word in argv if word in second))
    return argv[:at] + argv[at + 2 :]


def by_words(argv: list[str], remedy: str) -> list[str]:
    """Add the option at the end of the remedy."""
    return [*argv, *re.findall(r"with (--[a-z]+) ([a-z0-9]+)$", remedy)[0]]


CASES: list[tuple[str, Sequence[str], Remedy]] = [
    ("a medical PhD student misspells the judge", ("evaluate", "--dataset", "d", "--labeler", "jugde", *ON), meant),
    ("a medical PhD student imports a benchmark as traces", ("import", "traces", "pb.json", "--dataset", "e"), of_format),
    ("an ML engineer with three PRMs tests them against a fourth", ("evaluate", "--dataset", "d", "--labeler", "prm", "--labeler", "judge", "--against", "blank", *ON), left_out),
    ("an ML engineer fits the threshold on the test set", ("evaluate", "--dataset", "d", "--labeler", "prm", "--threshold", "fit:d/dev", *ON), added()),
    ("an ML engineer imports scores without a name", ("import", "scores", "prm.jsonl", "--dataset", "d"), added("theirs")),
    ("an author wants the report as PDF", ("report", "o.pdf", "--dataset", "d", *ON), ended),
    ("an author asks for two outputs at once", ("evaluate", "--dataset", "d", "--labeler", "prm", "--format", "tex", "--json", *ON), left_out),
    ("somebody in a hurry misspells the dataset", ("show", "t3", "--dataset", "dd"), meant),
    ("somebody in a hurry misspells a trace", ("show", "tt3", "--dataset", "d"), meant),
    ("somebody in a hurry forgets the dataset", ("report", "o.html", *ON), added("d")),
    ("a trainer exports a spreadsheet", ("export", "trl", "o.csv", "--dataset", "d", "--labeler", "gold"), ended),
    ("a trainer misspells the format", ("export", "qwen-pmr", "o.jsonl", "--dataset", "d", "--labeler", "prm"), meant),
    ("a best-of-N user mixes both forms", ("best-of-n", "--dataset", "d", "--labeler", "prm", "--pool", "f.jsonl", "-n", "2"), of_the_first_form),
    ("a librarian searches before indexing", ("search", "mg daily"), by_words),
    ("a planner leaves out the service", ("plan", "--dataset", "d", "--judge", "gemini-3.5-flash-lite"), meant),
    ("a cleaner removes without a terminal", ("remove", "labeler", "blank", "--dataset", "d"), typed),
    ("a script's author puts the option last", ("status", "--debug"), typed),
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workspace `w`, score files, a benchmark file and a corpus."""
    folder = tmp_path_factory.mktemp("roles")
    make_workspace(folder)
    row = {"id": "gsm8k-0", "problem": "2+2?", "steps": ["a", "b"], "label": 1, "generator": "g", "final_answer_correct": False}  # fmt: skip
    (folder / "pb.json").write_text(json.dumps([row]))
    (folder / "guide.md").write_text("# Zentide\n\nGive 5 mg of zentide daily.")
    at = ["--workspace", str(folder / "w")]
    assert execute([*at, "corpus", "add", str(folder / "guide.md"), "--corpus", "g"]) == 0
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, in which commands are typed."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def remedy_of(called: Called) -> str:
    """The remedy as a person reads it."""
    assert called.code == 2, called.err
    (line,) = re.findall(r"^  do: (.*)$", called.err, re.MULTILINE)
    return str(line)


@pytest.mark.parametrize(("role", "argv", "remedy"), CASES, ids=[role for role, *_ in CASES])
def test_the_remedy_works_when_typed(
    cli: Cli, here: Path, role: str, argv: Sequence[str], remedy: Remedy
) -> None:
    del role
    failed = cli(*argv)
    told = failed.document["error"]["remedy"] if "--json" in argv else remedy_of(failed)
    again = remedy(list(argv), told)
    assert again != list(argv)
    if again[0] == "--workspace":
        again = again[2:]
    assert cli(*again).code == 0


def test_in_a_notebook_the_remedy_is_in_the_exception(here: Path) -> None:
    workspace = stepgold.Workspace(here / "w")
    with pytest.raises(InputError) as told:
        workspace.evaluate(dataset="d", labeler="prmm", resamples=20)
    (name,) = re.findall(r"did you mean '([^']+)'", str(told.value.remedy))
    assert workspace.evaluate(dataset="d", labeler=name, resamples=20).average.missing == 0


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("Qwen/Qwen2.5-Math-PRM-7B", "hf:Qwen/Qwen2.5-Math-PRM-7B"),
        ("./checkpoints/prm", "hf:./checkpoints/prm"),
        ("gpt-5", "openai:gpt-5"),
        ("gemini-3.5-flash-lite", "gemini:gemini-3.5-flash-lite"),
    ],
)
def test_a_model_without_its_service_is_completed(given: str, named: str) -> None:
    with pytest.raises(InputError) as told:
        ModelSpec.parse(given)
    assert f"did you mean '{named}'" in str(told.value.remedy)
    assert str(ModelSpec.parse(named)) == named


def test_nothing_is_suggested_where_nothing_is_likely() -> None:
    with pytest.raises(InputError) as told:
        ModelSpec.parse("claude")
    assert "did you mean" not in str(told.value.remedy)
