"""Pictures of runs: drawn after the end, sent once, and never in the way of anything else."""

import json
import sys
from collections import Counter
from types import SimpleNamespace

import pytest

from visionsweep.tracking import uploader
from visionsweep.tracking.ack import load_ack, num_behind
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
    from visionsweep.tracking.store import Store

    names = []
    log_file = Store.log_file

    def record(self, run_id, path, folder, **how):
        log_file(self, run_id, path, folder, **how)
        names.append(path.name)

    monkeypatch.setattr(Store, "log_file", record)
    return names


def figures(client, run_id):
    return [item.path for item in client.list_artifacts(run_id, "figures")]


def test_the_pictures_are_drawn_and_sent_once(make_run, uri, client, drawn, sent):
    run_dir = complete(make_run()[1])
    assert num_behind(run_dir, uri) == 6 + 1
    assert sync(run_dir, uri, "--verify") == 0
    assert num_behind(run_dir, uri) == 0
    run_id = load_ack(run_dir, uri).run_id
    assert figures(client, run_id) == ["figures/curves.png", "figures/per_class.csv"]
    assert sync(run_dir, uri, "--verify") == 0
    assert drawn == {"run": 1}
    assert sent == ["config.yaml", "curves.png", "per_class.csv"]


def test_new_predictions_give_new_pictures(make_run, uri, drawn, sent, capsys):
    run_dir = complete(make_run()[1])
    assert sync(run_dir, uri) == 0
    (run_dir / "predictions.npz").write_text("new")
    assert main([str(run_dir), "--uri", uri, "--dry-run"]) == 1
    assert "6/6 records sent, pictures missing" in capsys.readouterr().out
    assert sync(run_dir, uri, "--verify") == 0
    assert sent.count("curves.png") == 2


def test_verify_misses_a_picture(make_run, uri, client, drawn, capsys):
    run_dir = complete(make_run()[1])
    assert sync(run_dir, uri) == 0
    (run_dir / "figures/curves.png").write_text("another content")
    client.log_artifact(load_ack(run_dir, uri).run_id, run_dir / "figures/curves.png", "figures")
    assert sync(run_dir, uri, "--verify") == 1
    assert "differs: file figures/curves.png: size 15, expected 21" in capsys.readouterr().out


@pytest.mark.parametrize("without", NEEDED)
def test_a_run_without_weights_or_results_has_no_pictures(without, make_run, uri, drawn):
    run_dir = complete(make_run()[1], without)
    assert num_behind(run_dir, uri) == 6
    assert sync(run_dir, uri, "--verify") == 0
    assert (drawn, num_behind(run_dir, uri)) == ({}, 0)


def test_a_failed_run_has_no_pictures(make_run, uri, drawn):
    run_dir = complete(make_run(state="failed")[1])
    assert sync(run_dir, uri, "--verify") == 0
    assert (drawn, num_behind(run_dir, uri)) == ({}, 0)


def test_a_sweep_is_drawn_at_its_end_where_it_kept_weights(make_run, uri, client, drawn, tmp_path):
    from visionsweep.tracking.directory import DirectoryReplay
    from visionsweep.tracking.store import Store

    runs = [complete(make_run(f"s/{number}")[1]) for number in range(3)]
    replay = DirectoryReplay(tmp_path / "s", Store(uri))
    replay.hold_checkpoints(True)
    replay.advance()
    assert (drawn, replay.behind) == ({}, 0)  # the sweep runs
    (runs[1] / "checkpoints/best.pt").unlink()
    replay.hold_checkpoints(False)
    replay.advance()
    assert replay.close()
    assert drawn == {"0": 1, "2": 1}
    assert figures(client, load_ack(runs[1], uri).run_id) == []
    assert num_behind(tmp_path / "s", uri) == 0


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
    from visionsweep.tracking.directory import DirectoryReplay
    from visionsweep.tracking.store import Store

    run_dir = complete(make_run()[1])
    monkeypatch.setattr(uploader, "_is_closed_within", lambda seconds: True)
    reports = []
    replay = DirectoryReplay(run_dir, Store(uri))
    assert uploader.upload(replay, 60.0, lambda *report: reports.append(report)) == 0
    assert set(reports) == {(0, None)}
    assert len(figures(client, load_ack(run_dir, uri).run_id)) == 2


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
    from visionsweep.tracking.store import Store

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
    assert len(figures(client, load_ack(run_dir, uri).run_id)) == 2


def test_a_store_that_lost_the_run_gets_all_of_it_again(make_run, uri, client, drawn):
    from visionsweep.tracking.directory import DirectoryReplay
    from visionsweep.tracking.store import Store

    run_dir = complete(make_run()[1])
    replay = DirectoryReplay(run_dir, Store(uri))
    replay.advance()
    first = load_ack(run_dir, uri).run_id
    ack = run_dir / ".mlflow.json"
    ack.write_text(ack.read_text().replace(first, "0" * 32))
    (run,) = DirectoryReplay(run_dir, Store(uri)).runs.values() or replay.runs.values()
    run.record_failure()
    run.send_pictures()
    assert drawn == {}
    assert run.has_unsent
    assert sync(run_dir, uri, "--verify") == 0
    assert figures(client, first) == ["figures/curves.png", "figures/per_class.csv"]
