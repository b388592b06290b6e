"""The cost of a dead server to training: runs of `train.py` on the digits, one thread, in turn."""

import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats
from sweep_apps.process import run_commands

from visionsweep.rundir.journal import read_journal
from visionsweep.rundir.layout import UPLOADER_LOG
from visionsweep.rundir.result import read_result

from .stores import refusing_server, silent_server

TRAIN = Path(__file__).resolve().parent.parent.parent / "train.py"
NONE = "none"
REFUSES = "refuses"
SILENT = "never answers"
VARIANTS = (NONE, REFUSES, SILENT)


@dataclass(frozen=True)
class Training:
    """One run, from the start of its first epoch to the end of its last."""

    seconds: float  # as recorded in the run's result file
    epoch: float  # median seconds per trained image, from the journal
    cpu: float  # user and system seconds of the trainer
    uploader_cpu: float
    refusals: int  # failed attempts of the uploader until the command ended


@dataclass(frozen=True)
class Ratio:
    """A variant's ratio to tracking=none in the same round: geometric mean, 95 % t-interval."""

    mean: float
    low: float
    high: float


def measure_trainings(rounds: int, epochs: int, directory: Path) -> dict[str, list[Training]]:
    """Train once per variant and round; exit if an uploader never called its dead server."""
    measured: dict[str, list[Training]] = {variant: [] for variant in VARIANTS}
    with refusing_server() as refusing, silent_server() as (silent, connections):
        uris = {NONE: None, REFUSES: refusing, SILENT: silent}
        _train(None, 1, directory / "warm")  # fills the file cache
        for index in range(rounds):
            turn = index % len(VARIANTS)
            for variant in VARIANTS[turn:] + VARIANTS[:turn]:
                num_before = len(connections)
                place = directory / f"{variant.replace(' ', '_')}_{index}"
                training = _train(uris[variant], epochs, place)
                measured[variant].append(training)
                calls = {NONE: 1, REFUSES: training.refusals, SILENT: len(connections) - num_before}
                if not calls[variant]:
                    raise SystemExit(
                        f"no uploader called the server that {variant}: use more --run-epochs"
                    )
    return measured


def ratio(measured: dict[str, list[Training]], variant: str, key: str) -> Ratio:
    """Compare one figure of the runs, round by round."""
    pairs = zip(measured[variant], measured[NONE], strict=True)
    logs = np.log([getattr(ours, key) / getattr(none, key) for ours, none in pairs])
    mean = logs.mean()
    margin = np.nan
    if len(logs) > 1:
        margin = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / len(logs) ** 0.5
    return Ratio(*(float(value) for value in np.exp([mean, mean - margin, mean + margin])))


def _train(uri: str | None, epochs: int, directory: Path) -> Training:
    command = [str(TRAIN), f"trainer.epochs={epochs}", "trainer.threads=1", "name=run"]
    command += (
        ["tracking=none"] if uri is None else [f"tracking.uri={uri}", "tracking.wait_seconds=0"]
    )
    (run,) = run_commands([command], directory)
    run_dir = directory / "outputs" / "run"
    result = read_result(run_dir)
    assert result is not None  # the command succeeded
    epochs_done = [
        record for record in read_journal(run_dir) if "train/loss" in record.get("values", {})
    ]
    end = epochs_done[-1]["time"] / 1000
    cpu, uploader_cpu = run.cpu_between(end - result["seconds"], end)
    log = run_dir / UPLOADER_LOG
    refusals = log.read_text(errors="replace").count("the store refused") if log.exists() else 0
    speeds = [record["values"]["train/images_per_second"] for record in epochs_done]
    return Training(result["seconds"], 1 / statistics.median(speeds), cpu, uploader_cpu, refusals)
