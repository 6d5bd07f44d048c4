"""Which version of a model really answered: a labeler that mixes two says so, or does not run."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from traces.errors import ModelChanged

if TYPE_CHECKING:
    from storage import Store
    from traces.records import ModelReply


class ModelTruth:
    """Watches the versions that answer for one labeler, over all its runs.

    The first version that answers for a model is the one; another ends the run. A model whose
    service does not name its version cannot be watched.
    """

    def __init__(self, *, allow_mixed: bool = False) -> None:
        """Nothing has answered yet.

        Args:
            allow_mixed: whether further versions are welcome.
        """
        self._allow_mixed = allow_mixed
        self._stored: frozenset[str] = frozenset()
        self._store: Store | None = None
        self._known: dict[str, set[str]] = defaultdict(set)

    def expect(self, store: Store, dataset: str, labeler: str) -> None:
        """Take over what answered for the labeler in earlier runs."""
        answered = store.labeler(dataset, labeler).resolved_model or ""
        self._stored, self._store = frozenset(filter(None, answered.split(", "))), store

    def see(self, reply: ModelReply) -> None:
        """Note who wrote a reply, bought or stored.

        Raises:
            ModelChanged: another version answered before, and mixing is not allowed.
        """
        if reply.resolved_model is None:
            return
        earlier: frozenset[str] = frozenset()
        if self._store is not None and not self._known[reply.model]:
            # a labeler may ask two models (a second judge): this one's versions are in the ledger
            earlier = self._stored & self._store.responses.versions(reply.model)
        self._note(reply.model, reply.resolved_model, earlier)

    def see_label(self, model: str | None, versions: str | None) -> None:
        """Note who made a label, where no dispatcher has shown the replies; raises as `see` does.

        Args:
            model: the labeler's model; None where none is involved.
            versions: what answered, joined by commas; None if unknown.
        """
        seen = {each for known in self._known.values() for each in known}
        for version in (versions or "").split(", "):
            if model and version and version not in seen:
                self._note(model, version, self._stored)

    def _note(self, model: str, version: str, earlier: frozenset[str]) -> None:
        known = self._known[model]
        if not known:
            known |= earlier
        if version in known:
            return
        if known and not self._allow_mixed:
            before = ", ".join(sorted(known))
            raise ModelChanged(
                f'Where "{model}" is asked, "{version}" answers now; "{before}" answered before.',
                remedy="label with this version under another --name, "
                "or mix both in one labeler with --allow-mixed",
            )
        known.add(version)
