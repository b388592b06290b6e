"""The upload against a real MLflow store. What the store holds is read back with MLflow's own client."""

import math
import subprocess
import sys

import pytest

from visionsweep.tracking.ack import ACK_NAME, load_ack
from visionsweep.tracking.sync import main

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning"
    ),  # raised inside mlflow and its dependencies
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # connections of its pool
]


@pytest.fixture
def client(uri):
    from mlflow import MlflowClient

    return MlflowClient(uri)


@pytest.fixture
def read(client, uri):
    """Return the one MLflow run of a run directory, and the history of each of its metrics."""

    def read(run_dir):
        uid = load_ack(run_dir, uri).uid
        experiment = client.get_experiment_by_name("tests")
        (run,) = client.search_runs([experiment.experiment_id], f"tags.`visionsweep.uid` = '{uid}'")
        history = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
        return run, {
            key: [(point.step, point.timestamp, point.value) for point in points]
            for key, points in history.items()
        }

    return read


def sync(run_dir, uri, *options):
    return main([str(run_dir), "--uri", uri, *options])


def test_a_run_arrives_whole(make_run, uri, client, read):
    _, run_dir = make_run()
    assert sync(run_dir, uri, "--verify") == 0
    run, history = read(run_dir)
    start = 1_700_000_000_000
    assert history["val/f1"] == [(1, start + 1, 1 / 3), (2, start + 2, 2 / 3), (3, start + 3, 1.0)]
    assert run.data.params == {"optim.lr": "0.001"}
    assert run.data.tags["git"] == "abc"
    assert run.data.tags["visionsweep.state"] == "finished"
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    (artifact,) = client.list_artifacts(run.info.run_id, "config")
    assert (artifact.path, artifact.file_size) == ("config/config.yaml", 5)
    assert run.info.artifact_uri.startswith(
        uri.replace("sqlite:///", "file://").replace("mlflow.db", "mlartifacts")
    )


def test_sending_again_changes_nothing_with_and_without_the_ack(make_run, uri, read):
    _, run_dir = make_run()
    assert sync(run_dir, uri) == 0
    run, history = read(run_dir)
    for forget in (False, True):
        if forget:
            (run_dir / ACK_NAME).unlink()
        assert sync(run_dir, uri, "--verify") == 0
        again, same_history = read(run_dir)
        assert same_history == history
        assert again.to_dictionary() == run.to_dictionary()


class AnswersLost:
    """A client whose every method does its work and then, the first time, fails."""

    def __init__(self, client):
        self._client = client
        self.lost = set()

    def __getattr__(self, name):
        method = getattr(self._client, name)

        def call(*args, **kwargs):
            result = method(*args, **kwargs)
            if name not in self.lost:
                self.lost.add(name)
                raise ConnectionError(f"answer of {name} lost")
            return result

        return call


def test_a_lost_answer_doubles_nothing(make_run, uri, client, read):
    from visionsweep.tracking.directory import DirectoryReplay
    from visionsweep.tracking.store import Store
    from visionsweep.tracking.verify import differences

    _, run_dir = make_run()
    store = Store(uri)
    store._client = AnswersLost(client)
    replay = DirectoryReplay(run_dir, store)
    failures = 0
    while not failures or replay.behind:
        try:
            replay.advance()
        except ConnectionError:
            failures += 1
        assert failures < 20
    assert {"create_run", "log_batch", "log_artifact", "set_terminated"} <= store._client.lost
    assert differences(Store(uri), run_dir) == []
    run, history = read(run_dir)
    assert {key: len(points) for key, points in history.items()} == {"val/f1": 3, "val/loss": 3}
    assert run.info.status == "FINISHED"


def test_a_process_that_dies_in_the_middle_of_a_record_is_marked_killed(uri, read, tmp_path):
    code = """
import os, sys; from pathlib import Path; from visionsweep.rundir.journal import Journal
journal = Journal(Path(sys.argv[1])); journal.start("t", "tests", {}, {}); journal.metrics(1, {"a": 1.0}, time_ms=7)
os.write(journal._fd, b'{"type":"metrics","time":17000')
"""
    run_dir = tmp_path / "t"
    subprocess.run([sys.executable, "-c", code, str(run_dir)], check=True)
    assert sync(run_dir, uri, "--verify") == 0
    killed, history = read(run_dir)
    assert (killed.info.status, killed.data.tags["visionsweep.state"]) == ("KILLED", "killed")
    assert history == {"a": [(1, 7, 1.0)]}


def test_a_dead_process_is_marked_killed_and_its_resumption_goes_on_in_the_same_run(
    make_run, uri, read, tmp_path
):
    code = """
import sys; from pathlib import Path; from visionsweep.rundir.journal import Journal
journal = Journal(Path(sys.argv[1])); journal.start("k", "tests", {}, {}); journal.metrics(1, {"a": 1.0}, time_ms=7)
"""
    run_dir = tmp_path / "k"
    subprocess.run([sys.executable, "-c", code, str(run_dir)], check=True)
    assert sync(run_dir, uri) == 0
    killed, _ = read(run_dir)
    assert (killed.info.status, killed.data.tags["visionsweep.state"]) == ("KILLED", "killed")

    from visionsweep.rundir.journal import Journal

    journal = Journal(run_dir)
    journal.start("k", "tests", {}, {})
    journal.metrics(2, {"a": 2.0}, time_ms=8)
    assert sync(run_dir, uri) == 0
    running, history = read(run_dir)
    assert (running.info.run_id, running.info.status) == (killed.info.run_id, "RUNNING")
    assert history == {"a": [(1, 7, 1.0), (2, 8, 2.0)]}
    journal.end("pruned")
    journal.close()
    assert sync(run_dir, uri) == 0
    pruned, _ = read(run_dir)
    assert (pruned.info.status, pruned.data.tags["visionsweep.state"]) == ("FINISHED", "pruned")


@pytest.mark.parametrize(("state", "status"), [("failed", "FAILED"), ("stopped", "KILLED")])
def test_states(state, status, make_run, uri, read):
    _, run_dir = make_run(state=state)
    assert sync(run_dir, uri) == 0
    run, _ = read(run_dir)
    assert (run.info.status, run.data.tags["visionsweep.state"]) == (status, state)


def test_odd_names_and_values_arrive_readable(make_run, uri, read):
    params = {"layers[0]": [1, 2], "augment": None, "größe": "ä" * 7000, "empty": ""}
    journal, run_dir = make_run(params=params, state=None)
    journal.metrics(4, {"f1/a=b": 0.5, "f1/a+b": 0.25, "val/loss": -math.inf, "nan": math.nan})
    journal.end("finished")
    assert sync(run_dir, uri, "--verify") == 0
    run, history = read(run_dir)
    assert run.data.params["augment"] == "null"
    assert run.data.params["größe"] == "ä" * 5997 + "..."
    assert run.data.params["empty"] == ""
    assert [value for key, value in run.data.params.items() if key.startswith("layers_0_-")] == [
        "[1, 2]"
    ]
    assert sorted(points[0][2] for key, points in history.items() if key.startswith("f1/a_b-")) == [
        0.25,
        0.5,
    ]
    assert math.isnan(history["val/loss"][-1][2])
    assert run.data.tags["visionsweep.nonfinite"] == "1"


def test_a_changed_file_is_sent_again_and_an_unchanged_one_is_not(
    make_run, uri, client, read, monkeypatch
):
    from visionsweep.tracking.store import Store

    sent = []
    log_file = Store.log_file
    monkeypatch.setattr(
        Store,
        "log_file",
        lambda self, run_id, path, folder, **how: (
            sent.append(path.name) or log_file(self, run_id, path, folder, **how)
        ),
    )
    journal, run_dir = make_run(state=None)
    (run_dir / "large.bin").write_bytes(b"x" * 1000)
    journal.artifact("large.bin")
    assert sync(run_dir, uri) == 0
    assert sent == ["config.yaml", "large.bin"]  # the smallest first
    journal.artifact("config.yaml", "config")
    assert sync(run_dir, uri) == 0
    assert len(sent) == 2
    (run_dir / "config.yaml").write_text("a: 2222\n")
    journal.artifact("config.yaml", "config")
    assert sync(run_dir, uri) == 0
    assert sent[2:] == ["config.yaml"]
    run, _ = read(run_dir)
    assert client.list_artifacts(run.info.run_id, "config")[0].file_size == 8


def test_the_final_state_waits_for_the_last_file(make_run, uri, read, monkeypatch):
    from visionsweep.tracking.directory import DirectoryReplay
    from visionsweep.tracking.store import Store

    _, run_dir = make_run()
    replay = DirectoryReplay(run_dir, Store(uri))
    monkeypatch.setattr(
        "visionsweep.tracking.directory.FILE_SECONDS", -1.0
    )  # no time for files in this pass
    replay.advance()
    assert replay.behind == 2
    assert read(run_dir)[0].info.status == "RUNNING"
    monkeypatch.undo()
    replay.advance()
    assert replay.behind == 0
    assert read(run_dir)[0].info.status == "FINISHED"


def test_a_missing_file_is_named_and_does_not_keep_the_run_open(make_run, uri, read, capsys):
    journal, run_dir = make_run(state=None)
    (run_dir / "gone.txt").write_text("x")
    journal.artifact("gone.txt")
    (run_dir / "gone.txt").unlink()
    journal.end("finished")
    assert sync(run_dir, uri) == 1
    assert "not sent: gone.txt: the file is no longer there" in capsys.readouterr().out
    assert read(run_dir)[0].info.status == "FINISHED"


def test_weights_that_a_sweep_removed_before_they_were_sent_are_no_loss(
    make_run, uri, read, capsys
):
    journal, run_dir = make_run("s/0", state=None)
    (run_dir / "checkpoints").mkdir()
    best = run_dir / "checkpoints/best.pt"
    best.write_bytes(b"weights")
    journal.artifact("checkpoints/best.pt", "checkpoints")
    journal.end("finished")
    best.unlink()
    for _ in range(2):
        assert sync(run_dir, uri, "--verify") == 0
        shown = capsys.readouterr().out
        assert "removed before it was sent: checkpoints/best.pt" in shown
        assert "differs" not in shown
        assert "not sent" not in shown
    assert read(run_dir)[0].info.status == "FINISHED"


def test_weights_that_are_there_and_did_not_arrive_are_a_difference(
    make_run, uri, client, read, capsys
):
    journal, run_dir = make_run("s/0", state=None)
    (run_dir / "checkpoints").mkdir()
    best = run_dir / "checkpoints/best.pt"
    best.write_bytes(b"weights")
    journal.artifact("checkpoints/best.pt", "checkpoints")
    assert sync(run_dir, uri, "--verify") == 0
    best.unlink()  # the store has them
    assert sync(run_dir, uri, "--verify") == 0
    best.write_bytes(b"weights, more of them")
    journal.artifact("checkpoints/best.pt", "checkpoints")
    from visionsweep.tracking.store import Store
    from visionsweep.tracking.verify import differences

    assert differences(Store(uri), run_dir) == ["file checkpoints/best.pt: size 7, expected 21"]


def test_the_seeds_of_a_trial_are_children_of_the_sweep(make_run, uri, client, read, tmp_path):
    runs = [make_run(f"faces/{name}")[1] for name in ("0/seed_0", "0/seed_1", "1/seed_0")]
    (tmp_path / "faces/best").symlink_to("1")
    assert sync(tmp_path / "faces", uri, "--verify") == 0
    found = [read(run_dir)[0] for run_dir in runs]
    (parent_id,) = {run.data.tags["mlflow.parentRunId"] for run in found}
    assert client.get_run(parent_id).info.run_name == "faces"
    assert {run.data.tags["visionsweep.sweep"] for run in found} == {"faces"}
    # the directory of a trial, and of a run, belong to the same sweep
    for directory in ("faces/1", "faces/1/seed_0"):
        (runs[2] / ACK_NAME).unlink()
        assert sync(tmp_path / directory, uri, "--verify") == 0
        assert read(runs[2])[0].data.tags["mlflow.parentRunId"] == parent_id
    assert [path.parent.name for path in tmp_path.rglob(".sweep_uid")] == ["faces"]
    experiment = client.get_experiment_by_name("tests")
    children = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent_id}'"
    )
    assert len(children) == 3


def test_a_refused_parameter_costs_itself_only(make_run, uri, client, read, capsys):
    _, run_dir = make_run(params={f"p{i}": i for i in range(20)})
    assert sync(run_dir, uri) == 0
    journal = run_dir / "events.jsonl"
    journal.write_text(journal.read_text().replace('"p7":7,', '"p7":8,"new":1,'))
    (run_dir / ACK_NAME).unlink()
    assert sync(run_dir, uri) == 1
    assert "not sent: p7:" in capsys.readouterr().out
    run, _ = read(run_dir)
    assert (run.data.params["p7"], run.data.params["new"]) == ("7", "1")


def test_a_run_that_was_deleted_in_mlflow_is_left_alone_until_it_is_restored(
    make_run, uri, client, read, capsys
):
    journal, run_dir = make_run(state=None)
    assert sync(run_dir, uri) == 0
    run_id = read(run_dir)[0].info.run_id
    client.delete_run(run_id)
    journal.end("finished")
    for forget in (False, True):
        if forget:
            (run_dir / ACK_NAME).unlink()
        assert sync(run_dir, uri) == 1
        assert "deleted in MLflow" in capsys.readouterr().out
    client.restore_run(run_id)
    assert sync(run_dir, uri, "--verify") == 0
    assert read(run_dir)[0].info.status == "FINISHED"


def test_a_run_that_the_store_has_lost_is_sent_again(make_run, uri, read):
    _, run_dir = make_run()
    assert sync(run_dir, uri) == 0
    first, _ = read(run_dir)
    ack = run_dir / ACK_NAME
    ack.write_text(
        ack.read_text().replace(first.info.run_id, "0" * 32)
    )  # as if the database were another one
    assert sync(run_dir, uri, "--verify") == 0
    assert read(run_dir)[0].info.run_id == first.info.run_id


def test_a_sweep_has_a_parent_and_its_trials_are_children(make_run, uri, client, read, tmp_path):
    _, first = make_run("faces/0")
    _, second = make_run("faces/1", state="pruned")
    assert sync(tmp_path / "faces", uri, "--verify") == 0
    runs = [read(run_dir)[0] for run_dir in (first, second)]
    (parent_id,) = {run.data.tags["mlflow.parentRunId"] for run in runs}
    parent = client.get_run(parent_id)
    assert (parent.info.run_name, parent.info.status) == ("faces", "FINISHED")

    _, third = make_run("faces/2", state="stopped")
    (first / ACK_NAME).unlink()
    assert sync(tmp_path / "faces", uri, "--verify") == 0
    assert {
        read(run_dir)[0].data.tags["mlflow.parentRunId"] for run_dir in (first, second, third)
    } == {parent_id}
    assert client.get_run(parent_id).info.status == "KILLED"
    assert read(first)[0].data.tags["visionsweep.sweep"] == "faces"


def test_a_broken_run_does_not_stop_the_others(make_run, uri, read, tmp_path, capsys):
    _, good = make_run("s/1")
    broken = tmp_path / "s/0"
    broken.mkdir()
    (broken / "events.jsonl").write_text(
        '{"type":"metrics","time":1,"pid":1,"step":1,"values":{"a":1}}\n'
    )
    assert sync(tmp_path / "s", uri, "--experiment", "tests") == 1
    assert "not sent: events.jsonl does not begin with a start record" in capsys.readouterr().out
    assert read(good)[0].info.status == "FINISHED"


def test_verify_finds_what_is_missing_doubled_and_foreign(make_run, uri, client, read, capsys):
    _, run_dir = make_run()
    assert sync(run_dir, uri) == 0
    client.log_metric(read(run_dir)[0].info.run_id, "val/f1", 0.9, timestamp=5, step=1)
    with (run_dir / "events.jsonl").open("a") as file:
        file.write("not a record\n")
    journal = run_dir / "events.jsonl"
    journal.write_text(journal.read_text().replace('"val/loss":0.5', '"val/loss":0.6'))
    assert sync(run_dir, uri, "--verify") == 1
    shown = capsys.readouterr().out
    assert "metric val/f1: 0 points missing, 0 doubled, 1 not in the record" in shown
    assert "metric val/loss: 1 points missing, 0 doubled, 1 not in the record" in shown


def test_a_run_whose_files_are_refused_comes_last(
    make_run, uri, read, tmp_path, capsys, monkeypatch
):
    from visionsweep.tracking.store import Store

    log_file = Store.log_file

    def refuse(self, run_id, path, folder, **how):
        if path.parent.name == "0":
            raise OSError("artifact store full")
        log_file(self, run_id, path, folder, **how)

    monkeypatch.setattr(Store, "log_file", refuse)
    monkeypatch.setattr("visionsweep.tracking.sync.PAUSES", (0.0, 0.0))
    _, bad = make_run("s/0")
    _, good = make_run("s/1")
    assert sync(tmp_path / "s", uri) == 1
    assert "artifact store full" in capsys.readouterr().err
    assert read(good)[0].info.status == "FINISHED"
    run, history = read(bad)
    assert run.info.status == "RUNNING"  # the final state comes after the last file
    assert len(history["val/f1"]) == 3
