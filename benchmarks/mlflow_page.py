"""MLflow's page of a sweep of 300 trials: `python benchmarks/mlflow_page.py`.

Needs Chromium and Playwright. The sweep is made up (`sweep_page.py`), but its journals look like
those of real runs: 27 epochs, 31 metrics, at least 29 parameters, two data sets; two of three
trials are pruned. `sync` sends it to SQLite, and `mlflow ui` shows it as `make ui` does.

Measures the time until the rows are visible, median of 5, for two views: the table as it opens
(only the sweep, its trials folded) and the trials sorted by their best F1. `fresh` starts in a
browser with an empty cache, `inside` within MLflow's page after it has shown the table before.
MLflow's page loads 100 runs at a time; "Load more" loads the others. `bare` is the floor: the same
number of runs with a name and one metric each. The bar: rows within 2 s. Finally opens the sweep's
report in MLflow's artifact frame; the charts must appear without an error on the console.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
# The server and the browser come from the tests.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from machine import machine
from mlflow import MlflowClient
from sweep_page import make_sweep, timed

from tests.browser.mlflow_ui import MlflowUi, chromium, fresh_page
from visionsweep.report.sweep.page import write_report
from visionsweep.report.sweep.record import SweptTrial, read_sweep
from visionsweep.rundir.journal import Journal
from visionsweep.rundir.layout import JOURNAL, REPORT
from visionsweep.tracking import sync

ROUNDS = 5
EXPERIMENT = "visionsweep"
STUDY = "sweep"
NUM_ROWS = 15  # fewer than fit into the window
SETTLE_MS = 1000  # the page is still drawing the list of experiments
BARE = "bare"
BAR = 2.0
VIEWS = {
    "folded": "workflowType=machine_learning",
    "sorted": "workflowType=machine_learning&orderByAsc=false"
    "&orderByKey=metrics.%60best%2Ff1_macro%60",
}
# True once the rows that fit into the window are there, each with its name.
ROWS = """count => {
    const links = document.querySelectorAll('.ag-pinned-left-cols-container .ag-row a');
    return links.length >= count && [...links].every(link => link.textContent !== '');
}"""
FIXED: dict[str, Any] = {
    "model": "cnn",
    "optim": "adamw",
    "scheduler": "onecycle",
    "data": "digits",
    "optim.betas": [0.9, 0.999],
    "optim.eps": 1e-8,
    "optim.fused": True,
    "optim.amsgrad": False,
    "trainer.epochs": 27,
    "trainer.precision": "auto",
    "trainer.clip_norm": 1.0,
    "trainer.ema": None,
    "trainer.sampler": "shuffle",
    "split.val_fraction": 0.2,
    "split.fold": None,
    "seed": 0,
    "objective.metric": "val/f1_macro",
    "effective_batch_size": 32,
    "num_parameters": 288_554,
    "num_train_images": 1438,
    "num_val_images": 359,
    "num_classes": 10,
}


def write_journals(sweep_dir: Path) -> None:
    """Give each trial of a made-up sweep the journal of a real run, with the trial's curve."""
    for trial in read_sweep(sweep_dir).trials:
        run_dir = sweep_dir / str(trial.directory)
        (run_dir / JOURNAL).unlink()
        _write_journal(run_dir, trial)


def _write_journal(run_dir: Path, trial: SweptTrial) -> None:
    journal = Journal(run_dir)
    lr = trial.params["optim.lr"]
    name = f"#{trial.number:03d} {trial.params['loss']} lr={lr:.1e}"
    tags = {
        "git.commit": "0" * 40,
        "git.dirty": "false",
        "command": "train.py --multirun study=sweep hydra.launcher.n_jobs=4",
        "mlflow.source.name": "train.py",
        "mlflow.source.type": "LOCAL",
        "run_dir": str(run_dir),
        "dataset": "digits",
        "visionsweep.trial": str(trial.number),
    }
    journal.start(name, EXPERIMENT, FIXED | trial.params, tags)
    sets = [
        {"name": f"digits {part}", "digest": f"{i:016x}", "context": part}
        for i, part in enumerate(("train", "validation"))
    ]
    journal.datasets(
        [data | {"source": "digits", "profile": {"num_images": 1438}} for data in sets]
    )
    times = [round(1000 * (trial.start or 0.0) + 2000 * epoch) for epoch, _ in trial.curve]
    for (epoch, value), time_ms in zip(trial.curve, times, strict=True):
        journal.metrics(epoch, _metrics(value, lr), time_ms)
    last = trial.curve[-1][1]
    best_epoch, best = max(trial.curve, key=lambda point: point[1])
    if trial.state == "complete":
        once = {
            "best/f1_macro": best,
            "best/accuracy": best,
            "best/loss": 1.1 - best,
            "best/epoch": best_epoch,
        }
        once |= {"final/f1_macro": last, "final/accuracy": last, "final/loss": 1.1 - last}
        journal.metrics(trial.curve[-1][0], once, times[-1])
    end = "" if trial.state == "complete" else " pruned"
    journal.tags({"mlflow.runName": f"{name} f1={best:.3f}{end}"})
    journal.end("finished" if trial.state == "complete" else "pruned")
    journal.close()


def _metrics(value: float, lr: float) -> dict[str, float]:
    names = (
        "accuracy",
        "balanced_accuracy",
        "precision_macro",
        "precision_weighted",
        "recall_macro",
        "recall_weighted",
    )
    names += ("f1_macro", "f1_weighted", "top5_accuracy")
    values = {
        "train/loss": 1 - value,
        "train/lr": lr,
        "train/grad_norm": 2 - value,
        "train/images_per_second": 9e3,
    }
    values |= {"val/loss": 1.1 - value} | {f"val/{name}": value for name in names}
    return values | {f"val/f1_class/{k}": value - 0.001 * k for k in range(10)}


class Table:
    """The runs table of one experiment in the browser, timed."""

    def __init__(self, ui: MlflowUi, experiment_id: str, view: str, num_rows: int) -> None:
        self.home = f"{ui.uri}/#/experiments"
        self.address = f"{self.home}/{experiment_id}/runs?{VIEWS[view]}"
        self._num_rows = num_rows
        self.search: dict[str, Any] = {}  # the page's last request to the API
        self.asked = 0.0  # seconds until the page asked for runs, in the last visit

    def visit(self, page: Any, go: Callable[[], object]) -> float:
        """Return the seconds from `go` until the rows are visible."""
        asked: list[float] = []
        started = time.perf_counter()

        def note(request: Any) -> None:
            if request.url.endswith("/mlflow/runs/search"):
                self.search = request.post_data_json
                asked.append(time.perf_counter() - started)

        page.on("request", note)
        go()
        page.wait_for_function(ROWS, arg=self._num_rows)
        seconds = time.perf_counter() - started
        page.remove_listener("request", note)
        self.asked = asked[0]
        return seconds

    def measure(self, browser: Any) -> dict[str, float]:
        """Return the median seconds of visits in a fresh browser and from within its page."""
        found: dict[str, list[float]] = {"fresh": [], "fresh_until_asked": [], "inside": []}
        for number in range(ROUNDS + 1):
            with fresh_page(browser) as (page, errors):
                seconds = {"fresh": self.visit(page, lambda: page.goto(self.address))}
                seconds["fresh_until_asked"] = self.asked
                page.goto(self.home)  # changes only the part after "#", like a click
                page.wait_for_function("() => !document.querySelector('.ag-row')")
                page.wait_for_timeout(SETTLE_MS)
                seconds["inside"] = self.visit(page, lambda: page.goto(self.address))
                if errors:
                    raise SystemExit(f"errors on the console: {errors}")
            for name, value in seconds.items():
                if number:  # the first visit is also the server's first
                    found[name].append(value)
        return {name: statistics.median(values) for name, values in found.items()}


def measure_tables(
    ui: MlflowUi, browser: Any, experiment_id: str, bare_id: str
) -> dict[str, float]:
    """Return the seconds of the sweep's views and of the floor, and of their API calls."""
    figures: dict[str, float] = {}
    for name, table in {
        "folded": Table(ui, experiment_id, "folded", 1),
        "sorted": Table(ui, experiment_id, "sorted", NUM_ROWS),
        BARE: Table(ui, bare_id, "sorted", NUM_ROWS),
    }.items():
        figures |= {f"{name}_{key}": seconds for key, seconds in table.measure(browser).items()}
        figures[f"{name}_api"] = timed(functools.partial(ui.call, "runs/search", table.search))
    return figures


def make_bare_runs(database: Path, count: int) -> None:
    """Add an experiment of finished runs that have a name and one metric, and nothing else."""
    client = MlflowClient(f"sqlite:///{database}")
    experiment_id = client.create_experiment(BARE)
    for number in range(count):
        run_id = client.create_run(experiment_id, run_name=f"#{number:03d}").info.run_id
        client.log_metric(run_id, "best/f1_macro", number / count)
        client.set_terminated(run_id)


def measure_report(ui: MlflowUi, browser: Any, experiment_id: str, parent: str) -> float:
    """Return the seconds until MLflow's artifact frame shows the report's charts."""
    run = f"{ui.uri}/#/experiments/{experiment_id}/runs/{parent}"
    url = f"{run}/artifacts/{REPORT}?workflowType=machine_learning"
    with fresh_page(browser) as (page, errors):
        started = time.perf_counter()
        page.goto(url)
        frame = page.wait_for_selector("iframe.mlflow-html-iframe").content_frame()
        frame.wait_for_function("() => document.documentElement.dataset.charts !== undefined")
        seconds = time.perf_counter() - started
        problem = frame.evaluate("() => document.getElementById('problem').textContent")
        if errors or problem:
            raise SystemExit(f"the report has errors: {errors} {problem}")
    return seconds


def upload(sweep_dir: Path, database: Path) -> float:
    """Return the seconds `sync` takes to send everything to a new database."""
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()) as output:
        if sync.main([str(sweep_dir), "--uri", f"sqlite:///{database}"]) != 0:
            raise SystemExit(output.getvalue())
    return time.perf_counter() - started


def main() -> None:
    """Make the sweep, upload it, measure MLflow's page of it, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument(
        "--keep",
        type=Path,
        help="write to this directory and keep it; reuse what is there",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = (arguments.keep or Path(temporary)).resolve()
        sweep_dir, database = directory / STUDY, directory / "mlflow.db"
        figures: dict[str, float] = {}
        if not database.exists():
            make_sweep(sweep_dir, arguments.trials, arguments.epochs)
            write_journals(sweep_dir)
            figures["upload"] = upload(sweep_dir, database)
            make_bare_runs(database, arguments.trials)
        page, record = sweep_dir / REPORT, read_sweep(sweep_dir)
        figures["report_made"] = timed(lambda: write_report(sweep_dir, record))
        figures["report_megabytes"] = page.stat().st_size / 1e6
        with MlflowUi(database) as ui, chromium() as browser:
            runs = ui.runs(EXPERIMENT)
            parent = next(run["info"] for run in runs if run["info"]["run_name"] == STUDY)
            trial = max((run["data"] for run in runs), key=lambda data: len(data["metrics"]))
            experiment_id = parent["experiment_id"]
            body = {"experiment_ids": [experiment_id], "max_results": 1000}
            figures["api_all"] = timed(lambda: ui.call("runs/search", body))
            bare_id = ui.runs(BARE)[0]["info"]["experiment_id"]
            figures |= measure_tables(ui, browser, experiment_id, bare_id)
            figures["report_drawn"] = measure_report(ui, browser, experiment_id, parent["run_id"])
    counts = {key: len(trial[key]) for key in ("metrics", "params", "tags")}
    print(f"{machine()}  {len(runs)} runs, one of them with {counts}; seconds, median of {ROUNDS}")
    for name, value in figures.items():
        bar = f"   bar {BAR:g}" if name.endswith(("_fresh", "_inside")) else ""
        print(f"{name.replace('_', ' '):<28}{value:8.3f}{bar}")
    print(json.dumps({name: round(value, 4) for name, value in figures.items()} | counts))


if __name__ == "__main__":
    main()
