"""`visionsweep compare` as one types it."""

import json
from pathlib import Path

import pytest

from tests.answer.test_compare import make_runs
from visionsweep.answer.command import main


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_runs(tmp_path / "outputs", {0.1: 0.6, 0.2: 0.8}, num_images=100)
    return tmp_path


def test_it_prints_a_table_and_a_sentence_and_writes_json(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["outputs", "by=optim.lr", "smallest=0.005", "json=out.json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "optim.lr",
        "val/f1_macro",
        "95",
        "%",
        *["seed", "std", "runs", "images"],
    ]
    assert lines[-1].startswith("optim.lr=0.2 beats optim.lr=0.1 by ")
    found = json.loads((runs / "out.json").read_text())
    (comparison,) = found["comparisons"]
    assert comparison["verdict"] == "different"
    assert comparison["interval"][0] < comparison["difference"] < comparison["interval"][1]
    assert comparison["probability_first_better"] > 0.95
    assert found["sentences"] == [lines[-1]]


def test_json_on_the_standard_output_comes_alone(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["outputs", "json=-"]) == 0
    assert json.loads(capsys.readouterr().out)["metric"] == "val/f1_macro"


def test_directories_may_stand_in_one_list(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = runs / "outputs/lr=0.1"
    (runs / "outputs/run-0").rename(odd)
    names = sorted(str(path.relative_to(runs)) for path in (runs / "outputs").iterdir())
    assert main([*names, "by=optim.lr"]) == 0
    apart = capsys.readouterr().out
    assert main([f"[{', '.join(names)}]", "by=optim.lr"]) == 0
    assert capsys.readouterr().out == apart
    assert main(["[outputs/run-1,outputs/nope]"]) == 1
    assert "error: outputs/nope does not exist" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "smallest=0.005" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("", "expected the directories of runs or sweeps, e.g. visionsweep compare multirun/STUDY"),
        ("nowhere", "nowhere does not exist; expected the directory of a run or a sweep"),
        (
            "outputs bye=loss",
            "bye: no such key; did you mean by? (keys: by, metric, smallest, json)",
        ),
        ("outputs --by loss", "--by: no such flag; settings are given as KEY=VALUE"),
        ("outputs by=a by=b", "by: given twice; give it once"),
        ("outputs by=", "by: got nothing after '='; leave the key out for its default"),
        ("outputs by=optim.l", "by: the runs have no setting optim.l; did you mean optim.lr?"),
        ("outputs smallest=x", "smallest: expected a number, 0 or more, such as 0.005 (half a poi"),
        ("outputs smallest=-1", "smallest: expected a number, 0 or more"),
        ("outputs metric=f2", "metric: no such metric: f2"),
        ("outputs json=no/out.json", "json: no/out.json is in a folder that does not exist"),
        ("outputs json=outputs", "json: outputs is a folder; expected a file in a folder that"),
    ],
)
def test_a_mistake_is_one_line(
    runs: Path, capsys: pytest.CaptureFixture[str], arguments: str, line: str
) -> None:
    assert main(arguments.split()) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {line}")
    assert error.count("\n") == 1


def test_damaged_predictions_are_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "outputs/run-3/predictions.npz").write_bytes(b"PK\x03\x04")
    assert main(["outputs"]) == 1
    assert "cannot read outputs/run-3/predictions.npz" in capsys.readouterr().err


def test_the_winner_of_a_sweep_is_shown_with_what_to_expect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_runs(Path("multirun/faces"), {0.1: 0.6, 0.2: 0.62}, seeds=(0,), num_images=100, prefix="")
    assert main(["multirun/faces", "json=-"]) == 0
    (winner,) = json.loads(capsys.readouterr().out)["winners"]
    assert winner["trials"] == 2
    assert winner["interval"][0] < winner["corrected"] < winner["interval"][1]
    assert main(["multirun/faces"]) == 0
    line = f"{winner['trial']} won its sweep: {winner['sentence']}"
    assert line in capsys.readouterr().out.splitlines()
    assert main(["multirun/faces/0", "multirun/faces/1", "json=-"]) == 0
    assert json.loads(capsys.readouterr().out)["winners"] == []
