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
        """Note the version of a reply, bought or stored; see `see_version`."""
        if reply.resolved_model is not None:
            self.see_version(reply.model, reply.resolved_model)

    def see_version(self, model: str, version: str) -> None:
        """Note that `version` answers where `model` is asked.

        Raises:
            ModelChanged: another one answered before, and mixing is not allowed.
        """
        known = self._known[model]
        if not known:
            known |= self._earlier(model)
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

    def see_label(self, model: str | None, versions: str | None) -> None:
        """Note who made a label, where no dispatcher has shown the replies; see `see_version`.

        Args:
            model: the labeler's model; None where none is involved.
            versions: what answered, joined by commas; None if unknown.
        """
        seen = {each for known in self._known.values() for each in known}
        for version in (versions or "").split(", "):
            if model and version and version not in seen:
                self.see_version(model, version)

    def _earlier(self, model: str) -> frozenset[str]:
        """What answered for this model in earlier runs: a labeler may ask two (a second judge)."""
        if not self._stored or self._store is None:
            return frozenset()
        answered = self._store.responses.versions(model)
        # a local model's continuations and scores are in no ledger: its labeler has no other model
        return self._stored & answered if answered else self._stored
