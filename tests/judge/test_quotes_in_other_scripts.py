"""Quotes of Korean, Chinese, Japanese and Thai passages: no spaces to part words, verbs denied last."""

from __future__ import annotations

import pytest

from judge.decisive import decisive_tokens
from judge.quotes import fold, verify_quote

KOREAN = "고혈압은 수축기 혈압이 140 mmHg 이상인 경우로 정의한다. 임부에게는 이 약을 투여하지 않는다. 하루 두 번 복용한다. 75세 이상은 5mg을 넘지 않는다."
CHINESE = "患者应每日服用佐利木津五毫克，如果出现皮疹，应立即停药。孕妇不应使用本品。血压不低于140毫米汞柱时，每日服用1次。"
JAPANESE = "ゾリムジンを一日一回投与する。妊婦には投与しないこと。血圧が140以上の患者に5ミリグラムを投与する。"
THAI = "ให้ยา 5 มิลลิกรัม วันละครั้ง ห้ามใช้ในหญิงตั้งครรภ์ ความดันมากกว่า 140"

STANDS = [
    (KOREAN, "고혈압은 수축기 혈압이 140 mmHg 이상인 경우로 정의한다."),
    (KOREAN, "임부에게는 이 약을 투여하지 않는다"),
    (KOREAN, "하루 두 번 복용한다"),
    (CHINESE, "患者应每日服用佐利木津五毫克"),
    (CHINESE, "如果出现皮疹，应立即停药"),
    (CHINESE, "应立即停药。"),
    (CHINESE, "孕妇不应使用本品"),
    (CHINESE, "每日服用1次"),
    (JAPANESE, "ゾリムジンを一日一回投与する"),
    (JAPANESE, "妊婦には投与しないこと"),
    (JAPANESE, "血圧が140以上の患者に5ミリグラムを投与する"),
    (THAI, "ให้ยา 5 มิลลิกรัม วันละครั้ง"),
    (THAI, "ห้ามใช้ในหญิงตั้งครรภ์"),
    ("患者应每日\n服用五毫克。", "患者应每日服用五毫克"),
]


@pytest.mark.parametrize(("passage", "quote"), STANDS)
def test_a_quote_that_stands_in_the_passage_is_found(passage: str, quote: str) -> None:
    match = verify_quote(quote, passage)
    assert match is not None
    found = passage[match.start : match.end].replace("\n", "")
    assert found.rstrip("。.") == quote.rstrip("。.")


FALSE = [
    (KOREAN, "수축기 혈압이 140 mmHg", "the comparison after the number is cut"),
    (KOREAN, "임부에게는 이 약을 투여하", "a word is cut"),
    (KOREAN, "임부에게는 이 약을 투여하지", "the negation after the verb is cut"),
    (KOREAN, "고혈압은 수축기 혈압이 140 mmHg 이하인 경우로 정의한다.", "another comparison"),
    (KOREAN, "고혈압은 수축기 혈압이 150 mmHg 이상인 경우로 정의한다.", "another number"),
    (KOREAN, "하루 세 번 복용한다", "another number in words"),
    (KOREAN, "임부에게는 이 약을 투여한다", "no negation"),
    (KOREAN, "75세", "the comparison is cut"),
    (CHINESE, "应使用本品", "the negation before it is cut"),
    (CHINESE, "低于140毫米汞柱", "the negation of the comparison is cut"),
    (CHINESE, "患者应每日服用佐利木津十毫克", "another number in Han numerals"),
    (CHINESE, "患者应每日服用佐利木津五微克", "another unit"),
    (CHINESE, "血压不低于140", "the unit is cut"),
    (CHINESE, "孕妇应使用本品", "no negation"),
    (JAPANESE, "妊婦には投与し", "the negation is cut"),
    (JAPANESE, "血圧が140以下の患者に5ミリグラムを投与する", "another comparison"),
    (THAI, "ใช้ในหญิงตั้งครรภ์", "the prohibition before it is cut"),
    (THAI, "ให้ยา 5 ไมโครกรัม วันละครั้ง", "another unit"),
    ("增加剂量的患者应每日测量血压并且记录在册以便医生在下次就诊时查看", "减少剂量的患者应每日测量血压并且记录在册以便医生在下次就诊时查看", "another word"),
]  # fmt: skip


@pytest.mark.parametrize(("passage", "quote", "why"), FALSE)
def test_a_quote_that_says_something_else_is_not_found(passage: str, quote: str, why: str) -> None:
    assert verify_quote(quote, passage) is None, why


@pytest.mark.parametrize(
    ("passage", "quote"),
    [
        ("이 약은 성인에게 임신 중에는 금기이며 하루 한 번 투여한다.", "이 약은 성인에게 ... 하루 한 번 투여한다."),
        ("本品对成人无效，不得每日服用一次以上的剂量。", "本品对成人...每日服用一次"),
    ],
)  # fmt: skip
def test_an_ellipsis_swallows_no_prohibition(passage: str, quote: str) -> None:
    assert verify_quote(quote, passage) is None


def test_decisive_words() -> None:
    text = "75세 이상, 5毫克 以上, 不 5ミリグラム 未満 ない ห้าม nicht mehr als 3"
    found = [(token.kind, token.value) for token in decisive_tokens(fold(text).text)]
    assert found == [
        ("number", "75 세"), ("comparator", "이상"), ("number", "5 毫克"), ("comparator", "以上"),
        ("negation", "不"), ("number", "5 ミリグラム"), ("comparator", "未満"), ("negation", "ない"),
        ("negation", "ห้าม"), ("negation", "nicht"), ("comparator", "mehr als"), ("number", "3"),
    ]  # fmt: skip


def test_a_han_zero_is_a_number_and_no_defect() -> None:
    """It is no letter to Python, and was read as digits."""
    passage = "每天 〇 毫克。"
    assert verify_quote("每天 〇 毫克", passage) is not None
    assert [token.value for token in decisive_tokens("〇 毫克")] == ["〇 毫克"]
