"""Which configurations of a study run again, and as which search space."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import optuna
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig
from optuna.distributions import CategoricalDistribution
from optuna.pruners import NopPruner
from optuna.storages import InMemoryStorage

import visionsweep.config.schema  # noqa: F401 - registers the schema
from tests.conftest import ROOT
from tests.sweep.apps import App
from tests.sweep.records import RANDOM, sweep_settings
from visionsweep.errors import ConfigError
from visionsweep.rundir.layout import STUDY
from visionsweep.sweep.composition import Composer
from visionsweep.sweep.confirm import Candidates, check_confirm, choose, listed_space
from visionsweep.sweep.samplers import sampler_factory
from visionsweep.sweep.space.space import SearchSpace, parse_space
from visionsweep.sweep.stored import Stored
from visionsweep.sweep.study import SweepStudy
from visionsweep.text import sqlite_url

GRID = "hydra/sweeper/sampler=grid"
GRID_SAMPLER = {"_target_": "optuna.samplers.GridSampler"}
Trials = list[tuple[dict[str, Any], float]]

# The defaults: cross_entropy, lr 0.003.
TRIALS: Trials = [
    ({"loss": "focal", "loss.gamma": 1.5, "optim.lr": 0.01}, 0.90),
    ({"loss": "cross_entropy", "optim.lr": 0.02}, 0.95),
    ({"loss": "focal", "loss.gamma": 1.5, "optim.lr": 0.01}, 0.90),
    ({"loss": "cross_entropy", "optim.lr": 0.003}, 0.99),
    ({"loss": "poly", "optim.lr": 0.01}, 0.80),
    ({"loss": "poly", "optim.lr": 0.03}, 0.70),
]


def make_study(
    directory: Path,
    trials: Trials,
    direction: str = "maximize",
    num_seeds: Sequence[int] = (),
) -> None:
    search = {"direction": [direction], "storage": None, "study_name": None, "space": {}}
    stored = Stored("a", "old", [], [], search | {"seeds": 1, "seed_key": "seed"}, {}, 0, None)
    directory.mkdir()
    stored.write(directory)
    url = sqlite_url(directory / STUDY)
    study = optuna.create_study(storage=url, study_name="old", direction=direction)
    values: dict[str, dict[Any, None]] = {}
    for params, _ in trials:
        for key, item in params.items():
            values.setdefault(key, {})[item] = None
    for number, (params, value) in enumerate(trials):
        choices = {key: CategoricalDistribution(list(values[key])) for key in params}
        seeds = {"seed_values": [value] * num_seeds[number]} if num_seeds else {}
        study.add_trial(
            optuna.create_trial(
                params=params,
                distributions=choices,
                value=value,
                user_attrs={"sweep:notes": seeds} if seeds else {},
            )
        )


def candidates_of(directory: Path, top: int = 3) -> Candidates:
    with hydra.initialize_config_dir(str(ROOT / "conf")):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("config", ["study=s"], run_mode=RunMode.MULTIRUN)
        context: Any = SimpleNamespace(config_loader=loader)
        settings = sweep_settings(confirm=str(directory), confirm_top=top, seeds=4)
        composer = Composer(context, config, SearchSpace((), {}, ()), settings)
        return choose(composer, settings)


def test_a_value_over_fewer_seeds_is_no_better_than_one_over_all(tmp_path: Path) -> None:
    make_study(tmp_path / "old", TRIALS, num_seeds=[1, 1, 1, 1, 3, 3])
    assert candidates_of(tmp_path / "old", top=3).trials == [None, 4, 5, 1]


def test_the_best_distinct_configurations_and_the_defaults(tmp_path: Path) -> None:
    make_study(tmp_path / "old", TRIALS)
    found = candidates_of(tmp_path / "old")
    assert found.params == [
        {"loss": "cross_entropy", "optim.lr": 0.003},  # of loss.gamma it has none
        {"loss": "cross_entropy", "optim.lr": 0.02},
        {"loss": "focal", "loss.gamma": 1.5, "optim.lr": 0.01},
        {"loss": "poly", "optim.lr": 0.01},
    ]
    assert found.trials == [None, 1, 0, 4]  # 3 has the defaults, 2 is 0 again
    assert found.num_searched == 5
    assert candidates_of(tmp_path / "old", top=1).trials == [None, 1]


def test_keys_of_a_zip_are_chosen_as_keys(tmp_path: Path) -> None:
    name = "zip(optim.lr,loss)"
    make_study(tmp_path / "old", [({name: f'[{lr}, "poly"]'}, lr) for lr in (0.01, 0.02)])
    assert candidates_of(tmp_path / "old").params == [
        {"loss": "cross_entropy", "optim.lr": 0.003},
        {"loss": "poly", "optim.lr": 0.02},
        {"loss": "poly", "optim.lr": 0.01},
    ]


def test_where_less_is_better(tmp_path: Path) -> None:
    make_study(tmp_path / "old", TRIALS, "minimize")
    with pytest.raises(ConfigError, match="has another direction"):
        candidates_of(tmp_path / "old")


def test_a_searched_seed_is_no_part_of_a_configuration(tmp_path: Path) -> None:
    seeds: Trials = [({"optim.lr": 0.01, "seed": seed}, 0.9 - seed / 100) for seed in range(3)]
    make_study(tmp_path / "old", [*seeds, ({"optim.lr": 0.02, "seed": 0}, 0.5)])
    found = candidates_of(tmp_path / "old")
    assert found.params == [{"optim.lr": 0.003}, {"optim.lr": 0.01}, {"optim.lr": 0.02}]
    assert found.trials == [None, 0, 3]


def test_without_defaults_the_first_trial_is_the_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Composer, "has_defaults", lambda self: False)
    make_study(tmp_path / "old", TRIALS)
    found = candidates_of(tmp_path / "old", top=2)
    assert found.trials == [0, 3, 1]
    assert found.params[0] == TRIALS[0][0]


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        ([], "no trial of .* is complete"),
        ([({"seed": 3}, 0.9)], "searched nothing but the seed"),
        ([({"optim.lr": 0.003}, 0.9)], "no complete configuration besides the baseline"),
    ],
)
def test_a_study_with_nothing_to_confirm_is_refused(
    tmp_path: Path, trials: Trials, words: str
) -> None:
    make_study(tmp_path / "old", trials)
    with pytest.raises(ConfigError, match=words):
        candidates_of(tmp_path / "old")


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.confirm: .* holds no sweep"):
        candidates_of(tmp_path)


def test_the_space_holds_the_candidates_and_nothing_between_them() -> None:
    params: list[dict[str, Any]] = [
        {"optim.lr": 0.003, "loss": "cross_entropy"},
        {"loss": "focal", "loss.gamma": 1.5},
        {"loss": "focal", "loss.gamma": 2.0, "optim.lr": 0.01},
    ]
    space = listed_space(
        Candidates("old", 9, [None, 1, 2], params), SearchSpace((), {"a": "1"}, ())
    )
    assert space.grid() == space.probes(lambda key: True) == params
    assert space.size() == 3
    assert set(space.overrides(params[1])) == {"loss=focal", "loss.gamma=1.5", "a=1"}
    study = SweepStudy(
        *(InMemoryStorage(), "s", ["maximize"]),
        owner="a",
        make_sampler=sampler_factory(RANDOM, 0),
        pruner=NopPruner(),
        suggest=space.suggest,
        presets=space.grid(),
    )
    assert [study.trial(study.ask()).params for _ in params] == params


@pytest.mark.parametrize(
    ("settings", "arguments", "words"),
    [
        ({"direction": ["maximize", "minimize"]}, [], "compares one objective"),
        ({"sampler": RANDOM}, [], r"hydra\.sweeper\.confirm: .* needs hydra/sweeper/sampler=grid"),
        ({}, ["optim.lr=0.1,0.2"], r"optim\.lr: a confirmation searches nothing"),
        (
            {"seeds": 2},
            [],
            r"hydra\.sweeper\.seeds: a confirmation needs at least 3 new seeds, got 2",
        ),
    ],
)
def test_what_a_confirmation_cannot_have_is_refused(
    settings: dict[str, Any], arguments: list[str], words: str
) -> None:
    given = sweep_settings(**({"seeds": 4, "sampler": GRID_SAMPLER} | settings))
    with pytest.raises(ConfigError, match=words):
        check_confirm(given, parse_space(None, None, arguments))


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> App:
    """An app with a finished study in the folder s; the default of x is 1."""
    app = App(tmp_path, monkeypatch, capfd, is_quick=True)
    assert app.sweep("x=2.0,3.0", GRID).code == 0
    return app


CONFIRM = (GRID, "hydra.sweeper.confirm=s", "hydra.sweeper.seeds=3")


def test_a_confirmation_whose_candidates_all_fail_is_one_line(app: App) -> None:
    def task(cfg: DictConfig) -> float:
        if cfg.x > 1:
            raise ValueError(f"no memory for x={cfg.x:g}")
        return 1.0

    app.task = task
    for _ in range(2):  # also when it is resumed
        assert app.sweep(*CONFIRM, "seed=8", to="c").error() == (
            "every configuration but the baseline failed, so nothing can be compared: ValueError: "
            "no memory for x=3. When it is mended, add hydra.sweeper.rerun_failed=true to the same "
            "command"
        )
    assert not (app.folder / "c/confirmation.json").exists()


@pytest.mark.parametrize(
    ("study_seeds", "seed", "line"),
    [
        (1, 7, "seed: the seeds 7 to 9 must be new, but the study s used 7; set seed=8"),
        (1, 5, "seed: the seeds 5 to 7 must be new, but the study s used 7; set seed=8"),
        (2, 8, "seed: the seeds 8 to 10 must be new, but the study s used 7 to 8; set seed=9"),
    ],
)
def test_seeds_that_the_study_used_are_refused(
    app: App, study_seeds: int, seed: int, line: str
) -> None:
    stored = app.folder / "s/sweep.yaml"
    stored.write_text(stored.read_text().replace("seeds: 1\n", f"seeds: {study_seeds}\n"))
    assert app.sweep(*CONFIRM, f"seed={seed}", to="c").error() == line
    assert not (app.folder / "c/sweep.yaml").exists()


def test_seeds_before_those_of_the_study_are_new_too(app: App) -> None:
    app.task = lambda cfg: 1 / 0
    assert "the baseline failed" in app.sweep(*CONFIRM, "seed=4", to="c").error()
    assert app.configs[0]["seed"] == 4


def test_a_wrong_function_of_the_test_split_is_found_before_anything_runs(app: App) -> None:
    evaluate = f"hydra.sweeper.evaluate={__name__}.evaluat"
    line = app.sweep(*CONFIRM, "seed=8", evaluate, to="c").error()
    assert line.startswith(f"{evaluate}: ")
    assert app.configs == []
