"""Step labels in one row per trace, compressed requests, and indexes in the order of import.

Only SQLite databases are older than this: PostgreSQL came with it.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "b0004"
down_revision = "b0003"

_MARKS = {
    "correct": "c",
    "incorrect": "i",
    "neutral": "n",
    "blocked": "b",
    "truncated": "t",
    "unreadable": "r",
    "no_evidence": "e",
    "over_length": "o",
    "not_measured": "m",
    "model_error": "x",
    "no_answer": "a",
    "unparsed": "u",
    "uncertain": "q",
    "disagreement": "d",
    "filtered": "f",
    "gold_unusable": "g",
}
_COUNTS = ("successes", "continuations", "unparsed", "unfinished")
_STEPS = "INSERT INTO step_labels VALUES (?, ?, ?, ?)"
_NOTES = "INSERT INTO step_notes VALUES (?, ?)"


def upgrade() -> None:
    """Rewrite the labels of steps and the ledger of calls."""
    op.create_index("ix_problems_dataset_pk_pk", "problems", ["dataset_pk", "pk"])
    place = ["dataset_pk", "source_file_pk", "position", "pk"]
    op.create_index(f"ix_traces_{'_'.join(place)}", "traces", place)
    where = sa.text("abstention IS NOT NULL")
    op.create_index("ix_trace_labels_abstained", "trace_labels", ["labeler_pk"], sqlite_where=where)
    _pack_steps()
    _move_quotes()
    _pack_requests()


def _pack_steps() -> None:
    op.rename_table("quotes", "old_quotes")
    op.rename_table("step_labels", "old_step_labels")
    op.create_table(
        "step_labels",
        sa.Column("trace_label_pk", sa.Integer(), nullable=False),
        sa.Column("marks", sa.String(), nullable=False),
        sa.Column("scores", sa.LargeBinary(), nullable=True),
        sa.Column("labeled", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("trace_label_pk", name="pk_step_labels"),
        sa.CheckConstraint("labeled BETWEEN 0 AND length(marks)", name="labeled"),
        sa.CheckConstraint(
            "length(marks) > 0 AND ltrim(marks, 'cinbtreomxauqdfgSCIN') = ''", name="marks"
        ),
        sa.CheckConstraint("length(scores) BETWEEN 8 AND 8 * length(marks)", name="scores"),
        sa.ForeignKeyConstraint(
            ["trace_label_pk"],
            ["trace_labels.pk"],
            name="fk_step_labels_trace_label_pk",
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "step_notes",
        sa.Column("trace_label_pk", sa.Integer(), nullable=False),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("trace_label_pk", name="pk_step_notes"),
        sa.ForeignKeyConstraint(
            ["trace_label_pk"],
            ["step_labels.trace_label_pk"],
            name="fk_step_notes_trace_label_pk",
            ondelete="CASCADE",
        ),
    )
    raw = _driver()
    writer = raw.cursor()
    for pk, steps in _old_steps(raw):
        marks, scores, labeled, notes = _packed(steps)
        writer.execute(_STEPS, (pk, marks, scores, labeled))
        if notes:
            writer.execute(_NOTES, (pk, _json(notes)))


def _driver() -> Any:
    return op.get_bind().connection.driver_connection


def _old_steps(raw: Any) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
    columns = "trace_label_pk, verdict, score, abstention, abstention_detail, reasoning"
    query = f"SELECT {columns}, {', '.join(_COUNTS)} FROM old_step_labels"
    rows = raw.execute(f"{query} ORDER BY trace_label_pk, step_index")
    for pk, steps in groupby(rows, key=itemgetter(0)):
        yield pk, [row[1:] for row in steps]


def _packed(
    steps: list[tuple[Any, ...]],
) -> tuple[str, bytes | None, int, dict[str, list[Any]]]:
    verdicts, scores, reasons, details, reasonings, *counts = zip(*steps, strict=True)
    marks = "".join(
        _MARKS[verdict or reason]
        if score is None
        else (_MARKS[verdict].upper() if verdict else "S")
        for verdict, score, reason in zip(verdicts, scores, reasons, strict=True)
    )
    given = [score for score in scores if score is not None]
    listed = {
        "reasoning": list(map(_text, reasonings)),
        **dict(zip(_COUNTS, map(list, counts), strict=True)),
    }
    notes = {name: all_ for name, all_ in listed.items() if any(each is not None for each in all_)}
    if any(details):
        notes["detail"] = [_text(each) for each in details]
    packed = struct.pack(f"<{len(given)}d", *given) if given else None
    return marks, packed, sum(reason is None for reason in reasons), notes


def _text(stored: str | None) -> str | None:
    if stored is None or not stored.startswith("json:"):
        return stored
    return str(json.loads(stored[5:]))


def _json(value: Any) -> str:
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False)
    return text


def _move_quotes() -> None:
    op.create_table(
        "quotes",
        sa.Column("trace_label_pk", sa.Integer(), nullable=False),
        sa.Column("step_index", sa.Integer(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("document", sa.Integer(), nullable=True),
        sa.Column("verified", sa.Boolean(), nullable=False),
        sa.Column("start_char", sa.Integer(), nullable=True),
        sa.Column("end_char", sa.Integer(), nullable=True),
        sa.Column("method", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("trace_label_pk", "step_index", name="pk_quotes"),
        sa.ForeignKeyConstraint(
            ["trace_label_pk"],
            ["step_labels.trace_label_pk"],
            name="fk_quotes_trace_label_pk",
            ondelete="CASCADE",
        ),
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO quotes SELECT * FROM old_quotes")
    op.drop_table("old_quotes")
    op.drop_table("old_step_labels")


def _pack_requests() -> None:
    op.drop_index("ix_model_calls_spending", "model_calls")
    op.rename_table("model_calls", "old_model_calls")
    op.create_table(
        "model_calls",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("text", sa.String(), nullable=True),
        sa.Column("raw", sa.String(), nullable=False),
        sa.Column("finish_reason", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("resolved_model", sa.String(), nullable=True),
        sa.Column("input_tokens", sa.Integer(), nullable=False),
        sa.Column("cached_tokens", sa.Integer(), nullable=False),
        sa.Column("output_tokens", sa.Integer(), nullable=False),
        sa.Column("thinking_tokens", sa.Integer(), nullable=False),
        sa.Column("usd", sa.Float(), nullable=True),
        sa.Column("prices_as_of", sa.String(), nullable=True),
        sa.Column("meta", sa.JSON(), nullable=False),
        sa.Column("hits", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("key", name="pk_model_calls"),
        sa.CheckConstraint("usd >= 0", name="usd"),
    )
    names = (
        "key, request, text, raw, finish_reason, model, resolved_model, input_tokens,"
        " cached_tokens, output_tokens, thinking_tokens, usd, prices_as_of, meta, hits,"
        " created_at, purpose"
    )
    raw = _driver()
    raw.create_function("packed", 1, lambda text: zlib.compress(text.encode()))
    values = names.replace("request", "packed(request)")
    op.execute(f"INSERT INTO model_calls ({names}) SELECT {values} FROM old_model_calls")
    raw.create_function("packed", 1, None)
    op.drop_table("old_model_calls")
    tokens = ("input_tokens", "cached_tokens", "output_tokens", "thinking_tokens")
    op.create_index(
        "ix_model_calls_spending",
        "model_calls",
        ["model", "purpose", "resolved_model", "usd", "hits", *tokens],
    )
