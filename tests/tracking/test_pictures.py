"""Pictures of runs: drawn after the end, sent once, and never in the way of anything else."""

import json
import sys
from collections import Counter
from types import SimpleNamespace

import pytest

from visionsweep.tracking import uploader
from visionsweep.tracking.ack import load_ack, num_behind
from visionsweep.tracking.directory import DirectoryReplay
from visionsweep.tracking.store import Store
from visionsweep.tracking.sync import main

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.usefixtures("plain_page"),
]

NEEDED = ("predictions.npz", "result.json", "checkpoints/best.pt")


def sync(directory, uri, *options):
    return main([str(directory), "--uri", uri, *options])


def complete(run_dir, without=None):
    """Write what a finished run leaves besides its journal."""
    (run_dir / "checkpoints").mkdir(exist_ok=True)
    for name in NEEDED:
        if name != without:
            (run_dir / name).write_text(json.dumps({"state": "finished"}))
    return run_dir


@pytest.fixture
def draw_with(monkeypatch):
    """Return a function that replaces the drawing, and keeps matplotlib from being imported."""
    name = "visionsweep.report.run.pictures"
    return lambda draw: monkeypatch.setitem(sys.modules, name, SimpleNamespace(draw=draw))


@pytest.fixture
def drawn(draw_with):
    """Replace the drawing; return how often it was done for each directory's name."""
    counts = Counter()

    def draw(run_dir):
        counts[run_dir.name] += 1
        (run_dir / "figures").mkdir(exist_ok=True)
        for name in ("curves.png", "per_class.csv"):
            (run_dir / "figures" / name).write_bytes((run_dir / "predictions.npz").read_bytes())
        return ["figures/curves.png", "figures/per_class.csv"]

    draw_with(draw)
    return counts


@pytest.fixture
def sent(monkeypatch):
    """Return the names of the files that were sent."""
    names = []
    log_file = Store.log_file

    def record(self, run_id, path, folder, **how):
        log_file(self, run_id, path, folder, **how)
        names.append(path.name)

    monkeypatch.setattr(Store, "log_file", record)
    return names


def figures(client, run_dir, uri):
    run_id = load_ack(run_dir, uri).run_id
    return [item.path for item in client.list_artifacts(run_id, "figures")]


def test_the_pictures_of_each_predictions_are_sent_once(make_run, uri, client, drawn, sent, capsys):
    run_dir = complete(make_run()[1])
    assert num_behind(run_dir, uri) == 6 + 1
    for _ in range(2):
        assert sync(run_dir, uri, "--verify") == 0
    assert figures(client, run_dir, uri) == ["figures/curves.png", "figures/per_class.csv"]
    assert drawn == {"run": 1}
    assert sent == ["config.yaml", "curves.png", "per_class.csv"]
    (run_dir / "predictions.npz").write_text("new")
    assert sync(run_dir, uri, "--dry-run") == 1
    assert "6/6 records sent, pictures missing" in capsys.readouterr().out
    assert sync(run_dir, uri, "--verify") == 0
    assert sent[3:] == ["curves.png", "per_class.csv"]


def test_verify_misses_a_picture(make_run, uri, client, drawn, capsys):
    run_dir = complete(make_run()[1])
    assert sync(run_dir, uri) == 0
    (run_dir / "figures/curves.png").write_text("another content")
    client.log_artifact(load_ack(run_dir, uri).run_id, run_dir / "figures/curves.png", "figures")
    assert sync(run_dir, uri, "--verify") == 1
    assert "differs: file figures/curves.png: size 15, expected 21" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("state", "without"), [*[("finished", name) for name in NEEDED], ("failed", None)]
)
def test_only_finished_runs_with_weights_have_pictures(state, without, make_run, uri, drawn):
    run_dir = complete(make_run(state=state)[1], without)
    assert sync(run_dir, uri, "--verify") == 0
    assert (drawn, num_behind(run_dir, uri)) == ({}, 0)


def test_a_sweep_is_drawn_at_its_end_where_it_kept_weights(make_run, uri, client, drawn, tmp_path):
    runs = [complete(make_run(f"s/{number}")[1]) for number in range(3)]
    replay = DirectoryReplay(tmp_path / "s", Store(uri))
    replay.hold_checkpoints(True)
    while replay.behind:
        replay.advance()
    assert (drawn, replay.behind) == ({}, 0)  # the sweep runs
    (runs[1] / "checkpoints/best.pt").unlink()
    replay.hold_checkpoints(False)
    while replay.behind:
        replay.advance()
    assert replay.close()
    assert drawn == {"0": 1, "2": 1}
    assert figures(client, runs[1], uri) == []
    assert num_behind(tmp_path / "s", uri) == 0


def test_of_a_trial_with_seeds_and_folds_the_first_run_is_drawn(
    make_run, uri, client, draw_with, tmp_path
):
    places = ["0/fold_0", "0/fold_1", "1/seed_0/fold_0", "1/seed_0/fold_1", "1/seed_1/fold_0"]
    runs = {place: complete(make_run(f"s/{place}")[1]) for place in places}
    complete(make_run("fold_1")[1])  # a single run of that name
    drawn = []
    draw_with(lambda run_dir: drawn.append(run_dir.relative_to(tmp_path).as_posix()) or [])
    assert sync(tmp_path / "s", uri, "--verify") == 0
    assert sorted(drawn) == ["s/0/fold_0", "s/1/seed_0/fold_0"]
    assert num_behind(tmp_path / "s", uri) == 0
    metrics = [client.get_run(load_ack(run, uri).run_id).data.metrics for run in runs.values()]
    assert all(found == metrics[0] != {} for found in metrics)
    assert sync(tmp_path / "fold_1", uri) == 0
    assert drawn[2:] == ["fold_1"]


def test_no_status_waits_for_a_picture(make_run, uri, client, tmp_path, draw_with):
    statuses = []

    def draw(run_dir):
        for directory in (run_dir, run_dir.parent):
            statuses.append(client.get_run(load_ack(directory, uri).run_id).info.status)
        return []

    draw_with(draw)
    complete(make_run("s/0")[1])
    assert sync(tmp_path / "s", uri) == 0
    assert statuses == ["FINISHED", "FINISHED"]


def test_the_uploader_draws_before_it_ends(make_run, uri, client, drawn, monkeypatch):
    run_dir = complete(make_run()[1])
    monkeypatch.setattr(uploader, "_is_closed_within", lambda seconds: True)
    reports = []
    replay = DirectoryReplay(run_dir, Store(uri))
    assert uploader.upload(replay, 60.0, lambda *report: reports.append(report)) == 0
    assert set(reports) == {(0, None)}
    assert len(figures(client, run_dir, uri)) == 2


def test_a_drawing_error_costs_only_the_pictures(make_run, uri, client, draw_with):
    attempts = []

    def fail(run_dir):
        attempts.append(run_dir)
        raise ValueError("no colours left\nand no paper")

    draw_with(fail)
    run_dir = complete(make_run()[1])
    for _ in range(2):
        assert sync(run_dir, uri, "--verify") == 0
    run = client.get_run(load_ack(run_dir, uri).run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["visionsweep.picture_error"] == "ValueError: no colours left"
    assert len(attempts) == 1


def test_an_upload_cut_off_between_two_pictures_sends_the_rest(
    make_run, uri, client, drawn, sent, monkeypatch
):
    run_dir = complete(make_run()[1])
    monkeypatch.setattr("visionsweep.tracking.sync.PAUSES", ())
    log_file = Store.log_file

    def cut_off(self, run_id, path, folder, **how):
        if path.name == "per_class.csv":
            raise ConnectionError("gone")
        log_file(self, run_id, path, folder, **how)

    with monkeypatch.context() as dying:
        dying.setattr(Store, "log_file", cut_off)
        assert sync(run_dir, uri) == 1
    assert num_behind(run_dir, uri) == 1
    assert sync(run_dir, uri, "--verify") == 0
    assert sent == ["config.yaml", "curves.png", "per_class.csv"]
    assert len(figures(client, run_dir, uri)) == 2


def test_a_store_that_lost_the_run_gets_it_again_before_its_pictures(make_run, uri, client, drawn):
    run_dir = complete(make_run()[1])
    replay = DirectoryReplay(run_dir, Store(uri))
    replay.advance()
    ack = run_dir / ".mlflow.json"
    ack.write_text(ack.read_text().replace(load_ack(run_dir, uri).run_id, "0" * 32))
    replay.runs[run_dir].record_failure()
    assert not replay.close()
    assert drawn == {}
    assert sync(run_dir, uri, "--verify") == 0
    assert len(figures(client, run_dir, uri)) == 2
