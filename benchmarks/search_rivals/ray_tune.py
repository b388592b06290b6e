"""Ray Tune with ASHA and Optuna, two concurrent trials: `ray_tune.py OVERRIDE...`.

`ASHAScheduler` and `OptunaSearch` with their defaults, besides the seed and the epochs of a full
trial. `reuse_actors` keeps the two processes warm, which saves some seconds per trial.

The overrides are those of `train.py --multirun`; runs are in `outputs/NUMBER`.
"""

import argparse
import functools
import os
from pathlib import Path
from typing import Any

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from training import split_overrides, suggest, train

from visionsweep.errors import TrainingError

F1 = "f1"
SLOTS = 2
OBJECT_STORE_BYTES = 100 * 2**20  # nothing is stored there


def trainable(config: dict[str, Any], fixed: list[str], directory: Path) -> None:
    """Train one configuration, in a worker of Ray's."""

    def report(f1: float, epoch: int) -> bool:
        tune.report({F1: f1})  # does not return if the scheduler stops the trial
        return False

    os.chdir(directory)
    number = int(tune.get_context().get_trial_id(), 16)
    try:
        train(fixed, config, number, report)
    except TrainingError:  # the loss is NaN; an error would cost Ray its warm process
        tune.report({F1: 0.0})


def main() -> None:
    """Search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=27, help="of a full trial")
    arguments = parser.parse_args()
    fixed, space = split_overrides(arguments.overrides)
    directory = Path.cwd()
    ray.init(
        num_cpus=SLOTS,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=str(directory / "ray"),  # the paths of its sockets must stay below 108 bytes
        _node_ip_address="127.0.0.1",
    )
    tune.Tuner(
        tune.with_parameters(trainable, fixed=fixed, directory=directory),
        tune_config=tune.TuneConfig(
            metric=F1,
            mode="max",
            search_alg=OptunaSearch(
                functools.partial(suggest, space=space), metric=F1, mode="max", seed=arguments.seed
            ),
            scheduler=ASHAScheduler(max_t=arguments.epochs, grace_period=1),
            num_samples=arguments.trials,
            max_concurrent_trials=SLOTS,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(directory / "tune"), verbose=0),
    ).fit()


if __name__ == "__main__":
    main()
