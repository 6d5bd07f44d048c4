"""Korean guidelines, problems and solutions through the whole pipeline, with a Gemini on loopback."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import Cli
from tests.loopback import gemini_answers
from tests.loopback.gemini_server import GeminiServer

GUIDELINES = {
    "고혈압.txt": "고혈압은 수축기 혈압이 140 mmHg 이상인 상태이다. 임신부에게는 라미프릴을 투여하지 않는다."
    " 메틸도파가 권장된다.",
    "당뇨병.txt": "당뇨병 환자의 공복 혈당 목표는 80에서 130 mg/dL이다. 메트포르민은 신기능이 30 미만이면 금기이다.",
    "천식.md": "# 천식\n\n급성 천식 발작에는 살부타몰 흡입을 먼저 시작한다. 산소 포화도는 94% 이상을 유지한다.",
}
QUESTIONS = [
    (
        "임신부의 고혈압에 권장되는 약은 무엇인가?",
        ["라미프릴", "메틸도파", "발사르탄"],
        "B",
        "메틸도파",
    ),
    ("메트포르민이 금기인 경우는?", ["신기능 25", "신기능 60", "신기능 90"], "A", "메트포르민"),
    ("급성 천식 발작에 먼저 쓰는 약은?", ["아스피린", "와파린", "살부타몰"], "C", "살부타몰"),
]
ENDINGS = ("따라서 정답은 {}입니다.", "정답: {}", "답은 {}번이다.", "그러므로 답은 ({})이다.")
JUDGE = ("--judge", "gemini:gemini-3.5-flash-lite")


def mr_ben(path: Path) -> Path:
    """Every question with a right solution, and one that is wrong from its second step on."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number, (question, options, gold, drug) in enumerate(QUESTIONS):
        for model in ("옳은 모델", "틀린 모델"):
            right = model == "옳은 모델"
            other = "ABC"["ABC".index(gold) - 1]
            chosen = drug if right else f"{drug}이 아닌 약"
            found.setdefault(f"문제-{number}", []).append(
                {
                    "Question_UUID": f"문제-{number}",
                    "Subject": "의학",
                    "Question": question,
                    "Options": "\n".join(
                        f"{letter}: {text}" for letter, text in zip("ABC", options, strict=True)
                    ),
                    "Ground_Truth_Answer": gold,
                    "Sampled_Model": model,
                    "Model_Solution_Steps": [
                        "1단계: 지침을 살펴본다.",
                        f"2단계: 지침에 따르면 {chosen}을 선택한다.",
                        f"정답: {gold if right else other}",
                    ],
                    "Model_Solution_Correctness": "correct" if right else "incorrect",
                    "Model_Solution_First_Error_Step": "N/A" if right else "2",
                }
            )
    path.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    return path


def korean_answer(body: dict[str, Any]) -> str:
    """A judge that quotes a document and calls the wrong step; a policy that ends in Korean."""
    prompt = gemini_answers.prompt_text(body)
    config = body.get("generationConfig", {})
    schema = config.get("responseJsonSchema") or {}
    wrong = "이 아닌 약" in prompt
    gold = next(answer for question, _, answer, _ in QUESTIONS if question in prompt)
    if "steps" in schema.get("properties", {}):
        steps = re.findall(r'<step number="(\d+)">(.*?)</step>', prompt, re.DOTALL)
        documents = re.findall(
            r'<document number="(\d+)"[^>]*>\n(.*?)\n</document>', prompt, re.DOTALL
        )
        return json.dumps(
            {
                "steps": [
                    {
                        "step": int(number),
                        "document": int(documents[0][0]),
                        "quote": documents[0][1].split(". ")[0].strip().splitlines()[-1],
                        "reasoning": "지침과 비교하였다.",
                        "verdict": "incorrect" if "이 아닌 약" in text else "correct",
                    }
                    for number, text in steps
                ]
            },
            ensure_ascii=False,
        )
    ending = ENDINGS[len(prompt) % len(ENDINGS)]
    letter = "ABC"["ABC".index(gold) - 1] if wrong else gold
    return "계속하면 다음과 같다.\n" + ending.format(
        "ABC".index(letter) + 1 if "번" in ending else letter
    )


@pytest.mark.slow
def test_a_korean_pipeline(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = tmp_path / "지침"
    corpus.mkdir()
    for name, text in GUIDELINES.items():
        (corpus / name).write_text(text, encoding="utf-8")
    assert cli("corpus", "add", corpus, "--corpus", "지침", "--json").code == 0
    (listed,) = cli("corpus", "list", "--json").document["corpora"]
    assert listed["languages"] == {"ko": 3}
    assert "3 ko" in cli("corpus", "list").out
    text = " ".join(GUIDELINES.values())
    words = set(re.findall(r"[가-힣]{2,}", text))
    # A word with its particle, and without: 고혈압은, 고혈압.
    stems = {
        "고혈압",
        "임신부",
        "라미프릴",
        "메틸도파",
        "당뇨병",
        "혈당",
        "메트포르민",
        "신기능",
        "천식",
        "살부타몰",
        "산소",
    }
    for word in words | stems:
        hits = cli("search", word, "--mode", "bm25", "-k", "3", "--json").document["hits"]
        assert hits, word
        assert word in hits[0]["text"]

    on = ("--dataset", "의학", "--json")
    imported = cli("import", "mr-ben", mr_ben(tmp_path / "의학.json"), *on)
    assert imported.code == 0
    assert imported.document["traces"] == 6
    assert (imported.document["with_error"], imported.document["without_error"]) == (3, 3)
    retrieved = cli("retrieve", "--mode", "bm25", "--dataset", "의학", "--json")
    assert (retrieved.code, retrieved.document["abstained"]) == (0, {})
    monkeypatch.setattr(gemini_answers, "answer_text", korean_answer)
    with GeminiServer() as server:
        monkeypatch.setenv("GEMINI_API_KEY", "k")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        judged = cli("judge", *on, *JUDGE)
        assert (judged.code, judged.document["done"]) == (0, 6)
        quotes = judged.document["quotes"]
        assert sum(kind["verified"] for kind in quotes.values()) == 12
        assert sum(kind["unverified"] + kind["absent"] for kind in quotes.values()) == 0
        policy = ("--policy", "gemini:gemini-3.5-flash-lite", "-k", "2")
        continued = cli("continue", *on, *policy)
        assert (continued.code, continued.document["abstained"]) == (0, {})
    agreed = cli("consensus", *on, "--judge", "judge", "--mc", "mc")
    assert (agreed.code, agreed.document["done"]) == (0, 6)
    evaluated = cli("evaluate", *on, "--labeler", "consensus", "--resamples", "20")
    assert evaluated.document["average"]["processbench_f1"] == 1.0
    out = tmp_path / "out.jsonl"
    exported = cli("export", "traces", out, *on, "--labeler", "consensus")
    assert (exported.code, exported.document["done"]) == (0, 6)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {row["labels"]["consensus"].get("first_error") or _first(row) for row in rows} == {
        None,
        1,
    }
    assert all(row["options"][0] in {"라미프릴", "신기능 25", "아스피린"} for row in rows)


def _first(row: dict[str, Any]) -> int | None:
    verdicts = row["labels"]["consensus"].get("verdicts") or []
    return verdicts.index(-1) if -1 in verdicts else None
