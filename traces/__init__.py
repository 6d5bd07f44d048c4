"""The words of the field: problems, traces, step labels, evidence, errors. Standard library only."""

from traces.evidence import Evidence, Passage, Quote
from traces.labels import (
    Abstention,
    AbstentionReason,
    Labeler,
    LabelerKind,
    StepLabel,
    TraceLabel,
    Verdict,
)
from traces.problem import Problem, Trace

__all__ = [
    "Abstention",
    "AbstentionReason",
    "Evidence",
    "Labeler",
    "LabelerKind",
    "Passage",
    "Problem",
    "Quote",
    "StepLabel",
    "Trace",
    "TraceLabel",
    "Verdict",
]
