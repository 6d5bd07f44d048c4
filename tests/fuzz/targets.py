"""What is fuzzed: every reader of files, every reader of replies, and whole commands.

A target takes bytes and a folder. It may return, or raise a `ToolkitError` (exit 2); anything else
is a defect.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.formats.picture_files import dicom, picture
from tests.formats.samples import SAMPLES, WANT_LABELER
from tests.loopback.recording_server import RecordingServer
from traces import LabelerKind, Problem, StoredDocument, ToolkitError

Run = Callable[[bytes, Path], object]


@dataclass(frozen=True)
class Target:
    """Something that reads what others wrote."""

    name: str
    run: Run
    seeds: Sequence[bytes]
    rows: bool = False
    """Whether the seeds are JSON lines."""
    weight: int = 10
    """Share of the inputs; slow targets get less."""


class Broke(Exception):
    """A command ended with another exit code than 0, 1 or 2, or showed a traceback."""


def _lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def _file(data: bytes, folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def _read_format(name: str, data: bytes, folder: Path) -> None:
    from formats import read_file

    wants = name in WANT_LABELER
    path = _file(data, folder, "rows.jsonl")
    kind = LabelerKind.MC if wants else None
    list(read_file(name, path, labeler="who" if wants else None, kind=kind))


def _read_auxiliary(name: str, data: bytes, folder: Path) -> None:
    import formats

    path = _file(data, folder, "rows.jsonl")
    if name == "scores":
        list(formats.read_scores(path, {"t": 2, "u": 1}))
    elif name == "texts":
        list(formats.read_row_texts(path))
    else:
        {
            "pool": formats.read_pool,
            "pool-scores": formats.read_pool_scores,
            "problems": formats.read_problems,
            "qrels": formats.read_qrels,
        }[name](path)


def _read_document(suffix: str, data: bytes, folder: Path) -> None:
    from retrieval.documents import read_documents, split_document

    for entry in read_documents([_file(data, folder, f"guideline{suffix}")]):
        if isinstance(entry, StoredDocument):
            split_document(entry, corpus="c", target_tokens=64, overlap=8)


def _read_packed(suffix: str, data: bytes, folder: Path) -> None:
    """The damage is inside of the packed file, whose checksums are right."""
    if suffix == ".gz":
        _read_format("traces", gzip.compress(data, 1), folder)
        return
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_docx())) as sound, zipfile.ZipFile(packed, "w") as out:
        for name in sound.namelist():
            out.writestr(name, data if name == "word/document.xml" else sound.read(name))
    _read_document(".docx", packed.getvalue(), folder)


def _read_image(data: bytes, folder: Path) -> None:
    from formats import load_image

    _file(data, folder, "picture")
    for path in ("picture", "picture#frame=1"):
        with contextlib.suppress(ToolkitError):
            load_image(path, folder)


def _read_prompt(data: bytes, folder: Path) -> None:
    from judge.prompt_file import read_prompt

    read_prompt(_file(data, folder, "prompt.txt"))


def _read_config(data: bytes, folder: Path) -> None:
    """A stepgold.toml and a file for `run`: everything up to the first stage."""
    from stepgold.api import PIPELINE
    from stepgold.config_run import _config, checked_tables, command_defaults
    from stepgold.workspace import read_toml

    path = _file(data, folder, "stepgold.toml")
    command_defaults(folder, PIPELINE)
    for table in checked_tables(read_toml(path), path, PIPELINE):
        _config(table, PIPELINE, path)


def _read_layout(data: bytes, folder: Path) -> None:
    from scoring.families.generic_layout import GenericLayout

    GenericLayout.from_file(_file(data, folder, "family.toml"))


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


@cache
def _evidence() -> tuple[Any, ...]:
    from traces import Evidence, Passage

    text = "The dose of warfarin is 5 mg per day (range 2 to 10 mg). Check the INR."
    passage = Passage("c", "d", 0, start=0, end=len(text), text=text, title="Warfarin")
    return (Evidence(passage, 0.5, 0),)


def _read_reply(data: bytes, _: Path) -> None:
    from judge.reply import read_reply

    for quotes in (False, True):
        read_reply(_text(data), "stop", [0, 1], _evidence(), require_quotes=quotes)


def _read_solution(data: bytes, _: Path) -> None:
    from labeling import AnswerChecker
    from labeling.candidates import split_steps

    text = _text(data)
    split_steps(text)
    for answer, options in _GOLDS:
        checker = AnswerChecker.for_problem(Problem("p", "q", answer=answer, options=options))
        found = checker.extract(text)
        if found is not None:
            checker.is_correct(found)


_GOLDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("12", ()),
    ("B", ("aspirin", "warfarin 5 mg")),
    ("yes", ()),
    ("Marie Curie", ()),
    ("\\frac{1}{2}", ()),
    ("5 mg", ()),
)


def _read_gold(data: bytes, _: Path) -> None:
    from labeling import AnswerChecker, check_golds

    answer = _text(data)[:4000]
    problem = Problem("p", "q", answer=answer)
    check_golds([problem])
    with contextlib.suppress(ToolkitError):
        checker = AnswerChecker.for_problem(problem)
        checker.is_correct(answer)
        checker.is_correct("12")
        checker.extract(f"So the answer is {answer}.")


def _read_quote(data: bytes, _: Path) -> None:
    from judge.prompt_file import escape_markers, unescape_markers
    from judge.quotes import verify_quote

    text = _text(data)
    passage = _evidence()[0].passage.text
    verify_quote(text, passage)
    verify_quote("dose of warfarin ... 5 mg per day", text)
    unescape_markers(escape_markers(text))


async def _no_sleep(_: float) -> None:
    """Waits between attempts are not what is tested."""


@cache
def _recording_server() -> RecordingServer:
    return RecordingServer().__enter__()  # for the rest of the process


def _server(data: bytes, statuses: Sequence[int]) -> str:
    """The URL of a server that answers with these bytes."""
    server = _recording_server()
    server.document, server.status = data, statuses[len(data) % len(statuses)]
    server.received.clear()
    return server.url


def _ask_model(dialect: str, data: bytes, _: Path) -> None:
    from inference.gemini.model import GeminiModel
    from inference.openai.model import OpenAIModel
    from inference.protocol import GenerationRequest, Message
    from inference.retries import RetryPolicy

    url, once = _server(data, (200, 200, 200, 400, 429, 503)), RetryPolicy(attempts=1)
    kind: Any = OpenAIModel if dialect == "openai" else GeminiModel
    keys: Any = {"OPENAI_API_KEY": "sk-0123456789", "GEMINI_API_KEY": "AI-0123456789"}
    model = kind("m", base_url=url, environ=keys, retry=once, sleep=_no_sleep)
    ask = GenerationRequest((Message("user", "1+1?"),), 8)

    async def one() -> None:
        try:
            await model.generate(ask)
        finally:
            await model.aclose()

    asyncio.run(one())


def _ask_json(data: bytes, _: Path) -> None:
    """The rows of every route of a PRM server."""
    from inference.openai.json_client import JsonClient
    from inference.retries import RetryPolicy

    url, once = _server(data, (200, 200, 200, 400)), RetryPolicy(attempts=1)
    with JsonClient("m", base_url=url, environ={}, retry=once, sleep=_no_sleep) as client:
        reply = client.get("/v1/models")
    _read_rows(reply)


def _read_rows(reply: dict[str, Any]) -> None:
    from scoring.family import LaidOutTrace, served_head, served_tokens
    from scoring.server.routes import Unread, route_of, row_scores

    trace = LaidOutTrace("t", (5, 9, 5, 7, 9, 9), ((1,), (), (4, 5)))
    for name in ("pooling", "completions", "generate"):
        served = served_head(2) if name == "pooling" else served_tokens(7, 8)
        with contextlib.suppress(Unread, ToolkitError):
            route = route_of(name, served, "family")
            rows = route.rows(reply, trace)
            for reading in route.readings:
                row_scores(rows, reading)


def _read_batch(data: bytes, _: Path) -> None:
    from inference.gemini.batch import GeminiBatches, read_job
    from inference.gemini.model import GeminiModel
    from inference.retries import TransientFault

    model = GeminiModel("m", environ={"GEMINI_API_KEY": "AI-0123456789"})
    list(GeminiBatches(model).outcomes(data.splitlines(keepends=True)))
    with contextlib.suppress(TransientFault):
        read_job(_text(data))


class _Commands:
    """Calls the command line in this process, in workspaces that are made new now and then."""

    def __init__(self) -> None:
        self.calls = 0
        self.folder: Path | None = None

    def workspace(self) -> Path:
        self.calls += 1
        if self.folder is None or self.calls % 100 == 0:
            if self.folder is not None:
                shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = Path(tempfile.mkdtemp(prefix="stepgold-fuzz-"))
        return self.folder

    def call(self, *argv: str | Path) -> int:
        from cli import execute

        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = execute(list(map(str, argv)))
        if code not in (0, 1, 2) or "Traceback" in err.getvalue():
            raise Broke(f"{' '.join(map(str, argv))[:200]}: exit {code}: {err.getvalue()[-600:]}")
        if "--json" in argv and out.getvalue().count("\n") == 1:
            json.loads(out.getvalue(), parse_constant=_not_json)
        return code


def _not_json(word: str) -> None:
    raise Broke(f"{word} is not JSON")


@cache
def _commands() -> _Commands:
    return _Commands()


def _import(format: str, data: bytes, folder: Path) -> None:
    """Import, then everything that reads what was imported."""
    commands = _commands()
    at = ("--workspace", commands.workspace())
    name = f"d{commands.calls}"
    file = _file(data, folder, "rows.jsonl")
    more = ("--labeler", "who", "--kind", "mc") if format in WANT_LABELER else ()
    code = commands.call(*at, "import", format, file, "--dataset", name, *more, "--json")
    if code == 2 or commands.calls % 4:
        return
    labeler = ("--dataset", name, "--labeler", "who" if more else "gold", "--json")
    commands.call(*at, "status", "--json")
    for target in ("traces", "trl", "processbench"):
        commands.call(*at, "export", target, folder / "out.jsonl", *labeler)
    commands.call(*at, "evaluate", *labeler, "--resamples", "10")
    commands.call(*at, "report", folder / "out.html", "--dataset", name, "--resamples", "10")
    commands.call(*at, "overlap", "--dataset", name, "--with", file, "--json")


def _command(name: str, data: bytes, folder: Path) -> None:
    commands = _commands()
    at = ("--workspace", commands.workspace())
    if name == "best-of-n":
        scores = _file(_lines(*_POOL_SCORES), folder, "s.jsonl")
        pool, rest = _file(data, folder, "p.jsonl"), ("-n", "1,2", "--resamples", "10", "--json")
        commands.call(*at, name, "--pool", pool, "--scores", scores, *rest)
        pool = _file(_lines(*_POOL), folder, "p.jsonl")
        commands.call(*at, name, "--pool", pool, "--scores", _file(data, folder, "t.jsonl"), *rest)
    elif name == "corpus":
        suffix = (".md", ".html", ".jsonl", ".txt", ".rst")[len(data) % 5]
        file = _file(data, folder, f"guideline{suffix}")
        commands.call(*at, "corpus", "add", file, "--corpus", "c", "--replace", "--json")
    elif name == "run":
        commands.call(*at, "run", _file(data, folder, "run.toml"), "--json")
    elif name == "scores":
        traces = _file(_lines(SAMPLES["traces"]), folder, "traces.jsonl")
        commands.call(*at, "import", "traces", traces, "--dataset", "t", "--json")
        file = _file(data, folder, "scores.jsonl")
        given = ("--dataset", "t", "--labeler", f"l{commands.calls}", "--json")
        commands.call(*at, "import", "scores", file, *given)
    else:
        ids = _text(data)[:200].replace("\x00", "")
        commands.call(*at, "status", "--json")
        commands.call(*at, "labels" if ids == "labels" else "search", ids, "-k", "1", "--json")


_POOL = [
    {"problem_id": "p", "candidate_index": n, "answer": a, "is_correct": a == "4",
     "ground_truth": "4", "n_steps": 2}
    for n, a in enumerate(("4", "5"))
]  # fmt: skip
_POOL_SCORES = [
    {"problem_id": "p", "candidate_index": n, "step_scores": [0.9, s]}
    for n, s in enumerate((0.5, 0.25))
]
_TRACE_ID = SAMPLES["traces"]["id"]
_SCORES = [
    {"id": "t", "scores": [0.5, 0.25]},
    {"id": "u", "verdicts": [1]},
    {"id": _TRACE_ID, "first_error": 0},
]
_PROBLEMS = [
    {"id": "p", "problem": "1+1?", "answer": "2", "meta": {"a": 1}},
    {"id": 7, "problem": "Which?", "options": ["a", "b"], "answer": "A", "images": ["x.png"]},
]
_QRELS = b'q1 0 dosing.md 1\n{"problem_id": "q1", "document": "a.md", "relevance": 2}\n'
_REPLY = {
    "steps": [
        {"step": 1, "document": 1, "quote": "dose of warfarin is 5 mg", "reasoning": "r", "verdict": "correct"},
        {"step": 2, "document": None, "quote": None, "reasoning": "r", "verdict": "incorrect"},
    ]
}  # fmt: skip
_SOLUTIONS = (
    b"Step 1: 5 + 7 = 12.\nStep 2: So the answer is \\boxed{12}.",
    b"We add.\n\n1. 5+7 = 12\n\n2. **Answer: B) warfarin 5 mg**",
    b"So $\\frac{3}{4} \\cdot 10^{3}$ gives 1,234.5 mg/dL, i.e. 50%. #### 12",
    b"<think>maybe yes</think><answer>yes</answer>",
    "정답은 3입니다. 答案是 (B)。".encode(),
)
_GOLD_SEEDS = (
    b"12", b"-3.5e4", b"\\frac{1}{2}", b"1 \\frac{1}{2}", b"[0, \\infty)", b"\\{1, 2, 3\\}", b"x = 5",
    b"5 mg/dL", b"50\\%", b"(3, \\pi/2)", b"\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", b"10^9",
    b"\\sqrt[3]{2}", b"2x^2 + 3x - 1", b"\\text{Monday}", b"1:30 pm", b"A", b"yes", b"3 hours 20 minutes",
)  # fmt: skip
_PROMPT = b"--- system ---\nYou judge.\n--- user ---\n{documents}\n{question}\n{steps}\n--- no documents ---\nNone.\n"
_RUN = b"""[import]
format = "traces"
files = ["rows.jsonl"]
dataset = "d"

[evaluate]
dataset = "d"
labeler = "gold"
seed = 3
"""
_DEFAULTS = b"""[judge]
judge = "openai:m"
base_url = "http://127.0.0.1:1/v1"
votes = 3
temperature = 0.5

[continue]
policy = "lab"
k = 4
"""
_LAYOUT = b"""name = "my-prm"
prompt = "Question: {question}\\n\\n"
step = "Step {number}: {step}"
separator = " "
marker = " k"
positive = " +"
negative = " -"
read = "at"
chat = "user"
aggregation = "min"
"""
_HTML = b"<html><head><title>T</title></head><body><h1>H</h1><p>5 < 7 mg<sup>2</sup></p><table><tr><td>a</td></tr></table></body></html>"
_JATS = b'<?xml version="1.0"?><article><front><article-meta><title-group><article-title>T</article-title></title-group></article-meta></front><body><sec><title>S</title><p>Text <sup>2</sup>.</p></sec></body></article>'
_OPENAI = _lines(
    {
        "choices": [{"message": {"content": "2"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
        "model": "m-1",
    },
    {"error": {"message": "too long", "code": "context_length_exceeded"}},
)
_GEMINI = {
    "candidates": [{"content": {"parts": [{"text": "2"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1},
    "modelVersion": "m-1",
}
_STATUS = {
    "error": {
        "code": 429,
        "message": "quota",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                "violations": [{"quotaId": "PerDay", "quotaValue": "50"}],
            },
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3s"},
        ],
    }
}
_JOB = {
    "name": "batches/1",
    "metadata": {"state": "BATCH_STATE_SUCCEEDED", "displayName": "d", "batchStats": {"requestCount": "2"}},
    "done": True,
    "response": {"responsesFile": "files/1"},
}  # fmt: skip
_PRM = [
    {"data": [{"index": 0, "data": [[0.1, 0.2]] * 6}], "usage": {"prompt_tokens": 6}},
    {"choices": [{"prompt_logprobs": [None, *[{"7": {"logprob": -0.1}, "8": {"logprob": -2.0}}] * 6]}]},
    {"meta_info": {"prompt_tokens": 6, "input_token_ids_logprobs": [[[-0.1, 7, None], [-2.0, 8, None]]] * 6}},
]  # fmt: skip


@cache
def _pdf() -> bytes:
    from tests.retrieval.test_pdf import shown, write_pdf

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pdf"
        write_pdf(path, [shown([(50, 700, 12, "Dose 5 mg per m"), (150, 705, 8, "2")])])
        return path.read_bytes()


@cache
def _docx() -> bytes:
    from tests.retrieval.test_office import paragraph, run, write_docx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.docx"
        write_docx(path, paragraph(run("Dose 5 mg"), style="H1"))
        return path.read_bytes()


def _pictures() -> list[bytes]:
    gray = np.arange(64, dtype=np.uint16).reshape(8, 8)
    return [
        picture("PNG", (8, 8)),
        picture("JPEG", (8, 8)),
        picture("WEBP", (8, 8)),
        dicom(gray, WindowCenter=30, WindowWidth=20, RescaleSlope=1, RescaleIntercept=0),
        dicom(np.zeros((2, 8, 8), dtype=np.uint8)),
    ]


def _documents() -> list[Target]:
    rst = b"Title\n=====\n\nDose: 5 mg\n\n.. note:: x\n\n+---+---+\n| a | b |\n+---+---+\n"
    rows = _lines({"id": 1, "title": "T", "content": "Dose 5 mg"}, {"id": "b", "contents": "x"})
    seeds = {
        ".txt": (b"Dose 5 mg.\n\nCheck the INR.\n", 10),
        ".md": (b"# Warfarin\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- x\n", 10),
        ".html": (_HTML, 15),
        ".pdf": (_pdf(), 15),
        ".docx": (_docx(), 8),
        ".nxml": (_JATS, 8),
        ".xml": (_JATS, 4),
        ".rst": (rst, 3),
        ".xhtml": (_HTML, 4),
        ".jsonl": (rows, 10),
        ".jsonl.gz": (gzip.compress(rows, mtime=0), 4),
    }
    return [
        Target(
            f"document{suffix}",
            partial(_read_document, suffix),
            (seed,),
            rows=suffix == ".jsonl",
            weight=weight,
        )
        for suffix, (seed, weight) in seeds.items()
    ]


def _rows(name: str) -> bytes:
    return _lines(SAMPLES[name])


def _auxiliary() -> list[Target]:
    seeds = {
        "scores": _lines(*_SCORES),
        "pool": _lines(*_POOL),
        "pool-scores": _lines(*_POOL_SCORES),
        "problems": _lines(*_PROBLEMS),
        "qrels": _QRELS,
        "texts": _rows("traces"),
    }
    return [
        Target(name, partial(_read_auxiliary, name), (seed,), rows=True)
        for name, seed in seeds.items()
    ]


def _replies() -> list[Target]:
    reply = json.dumps(_REPLY).encode()
    fenced = b"Sure:\n```json\n" + reply + b"\n```"
    batch = _lines({"key": "a", "response": _GEMINI}, {"key": "b", "error": {"code": 8}}, _JOB)
    return [
        Target("reply", _read_reply, (reply, fenced, reply + b"\n"), rows=True, weight=40),
        Target("solution", _read_solution, _SOLUTIONS, weight=20),
        Target("gold", _read_gold, _GOLD_SEEDS, weight=20),
        Target("quote", _read_quote, (b"dose of warfarin is ... 5 mg per day", *_SOLUTIONS)),
        Target("openai", partial(_ask_model, "openai"), _OPENAI.splitlines(), rows=True, weight=3),
        Target(
            "gemini",
            partial(_ask_model, "gemini"),
            (_lines(_GEMINI), _lines(_STATUS)),
            rows=True,
            weight=3,
        ),
        Target("prm-server", _ask_json, [_lines(one) for one in _PRM], rows=True, weight=5),
        Target("batch", _read_batch, (batch,), rows=True, weight=5),
    ]


def _whole_commands() -> list[Target]:
    seeds = {
        "best-of-n": (_lines(*_POOL), _lines(*_POOL_SCORES)),
        "corpus": (_HTML, b"# Dose\n\n5 mg.\n", _lines({"id": 1, "content": "Dose"})),
        "run": (_RUN, _DEFAULTS),
        "scores": (_lines(*_SCORES),),
        "search": (b"dose of warfarin", b"labels"),
    }
    found = [
        Target(f"command {name}", partial(_command, name), given, rows=name != "run", weight=1)
        for name, given in seeds.items()
    ]
    return found + [
        Target(f"command import {name}", partial(_import, name), (_rows(name),), rows=True, weight=1)
        for name in ("traces", "processbench", "medprm", "math-shepherd", "mr-ben", "trl", "prmbench")
    ]  # fmt: skip


@cache
def all_targets() -> tuple[Target, ...]:
    """Every target, in a fixed order."""
    formats = [
        Target(f"format {name}", partial(_read_format, name), (_rows(name),), rows=True)
        for name in SAMPLES
    ]
    with zipfile.ZipFile(io.BytesIO(_docx())) as packed:
        word = packed.read("word/document.xml")
    files = [
        Target("packed docx", partial(_read_packed, ".docx"), (word,), weight=5),
        Target(
            "packed rows", partial(_read_packed, ".gz"), (_rows("traces"),), rows=True, weight=5
        ),
        Target("image", _read_image, _pictures(), weight=25),
        Target("prompt", _read_prompt, (_PROMPT,)),
        Target("config", _read_config, (_RUN, _DEFAULTS)),
        Target("layout", _read_layout, (_LAYOUT,)),
    ]
    return (*formats, *_auxiliary(), *_documents(), *files, *_replies(), *_whole_commands())
