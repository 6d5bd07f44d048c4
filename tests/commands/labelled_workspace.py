"""A small workspace with gold, evidence, three labelers, several candidates a problem, and hostile texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
N_TRACES = 12


def rows() -> dict[str, list[dict[str, Any]]]:
    """Lines by file: the traces `d`, and the scores of prm, judge and blank."""
    traces, prm, judge, blank = [], [], [], []
    for number in range(N_TRACES):
        id, wrong = f"t{number}", number % 2 == 0
        traces.append(
            {
                "id": id,
                "problem": f"Question {number // 2}? {EVIL}",
                "answer": "5",
                "subset": "dev" if number < 6 else "test",
                "steps": ["one", f"two <{number}> {EVIL}", "three"],
                "final_answer": "4" if wrong else "5",
                "final_answer_correct": not wrong,
                "evidence": [
                    {"source": "g.md", "title": "G", "text": f"passage {number // 2} {EVIL}"}
                ],
                "labels": {"gold": {"kind": "gold", "first_error": 1 if wrong else None}},
            }
        )
        prm.append({"id": id, "scores": [0.9, 0.6 if wrong else 0.8, 0.85]})
        judge.append({"id": id, "verdicts": [1, -1 if wrong and number else 1, None]})
        blank.append({"id": id, "verdicts": [None] * 3})
    return {"d": traces, "prm": prm, "judge": judge, "blank": blank}


def make_workspace(place: Path) -> Path:
    """Dataset `d` with subsets dev and test and the labelers gold, prm, judge and blank."""
    from cli import execute

    on = ["--workspace", str(place / "w"), "import"]
    for name, part in rows().items():
        file = place / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in part))
        if name == "d":
            assert execute([*on, "traces", str(file), "--dataset", "d"]) == 0
        else:
            execute([*on, "scores", str(file), "--dataset", "d", "--labeler", name])
    return place / "w"
