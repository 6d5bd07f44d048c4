"""Where a solution names its answer: `\\boxed{..}`, "the answer is ..", `#### ..`, "정답은 ..".

English, Korean, Chinese and Japanese are read; so are the marks of options (`②`, `2번`) and the
numbers (`3만 5천`) of the latter three. What an answer looks like otherwise is not decided here.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

_PHRASE = re.compile(
    r"(?:\banswer(?:\s+(?:choice|option|key))?|\bdiagnosis)[\s*_]*"
    r"(?:(?:is|are|=|:|[-–—](?=\s)|(?:would|should|must|will|has\s+to)\s+be)(?![\w'’])[\s*_]*)+"
    r"(?:(?:therefore|thus|hence|then|clearly|indeed|simply|likely|most\s+likely|probably|:"
    r"|,)\s*)*",
    re.IGNORECASE,
)
_HASHES = re.compile(r"^[ \t]*####[ \t]*", re.MULTILINE)
_TAGGED = re.compile(r"<answer>(.{0,1000}?)</answer>", re.IGNORECASE | re.DOTALL)
_BOXED = re.compile(r"\\f?boxed\s*\{")
_NAMED_CORRECT = re.compile(
    r"\(?\b([A-Z])\)?\s+is\s+(?:therefore\s+|thus\s+)?(?:the\s+)?(?:correct|right|best)\b"
)
_CONDITION = re.compile(
    r"\b(?:if|whether|suppos(?:e|ing)|assum(?:e|ing)|unless|were)\b[^.!?\n]{0,30}$", re.IGNORECASE
)
_END = re.compile(
    r"(?<!\bapprox)(?<!\bca)(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\bSt)(?<!\bNo)(?<!\bsq)\.(?=\s"
    r"|$)(?<!\b[A-Z]\.(?=\s[a-z]))"
    r"|\?(?=\s|$)|!(?=\s+[A-Z\"“*]|\s*$|\s*\n)|;(?=\s+[A-Za-z]{2}|\s*$)|\n"
)
_NOT = re.compile(
    r"(?:(?:definitely|clearly|certainly|probably|obviously)\s+)?(?:not|never)\b(?!\s+(?:more"
    r"|less)\s+than)",
    re.I,
)
_BUT = re.compile(r"\b(?:but(?:\s+rather)?|rather)\s+(?:it\s+is\s+|is\s+)?(?!than\b)", re.I)
_EDGE = " \t*_\"'"
_BRACE = re.compile(r"\\?[{}]")

MAX_NAMED = 1000
"""Most characters of a mention; a longer one is prose, and its end is not looked for."""
MAX_MENTIONS = 20
"""Most mentions of each kind, the last ones; the answer is the last one that can be read."""


@dataclass(frozen=True, slots=True)
class Mention:
    """One place where a text names its answer."""

    text: str
    """What is named, up to the end of the sentence or the box; not yet read."""
    position: int
    """Character offset of the mention in the text."""
    boxed: bool
    """Whether it is the content of a box: then it is the answer and no prose."""
    closed: bool
    """Whether box or sentence ends inside the text. An open one may have been cut."""
    foreign: bool = False
    """Whether it is announced in Korean, Chinese or Japanese."""


def find_mentions(text: str) -> list[Mention]:
    """The last mentions of an answer in a text, in order, without negated and conditional ones.

    At most `MAX_MENTIONS` of each kind, so that time is linear in the length of any text.
    """
    found = [*_boxes(text), *_sentences(text), *_named(text)]
    if has_cjk(text):
        found += _foreign(text)
    if len(found) > 1:
        found.sort(key=lambda mention: mention.position)
    return found


def last_line(text: str) -> str:
    """The last line that is not blank, stripped; empty if there is none."""
    return text.rstrip().rpartition("\n")[2].strip()


def _last(pattern: re.Pattern[str], text: str) -> Iterable[re.Match[str]]:
    return deque(pattern.finditer(text), maxlen=MAX_MENTIONS)


def _boxes(text: str) -> Iterator[Mention]:
    if "boxed" in text:
        for found in _last(_BOXED, text):
            end = _closing_brace(text, found.end())
            if end is not None:
                inside = text[found.end() : end].strip()
                yield Mention(inside, found.start(), boxed=True, closed=True)
    if "</" in text:
        for found in _last(_TAGGED, text):
            if not _BOXED.search(found[1]):
                yield Mention(found[1].strip(), found.start(), boxed=True, closed=True)


def _closing_brace(text: str, start: int) -> int | None:
    """Offset of the brace that closes the one before `start`; None if it is cut off or far."""
    depth = 1
    for found in _BRACE.finditer(text, start, start + MAX_NAMED):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return found.start()
    return None


def _sentences(text: str) -> Iterator[Mention]:
    anchors = (_PHRASE, _HASHES) if "####" in text else (_PHRASE,)
    for anchor in anchors:
        for found in _last(anchor, text):
            if _CONDITION.search(text, max(0, found.start() - 60), found.start()):
                continue
            start = found.end()
            limit = min(len(text), start + MAX_NAMED)
            ending = _END.search(text, start, limit)
            end = ending.start() if ending else limit
            if ending is not None and ending[0] == "!" and text[end - 1 : end].isalnum():
                end += 1  # a factorial, or joy: the reader decides
            named = _affirmed(text[start:end])
            if named is not None:
                # A full stop at the very end may have been the point of a decimal.
                closed = limit < len(text) or (
                    ending is not None and (ending[0] == "\n" or ending.end() < len(text))
                )
                yield Mention(named, found.start(), boxed=False, closed=closed)


def _affirmed(named: str) -> str | None:
    """The answer in a sentence's rest; None if the sentence only says what it is not."""
    if not _NOT.match(named):
        return named.strip(_EDGE) or None
    but = _BUT.search(named)
    return (named[but.end() :].strip(_EDGE) or None) if but else None


def _named(text: str) -> Iterator[Mention]:
    """`(B) is correct`."""
    for found in _last(_NAMED_CORRECT, text):
        if not _CONDITION.search(text, max(0, found.start() - 60), found.start()):
            yield Mention(f"({found[1]})", found.start(), boxed=False, closed=True)


def _foreign(text: str) -> Iterator[Mention]:
    for one in announcements(text):
        yield Mention(one.text, one.start, boxed=False, closed=one.end < len(text), foreign=True)


# Korean, Chinese and Japanese -----------------------------------------------------------------

_CJK = re.compile(r"[\u3040-\u30ff\u3131-\u318e\u3400-\u9fff\uac00-\ud7a3]")


class Announced(NamedTuple):
    """An answer as a sentence announces it."""

    text: str
    """What is named, without the copula after it."""
    start: int
    """Offset of the announcement."""
    end: int
    """Offset of the end of the sentence."""


def has_cjk(text: str) -> bool:
    """Whether a text has Korean, Chinese or Japanese letters."""
    return not text.isascii() and _CJK.search(text) is not None


# Announcements -----------------------------------------------------------------------------------

_BEFORE = re.compile(
    r"(?:"
    r"(?<![가-힣])(?:최종\s*)?(?:정답|해답|답안|답)(?:\s*(?:은|는|이|으로는)(?![가-힣])|\s*[:=：]|\s*(?:은|는)\s*[:：])"
    r"|(?:本题|此题|最终|最後|最后|正确|正確|参考|標準|标准)?的?(?:答案|正解|正确选项|正確選項)\s*"
    r"(?:应该是|應該是|应当是|应为|應為|应是|應是|应选|應選|就是|便是|选择|選擇|是|为|為|即|选|選|[:=：])"
    r"|[\[【(（](?:정답|답|答案|正解|答え|解答)[\]】)）]\s*[:：]?"
    r"|(?<![가-힣])(?:정답|답)\s+(?=[①-⑩(（]|[A-J](?![A-Za-z]))|答案\s*(?=[A-J](?![A-Za-z])|[①-⑩(（])"
    r"|(?:최종\s*)?진단(?:명)?\s*(?:은|는|[:：])|(?:最终|最終)?(?:诊断|診斷|診断)(?:名)?\s*(?:应为|是|为|為|は|[:：])"
    r"|(?<![一-龥])解は"
    r"|(?:答案|正解)(?=不是|不为|不為|并非|並非)"
    r"|(?:故|因此|所以|应|應|本题|综上)[,，]?(?:应|應|本题|答案)?[选選](?:择|擇|项|項)?\s*[:：]?"
    r"|(?:^|(?<=[\n。，,.;；\s]))(?:选择?|選擇?)(?=\s*[(（]?[A-Za-z①-⑳])"
    r"|(?:^|(?<=[\n。]))答\s*[:：]"
    r"|(?:最終的?な?|正しい|よって|したがって)?(?:答え|解答|回答|正解|正答|答)\s*(?:は|が|[:=：])"
    r")\s*(?:[,，、:：]\s*)?(?:바로|即|すなわち)?\s*"
    r"(?:(?:다음과\s*같(?:다|습니다)|如下|以下の(?:通り|とおり)(?:です|である)?)\s*[:：]\s*)?",
    re.MULTILINE,
)
_AFTER = re.compile(
    r"(?P<named>[^\s,，、。.!?]{1,40}?)\s*(?:이|가|은|는)\s*(?:올바른\s*|옳은\s*|맞는\s*|최종\s*)?(?:정답"
    r"|답)(?:입니다|이다|이에요|임|이\s*된다)"
    r"|(?P<named2>[^\s,，、。.!?]{1,40}?)\s*(?:이|가)\s*(?:옳다|옳습니다|맞다|맞습니다|정확하다)"
    r"|(?P<named5>[A-Ja-j①-⑩]|\d{1,2}\s*번)\s*(?:을|를)\s*(?:선택|고르|고른|골라)"
    r"|(?P<named3>(?:选项|選項)?\s*[(（]?[A-Ja-j①-⑩][)）]?)\s*(?:项|項|选项|選項)?\s*(?:是|为|為)?\s*(?:正确|正確"
    r"|对的)(?:答案|选项|選項|的)*(?![^。\n]{0,6}吗)"
    r"|(?P<named4>[^\s,，、。.!?]{1,40}?)\s*(?:が|は)\s*(?:正解|正答|正しい答え|答え|正しい)(?:です|である|だ|となる|になる"
    r"|となります)?(?=[。.\s]|$)"
)
_CJK_END = re.compile(r"[。！？!?\n]|\.(?=\s|$)|[；;](?=\s*\S*[\u3040-\u9fff\uac00-\ud7a3])")
_CJK_CONDITION = re.compile(
    r"(?:만약|만일|가정|혹시|もし|仮に|如果|若是|若|假如|假设|假設|倘若|要是|是否|かどうか)[^。.!?！？\n]{0,24}$"
)
_CONDITIONAL_CJK_END = re.compile(
    r"(?:라면|이라면|라고\s*가정|일\s*때|인지|なら|ならば|だとすると|とすれば|の場合|的话|的話|吗|か)[\s,，、。?？]*$"
)
_CJK_BUT = re.compile(
    r"^.{1,60}?(?:이\s*아니라|가\s*아니라|아니라|아니고|ではなく|じゃなく|でなく)[,，、\s]*|^.{0,60}?(?:不是|并非|並非"
    r"|而非)?.{0,40}?而是\s*"
)
_NEGATED = re.compile(
    r"(?:아니다|아닙니다|아니에요|아님|않다|않습니다|없다|없습니다|모른다|모르겠|ではない|ではありません|じゃない|"
    r"とは限らない|わからない|分からない|不明)[\s.。]*$|^(?:不是|不为|不為|并非|並非|不能|不应|不應|不可能)"
)
_COPULA = re.compile(
    r"(?:\s*(?:번\s*)?(?:이라고|라고)\s*(?:할\s*수\s*있(?:다|습니다)|생각합니다|본다|볼\s*수\s*있다)"
    r"|\s*(?:이|가)\s*(?:됩니다|된다|되겠습니다)|\s*(?:로|으로)\s*(?:구해진다|계산된다|계산됩니다|나온다|나옵니다|결정된다)"
    r"|\s*(?:입니다|입니당|이에요|예요|이다|임|이겠습니다|일\s*것입니다|일\s*것이다|인\s*것이다|이므로|이고|이며|다|이죠|죠|이지요)"
    r"|\s*(?:であると(?:考えられます|言えます|わかる|分かる)|であります|である|でした|でしょう|だと思います|だろう|です|だ"
    r"|となります|となる|になります|になる|と(?:なります|なる|考えられます|わかる)|が正しい|であり)"
    r"|\s*(?:是正确的|选项|這個選項|这个选项|项|項|才对|了|哦|呢))[\s.。!！、,，]*$"
)
_REASON = re.compile(
    r"[,，、\s]*(?:왜냐하면|때문|なぜなら|ため|ので|から(?!\s*\d)|因为|因為|由于|由於|，故|だから).*$",
    re.DOTALL,
)
_QUOTES = " \t\r*_`「」『』\"'“”‘’《》【】:：,，、"


def announcements(text: str) -> Iterator[Announced]:
    """The answers that sentences in the three languages announce, in no particular order."""
    for found in _last(_BEFORE, text):
        if _CJK_CONDITION.search(text, max(0, found.start() - 40), found.start()):
            continue
        limit = min(len(text), found.end() + MAX_NAMED)
        ending = _CJK_END.search(text, found.end(), limit)
        named = affirmed(text[found.end() : ending.start() if ending else limit])
        if named:
            yield Announced(named, found.start(), ending.end() if ending else limit + 1)
    for found in _last(_AFTER, text):
        if _CJK_CONDITION.search(text, max(0, found.start() - 40), found.start("named") + 40):
            continue
        named = next((each for each in found.groups() if each), "").strip(_QUOTES)
        if named and not _BEFORE.search(found[0]):
            yield Announced(stripped(named), found.start(), found.end())


def affirmed(rest: str) -> str | None:
    """What the rest of an announcing sentence names; None where it only says what it is not."""
    rest = rest.strip(_QUOTES)
    but = _CJK_BUT.match(rest)
    if but is not None:
        rest = rest[but.end() :]
    rest = rest.rstrip(" .。")
    if _NEGATED.search(rest) or _CONDITIONAL_CJK_END.search(rest):
        return None
    return stripped(_REASON.sub("", rest)) or None


def stripped(named: str) -> str:
    """What is named without copula, particles and quotes around it."""
    named = named.strip(_QUOTES)
    while (found := _COPULA.search(named)) is not None and found.start() > 0:
        named = named[: found.start()].strip(_QUOTES)
    return named


# Options and words -------------------------------------------------------------------------------

CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩"
_ORDERS = (
    "가나다라마바사아자차",
    "ㄱㄴㄷㄹㅁㅂㅅㅇㅈㅊ",
    "甲乙丙丁戊己庚辛壬癸",
    "アイウエオカキクケコ",
    "あいうえおかきくけこ",
)
_CJK_DIGITS = "一二三四五六七八九十"
_MARK = re.compile(
    r"(?:第|选项|選項|選択肢|보기|선택지|[（(〔\[])?\s*"
    r"(?:(?P<circled>[①-⑩])|(?P<digits>\d{1,2})|(?P<letter>[가나다라마바사아자차ㄱ-ㅎ甲乙丙丁戊己庚辛ア-コあ-こ])"
    r"|(?P<cjk>[一二三四五六七八九十])|(?P<native>첫|두|세|네|다섯)(?=\s*번째))"
    r"\s*(?P<counter>번째|번|個目|个|個|番目|番|项|項|号|號|つ目)?\s*[)）〕\]]?(?P<rest>.*)",
    re.DOTALL,
)


def option_index(named: str) -> tuple[int, str] | None:
    """The 0-based option that a mark names (`②`, `2번`, `나`, `選択肢2`), and the text after it."""
    found = _MARK.fullmatch(named.strip())
    if found is None:
        return None
    introduced = not named.strip()[:1].isalnum() or named.strip()[:1] in "第选選보선"
    rest = found["rest"]
    if found["circled"]:
        return CIRCLED.index(found["circled"]), rest
    if found["native"]:
        return ("첫", "두", "세", "네", "다섯").index(found["native"]), rest
    if found["digits"] and (found["counter"] or introduced) and int(found["digits"]) > 0:
        return int(found["digits"]) - 1, rest
    if found["cjk"] and (found["counter"] or introduced):
        return _CJK_DIGITS.index(found["cjk"]), rest
    if found["letter"] and (not rest or not rest[0].isalnum()):
        for order in _ORDERS:
            if found["letter"] in order:
                return order.index(found["letter"]), rest
    return None


_YES = {
    "예",
    "네",
    "그렇다",
    "그렇습니다",
    "맞다",
    "맞습니다",
    "是",
    "是的",
    "对",
    "對",
    "はい",
    "ええ",
    "そうです",
    "有",
    "可以",
}
_NO = {
    "아니요",
    "아니오",
    "아니다",
    "아닙니다",
    "아뇨",
    "그렇지않다",
    "否",
    "不",
    "不是",
    "不是的",
    "不对",
    "いいえ",
    "いえ",
    "没有",
}
_MAYBE = {"아마도", "아마", "불확실하다", "불확실", "모름", "알수없음", "也许", "也許", "可能", "或许", "不确定", "不確定",
          "たぶん", "多分", "おそらく", "どちらとも言えない", "不明"}  # fmt: skip


def yes_no_maybe(named: str) -> str | None:
    """`yes`, `no` or `maybe` for a word of the three languages; else None."""
    word = re.split(r"[\s,，、。.!！]", named.strip(_QUOTES + ".。"), maxsplit=1)[0].replace(
        " ", ""
    )
    for meaning, words in (("yes", _YES), ("no", _NO), ("maybe", _MAYBE)):
        if word in words or stripped(word) in words:
            return meaning
    return None


# Numbers ---------------------------------------------------------------------------------------

_DIGITS = {sign: value for value, sign in enumerate("〇一二三四五六七八九")} | {
    "零": 0,
    "两": 2,
    "兩": 2,
}
_DIGITS |= {sign: value for value, sign in enumerate("영일이삼사오육칠팔구")}
_SMALL = {"十": 10, "百": 100, "千": 1000, "십": 10, "백": 100, "천": 1000}
_LARGE = {
    "万": 10**4,
    "萬": 10**4,
    "만": 10**4,
    "亿": 10**8,
    "億": 10**8,
    "억": 10**8,
    "兆": 10**12,
    "조": 10**12,
}
_WITH_DIGITS = re.compile(
    r"\d[\d,]*(?:\.\d+)?\s*[万萬만亿億억兆조千百천백](?:\s*(?:\d[\d,]*(?:\.\d+)?\s*[万萬만亿億억兆조千百천백십]?"
    r"|[万萬만亿億억兆조]))*"
)
_SPELLED = re.compile(
    r"[零〇一二三四五六七八九十百千万萬亿億兆两兩]+(?=$|[\s.。,，個个人元円年月日天歳岁分秒米克公种種次本只枚張张])"
)


_NATIVE_NUMBERS = {
    "하나": 1, "한": 1, "둘": 2, "두": 2, "셋": 3, "세": 3, "넷": 4, "네": 4, "다섯": 5, "여섯": 6, "일곱": 7,
    "여덟": 8, "아홉": 9, "열": 10,
}  # fmt: skip
_NATIVE = re.compile(
    rf"({'|'.join(_NATIVE_NUMBERS)})(?:$|\s*(?=(?:개|명|번|마리|권|살|시간|가지|장|대|쌍|사람)))"
)
_TOGETHER = re.compile(r"(?<=\d)(개|명|번|원)?(?:와|과|と)\s*(?=\d)")


@lru_cache(maxsize=1024)
def with_digits(text: str) -> str:
    """The text with its numbers in 만, 억, 万 or 億, and Chinese numerals at its start, as digits."""
    if text.isascii():
        return text
    text = _TOGETHER.sub(r"\1, ", text)
    native = _NATIVE.match(text)
    if native is not None:
        text = f"{_NATIVE_NUMBERS[native[1]]} {text[native.end() :]}"
    text = _WITH_DIGITS.sub(lambda found: _number(found[0]) or found[0], text)
    spelled = _SPELLED.match(text)
    if spelled is not None:
        value = _number(spelled[0])
        text = text if value is None else value + text[spelled.end() :]
    return text


def _number(text: str) -> str | None:
    """The value of `3만 5천` or `三万五千` in digits; None if the parts do not fall."""
    total, section, current = Fraction(0), Fraction(0), None
    for part in re.findall(r"\d[\d,]*(?:\.\d+)?|\S", text):
        if part[0].isdigit() and part.isascii():
            if current is not None:
                return None
            current = Fraction(part.replace(",", ""))
        elif part in "零〇" and section and current is None:
            continue  # 一百零五
        elif part in _DIGITS:
            if current is not None:
                return None
            current = Fraction(_DIGITS[part])
        elif part in _SMALL:
            section += (1 if current is None else current) * _SMALL[part]
            current = None
        elif part in _LARGE:
            section += current or 0
            total += (section or 1) * _LARGE[part]
            section, current = Fraction(0), None
        else:
            return None
    total += section + (current or 0)
    return str(total.numerator) if total.denominator == 1 else None
