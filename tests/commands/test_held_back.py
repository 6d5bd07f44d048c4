"""Problems that say `phi_removed: false`, wherever they say it, go to no hosted model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inference.dispatch import Dispatcher
from inference.gemini.model import GeminiModel
from stepgold.retrieval import rewrite_queries
from storage import Store
from tests.loopback.gemini_server import GeminiServer

Cli = Callable[..., Any]
MARK = {"phi_removed": False}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GeminiServer]:
    with GeminiServer() as running:
        monkeypatch.setenv("GEMINI_API_KEY", "k")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", running.url)
        yield running


@pytest.fixture
def imported(cli: Cli, tmp_path: Path) -> Cli:
    """Four problems of one trace: marked on the trace, on the problem, in a case's metadata, not."""
    rows: list[dict[str, Any]] = [
        {"id": "trace", "meta": MARK},
        {"id": "problem", "problem_meta": MARK},
        {"id": "case", "problem_meta": {"metadata": MARK}},
        {"id": "free", "meta": {"phi_removed": True}},
    ]
    path = tmp_path / "t.jsonl"
    with path.open("w") as file:
        for row in rows:
            about = {"problem": f"The {row['id']} one?", "answer": "4", "steps": ["a"]}
            file.write(json.dumps(about | row) + "\n")
    assert cli("import", "traces", path, "--dataset", "d").code == 0
    return cli


def asked(server: GeminiServer) -> set[str]:
    """The problems that left this machine."""
    names = ("trace", "problem", "case", "free")
    return {name for name in names if f"The {name} one?" in json.dumps(server.bodies)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("allow", "sent"), [((), {"free"}), (("--allow-phi",), {"trace", "problem", "case", "free"})]
)
def test_no_candidates_are_asked_for_them(
    imported: Cli, server: GeminiServer, allow: tuple[str, ...], sent: set[str]
) -> None:
    policy = ("--policy", "gemini:gemini-3.5-flash-lite", "-n", "1", "--keep-all")
    done = imported("sample", "--dataset", "d", *policy, *allow, "--json")
    assert done.document["abstained"].get("filtered", 0) == 4 - len(sent)
    assert asked(server) == sent


@pytest.mark.parametrize("allow", [False, True])
def test_no_queries_are_written_for_them(
    imported: Cli, server: GeminiServer, tmp_path: Path, allow: bool
) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}", create=False) as store:
        problems, marked = list(store.traces.problems("d")), store.traces.marked_problems("d")
    assert {problem.question for problem in problems if problem.id in marked} == {
        "The trace one?",
        "The problem one?",
        "The case one?",
    }
    with Dispatcher(GeminiModel("gemini-3.5-flash-lite", base_url=server.url), None) as runner:
        written = list(rewrite_queries(problems, runner, allow_phi=allow, marked=marked))
    held = [each.failure for each in written if each.failure is not None]
    assert len(written) == 4
    assert sum(each.reason.value == "filtered" for each in held) == (0 if allow else 3)
    assert asked(server) == ({"trace", "problem", "case", "free"} if allow else {"free"})
