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
}
"""English and Korean by key; `{name}` is filled in by `text`."""


def text(lang: str, key: str, **values: object) -> str:
    """A text of the catalog in a language, with its values filled in.

    Raises:
        KeyError: there is no such text.
    """
    found = TEXTS[key][list(LANGUAGES).index(lang)]
    return found.format_map(values) if values else found
