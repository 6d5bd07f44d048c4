"""`run CONFIG.toml` and `stepgold.toml`: the same keys as the command line, checked before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepgold.api import PIPELINE
from stepgold.config_run import checked_tables

Cli = Callable[..., Any]


def test_run_goes_through_the_tables_in_order(cli: Cli, traces_file: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        f"""
        [evaluate]
        dataset = "d"
        labeler = "gold"
        [import]
        format = "traces"
        files = ["{traces_file.name}"]
        dataset = "d"
        [export]
        format = "processbench"
        out = "out.json"
        dataset = "d"
        labeler = "gold"
        """
    )
    called = cli("run", config, "--json")
    assert called.code == 0
    stages = called.document["stages"]
    assert [stage.get("command", stage.get("protocol")) for stage in stages] == [
        "import",
        "export",
        "processbench",
    ]
    assert stages[2]["average"]["processbench_f1"] == 1.0
    assert (tmp_path / "out.json").is_file()


def test_a_repeated_table_runs_twice(cli: Cli, traces_file: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    table = f'[[import]]\nformat = "traces"\nfiles = ["{traces_file.name}"]\ndataset = '
    config.write_text(f'{table}"one"\n{table}"two"\n')
    assert cli("run", config).code == 0
    assert set(cli("status", "--json").document["datasets"]) == {"one", "two"}


def test_an_unknown_key_stops_before_anything_runs(
    cli: Cli, traces_file: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    good = f'[import]\nformat = "traces"\nfiles = ["{traces_file.name}"]\ndataset = "d"\n'
    for bad in (
        "[judge]\nnope = 1\n",
        "[nope]\n",
        "nope = 1\n",
        "[judge\n",
        "[judge]\njson = true\n",
    ):
        config.write_text(bad + good if bad == "nope = 1\n" else good + bad)
        called = cli("run", config)
        assert called.code == 2, bad
        assert "config.toml" in called.err
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_stepgold_toml_gives_defaults_and_the_command_line_wins(
    cli: Cli, traces_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "stepgold.toml").write_text(
        '[import]\ndataset = "from-file"\n[evaluate]\ndataset = "from-file"\nlabeler = "gold"\n'
    )
    assert cli("import", "traces", traces_file).code == 0
    assert cli("evaluate", "--json").document["dataset"] == "from-file"
    assert cli("import", "traces", traces_file, "--dataset", "argv").code == 0
    assert set(cli("status", "--json").document["datasets"]) == {"from-file", "argv"}
    (folder / "stepgold.toml").write_text("[evaluate]\nnope = 1\n")
    assert cli("status").code == 2


def test_a_wrong_value_in_a_later_table_stops_before_anything_runs(
    cli: Cli, traces_file: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    good = f'[import]\nformat = "traces"\nfiles = ["{traces_file.name}"]\ndataset = "d"\n'
    for bad, told in (
        ('[judge]\ndataset = "d"\njudge = "lab"\nlimit = "x"\n', "--limit"),
        ('[judge]\ndataset = "d"\n', "--judge"),
        ('[corpus]\npaths = ["."]\n', "--corpus"),
    ):
        config.write_text(good + bad)
        called = cli("run", config, "--json")
        assert called.code == 2
        assert told in called.document["error"]["what"]
        assert called.document["error"]["where"] == str(config)
    assert not (tmp_path / "w").exists()


def test_an_interrupt_inside_a_stage_ends_the_run_as_one(
    cli: Cli, traces_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from storage.labels import Labels

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    config = tmp_path / "config.toml"
    config.write_text(
        f'[import]\nformat = "traces"\nfiles = ["{traces_file.name}"]\ndataset = "d"\n'
        '[evaluate]\ndataset = "d"\nlabeler = "gold"\n'
    )
    with monkeypatch.context() as patch:
        patch.setattr(Labels, "columns", interrupted)
        called = cli("run", config)
    assert called.code == 130
    assert "Interrupted" in called.err
    assert cli("run", config).code == 0


def test_a_mark_of_the_byte_order_is_no_part_of_the_file(
    cli: Cli, traces_file: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    text = f'[import]\r\nformat = "traces"\r\nfiles = ["{traces_file.name}"]\r\ndataset = "d"\r\n'
    config.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert cli("run", config).code == 0


@pytest.mark.parametrize(
    ("table", "what"),
    [
        (
            '[judge]\ndataset = "d"\njudge = "lab"\nvotes = [1, 3]',
            "'votes' in table [judge] takes one value",
        ),
        (
            '[judge]\ndataset = {a = "d"}\njudge = "lab"',
            "'dataset' in table [judge] takes one value",
        ),
        (
            '[import]\nformat = "traces"\nfiles = [["a"]]\ndataset = "d"',
            "'files' in table [import] takes a list of plain values",
        ),
    ],
)
def test_a_list_where_one_value_belongs_is_refused(
    cli: Cli, tmp_path: Path, table: str, what: str
) -> None:
    """The last of its values counted, the others fell out without a word."""
    config = tmp_path / "config.toml"
    config.write_text(table)
    called = cli("run", config, "--json")
    assert called.code == 2
    assert what in called.document["error"]["what"]


@pytest.mark.parametrize(
    ("command", "key", "prefix"),
    [("judge", "escalate", "hf:"), ("continue", "answer_judge", "hf:"), ("score", "family", "")],
)
def test_what_lies_beside_the_file_is_found(
    tmp_path: Path, command: str, key: str, prefix: str
) -> None:
    (tmp_path / "beside").mkdir()
    content = {command: {key: f"{prefix}beside"}}
    [table] = checked_tables(content, tmp_path / "c.toml", PIPELINE)
    assert table.fields == {key: f"{prefix}{tmp_path / 'beside'}"}
