"""Which family a checkpoint is of: told by added markers and heads, never by a guess."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scoring import load_scorer
from scoring.families.reasoneval import ReasonEval
from scoring.loading import detect_family
from tests.scoring.checkpoints import save_qwen_prm
from tests.scoring.golden_cases import CASES, checkpoint, trace
from tests.scoring.golden_tokenizers import llama31, mistral
from traces.errors import PrmError


@pytest.mark.parametrize(
    ("case", "family"),
    [
        ("medprm", "medprm"),
        ("qwen-prm", "qwen-prm"),
        ("skywork-o1", "skywork-o1"),
        ("rlhflow-deepseek", None),
        ("math-shepherd", None),
        ("reasoneval", "reasoneval"),
        ("fover", None),
    ],
)
def test_golden_checkpoints(tmp_path: Path, case: str, family: str | None) -> None:
    folder = checkpoint(tmp_path, CASES[case])
    assert detect_family(folder, CASES[case].tokenizer()) == family


def test_token_classification_without_the_qwen_marker_is_trl(tmp_path: Path) -> None:
    folder = save_qwen_prm(tmp_path, published=False)
    assert detect_family(folder, llama31()) == "trl"
    # A language model's checkpoint has the tokenizer, but no such head.
    assert detect_family(checkpoint(tmp_path / "m", CASES["trl"]), llama31()) is None


def test_a_word_that_merely_spells_the_marker_is_no_med_prm(tmp_path: Path) -> None:
    """Large vocabularies hold ` ки` as an ordinary word: every such model would be a Med-PRM."""
    folder = checkpoint(tmp_path, CASES["math-shepherd"])
    for tokenizer in (llama31("a ки"), mistral(), mistral(metaspace=True)):
        assert len(tokenizer("a ки", add_special_tokens=False)["input_ids"]) <= 3
        assert detect_family(folder, tokenizer) is None


@pytest.mark.slow
def test_loading_says_nothing_of_a_head_that_we_read_ourselves(tmp_path: Path) -> None:
    """transformers reports it as unexpected, over several lines, on standard error."""
    folder = checkpoint(tmp_path, CASES["skywork-o1"])
    code = f"from scoring import load_scorer; load_scorer({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_heads_of_other_families_are_refused_by_name(tmp_path: Path) -> None:
    skywork = checkpoint(tmp_path / "s", CASES["skywork-o1"])
    trl = checkpoint(tmp_path / "t", CASES["trl"])
    with pytest.raises(PrmError, match="two classes"):
        load_scorer(str(skywork), family="trl")
    with pytest.raises(PrmError, match="1 output"):
        load_scorer(str(trl), family="skywork-o1")
    for family, words in (("math-shepherd", "ки"), ("medprm-orm", "ки"), ("qwen-prm", "extra_0")):
        with pytest.raises(PrmError, match=words):
            load_scorer(str(trl), family=family)


@pytest.mark.parametrize("early", [False, True])
def test_reasoneval_reads_where_its_script_does(early: bool) -> None:
    """codes/examples.py, line by line; the separator of the 7B is BOS, that of the 34B is not."""
    tokenizer = mistral(["▁Step", "▁mg", "▁dose", "Step"])
    tokenizer.pad_token = "<s>" if early else "</s>"
    steps = ["6 x 30 = 180 mg.", "So it is 180.", "Yes"]
    separator = tokenizer.pad_token
    text = "Question:\nWhich dose?\nAnswer:\nLet's think step by step.\n" + separator
    given = tokenizer(text + "".join(step + separator for step in steps))["input_ids"]
    mark = tokenizer(separator)["input_ids"][-1]
    places: list[int] = []
    kept: list[int] = []
    for place, number in enumerate(given):
        if number == mark:
            places.append(place - 1 - len(places))
        else:
            kept.append(number)
    kept, places = ([1, *kept], places[2:]) if early else (kept, places[1:])
    family = ReasonEval(tokenizer, None, None)  # type: ignore[arg-type]  # only the layout is used
    laid_out = family.lay_out(trace("Which dose?", *steps), ())
    assert list(laid_out.ids) == kept
    assert [place for (place,) in laid_out.read_at] == places
