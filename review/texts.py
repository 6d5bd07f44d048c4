"""Every text of the pages, in English and Korean."""

from __future__ import annotations

LANGUAGES = {"en": "English", "ko": "한국어"}
"""Languages of the pages by code, each by its own name."""

TEXTS: dict[str, tuple[str, str]] = {
    # Refusals
    "refused.host": (
        "This address is not one of this server's names.",
        "이 서버의 주소가 아닙니다.",
    ),
    "refused.origin": (
        "The form was sent from another site.",
        "다른 사이트에서 보낸 양식입니다.",
    ),
    "refused.form": (
        "The form has expired or belongs to another session: reload the page and send it again.",
        "양식이 만료되었거나 다른 세션의 것입니다. 페이지를 새로 고친 뒤 다시 보내십시오.",
    ),
    "refused.replay": (
        "This form was already sent; it counts once.",
        "이미 보낸 양식입니다. 한 번만 처리됩니다.",
    ),
    "refused.login": (
        "Open the link with your token, as the server printed it or as it was sent to you.",
        "토큰이 들어 있는 링크를 여십시오. 서버가 출력했거나 따로 받으신 링크입니다.",
    ),
    "refused.rate": (
        "Too many requests: wait a moment.",
        "요청이 너무 많습니다. 잠시 후 다시 시도하십시오.",
    ),
    "refused.size": ("The request is too large.", "요청이 너무 큽니다."),
    # Frame of every page
    "skip": ("Skip to the content", "본문으로 건너뛰기"),
    "nav": ("Pages", "페이지"),
    "nav.home": ("Workspace", "작업 공간"),
    "nav.traces": ("Traces", "풀이"),
    "nav.costs": ("Costs and failures", "비용과 실패"),
    "nav.settings": ("Settings", "설정"),
    "live": (
        "Live: changes in the workspace appear by themselves",
        "실시간: 변경 내용이 자동으로 표시됩니다",
    ),
    "live.lost": (
        "The server does not answer; trying again",
        "서버가 응답하지 않습니다. 다시 연결하는 중입니다",
    ),
    "keys": ("Keys", "단축키"),
    "keys.help": ("Show or hide this list", "이 목록 보기/닫기"),
    "nav.review": ("Review", "검토"),
    "close": ("Close", "닫기"),
    "error.title": ("Not found", "찾을 수 없음"),
    "error.database": ("The database cannot be read", "데이터베이스를 읽을 수 없음"),
    "error.remedy": ("What to do", "해결 방법"),
    "error.home": ("Back to the workspace", "작업 공간으로 돌아가기"),
    # The workspace
    "reading": (
        "The labels are being read for the first time; the page appears by itself.",
        "레이블을 처음으로 읽는 중입니다. 끝나면 페이지가 자동으로 표시됩니다.",
    ),
    "labeler": ("Labeler", "레이블러"),
    "kind": ("Kind", "종류"),
    "model": ("Model", "모델"),
    "home.empty": (
        "There is no dataset yet. Import one:",
        "아직 데이터셋이 없습니다. 먼저 가져오십시오:",
    ),
    "home.size": ("{traces} traces, {steps} steps", "풀이 {traces}개, 단계 {steps}개"),
    "home.labelers": ("Labelers of {name}", "{name}의 레이블러"),
    "home.labeled": ("Labeled", "레이블됨"),
    "home.open": ("First error open", "첫 오류 미정"),
    "home.errors": ("With an error", "오류 있음"),
    "home.error_accuracy": ("Error accuracy", "오류 정확도"),
    "home.correct_accuracy": ("Correct accuracy", "정답 정확도"),
    "home.note": (
        "Compared with gold on all traces, as in ProcessBench: a missing label counts as wrong, and"
        " a step score below 0.5 is an error. For intervals and thresholds: stepgold evaluate.",
        "ProcessBench 방식으로 모든 풀이를 골드와 비교한 값입니다. 레이블이 없으면"
        " 오답으로 세고, 단계 점수가 0.5 미만이면 오류로 봅니다. 신뢰 구간과 임곗값은"
        " stepgold evaluate에서 확인하십시오.",
    ),
    # Review
    "review.title": ("Review of {dataset}", "{dataset} 검토"),
    "review.code": ("Your code", "내 코드"),
    "review.code.note": (
        "A code such as E1. Nothing else about you is stored.",
        "E1과 같은 코드입니다. 그 밖의 개인 정보는 저장하지 않습니다.",
    ),
    "review.code.wrong": (
        "“{code}” cannot be used: 1 to 32 letters, digits, _ . or -",
        "“{code}”은(는) 사용할 수 없습니다. 영문자, 숫자, _ . - 로 1~32자를 입력하십시오.",
    ),
    "review.code.known": ("Codes of this review: {codes}", "이 검토의 코드: {codes}"),
    "review.begin": ("Begin", "시작"),
    "review.nav": ("Parts of the review", "검토 메뉴"),
    "review.nav.steps": ("Steps", "단계"),
    "review.nav.adjudicate": ("Adjudicate", "조정"),
    "review.nav.splits": ("Splits", "분할"),
    "review.nav.figures": ("Figures", "통계"),
    "review.who": ("Expert {code}", "전문가 {code}"),
    "review.asked": ("Is step {step} of {steps} correct?", "{steps}단계 중 {step}단계가 맞습니까?"),
    "review.asked.again": (
        "Step {step} of {steps}: your answer was “{answer}”",
        "{steps}단계 중 {step}단계: 내 답변은 “{answer}”입니다",
    ),
    "review.training": ("Training, {done} of {total}", "연습 {done}/{total}"),
    "review.problem": ("Problem", "문제"),
    "review.steps": ("Steps of the trace", "풀이 단계"),
    "review.this": ("Step in question", "현재 단계"),
    "review.evidence": ("Evidence", "근거"),
    "review.evidence.none": (
        "There is no evidence for this trace.",
        "이 풀이에는 근거가 없습니다.",
    ),
    "review.evidence.quoted": ("Quoted for this step", "이 단계에 인용됨"),
    "review.evidence.whole": ("Whole passage", "전체 문단"),
    "review.evidence.back": ("Back to the step", "단계로 돌아가기"),
    "review.withheld": (
        "This problem may show who the patient is. Start with --allow-phi to show it.",
        "환자를 식별할 수 있는 문제일 수 있습니다. 표시하려면 --allow-phi로 시작하십시오.",
    ),
    "review.answers": ("Your answer", "답변"),
    "review.correct": ("Correct", "맞음"),
    "review.incorrect": ("Incorrect", "틀림"),
    "review.neutral": ("Neutral", "중립"),
    "review.cannot_tell": ("Cannot tell", "판단 불가"),
    "review.skip": ("Skip", "건너뛰기"),
    "review.flag": ("Flag the problem", "문제 신고"),
    "review.undo": ("Undo", "실행 취소"),
    "review.back": ("Back to the last step", "이전 단계로"),
    "review.forward": ("To the open step", "진행 중인 단계로"),
    "review.note": ("Note (Esc leaves the field)", "메모 (Esc로 나가기)"),
    "review.note.key": ("Write a note", "메모 쓰기"),
    "review.zoom": ("Zoom image {number}", "이미지 {number} 확대"),
    "review.image": ("Image {number}", "이미지 {number}"),
    "review.last": ("Last answer", "마지막 답변"),
    "review.last.said": ("Step {step}: {answer}", "{step}단계: {answer}"),
    "review.gold.right": ("Gold says the same.", "골드와 같습니다."),
    "review.gold.wrong": ("Gold says otherwise.", "골드와 다릅니다."),
    "review.opinions": ("What labelers say", "레이블러 의견"),
    "review.no_opinion": ("no verdict", "판정 없음"),
    "review.progress": (
        "{answered} of {steps} steps answered, {mine} by you",
        "{steps}단계 중 {answered}단계 완료, 내 답변 {mine}개",
    ),
    "review.saving": (
        "Not stored yet: the server does not answer. Trying again; keep this page open.",
        "아직 저장되지 않았습니다. 서버가 응답하지 않아 다시 시도합니다."
        " 이 페이지를 닫지 마십시오.",
    ),
    "review.done": ("Nothing is left for you.", "남은 단계가 없습니다."),
    "review.done.note": (
        "Steps may return when others skip or differ. Thank you.",
        "다른 전문가가 건너뛰거나 의견이 다르면 단계가 다시 나올 수 있습니다. 감사합니다.",
    ),
    "review.adjudicate.none": ("Experts differ on no step.", "전문가 의견이 다른 단계가 없습니다."),
    "review.adjudicate.left": ("Steps to decide: {left}", "결정할 단계 {left}개"),
    "review.expert": ("Expert", "전문가"),
    "review.answer": ("Answer", "답변"),
    "review.notes": ("Note", "메모"),
    "review.splits.none": ("Nothing to check now.", "지금 확인할 단계가 없습니다."),
    "review.splits.check": ("Check step {step} of {steps}", "{steps}단계 중 {step}단계 확인"),
    "review.split": ("Split", "분할"),
    "review.split.done": ("Traces done", "완료된 풀이"),
    "review.split.checked": ("Steps checked", "확인한 단계"),
    "review.split.errors": ("Errors", "오류"),
    "review.split.state": ("State", "상태"),
    "review.split.open": ("open", "진행 중"),
    "review.split.check": ("to be checked", "확인 필요"),
    "review.split.good": ("accepted", "승인"),
    "review.split.bad": ("too many errors (limit {limit})", "오류 많음 (한도 {limit})"),
    "review.split.return": ("Return split {number}", "분할 {number} 반려"),
    "review.figures.none": ("No answer yet.", "아직 답변이 없습니다."),
    "review.figures.experts": ("Experts", "전문가별"),
    "review.figures.steps": ("Steps", "단계"),
    "review.figures.seconds": ("Seconds a step", "단계당 초"),
    "review.figures.gold": ("Agrees with gold", "골드와 일치"),
    "review.figures.self": ("Agrees with self", "자기 일치"),
    "review.figures.drift.gold": (
        "{code} agrees less with gold than before.",
        "{code}의 골드 일치도가 전보다 낮아졌습니다.",
    ),
    "review.figures.drift.self": (
        "{code} agrees less with their own earlier answers than before.",
        "{code}의 자기 일치도가 전보다 낮아졌습니다.",
    ),
    "review.figures.agreement": ("Agreement", "일치도"),
    "review.figures.kappa": ("Cohen’s kappa", "코헨 카파"),
    "review.figures.alpha": (
        "Krippendorff’s alpha of all experts:",
        "전체 전문가의 크리펜도르프 알파:",
    ),
    "review.figures.accuracy": ("Accuracy of label sets", "레이블 정확도"),
    "review.figures.accuracy.note": (
        "From the randomly drawn steps, with the labelers’ own probabilities (PPI++);"
        " 95% intervals.",
        "무작위로 뽑은 단계와 레이블러의 확률로 추정한 값입니다(PPI++). 95% 신뢰 구간.",
    ),
    "review.figures.checked": ("Random steps", "무작위 단계"),
    "review.figures.alone": ("Without probabilities", "확률 없이"),
    "review.figures.left": ("About {hours} hours left", "약 {hours}시간 남음"),
    "review.figures.disputed": ("Disputed steps: {count}", "의견이 다른 단계 {count}개"),
    "review.figures.flagged": ("Flagged problems", "신고된 문제"),
    "review.with": ("Compared with", "비교 대상"),
    # Settings
    "settings.lang": ("Language", "언어"),
    "settings.theme": ("Appearance", "화면 모드"),
    "settings.theme.system": ("As the system", "시스템 설정"),
    "settings.theme.light": ("Light", "밝게"),
    "settings.theme.dark": ("Dark", "어둡게"),
    "settings.size": ("Text size", "글자 크기"),
    "settings.size.small": ("Small", "작게"),
    "settings.size.normal": ("Normal", "보통"),
    "settings.size.large": ("Large", "크게"),
    "settings.save": ("Save", "저장"),
    "settings.saved": ("Saved.", "저장했습니다."),
}
"""English and Korean by key; `{name}` is filled in by `text`."""


def text(lang: str, key: str, **values: object) -> str:
    """A text of the catalog in a language, with its values filled in.

    Raises:
        KeyError: there is no such text.
    """
    found = TEXTS[key][list(LANGUAGES).index(lang)]
    return found.format_map(values) if values else found
