"""The epochs of a search in the order in which they ended, read from the journals of its runs."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from visionsweep.rundir.journal import read_journal

METRIC = "val/f1_macro"


@dataclass(frozen=True)
class Epoch:
    """One epoch of a trial and its validation macro F1."""

    time: float  # of its end, in seconds since 1970
    trial: int
    number: int
    f1: float


@dataclass(frozen=True)
class Sweep:
    """The trials of a search."""

    epochs: list[Epoch]  # of all trials, by the time of their end
    start: float  # of the first trial, in seconds since 1970
    states: Counter[str]  # number of trials per end state

    def best(self) -> float:
        """Return the best macro F1."""
        return max(epoch.f1 for epoch in self.epochs)

    def seconds(self, epochs: int | None = None) -> float:
        """Return the time from the first trial's start to the end of the last epoch.

        ``epochs``: of at most this many.
        """
        return self.epochs[:epochs][-1].time - self.start

    def until(self, target: float) -> int | None:
        """Return the number of epochs until the target was reached, or None."""
        for count, epoch in enumerate(self.epochs, 1):
            if epoch.f1 >= target:
                return count
        return None

    def curves(self) -> dict[int, list[float]]:
        """Return the F1 of each epoch by trial number."""
        found: dict[int, list[float]] = {}
        for epoch in sorted(self.epochs, key=lambda epoch: (epoch.trial, epoch.number)):
            found.setdefault(epoch.trial, []).append(epoch.f1)
        return found


def read_sweep(sweep_dir: Path) -> Sweep:
    """Read the journals of the runs in a directory, whose names are numbers."""
    epochs, starts, states = [], [], Counter[str]()
    for run_dir in sorted(sweep_dir.glob("[0-9]*"), key=lambda path: int(path.name)):
        records = read_journal(run_dir)
        if not records:  # the run is starting
            continue
        starts += [record["time"] / 1000 for record in records if record["type"] == "start"]
        ends = [record["state"] for record in records if record["type"] == "end"]
        states[ends[-1] if ends else "failed"] += 1
        epochs += [
            Epoch(
                record["time"] / 1000,
                int(run_dir.name),
                record["step"],
                float(record["values"][METRIC]),
            )
            for record in records
            if record["type"] == "metrics" and METRIC in record["values"]
        ]
    return Sweep(sorted(epochs, key=lambda epoch: epoch.time), min(starts, default=0.0), states)
