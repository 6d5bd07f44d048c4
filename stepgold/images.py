"""Options about the images of problems: where they lie, and whether a labeler is shown them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgold.console import note
from stepgold.workspace import WorkspaceFolder
from traces import InputError, StrPath

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference import ModelSpec, ProblemImages


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How a labeler comes by the images of problems."""

    folder: Path = Path()
    """The folder that relative paths start from."""
    ignore: bool = False
    """Whether the user wants them ignored."""
    shown: bool = True
    """Whether the labeler is shown them; see `settled`."""

    @classmethod
    def of(
        cls, workspace: WorkspaceFolder, images: StrPath | None, *, ignore: bool = False
    ) -> ImageOptions:
        """As given on the command line.

        Raises:
            InputError: the folder is none.
        """
        folder = None if images is None else Path(images)
        if folder is not None and not folder.is_dir():
            raise InputError(
                "The folder of the images is missing.",
                where=str(folder),
                remedy="name with --images the folder that image paths start from",
            )
        return cls(folder or workspace.folder, ignore)

    def settled(self, *specs: ModelSpec, exist: bool) -> ImageOptions:
        """Decide whether these models are shown images, and say so where they are not.

        Args:
            specs: the models.
            exist: whether any problem of the dataset has an image.

        Raises:
            InputError: one of them takes no images, and nobody said that it should do without.
        """
        if not exist:
            return self
        blind = [spec for spec in specs if not spec.takes_images]
        if not self.ignore:
            _refuse([spec for spec in blind if spec.kind != "lab"])
        if not self.ignore and not blind:
            return self
        names = ", ".join(str(spec) for spec in specs)
        note(f"Problems have images, which {names} is not shown: its labels say so.")
        return replace(self, shown=False)

    def for_prm(self, *, exist: bool) -> ImageOptions:
        """For a PRM: whether it can see only its checkpoint tells; ignored images it is not shown.

        Args:
            exist: whether any problem of the dataset has an image.
        """
        return replace(self, shown=not (self.ignore and exist))

    def as_dict(self) -> dict[str, Any]:
        """What of it shapes the labels, for the labeler's configuration."""
        return {} if self.shown else {"images": False}

    def loader(self) -> ProblemImages:
        """What loads the images."""
        from inference import ProblemImages

        return ProblemImages(self.folder, shown=self.shown)


def _refuse(blind: Sequence[ModelSpec]) -> None:
    """Refuse models that cannot be shown the images of a dataset.

    Raises:
        InputError: there is one.
    """
    for spec in blind:
        unknown = spec.takes_images is None
        found = "is neither a folder nor known to the hub" if unknown else "is a text model"
        raise InputError(
            f"'{spec}' {found}, and problems of this dataset have images.",
            remedy="take gemini:MODEL, openai:MODEL or an image-text model of transformers, or add"
            " --ignore-images",
        )
