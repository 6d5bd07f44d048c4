"""ProcessBench's critic, end to end, against an independent transcription of its script."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from judge.prompt_file import packaged_prompt, read_prompt
from tests.loopback.openai_server import OpenAIServer

Cli = Callable[..., Any]
OFFICIAL = (
    "A problem and a solution in paragraphs:\n\n{problem}\n\n{tagged_response}\n\n"
    "Put the index into \\boxed{{}}.\n"
)
"""Of the form of QwenLM/ProcessBench's critique_template.txt, with its two placeholders."""
UNREADABLE = (
    "I cannot say.",
    "So \\boxed{}",
    "\\boxed{step 2}",
    "\\boxed{1",
    "It is \\boxed{none}.",
)


def critique(row: dict[str, Any], vote: int, unreadable: float = 0.1) -> str:
    """What the server says: gold with seeded noise, ties on every seventh trace."""
    chance = random.Random(f"{row['id']}/{vote}")
    if chance.random() < unreadable:
        return chance.choice(UNREADABLE)
    if sum(map(ord, row["id"])) % 7 == 0:
        return f"Tied: \\boxed{{{(row['label'], 0)[vote % 2]}}}"
    said = row["label"] if chance.random() < 0.6 else chance.randint(-1, len(row["steps"]))
    wrong_first = chance.randint(0, 3)
    return f"At first \\boxed{{{wrong_first}}}, but then \\boxed{{ {said} }}."


def published(rows: list[dict[str, Any]], votes: int) -> dict[str, float]:
    """code/run_eval.py of QwenLM/ProcessBench, written again from its description."""

    def answer(text: str) -> str | None:
        boxes = re.findall(r"\\boxed\{([^}]*)\}", text)
        return boxes[-1].strip() if boxes else None

    hits: dict[bool, list[bool]] = {True: [], False: []}
    for row in rows:
        given = [answer(critique(row, vote)) for vote in range(votes)]
        kept = [each for each in given if each is not None]
        said: Any = Counter(kept).most_common(1)[0][0] if kept else None
        try:
            said = int(said)
        except (TypeError, ValueError):
            said = None
        hits[row["label"] != -1].append(said == row["label"])
    error, correct = (sum(hits[kind]) / len(hits[kind]) for kind in (True, False))
    f1 = 2 * error * correct / (error + correct)
    return {"error_accuracy": error, "correct_accuracy": correct, "processbench_f1": f1}


class Critic(OpenAIServer):
    """Answers each trace of the file with `critique`; the seed of a request is its vote."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        super().__init__()
        self.rows = rows

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        user = body["messages"][-1]["content"]
        [row] = [
            one for one in self.rows if one["problem"] in user and tagged(one["steps"]) in user
        ]
        self.text = critique(row, int(body.get("seed") or 0))
        return super().answer(path, body)


def tagged(steps: list[str]) -> str:
    return "\n\n".join(f"<paragraph_{i}>\n{step}\n</paragraph_{i}>" for i, step in enumerate(steps))


def rows_of(n: int) -> list[dict[str, Any]]:
    """Rows in ProcessBench's format."""
    return [
        {
            "id": f"gsm8k-{i}",
            "generator": "g",
            "problem": f"What is {i} + 1? { {} }",
            "steps": [f"Take {i}, if 0 < 1.", "Add one.", f"So {i + 1}."],
            "final_answer_correct": i % 3 == 0,
            "label": -1 if i % 3 == 0 else i % 3,
        }
        for i in range(n)
    ]


def judged(cli: Cli, path: Path, rows: list[dict[str, Any]], *more: str) -> dict[str, Any]:
    """The figures as published of a critic over a file."""
    path.write_text(json.dumps(rows), encoding="utf-8")
    assert cli("import", "processbench", path, "--dataset", "pb").code == 0
    with Critic(rows) as server:
        asked = ("--base-url", server.url, "--concurrency", "8", "--json")
        done = cli("judge", "--dataset", "pb", "--judge", "openai:m", *more, *asked)
        calls = server.calls
    assert done.code == bool(done.document["abstained"])
    found = cli("evaluate", "--dataset", "pb", "--labeler", "judge", "--as-published", "--json")
    document = found.document
    [subset] = document["as_published"]["subsets"].values()
    return {"figures": subset, "calls": calls, "strict": document, "done": done.document}


def compare(seen: dict[str, Any], rows: list[dict[str, Any]], votes: int) -> None:
    for name, value in published(rows, votes).items():
        assert seen["figures"][name] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("votes", [1, 8])
def test_a_critic_repeats_the_published_figures(cli: Cli, tmp_path: Path, votes: int) -> None:
    rows = rows_of(24)
    critic = ("--prompt", "processbench-critic", "--votes", str(votes))
    seen = judged(cli, tmp_path / "pb.json", rows, *critic)
    compare(seen, rows, votes)
    _, body, _ = seen["calls"][0]
    assert [turn["role"] for turn in body["messages"]] == ["user"]
    assert tagged(rows[0]["steps"])[:14] in body["messages"][0]["content"]
    assert "response_format" not in body
    sampling = (0.0, None) if votes == 1 else (1.0, 0.9)
    assert (body["temperature"], body.get("top_p")) == sampling
    if votes == 8:
        assert len(seen["calls"]) < 8 * len(rows), "votes that can change nothing are not bought"


def test_a_vote_that_was_cut_does_not_count(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "pb.json").write_text(json.dumps(rows_of(1)), encoding="utf-8")
    cli("import", "processbench", tmp_path / "pb.json", "--dataset", "pb")

    class Cut(OpenAIServer):
        def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
            vote = int(body["seed"])
            self.text = ("At first \\boxed{0}", "\\boxed{1}", "\\boxed{0}")[vote]
            self.finish_reason = "stop" if vote else "length"
            return super().answer(path, body)

    with Cut() as server:
        asked = ("--base-url", server.url, "--prompt", "processbench-critic", "--votes", "3")
        assert cli("judge", "--dataset", "pb", "--judge", "openai:m", *asked).code == 0
    cli("export", "traces", tmp_path / "out.jsonl", "--dataset", "pb", "--labeler", "judge")
    [row] = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert row["labels"]["judge"]["verdicts"] == [1, -1, None]


@pytest.mark.slow
@pytest.mark.parametrize("votes", [1, 8])
def test_a_critic_on_the_real_subset(cli: Cli, tmp_path: Path, real_data: Path, votes: int) -> None:
    rows = json.loads((real_data / "processbench" / "gsm8k.json").read_text(encoding="utf-8"))
    critic = ("--prompt", "processbench-critic", "--votes", str(votes))
    seen = judged(cli, tmp_path / "pb.json", rows, *critic)
    compare(seen, rows, votes)
    print(votes, len(seen["calls"]), seen["figures"], seen["done"]["abstained"])


def test_the_official_template_is_taken_to_the_letter(cli: Cli, tmp_path: Path) -> None:
    rows = rows_of(9)
    rows[0]["steps"][0] = "</paragraph_0> <|im_end|> {question} {{}}"
    path = tmp_path / "critique_template.txt"
    path.write_text(OFFICIAL, encoding="utf-8")
    seen = judged(cli, tmp_path / "pb.json", rows, "--prompt", str(path))
    compare(seen, rows, 1)
    sent = {body["messages"][0]["content"] for _, body, _ in seen["calls"]}
    template = OFFICIAL.strip()
    assert sent == {
        template.format(problem=row["problem"], tagged_response=tagged(row["steps"]))
        for row in rows
    }
    assert read_prompt(path).protocol.verbatim
    assert not packaged_prompt("processbench-critic").protocol.verbatim


def test_escalation_and_single_steps_do_not_fit_a_critic(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "pb.json").write_text(json.dumps(rows_of(1)), encoding="utf-8")
    cli("import", "processbench", tmp_path / "pb.json", "--dataset", "pb")
    base = ("judge", "--dataset", "pb", "--judge", "openai:m", "--base-url", "http://127.0.0.1:9")
    critic = (*base, "--prompt", "processbench-critic")
    refused = cli(*critic, "--votes", "3", "--escalate", "openai:n")
    assert (refused.code, "no splits" in refused.err) == (2, True)
    assert cli(*critic, "--granularity", "step").code == 2
    unknown = cli(*base, "--prompt", "critic")
    assert unknown.code == 2
    assert "--prompt processbench-critic" in unknown.err
