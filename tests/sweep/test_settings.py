"""The settings of a sweep: what is refused, and with which words."""

from typing import Any

import pytest

from tests.sweep.records import sweep_settings
from visionsweep.errors import ConfigError

GRID = {"_target_": "optuna.samplers.GridSampler"}
ASHA = {"_target_": "optuna.pruners.SuccessiveHalvingPruner"}
WILCOXON = {"_target_": "optuna.pruners.WilcoxonPruner"}
BOTH = ["minimize", "minimize"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"n_trials": 0}, "n_trials: expected at least 1, got 0"),
        ({"n_jobs": 0}, "n_jobs: expected at least 1, got 0"),
        ({"seeds": 0}, "seeds: expected at least 1, got 0"),
        ({"max_trials_without_improvement": 0}, "max_trials_without_improvement: expected at"),
        ({"retries": -1}, "retries: expected 0 or more, got -1"),
        ({"keep_checkpoints": -1}, "keep_checkpoints: expected 0 or more, got -1"),
        ({"timeout_seconds": 0}, "timeout_seconds: expected more than 0, got 0"),
        ({"max_failure_rate": 1.5}, "max_failure_rate: expected a fraction in [0, 1], got 1.5"),
        ({"max_failure_rate": float("nan")}, "max_failure_rate: expected a fraction in [0, 1]"),
        ({"direction": "up"}, "direction: expected maximize or minimize"),
        ({"direction": []}, "direction: expected maximize or minimize"),
        ({"direction": ["minimize", 1]}, "direction: expected maximize or minimize"),
        ({"direction": None}, "direction: expected maximize or minimize"),
        ({"storage": {"a": 1}}, "storage: expected an Optuna URL or null"),
        ({"enqueue": 7}, "enqueue: expected a list of {key: value}, got 7"),
        ({"pruner": WILCOXON}, "pruner: wilcoxon compares trials run by run"),
        ({"pruner": ASHA, "prune_by": "dominated"}, "prune_by: dominated compares several"),
        ({"direction": BOTH, "prune_by": "dominated"}, "prune_by: dominated needs a pruner that"),
        (
            {"direction": BOTH, "prune_by": "dominated", "pruner": WILCOXON, "seeds": 3},
            "prune_by: dominated needs a pruner that compares epochs",
        ),
        ({"direction": BOTH, "target_value": 1}, "target_value: has no meaning with several"),
        (
            {"seeds_for": "contenders"},
            "seeds_for: contenders has no effect here: there is one seed",
        ),
        (
            {"seeds_for": "contenders", "seeds": 3, "pruner": WILCOXON},
            "seeds_for: contenders has no effect here: wilcoxon compares",
        ),
        (
            {"seeds_for": "contenders", "seeds": 3, "confirm": "multirun/faces"},
            "seeds_for: contenders has no effect here: a confirmation has its own rule",
        ),
        ({"sampler": GRID, "enqueue": [{"x": 1}]}, "enqueue: has no effect on a grid"),
        ({"sampler": GRID, "warm_start": "old"}, "warm_start: has no effect on a grid"),
    ],
)
def test_bad_settings_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        sweep_settings(**keys)
    assert str(error.value).startswith(f"hydra.sweeper.{message}")
    assert "\n" not in str(error.value)


def test_the_seed_of_the_sampler() -> None:
    sampler = {"_target_": "optuna.samplers.TPESampler", "seed": 3}
    assert sweep_settings(sampler=sampler).sampler_seed(7) == 3
    assert sweep_settings(sampler=sampler | {"seed": None}).sampler_seed(7) == 7
    seeds = {sweep_settings(sampler=sampler | {"seed": None}).sampler_seed() for _ in range(3)}
    assert len(seeds) == 3
