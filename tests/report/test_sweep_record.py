"""What is read of a sweep's directory, who won by it, and that the page and the description say so."""

import base64
import gzip
import json
import re

import optuna
import pytest

from visionsweep.report.leaderboard import description_markdown, leaderboard_rows, leaderboard_table
from visionsweep.report.sweep_importances import importances
from visionsweep.report.sweep_page import write_sweep_page
from visionsweep.report.sweep_record import SweepRecord, SweptTrial, read_sweep
from visionsweep.sweep.results import TrialRecord, trials_csv
from visionsweep.sweep.stored import Stored
from visionsweep.tracking.journal import Journal

SPACE = {
    "optim.lr": {"type": "float", "low": 1e-4, "high": 0.1, "log": True, "step": None},
    "loss": {"choices": ["focal", "größer | <b>"]},
    "trainer.accumulate": {"choices": [1, 2, 4]},
}


def make_sweep(directory, trials):
    """Write the files of a sweep as its controller does, and the journals of its trials."""
    search = {"space": SPACE, "direction": ["maximize"], "seeds": 1}
    config = {"objective": {"metric": "val/f1_macro", "direction": "maximize", "others": {}}, "trainer": {"epochs": 9}}
    stored = Stored(
        id="x",
        study_name="s",
        task_overrides=[],
        hydra_overrides=[],
        search=search,
        config=config,
        seed=0,
        git_commit=None,
    )
    directory.mkdir()
    stored.write(directory)
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


@pytest.fixture
def sweep(tmp_path):
    trials = [
        trial(0, value=0.7),
        trial(1, value=0.9, lr=0.03, loss="größer | <b>"),
        trial(2, "pruned", value=0.95, epochs=1),  # a pruned trial never wins
        trial(3, "failed", value=None, error="loss is nan", epochs=0),
        trial(4, "running", value=None, end=None),
        trial(5, value=0.9),
    ]
    return make_sweep(tmp_path / "faces", trials)


def test_what_was_written_is_read(sweep):
    record = read_sweep(sweep)
    assert (record.name, record.metrics, record.directions) == ("faces", ("val/f1_macro",), ("maximize",))
    assert record.space == SPACE
    one = record.trials[1]
    assert one.params == {"optim.lr": 0.03, "loss": "größer | <b>", "trainer.accumulate": 2}
    assert (one.values, one.start, one.end, one.epochs, one.directory) == ((0.9,), 1001.0, 1011.5, 3, "1")
    assert one.curve == ((1, 0.1), (2, 0.2), (3, 0.3))
    assert [t.state for t in record.trials] == ["complete", "complete", "pruned", "failed", "running", "complete"]
    assert record.trials[3].error == "loss is nan"
    assert record.counts() == {"complete": 3, "pruned": 1, "failed": 1, "running": 1}
    assert [t.number for t in record.ranked()] == [1, 5, 0]  # equal ones by number
    assert record.epochs_saved() == 8


@pytest.mark.parametrize("missing", ["sweep.yaml", "trials.csv", "1/events.jsonl"])
def test_half_a_directory_is_read_as_far_as_it_goes(sweep, missing):
    (sweep / missing).unlink()
    record = read_sweep(sweep)
    assert record.name == "faces"
    description_markdown(record, {})
    leaderboard_table(record, {})


def test_an_empty_directory_is_a_sweep_without_trials(tmp_path):
    record = read_sweep(tmp_path)
    assert list(record.trials) == []
    assert description_markdown(record, {})
    write_sweep_page(record, tmp_path / "report.html")


def test_the_leaderboard_begins_with_the_winner(sweep):
    record = read_sweep(sweep)
    assert [(row.rank, row.number) for row in leaderboard_rows(record, 4)] == [(1, 1), (2, 5), (3, 0), (None, 4)]
    table = leaderboard_table(record, {1: "#/runs/a"})
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert len(rows) == 6
    assert rows[0]["trial"] == 1
    assert (rows[0]["val/f1_macro"], rows[0]["link"], rows[1]["link"]) == (0.9, "#/runs/a", None)
    json.dumps(table, allow_nan=False)


def test_the_description_names_the_winner_and_fits_into_a_tag(sweep):
    text = description_markdown(read_sweep(sweep), {1: "#/experiments/1/runs/a"})
    assert "#1 leads so far" in text.replace("\\", "")  # a trial is running
    assert "(#/experiments/1/runs/a)" in text
    assert "größer" in text
    assert len(text) <= 8000
    params = {f"group.{'long' * 20}.{i}": "value" * 50 for i in range(60)}
    space = {key: {"choices": ["value" * 50, "other"]} for key in params}
    trials = [SweptTrial(i, "complete", (i / 100,), params, 0.0, 1.0, 1, str(i)) for i in range(100)]
    text = description_markdown(SweepRecord("s", ("val/f1_macro",), ("maximize",), space, trials), {})
    assert "#99 won" in text.replace("\\", "")
    assert len(text) <= 8000


def test_importances_are_optunas(tmp_path):
    """Optuna's PED-ANOVA, asked directly, on the same trials."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda t: -((t.suggest_float("x", 0, 1) - 0.5) ** 2) + 0.01 * t.suggest_int("n", 1, 5), n_trials=60)
    space = {
        "x": {"type": "float", "low": 0.0, "high": 1.0, "log": False, "step": None},
        "n": {"type": "int", "low": 1, "high": 5, "log": False, "step": 1},
    }
    trials = [SweptTrial(t.number, "complete", (t.value,), t.params, 0.0, 1.0, 1, str(t.number)) for t in study.trials]
    found = importances(SweepRecord("s", ("f",), ("maximize",), space, trials))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.1)
    expected = optuna.importance.get_param_importances(study, evaluator=evaluator)
    assert found == pytest.approx(expected)
    assert importances(SweepRecord("s", ("f",), ("maximize",), space, trials[:7])) == {}


def test_the_page_is_whole_and_nobody_writes_html_into_it(sweep):
    write_sweep_page(read_sweep(sweep), sweep / "report.html")
    text = (sweep / "report.html").read_text(encoding="utf-8")
    assert 1_000_000 < len(text) < 5_000_000
    assert "größer" in text
    assert "<b>" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)=["']https?://""", text)  # nothing from the network
    packed = max(re.findall(r"[A-Za-z0-9+/=]{100000,}", text), key=len)
    assert b"Plotly" in gzip.decompress(base64.b64decode(packed))
