"""Options that several verbs share, declared once so that they read the same everywhere."""

from __future__ import annotations

from traces import Config, InputError, StrPath, option


class DatasetOptions(Config):
    """Which dataset of the workspace."""

    dataset: str = option(help="Dataset in the workspace.", metavar="NAME")


class LabelingOptions(DatasetOptions):
    """Where labels go. Every labeling verb has these; each names its own default labeler."""

    name: str = option(
        default="labeler", help="Name of the labeler in the dataset.", metavar="NAME"
    )
    limit: int | None = option(
        default=None,
        help="Label the first N traces only, as a pilot before spending.",
        metavar="N",
        between=(1, None),
    )
    replace: bool = option(
        default=False,
        help="Replace the labeler stored under this name.",
        flags=("--replace",),
    )

    def check(self) -> None:
        """Refuse a name that the store would refuse only after the first call was paid for.

        Raises:
            InputError: it is blank or has several lines.
        """
        super().check()
        if not self.name.strip() or "\n" in self.name or "\r" in self.name:
            raise InputError(
                f"{self.name!r} is not a labeler's name.",
                where="--name",
                remedy="use one line that is not blank",
            )


class BootstrapOptions(Config):
    """How intervals are drawn."""

    seed: int = option(default=0, help="Seed of the bootstrap.", metavar="N", between=(0, None))
    resamples: int = option(
        default=2000,
        help="Bootstrap resamples of every interval.",
        metavar="N",
        between=(1, None),
    )


class HostedOptions(Config):
    """How hosted models are called, and what may be sent to them."""

    base_url: str | None = option(
        default=None, help="Base URL of the server [default: from the environment].", metavar="URL"
    )
    concurrency: int | None = option(
        default=None,
        help="Maximum requests in flight [default: depends on the backend].",
        metavar="N",
        between=(1, None),
    )
    allow_phi: bool = option(
        default=False, help="Also send problems marked phi_removed: false to a hosted model."
    )
    insecure_http: bool = option(
        default=False, help="Send a key over plain http to another machine."
    )


class BudgetOptions(Config):
    """What a run may cost."""

    budget: float | None = option(
        default=None,
        help="Stop before spending more than this, in USD [default: no limit].",
        metavar="USD",
        between=(0, None),
    )


class SpendingOptions(BudgetOptions):
    """What a run may cost, and which model versions may share a labeler."""

    allow_mixed: bool = option(
        default=False, help="Continue even if the service now answers with another model version."
    )


class ImageSourceOptions(Config):
    """Where the images of problems are."""

    images: StrPath | None = option(
        default=None,
        metavar="DIR",
        help="Folder that image paths are relative to [default: the workspace].",
    )


class ImageFolderOptions(ImageSourceOptions):
    """Where the images of problems are, and whether they are shown."""

    ignore_images: bool = option(
        default=False, help="Do not show images to the model; this is recorded with the labels."
    )


class EncoderOptions(Config):
    """What turns passages and queries into vectors."""

    encoder: str | None = option(
        default=None,
        help="Sentence-transformers model: path or hub ID [default: all-MiniLM-L6-v2].",
        metavar="MODEL",
    )
