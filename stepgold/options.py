"""Options that several verbs share, declared once so that they read the same everywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, get_args

from traces import Config, InputError, Need, StrPath, option

if TYPE_CHECKING:
    from stepgold.clusters import Cluster


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


TableFormat = Literal["text", "md", "csv", "tex"]


class TableOptions(Config):
    """How tables are printed."""

    not_with_json = ("format",)

    format: TableFormat = option(
        default="text",
        choices=get_args(TableFormat),
        help="Print the table as text, Markdown, CSV with all digits, or LaTeX with booktabs.",
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

    base_url: Sequence[str] = option(
        default=(),
        help="Base URL of the server; repeat it to spread requests [default: from the environment]"
        ".",
        metavar="URL",
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


class RequestOptions(HostedOptions):
    """What requests to an OpenAI-compatible server say beyond their text."""

    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None = option(
        default=None,
        choices=("none", "minimal", "low", "medium", "high"),
        help="How much an openai: model reasons before it answers [default: the server's].",
    )
    request_option: Sequence[str] | Mapping[str, Any] = option(
        default=(),
        metavar="KEY=JSON",
        help="Field to add to every request of an openai: model; may be repeated.",
    )

    def check(self) -> None:
        """Refuse fields that cannot be added.

        Raises:
            InputError: one is not KEY=JSON, or is written by StepGold itself.
        """
        super().check()
        fields = self.request_fields
        try:
            json.dumps(fields, allow_nan=False)
        except (TypeError, ValueError) as fault:
            raise InputError(
                f"A field of a request is not JSON: {fault}.", where="--request-option"
            ) from fault
        if mine := sorted(fields.keys() & _WRITTEN_BY_US):
            raise InputError(
                f"The field '{mine[0]}' of a request is written by StepGold.",
                where="--request-option",
                remedy="leave it out",
            )

    @property
    def request_fields(self) -> dict[str, Any]:
        """The fields that are added to every request."""
        given, effort = self.request_option, self.reasoning_effort
        fields = dict(given) if isinstance(given, Mapping) else dict(map(_field, given))
        return fields if effort is None else fields | {"reasoning_effort": effort}

    def request_settings(self) -> dict[str, Any]:
        """Those fields for a configuration that is stored; empty without any."""
        fields = self.request_fields
        return {"request_options": fields} if fields else {}


_WRITTEN_BY_US = frozenset(
    {"model", "messages", "prompt", "n", "stream", "response_format", "seed", "stop", "best_of"}
    # A larger limit would pass --budget, which counts with --max-tokens.
    | {"max_tokens", "max_completion_tokens", "logprobs", "top_logprobs"}
)


def _field(text: str) -> tuple[str, Any]:
    """A request field as it is typed.

    >>> _field('chat_template_kwargs={"enable_thinking": false}')
    ('chat_template_kwargs', {'enable_thinking': False})

    Raises:
        InputError: it is not KEY=JSON.
    """
    key, _, value = text.partition("=")
    try:
        return key.strip(), json.loads(value)
    except ValueError as fault:
        raise InputError(
            f"{text!r} is not KEY=JSON.",
            where="--request-option",
            remedy="quote it for the shell, e.g. --request-option 'top_k=20' or --request-option "
            """'chat_template_kwargs={"enable_thinking": false}'""",
        ) from fault


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


_LOCAL = "local"
_ACTORS = re.compile(r"([0-9]{1,6})(?::([0-9]{1,6}))?")
_ADDRESS = re.compile(r"ray://[^\s/@]+:[0-9]+")
_ON_RAY = Need("--engine ray", lambda config: config.engine != _LOCAL)


class EngineOptions(Config):
    """Where models run: in this process, or on the actors of a Ray cluster."""

    engine: str = option(
        default=_LOCAL,
        metavar="ENGINE",
        help="Where models run: local, ray, or ray://HOST:PORT of a cluster.",
    )
    actors: str | None = option(
        default=None,
        metavar="MIN:MAX",
        help="Fewest and most actors, each with the model, or one number [default: 1 and as many as"
        " the cluster has room for].",
        needs=_ON_RAY,
    )
    gpus_per_actor: float | None = option(
        default=None,
        metavar="N",
        between=(0, None),
        help="GPUs of an actor, may be a fraction [default: 1 if the cluster has any, else 0].",
        needs=_ON_RAY,
    )

    def check(self) -> None:
        """Refuse another engine, and numbers of actors that make no sense.

        Raises:
            InputError: they do not.
        """
        super().check()
        if self.engine not in (_LOCAL, "ray") and not _ADDRESS.fullmatch(self.engine):
            raise InputError(
                f'"{self.engine}" is not an engine.',
                where="--engine",
                remedy="use local, ray or ray://HOST:PORT, e.g. --engine ray://10.0.0.1:6379",
            )
        _ = self.actor_range

    @property
    def actor_range(self) -> tuple[int, int | None]:
        """Fewest and most actors; None for as many as there is room for.

        Raises:
            InputError: not MIN:MAX.
        """
        if self.actors is None:
            return 1, None
        found = _ACTORS.fullmatch(self.actors)
        fewest, most = (int(each or found[1]) for each in found.groups()) if found else (0, 0)
        if not 1 <= fewest <= most:
            raise InputError(
                f"{self.actors!r} is no number of actors.",
                where="--actors",
                remedy="use MIN:MAX, e.g. --actors 1:8, or one number",
            )
        return fewest, most

    @property
    def on_ray(self) -> bool:
        """Whether models run on a cluster."""
        return self.engine != _LOCAL


def open_cluster(options: EngineOptions, closing: ExitStack) -> Cluster | None:
    """The cluster that the options name, until `closing` ends; None for the local engine.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    if not options.on_ray:
        return None
    try:
        from stepgold.clusters import Cluster, Places
    except ModuleNotFoundError as fault:
        raise InputError(
            "The engine ray needs Ray, which is not installed.",
            where="--engine",
            remedy="pip install 'stepgold[ray]'",
        ) from fault
    places = Places(*options.actor_range, gpus=options.gpus_per_actor)
    address = options.engine.removeprefix("ray").removeprefix("://")
    cluster = Cluster(address or None, places)
    closing.callback(cluster.close)
    return cluster
