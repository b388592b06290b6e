"""Whole sweeps of a generic app, in process: what a user types and gets."""

import csv
import json
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState

from tests.sweep.apps import OPTUNA_ASYNC, App, sphere, tree
from visionsweep.sweep import command, open_study
from visionsweep.sweep.study import past_trials
from visionsweep.sweep.trial import TrialPruned, TrialStopped, current_trial

X = "x=interval(-5.0,5.0)"
FREE = "hydra.sweeper.n_trials=3"
ONE = "hydra.sweeper.n_trials=1"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> App:
    return App(tmp_path, monkeypatch, capfd, is_quick=True)


@pytest.fixture
def whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> App:
    return App(tmp_path, monkeypatch, capfd)


def values(app: App, name: str = "s") -> list[list[float] | None]:
    return [trial.values for trial in app.study(name).trials]


def states(app: App, name: str = "s") -> list[str]:
    return [trial.state.name for trial in app.study(name).trials]


def table(app: App, name: str = "s") -> list[dict[str, str]]:
    with (app.folder / name / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def train(cfg: DictConfig) -> float:
    """Return x after three epochs that approach it, unless pruned."""
    for epoch in (1, 2, 3):
        value = float(cfg.x) - 1 / epoch
        if current_trial().report(value, epoch):
            raise TrialPruned
    return value


# -- apps as they are


def test_the_sweep_gives_a_group_without_a_default(app: App) -> None:
    app.extend(defaults=[{"db": "???"}, "_self_"], name="${db.name}")
    out = app.sweep("db=mysql,postgresql", FREE)
    assert out.code == 0, out.text
    assert {config["db"]["name"] for config in app.configs} == {"mysql", "postgresql"}
    app.extend(defaults=[{"db": "???"}, "_self_"])
    assert "You must specify 'db'" in app.sweep(X, ONE, to="other").error()


@pytest.mark.parametrize(
    ("subdir", "name"),
    [
        ("${hydra.job.num}", None),
        ("trial_${hydra.job.num}", "trial_0"),
        ("${mode}/${hydra.job.num}_${hydra.job.override_dirname}", "fast/0_x=2"),
        ("${hydra.job.override_dirname}/it", "x=2/it"),
        ("", None),
    ],
)
def test_a_trials_directory_has_the_apps_name_too(app: App, subdir: str, name: str | None) -> None:
    out = app.sweep("x=2", ONE, f"hydra.sweep.subdir={subdir}")
    assert out.code == 0, out.text
    assert app.directories() == ["0"]
    links = [path for path in (app.folder / "s").rglob("*") if path.is_symlink()]
    names = [str(path.relative_to(app.folder / "s")) for path in links if path.name != "best"]
    assert names == ([name] if name else [])
    assert all((path / ".hydra" / "overrides.yaml").is_file() for path in links)


def test_choices_that_python_holds_for_equal_are_all_tried(app: App) -> None:
    out = app.sweep("z=0,false,1,true,1.0,null", "hydra/sweeper/sampler=grid")
    assert out.code == 0, out.text
    found = [repr(config["z"]) for config in app.configs]
    assert found == ["0", "False", "1", "True", "1.0", "None"]
    assert app.sweep("z=0,false", "hydra.sweeper.enqueue=[{z: false}]", ONE, to="t").code == 0
    assert app.configs[0]["z"] is False


def test_a_config_of_another_sweeper_names_its_class(app: App) -> None:
    theirs = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"
    app.extend(hydra={"sweeper": {"_target_": theirs}})
    assert app.sweep(X, ONE).error().startswith("hydra.sweeper._target_: ")
    assert app("x=2").code == 0  # a single run has no sweeper


@pytest.mark.parametrize("name", ["/proc/nope", "n" * 300, "file/s", "file", "lock", "log", "yaml"])
def test_a_directory_that_cannot_be_used_is_one_line(app: App, name: str) -> None:
    (app.folder / "file").touch()
    for parent, folder in (("lock", ".lock"), ("log", "sweep.log"), ("yaml", "sweep.yaml")):
        (app.folder / parent / folder).mkdir(parents=True)
    text = app.sweep(X, ONE, to=name).error()
    assert "cannot lock" in text if name == "lock" else "hydra.sweep.dir=DIR" in text
    assert name[:20] in text
    assert len(text.splitlines()) == 1
    assert app.jobs == []


# -- a sweep from its first line to its last


def test_a_sweep_and_what_it_leaves(whole: App) -> None:
    app = whole
    out = app.sweep(X, "db=mysql,postgresql", FREE)
    assert out.code == 0, out.text
    assert app.directories() == ["0", "1", "2"]
    trials = app.study().trials
    assert [t.number for t in trials] == [0, 1, 2]
    # Independent of the sweep's own bookkeeping: the config that each job really had.
    assert [c["x"] ** 2 for c in app.configs] == [t.value for t in trials]
    assert [c["x"] for c in app.configs] == [t.params["x"] for t in trials]
    assert [c["db"]["name"] for c in app.configs] == [t.params["db"] for t in trials]
    best = min(trials, key=lambda t: t.value or 0.0)
    assert app.results() == {
        "name": "optuna",
        "best_params": best.params,
        "best_value": best.value,
        "best_trial": best.number,
    }
    assert [
        (row["number"], row["state"], float(row["value"]), row["directory"]) for row in table(app)
    ] == [(str(t.number), "complete", t.value, str(t.number)) for t in trials]
    assert (app.folder / "s" / "best").resolve() == app.folder / "s" / str(best.number)
    for number in range(3):
        written = OmegaConf.load(app.folder / "s" / str(number) / ".hydra" / "config.yaml")
        assert OmegaConf.to_container(written) == app.configs[number]
    lines = [line.partition("[HYDRA] ")[2] for line in out.stdout.splitlines()]
    assert lines[0] == "new study s"
    command = "python app.py --multirun hydra/sweeper=optuna_async hydra.sweep.dir=s"
    assert lines[1] == lines[-1] == f"resume with: {command}"
    assert len([line for line in lines if line.startswith("resume with: ")]) == 2
    logged = (app.folder / "s" / "sweep.log").read_text().splitlines()
    assert [line.partition("[INFO] ")[2] for line in logged] == lines[1:-1]


@pytest.mark.slow
def test_the_best_trial_can_be_repeated(app: App) -> None:
    app.write(
        "config.yaml",
        (app.folder / "conf" / "config.yaml")
        .read_text()
        .replace("_self_", "_self_, {experiment: null}"),
    )
    out = app.sweep(X, "db=mysql,postgresql", "z=\"it's\",'a, b'", FREE)
    assert out.code == 0, out.text
    best = app.study().best_trial
    wanted = app.configs[best.number]
    [line] = [line for line in out.stdout.splitlines() if "repeat trial" in line]
    python, program, *arguments = shlex.split(line.partition(f"trial {best.number} with: ")[2])
    assert (python, program) == ("python", "app.py")
    assert app(*arguments, "hydra.run.dir=again").code == 0
    assert app.configs == [wanted]
    [command] = [
        line.partition("python app.py ")[2]
        for line in (app.folder / "s" / "experiment" / "best.yaml").read_text().splitlines()
        if line.startswith("# python app.py")
    ]
    assert app(*shlex.split(command), "hydra.run.dir=preset").code == 0
    assert app.configs == [wanted]


def test_nothing_to_search_is_one_configuration(app: App) -> None:
    out = app.sweep("y=3", FREE)
    assert out.code == 0, out.text
    assert app.overrides == [("y=3",)]
    assert values(app) == [[10.0]] * 3  # x=1 in the config


def test_a_losing_trial_is_pruned_and_keeps_its_record(app: App) -> None:
    app.task = train
    order = json.dumps([{"x": x} for x in (5.0, 4.0, 1.0, 6.0)]).replace('"', "")
    out = app.sweep(
        X.replace("5.0)", "9.0)"),
        f"hydra.sweeper.enqueue={order}",
        "hydra/sweeper/pruner=median",
        "hydra.sweeper.pruner.n_startup_trials=2",
        "hydra.sweeper.pruner.n_warmup_steps=1",
        "hydra.sweeper.direction=maximize",
        "hydra.sweeper.epochs_key=epochs",
        "hydra.sweeper.n_trials=4",
    )
    assert out.code == 0, out.text
    # Trial 2 meets two complete ones whose median it does not reach.
    assert states(app) == ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"]
    third = app.study().trials[2]
    assert third.intermediate_values == {1: 0.0}
    assert third.value == 0.0
    assert [row["epochs"] for row in table(app)] == ["3", "3", "1", "3"]
    assert "pruning saved 2 of 12 epochs" in out.stdout
    assert app.directories() == ["0", "1", "2", "3"]


# -- the plan


def test_a_dry_run_shows_the_plan_and_writes_nothing(app: App) -> None:
    before = tree(app.folder)
    out = app.sweep(
        X,
        "db=mysql,postgresql",
        "y=2",
        "hydra.sweeper.dry_run=true",
        "hydra.sweeper.epochs_key=epochs",
    )
    assert out.code == 0, out.text
    assert tree(app.folder) == before
    assert not (app.folder / "s").exists()
    assert app.configs == []
    assert "x    -5 .. 5" in out.stdout
    assert "db   mysql | postgresql" in out.stdout
    assert "fixed: y=2" in out.stdout
    assert "at most 60 epochs (3 per run)" in out.stdout  # 20 trials
    shown = [line.split("  ")[2:] for line in out.stdout.splitlines() if line.startswith("  #")]
    app.sweep(X, "db=mysql,postgresql", "y=2", "hydra.sweeper.n_trials=5")
    assert [line[0] for line in shown] == [" ".join(o) for o in app.overrides]  # what really runs


# -- search spaces


GRID = (
    "--multirun",
    "hydra/sweeper=optuna_async",
    "hydra/sweeper/sampler=grid",
    "hydra.sweep.dir=s",
)
TWO_BY_TWO = [
    ("x=1", "db=mysql"),
    ("x=1", "db=postgresql"),
    ("x=2", "db=mysql"),
    ("x=2", "db=postgresql"),
]


@pytest.mark.parametrize(
    ("given", "count"),
    [(["hydra.sweeper.n_trials=9"], 4), (["hydra.sweeper.n_trials=3"], 3)],
)
def test_a_grid_is_each_configuration_once_in_order(app: App, given: list[str], count: int) -> None:
    out = app(*GRID, "x=1,2", "db=mysql,postgresql", *given)
    assert out.code == 0, out.text
    assert app.overrides == TWO_BY_TWO[:count]
    assert ("runs only a part of the grid of 4" in out.stdout) == (count < 4)


def test_a_grid_is_resumed_and_extended(app: App) -> None:
    app(*GRID, "x=range(0,2)", ONE)
    app(*GRID, "hydra.sweeper.n_trials=null")
    assert app.overrides == [("x=1",)]
    app(*GRID, "x=range(2,4)", "hydra.sweeper.on_change=extend")
    assert app.overrides == [("x=2",), ("x=3",)]
    assert values(app) == [[0.0], [1.0], [4.0], [9.0]]


def test_a_grid_refuses_a_continuous_parameter(app: App) -> None:
    text = app(*GRID, "db=mysql,postgresql", X).error()
    assert text.startswith("x: -5 .. 5 is continuous")
    assert not (app.folder / "s").exists()


CONDITIONAL = {
    "mode": "choice(fast,slow)",
    "x": {"space": "interval(1.0,2.0)", "when": "mode=slow"},
}


def test_an_inactive_parameter_is_not_among_the_overrides(app: App) -> None:
    app.extend(hydra={"sweeper": {"params": CONDITIONAL}})
    app.write(
        "config.yaml",
        "defaults: [{override hydra/sweeper: optuna_async}]\n" + _without_defaults(app),
    )
    out = app.sweep("hydra.sweeper.n_trials=6")
    assert out.code == 0, out.text
    found = [dict(o.split("=") for o in job) for job in app.overrides]
    assert {job["mode"] for job in found} == {"fast", "slow"}
    assert all(("x" in job) == (job["mode"] == "slow") for job in found)
    for trial in app.study().trials:
        assert ("x" in trial.params) == (trial.params["mode"] == "slow")
        assert trial.value == (trial.params["x"] ** 2 if "x" in trial.params else 1.0)
    # Equal as far as they are active, so the first stands for all the others.
    fast = [t.number for t in app.study().trials if t.params["mode"] == "fast"]
    assert [row["duplicate_of"] for row in table(app) if int(row["number"]) in fast] == [
        "",
        *[str(fast[0])] * (len(fast) - 1),
    ]
    assert all(row["params.x"] == "" for row in table(app) if int(row["number"]) in fast)


def _without_defaults(app: App) -> str:
    lines = (app.folder / "conf" / "config.yaml").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("x:"))
    return "\n".join(lines[start:])


@pytest.mark.slow
def test_default_params_give_way_to_the_command_line(app: App) -> None:
    defaults = "+hydra.sweeper.default_params={y: 'choice(4,5)', z: 'choice(a,b)'}"
    app.sweep(defaults, "y=4", ONE, to="fixed")
    assert [o.split("=")[0] for o in app.overrides[0]] == ["z", "y"]
    app.sweep(defaults, X, ONE, to="swept")
    assert [o.split("=")[0] for o in app.overrides[0]] == ["x"]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("xx=1,2", ["xx: no such key", "did you mean x?"]),
        ("db=mysql,oracle", ["db=oracle", "db/oracle"]),
        ("x=interval(1,", ["x=interval(1,"]),
        ("+hydra.sweeper.params={nn: 'choice(1,2)'}", ["nn=1"]),
    ],
)
def test_a_typo_is_found_before_trial_0(whole: App, argument: str, words: list[str]) -> None:
    app = whole
    out = app.sweep(argument, FREE)
    assert out.code == 1
    assert "Traceback" not in out.text
    assert all(word in out.stderr for word in words), out.text
    assert app.configs == []
    assert app.directories() == [] if (app.folder / "s").exists() else True
    assert not (app.folder / "s" / "sweep.yaml").exists()
    if argument == "xx=1,2":
        out = app.sweep("y=1,2", ONE)
        assert out.code == 0, out.text
        assert app.directories() == ["0"]
        assert len(app.study().trials) == 1


def test_each_pair_of_group_choices_is_composed(whole: App) -> None:
    app = whole
    app.write(
        "config.yaml", (app.folder / "conf" / "config.yaml").read_text() + "\nport: ${db.port}\n"
    )
    app.write("cache/on.yaml", "# @package _global_\ndefaults: [{override /db: sqlite}]\n")
    app.write("cache/off.yaml", "{}\n")
    app.write(
        "config.yaml",
        (app.folder / "conf" / "config.yaml")
        .read_text()
        .replace("_self_]", "{cache: 'off'}, _self_]"),
    )
    text = app.sweep("db=mysql,postgresql", "cache='off',on,of", FREE).error()
    assert "cache=of" in text


def check(config: DictConfig) -> dict[str, int]:
    if config.db.name == config.backup.name:
        raise ValueError("backed up to itself")
    return {"checkpoint_bytes": 1000}


CHECK = f"hydra.sweeper.check={__name__}.check"


@pytest.mark.slow
def test_the_apps_own_check_refuses_a_pair(whole: App) -> None:
    app = whole
    text = app.sweep("db=mysql,postgresql", "db@backup=sqlite,mysql", CHECK, FREE).error()
    assert text == "db=mysql db@backup=mysql: ValueError: backed up to itself"
    assert app.configs == []
    assert app.directories() == []
    assert not (app.folder / "s" / "sweep.yaml").exists()
    out = app.sweep("db=mysql,postgresql", "db@backup=sqlite", CHECK, ONE)
    assert out.code == 0, out.text
    assert [job.key for job in app.jobs if job.check] == ["check-0", "check-1"]
    app.sweep()  # checked once
    assert [job.key for job in app.jobs if job.check] == []


def test_the_plan_states_the_disk_space(whole: App) -> None:
    app = whole
    out = app.sweep(
        X,
        CHECK,
        "hydra.sweeper.dry_run=true",
        "hydra.sweeper.n_trials=9",
        "hydra.sweeper.keep_checkpoints=7",
    )
    assert out.code == 0, out.text
    assert "8 kB on disk for weights" in out.stdout or "0.0 MB on disk for weights" in out.stdout


# -- enqueued, warm-started and repeated configurations


def test_enqueued_configurations_come_first(app: App) -> None:
    out = app.sweep(X, "z=a,b", "hydra.sweeper.enqueue=[{x: 1, z: b}, {z: a}]", FREE)
    assert out.code == 0, out.text
    params = [trial.params for trial in app.study().trials]
    assert params[0] == {"x": 1.0, "z": "b"}
    assert params[1]["z"] == "a"
    assert -5 <= params[1]["x"] <= 5
    assert app.overrides[0] == ("x=1.0", "z=b")


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("{xx: 1}", "xx is not searched; did you mean x?"),
        ("{x: 9}", "x=9: expected -5 .. 5"),
        ("{x: a}", "x=a"),
        ("7", "list"),
    ],
)
def test_a_bad_enqueued_configuration_is_refused(app: App, item: str, words: str) -> None:
    text = app.sweep(X, f"hydra.sweeper.enqueue=[{item}]", FREE).error()
    assert text.startswith("hydra.sweeper.enqueue")
    assert words in text
    assert not (app.folder / "s").exists()


@pytest.mark.slow
def test_warm_start_informs_the_sampler(app: App) -> None:
    tpe = (
        "--multirun",
        "hydra/sweeper=optuna_async",
        "hydra.sweeper.sampler.seed=5",
        "hydra.sweep.dir=t",
        X,
    )
    app.sweep(X, "hydra.sweeper.n_trials=10", to="old")
    out = app(*tpe, "hydra.sweeper.warm_start=old", "hydra.sweeper.n_trials=2")
    assert out.code == 0, out.text
    assert "warm start: 10 complete trials of old" in out.stdout
    assert app.directories("t") == ["0", "1"]
    informed = [trial.params["x"] for trial in app.study("t").trials]
    app(*tpe[:-2], "hydra.sweep.dir=cold", X, "hydra.sweeper.n_trials=2")
    assert informed != [trial.params["x"] for trial in app.study("cold").trials]
    # The old sweep may grow, or go: this one keeps what it began with.
    app.sweep("hydra.sweeper.n_trials=11", to="old")
    app(*tpe, "hydra.sweeper.n_trials=3")
    copy = app.folder / "t" / "warm_start.json"
    assert len(json.loads(copy.read_text())["trials"]) == 10
    copy.write_text('{"warm_start": "old", "trials": [[')
    assert "warm_start.json is damaged" in app(*tpe, "hydra.sweeper.n_trials=4").text
    assert len(json.loads(copy.read_text())["trials"]) == 11


def test_a_warm_start_takes_several_sweeps(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    app.sweep("x=1,2", "hydra/sweeper/sampler=grid", to="one")
    app.sweep("x=3,9", "hydra/sweeper/sampler=grid", to="two")
    informed: list[float] = []

    def spy(*given: Any) -> Any:
        found = past_trials(*given)
        informed[:] = [trial.params["x"] for trial in found]
        return found

    monkeypatch.setattr(open_study, "past_trials", spy)
    both = "hydra.sweeper.warm_start=[one, two]"
    out = app.sweep("x=interval(0.0,5.0)", both, ONE)
    assert out.code == 0, out.text
    assert informed == [1.0, 2.0, 3.0]
    assert "warm start: 2 complete trials of two" in out.stdout
    assert "warm start: 3 of 4 trials fit this search space" in out.stdout
    kept = (app.folder / "s" / "warm_start.json").read_text()
    assert json.loads(kept)["warm_start"] == ["one", "two"]
    app.sweep("hydra.sweeper.n_trials=2")
    assert informed == [1.0, 2.0, 3.0]
    text = app.sweep("hydra.sweeper.warm_start=[one]", "hydra.sweeper.n_trials=3").error()
    assert "hydra.sweeper.warm_start: ['one', 'two'] -> 'one'" in text


def test_a_warm_start_of_one_is_stored_as_ever(app: App) -> None:
    app.sweep("x=1,2", "hydra/sweeper/sampler=grid", to="one")
    app.sweep("x=1,2", "hydra.sweeper.warm_start=one", ONE)
    assert OmegaConf.load(app.folder / "s" / "sweep.yaml").search.warm_start == "one"
    snapshot = app.folder / "s" / "warm_start.json"
    snapshot.write_text(
        '{"warm_start": "one", "trials": [[{"x": 2}, [4.0]]]}'
    )  # an earlier version
    out = app.sweep("hydra.sweeper.warm_start=[one]", "hydra.sweeper.n_trials=2")
    assert out.code == 0, out.text
    assert "complete trials of" not in out.stdout


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("[one,./one]", "one is named twice; remove one"),
        ("[1]", "expected the directory of a sweep (multirun/STUDY) or a list of them, got [1]"),
        ("{a: one}", "expected the directory of a sweep"),
        ("[one,two]", "two holds no sweep (no sweep.yaml)"),
    ],
)
def test_a_bad_warm_start_is_one_line(app: App, value: str, words: str) -> None:
    app.sweep("x=1,2", "hydra/sweeper/sampler=grid", to="one")
    text = app.sweep(X, f"hydra.sweeper.warm_start={value}", ONE).error()
    assert text.startswith("hydra.sweeper.warm_start: ")
    assert words in text


def test_a_warm_start_from_another_metric_is_refused(app: App) -> None:
    app.extend(metric="f1")
    key = "hydra.sweeper.metric_key=metric"
    app.sweep("x=1,2", "hydra/sweeper/sampler=grid", key, to="one")
    assert app.sweep(X, key, "hydra.sweeper.warm_start=one", ONE, to="t").code == 0
    text = app.sweep(X, key, "metric=loss", "hydra.sweeper.warm_start=one", ONE).error()
    assert text == (
        "hydra.sweeper.warm_start: one searched for the best f1, this sweep for the best loss: "
        "the values cannot be compared"
    )


@pytest.mark.slow
def test_a_refused_warm_start_leaves_nothing(app: App) -> None:
    app.sweep(X, ONE, to="old")
    for setting, words in [
        ("warm_start=odl", "odl holds no sweep"),
        ("direction=maximize", "another direction"),
    ]:
        other = "hydra.sweeper.warm_start=old" if "warm" not in setting else ""
        text = app.sweep(X, f"hydra.sweeper.{setting}", *filter(None, [other])).error()
        assert text.startswith("hydra.sweeper.warm_start: ")
        assert words in text
    out = app.sweep(X, "hydra.sweeper.warm_start=old", ONE)
    assert out.code == 0, out.text
    app._storages.clear()
    assert (
        "has lost its study 'old'" in app.sweep(X, "hydra.sweeper.warm_start=old", to="t").error()
    )


def test_a_repeated_configuration_takes_the_stored_value_and_counts(app: App) -> None:
    out = app.sweep("x=2,3", "hydra.sweeper.n_trials=6")
    assert out.code == 0, out.text
    assert len(app.configs) == 2
    assert values(app) == [[t.params["x"] ** 2] for t in app.study().trials]
    first = {row["params.x"]: row["number"] for row in reversed(table(app))}
    for row in table(app):
        original = first[row["params.x"]]
        assert row["duplicate_of"] == ("" if row["number"] == original else original)
        assert row["directory"] == original
    assert app.directories() == sorted(first.values())


# -- seeds


def test_a_value_is_the_mean_over_seeds_and_each_is_a_job(app: App) -> None:
    app.task = lambda cfg: cfg.x + cfg.seed
    seeds = ("hydra.sweeper.seeds=3", "hydra.sweeper.seeds_for=all")
    out = app.sweep(X, *seeds, "seed=10", "hydra.sweeper.n_trials=2")
    assert out.code == 0, out.text
    assert [config["seed"] for config in app.configs] == [10, 11, 12] * 2
    assert values(app) == [[pytest.approx(t.params["x"] + 11)] for t in app.study().trials]
    assert sorted(p.name for p in (app.folder / "s" / "1").iterdir()) == [
        "seed_0",
        "seed_1",
        "seed_2",
    ]
    assert [job.number for job in app.jobs] == [0, 0, 0, 1, 1, 1]
    assert [float(row["seed_std"]) for row in table(app)] == [pytest.approx(1.0)] * 2
    [line] = [line for line in out.stdout.splitlines() if "(its first run) with: " in line]
    best = app.study().best_trial
    assert app(*shlex.split(line.partition("app.py ")[2]), "hydra.run.dir=again").code == 0
    assert app.configs[0]["seed"] == 10
    assert app.configs[0]["x"] == best.params["x"]


def test_a_race_over_seeds_goes_on_after_an_interruption(app: App) -> None:
    def task(cfg: DictConfig) -> float:
        if cfg.seed == 9 and not (app.folder / "interrupted").exists():
            (app.folder / "interrupted").touch()
            signal.raise_signal(signal.SIGINT)
            while not current_trial().should_stop():
                time.sleep(0.01)
            raise TrialStopped
        return float(cfg.x + cfg.seed)

    app.task = task
    sweep = (X, "hydra.sweeper.seeds=3", "hydra.sweeper.n_trials=6", "seed=7")
    out = app.sweep(*sweep)
    assert out.code == 130, out.text
    assert "it has not had all of its seeds and may be lucky; the same command goes on" in out.text
    done = len(app.jobs)
    out = app.sweep(*sweep)
    assert out.code == 0, out.text
    assert "nothing left to do" not in out.text
    assert "it has not had all" not in out.text
    assert "noise between seeds: " in out.text
    assert done + len(app.jobs) < 18
    best = next(row for row in table(app) if row["number"] == str(app.results()["best_trial"]))
    assert len(json.loads(best["seed_values"])) == 3
    out = app.sweep(*sweep)
    assert "nothing left to do" in out.text
    assert app.jobs == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hydra.sweeper.seed_key=sead"], "hydra.sweeper.seed_key: "),
        (["hydra.sweeper.seed_key=mode"], "hydra.sweeper.seed_key: "),
        (["seed=1,2"], "seed: cannot be searched"),
    ],
)
def test_seeds_need_a_key_of_their_own(app: App, arguments: list[str], words: str) -> None:
    assert words in app.sweep(X, "hydra.sweeper.seeds=2", *arguments).error()


# -- ends


def test_a_timeout_stops_a_trial_that_is_resumed_later(app: App) -> None:
    def slow(cfg: DictConfig) -> float:
        while not current_trial().should_stop():
            time.sleep(0.005)
        raise TrialStopped

    app.task = slow
    out = app.sweep(X, "hydra.sweeper.timeout_seconds=0.1", FREE)
    assert out.code == 1  # nothing completed
    assert states(app) == ["RUNNING"]
    app.task = sphere
    app.sweep("hydra.sweeper.timeout_seconds=null")
    assert [(job.number, job.attempt) for job in app.jobs] == [(0, 1), (1, 0), (2, 0)]
    assert states(app) == ["COMPLETE"] * 3


def test_attributes_of_a_trial_are_optunas_and_columns_of_the_table(app: App) -> None:
    def task(cfg: DictConfig) -> float:
        current_trial().set(size=len(app.configs), note="a,b")
        if len(app.configs) == 2:
            current_trial().set(note=[1, None])
            raise ValueError
        return sphere(cfg)

    app.task = task
    assert app.sweep(X, FREE).code == 0
    expected = [{"size": 1, "note": "a,b"}, {"size": 2, "note": [1, None]}]
    for trial, attributes in zip(app.study().trials, expected, strict=False):
        assert attributes.items() <= trial.user_attrs.items()
    cells = [(row["user_attrs.size"], row["user_attrs.note"]) for row in table(app)]
    assert cells == [("1", "a,b"), ("2", "[1, None]"), ("3", "a,b")]


def test_several_objectives_give_a_pareto_set(app: App) -> None:
    app.task = lambda cfg: (cfg.x, cfg.y)
    points = [(1, 5), (2, 2), (3, 3), (5, 1)]
    order = str([{"x": float(x), "y": y} for x, y in points]).replace("'", "")
    both = "hydra.sweeper.direction=[minimize,minimize]"
    out = app.sweep(
        X, "y=range(0,9)", both, f"hydra.sweeper.enqueue={order}", "hydra.sweeper.n_trials=4"
    )
    assert out.code == 0, out.text
    assert app.results() == {
        "name": "optuna",
        "solutions": [
            {"params": {"x": x, "y": y}, "values": [x, y], "trial": number}
            for number, x, y in [(0, 1, 5), (1, 2, 2), (3, 5, 1)]
        ],
    }
    assert [(row["value_0"], row["value_1"]) for row in table(app)][1] == ("2.0", "2.0")
    app.task = sphere
    out = app.sweep(X, "y=range(0,9)", both, to="one")
    assert out.code == 1
    assert "expected 2 objective values from the task function, got 1" in out.stdout


def test_several_objectives_are_pruned_by_the_first(app: App) -> None:
    def task(cfg: DictConfig) -> tuple[float, int]:
        if current_trial().report((cfg.x, 9 - cfg.y), 1):
            raise TrialPruned
        return cfg.x, 9 - cfg.y

    app.task = task
    order = "[{x: 1.0, y: 1}, {x: 2.0, y: 2}, {x: 3.0, y: 0}]"
    both = ("hydra.sweeper.direction=[minimize,minimize]", "hydra/sweeper/pruner=asha")
    both += (f"hydra.sweeper.enqueue={order}", "hydra.sweeper.n_trials=3", X, "y=range(0,9)")
    out = app.sweep(*both)
    rule = "SuccessiveHalvingPruner ends a trial that is losing in the first"
    line = f"2 objectives: {rule} (hydra.sweeper.prune_by=first_objective)"
    assert out.stdout.splitlines()[1].endswith(line)
    found = [(row["state"], row["value_0"], row["value_1"]) for row in table(app)]
    assert found == [("complete", "1.0", "8.0"), ("pruned", "2.0", "7.0"), ("pruned", "3.0", "9.0")]
    assert [solution["trial"] for solution in app.results()["solutions"]] == [0]
    app.sweep(*both, "hydra.sweeper.prune_by=dominated", to="t")
    assert [row["state"] for row in table(app, "t")] == ["complete", "complete", "pruned"]
    out = app.sweep(*both, "hydra.sweeper.prune_by=dominated", "hydra.sweeper.dry_run=true", to="u")
    assert "losing in the first, and dominated in all of them at the same epoch" in out.stdout


# -- failures


def test_an_exception_fails_one_trial_with_its_reason(app: App) -> None:
    def odd(cfg: DictConfig) -> float:
        if HydraConfig.get().job.num == 1:
            raise ValueError("one is odd")
        return float(cfg.x)

    app.task = odd
    out = app.sweep(X, FREE)
    assert out.code == 0
    assert states(app) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert (app.folder / "s" / "1" / "error.txt").exists()
    assert table(app)[1]["error"] == "ValueError: one is odd"
    assert "#1 ValueError: one is odd (s/1/error.txt)" in out.stdout


@pytest.mark.slow
def test_a_trial_that_cannot_be_composed_fails_alone(app: App) -> None:
    app.write(
        "config.yaml",
        (app.folder / "conf" / "config.yaml").read_text() + "\nratio: ${eval:${x},${y}}\n",
    )
    OmegaConf.register_resolver("eval", lambda x, y: x / y, replace=True)
    app.task = lambda cfg: cfg.ratio
    order = "hydra.sweeper.enqueue=[{y: 1}, {y: 0}, {y: 2}]"
    out = app.sweep("y=range(0,9)", order, FREE)
    assert out.code == 0, out.text
    assert states(app) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert "ZeroDivisionError" in table(app)[1]["error"]


@pytest.mark.slow
def test_only_the_best_trials_keep_their_weights(app: App) -> None:
    def saving(cfg: DictConfig) -> float:
        folder = Path(HydraConfig.get().runtime.output_dir) / "checkpoints"
        folder.mkdir()
        (folder / "best.bin").write_text("w")
        return float(cfg.x)

    app.task = saving
    app.sweep(X, "hydra.sweeper.n_trials=4", "hydra.sweeper.keep_checkpoints=2")
    order = sorted(range(4), key=lambda n: values(app)[n])  # type: ignore[arg-type, return-value]
    kept = [
        int(path.parts[-3])
        for path in (app.folder / "s").glob("*/checkpoints/best.bin")
        if "best" not in path.parts
    ]
    assert sorted(kept) == sorted(order[:2])


# -- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials: expected at least 1, got 0"),
        (["hydra.sweep.subdir=../${hydra.job.num}"], "hydra.sweep.subdir: expected a relative"),
        (["hydra.sweep.dir=${nope}"], "hydra.sweep.dir: Interpolation key 'nope' not found"),
        (["hydra.sweep.dir=''"], "hydra.sweep.dir: expected a directory, got ''"),
        (
            ["hydra/sweeper/pruner=asha", "hydra.sweeper.pruner.min_resource=0"],
            "hydra.sweeper.pruner: ",
        ),
        (["+hydra.sweeper.sampler.speed=9"], "hydra.sweeper.sampler: "),
        (["hydra/sweeper/sampler=cmaes"], "hydra.sweeper.sampler: CmaEsSampler needs a package"),
        (["hydra.sweeper.sampler._target_=os.getcwd"], "hydra.sweeper.sampler: "),
        (["hydra.sweeper.storage=nosuchdb://x"], "hydra.sweeper.storage: cannot open nosuchdb://x"),
        (
            ["hydra.sweeper.custom_search_space=no.such.function"],
            "hydra.sweeper.custom_search_space: ",
        ),
        ([f"hydra.sweeper.check={__name__}.chekc"], f"hydra.sweeper.check={__name__}.chekc: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_setting_is_one_line(
    request: pytest.FixtureRequest, arguments: list[str], message: str
) -> None:
    is_quick = "=nosuchdb" not in arguments[0] and "check" not in arguments[0]
    app: App = request.getfixturevalue("app" if is_quick else "whole")
    text = app.sweep(X, *arguments).error()
    assert text.startswith(message), text
    assert len(text.splitlines()) == 1
    assert app.configs == []
    assert not (app.folder / "s" / "sweep.yaml").exists()
    assert not (app.folder / "s" / "sweep.log").exists() or "check" in message


@pytest.mark.parametrize(
    "setting",
    ["n_trials=many", "on_change=maybe", "n_trial=3"],
)
def test_hydra_refuses_values_of_the_wrong_type(app: App, setting: str) -> None:
    out = app.sweep(X, f"hydra.sweeper.{setting}")
    assert out.code == 1
    assert setting.partition("=")[0] in out.stderr
    assert "Traceback" not in out.text


class BatchLauncher(Launcher):
    """Stands for joblib's, submitit's and Ray's."""

    def setup(self, **kwargs: Any) -> None: ...

    def launch(self, job_overrides: Any, initial_job_idx: int) -> Any:
        raise AssertionError("must not be asked")


def test_a_batch_launcher_is_refused(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    target = f"{__name__}.BatchLauncher"
    ConfigStore.instance().store(group="hydra/launcher", name="batch", node={"_target_": target})
    instantiate = Plugins.instance()._instantiate
    monkeypatch.setattr(
        Plugins.instance(),
        "_instantiate",
        lambda c: BatchLauncher() if c._target_ == target else instantiate(c),
    )
    text = app.sweep(X, "hydra/launcher=batch").error()
    assert text.startswith("hydra/launcher: BatchLauncher takes a batch of jobs")
    assert "hydra/launcher=workers" in text
    assert "hydra/sweeper=optuna" in text
    assert app.configs == []
    assert not (app.folder / "s" / "sweep.yaml").exists()


@pytest.mark.slow
def test_a_directory_of_other_jobs_is_refused(app: App) -> None:
    (app.folder / "s" / "1").mkdir(parents=True)
    text = app.sweep(X, FREE).error()
    assert text.startswith("s/1 exists, but the study has no trial 1")
    assert app.configs == []
    assert app.sweep(X, ONE).code == 0


def test_a_sweep_whose_study_is_lost_is_refused(app: App) -> None:
    app.sweep(X, ONE)
    app._storages.clear()
    assert app.sweep(FREE).error().startswith("s/0 exists, but the study has no trial 0")


@pytest.mark.slow
def test_one_storage_for_several_sweeps(app: App) -> None:
    storage = "hydra.sweeper.storage=sqlite:///all.db"
    for name in ("s", "t"):
        assert app.sweep(X, storage, ONE, to=name).code == 0
    text = app.sweep(X, storage, "hydra.sweeper.study_name=s", to="u").error()
    assert text.startswith("hydra.sweeper.study_name: the storage has a study 's' of another sweep")
    # Nothing stands in the way of another name.
    assert app.sweep(X, storage, "hydra.sweeper.study_name=u", ONE, to="u").code == 0


def test_a_sweep_started_meanwhile_is_not_overwritten(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = command.prepare

    def late(*arguments: Any) -> Any:
        sweep = prepare(*arguments)
        sweep.sweep_dir.mkdir()
        sweep.current.write(sweep.sweep_dir)  # another command was faster
        return sweep

    monkeypatch.setattr(command, "prepare", late)
    text = app.sweep(X, FREE).error()
    assert "run the command again" in text
    assert app.configs == []


@pytest.mark.slow
def test_upstreams_sweepers_still_run(app: App) -> None:
    for sweeper in (["hydra/sweeper=basic"], ["hydra/sweeper=optuna", ONE]):
        assert app("--multirun", *sweeper, "hydra.sweep.dir=s", "x=1,2").code == 0
        assert app.overrides[0] in [("x=1",), ("x=2",)]


@pytest.mark.slow
def test_every_sampler_and_pruner_of_the_documentation_runs(app: App) -> None:
    app.task = train
    for sampler in ("tpe_async", "tpe", "random", "nsgaii", "nsgaiii", "qmc"):
        pruner = {"tpe": "patient", "random": "asha", "nsgaii": "hyperband"}.get(sampler, "none")
        choice = [f"hydra/sweeper/sampler={sampler}", f"hydra/sweeper/pruner={pruner}"]
        out = app(
            *OPTUNA_ASYNC[:2], *choice, "hydra.sweeper.n_trials=2", X, f"hydra.sweep.dir={sampler}"
        )
        assert out.code == 0, out.text
        assert {t.state for t in app.study(sampler).trials} <= {
            TrialState.COMPLETE,
            TrialState.PRUNED,
        }
