"""Files of the Hugging Face Hub, as `hf://datasets/ORG/NAME[@REVISION][/PATH]`.

Reading downloads into the cache of huggingface_hub and names the commit; writing pushes one file.
`HF_TOKEN`, `HF_ENDPOINT`, `HF_HUB_OFFLINE` and `HF_HUB_CACHE` work as in every program on it.
"""

from __future__ import annotations

import glob
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from inference import Destination, without_key
from stepgold.console import note
from traces import InputError, StrPath

if TYPE_CHECKING:
    from huggingface_hub import HfApi, HfUri

DATA = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")
"""Ends of the names of data files."""
CARD = "README.md"
"""The dataset card, which may say which file is which split."""
_SERVER = "https://huggingface.co"
_NO_DATA = frozenset({"dataset_info.json", "dataset_infos.json"})
_HUB_PATH = re.compile(r"hf:/{1,2}(?!/)")
_SPLIT = re.compile(
    r"(?<![a-z])(?:(train|training)|(validation|valid|dev|val)|(test|testing|eval|evaluation))"
    r"(?![a-z])"
)
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.")


def hub_path(path: StrPath) -> str | None:
    """The path if it is one on the Hub, with the two slashes that `Path` makes one; else None."""
    text = Path(path).as_posix()
    found = _HUB_PATH.match(text)
    return None if found is None else f"hf://{text[found.end() :]}"


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file to read."""

    path: Path
    """Where its bytes are."""
    shown: str
    """How the user knows it: the path as given, or the one on the Hub."""
    split: str | None = None
    """The split that it belongs to, where a whole repository or folder was named."""
    origin: Mapping[str, str] = field(default_factory=dict)
    """`repository`, `commit` and `path` on the Hub; empty for a file of this machine."""


def input_files(paths: Iterable[Path], *, splits: bool) -> list[InputFile]:
    """The data files of paths, of which those on the Hub are downloaded if they are not cached.

    A repository or a folder of one means all its data files, as its card lists them, else by
    their names.

    Args:
        paths: files of this machine, and paths on the Hub.
        splits: whether the splits of files are of interest.

    Raises:
        InputError: no such repository, revision or path, no access, or no connection.
    """
    found: list[InputFile] = []
    for path in paths:
        shown = hub_path(path)
        if shown is None:
            found.append(InputFile(path, str(path)))
        else:
            found += _data_files(snapshot(shown, DATA))
    return found if splits else [replace(file, split=None) for file in found]


def input_file(path: StrPath) -> Path:
    """The one file that a path names.

    Raises:
        InputError: as `input_files`; or a path on the Hub names several files.
    """
    found = input_files([Path(path)], splits=False)
    if len(found) > 1:
        raise InputError(
            f"{hub_path(path)} has {len(found)} data files, and one is read.",
            remedy=f"name it: {found[0].shown}",
        )
    return found[0].path


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a path on the Hub names, at one commit, on this machine."""

    repository: str
    """`ORG/NAME`."""
    commit: str
    """The commit that the revision stands for."""
    folder: Path
    """The root of the repository in the cache."""
    below: str
    """Path of the file or folder in the repository; empty for all of it."""

    @property
    def target(self) -> Path:
        """The file or folder in the cache."""
        return self.folder / self.below

    def shown(self, path: str) -> str:
        """A path of the repository as one on the Hub, at this commit."""
        return f"hf://datasets/{self.repository}@{self.commit}/{path}".rstrip("/")


def snapshot(shown: str, suffixes: Sequence[str]) -> Snapshot:
    """Download what a path on the Hub names; with `HF_HUB_OFFLINE`, find it in the cache.

    Args:
        shown: the path, as `hub_path` returns it.
        suffixes: of a folder, only files whose names end so.

    Raises:
        InputError: no such repository, revision or path, no access, or no connection.
    """
    from huggingface_hub import is_offline_mode

    uri = _parsed(shown)
    exact = glob.escape(uri.path_in_repo)
    below = f"{exact}/" if exact else ""
    wanted = [exact or CARD, CARD, *(f"{below}*{suffix}" for suffix in suffixes)]
    with _explained(shown, uri):
        api = _connected(shown)
        if not is_offline_mode():
            # Unlike a download, it does not fall back on the cache where the Hub refuses.
            api.dataset_info(uri.id, revision=uri.revision)
        folder = Path(
            api.snapshot_download(
                uri.id, repo_type="dataset", revision=uri.revision, allow_patterns=wanted
            )
        )
    found = Snapshot(uri.id, folder.name, folder, uri.path_in_repo)
    if not found.target.exists():
        raise InputError(
            f"The repository has no '{uri.path_in_repo}' at commit {found.commit[:12]}.",
            where=shown,
            remedy=f"see its files: {api.endpoint}/datasets/{uri.id}/tree/{uri.revision or 'main'}",
        )
    note(f"{shown}: commit {found.commit}" + (" (cached)" if is_offline_mode() else ""))
    return found


def _data_files(found: Snapshot) -> list[InputFile]:
    if found.target.is_file():
        return [_input(found, found.target, None)]
    files = {
        path.relative_to(found.folder).as_posix(): path
        for path in sorted(found.target.rglob("*"))
        if path.name.endswith(DATA) and path.name not in _NO_DATA and path.is_file()
    }
    listed = _listed(found, files)
    splits = listed or {name: _split_of(name) for name in files}
    if not splits:
        raise InputError(
            "There is no data file.",
            where=found.shown(found.below),
            remedy=f"name a path with files that end in {', '.join(DATA)}",
        )
    return [_input(found, files[name], split) for name, split in splits.items()]


def _input(found: Snapshot, path: Path, split: str | None) -> InputFile:
    name = path.relative_to(found.folder).as_posix()
    origin = {"repository": found.repository, "commit": found.commit, "path": name}
    return InputFile(path, found.shown(name), split, origin)


def _split_of(name: str) -> str | None:
    """The split that a name says, by the rules of the library `datasets`; None if it says none."""
    shard = _SHARD.fullmatch(PurePosixPath(name).stem + ".")
    if shard is not None:
        return shard.group(1)
    said = _SPLIT.search(name.lower())
    return None if said is None else ("train", "validation", "test")[(said.lastindex or 1) - 1]


def _listed(found: Snapshot, files: Mapping[str, Path]) -> dict[str, str | None]:
    """The files that the dataset card lists, with their splits; empty if it lists none.

    Where a card has several configurations, a split is called `CONFIGURATION/SPLIT`.
    """
    from huggingface_hub import metadata_load

    card = found.folder / CARD
    try:
        read: Mapping[str, Any] = (metadata_load(card) or {}) if card.is_file() else {}
    except Exception as fault:  # YAML of anyone may raise anything; the names still say the splits
        note(f"{found.shown(CARD)} cannot be read ({type(fault).__name__}): splits go by names")
        return {}
    said = read.get("configs")
    configs = [each for each in said if isinstance(each, dict)] if isinstance(said, list) else []
    listed: dict[str, str | None] = {}
    for config in configs:
        prefix = str(config.get("config_name", "default")) if len(configs) > 1 else None
        for split, patterns in _patterns(config):
            named = "/".join(part for part in (prefix, split) if part) or None
            for name in files:
                if any(fnmatchcase(name, pattern) for pattern in patterns):
                    listed.setdefault(name, named)
    return listed


def _patterns(config: Mapping[str, Any]) -> Iterator[tuple[str | None, list[str]]]:
    """The splits of a card's configuration, with the patterns of their files."""
    if isinstance(folder := config.get("data_dir"), str):
        yield None, [f"{folder.strip('/')}/*"]
    said = config.get("data_files")
    for entry in said if isinstance(said, list) else [said]:
        named = entry if isinstance(entry, dict) else {"path": entry}
        split, path = named.get("split"), named.get("path")
        paths = path if isinstance(path, list) else [path]
        if patterns := [each.removeprefix("./") for each in paths if isinstance(each, str)]:
            yield split if isinstance(split, str) else None, patterns


@dataclass(slots=True)
class Output:
    """A file that is being written, here or for the Hub."""

    path: Path
    """Where to write it."""
    shown: StrPath
    """What to call it."""
    commit: str | None = None
    """The commit that has it on the Hub, after it was pushed."""


@contextmanager
def output_file(out: Path, *, name: str, private: bool) -> Iterator[Output]:
    """A path to write to; one on the Hub is pushed when the block ends without an error.

    Args:
        out: a path here or on the Hub.
        name: the file's name if only a repository is named.
        private: whether the repository is created as a private one.

    Raises:
        InputError: no token or no access, or the repository is public and `private` is given; all
            this before the block begins. Or the push fails.
    """
    shown = hub_path(out)
    if shown is None:
        yield Output(out, out)
        return
    with _pushed(shown, private=private, file=_parsed(shown).path_in_repo or name) as written:
        yield written


@contextmanager
def output_folder(shown: str, *, private: bool) -> Iterator[Output]:
    """A folder to write to, whose files are pushed in one commit when the block ends well.

    Files that the repository has already stay, unless one of the new ones has the same name.

    Args:
        shown: a repository on the Hub or a folder in it, as `hub_path` returns it.
        private: whether the repository is created as a private one.

    Raises:
        InputError: as `output_file`.
    """
    with _pushed(shown, private=private, file=None) as written:
        yield written


@contextmanager
def _pushed(shown: str, *, private: bool, file: str | None) -> Iterator[Output]:
    """What is pushed when the block ends well: one file of that path, or a folder's files."""
    uri = _parsed(shown)
    place = uri.path_in_repo if file is None else file
    with _explained(shown, uri):
        api, is_new = _ready_to_push(shown, uri, private=private)
    with tempfile.TemporaryDirectory(prefix="stepgold-") as folder:
        path = Path(folder) if file is None else Path(folder, PurePosixPath(file).name)
        written = Output(path, f"hf://datasets/{uri.id}/{place}".rstrip("/"))
        yield written
        with _explained(shown, uri):
            if is_new:
                api.create_repo(uri.id, repo_type="dataset", private=private or None)
            target: dict[str, Any] = {
                "repo_id": uri.id, "repo_type": "dataset", "revision": uri.revision,
            }  # fmt: skip
            if file is None:
                info = api.upload_folder(
                    folder_path=path,
                    path_in_repo=place or None,
                    commit_message="Release with stepgold",
                    **target,
                )
            else:
                info = api.upload_file(
                    path_or_fileobj=path,
                    path_in_repo=file,
                    commit_message=f"Export {file} with stepgold",
                    **target,
                )
            written.commit = info.oid


def _ready_to_push(shown: str, uri: HfUri, *, private: bool) -> tuple[HfApi, bool]:
    """The connection, and whether the repository has to be created."""
    from huggingface_hub import get_token, is_offline_mode
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if is_offline_mode():
        raise InputError(
            "HF_HUB_OFFLINE is set, and a push needs the Hub.",
            where=shown,
            remedy="unset HF_HUB_OFFLINE, or write to a file",
        )
    if not get_token():
        raise InputError(
            "A push needs a token with write access, and there is none.",
            where=shown,
            remedy=f"create one at {_SERVER}/settings/tokens and set it as HF_TOKEN",
        )
    api = _connected(shown)
    try:
        is_private = api.dataset_info(uri.id).private
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        if not private:
            note(
                f"{shown} is new and will be public, unless its organization's default is private;"
                " --private makes it private"
            )
        return api, True
    if private and not is_private:
        raise InputError(
            f"The repository {uri.id} is public, and --private was given. Nothing was pushed.",
            where=shown,
            remedy="make it private in its settings, push to a new one, or leave out --private",
        )
    if not is_private:
        note(f"{shown} is public: everyone can read what is pushed")
    return api, False


def _parsed(shown: str) -> HfUri:
    from huggingface_hub import parse_hf_uri

    try:
        uri = parse_hf_uri(shown)
        if uri.type != "dataset":
            raise ValueError(f"it names a {uri.type}, and files are those of datasets")
        if ".." in PurePosixPath(uri.path_in_repo).parts:
            raise ValueError("it leads out of the repository")
    except ValueError as fault:
        raise InputError(
            f"'{shown}' is not a path on the Hub: {str(fault).splitlines()[0]}",
            where=shown,
            remedy="write hf://datasets/ORG/NAME, hf://datasets/ORG/NAME@REVISION/PATH or the like",
        ) from fault
    return uri


def _connected(shown: str) -> HfApi:
    """The Hub that `HF_ENDPOINT` names; one of another provider is named on standard error.

    Raises:
        InputError: its address cannot be used, or the token would be sent without encryption.
    """
    from huggingface_hub import HfApi, constants, get_token, is_offline_mode
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        disable_progress_bars()  # they would interfere with ours
    server = Destination.chosen(None, variable="HF_ENDPOINT", environ=os.environ, default=_SERVER)
    if not is_offline_mode():
        server.refuse_plain_http(get_token() or "", key_variable="HF_TOKEN", allowed=None)
        if not server.is_default:
            note(f"{shown} is on {server.host}: the token and what is pushed go there.")
    return HfApi(endpoint=server.url, library_name="stepgold")


@contextmanager
def _explained(shown: str, uri: HfUri) -> Iterator[None]:
    """Turn what huggingface_hub raises into errors with a way out."""
    import httpx2
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RevisionResolutionError,
    )

    try:
        yield
    except HfHubHTTPError as fault:
        raise _refused(shown, uri, fault) from fault
    except (EntryNotFoundError, OfflineModeIsEnabled, RevisionResolutionError) as fault:
        raise InputError(
            f"{shown} is not complete in the cache, and the Hub is not asked or does not answer.",
            where=shown,
            remedy="unset HF_HUB_OFFLINE and run it once with a connection",
        ) from fault
    except (httpx2.HTTPError, OSError, RuntimeError) as fault:  # the last for a failed upload
        raise InputError(
            f"The Hub cannot be reached, or its cache cannot be written: {_said(fault)}.",
            where=shown,
            remedy="check the connection; HF_HUB_OFFLINE=1 uses what is in the cache",
        ) from fault


def _refused(shown: str, uri: HfUri, fault: Any) -> InputError:
    from huggingface_hub import get_token
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = getattr(fault.response, "status_code", None)
    if isinstance(fault, GatedRepoError):
        what = f"The repository {uri.id} is gated: its owners ask for consent to their terms."
        remedy = f"accept them at {_SERVER}/datasets/{uri.id}, and set HF_TOKEN to your token"
    elif isinstance(fault, RevisionNotFoundError):
        what = f"The repository {uri.id} has no revision '{uri.revision or 'main'}'."
        remedy = "name a branch, a tag or a commit after @; a / in its name is written %2F"
    elif isinstance(fault, RepositoryNotFoundError):
        what = f"There is no dataset repository {uri.id}, or it is private and not yours to see."
        more = ", and that your token may read it" if get_token() else "; if private, set HF_TOKEN"
        remedy = f"check the name{more}"
    elif status in (401, 403):
        what = f"The Hub refuses access to {uri.id} ({status}): {_said(fault)}."
        remedy = "set HF_TOKEN to a token that may do this (for a push: with write access)"
    else:
        what = f"The Hub answers with {status}: {_said(fault)}."
        remedy = "try again later, or see https://status.huggingface.co"
    return InputError(what, where=shown, remedy=remedy)


def _said(fault: BaseException) -> str:
    """The first line of an error without the token, which a server may repeat."""
    from huggingface_hub import get_token

    lines = str(getattr(fault, "server_message", None) or fault).strip().splitlines()
    said = without_key(lines[0] if lines else type(fault).__name__, get_token() or "")
    return said[:200].rstrip(".")
