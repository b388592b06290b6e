"""Whole sweeps of one app by hydra-optuna-sweeper and by ours must be equal.

With the same sampler and seed that holds for distributions, drawn and fixed parameters, the jobs'
overrides and the results file. Each intended difference has its own test, and is listed in
docs/sweeping.md.
"""

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from tests.sweep.apps import App, Outcome, sphere
from visionsweep.sweep import open_study

SEED = 5
RANDOM = ("hydra/sweeper/sampler=random", f"hydra.sweeper.sampler.seed={SEED}")


@dataclass(frozen=True)
class Run:
    """The sweep of one sweeper."""

    outcome: Outcome
    study: optuna.Study
    overrides: list[tuple[str, ...]]
    configs: list[Any]
    results: str | None

    def trials(self) -> list[tuple[Any, ...]]:
        return [
            (t.number, t.state, t.values, list(t.params.items()), t.distributions, self.fixed(t))
            for t in self.study.trials
        ]

    @staticmethod
    def fixed(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
        return {
            key: value for key, value in trial.user_attrs.items() if not key.startswith("sweep:")
        }


Both = Callable[..., tuple[Run, Run]]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> App:
    app = App(tmp_path, monkeypatch, capfd, is_quick=True)
    app.task = checksum
    return app


def checksum(cfg: DictConfig) -> float:
    """Return a number that differs between any two jobs."""
    return float(zlib.crc32(str(sorted(HydraConfig.get().overrides.task)).encode()) % 1000)


@pytest.fixture
def both(app: App, monkeypatch: pytest.MonkeyPatch) -> Both:
    """Return a function that runs arguments through both sweepers."""
    studies: list[optuna.Study] = []
    create = optuna.create_study

    def noted(**arguments: Any) -> optuna.Study:
        studies.append(create(**arguments))
        return studies[-1]

    def one_sampler(config: Any, seed: int) -> Any:
        """Use one sampler for the whole sweep, as upstream. Ours makes one per trial."""
        sampler = optuna.samplers.RandomSampler(seed=SEED)
        return lambda number: sampler

    def run(
        *arguments: str, n_trials: int | None = 2, sampler: tuple[str, ...] = RANDOM
    ) -> tuple[Run, Run]:
        budget = () if n_trials is None else (f"hydra.sweeper.n_trials={n_trials}",)
        found = []
        for name in ("optuna", "optuna_async"):
            monkeypatch.setattr(optuna, "create_study", noted)
            if sampler == RANDOM:
                monkeypatch.setattr(open_study, "sampler_factory", one_sampler)
            common = (
                "--multirun",
                f"hydra/sweeper={name}",
                f"hydra.sweep.dir={name}",
                "hydra.sweeper.n_jobs=1",
            )
            outcome = app(*common, *sampler, *budget, *arguments)
            assert outcome.code == 0, outcome.text
            study = studies[0] if name == "optuna" else app.study(name)
            file = app.folder / name / "optimization_results.yaml"
            found.append(
                Run(
                    outcome,
                    study,
                    app.overrides,
                    app.configs,
                    file.read_text() if file.exists() else None,
                )
            )
        return found[0], found[1]

    return run


def assert_equal(theirs: Run, ours: Run) -> None:
    assert ours.trials() == theirs.trials()
    # Ours runs a repeated configuration once.
    different = dict(reversed(list(zip(theirs.overrides, theirs.configs, strict=True))))
    assert ours.overrides == list(dict.fromkeys(theirs.overrides))
    assert [repr(config) for config in ours.configs] == [repr(different[o]) for o in ours.overrides]
    numbers = r"^(best_trial|  trial): \d+\n"  # ours only
    own = None if ours.results is None else re.sub(numbers, "", ours.results, flags=re.M)
    assert own == theirs.results
    assert ours.study.directions == theirs.study.directions


# tests/sweep/space/test_grammar.py compares every form, function by function.
FORMS = {
    "documentation": [
        "x=interval(-5.0, 5.0)",
        "y=range(1,5)",
        "z=tag(log, interval(1e-4,0.1))",
        "+w=tag(log, int(interval(1, 64)))",
        "+v=range(-5.5,5.5,step=0.5)",
        "mode=choice(fast, slow)",
        "seed=3",
    ],
    "values": [
        "mode='a, b',\"it's\",c d",
        "z=null,1,abc",
        "numbers=[1,2],[3,[4,null]],[]",
        "+w={a:1},{a:2}",
        "old={a:2}",
        "+v='x,y'",
    ],
    "prefixes": ["+w=1,2", "++old.a=range(3)", "++v=null", "~numbers"],
    "groups": ["db=mysql,postgresql", "db@backup=sqlite,mysql", "+db@more=mysql", "mode=slow"],
    "the same key": ["x=1,2", "x=3,4,5", "y=1", "y=2", "z=1,2", "z=7"],
    "nothing": [],
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if index else name
        for index, name in enumerate(FORMS)
    ],
)
def test_every_form_of_the_command_line(both: Both, name: str) -> None:
    assert_equal(*both(*FORMS[name]))


@pytest.mark.slow
def test_params_in_yaml_and_the_command_line_over_them(app: App, both: Both) -> None:
    params = {
        "x": "range(-5.5,5.5,step=0.5)",
        "y": "choice(-5,0,5)",
        "mode": "slow",
        "seed": 3,
        "db": "mysql,postgresql",
        "numbers": "[1,2],[3]",
    }
    app.extend(hydra={"sweeper": {"params": params}})
    assert_equal(*both("x=interval(-5.0,5.0)", "y=3", "z=1,2"))


def configure(cfg: DictConfig, trial: optuna.Trial) -> None:
    """Upstream's example of a search space in Python."""
    x = trial.params["x"]
    assert trial.user_attrs == {"mode": "slow"}  # "can be inspected to find any fixed parameters"
    trial.suggest_float("z", x - cfg.epochs, x + cfg.epochs)
    trial.suggest_float("+w", 0.0, 1.0)


# Hydra warns of any app without an allow-list for targets.
WARNED = pytest.mark.filterwarnings("ignore:hydra.utils.instantiate:UserWarning")


@WARNED
@pytest.mark.slow
def test_a_custom_search_space(both: Both) -> None:
    custom = f"hydra.sweeper.custom_search_space={__name__}.configure"
    theirs, ours = both("x=range(-5.5, 5.5, 0.5)", "y=choice(-5, 0, 5)", "mode=slow", custom)
    assert_equal(theirs, ours)
    assert [o.partition("=")[0] for o in ours.overrides[0]] == ["x", "y", "z", "+w", "mode"]


@WARNED
def test_a_custom_search_space_must_not_draw_what_is_fixed(app: App) -> None:
    """Upstream refuses it too, with a traceback."""
    custom = f"hydra.sweeper.custom_search_space={__name__}.z_too"
    out = app.sweep("x=1,2", "z=3", "mode=slow", custom)
    assert out.error().startswith("z: is fixed to 3")


def z_too(cfg: DictConfig, trial: optuna.Trial) -> None:
    trial.suggest_float("z", 0.0, 1.0)


@pytest.mark.slow
def test_several_objectives(app: App, both: Both) -> None:
    app.task = lambda cfg: (cfg.x**2 + cfg.y, (cfg.x - 2) ** 2)
    theirs, ours = both(
        "x=range(0, 5, step=0.5)",
        "y=range(0, 3, step=0.5)",
        "hydra.sweeper.direction=[minimize,maximize]",
        n_trials=4,
    )
    assert_equal(theirs, ours)
    assert ours.results is not None
    assert ours.results.startswith("name: optuna\nsolutions:\n- params:\n    x: ")


@pytest.mark.slow
def test_failures(app: App, both: Both) -> None:
    def task(cfg: DictConfig) -> float:
        if HydraConfig.get().job.num % 2:
            raise ValueError
        return sphere(cfg)

    app.task = task
    assert_equal(*both("x=interval(-5.0,5.0)", "hydra.sweeper.max_failure_rate=1"))


# -- intended differences


@pytest.mark.slow
def test_a_grid_is_the_same_set_in_order(both: Both) -> None:
    """Upstream shuffles the grid, and needs a large enough n_trials."""
    grid = ("hydra/sweeper/sampler=grid",)
    theirs, ours = both("x=range(1,3)", "y=range(0.5,1.5,0.5)", n_trials=4, sampler=grid)
    assert len(theirs.overrides) == 4
    assert sorted(ours.overrides) == sorted(theirs.overrides)
    assert ours.overrides == [(f"x={x}", f"y={y}") for x in (1, 2) for y in (0.5, 1.0)]
    assert ours.study.best_value == theirs.study.best_value


@pytest.mark.slow
def test_a_repeated_configuration_runs_once(app: App, both: Both) -> None:
    """Upstream runs it again."""
    theirs, ours = both("y=1,2", n_trials=5)
    assert (len(theirs.overrides), len(ours.overrides)) == (5, 2)
    assert ours.trials() == theirs.trials()
