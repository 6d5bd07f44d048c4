"""A workspace in which every text is hostile: markup, controls, formulas, and a megabyte."""

from __future__ import annotations

import json
from pathlib import Path

SCRIPT = "<script>document.title='owned'</script>"
IMAGE = "<img src=x onerror=\"document.title='owned'\">"
TURNED = "safe\u202egnp.exe\u2066"
FORMULA = "$\\frac{1}{2}$ & \\begin{array}{c}x\\end{array} {{ 7*7 }} {% raw %}"
EVIL = f"{SCRIPT} {IMAGE} {TURNED} {FORMULA} \"' onmouseover=\"document.title='owned'\" </textarea></style>"
LONG = "wide " * 200_000 + "the end of a megabyte"


def make_hostile_workspace(place: Path) -> Path:
    """Dataset `<script>…` with one trace whose every field is hostile, and one that is long."""
    from cli import execute

    def row(id: str, text: str, **more: object) -> dict[str, object]:
        return {
            "id": id,
            "problem": f"problem {text}",
            "options": [f"option {text}", "no"],
            "answer": f"answer {text[:500]}",
            "subset": f"subset {EVIL}",
            "generator": f"generator {text[:500]}",
            "steps": [f"first {text}", f"second {text}"],
            "final_answer": f"final {text[:500]}",
            "evidence": [{"source": f"source {EVIL}", "title": f"title {EVIL}", "text": f"passage {text}"}],
            "labels": {
                "gold": {"kind": "gold", "first_error": 1},
                f"judge {SCRIPT}": {"kind": "judge", "verdicts": [1, -1]},
                "prm": {"kind": "prm", "scores": [0.9, 0.2]},
            },
        } | more  # fmt: skip

    rows = [
        row(f"id {EVIL}", EVIL),
        row("long", LONG),
        row("patient", "Mr. Smith", meta={"phi_removed": False}, images=["../outside.png"]),
        row("outside", "x", images=["../outside.png", "/etc/hostname", "link.png", "inside.png"]),
    ]
    file = place / "hostile.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    workspace = place / "w"
    on = ["--workspace", str(workspace), "import", "traces", str(file)]
    assert execute([*on, "--dataset", f"set {SCRIPT}"]) in (0, 1)
    return workspace
