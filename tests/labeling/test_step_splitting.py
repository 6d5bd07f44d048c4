"""Steps of a solution: numbered lines, blank lines, a delimiter; never inside prose, nothing lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.candidates import split_steps
from traces.errors import InputError


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("Step 1: a\nStep 2: b", ("Step 1: a", "Step 2: b")),
        ("## Step 1: a\n\nmore\n\n## Step 2: b", ("## Step 1: a\n\nmore", "## Step 2: b")),
        ("**Step 1:** a\n**Step 2:** b", ("**Step 1:** a", "**Step 2:** b")),
        ("We begin.\nStep 1: a\nStep 2: b", ("We begin.\nStep 1: a", "Step 2: b")),
        ("Step 1: see Step 2: later\nStep 2: b", ("Step 1: see Step 2: later", "Step 2: b")),
        ("Step 1: a\nStep 2: b\nStep 1: again", ("Step 1: a", "Step 2: b\nStep 1: again")),
        ("Step 1. a\nSTEP 2) b", ("Step 1. a", "STEP 2) b")),
        ("a\n\nb\n \n\nc", ("a", "b", "c")),
        ("one line\nand another", ("one line\nand another",)),
        ("Step 1: alone", ("Step 1: alone",)),
        ("In Step 2: of the plan\n\nwe stop", ("In Step 2: of the plan", "we stop")),
        ("Stepping 1: a\nStepping 2: b", ("Stepping 1: a\nStepping 2: b",)),
        ("", ()),
        (" \n\n ", ()),
    ],
)
def test_steps(text: str, steps: tuple[str, ...]) -> None:
    assert split_steps(text) == steps


def test_given_delimiter_is_taken_to_the_letter() -> None:
    assert split_steps("a ки b ки", " ки") == ("a", "b")
    assert split_steps("Step 1: a\nStep 2: b\n", "\n") == ("Step 1: a", "Step 2: b")
    assert split_steps("Step 1: a\nStep 2: b", "|") == ("Step 1: a\nStep 2: b",)
    with pytest.raises(InputError, match="empty"):
        split_steps("a", "")


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("단계 1: 가", "단계 2: 나"),
        ("1단계: 가", "2단계: 나"),
        ("**1단계**: 가", "**2단계**: 나"),
        ("제1단계. 가", "제2단계. 나"),
        ("步骤1：甲", "步骤2：乙"),
        ("步骤1 甲", "步骤2 乙"),
        ("【步骤一】甲", "【步骤二】乙"),
        ("第一步，甲", "第二步，乙"),
        ("第1步：甲", "第2步：乙"),
        ("### 第十步：甲", "### 第十一步：乙"),
        ("ステップ1：甲", "ステップ2：乙"),
        ("ステップ１ 甲", "ステップ２ 乙"),
        ("手順1. 甲", "手順2. 乙"),
        ("Schritt 1: a", "Schritt 2: b"),
        ("Étape 1 : a", "Étape 2 : b"),
        ("Paso 1: a", "Paso 2: b"),
        ("Шаг 1: а", "Шаг 2: б"),
        ("ขั้นตอนที่ 1: ก", "ขั้นตอนที่ 2: ข"),
        ("## Step 1\na", "## Step 2\nb"),
    ],
)
def test_markers_of_other_languages(one: str, two: str) -> None:
    assert split_steps(f"{one}\nmore\n{two}") == (f"{one}\nmore", two)


@pytest.mark.parametrize(
    "text",
    [
        "1단계 치료는 a\n2단계 치료는 b",
        "Step 1 is a\nStep 2 is b",
        "第一步是甲\n第二步是乙",
        "步骤很多\n步骤少",
    ],
)
def test_prose_about_steps_starts_none(text: str) -> None:
    assert split_steps(text) == (text,)


@given(st.text(alphabet="Step 12:\n.#*ab 第一十步단계", max_size=80))
def test_no_character_is_lost(text: str) -> None:
    for delimiter in (None, "\n"):
        kept = "".join("".join(split_steps(text, delimiter)).split())
        assert kept == "".join(text.split())
