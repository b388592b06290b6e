"""Searches by name: what a user types, with 2 workers, until a target or a number of epochs.

thaw      ours, `hydra/sweeper/pruner=thaw`
first     the same, and the portfolio comes first, chosen without the scores on Fashion-MNIST
asha      ours, `hydra/sweeper/pruner=asha` with `bootstrap_count=2`: otherwise the first
          configuration trains to its end however bad it is
optuna    plain Optuna 5 (optuna_two_processes.py)
ray       Ray Tune (ray_tune.py)
upstream  `hydra/sweeper=optuna`: TPE with its defaults, no pruning, batches of two that wait for
          the slower trial. It runs on our warm workers, which are faster than its own launchers.
random    ours, random configurations to their ends
"""

import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from sweep_apps.process import run_commands
from sweep_epochs import Sweep, read_sweep
from sweep_tasks import EPOCHS, Task

from visionsweep.sweep.portfolio import FILE, MAX_CONFIGURATIONS, greedy_order, reduced
from visionsweep.sweep.space.space import parse_space

SLOTS = 2
MANY = 1000  # trials; a search is ended before
HERE = Path(__file__).resolve().parent
TRAIN = HERE.parent.parent / "train.py"
_POLL_SECONDS = 1.0

OURS = "hydra/sweeper=visionsweep"
# A loss that is NaN fails its trial and no more, as in the other programs.
FAILURES = "hydra.sweeper.max_failure_rate=1.0"
# It was learned on images of Fashion-MNIST, too.
OF_FASHION_MNIST = {"fashion", "longtail"}
COLD = "hydra.sweeper.portfolio=none"
ASHA = ["hydra/sweeper/pruner=asha", "hydra.sweeper.pruner.bootstrap_count=2"]
SWEEPERS = {
    "thaw": [OURS, "hydra/sweeper/pruner=thaw", COLD, FAILURES],
    "first": [OURS, "hydra/sweeper/pruner=thaw", COLD, FAILURES],
    "asha": [OURS, *ASHA, COLD, FAILURES],
    "upstream": [
        "hydra/sweeper=optuna",
        "hydra.sweeper.direction=maximize",
        f"hydra.sweeper.n_jobs={SLOTS}",
        FAILURES,
    ],
    "random": [OURS, "hydra/sweeper/sampler=random", FAILURES],
}
RIVALS = {
    "optuna": ["optuna_two_processes.py", f"--trials={MANY}"],
    "ray": ["ray_tune.py", f"--trials={MANY}", f"--epochs={EPOCHS}"],
}
METHODS = ["thaw", "first", "optuna", "ray", "asha", "upstream"]


@dataclass(frozen=True)
class Search:
    """Searches on one task."""

    task: Task
    directory: Path  # short: the sockets of Ray are below it

    def run(
        self,
        method: str,
        seed: int,
        trials: int = MANY,
        target: float | None = None,
        cap: int | None = None,
    ) -> Sweep:
        """Search until a trial reaches the target, all have `cap` epochs together, or to the end.

        A program learns neither: it is watched through the files of its runs, and killed.
        """
        directory = self.directory / f"{method}{seed}"
        overrides = [*self.task.fixed, *self.task.space]
        if method in RIVALS:
            script, *options = RIVALS[method]
            command = [str(HERE / script), *options, f"--seed={seed}", *overrides]
            runs = directory / "outputs"
        else:
            command = [
                *(str(TRAIN), "--multirun", *overrides, *SWEEPERS[method], "study=search"),
                *("hydra/launcher=workers", f"hydra.launcher.n_jobs={SLOTS}"),
                *(f"hydra.sweeper.sampler.seed={seed}", f"hydra.sweeper.n_trials={trials}"),
                *([_enqueue(self.task.space)] if method == "first" else []),
            ]
            runs = directory / "multirun/search"
        looked = time.monotonic()

        def is_over() -> bool:
            nonlocal looked
            if time.monotonic() < looked + _POLL_SECONDS:
                return False
            looked = time.monotonic()
            sweep = read_sweep(runs)
            is_reached = target is not None and sweep.until(target) is not None
            return is_reached or (cap is not None and len(sweep.epochs) >= cap)

        run_commands([command], directory, is_over)
        return read_sweep(runs)


def _enqueue(space: list[str]) -> str:
    """Return the override that tries first what did well on other images than Fashion-MNIST's."""
    (node,) = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    columns = [k for k, name in enumerate(node["data_sets"]) if name not in OF_FASHION_MNIST]
    rows = node["configurations"]
    order = greedy_order([[row["scores"][k] for k in columns] for row in rows])
    searched = parse_space(None, None, space)
    chosen = [reduced(rows[i]["params"], searched) for i in order[:MAX_CONFIGURATIONS]]
    listed = (", ".join(f"{key}: {value}" for key, value in params.items()) for params in chosen)
    return f"hydra.sweeper.enqueue=[{', '.join(f'{{{params}}}' for params in listed)}]"
