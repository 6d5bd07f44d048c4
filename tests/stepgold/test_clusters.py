"""`--engine ray`: the labels of one machine to the last bit, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepgold import (
    ContinueOptions,
    InputError,
    JudgeOptions,
    ScoreOptions,
    ToolkitError,
    Workspace,
)
from stepgold.labeling_run import LabelWriter
from storage import Store
from tests.commands.tiny_prm import save_prm, write_pool
from tests.loopback.openai_server import OpenAIServer
from tests.tiny_models import save, tiny_llama, tiny_tokenizer

ROOT = Path(__file__).resolve().parents[2]
WINDOW = 16
"""Traces of a scoring window here, so that few traces are many units."""
VERDICTS = '{"steps": [{"verdict": "correct"}, {"verdict": "correct"}, {"verdict": "incorrect"}]}'


class TwoNodes:
    """A Ray cluster of two nodes with one CPU each, on this machine."""

    def __init__(self, folder: str) -> None:
        from ray.cluster_utils import Cluster

        self._node = {
            "num_cpus": 1,
            "object_store_memory": 80 << 20,
            "include_dashboard": False,
            "temp_dir": folder,
        }
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=dict(self._node))
        self._second: Any = None
        self.ensure()

    @property
    def engine(self) -> str:
        return f"ray://{self._cluster.address}"

    def ensure(self) -> None:
        """Have a second node."""
        if self._second is None:
            more = {key: value for key, value in self._node.items() if key != "include_dashboard"}
            self._second = self._cluster.add_node(**more)

    def kill_second(self) -> None:
        """Kill the raylet, the workers and the object store of the second node."""
        node, self._second = self._second, None
        self._cluster.remove_node(node, allow_graceful=False)

    def shutdown(self) -> None:
        self._cluster.shutdown()


def running(folder: str) -> list[str]:
    """Processes that name the folder in their command lines."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        if folder in line:
            found.append(line)
    return found


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    # Not under pytest's folder: the paths of sockets may have 107 characters.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    # Ray writes the cluster's address into RAY_TMPDIR/ray, which a new machine does not have.
    Path(folder, "ray").mkdir()
    keys = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "RAY_TMPDIR": folder}
    before = {key: os.environ.get(key) for key in keys}
    os.environ.update(keys)
    cluster = TwoNodes(folder)
    try:
        yield cluster
    finally:
        cluster.shutdown()
        left = running(folder)
        shutil.rmtree(folder, ignore_errors=True)
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})
    assert not left, "processes of the cluster are left"


@pytest.fixture
def two(nodes: TwoNodes, monkeypatch: pytest.MonkeyPatch) -> TwoNodes:
    nodes.ensure()
    monkeypatch.setattr("traces.records.READ_AHEAD", WINDOW)
    return nodes


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    """160 traces of 40 problems, candidate by candidate."""
    workspace = Workspace(tmp_path / "w", progress=False)
    pool = write_pool(tmp_path / "t.jsonl", problems=40, candidates=4, documents=1)
    rows = [json.loads(line) | {"answer": "6 mg"} for line in pool.read_text().splitlines()]
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows))
    workspace.import_("traces", pool, dataset="d")
    return workspace


def labels(ws: Workspace, name: str) -> Any:
    with Store.open(ws.url) as store:
        assert not store.claims.live(at=0.0)
        found = store.labels.load("d", name)
        return found, [store.labels.continuations("d", name, each) for each in found]


def after_commits(monkeypatch: pytest.MonkeyPatch, count: int, act: Any) -> None:
    """Do something once a run has stored labels so many times."""
    put, left = LabelWriter._put, [count]

    def counted(self: LabelWriter, ready: Any) -> None:
        put(self, ready)
        left[0] -= 1
        if left[0] == 0:
            act()

    monkeypatch.setattr(LabelWriter, "_put", counted)


KILLED = """
import os, signal, sys
import stepgold, traces.records
from stepgold.labeling_run import LabelWriter
traces.records.READ_AHEAD = int(sys.argv[4])
put, left = LabelWriter._put, [2]
def counted(self, ready):
    put(self, ready)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
LabelWriter._put = counted
stepgold.Workspace(sys.argv[1]).score(dataset="d", prm=sys.argv[2], name="ray", engine=sys.argv[3])
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_node_and_the_command_die_and_the_scores_are_those_of_one_machine(
    two: TwoNodes, ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prm = f"hf:{save_prm(tmp_path / 'prm')}"
    ws.score(dataset="d", prm=prm, name="local")
    argv = [sys.executable, "-c", KILLED, ws.folder, prm, two.engine, str(WINDOW)]
    killed = subprocess.run(list(map(str, argv)), cwd=ROOT, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    after_commits(monkeypatch, 2, two.kill_second)
    done = ws.score(dataset="d", prm=prm, name="ray", engine=two.engine, actors="2")
    assert done.unchanged in (2 * WINDOW, 2 * WINDOW + 4), "the killed command kept its units"
    assert done.done + done.unchanged == 160
    assert labels(ws, "ray") == labels(ws, "local")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_continuations_and_candidates_are_those_of_one_machine(
    two: TwoNodes, ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tiny_tokenizer()
    policy = f"hf:{save(tmp_path / 'policy', tokenizer, tiny_llama(tokenizer))}"
    how: dict[str, Any] = {"dataset": "d", "policy": policy, "k": 2, "max_tokens": 6}
    ws.continue_(**how, name="local")
    after_commits(monkeypatch, 1, two.kill_second)
    ws.continue_(**how, name="ray", engine=two.engine, actors="1:2")
    assert labels(ws, "ray") == labels(ws, "local")
    options: dict[str, Any] = {"n": 2, "max_tokens": 24, "keep_all": True, "rounds": 1, "limit": 8}
    found = []
    for name, engine in (("a", "local"), ("b", two.engine)):
        ws.sample(dataset="d", policy="lab", name=name, engine=engine, **options)
        with Store.open(ws.url) as store:
            written = [c.trace for c in store.traces.contexts("d") if f":{name}:" in c.trace.id]
        found.append([(trace.problem_id, trace.steps, trace.final_answer) for trace in written])
    assert len(found[0]) == 16
    assert sorted(map(repr, found[0])) == sorted(map(repr, found[1]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_judges_on_actors_pay_once_and_keep_keys_where_they_are(
    two: TwoNodes, ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k-of-this-command")
    with OpenAIServer(VERDICTS) as server:
        how: dict[str, Any] = {"dataset": "d", "judge": "openai:m", "base_url": server.url}
        ws.judge(**how, name="local", limit=40)
        calls = len(server.calls)
        ws.judge(**how, name="ray", limit=40, engine=two.engine)
        assert len(server.calls) == calls, "stored replies are used"
        ws.judge(**how, name="all", engine=two.engine)
        asked = Counter(json.dumps(body["messages"]) for _, body, _ in server.calls)
        assert max(asked.values()) == 1
    assert labels(ws, "ray") == labels(ws, "local")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_lab_judge_and_the_index_are_those_of_one_machine(
    two: TwoNodes, ws: Workspace, tmp_path: Path
) -> None:
    for name, engine in (("local", "local"), ("ray", two.engine)):
        ws.judge(dataset="d", judge="lab", limit=48, name=name, engine=engine)
    assert labels(ws, "ray") == labels(ws, "local")
    found = []
    for name, engine in (("l", "local"), ("r", two.engine)):
        other = Workspace(tmp_path / name, progress=False)
        (tmp_path / "g.txt").write_text(
            "\n\n".join(f"Rule {n}: give {n} mg. " * 30 for n in range(90))
        )
        other.corpus_add(tmp_path / "g.txt", corpus="c")
        other.index(engine=engine)
        vectors = sorted(other.folder.rglob("*.faiss"))
        found.append([path.read_bytes() for path in vectors])
    assert found[0]
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_an_actor_cannot_load_is_one_error(two: TwoNodes, ws: Workspace) -> None:
    with pytest.raises(ToolkitError, match="/nope"):
        ws.score(dataset="d", prm="hf:/nope", engine=two.engine)
    with pytest.raises(InputError, match="no Ray cluster"):
        ws.score(dataset="d", prm="lab", engine="ray://127.0.0.1:1")


def test_options_of_the_engine() -> None:
    given = ScoreOptions(dataset="d", prm="lab", engine="ray://10.0.0.1:6379", actors="2:8")
    assert (given.on_ray, given.actor_range) == (True, (2, 8))
    assert ScoreOptions(dataset="d", prm="lab").actor_range == (1, None)
    for wrong in ("0:2", "3:2", "a", "1:", ":4", "-1"):
        with pytest.raises(InputError, match="actors"):
            ScoreOptions(dataset="d", prm="lab", engine="ray", actors=wrong)
    for wrong in ("dask", "ray://host", "ray://user:secret@host:1", "ray:"):
        with pytest.raises(InputError, match="engine"):
            ScoreOptions(dataset="d", prm="lab", engine=wrong)
    with pytest.raises(InputError, match="no effect without --engine ray"):
        ScoreOptions(dataset="d", prm="lab", actors="2").refuse_idle()


def test_what_a_cluster_cannot_do_is_refused() -> None:
    with pytest.raises(InputError, match="Batch jobs"):
        JudgeOptions(dataset="d", judge="gemini:m", service="batch", engine="ray")
    with pytest.raises(InputError, match="answers"):
        ContinueOptions(dataset="d", policy="lab", answer_judge="gemini:m", engine="ray")
    with pytest.raises(InputError, match="server"):
        ScoreOptions(dataset="d", prm="openai:m", checkpoint="hf:x", engine="ray")
