"""A trainer that writes the journal of a trial without training, and a check of what arrived.

`python trials.py RUN_DIR SEED ENDING` is the trainer. The check compares journals with MLflow's
store and shares no code with `sync --verify`.
"""

import json
import math
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from visionsweep.rundir.atomic import atomic_write, write_text
from visionsweep.rundir.journal import Journal, read_journal, recorded_steps

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ENDS = ("finished", "pruned", "failed", "stopped")
# torn: in the middle of a record; stillborn: before the first one
KILLS = ("killed", "torn", "stillborn")
STATUS = {
    "finished": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "stopped": "KILLED",
    "killed": "KILLED",
}
EPOCHS = 6
STEPS = 15  # records per epoch
PARAMS = {"optim.lr": 1e-3, "loss": "focal", "augment": None, "größe": [1, "ä"], "long": "x" * 2000}
PARAMS_IN_MLFLOW = {
    "optim.lr": "0.001",
    "loss": "focal",
    "augment": "null",
    "größe": '[1, "ä"]',
    "long": "x" * 2000,
}

Record = dict[str, Any]


def train(run_dir: Path, seed: int, ending: str, sleep_seconds: float = 0.1) -> None:
    """Write the epochs that are missing; a killed trainer dies at a random record."""
    rng = random.Random(f"{seed} {run_dir.name} {ending}")
    journal = Journal(run_dir)
    if ending == "stillborn":
        _die(run_dir, torn=rng.random() < 0.5)
    first = max(recorded_steps(read_journal(run_dir)), default=0) // 100 + 1
    journal.start(run_dir.name, f"seed {seed}", PARAMS, {"pid": str(os.getpid()), "ä": "ö" * 10})
    journal.datasets(
        [
            {
                "name": "d train",
                "digest": "ab" * 10,
                "context": "train",
                "source": "d",
                "profile": {"n": 3},
            }
        ]
    )
    stop = threading.Event()
    sampler = threading.Thread(target=_sample, args=(journal, rng.random(), stop), daemon=True)
    sampler.start()
    countdown = rng.randrange(EPOCHS * (STEPS + 1)) if ending in KILLS else -1
    for epoch in range(first, first + EPOCHS):
        for step in range(STEPS + 1):
            if countdown == 0:
                _die(run_dir, torn=ending == "torn")
            countdown -= 1
            if step < STEPS:
                journal.metrics(
                    100 * epoch + step, {"train/loss": rng.random(), "train/lr": rng.random()}
                )
        _end_epoch(run_dir, journal, 100 * epoch + STEPS, rng)
        time.sleep(rng.random() * 2 * sleep_seconds)
    stop.set()
    sampler.join()
    if ending == "failed":
        write_text(run_dir / "traceback.txt", f"RuntimeError: {seed}\n")
        journal.artifact("traceback.txt")
        journal.tags({"error": "RuntimeError"})
    journal.end("finished" if ending in KILLS else ending)  # type: ignore[arg-type]
    journal.close()


def _end_epoch(run_dir: Path, journal: Journal, step: int, rng: random.Random) -> None:
    (run_dir / "checkpoints").mkdir(exist_ok=True)
    with atomic_write(run_dir / "checkpoints/best.pt") as file:
        file.write(rng.randbytes(50_000))
    journal.artifact("checkpoints/best.pt", "checkpoints")
    write_text(run_dir / "table.csv", f"step,f1\n{step},{rng.random()}\n")
    journal.artifact("table.csv", "tables")
    odd = rng.choice([rng.random(), math.nan, math.inf, -math.inf])
    journal.metrics(
        step,
        {"val/loss": odd, "val/f1_macro": rng.random(), "val/f1_class/Äpfel rot": rng.random()},
    )
    journal.tags({"step": str(step), "mlflow.runName": f"{run_dir.name} f1={step}"})
    journal.sync()


def _sample(journal: Journal, pause: float, stop: threading.Event) -> None:
    sample = 0
    while not stop.wait(0.02 + 0.1 * pause):
        sample += 1
        journal.system(sample, {"system/cpu_utilization_percentage": float(sample)})


def _die(run_dir: Path, *, torn: bool) -> None:
    if torn:
        with (run_dir / "events.jsonl").open("ab", buffering=0) as file:
            file.write(b'{"type":"metrics","time":17000000000')
    os.kill(os.getpid(), signal.SIGKILL)


def records_of(run_dir: Path) -> list[Record]:
    """Return the complete records of a journal."""
    lines = (run_dir / "events.jsonl").read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1]]


def compare(
    client: "MlflowClient", experiment: str, run_dirs: list[Path], artifacts: Path
) -> list[str]:
    """Return one line for each thing in MLflow that is missing, doubled, foreign or wrong.

    `client` may read the server's database directly. `artifacts` is the folder in which a server
    keeps the files. The experiment must hold these runs and, for a sweep, their parent.
    """
    from mlflow.entities import ViewType

    found_experiment = client.get_experiment_by_name(experiment)
    if found_experiment is None:
        return [f"no experiment {experiment}"]
    runs = client.search_runs([found_experiment.experiment_id], run_view_type=ViewType.ACTIVE_ONLY)
    lines = [f"{run.info.run_name} is RUNNING" for run in runs if run.info.status == "RUNNING"]
    parents = {run.info.run_id for run in runs if run.data.tags.get("visionsweep.kind") == "sweep"}
    if len(parents) > 1:
        lines.append(f"{len(parents)} parents")
    by_uid: dict[str, list[Run]] = {}
    for run in runs:
        if run.info.run_id not in parents:
            by_uid.setdefault(run.data.tags.get("visionsweep.uid", "no uid"), []).append(run)
    for run_dir in run_dirs:
        records = records_of(run_dir)
        if not records:
            continue
        found = by_uid.pop(records[0]["uid"], [])
        if len(found) != 1:
            lines.append(f"{run_dir}: {len(found)} runs in MLflow")
        for run in found:
            place = urlsplit(run.info.artifact_uri)
            folder = (
                Path(place.path) if place.scheme == "file" else artifacts / place.path.lstrip("/")
            )
            lines += [
                f"{run_dir}: {line}"
                for line in _compare_run(client, run, records, run_dir, folder, parents)
            ]
    return lines + [f"foreign runs of {uid}: {len(foreign)}" for uid, foreign in by_uid.items()]


def _compare_run(
    client: "MlflowClient",
    run: "Run",
    records: list[Record],
    run_dir: Path,
    folder: Path,
    parents: set[str],
) -> list[str]:
    expected: dict[str, Counter[tuple[Any, ...]]] = {}
    tags: dict[str, str] = {}
    files: dict[str, Path] = {}
    state = "killed"
    for record in records:
        tags |= record.get("tags", {})
        for key, value in record.get("values", {}).items():
            expected.setdefault(key, Counter())[
                (record["step"], record["time"], _finite(float(value)))
            ] += 1
        if record["type"] == "artifact":
            files[f"{record['folder']}/{Path(record['path']).name}".lstrip("/")] = (
                run_dir / record["path"]
            )
        if record["type"] in ("start", "resume", "end"):
            state = record.get("state", "killed")
    tags |= {"visionsweep.state": state}
    if parents:
        tags["mlflow.parentRunId"] = next(iter(parents))
    info, data = run.info, run.data
    lines = [
        f"tag {key}: {data.tags.get(key)!r}, not {tags[key]!r}"
        for key in tags
        if data.tags.get(key) != tags[key]
    ]
    if info.status != STATUS[state]:
        lines.append(f"status {info.status}, but it was {state}")
    if info.start_time != records[0]["time"] or info.end_time not in [
        record["time"] for record in records
    ]:
        lines.append(f"from {info.start_time} to {info.end_time}")
    if data.params != PARAMS_IN_MLFLOW:
        lines.append(f"parameters {data.params}")
    if [item.dataset.name for item in run.inputs.dataset_inputs] != ["d train"]:
        lines.append(f"data sets {[item.dataset.name for item in run.inputs.dataset_inputs]}")
    for key in expected.keys() | data.metrics.keys():
        history = client.get_metric_history(info.run_id, key)
        found = Counter((point.step, point.timestamp, _finite(point.value)) for point in history)
        if found != expected.get(key):
            missing, besides = (
                expected.get(key, Counter()) - found,
                found - expected.get(key, Counter()),
            )
            lines.append(f"{key}: {missing.total()} points missing, {besides.total()} too many")
    in_mlflow = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    if in_mlflow.keys() != files.keys():
        lines.append(f"files {sorted(in_mlflow)}, not {sorted(files)}")
    different = [
        name for name in in_mlflow.keys() & files.keys() if not _same(in_mlflow[name], files[name])
    ]
    return lines + [f"contents of {name} differ" for name in different]


def _same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else "not finite"


if __name__ == "__main__":
    train(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
