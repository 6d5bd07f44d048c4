"""`stepgold report`: one self-contained page about a dataset's labelers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.compare import GoldOrNone
from commands.evaluate import InSample, Threshold
from commands.options import Dataset, Json, OutFile, Resamples, Seed
from stepgold.outcome import Outcome
from stepgold.report import EXAMPLES, ReportWish, gather_report
from stepgold.trials import ThresholdWish
from stepgold.workspace import WorkspaceFolder
from traces.errors import InputError

if TYPE_CHECKING:
    from evaluation.report.input import ReportInput

FORMATS = ("html", "md", "json", "csv")


def report(
    ctx: typer.Context,
    out: OutFile,
    dataset: Dataset,
    labeler: Annotated[
        list[str] | None,
        typer.Option("--labeler", help="Only this labeler; may be repeated [default: all]."),
    ] = None,
    gold: GoldOrNone = None,
    threshold: Threshold = "0.5",
    in_sample: InSample = False,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format", help="html, md, json or csv [default: by the ending of OUT, else html]."
        ),
    ] = None,
    candidates: Annotated[
        list[str] | None,
        typer.Option(
            "--candidates",
            help="Subset whose traces are candidates for best-of-N; may be repeated [default: all].",
        ),
    ] = None,
    examples: Annotated[
        int, typer.Option("--examples", min=0, max=100, help="Disputed traces to show in full.")
    ] = EXAMPLES,
    seed: Seed = 0,
    resamples: Resamples = 2000,
    json_output: Json = False,
) -> Outcome:
    """Headline figures, curves, agreement, cost and disputed traces on one page, without network."""
    chosen = _format(out, format_name)
    wish = ReportWish(
        dataset,
        tuple(labeler or ()),
        gold,
        ThresholdWish.parse(threshold, in_sample=in_sample),
        tuple(candidates or ()),
        examples,
        seed,
        resamples,
    )
    workspace: WorkspaceFolder = ctx.obj
    with workspace.open_store() as store:
        gathered = gather_report(store, wish)
    size = write_report(gathered, out, chosen)
    labelers = [section.labeler.name for section in gathered.labelers if not section.is_gold]
    document = {
        "command": "report",
        "dataset": dataset,
        "gold": gathered.gold,
        "labelers": labelers,
        "format": chosen,
        "out": str(out),
        "bytes": size,
    }
    words = f"report on {', '.join(labelers) or 'no labeler'}: {out} ({size / 1000:,.0f} kB)"
    return Outcome(document, words, as_json=json_output)


def write_report(gathered: ReportInput, out: Path, format_name: str = "html") -> int:
    """Write a report whole or not at all; returns its size in bytes.

    Raises:
        InputError: it cannot be written.
    """
    content = _rendered(gathered, format_name).encode("utf-8")
    unfinished = out.with_name(f".{out.name}.part")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(out)
    except OSError as fault:
        raise InputError(
            f"The report cannot be written: {fault.strerror}.",
            where=str(out),
            remedy="name a file in a folder you may write to",
        ) from fault
    return len(content)


def _rendered(gathered: ReportInput, format_name: str) -> str:
    if format_name == "json":
        from evaluation.report.tables import report_json

        return json.dumps(report_json(gathered), ensure_ascii=False, allow_nan=False, indent=1)
    if format_name in ("md", "csv"):
        from evaluation.report.tables import render_csv, render_markdown

        return render_csv(gathered) if format_name == "csv" else render_markdown(gathered)
    from evaluation.report.page import render_report

    return render_report(gathered)


def _format(out: Path, asked: str | None) -> str:
    if asked is None:
        ending = out.suffix.removeprefix(".").lower()
        return ending if ending in FORMATS else "html"
    if asked not in FORMATS:
        raise InputError(
            f"'{asked}' is no format of a report.",
            where="--format",
            remedy=f"use {', '.join(FORMATS[:-1])} or {FORMATS[-1]}",
        )
    return asked
