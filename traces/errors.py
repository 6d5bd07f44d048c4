"""The error tree. Every error a person can meet says what, where and what to do.

* ToolkitError
  + InputError                 bad file, wrong use: exit 2, nothing kept
    - CorpusError              a corpus document or folder that cannot be used
    - TraceFormatError         a trace file that cannot be read or has the wrong shape
  + IndexMismatch              an index that does not belong to the encoder or corpus at hand
  + ModelError                 a call to a language model that gave no usable reply
    - ModelUnavailable         overload, time-out, connection fault after all retries
    - ModelRefused             key, model name or request refused: retrying cannot help
    - QuotaExhausted           the day's quota is used up: stop, run again later
    - ModelChanged             another version answers than the one that answered before: stop
  + BudgetExhausted            the next call would pass --budget: stop, resumable
  + StoreError                 the database cannot be opened, read or written
  + PrmError                   a PRM checkpoint that cannot be used
"""

from __future__ import annotations


class ToolkitError(Exception):
    """An error for a person: one to three lines, no traceback.

    Args:
        what: the fact, in one sentence, with the value in quotes.
        where: file, line or id it is about; None if the fault has no place.
        remedy: what to do about it; None if nothing can be done.
    """

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        """The fact, in one sentence."""
        self.where = where
        """File, line or id."""
        self.remedy = remedy
        """What the person can do."""

    def __str__(self) -> str:
        lines = [
            self.what,
            self.where and f"at: {self.where}",
            self.remedy and f"do: {self.remedy}",
        ]
        return "\n".join(line for line in lines if line)


class InputError(ToolkitError):
    """Bad input or wrong use: nothing of the call is kept."""


class CorpusError(InputError):
    """A corpus document or folder that cannot be used."""


class TraceFormatError(InputError):
    """A trace file that cannot be read or is not in the format it was said to be."""


class IndexMismatch(ToolkitError):
    """An index that was built with another encoder or from another state of the corpus."""


class ModelError(ToolkitError):
    """A call to a language model that gave no usable reply."""


class ModelUnavailable(ModelError):
    """Overload, time-out or connection fault that outlasted the bounded retries."""


class ModelRefused(ModelError):
    """The service refuses key, model or request: retrying cannot help."""


class QuotaExhausted(ModelError):
    """The day's quota is used up: the run stops, what is done stays done."""


class ModelChanged(ModelError):
    """Another model version answers than the one that answered before: the run stops."""


class BudgetExhausted(ToolkitError):
    """The next call would pass the budget: the run stops, what is done stays done."""


class StoreError(ToolkitError):
    """The database cannot be opened, read or written."""


class PrmError(ToolkitError):
    """A PRM checkpoint that cannot be used."""
