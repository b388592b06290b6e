"""MLflow's page of a sweep of 300 trials: `python benchmarks/mlflow_page.py`. Needs Chromium and Playwright.

The sweep's directory is made up (`sweep_page.py`), but its journals are as a run writes them: 27 epochs, 31 metrics, 29
parameters and more, two data sets, two trials of three pruned. `sync` sends it to SQLite, and `mlflow ui` shows it as
`make ui` does. Measured from the call of the address until the rows can be seen, in a page that nothing is cached for
(`fresh`) and in a second one of the same browser (`again`), each the median of 5: the table as it opens (the sweep
alone, its trials folded in) and sorted by the best F1 (trials). MLflow's page asks for 100 runs at a time; the others
come with "Load more". The bar: rows within 2 s. Beside it the API's own call, and what else stands in the way. Then the
sweep's report in the frame of MLflow's artifacts: drawn, and no error on the console.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the server and the browser are those of the tests

from machine import machine
from sweep_page import make_sweep, timed

from tests.browser.mlflow_ui import MlflowUi, chromium, fresh_page
from visionsweep.report.sweep_page import write_sweep_page
from visionsweep.report.sweep_record import SweptTrial, read_sweep
from visionsweep.tracking import sync
from visionsweep.tracking.journal import Journal

ROUNDS = 5
EXPERIMENT = "visionsweep"
STUDY = "sweep"
BARS = {"folded_fresh": 2.0, "folded_again": 2.0, "sorted_fresh": 2.0, "sorted_again": 2.0}
VIEWS = {
    "folded": "workflowType=machine_learning",
    "sorted": "workflowType=machine_learning&orderByKey=metrics.%60best%2Ff1_macro%60&orderByAsc=false",
}
# The rows that fit into the window are there, each with its name.
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
    """Give each trial of a made up sweep the journal of a real run, with the curve that it has."""
    for trial in read_sweep(sweep_dir).trials:
        run_dir = sweep_dir / str(trial.directory)
        (run_dir / "events.jsonl").unlink()
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
    journal.datasets([data | {"source": "digits", "profile": {"num_images": 1438}} for data in sets])
    times = [round(1000 * (trial.start or 0.0) + 2000 * epoch) for epoch, _ in trial.curve]
    for (epoch, value), time_ms in zip(trial.curve, times, strict=True):
        journal.metrics(epoch, _metrics(value, lr), time_ms)
    last = trial.curve[-1][1]
    best_epoch, best = max(trial.curve, key=lambda point: point[1])
    if trial.state == "complete":
        once = {"best/f1_macro": best, "best/accuracy": best, "best/loss": 1.1 - best, "best/epoch": best_epoch}
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
    values = {"train/loss": 1 - value, "train/lr": lr, "train/grad_norm": 2 - value, "train/images_per_second": 9e3}
    values |= {"val/loss": 1.1 - value} | {f"val/{name}": value for name in names}
    return values | {f"val/f1_class/{k}": value - 0.001 * k for k in range(10)}


class Table:
    """The runs table in the browser: how long it takes, and where that time goes."""

    def __init__(self, ui: MlflowUi, experiment_id: str) -> None:
        self._url = f"{ui.url}/#/experiments/{experiment_id}/runs?"
        self.searches: list[dict[str, Any]] = []  # what the page asks the API for
        self.asked: list[float] = []  # seconds from the start until it asks for runs
        self.answered: list[float] = []  # until it has them

    def open(self, page: Any, view: str, num_rows: int) -> float:
        """Return the seconds until `num_rows` rows can be seen."""
        started = time.perf_counter()
        first: list[float] = []

        def note_request(request: Any) -> None:
            if request.url.endswith("/mlflow/runs/search"):
                self.searches.append(request.post_data_json)
                first.append(time.perf_counter() - started)

        def note_answer(response: Any) -> None:
            if response.url.endswith("/mlflow/runs/search"):
                self.answered.append(time.perf_counter() - started)

        page.on("request", note_request)
        page.on("response", note_answer)
        page.goto(self._url + VIEWS[view])
        page.wait_for_function(ROWS, arg=num_rows)
        seconds = time.perf_counter() - started
        self.asked += first[:1]
        page.remove_listener("request", note_request)
        page.remove_listener("response", note_answer)
        return seconds


def measure_table(ui: MlflowUi, browser: Any, experiment_id: str) -> dict[str, float]:
    """Return the seconds of each view, fresh and again, and those of the parts of the fresh sorted one."""
    figures: dict[str, float] = {}
    for view, num_rows in (("folded", 1), ("sorted", 15)):
        table = Table(ui, experiment_id)
        fresh, again = [], []
        for number in range(ROUNDS + 1):
            with fresh_page(browser) as (page, errors):
                seconds = table.open(page, view, num_rows)
                context = page.context
                page.close()  # it would go on asking, every 30 seconds
                repeated = table.open(context.new_page(), view, num_rows)
                if number == 0:  # the server has answered once before
                    table.asked.clear()
                    continue
                fresh.append(seconds)
                again.append(repeated)
                if errors:
                    raise SystemExit(f"errors on the console: {errors}")
        figures[f"{view}_fresh"] = statistics.median(fresh)
        figures[f"{view}_again"] = statistics.median(again)
        figures[f"{view}_fresh_until_asked"] = statistics.median(table.asked[0::2])
        figures[f"{view}_again_until_asked"] = statistics.median(table.asked[1::2])
        body = table.searches[-1]
        figures[f"{view}_api"] = timed(lambda body=body: ui.call("runs/search", body))  # type: ignore[misc]
        figures[f"{view}_runs_asked_for"] = body.get("max_results", 0)
    return figures


def measure_report(ui: MlflowUi, browser: Any, experiment_id: str, parent: str) -> float:
    """Return the seconds until the report's charts are drawn in the frame of the artifacts; no error may be there."""
    url = f"{ui.url}/#/experiments/{experiment_id}/runs/{parent}/artifacts/report.html?workflowType=machine_learning"
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
    """Return the seconds that `sync` takes to send everything into a new database."""
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        if sync.main([str(sweep_dir), "--uri", f"sqlite:///{database}"]) != 0:
            raise SystemExit(said.getvalue())
    return time.perf_counter() - started


def main() -> None:
    """Make the sweep, send it, look at it, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument(
        "--keep", type=Path, help="make everything in this directory, and leave it; reuse what is there"
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
        page, record = sweep_dir / "report.html", read_sweep(sweep_dir)
        figures["report_made"] = timed(lambda: write_sweep_page(record, page))
        figures["report_megabytes"] = page.stat().st_size / 1e6
        with MlflowUi(database) as ui, chromium() as browser:
            runs = ui.runs(EXPERIMENT)
            parent = next(run["info"] for run in runs if run["info"]["run_name"] == STUDY)
            trial = max((run["data"] for run in runs), key=lambda data: len(data["metrics"]))
            experiment_id = parent["experiment_id"]
            body = {"experiment_ids": [experiment_id], "max_results": 1000}
            figures["api_all"] = timed(lambda: ui.call("runs/search", body))
            figures |= measure_table(ui, browser, experiment_id)
            figures["report_drawn"] = measure_report(ui, browser, experiment_id, parent["run_id"])
    counts = {key: len(trial[key]) for key in ("metrics", "params", "tags")}
    print(f"{machine()}  {len(runs)} runs, one of them with {counts}; seconds, median of {ROUNDS}")
    for name, value in figures.items():
        bar = f"   bar {BARS[name]:g}" if name in BARS else ""
        print(f"{name.replace('_', ' '):<28}{value:8.3f}{bar}")
    print(json.dumps({name: round(value, 4) for name, value in figures.items()} | counts))


if __name__ == "__main__":
    main()
