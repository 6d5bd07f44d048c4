"""Evidence that was looked for with the steps of a trace."""

from __future__ import annotations

from sqlalchemy import ForeignKeyConstraint
from sqlmodel import Field

from storage.tables.base import Base, table_of, within


class TraceEvidenceRow(Base, table=True):
    """What retrieval found for a trace; it goes before what was found for its problem."""

    __tablename__ = "trace_evidence"

    trace_pk: int = Field(primary_key=True, foreign_key="traces.pk", ondelete="CASCADE")
    evidence_set_pk: int = Field(foreign_key="evidence_sets.pk", index=True)


class EvidenceStepRow(Base, table=True):
    """The step whose query put a passage highest; no row for those that the problem itself found."""

    __tablename__ = "evidence_steps"
    __table_args__ = (
        ForeignKeyConstraint(
            ["evidence_set_pk", "position"],
            ["evidence.evidence_set_pk", "evidence.position"],
            ondelete="CASCADE",
        ),
        within("step_index", 0),
    )

    evidence_set_pk: int = Field(primary_key=True)
    position: int = Field(primary_key=True)
    step_index: int


TRACE_EVIDENCE = table_of(TraceEvidenceRow)
EVIDENCE_STEPS = table_of(EvidenceStepRow)
