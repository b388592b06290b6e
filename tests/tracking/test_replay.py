"""The upload against a real MLflow store, read back with MLflow's own client."""

import math
import os

import pytest

from visionsweep.rundir.journal import Journal
from visionsweep.tracking.ack import num_behind, unsent
from visionsweep.tracking.directory import DirectoryReplay
from visionsweep.tracking.store import Store
from visionsweep.tracking.sync import main
from visionsweep.tracking.verify import differences

pytestmark = [
    # Raised inside mlflow and its dependencies.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # Connections of its pool.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.usefixtures("plain_page"),
]

ACK = ".mlflow.json"
DEAD_PID = 2**22 + 1  # more than the kernel's highest


def sync(run_dir, uri, *options):
    return main([str(run_dir), "--uri", uri, *options])


def states(read, *run_dirs):
    runs = [read(run_dir)[0] for run_dir in run_dirs]
    return [(run.info.status, run.data.tags["visionsweep.state"]) for run in runs]


def add_weights(journal, run_dir, content=b"weights"):
    best = run_dir / "checkpoints/best.pt"
    best.parent.mkdir(exist_ok=True)
    best.write_bytes(content)
    journal.artifact("checkpoints/best.pt", "checkpoints")
    return best


def test_a_run_arrives_whole(make_run, uri, client, read):
    _, run_dir = make_run()
    assert sync(run_dir, uri, "--verify") == 0
    run, history = read(run_dir)
    start = 1_700_000_000_000
    assert history["val/f1"] == [(1, start + 1, 1 / 3), (2, start + 2, 2 / 3), (3, start + 3, 1.0)]
    assert run.data.params == {"optim.lr": "0.001"}
    assert run.data.tags["git"] == "abc"
    assert states(read, run_dir) == [("FINISHED", "finished")]
    assert run.info.run_name == "run"
    (artifact,) = client.list_artifacts(run.info.run_id, "config")
    assert (artifact.path, artifact.file_size) == ("config/config.yaml", 5)
    beside = uri.replace("sqlite:///", "file://").replace("mlflow.db", "mlartifacts")
    assert run.info.artifact_uri.startswith(beside)


def test_sending_again_changes_nothing_even_without_the_ack(make_run, uri, read):
    _, run_dir = make_run()
    assert sync(run_dir, uri) == 0
    run, history = read(run_dir)
    for forget in (False, True):
        if forget:
            (run_dir / ACK).unlink()
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


@pytest.mark.parametrize("is_torn", [False, True])
def test_a_killed_run_resumes_as_the_same_mlflow_run(is_torn, make_run, uri, read):
    _, run_dir = make_run(state=None)
    path = run_dir / "events.jsonl"
    dead = path.read_bytes().replace(b'"pid":%d' % os.getpid(), b'"pid":%d' % DEAD_PID)
    # A torn run died in the middle of a record.
    path.write_bytes(dead + (b'{"type":"metrics","time":17000' if is_torn else b""))
    assert sync(run_dir, uri, "--verify") == 0
    assert states(read, run_dir) == [("KILLED", "killed")]
    killed, _ = read(run_dir)

    journal = Journal(run_dir)
    journal.start("k", "tests", {}, {})
    journal.metrics(4, {"val/f1": 2.0})
    assert sync(run_dir, uri) == 0
    assert states(read, run_dir) == [("RUNNING", "running")]
    running, history = read(run_dir)
    assert running.info.run_id == killed.info.run_id
    assert [step for step, _, _ in history["val/f1"]] == [1, 2, 3, 4]
    journal.end("pruned")
    journal.close()
    assert sync(run_dir, uri) == 0
    assert states(read, run_dir) == [("FINISHED", "pruned")]


def test_odd_names_and_values_arrive_readable(make_run, uri, read):
    params = {"layers[0]": [1, 2], "augment": None, "größe": "ä" * 7000, "empty": ""}
    journal, run_dir = make_run(params=params, state=None)
    journal.metrics(4, {"f1/a=b": 0.5, "f1/a+b": 0.25, "val/loss": -math.inf, "nan": math.nan})
    journal.end("finished")
    assert sync(run_dir, uri, "--verify") == 0
    run, history = read(run_dir)
    assert run.data.params["augment"] == "null"
    assert run.data.params["größe"] == "ä" * 2999 + "..." + "ä" * 2998
    assert run.data.params["empty"] == ""
    layers = [value for key, value in run.data.params.items() if key.startswith("layers_0_-")]
    assert layers == ["[1, 2]"]
    f1 = [points[0][2] for key, points in history.items() if key.startswith("f1/a_b-")]
    assert sorted(f1) == [0.25, 0.5]
    assert math.isnan(history["val/loss"][-1][2])
    assert run.data.tags["visionsweep.nonfinite"] == "1"


def test_only_changed_files_are_sent_again(make_run, uri, client, read, monkeypatch):
    sent = []
    log_file = Store.log_file

    def record(self, run_id, path, folder, **how):
        sent.append(path.name)
        log_file(self, run_id, path, folder, **how)

    monkeypatch.setattr(Store, "log_file", record)
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
    _, run_dir = make_run()
    replay = DirectoryReplay(run_dir, Store(uri))
    with monkeypatch.context() as no_time_for_files:
        no_time_for_files.setattr("visionsweep.tracking.directory.FILE_SECONDS", -1.0)
        replay.advance()
    assert replay.behind == 2
    assert read(run_dir)[0].info.status == "RUNNING"
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


def test_weights_deleted_before_they_were_sent_are_no_loss(make_run, uri, read, capsys):
    journal, run_dir = make_run("s/0", state=None)
    best = add_weights(journal, run_dir)
    journal.end("finished")
    best.unlink()
    for _ in range(2):
        assert sync(run_dir, uri, "--verify") == 0
        shown = capsys.readouterr().out
        assert "keeps the weights of its best trials): checkpoints/best.pt" in shown
        assert "differs" not in shown
        assert "not sent" not in shown
    assert read(run_dir)[0].info.status == "FINISHED"


def test_weights_that_did_not_arrive_are_a_difference(make_run, uri):
    journal, run_dir = make_run("s/0", state=None)
    best = add_weights(journal, run_dir)
    assert sync(run_dir, uri, "--verify") == 0
    best.unlink()  # the store has them
    assert sync(run_dir, uri, "--verify") == 0
    add_weights(journal, run_dir, b"weights, more of them")
    assert differences(Store(uri), run_dir) == ["file checkpoints/best.pt: size 7, expected 21"]


def test_the_runs_of_a_sweep_are_children_of_its_run(make_run, uri, client, read, tmp_path):
    endings = {"0/seed_0": "finished", "0/seed_1": "pruned", "1/seed_0": "failed", "2": "stopped"}
    runs = [make_run(f"faces/{name}", state, epochs=1)[1] for name, state in endings.items()]
    (tmp_path / "faces/best").symlink_to("0")
    assert sync(tmp_path / "faces", uri, "--verify") == 0
    assert states(read, *runs) == [
        ("FINISHED", "finished"),
        ("FINISHED", "pruned"),
        ("FAILED", "failed"),
        ("KILLED", "stopped"),
    ]
    found = [read(run_dir)[0] for run_dir in runs]
    (parent_id,) = {run.data.tags["mlflow.parentRunId"] for run in found}
    parent = client.get_run(parent_id)
    assert (parent.info.run_name, parent.info.status) == ("faces", "KILLED")
    assert {run.data.tags["visionsweep.sweep"] for run in found} == {"faces"}
    # The directories of a trial and of a run belong to the same sweep.
    for directory in ("faces/0", "faces/0/seed_0"):
        (runs[0] / ACK).unlink()
        assert sync(tmp_path / directory, uri, "--verify") == 0
        assert read(runs[0])[0].data.tags["mlflow.parentRunId"] == parent_id
    assert [path.parent.name for path in tmp_path.rglob(".sweep_uid")] == ["faces"]
    experiment = client.get_experiment_by_name("tests")
    query = f"tags.`mlflow.parentRunId` = '{parent_id}'"
    assert len(client.search_runs([experiment.experiment_id], query)) == 4


def test_a_refused_parameter_costs_only_itself(make_run, uri, read, capsys):
    _, run_dir = make_run(params={f"p{i}": i for i in range(20)})
    assert sync(run_dir, uri) == 0
    journal = run_dir / "events.jsonl"
    journal.write_text(journal.read_text().replace('"p7":7,', '"p7":8,"new":1,'))
    (run_dir / ACK).unlink()
    assert sync(run_dir, uri) == 1
    assert "not sent: p7:" in capsys.readouterr().out
    run, _ = read(run_dir)
    assert (run.data.params["p7"], run.data.params["new"]) == ("7", "1")


def test_a_run_deleted_in_mlflow_is_left_alone_until_it_is_restored(
    make_run, uri, client, read, capsys
):
    journal, run_dir = make_run(state=None)
    assert sync(run_dir, uri) == 0
    run_id = read(run_dir)[0].info.run_id
    client.delete_run(run_id)
    journal.end("finished")
    for forget in (False, True):
        if forget:
            (run_dir / ACK).unlink()
        assert sync(run_dir, uri) == 1
        assert "deleted in MLflow" in capsys.readouterr().out
    client.restore_run(run_id)
    assert sync(run_dir, uri, "--verify") == 0
    assert read(run_dir)[0].info.status == "FINISHED"


def test_a_run_that_the_store_lost_is_sent_again(make_run, uri, read):
    _, run_dir = make_run()
    assert sync(run_dir, uri) == 0
    first, _ = read(run_dir)
    ack = run_dir / ACK
    # As if the database were another one.
    ack.write_text(ack.read_text().replace(first.info.run_id, "0" * 32))
    assert sync(run_dir, uri, "--verify") == 0
    assert read(run_dir)[0].info.run_id == first.info.run_id


def test_a_broken_run_does_not_stop_the_others(make_run, uri, read, tmp_path, capsys):
    _, good = make_run("s/1")
    broken = tmp_path / "s/0"
    broken.mkdir()
    record = '{"type":"metrics","time":1,"pid":1,"step":1,"values":{"a":1}}\n'
    (broken / "events.jsonl").write_text(record)
    assert sync(tmp_path / "s", uri, "--experiment", "tests") == 1
    assert "not sent: events.jsonl does not begin with a start record" in capsys.readouterr().out
    assert read(good)[0].info.status == "FINISHED"


def test_verify_finds_missing_and_foreign_points(make_run, uri, client, read, capsys):
    _, run_dir = make_run()
    assert sync(run_dir, uri) == 0
    client.log_metric(read(run_dir)[0].info.run_id, "val/f1", 0.9, timestamp=5, step=1)
    journal = run_dir / "events.jsonl"
    text = journal.read_text().replace('"val/loss":0.5', '"val/loss":0.6')
    journal.write_text(f"{text}not a record\n")
    assert sync(run_dir, uri, "--verify") == 1
    shown = capsys.readouterr().out
    assert "metric val/f1: 0 points missing, 0 doubled, 1 not in the record" in shown
    assert "metric val/loss: 1 points missing, 0 doubled, 1 not in the record" in shown


def test_a_run_whose_files_are_refused_comes_last(
    make_run, uri, read, tmp_path, capsys, monkeypatch
):
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


def test_nothing_outside_of_the_runs_directory_is_sent(
    make_run, uri, client, read, tmp_path, capsys
):
    secret = tmp_path / "id_rsa"
    secret.write_text("PRIVATE KEY")
    journal, run_dir = make_run(state=None)
    (run_dir / "link.txt").symlink_to(secret)
    (run_dir / "folder").symlink_to(tmp_path)
    (run_dir / "loop").symlink_to("loop")
    (run_dir / "b.txt").write_text("b")
    places = [str(secret), "../id_rsa", "link.txt", "folder/id_rsa", "loop", "a\0b"]
    for place in places:
        fields = {"path": place, "folder": "", "sha256": place, "size": 1}
        journal._append("artifact", fields)
    journal._append("artifact", {**fields, "path": "b.txt", "folder": "../../x"})
    journal.end("finished")
    assert sync(run_dir, uri) == 1
    shown = capsys.readouterr().out
    assert shown.count("lies outside of the run's directory") == len(places) + 1
    run, _ = read(run_dir)
    assert run.info.status == "FINISHED"
    (folder,) = client.list_artifacts(run.info.run_id)
    assert (folder.path, folder.is_dir) == ("config", True)


@pytest.mark.parametrize("grows_again", [False, True])
def test_a_journal_shorter_than_what_was_sent_is_sent_again(
    grows_again, make_run, uri, read, capsys
):
    journal, run_dir = make_run(state=None)
    path = run_dir / "events.jsonl"
    whole = path.read_bytes()
    journal.metrics(4, {"val/f1": 0.4})
    assert sync(run_dir, uri) == 0
    path.write_bytes(whole)  # a power cut took the last line, ...
    journal.metrics(4, {"val/f1": 0.5}, time_ms=7)  # ... which the resumed run writes again
    for step in range(5, 9 if grows_again else 5):
        journal.metrics(step, {"val/f1": 0.5})
    journal.end("finished")
    assert num_behind(run_dir, uri) > 5
    assert sync(run_dir, uri, "--verify") == 0
    assert "was shorter than what was sent" in capsys.readouterr().out
    _, history = read(run_dir)
    assert (4, 7, 0.5) in history["val/f1"]
    assert len(history["val/f1"]) == (9 if grows_again else 5)  # the lost one is there, too


@pytest.mark.parametrize("way_out", ["restore", "other"])
@pytest.mark.parametrize("is_known", [False, True])
def test_a_deleted_experiment_is_said_with_both_ways_out(
    way_out, is_known, make_run, uri, client, capsys, tmp_path
):
    name = f"deleted {way_out} {is_known}"
    journal = Journal(tmp_path / "run")
    journal.start("run", name, {}, {})
    number = client.create_experiment(name)
    if is_known:
        assert sync(tmp_path / "run", uri) == 0
    client.delete_experiment(number)
    journal.end("finished")
    journal.close()
    assert sync(tmp_path / "run", uri) == 1
    shown = capsys.readouterr().out
    assert f"`mlflow experiments restore -x {number}`" in shown
    assert "tracking.experiment (sync: --experiment)" in shown
    assert num_behind(tmp_path / "run", uri) > 0
    if way_out == "restore":
        client.restore_experiment(number)
        assert sync(tmp_path / "run", uri, "--verify") == 0
    else:
        assert sync(tmp_path / "run", uri, "--verify", "--experiment", "tests") == 0


@pytest.mark.parametrize(
    ("found", "damage"),
    [
        ('{"type":"metrics"', "\\0"),
        ('"step":2', '"step":"x"'),
        ('"val/loss":0.5', '"val/loss":"high"'),
        ('"values"', '"valves"'),
    ],
)
def test_a_damaged_line_is_said_and_sent_once_it_is_mended(
    found, damage, make_run, uri, read, capsys
):
    _, run_dir = make_run()
    path = run_dir / "events.jsonl"
    whole = path.read_text()
    path.write_text(whole.replace(found, damage, 1))
    for _ in range(2):
        assert sync(run_dir, uri, "--verify") == 1
        assert "not sent: a damaged line of events.jsonl" in capsys.readouterr().out
    assert len(unsent(run_dir, uri)) == 1
    path.write_text(whole)
    assert sync(run_dir, uri, "--verify") == 0
    assert [step for step, _, _ in read(run_dir)[1]["val/f1"]] == [1, 2, 3]


def test_a_file_that_is_back_is_sent(make_run, uri, capsys):
    journal, run_dir = make_run(state=None)
    (run_dir / "gone.txt").write_text("x")
    journal.artifact("gone.txt")
    (run_dir / "gone.txt").unlink()
    journal.end("finished")
    assert sync(run_dir, uri) == 1
    assert num_behind(run_dir, uri) == 1
    (run_dir / "gone.txt").write_text("x")
    assert sync(run_dir, uri, "--verify") == 0
    assert num_behind(run_dir, uri) == 0


def test_progress_counts_as_an_answer(make_run, uri, monkeypatch):
    """Every other request fails, which is more often in a row than sync has attempts."""
    monkeypatch.setattr("visionsweep.tracking.sync.PAUSES", (0.0,))
    journal, run_dir = make_run(state=None)
    monkeypatch.setattr("visionsweep.tracking.replay.CHUNK_BYTES", 500)
    for step in range(4, 24):
        journal.metrics(step, {"val/f1": 0.5})
    journal.end("finished")
    requests = []

    def fail_sometimes(self, *args, log=Store.log, **kwargs):
        requests.append(args)
        if len(requests) % 2 == 0:
            raise ConnectionError("502")
        return log(self, *args, **kwargs)

    monkeypatch.setattr(Store, "log", fail_sometimes)
    assert sync(run_dir, uri, "--verify") == 0
    assert len(requests) > 8


def test_verify_passes_over_no_hole(make_run, uri, client, read, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("visionsweep.tracking.sync.PAUSES", (0.0,))
    _, run_dir = make_run("s/0", epochs=1)
    table = "number,state,value,start,end,epochs,directory"
    time = "2026-01-01T00:00:00+00:00"
    rows = [f"{n},complete,0.5,{time},{time},1,{n}" for n in (0, 1)]
    (tmp_path / "s/trials.csv").write_text("\n".join([table, *rows, ""]))
    (tmp_path / "s/1").mkdir()  # lost its journal
    assert sync(tmp_path / "s", uri, "--verify") == 1
    assert "differs: trial 1: 1/events.jsonl is missing" in capsys.readouterr().out

    client.set_tag(read(run_dir)[0].info.run_id, "visionsweep.state", "running")
    assert sync(run_dir, uri, "--verify") == 1
    assert "differs: state: 'running', expected 'finished'" in capsys.readouterr().out

    def fail(self, run_id, key):
        raise ConnectionError("502")

    monkeypatch.setattr(type(client), "get_metric_history", fail)
    assert sync(run_dir, uri, "--verify") == 1
    assert "not compared: 502" in capsys.readouterr().out


def test_a_model_is_exported_again_after_errors_of_the_server_and_of_its_own(
    make_run, uri, read, monkeypatch, capsys
):
    answers = [ConnectionError("500")] * 3 + [ValueError("no weights"), None]
    reasons = [None] * 3 + ["no weights"]

    def export(store, run_id, run_dir, record):
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    monkeypatch.setattr("visionsweep.tracking.replay.export_model", export)
    monkeypatch.setattr(
        "visionsweep.tracking.replay.why_not_exported", lambda run_dir: reasons.pop(0)
    )
    monkeypatch.setattr("visionsweep.tracking.sync.PAUSES", (0.0, 0.0))
    journal, run_dir = make_run(state=None)
    journal.model("checkpoints/best.pt")
    journal.end("finished")
    assert sync(run_dir, uri) == 1
    assert "does not take the record: 500" in capsys.readouterr().err
    assert num_behind(run_dir, uri) == 2  # the model and the end
    assert sync(run_dir, uri) == 1
    assert "not sent: model of checkpoints/best.pt: no weights" in capsys.readouterr().out
    assert num_behind(run_dir, uri) == 1
    assert read(run_dir)[0].info.status == "FINISHED"
    assert sync(run_dir, uri, "--verify") == 0
    assert answers == []
