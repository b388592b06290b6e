"""A sweep's directory, with the files that its controller writes and the journals of its trials."""

from visionsweep.sweep.results import TrialRecord, trials_csv
from visionsweep.sweep.stored import Stored
from visionsweep.tracking.journal import Journal

SPACE = {
    "optim.lr": {"type": "float", "low": 1e-4, "high": 0.1, "log": True, "step": None},
    "loss": {"choices": ["focal", "größer | <b>"]},
    "trainer.accumulate": {"choices": [1, 2, 4]},
}


def make_sweep(directory, trials):
    search = {"space": SPACE, "direction": ["maximize"], "seeds": 1}
    config = {"objective": {"metric": "val/f1_macro", "direction": "maximize", "others": {}}, "trainer": {"epochs": 9}}
    given = {"task_overrides": [], "hydra_overrides": [], "seed": 0, "git_commit": None}
    directory.mkdir()
    Stored(id="x", study_name="s", search=search, config=config, **given).write(directory)
    (directory / "trials.csv").write_text(trials_csv(trials, ["maximize"]), encoding="utf-8")
    for trial in trials:
        journal = Journal(directory / trial.directory)
        journal.start(str(trial.number), "tests", {}, {})
        for epoch in range(1, (trial.epochs or 0) + 1):
            journal.metrics(epoch, {"val/f1_macro": epoch / 10})
        journal.close()
    return directory


def trial(number, state="complete", value=0.5, lr=0.01, loss="focal", **fields):
    params = {"optim.lr": lr, "loss": loss, "trainer.accumulate": 2}
    values = None if value is None else (value,)
    fields = {"start": 1000.0 + number, "end": 1010.5 + number, "epochs": 3, "directory": str(number), **fields}
    return TrialRecord(number, state, values, params, **fields)
