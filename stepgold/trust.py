"""`trust`: which project files may decide where keys and patient texts go.

A workspace is data: its author may have put another server into its stepgold.toml. Such keys
count only once the user has trusted the file in its present wording, as direnv does with .envrc.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgold.hub import hub_path
from stepgold.results import Result
from stepgold.workspace import DEFAULTS_NAME, has_defaults, read_bytes, toml_of
from traces import Config, InputError, option, unfinished

if TYPE_CHECKING:
    from stepgold.workspace import WorkspaceFolder

SENSITIVE = frozenset(
    {"base_url", "escalate_base_url", "bucket", "allow_phi", "insecure_http", "request_option"}
)
"""Options that decide where keys and texts go: a field of a request may have a server store the
texts, or hand them to a tool. A folder of images outside the workspace is one
more, because images are sent as the problems are, and so is an output on the Hub."""
TRUST_NAME = "trusted.json"
"""File of the user's settings with the trusted files: `{PATH: SHA-256 of the content}`."""


class TrustOptions(Config):
    """Trust the project file, or no longer."""

    revoke: bool = option(default=False, help="Stop trusting the file.")


@dataclass(frozen=True, slots=True)
class Setting:
    """A key of a TOML file that decides where keys and texts go."""

    table: str
    """The table, e.g. `judge`."""
    key: str
    """The key, e.g. `base_url`."""
    value: Any
    """Its value."""

    def __str__(self) -> str:
        return f"[{self.table}] {self.key} = {json.dumps(self.value, default=str)}"


@dataclass(frozen=True, kw_only=True, repr=False)
class TrustResult(Result):
    """Which file is trusted, and what it sets."""

    file: Path
    """The project file."""
    sha256: str
    """Hash of its content."""
    trusted: bool
    """Whether its settings count from now on."""
    settings: tuple[Setting, ...]
    """What it decides about keys and texts."""

    def as_json(self) -> dict[str, Any]:
        """The file, its hash, and its settings."""
        return {
            "command": "trust",
            "file": str(self.file),
            "sha256": self.sha256,
            "trusted": self.trusted,
            "settings": list(self.rows()),
        }

    def words(self) -> str:
        """The settings, one a line."""
        state = "trusted in its present wording" if self.trusted else "not trusted"
        decides = "It sets:" if self.settings else "It does not decide where keys and texts go."
        return "\n".join([f"{self.file} is {state}. {decides}", *map(str, self.settings)])

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row per setting."""
        for each in self.settings:
            yield {"table": each.table, "key": each.key, "value": each.value}


def trust(workspace: WorkspaceFolder, options: TrustOptions) -> TrustResult:
    """Trust the workspace's stepgold.toml as it is now, or trust it no longer.

    Raises:
        InputError: there is no such file, it is not TOML, or the list cannot be written.
    """
    file = (workspace.folder / DEFAULTS_NAME).resolve()
    content = read_bytes(file)
    tables, digest = toml_of(content, file), sha256(content).hexdigest()
    files = _read_trusted()
    if options.revoke:
        files.pop(str(file), None)
    else:
        files[str(file)] = digest
    _write_trusted(files)
    return TrustResult(
        file=file,
        sha256=digest,
        trusted=not options.revoke,
        settings=tuple(_settings(tables, workspace.folder)),
    )


@dataclass(frozen=True, slots=True)
class ProjectFile:
    """The workspace's stepgold.toml, as `doctor` reports it."""

    state: str
    """`missing`, `harmless` (it decides nothing about keys and texts), `trusted`, `not trusted` or
    `unusable`."""
    settings: list[str] = field(default_factory=list)
    """What it decides about keys and texts."""
    why: str | None = None
    """Why it cannot be used; None if it can."""


def project_file(folder: Path) -> ProjectFile:
    """Whether a workspace has a stepgold.toml, and whether the user trusts its present wording."""
    file = folder / DEFAULTS_NAME
    if not has_defaults(folder):
        return ProjectFile("missing")
    try:
        content = read_bytes(file)
        found = list(map(str, _settings(toml_of(content, file), folder)))
        digest, trusted = sha256(content).hexdigest(), _read_trusted().get(str(file.resolve()))
    except InputError as fault:
        return ProjectFile("unusable", why=fault.what)
    if not found:
        return ProjectFile("harmless")
    return ProjectFile("trusted" if trusted == digest else "not trusted", found)


def _settings(tables: Mapping[str, Any], folder: Path) -> Iterator[Setting]:
    for name, entry in tables.items():
        for table in entry if isinstance(entry, list) else [entry]:
            if isinstance(table, dict):
                placed = {key.replace("-", "_"): value for key, value in table.items()}
                if isinstance(images := placed.get("images"), str):
                    placed["images"] = str(folder / images)
                yield from sensitive_settings(name, placed, folder)


def sensitive_settings(table: str, fields: Mapping[str, Any], folder: Path) -> Iterator[Setting]:
    """The settings of a table that decide where keys and texts go.

    Args:
        table: its name.
        fields: its values by field of the verb's options.
        folder: the workspace.
    """
    for key, value in fields.items():
        if (
            (key in SENSITIVE and value is not False)
            or (key == "images" and not _is_inside(value, folder))
            or (
                key in ("out", "release") and isinstance(value, str) and hub_path(value) is not None
            )
        ):
            yield Setting(table, key, value)


def _is_inside(path: Any, folder: Path) -> bool:
    return isinstance(path, str) and Path(path).resolve().is_relative_to(folder.resolve())


def guarded(setting: Setting, file: Path, digest: str, *, value: Any) -> Callable[[], Any]:
    """A default that is read only if the command line does not give the option.

    Args:
        setting: the setting of the project file.
        file: the project file.
        digest: hash of the content that the setting was read from.
        value: the setting's value as typer takes it.

    Returns:
        A function that returns the value; it raises InputError if the file is not trusted.
    """

    def default() -> Any:
        if _read_trusted().get(str(file.resolve())) == digest:
            return value
        where = "" if file.parent == Path() else f" --workspace {shlex.quote(str(file.parent))}"
        raise InputError(
            f"The workspace's {DEFAULTS_NAME} sets {setting}, which decides where keys and texts"
            " go, and you have not trusted the file.",
            where=str(file),
            remedy=f"read the file, then run: stepgold{where} trust",
        )

    return default


def trust_file(
    environ: Mapping[str, str] = os.environ, *, windows: bool = sys.platform == "win32"
) -> Path:
    """Where the user's trusted files are listed.

    `$XDG_CONFIG_HOME/stepgold`, else `~/.config/stepgold`; `%APPDATA%\\stepgold` on Windows. A
    relative path in a variable is ignored, because it would lead into the working directory.
    """
    named = environ.get("APPDATA" if windows else "XDG_CONFIG_HOME", "")
    home = Path.home() / ("AppData/Roaming" if windows else ".config")
    return (Path(named) if Path(named).is_absolute() else home) / "stepgold" / TRUST_NAME


def _read_trusted() -> dict[str, str]:
    """The hash of each trusted file, by path.

    Raises:
        InputError: the list cannot be read.
    """
    path = trust_file()
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as fault:
        read, why = None, str(fault)
    else:
        why = "it is not a list of files with their hashes"
    if isinstance(read, dict) and all(isinstance(each, str) for each in read.values()):
        return read
    raise InputError(
        f"The list of trusted files cannot be read: {why}.",
        where=str(path),
        remedy="delete it, and trust your workspaces again",
    )


def _write_trusted(files: Mapping[str, str]) -> None:
    """Replace the list; only the user may read it.

    Raises:
        InputError: the folder cannot be written.
    """
    path = trust_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with unfinished(path) as beside:
            beside.unlink(missing_ok=True)
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(handle, "w", encoding="utf-8") as out:
                json.dump(dict(files), out, indent=1, sort_keys=True)
    except OSError as fault:
        raise InputError(
            f"The list of trusted files cannot be written: {fault.strerror}.",
            where=str(path),
            remedy="make that folder writable, or name another one in XDG_CONFIG_HOME",
        ) from fault
