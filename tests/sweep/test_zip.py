"""Whole sweeps over `params: {zip: ...}`: what a job gets, and what is stored and shown."""

import csv
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import FrozenTrial

from tests.sweep.apps import OPTUNA_ASYNC, App
from visionsweep.sweep import open_study
from visionsweep.sweep.study import past_trials

ZIP = "hydra.sweeper.params.zip={x: [1, 2, 3], y: [10, 20, 30]}"
NAME = "zip(x,y)"
PAIRS = [("1", "10"), ("2", "20"), ("3", "30")]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> App:
    return App(tmp_path, monkeypatch, capfd, is_quick=True)


def pairs(app: App) -> list[tuple[str, str]]:
    """Return x and y of each job, as the job sees them."""
    found = [dict(override.split("=") for override in job) for job in app.overrides]
    return [(job["x"], job["y"]) for job in found]


def history(app: App, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[FrozenTrial]:
    """Return the past trials that inform the sampler of a new sweep."""
    folder = f"t{len(list(app.folder.glob('t*')))}"
    found: list[FrozenTrial] = []

    def spy(*given: Any) -> list[FrozenTrial]:
        found[:] = past_trials(*given)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(open_study, "past_trials", spy)
        out = app.sweep(
            *arguments, "hydra.sweeper.warm_start=s", "hydra.sweeper.n_trials=1", to=folder
        )
    assert out.code == 0, out.text
    return list(found)


@pytest.mark.parametrize(
    "sampler", ["tpe_async", *(pytest.param(s, marks=pytest.mark.slow) for s in ("qmc", "nsgaii"))]
)
def test_the_keys_move_together_with_each_sampler(app: App, sampler: str) -> None:
    out = app(
        *OPTUNA_ASYNC[:2],
        f"hydra/sweeper/sampler={sampler}",
        *("hydra.sweep.dir=s", ZIP, "z=interval(0.0,1.0)", "hydra.sweeper.n_trials=8"),
    )
    assert out.code == 0, out.text
    assert set(pairs(app)) <= set(PAIRS)
    assert len(set(pairs(app))) > 1
    assert {tuple(trial.params) for trial in app.study().trials} == {(NAME, "z")}


def test_a_grid_tries_each_position_once_and_tables_have_the_keys(app: App) -> None:
    grid = ["hydra/sweeper/sampler=grid", ZIP, "db=mysql,sqlite"]
    app.task = lambda cfg: float(cfg.x * cfg.y + len(cfg.db.name))
    out = app.sweep(*grid)
    assert out.code == 0, out.text
    assert pairs(app) == [pair for pair in PAIRS for _ in range(2)]
    with (app.folder / "s" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["params.x"], row["params.y"]) for row in rows] == pairs(app)
    assert not any("zip" in column for column in rows[0])
    best = {"x": 1, "y": 10, "db": "mysql"}
    assert app.results()["best_params"] == best
    assert yaml.safe_load((app.folder / "s" / "sweep.yaml").read_text())["search"]["space"] == {
        "x": {"choices": [1, 2, 3], "with": ["y"]},
        "y": {"choices": [10, 20, 30], "with": ["x"]},
        "db": {"choices": ["mysql", "sqlite"]},
    }
    # the command that repeats the best trial
    [line] = [line for line in out.stdout.splitlines() if "repeat trial" in line]
    wanted = app.configs[0]
    assert app(*shlex.split(line.partition("app.py ")[2]), "hydra.run.dir=again").code == 0
    assert app.configs == [wanted]


def test_the_same_command_resumes(app: App) -> None:
    app.sweep(ZIP, "hydra.sweeper.n_trials=2")
    out = app.sweep("hydra.sweeper.n_trials=3")
    assert out.code == 0, out.text
    assert len(app.study().trials) == 3
    text = app.sweep(ZIP.replace("30", "40")).error()
    assert "space.y.choices" in text
    text = app.sweep(ZIP.replace("30", "40"), "hydra.sweeper.on_change=extend").error()
    assert text.startswith("zip(x,y): the choices of a parameter cannot change within one study")


def test_enqueued_trials_name_the_keys(app: App) -> None:
    out = app.sweep(
        ZIP, "hydra.sweeper.enqueue=[{y: 30}, {x: 2, y: 20}]", "hydra.sweeper.n_trials=2"
    )
    assert out.code == 0, out.text
    assert pairs(app) == [PAIRS[2], PAIRS[1]]
    study = app.study()
    study.enqueue_trial({"x": 1})
    study.enqueue_trial({NAME: "[1, 10]"})
    study.enqueue_trial({"x": 1, "y": 20})
    app.sweep()
    assert pairs(app) == [PAIRS[0]]  # the second one takes its value
    assert [trial.state.name for trial in app.study().trials[2:]] == [
        "COMPLETE",
        "COMPLETE",
        "FAIL",
    ]
    with (app.folder / "s" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[3]["duplicate_of"] == "2"
    assert "x=1 y=20: not at one position of zip(x,y)" in rows[4]["error"]


def test_a_warm_start_knows_the_keys(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    app.sweep(ZIP, "hydra/sweeper/sampler=grid")
    same = history(app, monkeypatch, ZIP)
    assert [trial.params[NAME] for trial in same] == ["[1, 10]", "[2, 20]", "[3, 30]"]
    longer = history(app, monkeypatch, "hydra.sweeper.params.zip={y: [0, 20, 30], x: [0, 2, 4]}")
    assert [trial.params for trial in longer] == [{"zip(y,x)": "[20, 2]"}]
    apart = history(app, monkeypatch, "x=interval(0,2)", "y=10,20,30")
    assert [trial.params for trial in apart] == [{"x": 1.0, "y": 10}, {"x": 2.0, "y": 20}]


@pytest.mark.slow
def test_a_zip_informed_by_separate_keys(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    app.sweep("x=1,2", "y=10,20", "hydra/sweeper/sampler=grid")
    found = history(app, monkeypatch, ZIP)
    assert [trial.params for trial in found] == [{NAME: "[1, 10]"}, {NAME: "[2, 20]"}]


def test_a_zip_cannot_set_what_the_sweep_sets(app: App) -> None:
    seed = "hydra.sweeper.params.zip={seed: [1, 2], y: [1, 2]}"
    assert app.sweep(seed, "hydra.sweeper.seeds=2").error().startswith("seed: cannot be searched")


def test_a_typo_in_a_zip_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    app = App(tmp_path, monkeypatch, capfd)
    text = app.sweep("hydra.sweeper.params.zip={x: [1, 2], yy: [1, 2]}").error()
    assert text == "yy: no such key; did you mean y?"
    assert app.configs == []
