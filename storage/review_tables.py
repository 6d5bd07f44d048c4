"""The tables of expert review: an append-only log of answers, and who is being asked what."""

from __future__ import annotations

from sqlalchemy import Index, UniqueConstraint
from sqlmodel import Field

from storage.columns import AMOUNT, MODEL_TEXT, NAME, collate, one_of, parent, within
from storage.tables import METADATA as METADATA
from storage.tables import Base, Keyed, _choice, _of
from traces import ExpertAnswer, ReviewPurpose


class ReviewAnswerTable(Keyed, table=True):
    """The log of the experts' answers, in the order of their keys; rows are only added.

    It names a trace by id and content, so that importing a dataset again leaves it as it is.
    """

    __tablename__ = "review_answers"
    __table_args__ = (
        UniqueConstraint("dataset_pk", "token"),
        one_of("answer", ExpertAnswer),
        one_of("purpose", ReviewPurpose),
        within("step_index", 0),
        Index(None, "dataset_pk", "trace_id", "pk"),
        Index(None, "dataset_pk", "pk"),
    )

    dataset_pk: int = parent("datasets.pk")
    trace_id: str = _of(NAME)
    digest: str
    """The digest of the trace that was shown."""
    step_index: int
    expert: str = _of(NAME)
    answer: str = _choice(ExpertAnswer)
    token: str = _of(NAME)
    note: str | None = _of(MODEL_TEXT)
    seconds: float | None = _of(AMOUNT)
    opinions: str | None = _of(NAME)
    purpose: str = _choice(ReviewPurpose)
    at: str


class ReviewLeaseTable(Base, table=True):
    """What an expert is being asked; no other expert is asked it until the lease runs out."""

    __tablename__ = "review_leases"
    dataset_pk: int = parent("datasets.pk", primary_key=True)
    item: str = _of(NAME, primary_key=True)
    expert: str = _of(NAME, primary_key=True)
    expires_at: float = Field()


REVIEW_ANSWERS = METADATA.tables["review_answers"]
REVIEW_LEASES = METADATA.tables["review_leases"]
collate([REVIEW_ANSWERS, REVIEW_LEASES])
