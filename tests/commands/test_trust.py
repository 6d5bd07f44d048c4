"""A workspace is data: its stepgold.toml decides where keys and texts go only once it is trusted."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stepgold.trust import SENSITIVE, TRUST_NAME, trust_file
from tests.loopback.openai_server import OpenAIServer
from tests.loopback.recording_server import RecordingServer
from traces.config import declared_options

Cli = Callable[..., Any]
KEY = "sk-0123456789abcdef"
JUDGE = ("judge", "--dataset", "d", "--judge", "openai:m")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the settings of the user are."""
    monkeypatch.setenv("APPDATA" if sys.platform == "win32" else "XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return tmp_path / "stepgold" / TRUST_NAME


@pytest.fixture
def hostile() -> Iterator[RecordingServer]:
    with RecordingServer(400, {"error": {"message": "no"}}) as server:
        yield server


@pytest.fixture
def workspace(cli: Cli, traces_file: Path, tmp_path: Path, settings: Path) -> Path:
    """A workspace with the dataset d."""
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    return tmp_path / "w"


def test_nothing_is_sent_before_the_file_is_trusted(
    cli: Cli, workspace: Path, hostile: RecordingServer, settings: Path
) -> None:
    project = workspace / "stepgold.toml"
    project.write_text(f'[judge]\nbase_url = "{hostile.url}/v1"\n')
    refused = cli(*JUDGE, "--json").document["error"]
    assert hostile.url in refused["what"]
    assert refused["where"] == str(project)
    assert refused["remedy"].endswith(f"stepgold --workspace {workspace} trust")
    assert cli(*JUDGE).code == 2
    assert hostile.received == []
    assert not settings.exists()

    trusted = cli("trust", "--json")
    assert (trusted.code, trusted.document["trusted"]) == (0, True)
    setting = {"table": "judge", "key": "base_url", "value": f"{hostile.url}/v1"}
    assert trusted.document["settings"] == [setting]
    called = cli(*JUDGE)
    assert KEY in hostile.received[0]
    assert f"openai:m is served by {hostile.host}: keys and texts go there." in called.err

    hostile.received.clear()
    project.write_text(project.read_text() + "votes = 1\n")
    assert cli(*JUDGE).code == 2, "the content changed"
    assert hostile.received == []


def test_trust_is_for_one_place_and_can_be_taken_back(
    cli: Cli, workspace: Path, settings: Path, tmp_path: Path
) -> None:
    text = "[judge]\nallow_phi = true\n"
    other = tmp_path / "copied"
    other.mkdir()
    for folder in (workspace, other):
        (folder / "stepgold.toml").write_text(text)
    assert "[judge] allow_phi = true" in cli("trust").out
    assert "not trusted" in cli(*JUDGE, workspace=other).err
    with RecordingServer(400, {}) as server:
        assert "not trusted" not in cli(*JUDGE, "--base-url", server.url).err
        assert cli("trust", "--revoke", "--json").document["trusted"] is False
        server.received.clear()
        assert "not trusted" in cli(*JUDGE, "--base-url", server.url).err
        assert server.received == []
    assert json.loads(settings.read_text()) == {}


@pytest.mark.parametrize(
    ("table", "refused"),
    [
        ('escalate_base_url = "https://h.example"\nescalate = "openai:n"\nvotes = 3', True),
        ('bucket = "gs://elsewhere"\nservice = "batch"', True),
        ("request_option = ['store=true']", True),
        ("allow_phi = true", True),
        ('allow_phi = "yes"', True),
        ("insecure_http = true", True),
        ('images = "../elsewhere"', True),
        ('images = "/"', True),
        ("allow_phi = false", False),
        ('images = "scans"', False),
        ('judge = "gemini:gemini-3.5-flash-lite"\nlimit = 1', False),
    ],
)
def test_what_decides_where_texts_go_is_refused(
    cli: Cli, workspace: Path, table: str, refused: bool
) -> None:
    (workspace / "scans").mkdir()
    (workspace / "stepgold.toml").write_text(f"[judge]\n{table}\n")
    with RecordingServer(400, {}) as server:
        called = cli(*JUDGE, "--base-url", server.url)
        assert called.code == 2
        assert ("trusted the file" in called.err) is refused
        assert bool(server.received) is not refused


def test_a_value_that_the_command_line_replaces_is_not_asked_about(
    cli: Cli, workspace: Path, hostile: RecordingServer
) -> None:
    (workspace / "stepgold.toml").write_text(f'[judge]\nbase_url = "{hostile.url}"\n')
    with RecordingServer(400, {}) as mine:
        cli(*JUDGE, "--base-url", mine.url)
        assert mine.received
    assert hostile.received == []
    assert cli("status").code == 0, "it needs none of these settings"
    assert cli("judge", "--help").code == 0


def test_every_option_that_names_a_server_is_sensitive() -> None:
    from stepgold.api import PIPELINE

    fields = {name for verb in PIPELINE.values() for name, _, _ in declared_options(verb.config)}
    named = {
        name for name in fields if name.endswith(("url", "bucket", "phi")) or "insecure" in name
    }
    assert named == SENSITIVE - {"request_option"}
    assert "request_option" in fields


def test_a_file_that_is_named_is_trusted_and_its_settings_are_shown(
    cli: Cli, workspace: Path, hostile: RecordingServer, tmp_path: Path
) -> None:
    config = tmp_path / "mine.toml"
    config.write_text(
        f'[judge]\ndataset = "d"\njudge = "openai:m"\nbase_url = "{hostile.url}/v1"\nallow_phi = true\n'
    )
    called = cli("run", config)
    assert f'{config} sets [judge] base_url = "{hostile.url}/v1"' in called.err
    assert f"{config} sets [judge] allow_phi = true" in called.err
    assert hostile.received


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_only_the_user_may_read_the_list(cli: Cli, workspace: Path, settings: Path) -> None:
    (workspace / "stepgold.toml").write_text("[judge]\nvotes = 1\n")
    assert "does not decide" in cli("trust").out
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    assert [each.name for each in settings.parent.iterdir()] == [TRUST_NAME]


@pytest.mark.parametrize("content", ["[]", "{", '{"a": 1}', "\ud800"])
def test_a_broken_list_trusts_nothing(
    cli: Cli, workspace: Path, settings: Path, content: str
) -> None:
    settings.parent.mkdir()
    settings.write_bytes(content.encode("utf-8", "surrogatepass"))
    (workspace / "stepgold.toml").write_text("[judge]\nallow_phi = true\n")
    called = cli(*JUDGE, "--json")
    assert called.code == 2
    assert called.document["error"]["where"] == str(settings)


def test_there_is_nothing_to_trust(cli: Cli, workspace: Path, settings: Path) -> None:
    called = cli("trust", "--json")
    assert called.code == 2
    assert called.document["error"]["where"] == str((workspace / "stepgold.toml").resolve())


def test_the_list_never_lies_in_the_working_directory(tmp_path: Path) -> None:
    home = Path.home()
    assert trust_file({"XDG_CONFIG_HOME": str(tmp_path)}, windows=False).parent.parent == tmp_path
    assert trust_file({"APPDATA": str(tmp_path)}, windows=True).parent.parent == tmp_path
    for environ in ({}, {"XDG_CONFIG_HOME": "."}, {"XDG_CONFIG_HOME": ""}):
        assert trust_file(environ, windows=False) == home / ".config/stepgold/trusted.json"
    assert home in trust_file({}, windows=True).parents


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("openai:m", ()),
        ("gemini:gemini-3.5-flash-lite", ()),
        ("gemini:gemini-3.5-flash-lite", ("--service", "batch")),
    ],
)
def test_a_redirect_ends_the_command(
    cli: Cli,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    status: int,
    model: str,
    options: tuple[str, ...],
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    with (
        RecordingServer() as other,
        RecordingServer(status, redirect_to=other.url) as server,
    ):
        asked = ("judge", "--dataset", "d", "--judge", model, *options)
        called = cli(*asked, "--base-url", server.url, "--json")
        assert called.code == 2
        assert server.host in called.document["error"]["what"]
        assert other.host in called.document["error"]["what"]
        assert server.received
        assert other.received == []
    stored = cli("status", "--json").document["labelers"]
    assert [row["name"] for row in stored] == ["gold"]
    assert KEY.encode() not in (workspace / "stepgold.db").read_bytes()


def test_a_key_that_the_server_repeats_is_neither_stored_nor_shown(
    cli: Cli, workspace: Path
) -> None:
    with OpenAIServer(f"You sent {KEY}.") as server:
        called = cli(*JUDGE, "--base-url", server.url)
        assert server.calls
        assert KEY not in called.out + called.err
    files = [each for each in workspace.rglob("*") if each.is_file()]
    assert b"You sent [key]." in b"".join(each.read_bytes() for each in files)
    assert not any(KEY.encode() in each.read_bytes() for each in files)


def test_debug_output_holds_no_key(cli: Cli, workspace: Path) -> None:
    fault = {"error": {"message": f"Incorrect API key provided: {KEY}"}}
    with RecordingServer(401, fault) as server:
        called = cli("--debug", *JUDGE, "--base-url", server.url)
    assert called.code == 2
    assert "Traceback" in called.err
    assert "AuthenticationError" in called.err
    assert KEY not in called.err


def test_doctor_says_whether_the_file_is_trusted(cli: Cli, workspace: Path, settings: Path) -> None:
    def found() -> dict[str, Any]:
        state: dict[str, Any] = cli("doctor", "--json").document["project_file"]
        return state

    project = workspace / "stepgold.toml"
    assert found()["state"] == "missing"
    project.write_text("[judge]\nvotes = 3\n")
    assert found()["state"] == "harmless"
    project.write_text('[judge]\nbase_url = "http://other.example/v1"\n')
    assert found()["state"] == "not trusted"
    assert found()["settings"] == ['[judge] base_url = "http://other.example/v1"']
    assert "stepgold trust" in cli("doctor").out
    assert cli("trust").code == 0
    assert found()["state"] == "trusted"
    project.write_text('[judge]\nbase_url = "http://another.example/v1"\n')
    assert found()["state"] == "not trusted"
    settings.write_text("no list")
    assert found()["state"] == "unusable"
