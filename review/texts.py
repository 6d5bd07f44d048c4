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
    "refused.defect": (
        "StepGold met a defect on this page: please report it, with what --debug shows.",
        "이 페이지에서 StepGold 오류가 발생했습니다. --debug 출력과 함께 알려 주십시오.",
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
    # Table of traces
    "filter": ("Filter the traces", "풀이 필터"),
    "filter.text": ("Text", "텍스트"),
    "filter.labeler": ("Labeler", "레이블러"),
    "filter.against": ("Compared with", "비교 대상"),
    "filter.gold": ("gold", "골드"),
    "filter.outcome": ("First error", "첫 오류"),
    "filter.subset": ("Subset", "하위 집합"),
    "filter.reason": ("Abstention", "판정 보류"),
    "filter.score": ("Lowest step score", "최저 단계 점수"),
    "filter.least": ("Lowest step score, at least", "최저 단계 점수, 이상"),
    "filter.most": ("Lowest step score, at most", "최저 단계 점수, 이하"),
    "filter.disputed": ("Labelers differ", "레이블러 간 불일치"),
    "filter.any": ("any", "전체"),
    "filter.all": ("all", "전체"),
    "filter.apply": ("Apply", "적용"),
    "filter.clear": ("Clear", "초기화"),
    "sort": ("Order", "정렬"),
    "sort.import": ("as imported", "가져온 순서"),
    "sort.low": ("lowest score first", "낮은 점수부터"),
    "sort.high": ("highest score first", "높은 점수부터"),
    "sort.short": ("fewest steps first", "단계가 적은 것부터"),
    "sort.long": ("most steps first", "단계가 많은 것부터"),
    "sort.first": ("earliest error first", "오류가 빠른 것부터"),
    "sort.last": ("latest error first", "오류가 늦은 것부터"),
    "outcome.exact": ("exact", "정확"),
    "outcome.no_error": ("both without error", "둘 다 오류 없음"),
    "outcome.early": ("early", "너무 이름"),
    "outcome.late": ("late", "너무 늦음"),
    "outcome.missed": ("missed", "놓침"),
    "outcome.false_alarm": ("false alarm", "오경보"),
    "outcome.missing": ("missing", "판정 없음"),
    "opinion.error": ("error at {step}", "{step}단계 오류"),
    "opinion.none": ("no error", "오류 없음"),
    "opinion.open": ("open", "미정"),
    "opinion.unlabeled": ("not labeled", "레이블 없음"),
    "opinion.low": ("low {score}", "최저 {score}"),
    "table.id": ("Trace", "풀이"),
    "table.question": ("Question", "문제"),
    "table.steps": ("Steps", "단계"),
    "table.total": ("{n} traces", "풀이 {n}개"),
    "table.text": (
        "of these, those with the text; this page does not follow changes",
        "이 중 텍스트가 있는 풀이만 표시하며, 변경 내용은 자동으로 반영되지 않습니다",
    ),
    "table.none": ("No trace meets these conditions.", "조건에 맞는 풀이가 없습니다."),
    "table.before": ("Previous", "이전"),
    "table.after": ("Next", "다음"),
    "table.start": ("First page", "첫 페이지"),
    "table.search_on": ("Search on ({percent}% searched)", "계속 검색 ({percent}% 완료)"),
    "keys.rows": ("Next and previous row", "다음 행과 이전 행"),
    "keys.open": ("Open the trace", "풀이 열기"),
    "keys.search": ("Search for a text", "텍스트 검색"),
    "keys.pages": ("Next and previous page", "다음 페이지와 이전 페이지"),
    "keys.traces": ("Next and previous trace", "다음 풀이와 이전 풀이"),
    "keys.up": ("Back to the table", "목록으로 돌아가기"),
    # Words of labels
    "verdict.correct": ("correct", "맞음"),
    "verdict.incorrect": ("incorrect", "틀림"),
    "verdict.neutral": ("neutral", "중립"),
    "reason.blocked": ("blocked", "차단됨"),
    "reason.truncated": ("truncated", "잘림"),
    "reason.unreadable": ("unreadable", "읽을 수 없음"),
    "reason.no_evidence": ("no evidence", "근거 없음"),
    "reason.over_length": ("too long", "길이 초과"),
    "reason.not_measured": ("not measured", "측정 안 함"),
    "reason.model_error": ("model error", "모델 오류"),
    "reason.no_answer": ("no gold answer", "정답 없음"),
    "reason.unparsed": ("answer not read", "답 해석 불가"),
    "reason.uncertain": ("uncertain", "불확실"),
    "reason.disagreement": ("disagreement", "불일치"),
    "reason.filtered": ("filtered", "걸러짐"),
    "reason.gold_unusable": ("gold unusable", "골드 사용 불가"),
    # One trace
    "protected.title": ("Protected problem", "보호된 문제"),
    "protected.short": ("may name a patient: not shown", "환자 정보 가능성: 표시하지 않음"),
    "protected.text": (
        "This problem is marked phi_removed: false, so that it is not shown. Start the server with"
        " --allow-phi to show it.",
        "이 문제는 phi_removed: false로 표시되어 있어 보여 주지 않습니다. 보려면 서버를"
        " --allow-phi로 시작하십시오.",
    ),
    "trace.problem": ("problem", "문제"),
    "trace.whole": ("show long texts whole", "긴 텍스트 모두 보기"),
    "trace.question": ("Question", "문제"),
    "trace.image": ("Image {n} of the problem", "문제 이미지 {n}"),
    "trace.answer": ("Gold answer", "정답"),
    "trace.final": ("Final answer", "최종 답"),
    "trace.right": ("right", "정답"),
    "trace.wrong": ("wrong", "오답"),
    "trace.no_answer": ("no answer read", "답을 읽지 못함"),
    "trace.steps": ("Steps and verdicts", "단계와 판정"),
    "trace.step": ("Step", "단계"),
    "trace.first": ("first error", "첫 오류"),
    "trace.reached": ("{right} of {all} reach gold", "{all}개 중 {right}개 정답"),
    "trace.unlabeled": ("No labeler has labeled it yet.", "아직 레이블이 없습니다."),
    "trace.evidence": ("Evidence", "근거"),
    "trace.ungrounded": ("No evidence was retrieved.", "검색된 근거가 없습니다."),
    "trace.offsets": ("characters {start} to {end}", "{start}–{end}번째 글자"),
    "trace.similarity": ("similarity {value}", "유사도 {value}"),
    "trace.work": ("Work of a labeler", "레이블러 작업 내용"),
    "trace.choose": (
        "Choose a labeler to see its reasoning, quotes, prompts, replies and continuations.",
        "레이블러를 선택하면 추론, 인용, 프롬프트, 응답, 이어쓰기를 볼 수 있습니다.",
    ),
    "trace.nothing": (
        "It recorded no reasoning, quotes, calls or continuations for this trace.",
        "이 풀이에 대해 기록된 추론, 인용, 호출, 이어쓰기가 없습니다.",
    ),
    "trace.document": ("document {n}", "문서 {n}"),
    "trace.quote.verified": ("quote verified", "인용 확인됨"),
    "trace.quote.unverified": ("quote not in the passage", "인용이 근거에 없음"),
    "trace.call": ("Call {n} ({reason})", "호출 {n} ({reason})"),
    "trace.prompt": ("Prompt", "프롬프트"),
    "trace.settings": ("Settings of the call", "호출 설정"),
    "trace.reply": ("Raw reply", "원본 응답"),
    "trace.continuations": (
        "After step {step}: {right} of {n} continuations reach the gold answer",
        "{step}단계 이후: 이어쓰기 {n}개 중 {right}개가 정답",
    ),
    # Costs and failures
    "costs.spent": ("Spent", "사용"),
    "costs.saved": ("Saved by stored replies", "저장된 응답으로 절약"),
    "costs.sent": ("Calls sent", "보낸 호출"),
    "costs.cached": ("From the store", "저장소에서"),
    "costs.input": ("Input tokens", "입력 토큰"),
    "costs.output": ("Output tokens", "출력 토큰"),
    "costs.unpriced": ("Without a price", "가격 미상"),
    "costs.models": ("By model", "모델별"),
    "costs.purpose": ("For", "용도"),
    "costs.running": ("Running now", "실행 중"),
    "costs.claimed": ("{n} in work", "작업 중 {n}개"),
    "costs.missing": ("Abstentions", "판정 보류"),
    "costs.reasons": ("Traces by reason", "사유별 풀이"),
    "costs.none": ("No labeler abstained.", "판정 보류가 없습니다."),
    "costs.failures": ("Other failures", "기타 실패"),
    "costs.rejected": ("Rejected rows", "거부된 행"),
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
