"""The composer's jobs are those that Hydra composes."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

import visionsweep.config.schema  # noqa: F401 - registers the schema
from tests.conftest import ROOT
from tests.sweep.records import sweep_settings
from visionsweep.sweep.composition import Composer, resolve
from visionsweep.sweep.space.space import SearchSpace

MULTIRUN = ["study=sweep", "tracking=none", "hydra/sweeper/pruner=none", "hydra.launcher.n_jobs=2"]
GROUPS = ("augment", "data", "loss", "model", "optim", "scheduler", "tracking", "trainer")
OPTIONS = [
    f"{group}={path.stem}"
    for group in GROUPS
    for path in sorted((ROOT / "conf" / group).glob("*.yaml"))
]
ODD = [
    [],
    ["hydra.sweep.subdir=3/seed_0", "seed=4"],
    ["+new=1"],
    ["+loss.nope={a: 1}"],
    ["++loss.gamma=2", "loss=focal"],
    ["loss=focal", "loss.gamma=2", "loss.gamma=3"],
    ["~scheduler.div_factor"],
    ["experiment=fashion_mnist", "optim.lr=0.5"],
    ["optim={lr: 0.1}"],
    ["optim.lr='${seed}'"],
    ["objective.others={num_parameters: minimize}"],
    ["tracking=mlflow", "tracking.uri=foo"],
    ["hydra.job.chdir=true"],
    ["loss.nope=3"],  # these are errors
    ["loss=nope"],
    ["trainer.accumulate=abc"],
    ["trainer.accumulate=1,2"],
    ["~loss"],
]


@pytest.fixture(scope="module")
def sweep() -> Iterator[tuple[Any, DictConfig]]:
    with hydra.initialize_config_dir(str(ROOT / "conf")):
        loader = GlobalHydra.instance().config_loader()
        yield loader, loader.load_configuration("config", MULTIRUN, run_mode=RunMode.MULTIRUN)


@pytest.fixture(scope="module")
def composer(sweep: tuple[Any, DictConfig]) -> Composer:
    loader, config = sweep
    context: Any = SimpleNamespace(config_loader=loader)
    settings = sweep_settings()
    return Composer(context, config, SearchSpace((), {}, ()), settings)


def described(compose: Any, overrides: list[str]) -> Any:
    """Return everything about a job's config, or its error."""
    try:
        config = compose(overrides)
    except Exception as error:
        return type(error), str(error)
    nodes = {
        key: (type(config._get_node(key)), config._get_node(key)._metadata.object_type)
        for key in config
    }
    flags = [
        (node._get_flag("struct"), node._get_flag("readonly")) for node in (config, config.hydra)
    ]
    return OmegaConf.to_yaml(config), nodes, flags


@pytest.mark.parametrize(
    "overrides",
    [
        *(
            pytest.param(["optim.lr=0.003", option, "trainer.accumulate=2"], marks=pytest.mark.slow)
            for option in OPTIONS
        ),
        *ODD,
    ],
)
def test_a_job_is_what_hydra_composes(
    sweep: tuple[Any, DictConfig], composer: Composer, overrides: list[str]
) -> None:
    loader, config = sweep
    expected = described(lambda given: loader.load_sweep_config(config, given), overrides)
    assert described(composer.compose, overrides) == expected
    assert described(composer.compose, overrides) == expected  # from the copy


def test_a_sweep_with_folds_checks_the_first_one(sweep: tuple[Any, DictConfig]) -> None:
    """Data with folds of its own cannot be split without one."""
    loader, config = sweep
    context: Any = SimpleNamespace(config_loader=loader)
    settings = sweep_settings(folds=3, fold_key="split.fold", folds_key="split.num_folds")
    folds = Composer(context, config, SearchSpace((), {}, ()), settings)
    checked = folds.check({})
    assert checked == ("split.fold=0", "split.num_folds=3")
    assert set(folds.overrides(0, {}, 0)) > set(checked)


def test_a_job_does_not_change_the_next(composer: Composer) -> None:
    first = composer.compose(["loss=focal", "loss.gamma=5"])
    first.loss.gamma = 7
    assert composer.compose(["loss=focal"]).loss.gamma == 2.0
    assert composer.compose(["loss=focal", "loss.gamma=5"]).loss.gamma == 5


def test_what_cannot_be_resolved_stays_as_written(composer: Composer) -> None:
    written = ["+a=${seed}", "+b.c=${no_such_key}", "+d=${no_such_key}", "+e=???"]
    found = resolve(composer.compose([f"{item}" for item in written]))
    assert found["a"] == found["seed"]
    assert found["b"] == {"c": "${no_such_key}"}
    assert (found["d"], found["e"]) == ("${no_such_key}", "???")
    assert "hydra" not in found
