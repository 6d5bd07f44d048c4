"""Which versions of a model answered for a labeler."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from stepgold.console import note
from traces import ModelChanged

if TYPE_CHECKING:
    from storage import Store
    from traces import ModelReply


class ModelTruth:
    """Checks that one version of each model answers for a labeler, over all its runs.

    The first version that answers sets it; another one ends the run, unless mixing is allowed. A
    service that does not name its version cannot be checked.
    """

    def __init__(self, *, allow_mixed: bool = False) -> None:
        """Nothing has answered yet.

        Args:
            allow_mixed: whether several versions may answer.
        """
        self._allow_mixed = allow_mixed
        self._stored: frozenset[str] = frozenset()
        self._store: Store | None = None
        self._known: dict[str, set[str]] = defaultdict(set)
        self._unpriced: set[str] = set()

    def expect(self, store: Store, dataset: str, labeler: str) -> None:
        """Load the versions that answered for the labeler in earlier runs."""
        answered = store.labels.labeler(dataset, labeler).resolved_model or ""
        self._stored, self._store = frozenset(filter(None, answered.split(", "))), store

    def see(self, reply: ModelReply) -> None:
        """Record which version wrote a reply, whether new or stored.

        Raises:
            ModelChanged: another version answered before, and mixing is not allowed.
        """
        if reply.resolved_model is None:
            return
        self._tell_unpriced(reply)
        earlier: frozenset[str] = frozenset()
        if self._store is not None and not self._known[reply.model]:
            # A labeler may use two models (a second judge); the ledger has the versions of each.
            earlier = self._stored & self._store.replies.versions(reply.model)
        self._note(reply.model, reply.resolved_model, earlier)

    def _tell_unpriced(self, reply: ModelReply) -> None:
        """Say once per version that its replies have no known price, though the model has one."""
        from inference import ModelSpec, price_of

        version = str(reply.resolved_model)
        if reply.usd is not None or reply.cached or version in self._unpriced:
            return
        if price_of(ModelSpec.parse(reply.model).name) is not None:
            self._unpriced.add(version)
            note(
                f'"{version}" answers for {reply.model} and has no known price: a --budget holds'
                " the most that each reply can cost."
            )

    def see_label(self, model: str | None, versions: str | None) -> None:
        """Record which version made a label whose replies `see` was not given; raises likewise.

        Args:
            model: the labeler's model; None if it has none.
            versions: the versions that answered, joined by commas; None if unknown.
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
                f'"{model}" is now answered by "{version}"; before, it was "{before}".',
                remedy="label with this version under another --name, "
                "or mix both in one labeler with --allow-mixed",
            )
        known.add(version)
