"""The command that widens a range: what it says, and that it does what it says."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from tests.sweep.apps import App
from visionsweep.sweep.space.space import parse_space
from visionsweep.sweep.widen import widened

ENDS = {"upper": {True}, "lower": {False}, "both": {True, False}}


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> App:
    return App(tmp_path, monkeypatch, capfd, is_quick=True)


@pytest.mark.parametrize(
    ("space", "ends", "wider"),
    [
        ("tag(log,interval(1e-4,1e-1))", "upper", FloatDistribution(1e-4, 1.0, log=True)),
        ("tag(log,interval(1e-4,1e-1))", "lower", FloatDistribution(1e-5, 1e-1, log=True)),
        ("tag(log,interval(0.001,0.004))", "both", FloatDistribution(5e-4, 8e-3, log=True)),
        ("interval(0.0,2.0)", "upper", FloatDistribution(0.0, 3.0)),
        ("interval(-1.0,1.0)", "both", FloatDistribution(-2.0, 2.0)),
        ("interval(0.02,0.2)", "lower", FloatDistribution(0.0, 0.2)),  # no sign change
        ("interval(0.1,0.9)", "upper", FloatDistribution(0.1, 0.95)),  # a share
        ("int(interval(8,64))", "upper", IntDistribution(8, 92)),
        ("int(interval(8,64))", "lower", IntDistribution(1, 64)),
        ("tag(log,int(interval(4,64)))", "both", IntDistribution(1, 300, log=True)),
        ("range(8,25,4)", "both", IntDistribution(4, 32, step=4)),
        ("range(0.1,0.5,0.1)", "upper", FloatDistribution(0.1, 0.6, step=0.1)),
    ],
)
def test_a_wider_range_holds_the_old_one(space: str, ends: str, wider: Any) -> None:
    [dimension] = parse_space({"x": space}, None, []).dimensions
    [again] = parse_space({"x": widened(dimension, ENDS[ends])}, None, []).dimensions
    assert again.distribution == wider
    assert wider._contains(dimension.distribution.low)  # type: ignore[attr-defined]
    assert wider._contains(dimension.distribution.high)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("choices", "ends", "wider"),
    [
        ("16,32,64", "upper", "choice(16,32,64,128)"),
        ("64,16,32", "both", "choice(8,16,32,64,128)"),
        ("0.1,0.2,0.3", "upper", "choice(0.1,0.2,0.3,0.4)"),
        ("2,3,5", "both", "choice(1,2,3,5,7)"),
        ("0.001,0.003,0.01", "lower", "choice(0.0005,0.001,0.003,0.01)"),
    ],
)
def test_choices_get_one_more(choices: str, ends: str, wider: str) -> None:
    [dimension] = parse_space({"x": choices}, None, []).dimensions
    assert widened(dimension, ENDS[ends]) == wider


# -- whole sweeps, of which x is best beyond its range

GROWING = ["hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=30"]


def lines(app: App, *arguments: str, to: str = "s") -> tuple[list[str], list[str]]:
    """Run a sweep; return what it says of ranges, and the arguments of its command."""
    app.task = lambda cfg: float(cfg.x)
    out = app.sweep(*arguments, *GROWING, to=to)
    assert out.code == 0, out.text
    said = [line.partition("[HYDRA] ")[2] for line in out.stdout.splitlines()]
    command = [line for line in said if line.startswith("widen with: ")]
    named = [line for line in said if "of its range" in line]
    return named, shlex.split(command[0].partition("app.py ")[2]) if command else []


def drawn(app: App, name: str = "s") -> list[float]:
    return [trial.params["x"] for trial in app.study(name).trials]


def test_a_typed_range_widens_within_the_study(app: App) -> None:
    named, command = lines(app, "x=interval(0.5,2.0)", "z=a,b")
    [line] = named
    assert line.startswith("x: ")
    assert "of the best 8 trials lie at the upper end of its range (0.5 .. 2)" in line
    assert command[-3:] == [
        "x=interval(0.5,2.8)",
        "hydra.sweeper.on_change=extend",
        "hydra.sweeper.n_trials=60",
    ]
    stored = json.loads((app.folder / "s" / "ranges.json").read_text())
    assert stored["lines"] == named
    assert shlex.split(stored["command"])[2:] == command
    assert app(*command).code == 0
    assert len(drawn(app)) == 60
    assert max(drawn(app)[:30]) < 2 < max(drawn(app)[30:])
    assert {trial.params["z"] for trial in app.study().trials} == {"a", "b"}  # still searched


@pytest.mark.slow
@pytest.mark.parametrize("where", ["params", "default_params"])
def test_a_range_of_a_preset_widens_with_its_condition(app: App, where: str) -> None:
    params = {
        "mode": "choice(fast,slow)",
        "x": {"space": "interval(0.5,2.0)", "when": "mode=fast,slow"},
        "zip": {"y": [1, 2], "z": ["a", "b"]},
    }
    app.extend(hydra={"sweeper": {where: params}})
    config = (app.folder / "conf" / "config.yaml").read_text().splitlines()
    start = next(i for i, line in enumerate(config) if line.startswith("defaults"))
    end = next(i for i in range(start + 1, len(config)) if config[i][0] not in " -")
    app.write(
        "config.yaml",
        "defaults: [{override hydra/sweeper: optuna_async}]\n"
        + "\n".join(config[:start] + config[end:]),
    )
    _, command = lines(app)
    assert command[-3].startswith("+hydra.sweeper.params={")
    assert app(*command).code == 0, command
    assert max(drawn(app)) > 2
    keys = [set(trial.params) for trial in app.study().trials]
    assert keys == [{"mode", "x", "zip(y,z)"}] * 60


@pytest.mark.slow
def test_choices_widen_in_a_new_study(app: App) -> None:
    named, command = lines(app, "x=1,2,4,8", "y=interval(0.0,1.0)")
    assert "(1 | 2 | 4 | 8)" in named[0]
    assert "x=choice(1,2,4,8,16)" in command
    assert "hydra.sweeper.warm_start=s" in command
    out = app(*command)
    assert out.code == 0, out.text
    assert "warm start: 30 complete trials of s" in out.stdout
    assert 16 in drawn(app, "s-wider")
    assert len(app.study().trials) == 30


@pytest.mark.slow
def test_a_grid_widens_too(app: App) -> None:
    grid = ["hydra/sweeper/sampler=grid", "x=range(1,31)"]
    _, command = lines(app, *grid)
    assert "hydra.sweeper.n_trials=null" in command
    assert app(*command).code == 0
    assert drawn(app) == list(range(1, 45))


@pytest.mark.slow
def test_nothing_is_said_of_an_optimum_inside_or_of_several_objectives(app: App) -> None:
    app.task = lambda cfg: -((float(cfg.x) - 1) ** 2)
    out = app.sweep("x=interval(0.5,2.0)", *GROWING)
    assert "of its range" not in out.stdout
    assert not (app.folder / "s" / "ranges.json").exists()
    app.task = lambda cfg: [float(cfg.x), 0.0]
    two = "hydra.sweeper.direction=[maximize,maximize]"
    out = app.sweep("x=interval(0.5,2.0)", two, GROWING[1], to="t")
    assert out.code == 0, out.text
    assert "of its range" not in out.stdout


@pytest.mark.slow
def test_what_is_no_longer_true_is_removed(app: App) -> None:
    _, command = lines(app, "x=interval(0.5,2.0)")
    app.task = lambda cfg: -abs(float(cfg.x) - 2.2)
    assert app(*command).code == 0
    app.sweep("hydra.sweeper.n_trials=100", *GROWING[:1])
    assert not (app.folder / "s" / "ranges.json").exists()
