import json
import math
import random
import shutil
import time
from datetime import UTC, datetime

import pytest
import yaml

from visionsweep.report.sweep.record import SweepRecord, SweptTrial, read_sweep
from visionsweep.rundir.journal import Journal
from visionsweep.sweep import ranking, results

# As a sweep's `sweep.yaml` has it.
SPACE = {
    "loss": {"choices": ["focal", "größe|x", "1"]},
    "loss.gamma": {
        "type": "float",
        "low": 0.5,
        "high": 5.0,
        "log": False,
        "step": None,
        "when": ["loss=focal"],
    },
    "optim.lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True, "step": None},
    "model.hidden": {"type": "int", "low": 8, "high": 512, "log": True, "step": 1},
    "model.widths": {"choices": [[8, 16], [16, 32]]},
    "trainer.flag": {"choices": [True, False, None]},
}
EVERYTHING = {
    "loss": "focal",
    "loss.gamma": 2.0,
    "optim.lr": 1.0,
    "model.hidden": 64,
    "model.widths": [8, 16],
    "trainer.flag": None,
}
BEGIN = 1_795_577_747.0


def trial(number, state="complete", values=(0.5,), params=None, **changes):
    """Return a trial as the sweep knows it."""
    known = {
        "start": BEGIN + number,
        "end": BEGIN + number + 5,
        "epochs": 3,
        "directory": str(number),
    } | changes
    return results.TrialRecord(
        number=number, state=state, values=values, params=params or {}, **known
    )


def swept(number, state="complete", values=(0.5,), **changes):
    """Return a trial as the report knows it."""
    known = {
        "params": {},
        "start": None,
        "end": None,
        "epochs": None,
        "directory": str(number),
    } | changes
    return SweptTrial(number=number, state=state, values=values, **known)


def write_sweep(
    sweep_dir, trials, directions=("maximize",), others=None, space=None, seeds=1, **more
):
    """Write `sweep.yaml` and `trials.csv` as a sweep does."""
    sweep_dir.mkdir(exist_ok=True)
    config = {
        "objective": {"metric": "val/f1_macro", "others": others or {}},
        "trainer": {"epochs": 10},
    }
    search = {
        "space": SPACE if space is None else space,
        "direction": list(directions),
        "seeds": seeds,
    } | more
    stored = yaml.safe_dump(
        {"id": "x", "search": search, "config": config}, sort_keys=False, allow_unicode=True
    )
    (sweep_dir / "sweep.yaml").write_text(stored, encoding="utf-8")
    (sweep_dir / "trials.csv").write_text(results.trials_csv(trials, directions), encoding="utf-8")


def write_journal(run_dir, values, end="finished", metric="val/f1_macro"):
    """Write a journal with one value of the objective an epoch."""
    journal = Journal(run_dir)
    journal.start("sweep/0", "experiment", {}, {})
    for epoch, value in enumerate(values, start=1):
        journal.metrics(
            epoch, {metric: value, "val/loss": 1.0}, time_ms=round(1000 * (BEGIN + epoch))
        )
    if end is not None:
        journal.end(end)
    journal.close()


def write_result(run_dir, value, others=None, state="finished", **changes):
    """Write a run's `result.json`."""
    objective = {"metric": "val/f1_macro", "direction": "maximize", "value": value}
    result = {"state": state, "objective": objective, "others": others or {}, "epochs": 2} | changes
    (run_dir / "result.json").write_text(json.dumps(result), encoding="utf-8")


def test_trials_with_all_seeds_come_first_and_the_noise_is_known(tmp_path):
    trials = [
        trial(0, values=(0.9,), seed_values=(0.9,)),
        trial(1, values=(0.8,), seed_values=(0.82, 0.78)),
        trial(2, values=(0.7,), seed_values=(0.71, 0.69)),
        trial(3, values=(0.8,), duplicate_of=1),
        trial(4, "pruned", (0.95,), epochs=4),
    ]
    write_sweep(tmp_path, trials, seeds=2, seeds_for="contenders")
    record = read_sweep(tmp_path)
    assert [t.number for t in record.ranked()] == [1, 3, 2, 0]
    assert [t.has_all_seeds for t in record.trials[:4]] == [False, True, True, True]
    assert record.trials[1].seed_values == (0.82, 0.78)
    # The differences between the two trials are 0.11 and 0.09: sd sqrt(2) times the noise.
    assert record.noise().own == pytest.approx(0.01)
    assert record.epochs_saved() == 6  # of one seed: a pruned trial would not have had more
    write_sweep(tmp_path, trials[:3], seeds=2)
    assert [t.number for t in read_sweep(tmp_path).ranked()] == [0, 1, 2]


def test_what_the_sweep_wrote_comes_back_in_its_own_types(tmp_path):
    some = {"loss": "1", "optim.lr": 0.00031, "model.hidden": 8, "trainer.flag": False}
    write_sweep(
        tmp_path / "s", [trial(0, params=EVERYTHING), trial(1, "pruned", (0.25,), some, epochs=7)]
    )
    record = read_sweep(tmp_path / "s")
    assert (record.name, record.metrics, record.directions) == (
        "s",
        ("val/f1_macro",),
        ("maximize",),
    )
    assert record.space == SPACE
    first, second = record.trials
    assert first.params == EVERYTHING
    assert {key: type(value) for key, value in first.params.items()} == {
        k: type(v) for k, v in EVERYTHING.items()
    }
    assert second.params == some  # inactive ones are not there at all
    assert (second.state, second.values, second.epochs, second.directory) == (
        "pruned",
        (0.25,),
        7,
        "1",
    )
    assert (first.start, first.end, first.seconds) == (BEGIN, BEGIN + 5, 5.0)


def test_times_with_and_without_milliseconds(tmp_path):
    write_sweep(tmp_path, [trial(0)])
    path = tmp_path / "trials.csv"
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    for text, second in (
        ("2026-11-25T03:35:47+00:00", 47),
        ("2026-11-25T03:35:47.250+00:00", 47.25),
    ):
        cells[3] = text
        path.write_text("\n".join([lines[0], ",".join(cells)]))
        expected = datetime(2026, 11, 25, 3, 35, tzinfo=UTC).timestamp() + second
        assert read_sweep(tmp_path).trials[0].start == expected


def test_a_row_has_spread_duplicate_and_error(tmp_path):
    many = [
        trial(0, seed_values=(0.4, 0.6)),
        trial(1, duplicate_of=0),
        trial(2, "failed", None, error="ValueError: größer, als\ngedacht"),
    ]
    write_sweep(tmp_path, many, seeds=2)
    first, second, third = read_sweep(tmp_path).trials
    assert first.seed_std == pytest.approx(0.1 * math.sqrt(2))
    assert second.duplicate_of == 0
    assert third.error.startswith("ValueError: größer, als")
    assert third.values == ()


def test_the_curve_is_that_of_the_journal(tmp_path):
    write_sweep(tmp_path, [trial(0)])
    write_journal(tmp_path / "0", [0.1, float("nan"), 0.3])
    write_journal(
        tmp_path / "0", [0.1, 0.2]
    )  # taken up again: an epoch that is there twice counts once
    assert read_sweep(tmp_path).trials[0].curve == ((1, 0.1), (2, 0.2), (3, 0.3))
    write_journal(tmp_path / "0", [0.1, 0.2, 0.3, float("nan"), float("inf"), 0.6])
    assert read_sweep(tmp_path).trials[0].curve == ((1, 0.1), (2, 0.2), (3, 0.3), (6, 0.6))


def test_several_seeds(tmp_path):
    write_sweep(tmp_path, [trial(0, "pruned", epochs=4)], seeds=2)
    write_journal(tmp_path / "0" / "seed_0", [0.1, 0.3])
    write_journal(tmp_path / "0" / "seed_1", [0.9, 0.9])
    record = read_sweep(tmp_path)
    assert record.trials[0].directory == "0/seed_0"
    assert record.trials[0].curve == ((1, 0.1), (2, 0.3))
    assert record.num_seeds == 2
    assert record.epochs_saved() == 2 * 10 - 4


def test_a_running_trial_has_the_epochs_of_its_journal_and_no_end(tmp_path):
    write_sweep(tmp_path, [trial(0, "running", None, epochs=None)])
    write_journal(tmp_path / "0", [0.1, 0.2, 0.3], end=None)
    (running,) = read_sweep(tmp_path).trials
    assert (running.state, running.epochs, running.end, running.value) == ("running", 3, None, None)


def test_epochs_saved_by_pruning():
    trials = [swept(0, epochs=10), swept(1, "pruned", epochs=3), swept(2, "failed", epochs=1)]
    searched = swept(3, "pruned", epochs=15, params={"trainer.epochs": 20})
    assert SweepRecord("s", ("m",), ("maximize",), trials=trials, run_epochs=10).epochs_saved() == 7
    assert (
        SweepRecord(
            "s", ("m",), ("maximize",), trials=[*trials, searched], run_epochs=10
        ).epochs_saved()
        == 12
    )
    assert SweepRecord("s", ("m",), ("maximize",), trials=trials).epochs_saved() is None


@pytest.mark.parametrize(
    "directions", [("maximize",), ("minimize",), ("maximize", "minimize"), ("minimize",) * 3]
)
def test_ranks_are_those_of_the_sweep(directions):
    rng = random.Random(len(directions))
    states = ["complete"] * 4 + ["pruned", "failed", "running"]
    choices = [0.0, 0.25, 0.5, 1.0, math.nan, math.inf, -math.inf]  # few, so that there are ties
    drawn = [
        (rng.choice(states), tuple(rng.choice(choices) for _ in directions)) for _ in range(120)
    ]
    record = SweepRecord(
        name="s",
        metrics=tuple(f"m{i}" for i in range(len(directions))),
        directions=directions,
        trials=[swept(i, state, values) for i, (state, values) in enumerate(drawn)],
    )
    theirs = [trial(i, state, values) for i, (state, values) in enumerate(drawn)]
    assert [t.number for t in record.ranked()] == [
        t.number for t in ranking.ranked(theirs, directions)
    ]
    assert sorted(t.number for t in record.pareto()) == [
        t.number for t in ranking.pareto(theirs, directions)
    ]


def test_counts_leave_out_states_that_nobody_has():
    record = SweepRecord(
        "s", ("m",), ("maximize",), trials=[swept(0), swept(1, "failed", ()), swept(2)]
    )
    assert record.counts() == {"complete": 2, "failed": 1}


def test_several_objectives(tmp_path):
    others = {"num_parameters": "minimize", "val/loss": "minimize"}
    trials = [trial(0, values=(0.9, 1000.0, 0.1)), trial(1, "failed", None)]
    write_sweep(tmp_path, trials, ("maximize", "minimize", "minimize"), others)
    record = read_sweep(tmp_path)
    assert record.metrics == ("val/f1_macro", "num_parameters", "val/loss")
    assert record.directions == ("maximize", "minimize", "minimize")
    assert [t.values for t in record.trials] == [(0.9, 1000.0, 0.1), ()]


def test_another_app_has_no_named_objective(tmp_path):
    write_sweep(tmp_path, [trial(0, values=(1.0, 2.0))], ("minimize", "maximize"))
    stored = yaml.safe_load((tmp_path / "sweep.yaml").read_text())
    stored["config"] = {"x": 1}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(stored))
    record = read_sweep(tmp_path)
    assert (record.metrics, record.directions) == (("value_0", "value_1"), ("minimize", "maximize"))


def make_plain(sweep_dir, *overrides):
    """Write a run directory for each list of overrides, as `hydra/sweeper=basic` leaves it."""
    for number, given in enumerate(overrides):
        run = sweep_dir / str(number)
        write_journal(run, [0.1, 0.2 + number])
        write_result(run, 0.2 + number)
        (run / "environment.json").write_text(json.dumps({"overrides": given}))
    return sweep_dir


def test_a_plain_grid_is_what_differs_between_the_runs(tmp_path):
    grid = [
        ["loss=focal", "optim.lr=1e-3", "seed=0"],
        ["loss=poly", "optim.lr=0.01", "seed=0"],
        ["loss=f1", "seed=0"],
    ]
    record = read_sweep(make_plain(tmp_path, *grid))
    assert [t.params for t in record.trials] == [
        {"loss": "focal", "optim.lr": 0.001},
        {"loss": "poly", "optim.lr": 0.01},
        {"loss": "f1"},
    ]
    assert record.space == {
        "loss": {"choices": ["focal", "poly", "f1"]},
        "optim.lr": {"choices": [0.001, 0.01]},
    }
    assert (record.metrics, record.directions) == (("value",), ("maximize",))
    assert [t.number for t in record.ranked()] == [2, 1, 0]


def test_a_plain_grid_reads_the_objective_from_a_run(tmp_path):
    make_plain(tmp_path, ["+a=1"], ["+a=2"])
    objective = {"metric": "val/f1_macro", "direction": "minimize", "others": {}}
    (tmp_path / "1" / "config.yaml").write_text(yaml.safe_dump({"objective": objective}))
    record = read_sweep(tmp_path)
    assert (record.metrics, record.directions) == (("val/f1_macro",), ("minimize",))
    assert [t.number for t in record.ranked()] == [0, 1]
    assert [t.curve for t in record.trials] == [((1, 0.1), (2, 0.2)), ((1, 0.1), (2, 1.2))]
    assert (record.trials[0].params, record.trials[1].params) == ({"a": 1}, {"a": 2})
    assert record.trials[1].epochs == 2


def test_states_of_a_plain_grid(tmp_path):
    make_plain(tmp_path, *[[f"a={i}"] for i in range(5)])
    write_result(tmp_path / "1", None, state="failed", error="ConfigError: no\ndata")
    write_result(tmp_path / "2", 0.3, state="stopped")
    (tmp_path / "3" / "result.json").unlink()  # it ended, as its journal says
    (tmp_path / "4" / "result.json").unlink()
    (tmp_path / "4" / "events.jsonl").unlink()
    write_journal(tmp_path / "4", [0.1], end=None)
    record = read_sweep(tmp_path)
    assert [t.state for t in record.trials] == [
        "complete",
        "failed",
        "failed",
        "complete",
        "running",
    ]
    assert [t.error for t in record.trials] == [None, "ConfigError: no", "stopped", None, None]


def test_a_run_that_failed_before_its_environment_has_hydras_overrides(tmp_path):
    make_plain(tmp_path, ["a=1"], ["a=2"])
    (tmp_path / "1" / "environment.json").unlink()
    (tmp_path / "1" / ".hydra").mkdir()
    (tmp_path / "1" / ".hydra" / "overrides.yaml").write_text("- a=2\n")
    assert [t.params for t in read_sweep(tmp_path).trials] == [{"a": 1}, {"a": 2}]


def test_without_a_readable_space_it_is_what_the_values_look_like(tmp_path):
    many = [
        trial(i, params={"lr": 10.0 ** (-i / 4), "n": 7 * i, "loss": "ab"[i % 2], "drop": i / 20})
        for i in range(20)
    ]
    write_sweep(tmp_path, many)
    (tmp_path / "sweep.yaml").write_text("a: [unclosed")
    space = read_sweep(tmp_path).space
    assert space["lr"] == {
        "type": "float",
        "low": 10.0 ** (-19 / 4),
        "high": 1.0,
        "log": True,
        "step": None,
    }
    assert space["n"] == {"type": "int", "low": 0, "high": 133, "log": False, "step": 1}
    assert space["loss"] == {"choices": ["a", "b"]}
    assert space["drop"]["log"] is False


def test_directories_that_hold_nothing(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name in ("empty", "file", "missing"):
        record = read_sweep(tmp_path / name)
        assert (record.name, record.trials, record.ranked(), record.counts()) == (name, [], [], {})
        assert record.epochs_saved() == 0


def test_every_file_may_be_half_written(tmp_path):
    whole = tmp_path / "whole"
    write_sweep(
        whole, [trial(0, params=EVERYTHING), trial(1, params=EVERYTHING | {"loss": "größe|x"})]
    )
    make_plain(whole, ["a=1"], ["a=2"])
    plain = make_plain(tmp_path / "plain", ["a=1"], ["a=2"])
    (plain / "0" / "config.yaml").write_text("objective: {metric: val/f1_macro, others: {}}\n")
    names = [
        (whole, "sweep.yaml"),
        (whole, "trials.csv"),
        (whole, "0/events.jsonl"),
        (plain, "0/events.jsonl"),
    ]
    names += [(plain, "0/result.json"), (plain, "0/environment.json"), (plain, "0/config.yaml")]
    for sweep_dir, name in names:
        path = sweep_dir / name
        content = path.read_bytes()
        for end in range(0, len(content), 7):
            path.write_bytes(content[:end])
            record = read_sweep(sweep_dir)
            assert len(record.metrics) == len(record.directions) >= 1
            if name != "trials.csv":
                assert [t.number for t in record.trials] == [0, 1]
            record.ranked()
        path.write_bytes(b"\xff\xfe[1, 2")
        read_sweep(sweep_dir)
        path.write_bytes(content)


@pytest.mark.parametrize(
    "content", ["null", "[1, 2]", '{"state": 3, "objective": [], "others": "x"}', "7"]
)
def test_files_of_another_shape(content, tmp_path):
    make_plain(tmp_path, ["a=1"], ["a=2"])
    for name in ("result.json", "environment.json", "config.yaml", "events.jsonl"):
        (tmp_path / "0" / name).write_text(content)
    (tmp_path / "trials.csv").mkdir()
    record = read_sweep(tmp_path)
    assert [t.number for t in record.trials] == [0, 1]
    assert record.trials[1].values == (1.2,)
    shutil.rmtree(tmp_path / "1")
    for part in ("search", "config"):
        (tmp_path / "sweep.yaml").write_text(f"{part}: {content}")
        assert read_sweep(tmp_path).space == {}


def test_three_hundred_trials_are_read_in_under_a_second(tmp_path):
    write_sweep(tmp_path, [trial(i, params=EVERYTHING) for i in range(300)])
    write_journal(tmp_path / "0", [0.5] * 30)
    journal = (tmp_path / "0" / "events.jsonl").read_bytes()
    for i in range(1, 300):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "events.jsonl").write_bytes(journal)
    started = time.process_time()
    record = read_sweep(tmp_path)
    assert time.process_time() - started < 1.0  # 0.1 on an idle machine
    assert sum(len(t.curve) for t in record.trials) == 9000
