"""Plain Optuna 5, two processes on one storage: `optuna_two_processes.py OVERRIDE...`.

The study as Optuna's documentation shows it: `create_study` with SQLite and `load_if_exists`, its
default sampler, here with a seed per process, and `SuccessiveHalvingPruner`. `min_resource=1` saves
it from waiting for the first trial that ends: by default it prunes nothing until then.

The overrides are those of `train.py --multirun`; runs are in `outputs/NUMBER`.
"""

import argparse
import multiprocessing

import optuna
from training import Space, split_overrides, suggest, train

from visionsweep.errors import TrainingError
from visionsweep.sweep.trial import TrialPruned

STORAGE = "sqlite:///optuna.db"
PROCESSES = 2


def open_study(seed: int) -> optuna.Study:
    """Create the study, or open it if it exists."""
    return optuna.create_study(
        storage=STORAGE,
        study_name="rival",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1),
        load_if_exists=True,
    )


def optimize(seed: int, trials: int, fixed: list[str], space: Space) -> None:
    """Run trials in this process."""

    def objective(trial: optuna.Trial) -> float:
        def report(f1: float, epoch: int) -> bool:
            trial.report(f1, epoch)
            return trial.should_prune()

        suggest(trial, space)
        try:
            best = train(fixed, trial.params, trial.number, report)
        except TrialPruned:
            raise optuna.TrialPruned from None
        assert isinstance(best, float)
        return best

    open_study(seed).optimize(objective, n_trials=trials, catch=(TrainingError,))


def main() -> None:
    """Create the study and run both processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=20, help="of each process")
    arguments = parser.parse_args()
    open_study(0)  # two processes that create the tables at the same time would collide
    fixed, space = split_overrides(arguments.overrides)
    spawn = multiprocessing.get_context("spawn")
    processes = [
        # With the same seed, both would draw the same configurations at first.
        spawn.Process(
            target=optimize,
            args=(PROCESSES * arguments.seed + index, arguments.trials, fixed, space),
        )
        for index in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a process failed")


if __name__ == "__main__":
    main()
