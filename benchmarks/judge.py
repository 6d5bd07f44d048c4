"""`make bench-judge`: does the judge keep up with a bare google-genai loop?

Both ask the same loopback Gemini (a process of its own that adds 300 ms a call) for the same prompts
at the same concurrency, each in a process of its own, in turns: bare, judge, bare, judge ... The
bare loop is what a person would write: build the config, await, look at the text. The judge is the
command itself: evidence from the store, prompt, ledger, parsing, quotes, labels. The rate is calls a
second between the first call and the last answer as the server saw them, so that start-up counts
for neither.

    python -m benchmarks.judge [--traces 1600] [--concurrency 64] [--rounds 5] [--delay-ms 300]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
MODEL = "gemini-3.5-flash-lite"
FLOOR = 0.8
"""The share of the bare loop's rate that the judge has to keep."""
TRACES_A_PROBLEM = 8
"""As in the published sets of solutions."""
PASSAGE = (
    "Section {n}. Start {drug} at {dose} mg once daily. The maximum is {top} mg a day. Reduce the "
    "dose by half where creatinine clearance is below 30 ml/min. Do not combine it with agents that "
    "prolong the QT interval. Check potassium and creatinine before the first dose, after one week "
    "and after every change. In pregnancy the drug is contraindicated; breast-feeding is to be "
    "stopped for the time of treatment and for {dose} hours after the last dose. "
)


def write_traces(path: Path, count: int) -> None:
    """Traces of six steps, eight a problem, five passages of evidence: 7,000 characters a prompt."""
    with path.open("w", encoding="utf-8") as file:
        for i in range(count):
            case = i // TRACES_A_PROBLEM
            values = {"drug": f"Veltorin-{case}", "dose": 5 + case % 40, "top": 90 + case % 60}
            evidence = [
                {
                    "source": f"guideline-{n}",
                    "title": f"Chapter {n}",
                    "text": PASSAGE.format(n=n, **values) * 2,
                }
                for n in range(5)
            ]
            steps = [
                f"Step {t + 1}: solution {i} takes {values['dose']} mg times {t + 1}."
                for t in range(6)
            ]
            row = {"id": f"t{i}", "problem": f"Case {case}: which dose?", "steps": steps}
            file.write(json.dumps(row | {"evidence": evidence}) + "\n")


@contextmanager
def server(log: Path, delay_ms: float) -> Iterator[str]:
    """The loopback Gemini in a process of its own; its URL."""
    command = [sys.executable, "-m", "tests.loopback.gemini_server", "--delay-ms", str(delay_ms)]
    running = subprocess.Popen(
        [*command, "--log", str(log)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        if running.stdout is None:
            raise RuntimeError("the server has no output")
        yield running.stdout.readline().strip()
    finally:
        running.terminate()
        running.wait()


def rate(log: Path, since: int, delay_ms: float) -> tuple[float, int]:
    """Calls a second from the first call to the last answer, and where the log ends now."""
    lines = log.read_text(encoding="utf-8").splitlines()
    times = sorted(json.loads(line)["at"] for line in lines[since:])
    # a call is logged when it is answered
    return len(times) / (times[-1] - times[0] + delay_ms / 1000), len(lines)


def stepgold(workspace: Path, *argv: str) -> list[str]:
    """A command line of ours."""
    return [sys.executable, "-m", "cli", "--workspace", str(workspace), *argv]


def run_judge(folder: Path, traces: Path, environ: dict[str, str], concurrency: int) -> None:
    """`stepgold judge` over a fresh workspace."""
    with tempfile.TemporaryDirectory(dir=folder) as workspace:
        place = Path(workspace)
        imported = stepgold(place, "import", "traces", str(traces), "--dataset", "d", "--json")
        subprocess.run(imported, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        judged = stepgold(
            place,
            *("judge", "--dataset", "d", "--judge", f"gemini:{MODEL}", "--json"),
            *("--concurrency", str(concurrency)),
        )
        done = subprocess.run(
            judged, cwd=ROOT, env=environ, check=True, capture_output=True, text=True
        )
        if json.loads(done.stdout)["abstained"]:
            raise RuntimeError(f"not every trace was judged: {done.stdout}")


async def bare_loop(prompts: list[tuple[str, str]], url: str, concurrency: int) -> None:
    """The loop that a person would write with google-genai."""
    from google import genai
    from google.genai import types

    from judge import REPLY_SCHEMA

    client = genai.Client(
        api_key="k", http_options=types.HttpOptions(base_url=url, api_version="v1beta")
    )
    places = asyncio.Semaphore(concurrency)

    async def ask(system: str, user: str) -> str | None:
        async with places:
            reply = await client.aio.models.generate_content(
                model=MODEL,
                contents=user,
                config=types.GenerateContentConfig(
                    system_instruction=system,
                    max_output_tokens=8192,
                    response_mime_type="application/json",
                    response_json_schema=REPLY_SCHEMA,
                ),
            )
        return reply.text

    texts = await asyncio.gather(*(ask(system, user) for system, user in prompts))
    if not all(texts):
        raise RuntimeError("the bare loop got no answer")


def write_prompts(traces: Path, prompts: Path) -> None:
    """The prompts that the judge would send, for the bare loop."""
    from formats import read_file
    from judge import JudgeConfig, render_vote
    from traces import ImportedTrace, TraceInContext

    config = JudgeConfig()
    with prompts.open("w", encoding="utf-8") as file:
        for row in read_file("traces", traces):
            if isinstance(row, ImportedTrace):
                context = TraceInContext(row.problem, row.trace, row.evidence)
                system, user = render_vote(context, config)[0].request.messages
                file.write(json.dumps([system.text, user.text]) + "\n")


def run_bare(prompts: Path, environ: dict[str, str], url: str, concurrency: int) -> None:
    """The bare loop in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.judge", "--bare", str(prompts), "--url", url]
    command += ["--concurrency", str(concurrency)]
    subprocess.run(command, cwd=ROOT, env=environ, check=True)


def compare(
    traces: int, concurrency: int, rounds: int, delay_ms: float
) -> list[tuple[float, float]]:
    """The rates of the bare loop and of the judge, round by round."""
    rates = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file, prompts, log = folder / "t.jsonl", folder / "p.jsonl", folder / "log.jsonl"
        write_traces(file, traces)
        write_prompts(file, prompts)
        with server(log, delay_ms) as url:
            environ = os.environ | {"GEMINI_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": url}
            seen = 0
            for _ in range(rounds):
                run_bare(prompts, environ, url, concurrency)
                bare, seen = rate(log, seen, delay_ms)
                run_judge(folder, file, environ, concurrency)
                ours, seen = rate(log, seen, delay_ms)
                rates.append((bare, ours))
    return rates


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--traces", type=int, default=1600)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--delay-ms", type=float, default=300.0)
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare is not None:
        lines = options.bare.read_text(encoding="utf-8").splitlines()
        prompts = [(system, user) for system, user in map(json.loads, lines)]
        asyncio.run(bare_loop(prompts, options.url, options.concurrency))
        return
    rates = compare(options.traces, options.concurrency, options.rounds, options.delay_ms)
    table = Table(title=f"{options.traces} traces, {options.concurrency} calls at once")
    for column in ("round", "bare google-genai, calls/s", "stepgold judge, calls/s", "ratio"):
        table.add_column(column, justify="right")
    for number, (bare, ours) in enumerate(rates, 1):
        table.add_row(str(number), f"{bare:.1f}", f"{ours:.1f}", f"{ours / bare:.2f}")
    median = statistics.median(ours / bare for bare, ours in rates)
    table.add_row("median", "", "", f"{median:.2f}")
    Console().print(table)
    print(f"wanted: at least {FLOOR:.2f}; {'kept' if median >= FLOOR else 'NOT kept'}")


if __name__ == "__main__":
    main()
