"""The error tree. Every error for a user says what happened, where, and what to do.

* ToolkitError
  + InputError                 bad file or wrong usage: exit 2, nothing kept
    - CorpusError              an unusable corpus document or folder
    - TraceFormatError         an unreadable trace file, or one in another format
  + IndexMismatch              an index built with another encoder or corpus
  + ModelError                 a call to a language model without a usable reply
    - ModelUnavailable         overload, timeout or connection failure after all retries
    - ModelRefused             key, model name or request refused: retrying cannot help
    - QuotaExhausted           the daily quota is used up: stop, resumable
    - ModelChanged             another model version answers than before: stop
  + BudgetExhausted            the next call would exceed --budget: stop, resumable
  + StoreError                 the database cannot be opened, read or written
  + PrmError                   an unusable PRM checkpoint
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ToolkitError(Exception):
    """An error for the user: one to three lines, no traceback.

    Args:
        what: what happened, in one sentence, with the value in quotes.
        where: the file, line or id concerned; None if there is none.
        remedy: what to do, as a command where possible; None if nothing helps.
    """

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        lines = [
            self.what,
            self.where and f"at: {self.where}",
            self.remedy and f"do: {self.remedy}",
        ]
        return "\n".join(line for line in lines if line)


class InputError(ToolkitError):
    """Bad input or wrong usage: nothing of the call is kept."""


class CorpusError(InputError):
    """An unusable corpus document or folder."""


class TraceFormatError(InputError):
    """An unreadable trace file, or one that is not in the format given."""


class IndexMismatch(ToolkitError):
    """An index built with another encoder or from another state of the corpus."""


class ModelError(ToolkitError):
    """A call to a language model without a usable reply."""


class ModelUnavailable(ModelError):
    """Overload, timeout or connection failure that outlasted the bounded retries."""


class ModelRefused(ModelError):
    """The service refuses the key, model or request: retrying cannot help."""


class QuotaExhausted(ModelError):
    """The daily quota is used up: the run stops and keeps what is done."""


class ModelChanged(ModelError):
    """Another model version answers than before: the run stops."""


class BudgetExhausted(ToolkitError):
    """The next call would exceed the budget: the run stops and keeps what is done."""


class StoreError(ToolkitError):
    """The database cannot be opened, read or written."""


class PrmError(ToolkitError):
    """An unusable PRM checkpoint."""


def closest(wanted: str, names: Iterable[str]) -> str | None:
    """The known name that was probably meant; None if none is close."""
    close = get_close_matches(wanted, list(names), n=1)
    return close[0] if close else None


def meant(wanted: str, names: Iterable[str], otherwise: str) -> str:
    """The remedy for an unknown name: the name that was probably meant, then `otherwise`."""
    close = closest(wanted, names)
    if close is None:
        return otherwise
    return f"did you mean '{close}'? {otherwise[:1].upper()}{otherwise[1:]}"
