"""The MLflow run of a sweep, against a real store."""

import math
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.report.sweep.test_record import trial, write_journal, write_sweep
from visionsweep.report.sweep.record import read_sweep
from visionsweep.rundir.journal import Journal
from visionsweep.tracking.ack import load_ack
from visionsweep.tracking.directory import DirectoryReplay, sweep_state
from visionsweep.tracking.parent import best_points, ended_trials
from visionsweep.tracking.store import Store
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
STATES = ["finished", "finished", "pruned", "failed"]
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
    for number, state in enumerate(STATES):
        run_dir = directory / str(number)
        write_journal(run_dir, [0.1, 0.2, 0.3], end=None)
        journal = Journal(run_dir)
        (run_dir / "best.pt").write_bytes(b"weights")
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
    counts = {"trials/complete": 2, "trials/pruned": 1, "trials/failed": 1}
    assert points[-1]["values"] == counts | {"best/f1_macro": 0.9}


def test_the_parent_shows_who_won(sweep, uri, client, plain_page):
    acks = [sweep / ".mlflow.json", *sweep.glob("*/.mlflow.json")]
    for _ in range(2):  # sending it again, without the acks, changes nothing
        assert main([str(sweep), "--uri", uri, "--verify"]) == 0
        for ack in acks:
            ack.unlink()
    assert main([str(sweep), "--uri", uri]) == 0

    parent = client.get_run(load_ack(sweep, uri).run_id)
    assert (parent.info.run_name, parent.info.status) == ("faces", "FINISHED")
    history = client.get_metric_history(parent.info.run_id, "best/f1_macro")
    assert [(point.step, point.value) for point in history] == [(2, 0.9), (3, 0.9), (4, 0.9)]
    assert parent.data.params["space.optim.lr"] == "log 0.0001 .. 0.1"
    tags = parent.data.tags
    assert tags["best.optim.lr"] == "0.03"
    assert "won" in tags["mlflow.note.content"]
    assert tags["git.commit"] == tags["mlflow.source.git.commit"] == "0123abc"
    assert tags["overrides"] == (
        "'optim.lr=tag(log,interval(1e-4,0.1))' "
        "hydra.sweeper.storage=postgresql://me:***@lab/studies"
    )
    files = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"report.html", "leaderboard.json", "trials.csv", "sweep.yaml"} <= files

    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    children = client.search_runs([parent.info.experiment_id], query)
    winners = [run.info.run_id for run in children if "visionsweep.winner" in run.data.tags]
    assert winners == [load_ack(sweep / "1", uri).run_id]
    assert sorted(run.data.tags["visionsweep.state"] for run in children) == sorted(STATES)
    # The store's checkpoint is the same file under a second name.
    assert (sweep / "1/best.pt").stat().st_nlink == 2


def test_a_late_request_to_create_a_run_leaves_no_double(sweep, uri, client, plain_page):
    """The proxy of test_faults sends such requests; which of the two arrives last is luck there."""

    def late(run_id):
        first = client.get_run(run_id)
        tags = {"visionsweep.uid": first.data.tags["visionsweep.uid"], "mlflow.runName": "double"}
        client.create_run(first.info.experiment_id, tags=tags)

    assert main([str(sweep), "--uri", uri]) == 0
    ids = [load_ack(directory, uri).run_id for directory in (sweep, sweep / "0")]
    for run_id in ids:
        late(run_id)
    assert main([str(sweep), "--uri", uri, "--verify"]) == 0
    first = client.get_run(ids[0])
    runs = client.search_runs([first.info.experiment_id])
    for run_id in ids:
        uid = client.get_run(run_id).data.tags["visionsweep.uid"]
        found = [run for run in runs if run.data.tags["visionsweep.uid"] == uid]
        assert [run.info.run_id for run in found] == [run_id]


def test_checkpoints_wait_until_the_sweep_is_over(sweep, uri, plain_page):
    replay = DirectoryReplay(sweep, Store(uri))
    replay.hold_checkpoints(True)
    while replay.behind:
        replay.advance()
    assert [load_ack(sweep / str(n), uri).state for n in range(4)] == STATES
    assert (sweep / "0/best.pt").stat().st_nlink == 1
    assert replay.behind == 0
    (sweep / "0/best.pt").unlink()  # the sweep keeps only the best ones
    replay.hold_checkpoints(False)
    assert replay.behind == 4
    while replay.behind:
        replay.advance()
    assert replay.close()
    assert load_ack(sweep / "0", uri).removed == ["best.pt"]
    assert (sweep / "1/best.pt").stat().st_nlink == 2


def test_verify_finds_what_differs_in_the_sweeps_own_run(sweep, uri, client, capsys):
    """With the real page, which the other tests leave out."""
    assert main([str(sweep), "--uri", uri, "--verify"]) == 0
    run_id = load_ack(sweep, uri).run_id
    client.log_metric(run_id, "best/f1_macro", 1.0, timestamp=5, step=9)
    stored = Path(urlsplit(client.get_run(run_id).info.artifact_uri).path, "report.html")
    assert stored.read_bytes() == (sweep / "report.html").read_bytes()
    stored.write_text("another page")
    capsys.readouterr()
    assert main([str(sweep), "--uri", uri, "--verify"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3] == f"{sweep}: the sweep's own run"
    metric = "metric best/f1_macro: 0 points missing, 0 doubled, 1 not in the record"
    assert lines[-2] == f"  differs: {metric}"
    assert lines[-1].startswith("  differs: file report.html: size 12, expected ")


def test_a_page_that_cannot_be_drawn_is_a_tag(sweep, uri, client, monkeypatch):
    def fail(record, path):
        raise ValueError("no colours left\nand no paper")

    monkeypatch.setattr("visionsweep.tracking.parent.write_report", fail)
    assert main([str(sweep), "--uri", uri, "--verify"]) == 0
    run = client.get_run(load_ack(sweep, uri).run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["visionsweep.page_error"] == "ValueError: no colours left"


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_only_finite_values_win(tmp_path, uri, client, direction, plain_page):
    """Not even the first or only trial: not in the points, the tags nor the description."""
    values = [math.nan, math.inf, -math.inf, 0.4]
    trials = [
        trial(n, values=(value,), params={"optim.lr": 0.01}, end=10.0 + n)
        for n, value in enumerate(values)
    ]
    directory = tmp_path / "odd"
    write_sweep(directory, trials, (direction,), space=SPACE)
    record = read_sweep(directory)
    points = best_points(record, ended_trials(record))
    assert [point["values"].get("best/f1_macro") for point in points] == [None, None, None, 0.4]
    for number in range(4):
        write_journal(directory / str(number), [0.1], end="finished")
    assert main([str(directory), "--uri", uri, "--verify"]) == 0
    tags = client.get_run(load_ack(directory, uri).run_id).data.tags
    assert tags["best.trial"] == "3"
    assert "#3 won" in tags["mlflow.note.content"]
    winner = client.get_run(load_ack(directory / "3", uri).run_id)
    assert "visionsweep.winner" in winner.data.tags


def test_a_sweep_ends_as_its_trials_say(sweep):
    assert sweep_state(sweep, {"killed"}) == "finished"
    table = sweep / "trials.csv"
    table.write_text(table.read_text().replace("complete", "failed"))
    assert sweep_state(sweep, {"killed"}) == "failed"
    table.unlink()
    assert sweep_state(sweep, {"finished", "stopped"}) == "stopped"
    assert sweep_state(sweep, {"finished", "failed"}) == "finished"
