import json

import pytest

from tests.report.run.made import make_run
from tests.report.sweep.test_record import trial, write_sweep
from visionsweep.report.command import main
from visionsweep.rundir.layout import BEST, FIGURES, PREDICTIONS, REPORT, run_place


@pytest.fixture(autouse=True)
def unrendered(figures):
    """Rendering is tested with the pictures."""


def make_kept_run(run_dir):
    make_run(run_dir, ["a", "b"])
    (run_dir / BEST).parent.mkdir()
    (run_dir / BEST).touch()


def test_a_run_is_drawn(tmp_path, capsys):
    make_run(tmp_path / "a", ["a", "b"])
    make_run(tmp_path / "b", ["a", "b"])
    assert main([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    expected = [tmp_path / name / FIGURES for name in "ab"]
    assert capsys.readouterr().out.splitlines() == list(map(str, expected))
    assert len(list((tmp_path / "b" / FIGURES).iterdir())) == 6


def test_a_sweep_gets_its_page_and_the_pictures_of_the_trials_with_weights(tmp_path, capsys):
    write_sweep(tmp_path, [trial(i) for i in range(3)])
    make_kept_run(tmp_path / run_place(0))
    make_kept_run(tmp_path / run_place(1, 0))
    make_run(tmp_path / run_place(2), ["a", "b"])  # without weights
    assert main([str(tmp_path)]) == 0
    expected = [tmp_path / REPORT, tmp_path / "0" / FIGURES, tmp_path / "1" / "seed_0" / FIGURES]
    *shown, last = capsys.readouterr().out.splitlines()
    assert shown == list(map(str, expected))
    assert last.startswith("drawn: 2 of 3 finished runs, those that keep their weights")
    assert (tmp_path / REPORT).read_text(encoding="utf-8").endswith("</html>\n")
    assert not (tmp_path / "2" / FIGURES).exists()


def test_a_plain_grid_is_a_sweep_too(tmp_path):
    for number in range(2):
        make_kept_run(tmp_path / str(number))
        environment = json.dumps({"overrides": [f"a={number}"]})
        (tmp_path / str(number) / "environment.json").write_text(environment)
    assert main([str(tmp_path)]) == 0
    assert (tmp_path / REPORT).exists()
    assert (tmp_path / "1" / FIGURES).exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing", "does not exist"),
        ("empty", "holds neither a run nor a sweep"),
        ("no_predictions", PREDICTIONS),
    ],
)
def test_errors_are_one_line(name, expected, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    make_run(tmp_path / "no_predictions", ["a", "b"])
    (tmp_path / "no_predictions" / PREDICTIONS).unlink()
    assert main([str(tmp_path / name)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / name}")
    assert expected in line
