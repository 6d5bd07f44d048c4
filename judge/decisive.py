"""The tokens of a quote that must never differ: numbers, units, comparators, negations.

A fuzzy threshold alone accepts every changed number and every added "not", because one short word
in a long quote hardly moves the ratio (measured: 300 of 300 accepted at 90). So a near match must
carry the same decisive tokens in the same order. English, German, French, Spanish, Portuguese,
Russian, Korean, Chinese, Japanese and Thai words are known.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Literal, NamedTuple

Kind = Literal["number", "unit", "comparator", "negation"]

_UNITS = (
    "kg mg mcg μg ug ng pg g l ml dl cl μl ul mmol μmol umol nmol pmol mol meq osm mosm iu mu u"
    " mmhg cmh2o kpa mpa pa bar bpm hz khz mhz mm cm km nm μm m kcal cal kj j kw w gy msv mci mbq"
    " bq mv kv v ma cfu sec s min hrs hr h d wk mo yrs yr y °c °f % ‰"
)
"""Abbreviations, where one letter makes another unit. Longer words are safe by `only_slips`."""
_NEVER_A_WORD = "mg kg mcg μg ng ml dl μl mmol μmol nmol pmol meq mmhg kpa mv % ‰"
"""Units that are recognised without a number before them."""
_NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
    " hundred thousand million once twice thrice"
)


def _any_of(words: str) -> str:
    """A pattern for any of the words, the longest first."""
    return "(?:" + "|".join(sorted(map(re.escape, words.split()), key=len, reverse=True)) + ")"


_EAST_UNITS = _any_of(
    "毫克 微克 公斤 千克 克 毫升 升 毫摩尔 小时 小時 時間 分钟 分鐘 次 天 日 周 週間 週 个月 個月 月 年 岁 歳 片 錠 粒 滴 回 倍"
    " 밀리그램 마이크로그램 킬로그램 그램 밀리리터 리터 시간 분 회 번 일 주 개월 년 세 정 알 방울 배"
    " ミリグラム マイクログラム キログラム グラム ミリリットル リットル"
    " มิลลิกรัม ไมโครกรัม กิโลกรัม กรัม มิลลิลิตร ลิตร ชั่วโมง ครั้ง วัน สัปดาห์ เดือน ปี เม็ด"
)
"""Units of scripts in which a space need not follow."""
HAN_NUMERALS = "零〇一二两兩三四五六七八九十百千万萬億亿半"
_EAST_NUMBER = (
    rf"[{HAN_NUMERALS}]+(?=\s?(?:{_EAST_UNITS}|%|mg|ml|g\b|kg|μg))"
    r"|(?<!\w)(?:한|두|세|네|다섯|여섯|일곱|여덟|아홉|열)(?=\s(?:번|정|알|개|차례|시간|주|달|방울))"
)
EAST_COMPARATOR = _any_of(
    "이상 이하 미만 초과 이내 최소 최대 적어도 넘는 넘으면 넘지 작은 많은 적은"
    " 以上 以下 以内 以內 未満 未满 不超过 不低于 不高于 不少于 不大于 不小于 超过 超過 超え 大于 大於 小于 小於 高于 高於"
    " 低于 低於 多于 少于 至少 至多 最多 最少 少なくとも より大き より小さ を上回 を下回"
    " มากกว่า น้อยกว่า อย่างน้อย ไม่เกิน ไม่น้อยกว่า ต่ำกว่า สูงกว่า เกิน"
)
AFTER_THE_VERB = (
    _any_of(
        "않 못 아니 아닌 없 금기 금지 불가 말아 마십시오 마세요 말 제외 안되 안된 안돼"
        " ない なく なかっ なけれ ません ませ ずに べからず 避け 除き 禁"
    )
    + r"|(?<!\w)안(?=\s)"
)
"""Negations of Korean and Japanese, which follow what they deny."""
_EAST_NEGATION = (
    _any_of("不 未 无 無 非 勿 禁 没 沒 莫 忌 避免 除外 ไม่ ห้าม มิได้ มิควร งด เว้น")
    + f"|{AFTER_THE_VERB}"
)
_WEST_NEGATION = (
    "nicht|kein(?:e[mnrs]?)?|ohne|niemals|jamais|sans|pas|aucune?|nunca|ning[uú]n[ao]?|sin|não|sem"
    "|не|без|нельзя"
)
_WEST_COMPARATOR = (
    "mindestens|höchstens|(?:weniger|mehr) als|(?:moins|plus) de|au (?:moins|plus)"
    "|(?:menos|más|mais) de|al menos|не более|не менее|менее|более"
)


_ONE_UNIT = _any_of(_UNITS) + r"(?!\w)"
_TOKEN = re.compile(
    # No token starts with a space, nor with a letter inside a word except "n't": fails fast.
    r"(?! )(?=[^a-z]|(?<!\w)[a-z]|n't)"
    r"(?:(?P<number>(?:(?<![\w.,)-])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:\^[+-]?\d+)?"
    rf"|\b{_any_of(_NUMBER_WORDS)}\b|(?=[^\x00-\x7f])(?:{_EAST_NUMBER}))"
    rf"(?P<number_unit>\s?(?=[^\x00-\x7f]){_EAST_UNITS}"
    rf"|\s?-?{_ONE_UNIT}(?:\s?/\s?{_ONE_UNIT}|\s(?:per|a|each|every)\s{_ONE_UNIT})*)?"
    rf"|(?P<unit>(?<!\w){_any_of(_NEVER_A_WORD)}(?!\w))"
    r"|(?P<comparator>[<>≤≥=≠≈±~]+"
    r"|\b(?:(?:no|not)\s(?:more|less|fewer|later|earlier)\sthan"
    r"|(?:less|more|greater|fewer|lower|higher|larger|smaller|older|younger"
    r"|longer|shorter|rather|other)\sthan"
    r"|at\s(?:least|most)|up\sto|above|below|minimum|maximum|exceed(?:s|ed|ing)?"
    r"|(?:under|over|within|between|before|after|until)(?=\s[\d-]))\b"
    rf"|\b(?:{_WEST_COMPARATOR})\b|(?=[^\x00-\x7f]){EAST_COMPARATOR})"
    r"|(?P<negation>\b(?:not|no|never|without|nor|neither|none|cannot|nobody|nothing|except"
    r"|unless)\b"
    rf"|n't\b|\bnon(?=-)|\b(?:{_WEST_NEGATION})\b|(?=[^\x00-\x7f])(?:{_EAST_NEGATION})))"
)
_ASCII_COMPARATORS = {"<=": "≤", "=<": "≤", ">=": "≥", "=>": "≥", "!=": "≠", "+-": "±"}


class DecisiveToken(NamedTuple):
    """One token that a quote must share with its source."""

    kind: Kind
    """What it is."""
    value: str
    """Its canonical form: numbers by value (`1,000` is `1000`, `5.0` is `5`) with their unit."""
    start: int
    """Offset in the folded text."""
    end: int
    """Offset after it."""


def decisive_tokens(folded: str) -> list[DecisiveToken]:
    """The decisive tokens of a folded text (see `judge.quotes`), in order."""
    tokens = []
    known: dict[tuple[str | None, str], tuple[Kind, str]] = {}  # a text repeats its tokens
    for found in _TOKEN.finditer(folded):
        written = found.lastgroup, found.group()
        if (canonical := known.get(written)) is None:
            known[written] = canonical = _canonical(found)
        tokens.append(DecisiveToken(*canonical, *found.span()))
    return tokens


def same_decisive_tokens(one: str, other: str) -> bool:
    """Whether two folded texts carry the same decisive tokens in the same order."""
    left, right = decisive_tokens(one), decisive_tokens(other)
    return [(t.kind, t.value) for t in left] == [(t.kind, t.value) for t in right]


def _canonical(found: re.Match[str]) -> tuple[Kind, str]:
    if found["number"] is not None:
        unit = re.sub(r"\s?/\s?|\s(?:per|a|each|every)\s", "/", (found["number_unit"] or ""))
        return "number", f"{_value(found['number'])} {unit.strip(' -')}".strip()
    if found["comparator"] is not None:
        return "comparator", _ASCII_COMPARATORS.get(found["comparator"], found["comparator"])
    if found["unit"] is not None:
        return "unit", found["unit"]
    return "negation", found["negation"]


_LONGEST_NUMBER = 1000
"""Digits up to which a number is compared by value."""


def _value(number: str) -> str:
    if not any(map(str.isdecimal, number)):  # words, and Han numerals such as 〇, no letter
        return number
    base, _, power = number.replace(",", "").partition("^")
    if len(base) > _LONGEST_NUMBER:
        return number  # a hostile text, not a dose; Decimal would overflow
    value = Decimal(base).normalize()
    return f"{value:f}^{power}" if power else f"{value:f}"
