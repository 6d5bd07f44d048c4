"""The images of problems: where they are, and whether a labeler is shown them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgold.console import note
from stepgold.workspace import WorkspaceFolder
from traces import Abstention, Failure, InputError, StrPath

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference import ModelSpec, ProblemImages
    from retrieval import Query
    from traces import Problem


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """Where the images of problems are, and whether a labeler is shown them."""

    folder: Path = Path()
    """The folder that image paths are relative to."""
    ignore: bool = False
    """Whether the user asked to ignore images."""
    shown: bool = True
    """Whether the labeler is shown them; see `settled`."""

    @classmethod
    def of(
        cls, workspace: WorkspaceFolder, images: StrPath | None, *, ignore: bool = False
    ) -> ImageOptions:
        """From the options of a verb.

        Raises:
            InputError: the folder does not exist.
        """
        folder = None if images is None else Path(images)
        if folder is not None and not folder.is_dir():
            raise InputError(
                f"Image folder '{folder}' not found.",
                where=str(folder),
                remedy="set --images to the folder that image paths are relative to",
            )
        return cls(folder or workspace.folder, ignore)

    def settled(self, *specs: ModelSpec, exist: bool) -> ImageOptions:
        """Decide whether these models are shown images, with a note if they are not.

        Args:
            specs: the models.
            exist: whether any problem of the dataset has an image.

        Raises:
            InputError: one of them takes no images, and `ignore` is not set.
        """
        if not exist:
            return self
        blind = [spec for spec in specs if not spec.takes_images]
        if not self.ignore:
            _refuse([spec for spec in blind if spec.kind != "lab"])
        if not self.ignore and not blind:
            return self
        names = ", ".join(str(spec) for spec in specs)
        note(f"{names} is not shown the images of problems; the labels record this.")
        return replace(self, shown=False)

    def for_prm(self, *, exist: bool) -> ImageOptions:
        """For a PRM: show images unless ignored; whether it can see depends on its checkpoint.

        Args:
            exist: whether any problem of the dataset has an image.
        """
        return replace(self, shown=not (self.ignore and exist))

    def as_dict(self) -> dict[str, Any]:
        """The part that changes labels, for the labeler's configuration."""
        return {} if self.shown else {"images": False}

    def as_queries(
        self, problems: Sequence[Problem], *, stage: str
    ) -> tuple[list[tuple[str, Sequence[Query]]], list[Failure]]:
        """One query per image, or the text of a problem without images; nothing leaves the machine.

        Args:
            problems: the problems.
            stage: which stage the images that cannot be read fail.

        Returns:
            The queries by problem id, and the failures.
        """
        from retrieval import Query, query_of

        loader, without = self.loader(), 0
        asked: list[tuple[str, Sequence[Query]]] = []
        failures: list[Failure] = []
        for problem in problems:
            shown = loader.sendable(problem, hosted=False, allow_phi=False)
            if isinstance(shown, Abstention):
                failures.append(_unread(problem, stage, shown))
                continue
            queries = [Query("", image=image.data) for image in shown]
            asked.append((problem.id, queries or [Query(query_of(problem))]))
            without += not queries
        if without:
            note(f"{without} problems have no image: their text is the query.")
        return asked, failures

    def loader(self) -> ProblemImages:
        """The loader of the images."""
        from inference import ProblemImages

        return ProblemImages(self.folder, shown=self.shown)


def _unread(problem: Problem, stage: str, why: Abstention) -> Failure:
    return Failure(problem.id, stage, why.reason, retryable=False, detail=why.detail)


def _refuse(blind: Sequence[ModelSpec]) -> None:
    """Refuse models that cannot be shown the images of a dataset.

    Raises:
        InputError: there is one.
    """
    for spec in blind:
        unknown = spec.takes_images is None
        found = "is neither a folder nor on the Hugging Face Hub" if unknown else "is a text model"
        raise InputError(
            f"'{spec}' {found}, but problems of this dataset have images.",
            remedy="use gemini:MODEL, openai:MODEL or an image-text model of transformers, or add"
            " --ignore-images",
        )
