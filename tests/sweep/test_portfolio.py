"""What a new sweep tries first: which configurations, as far as its space has them, and once."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from omegaconf import OmegaConf

from tests.conftest import Compose
from tests.sweep.apps import CRASH_APP, CRASH_CONF, App
from tests.sweep.records import sweep_settings
from visionsweep.sweep import portfolio
from visionsweep.sweep.portfolio import Family, first_configurations, greedy_order, reduced
from visionsweep.sweep.space.space import parse_space

TPE = {"_target_": "optuna.samplers.TPESampler", "seed": 0}
FIXED = {"mode": "fast", "hydra.runtime.choices.optim": "adamw"}
SPACE = ["optim=adamw,sgd", "lr=tag(log,interval(1e-3,1e-1))", "loss=focal,ce"]
PARAMS = [
    {"optim": "adamw", "lr": 0.01, "loss": "focal"},
    {"optim": "adamw", "lr": 0.5, "loss": "ce"},
    {"optim": "sgd", "lr": 0.05, "loss": "poly"},
    {"optim": "adamw", "lr": 0.01, "loss": "poly"},
]
# The third is the best on average, then the second helps most on the second data set.
SCORES = [[0.7, 0.1, 0.5], [0.2, 0.9, 0.1], [0.8, 0.6, 0.5], [0.1, 0.2, 0.6]]
FAMILY = Family({"mode": "fast"}, ("optim",), PARAMS, SCORES)


def first(
    space: list[str], fixed: dict[str, Any] | None = None, **settings: Any
) -> list[dict[str, Any]]:
    given = {"portfolio": "auto", "sampler": TPE} | settings
    value_of = ({**FIXED, **(fixed or {})}).get
    return first_configurations(
        sweep_settings(**given), parse_space(None, None, space), value_of, [FAMILY]
    )


# -- the order


def test_the_next_one_helps_most_where_those_before_are_bad() -> None:
    # Regrets, as shares of (best - worst): of the third row (0, 3/8, 1/5), sum 0.575, the least.
    # With it, the second row leaves 0 + 0 + 1/5, the fourth 0 + 3/8 + 0, the first nothing better.
    assert greedy_order(SCORES) == [2, 1, 3]


def test_a_good_average_may_never_be_needed() -> None:
    # The second row comes second on average, but is nowhere better than the first.
    assert greedy_order([[0.9, 0.5], [0.9, 0.4], [0.1, 0.6]]) == [0, 2]


def test_data_sets_count_the_same_whatever_their_range() -> None:
    # Of the first data set, 0.02 are all that there is to gain; of the second, 0.1 are a ninth.
    assert greedy_order([[0.92, 0.80], [0.90, 0.90], [0.90, 0.0]])[0] == 0


def test_of_equal_ones_a_single_one_is_tried() -> None:
    assert greedy_order([[0.5], [0.5]]) == [0]
    assert greedy_order([]) == []


# -- what the space has of a configuration


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (["lr=interval(0.1,1.0)"], {"lr": 0.1}),
        (["lr=interval(1e-4,1e-3)"], {"lr": 0.001}),
        (["lr=tag(log,interval(1e-4,1e-1))"], {"lr": 0.02}),
        (["lr=range(0.0,0.5,0.05)"], {"lr": 0.0}),
        (["lr=0.01,0.02"], {"lr": 0.02}),
        (["lr=0.01,0.03"], {}),
        (["batch=range(10,100,10)"], {"batch": 30}),
        (["batch=range(64,129)"], {"batch": 64}),
        (["batch=16,64"], {}),
        (["batch='32','64'"], {"batch": "'32'"}),  # as its job gets it
        (["loss=ce,focal", "lr=1e-3"], {"loss": "focal"}),
        (["loss=interval(0.0,1.0)"], {}),  # a name is near no number
        (["other=1,2"], {}),
    ],
)
def test_a_configuration_is_reduced_to_the_space(
    space: list[str], expected: dict[str, Any]
) -> None:
    params = {"lr": 0.02, "batch": 32, "loss": "focal"}
    found = reduced(params, parse_space(None, None, space))
    assert found == expected
    assert {k: type(v) for k, v in found.items()} == {k: type(v) for k, v in expected.items()}


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"loss": "focal", "gamma": 9.0}, {"loss": "focal", "gamma": 5.0}),
        ({"loss": "ce", "gamma": 2.0}, {"loss": "ce"}),
        ({"loss": "poly", "gamma": 2.0}, {}),  # the sampler draws the loss
        ({"gamma": 2.0}, {}),
    ],
)
def test_a_parameter_depends_on_one_that_is_there(
    params: dict[str, Any], expected: dict[str, Any]
) -> None:
    node = {"loss": "choice(focal, ce)"}
    node |= {"gamma": {"space": "interval(1.0, 5.0)", "when": "loss=focal"}}  # type: ignore[dict-item]
    assert reduced(params, parse_space(node, None, [])) == expected


def test_keys_that_move_together_need_a_position() -> None:
    space = parse_space({"zip": {"batch": [16, 32], "lr": [0.01, 0.02]}}, None, [])
    assert reduced({"batch": 32, "lr": 0.02}, space) == {"batch": 32, "lr": 0.02}
    assert reduced({"batch": 16, "lr": 0.02}, space) == {}
    assert reduced({"batch": 16}, space) == {}


# -- which configurations come first


def test_the_best_that_the_space_can_express_come_first() -> None:
    assert first(SPACE) == [
        {"optim": "sgd", "lr": 0.05},  # poly is drawn
        {"optim": "adamw", "lr": 0.1, "loss": "ce"},
        {"optim": "adamw", "lr": 0.01},
    ]


@pytest.mark.parametrize(
    ("space", "fixed", "expected"),
    [
        (SPACE[1:], {}, [{"lr": 0.01, "loss": "focal"}, {"lr": 0.1, "loss": "ce"}]),
        (SPACE[1:], {"hydra.runtime.choices.optim": "sgd"}, []),  # with poly, one key remains
        (SPACE[1:], {"hydra.runtime.choices.optim": "lion"}, []),
        (["optim=adamp,sgd", *SPACE[1:]], {}, [{"optim": "sgd", "lr": 0.05}]),
        (["lr=interval(0.0,1.0)"], {}, []),  # a single key
        (SPACE, {"mode": "slow"}, []),
        ([*SPACE, "mode=fast,slow"], {}, []),
    ],
)
def test_what_a_configuration_needs(
    space: list[str], fixed: dict[str, Any], expected: list[dict[str, Any]]
) -> None:
    assert first(space, fixed) == expected


def test_of_configurations_that_become_equal_one_is_tried() -> None:
    space = ["lr=tag(log,interval(1e-3,1e-2))", "optim=adamw,sgd"]
    assert first(space) == [{"optim": "sgd", "lr": 0.01}, {"optim": "adamw", "lr": 0.01}]


@pytest.mark.parametrize(
    ("n_trials", "count"), [(1, 0), (2, 0), (3, 1), (6, 2), (9, 3), (1000, 3), (None, 3)]
)
def test_no_more_than_a_third_of_the_trials(n_trials: int | None, count: int) -> None:
    assert len(first(SPACE, n_trials=n_trials)) == count


def test_no_more_than_six() -> None:
    many = [[float(i == k) for k in range(9)] for i in range(9)]
    params = [{"optim": "adamw", "lr": 0.01 * (i + 1)} for i in range(9)]
    family = Family({}, ("optim",), params, many)
    settings = sweep_settings(portfolio="auto", sampler=TPE, n_trials=90)
    found = first_configurations(settings, parse_space(None, None, SPACE), FIXED.get, [family])
    assert len(found) == 6


@pytest.mark.parametrize(
    "settings",
    [
        {"portfolio": "none"},
        {"enqueue": [{"lr": 0.01}]},
        {"warm_start": "multirun/old"},
        {"confirm": "multirun/old"},
        {"sampler": {"_target_": "optuna.samplers.RandomSampler"}},
        {"sampler": {"_target_": "optuna.samplers.QMCSampler"}},
        {"sampler": {"_target_": "optuna.samplers.GridSampler"}},
        {"sampler": {"_target_": "optuna.samplers.BruteForceSampler"}},
    ],
    ids=str,
)
def test_a_sweep_that_starts_otherwise(settings: dict[str, Any]) -> None:
    assert first(SPACE, **settings) == []


# -- in a sweep

MINE = Family(
    {"mode": "fast"},
    (),
    [{"x": 9.0, "y": 1}, {"x": -2.0, "y": 2}, {"x": 3.0, "y": 7}],
    [[1.0, 0.1, 0.3], [0.5, 0.9, 0.0], [0.0, 0.0, 0.9]],
)
SWEEP = (
    *("--multirun", "hydra/sweeper=optuna_async", "hydra.sweeper.sampler.seed=5"),
    *("hydra.sweep.dir=s", "x=interval(-5.0,5.0)", "y=range(0,5)", "z=a,b"),
)
AUTO = "hydra.sweeper.portfolio=auto"
FIRST = [(-2.0, 2), (3.0, 4), (5.0, 1)]  # clipped to the space
LINE = "comes first: 3 configurations that did well on other small data sets"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> App:
    monkeypatch.setattr(portfolio, "families", lambda: (MINE,))
    return App(tmp_path, monkeypatch, capfd, is_quick=True)


def drawn(app: App) -> list[tuple[float, int]]:
    return [(trial.params["x"], trial.params["y"]) for trial in app.study().trials]


def test_a_sweep_tries_them_first_and_says_so(app: App) -> None:
    out = app(*SWEEP, AUTO, "hydra.sweeper.n_trials=10")
    assert out.code == 0, out.text
    assert out.stdout.count(LINE) == 1
    assert drawn(app)[:3] == FIRST
    assert not {*FIRST} & {*drawn(app)[3:]}
    assert all(trial.params["z"] in ("a", "b") for trial in app.study().trials)
    plan = app(*SWEEP, AUTO, "hydra.sweeper.dry_run=true", "hydra.sweep.dir=t")
    assert LINE in plan.stdout
    assert "#1  x=3.0 y=4" in plan.stdout


def test_other_apps_try_nothing_first_by_default(app: App) -> None:
    out = app(*SWEEP, "hydra.sweeper.n_trials=9")
    assert "comes first" not in out.stdout
    assert not {*FIRST} & {*drawn(app)}
    stored = yaml.safe_load((app.folder / "s/sweep.yaml").read_text())
    assert "portfolio" not in stored["search"]  # like a study of an earlier version


def test_a_resumed_sweep_goes_on_in_the_portfolio_and_never_begins_it_again(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_at_the_second(cfg: Any) -> float:
        if len(app.jobs) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
        return float(cfg.x)

    app.task = stop_at_the_second
    assert app(*SWEEP, AUTO, "hydra.sweeper.n_trials=9").code == 130
    assert len(drawn(app)) < 4
    app.task = lambda cfg: float(cfg.x)
    # A later version may come with another portfolio: this sweep has its own.
    monkeypatch.setattr(portfolio, "families", lambda: (FAMILY,))
    out = app(*SWEEP[:2], "hydra.sweep.dir=s", "hydra.sweeper.n_trials=12")
    assert out.code == 0, out.text
    assert "comes first" not in out.stdout
    assert drawn(app)[:3] == FIRST
    assert not {*FIRST} & {*drawn(app)[3:]}
    assert len(drawn(app)) == 12


@pytest.mark.parametrize("change", ["", "hydra.sweeper.on_change=extend"])
@pytest.mark.parametrize(("before", "after"), [("auto", "none"), ("none", "auto")])
def test_a_sweep_that_has_started_keeps_the_setting(
    app: App, before: str, after: str, change: str
) -> None:
    key = "hydra.sweeper.portfolio"
    assert app(*SWEEP, f"{key}={before}", "hydra.sweeper.n_trials=3").code == 0
    more = [change] if change else []
    out = app(*SWEEP[:2], "hydra.sweep.dir=s", f"{key}={after}", *more)
    assert key in out.error() if change else key in out.text
    assert out.code == 1
    assert app.jobs == []


def test_a_study_of_an_earlier_version_resumes_without_one(app: App) -> None:
    app(*SWEEP, "hydra.sweeper.n_trials=1")
    app.extend(hydra={"sweeper": {"portfolio": "auto"}})  # as this version's presets
    out = app(*SWEEP[:2], "hydra.sweep.dir=s", "hydra.sweeper.n_trials=4")
    assert out.code == 0, out.text
    assert not {*FIRST} & {*drawn(app)}


@pytest.mark.slow
def test_a_sweep_that_is_killed_again_and_again_tries_each_of_them_once(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/config.yaml").write_text(CRASH_CONF)
    family = [{"applies_to": {"epochs": 2}, "same": [], "data_sets": ["a", "b", "c"]}]
    rows = zip(MINE.configurations, MINE.scores, strict=True)
    family[0]["configurations"] = [{"params": params, "scores": row} for params, row in rows]
    (tmp_path / "mine.yaml").write_text(json.dumps(family))
    head = "from visionsweep.sweep import portfolio\nportfolio.FILE = 'mine.yaml'\n"
    head = head.replace("'mine.yaml'", "__import__('pathlib').Path('mine.yaml').resolve()")
    (tmp_path / "app.py").write_text(head + CRASH_APP)
    command = [sys.executable, "app.py", *SWEEP[:-1], AUTO, "hydra.sweeper.n_trials=10"]
    command += ["epochs=2", "hydra.launcher.n_jobs=1", "hydra/launcher=workers"]
    study = tmp_path / "s/study.db"

    def num_trials() -> int:
        """Count without Optuna, which would create the tables at the same time as the sweep."""
        try:
            with contextlib.closing(sqlite3.connect(f"file:{study}?mode=ro", uri=True)) as file:
                return int(file.execute("SELECT COUNT(*) FROM trials").fetchone()[0])
        except sqlite3.OperationalError:
            return 0

    for number in range(3):  # killed as soon as trial `number` is there
        process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
        deadline = time.monotonic() + 60
        while num_trials() <= number and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
    trials = optuna.load_study(study_name="s", storage=f"sqlite:///{study}").trials
    found = [(trial.params["x"], trial.params["y"]) for trial in trials]
    assert found[:3] == FIRST
    assert len(found) == 10
    assert not {*FIRST} & {*found[3:]}


# -- the portfolio of this project


@pytest.mark.parametrize("sweeper", ["default", "boring", "thorough"])
def test_the_presets_try_configurations_that_their_space_has(
    sweeper: str, compose: Compose
) -> None:
    cfg = compose(f"hydra/sweeper={sweeper}", return_hydra_config=True)
    node = cfg.hydra.sweeper
    assert node.portfolio == "auto"
    space = parse_space(None, OmegaConf.to_container(node.default_params, resolve=True), [])  # type: ignore[arg-type]
    settings = sweep_settings(portfolio="auto", sampler=TPE, n_trials=node.n_trials)
    found = first_configurations(settings, space, lambda key: OmegaConf.select(cfg, key))
    assert 3 <= len(found) <= 6
    for params in found:
        assert len(params) >= 2
        assert space.check_params(params, "here") == params


@pytest.mark.slow  # composes every configuration
def test_the_portfolio_sets_what_a_run_has(compose: Compose) -> None:
    for family in portfolio.families():
        for params in family.configurations:
            compose(*(f"{key}={value}" for key, value in params.items()))
        for scores in family.scores:
            assert len(scores) == len(family.scores[0]) >= 6
            assert all(0 <= score <= 1 for score in scores)
        cfg = compose()
        for key, value in family.applies_to.items():
            assert OmegaConf.select(cfg, key) == value


def test_other_networks_have_none(compose: Compose) -> None:
    cfg = compose("model=timm", return_hydra_config=True)
    settings = sweep_settings(portfolio="auto", sampler=TPE)
    space = parse_space(None, None, ["optim.lr=interval(1e-4,1e-1)", "loss=focal,ce_f1"])
    assert first_configurations(settings, space, lambda key: OmegaConf.select(cfg, key)) == []
