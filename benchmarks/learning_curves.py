"""Learning curves of random configurations: `python benchmarks/learning_curves.py TASK OUT.json`.

Trains N random configurations of a task (sweep_tasks.py) to their ends, and writes the validation
macro F1 of each epoch: what thaw_rules.py replays.
"""

import argparse
import json
import tempfile
from pathlib import Path

from machine import machine
from search_rivals.searches import TRAIN
from sweep_apps.process import run_commands
from sweep_epochs import read_sweep
from sweep_tasks import make_task


def main() -> None:
    """Train, and write the curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task")
    parser.add_argument("out", type=Path)
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--seed", type=int, default=2000)
    parser.add_argument("--scheduler", default="none")
    parser.add_argument("--clothing", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        task = make_task(arguments.task, directory / "data", arguments.clothing)
        command = [
            *(str(TRAIN), "--multirun", *task.fixed, *task.space, "study=curves"),
            f"scheduler={arguments.scheduler}",
            *("hydra/sweeper=visionsweep", "hydra/sweeper/sampler=random"),
            *("hydra.sweeper.keep_checkpoints=0", "hydra.sweeper.max_failure_rate=1.0"),
            *(f"hydra.sweeper.sampler.seed={arguments.seed}", "hydra.launcher.n_jobs=2"),
            f"hydra.sweeper.n_trials={arguments.trials}",
        ]
        run_commands([command], directory)
        sweep = read_sweep(directory / "multirun/curves")
    curves = sweep.curves()
    found = {"machine": machine(), "task": task.name, "scheduler": arguments.scheduler}
    found |= {"seconds": sweep.seconds(), "curves": [curves[n] for n in sorted(curves)]}
    arguments.out.write_text(json.dumps(found))
    print(f"{task.name}: {len(curves)} curves in {sweep.seconds():.0f} s")


if __name__ == "__main__":
    main()
