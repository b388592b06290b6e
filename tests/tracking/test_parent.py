"""The MLflow run of a sweep, against a real store."""

import math
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.report.sweep.test_record import trial, write_journal, write_sweep
from visionsweep.report.sweep.record import read_sweep
from visionsweep.rundir.journal import Journal
from visionsweep.tracking.ack import load_ack
from visionsweep.tracking.directory import sweep_state
from visionsweep.tracking.parent import best_points, ended_trials
from visionsweep.tracking.sync import main

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

SPACE = {"optim.lr": {"type": "float", "low": 1e-4, "high": 0.1, "log": True, "step": None}}
TRIALS = [
    trial(0, values=(0.7,), params={"optim.lr": 0.01}, end=30.0),
    trial(1, values=(0.9,), params={"optim.lr": 0.03}, end=20.5),
    trial(2, "pruned", values=(0.95,), params={"optim.lr": 0.01}, end=10.25),
    trial(3, "failed", values=None, params={"optim.lr": 0.01}, end=40.0, epochs=0),
]
STARTED_WITH = """
task_overrides: ["optim.lr=tag(log,interval(1e-4,0.1))"]
hydra_overrides: ["hydra.sweeper.storage=postgresql://me:secret@lab/studies"]
git_commit: 0123abc
"""


@pytest.fixture
def sweep(tmp_path):
    directory = tmp_path / "faces"
    write_sweep(directory, TRIALS, space=SPACE)
    with (directory / "sweep.yaml").open("a") as stored:
        stored.write(STARTED_WITH)
    for number, state in enumerate(["finished", "finished", "pruned", "failed"]):
        write_journal(directory / str(number), [0.1, 0.2, 0.3], end=None)
        journal = Journal(directory / str(number))
        (directory / str(number) / "best.pt").write_bytes(b"weights")
        journal.artifact("best.pt", "checkpoints")
        journal.end(state)
        journal.close()
    return directory


def test_the_best_so_far_is_a_point_at_each_end(sweep):
    """In the order of the ends: 2 (pruned), 1, 0, 3 (failed). Worked out by hand."""
    record = read_sweep(sweep)
    assert [t.number for t in ended_trials(record)] == [2, 1, 0, 3]
    points = best_points(record, ended_trials(record))
    assert [(p["step"], p["time"], p["values"].get("best/f1_macro")) for p in points] == [
        *[(1, 10250, None), (2, 20500, 0.9), (3, 30000, 0.9), (4, 40000, 0.9)]
    ]
    assert points[-1]["values"] == {
        "trials/complete": 2,
        "trials/pruned": 1,
        "trials/failed": 1,
        "best/f1_macro": 0.9,
    }


def test_the_parent_shows_who_won_and_again_changes_nothing(sweep, uri):
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    for _ in range(2):
        assert main([str(sweep), "--uri", uri, "--verify"]) == 0
        for path in (
            sweep / ".mlflow.json",
            *(sweep / str(number) / ".mlflow.json" for number in range(4)),
        ):
            path.rename(path.with_name("moved"))  # as if it was lost
    for path in (sweep, *(sweep / str(number) for number in range(4))):
        (path / "moved").rename(path / ".mlflow.json")

    parent = client.get_run(load_ack(sweep, uri).run_id)
    assert (parent.info.run_name, parent.info.status) == ("faces", "FINISHED")
    history = client.get_metric_history(parent.info.run_id, "best/f1_macro")
    assert [(point.step, point.value) for point in history] == [(2, 0.9), (3, 0.9), (4, 0.9)]
    assert parent.data.params["space.optim.lr"] == "log 0.0001 .. 0.1"
    assert parent.data.tags["best.optim.lr"] == "0.03"
    assert "won" in parent.data.tags["mlflow.note.content"]
    assert (
        parent.data.tags["git.commit"] == parent.data.tags["mlflow.source.git.commit"] == "0123abc"
    )
    overrides = "'optim.lr=tag(log,interval(1e-4,0.1))' hydra.sweeper.storage=postgresql://me:***@lab/studies"
    assert parent.data.tags["overrides"] == overrides
    files = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"report.html", "leaderboard.json", "trials.csv", "sweep.yaml"} <= files

    experiment = parent.info.experiment_id
    children = client.search_runs(
        [experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
    winners = [
        run.data.tags["visionsweep.winner"]
        for run in children
        if "visionsweep.winner" in run.data.tags
    ]
    assert winners == ["true"]
    assert (
        client.get_run(load_ack(sweep / "1", uri).run_id).data.tags["visionsweep.winner"] == "true"
    )
    assert sorted(run.data.tags["visionsweep.state"] for run in children) == [
        "failed",
        "finished",
        "finished",
        "pruned",
    ]
    # A checkpoint is the same file under a second name.
    assert (sweep / "1/best.pt").stat().st_nlink == 2


def test_checkpoints_wait_until_the_sweep_is_over(sweep, uri):
    from visionsweep.tracking.directory import DirectoryReplay
    from visionsweep.tracking.store import Store

    replay = DirectoryReplay(sweep, Store(uri))
    replay.hold_checkpoints(True)
    replay.advance()
    assert [load_ack(sweep / str(n), uri).state for n in range(4)] == [
        "finished",
        "finished",
        "pruned",
        "failed",
    ]
    assert (sweep / "0/best.pt").stat().st_nlink == 1
    assert replay.behind == 0
    (sweep / "0/best.pt").unlink()  # the sweep keeps the best ones only
    replay.hold_checkpoints(False)
    assert replay.behind == 4
    replay.advance()
    assert replay.close()
    assert load_ack(sweep / "0", uri).removed == ["best.pt"]
    assert (sweep / "1/best.pt").stat().st_nlink == 2


def test_verify_sees_what_the_sweeps_own_run_lacks(sweep, uri, capsys):
    from mlflow import MlflowClient

    assert main([str(sweep), "--uri", uri, "--verify"]) == 0
    run_id = load_ack(sweep, uri).run_id
    MlflowClient(uri).log_metric(run_id, "best/f1_macro", 1.0, timestamp=5, step=9)
    stored = urlsplit(MlflowClient(uri).get_run(run_id).info.artifact_uri).path
    Path(stored, "report.html").write_text("another page")
    capsys.readouterr()
    assert main([str(sweep), "--uri", uri, "--verify"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3] == f"{sweep}: the sweep's own run"
    assert (
        lines[-2]
        == "  differs: metric best/f1_macro: 0 points missing, 0 doubled, 1 not in the record"
    )
    assert lines[-1].startswith("  differs: file report.html: size 12, expected ")


def best_shown(record):
    return [
        point["values"].get("best/f1_macro") for point in best_points(record, ended_trials(record))
    ]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_what_is_no_finite_number_wins_nowhere(tmp_path, uri, direction):
    """Not even as the first, or the only, trial: neither the description, nor the points, nor the winner's tag."""
    from mlflow import MlflowClient

    odd = [math.nan, math.inf, -math.inf]
    trials = [
        trial(n, values=(value,), params={"optim.lr": 0.01}, end=10.0 + n)
        for n, value in enumerate(odd)
    ]
    write_sweep(tmp_path / "odd", trials, (direction,), space=SPACE)
    assert best_shown(read_sweep(tmp_path / "odd")) == [None] * 3
    trials.append(trial(3, values=(0.4,), params={"optim.lr": 0.02}, end=20.0))
    write_sweep(tmp_path / "odd", trials, (direction,), space=SPACE)
    record = read_sweep(tmp_path / "odd")
    assert best_shown(record) == [None, None, None, 0.4]
    assert [t.number for t in record.ranked()] == [3]
    for number in range(4):
        write_journal(tmp_path / "odd" / str(number), [0.1], end="finished")
    assert main([str(tmp_path / "odd"), "--uri", uri, "--verify"]) == 0
    tags = MlflowClient(uri).get_run(load_ack(tmp_path / "odd", uri).run_id).data.tags
    assert tags["best.trial"] == "3"
    assert "#3 won" in tags["mlflow.note.content"]
    assert (
        "visionsweep.winner"
        in MlflowClient(uri).get_run(load_ack(tmp_path / "odd/3", uri).run_id).data.tags
    )


def test_how_a_sweep_ended_is_what_its_trials_say(sweep):
    assert sweep_state(sweep, []) == "finished"
    (sweep / "trials.csv").write_text(
        (sweep / "trials.csv").read_text().replace("complete", "failed")
    )
    assert sweep_state(sweep, []) == "failed"
