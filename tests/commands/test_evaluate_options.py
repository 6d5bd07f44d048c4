"""`evaluate`: protocols, fitted thresholds, subsets, a second labeler."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from tests.commands.conftest import Cli

N = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset `d` with subsets dev and test, a copy of dev as dataset `copy`, labelers good and poor."""
    from cli import execute

    place = tmp_path_factory.mktemp("evaluate")
    rows, good, poor = [], [], []
    for subset in ("dev", "test"):
        for number in range(N):
            id, wrong = f"{subset}-{number}", number % 2 == 0
            rows.append(
                {
                    "id": id,
                    "problem": f"{subset} question {number}?",
                    "subset": subset,
                    "steps": ["one", "two", "three"],
                    "final_answer_correct": number % 3 == 0,
                    "labels": {"gold": {"kind": "gold", "first_error": 1 if wrong else None}},
                }
            )
            # Errors lie at .6, so that the threshold .5 finds none and a fitted one all.
            good.append({"id": id, "scores": [0.9, 0.6 if wrong else 0.8, 0.85]})
            poor.append({"id": id, "scores": [0.9, 0.6 if number % 4 == 0 else 0.8, 0.9]})
    dev = [row for row in rows if row["subset"] == "dev"]
    for name, part in (("d", rows), ("copy", dev), ("good", good), ("poor", poor)):
        text = "".join(json.dumps(row) + "\n" for row in part)
        (place / f"{name}.jsonl").write_text(text)
    on = ["--workspace", str(place / "w"), "import"]
    for name in ("d", "copy"):
        assert execute([*on, "traces", str(place / f"{name}.jsonl"), "--dataset", name]) == 0
    for dataset, name, code in (("d", "good", 0), ("d", "poor", 0), ("copy", "good", 1)):
        file = str(place / f"{name}.jsonl")
        done = execute([*on, "scores", file, "--dataset", dataset, "--labeler", name])
        assert done == code
    return place / "w"


@pytest.fixture
def scored(cli: Cli, folder: Path) -> Cli:
    """The command line on that workspace, which no test changes but by further labelers."""
    return partial(cli, workspace=folder)


ON = ("evaluate", "--dataset", "d", "--labeler", "good", "--resamples", "50")


def test_a_threshold_from_another_split_is_told_with_its_origin(scored: Cli) -> None:
    given = scored(*ON, "--json").document
    assert (given["threshold_source"], given["threshold_fit"]) == ("given", None)
    assert given["average"]["processbench_f1"] == 0.0
    fitted = scored(*ON, "--threshold", "fit:d/dev", "--subset", "test", "--json")
    assert fitted.code == 0
    document = fitted.document
    assert document["threshold"] == pytest.approx(0.7)
    assert document["threshold_source"] == "fit:d/dev"
    assert document["threshold_fit"].items() >= {
        "dataset": "d", "subset": "dev", "measure": "processbench_f1", "value": 1.0, "n_traces": N, "in_sample": False,
    }.items()  # fmt: skip
    assert list(document["subsets"]) == ["test"]
    assert document["average"]["processbench_f1"] == 1.0
    assert "threshold 0.7 from fit:d/dev" in scored(*ON, "--threshold", "fit:d/dev", "--subset", "test").out  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("split", ["d/dev", "copy/dev"])
def test_fitting_on_evaluated_traces_is_refused_or_said(scored: Cli, split: str) -> None:
    refused = scored(*ON, "--threshold", f"fit:{split}", "--json")
    assert refused.code == 2
    error = refused.document["error"]
    assert "fitted on traces that are evaluated (subset dev)" in error["what"]
    assert "--in-sample" in error["remedy"]
    allowed = scored(*ON, "--threshold", f"fit:{split}", "--in-sample", "--json").document
    assert allowed["threshold_source"] == f"fit:{split} (in-sample: dev)"
    assert allowed["threshold_fit"]["in_sample_subsets"] == ["dev"]
    words = scored(*ON, "--threshold", f"fit:{split}", "--in-sample").out
    assert f"from fit:{split} (in-sample: dev)" in words


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (["--threshold", "1.5"], "'1.5' is not a threshold"),
        (["--threshold", "nan"], "'nan' is not a threshold"),
        (["--threshold", "high"], "'high' is not a threshold"),
        (["--threshold", "fit:"], "names no DATASET/SUBSET"),
        (["--threshold", "fit:d"], "names no DATASET/SUBSET"),
        (["--threshold", "fit:other/dev"], "names no DATASET/SUBSET"),
        (["--threshold", "fit:d/train"], "no subset 'train'"),
        (["--threshold", "0.5", "--in-sample"], "--in-sample has no effect without"),
        (["--subset", "train"], "no subset 'train'"),
        (["--protocol", "f1"], "Unknown protocol 'f1'"),
        (["--against", "nobody"], "nobody"),
        (["--resamples", "0"], "resamples"),
    ],
)
def test_wrong_wishes_are_refused(scored: Cli, wish: list[str], told: str) -> None:
    done = scored(*ON, *wish)
    assert done.code == 2
    assert told in done.err


def test_another_model_under_the_same_name_gives_no_threshold(scored: Cli, folder: Path) -> None:
    from storage import Store
    from traces.labels import Labeler, LabelerKind

    with Store.open(f"sqlite:///{folder / 'stepgold.db'}") as store:
        for dataset, model in (("d", "hf:one"), ("copy", "hf:two")):
            store.labels.declare(dataset, Labeler("prm", LabelerKind.PRM, {}, model))
    done = scored("evaluate", "--dataset", "d", "--labeler", "prm", "--threshold", "fit:copy/dev")
    assert done.code == 2
    assert "Labeler 'prm' is 'hf:two' in dataset 'copy' and 'hf:one' here" in done.err


@pytest.mark.slow
def test_a_second_labeler_is_compared_on_the_same_problems(scored: Cli) -> None:
    on = [*ON, "--threshold", "0.7", "--against", "poor"]
    document = scored(*on, "--json").document["against"]
    assert (document["labeler"], document["threshold"]) == ("poor", 0.7)
    leading = document["measures"]["processbench_f1"]
    assert leading["over"] == "mean of subsets"
    assert leading["first"] == 1.0
    assert leading["difference"] == pytest.approx(1 - leading["second"])
    assert leading["ci95"][0] > 0
    assert 0 < leading["p_value"] <= 1
    assert leading["subsets"]["dev"]["n_traces"] == N
    assert document["measures"]["correct_accuracy"]["difference"] == 0.0
    assert "processbench_f1 of good - poor: +" in scored(*on).out
    turned = scored("evaluate", "--dataset", "d", "--labeler", "poor", "--against", "good", "--threshold", "0.7", "--resamples", "50", "--json").document  # fmt: skip
    assert turned["against"]["measures"]["processbench_f1"]["difference"] == -leading["difference"]


@pytest.mark.parametrize(
    ("protocol", "part", "measure"),
    [
        ("macro-f1", "overall", "macro_f1"),
        ("prmbench", "overall", "prmscore"),
        ("mr-ben", "overall", "mcc"),
        ("mistake", "overall", "location_accuracy"),
    ],
)
def test_every_protocol_runs_from_the_command_line(
    scored: Cli, protocol: str, part: str, measure: str
) -> None:
    on = [*ON, "--protocol", protocol, "--threshold", "0.7", "--against", "poor"]
    done = scored(*on, "--json")
    assert done.code == 0
    document = done.document
    assert document["protocol"] == protocol
    assert document[part][measure] == 1.0
    assert document["against"]["measures"][measure]["over"] == "all traces pooled"
    assert document["diagnostics"]["right_answer_wrong_process"]["n"] > 0
    assert document["diagnostics"]["step_scores"]["auroc"] == 1.0
    assert scored(*on).code == 0


def test_a_labeler_of_verdicts_needs_no_threshold_beside_a_fitted_one(scored: Cli) -> None:
    fit = ["--threshold", "fit:d/dev", "--subset", "test", "--json"]
    document = scored(*ON, *fit, "--against", "gold").document
    assert document["threshold"] == pytest.approx(0.7)
    assert document["against"]["threshold"] is None
    assert document["against"]["threshold_source"] == "none needed: verdicts"
    assert document["against"]["measures"]["processbench_f1"]["difference"] == 0.0
    alone = scored("evaluate", "--dataset", "d", "--labeler", "gold", *fit)
    assert alone.code == 2
    assert alone.document["error"]["where"] == "d/dev"


def test_subsets_may_be_listed_in_a_run_file(scored: Cli, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        '[evaluate]\ndataset = "d"\nlabeler = "good"\nsubset = ["dev", "test"]\nthreshold = 0.7\n'
    )
    done = scored("run", config, "--json")
    assert done.code == 0
    assert list(done.document["stages"][0]["subsets"]) == ["dev", "test"]


def test_comparison_best_of_n_and_report_stand_in_a_run_file(scored: Cli, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    (tmp_path / "out").mkdir()
    config.write_text(
        '[report]\nout = "out/report.json"\ndataset = "d"\nresamples = 10\n'
        '[best-of-n]\ndataset = "d"\nlabeler = "good"\nn = "1"\nresamples = 10\n'
        '[compare]\nlabelers = ["good", "gold"]\ndataset = "d"\nresamples = 10\n'
    )
    done = scored("run", config, "--json")
    compared, _, reported = done.document["stages"]
    assert compared["labelers"] == ["good", "gold"]
    assert reported["out"] == str(tmp_path / "out" / "report.json")
    assert (tmp_path / "out" / "report.json").is_file()


def test_floors_are_shown_and_may_be_tested_against(scored: Cli) -> None:
    on = [*ON, "--threshold", "0.7", "--against", "position"]
    document = scored(*on, "--json").document
    floors = document["floors"]
    assert list(floors) == ["no-error", "last-step", "position", "chance"]
    assert floors["no-error"]["correct_accuracy"] == 1.0
    assert floors["no-error"]["subsets"]["dev"]["error_accuracy"] == 0.0
    against = document["against"]
    assert (against["labeler"], against["threshold"]) == ("position", 0.5)
    leading = against["measures"]["processbench_f1"]
    assert leading["second"] == floors["position"]["processbench_f1"]
    assert "processbench_f1 of good - position: +" in scored(*on).out
    poor = scored("evaluate", "--dataset", "d", "--labeler", "poor", "--resamples", "50")
    assert "is not above the floor" in poor.out


def test_macro_f1_is_pooled_and_a_mean_over_sources(scored: Cli) -> None:
    on = ["evaluate", "--dataset", "d", "--labeler", "poor", "--protocol", "macro-f1"]
    on += ["--threshold", "0.7", "--resamples", "50"]
    document = scored(*on, "--json").document
    each = [part["macro_f1"] for part in document["subsets"].values()]
    assert document["mean_of_subsets"]["macro_f1"] == pytest.approx(sum(each) / len(each))
    assert len(document["mean_of_subsets"]["ci95"]) == 2
    assert "unweighted mean over 2 subsets" in scored(*on).out


@pytest.mark.parametrize("protocol", ["processbench", "prmbench", "mr-ben", "mistake", "macro-f1"])
def test_every_protocol_is_repeated_as_published(scored: Cli, protocol: str) -> None:
    on = [*ON, "--protocol", protocol, "--as-published"]
    done = scored(*on, "--json")
    assert done.code == 0
    published = done.document["as_published"]
    if protocol in ("mistake", "macro-f1"):
        assert published is None
        assert f"no script of {protocol} was published" in scored(*on).out
        return
    assert published["source"].count("/")
    assert bool(published["differences"]) <= bool(published["causes"])
    assert f"as published ({published['source']})" in scored(*on).out
    assert "as_published" not in scored(*on[:-1], "--json").document
