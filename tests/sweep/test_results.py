"""Which trial is the best, and the files of a sweep: against Optuna, against Hydra's own composition, and read back."""

import csv
import os
import random
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
import optuna
import pytest
from omegaconf import DictConfig, OmegaConf

from visionsweep.sweep.ranking import best, pareto, ranked
from visionsweep.sweep.results import (
    TrialRecord,
    command_of,
    make_preset,
    replace_link,
    write_results,
)
from visionsweep.sweep.retention import disk_space, remove_checkpoints

ONE = ["maximize"]


def record(number: int, *values: float, state: Any = "complete", **more: Any) -> TrialRecord:
    more = {
        "params": {},
        "start": None,
        "end": None,
        "epochs": None,
        "directory": str(number),
        **more,
    }
    return TrialRecord(number, state, values or None, **more)


def write(
    sweep_dir: Path, trials: Sequence[TrialRecord], directions: Sequence[str] = ONE, **more: Any
) -> None:
    more = {
        "overrides_of": lambda trial: [f"x={trial.number}"],
        "is_group": lambda key: False,
        **more,
    }
    write_results(sweep_dir, trials, directions, **more)


# -- the best


def test_the_best_is_complete_and_the_earlier_of_two_equal_ones() -> None:
    trials = [
        record(0, 0.9, state="pruned"),
        record(1, 0.5),
        record(3, 0.7),
        record(2, 0.7),
        record(4, state="failed"),
    ]
    assert best(trials, ["maximize"]) is trials[3]
    assert best(trials, ["minimize"]) is trials[1]
    assert best(trials[:1], ONE) is None
    assert best([record(0, float("nan")), record(1, 0.1)], ONE) == record(1, 0.1)


@pytest.mark.parametrize(
    "directions", [["maximize", "minimize"], ["minimize", "minimize", "maximize"], ["maximize"]]
)
@pytest.mark.parametrize("seed", range(5))
def test_the_pareto_set_is_optunas(directions: list[str], seed: int) -> None:
    draw = random.Random(seed)
    study = optuna.create_study(directions=directions)  # type: ignore[arg-type]
    trials = []
    for number in range(60):
        values = [draw.randrange(8) / 8 for _ in directions]  # few values, so that there are ties
        failed = draw.random() < 0.2
        state = optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE
        study.add_trial(optuna.trial.create_trial(state=state, values=None if failed else values))
        trials.append(
            record(number, *([] if failed else values), state="failed" if failed else "complete")
        )
    draw.shuffle(trials)
    front = [trial.number for trial in pareto(trials, directions)]
    expected = (
        study.best_trials
        if len(directions) > 1
        else [t for t in study.trials if t.value == study.best_value]
    )
    assert front == [trial.number for trial in expected]
    chosen = best(trials, directions)
    assert chosen is not None
    assert chosen.number == ranked(trials, directions)[0].number
    if len(directions) == 1:
        assert chosen.number == study.best_trial.number


def test_the_best_of_several_objectives_is_that_of_the_first() -> None:
    trials = [
        record(0, 0.5, 1),
        record(1, 0.9, 3),
        record(2, 0.9, 2),
        record(3, 0.1, 9),
        record(4, 0.8, 3),
    ]
    chosen = best(trials, ["maximize", "minimize"])
    assert chosen is trials[2]
    assert [trial.number for trial in ranked(trials, ["maximize", "minimize"])] == [2, 0, 1, 4, 3]


# -- files


def rows_of(sweep_dir: Path) -> list[dict[str, str]]:
    with (sweep_dir / "trials.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_reads_back(tmp_path: Path) -> None:
    start = datetime(2026, 11, 25, 1, 2, 3).timestamp()
    trials = [
        record(
            1,
            1 / 3,
            params={"loss": "focal", "optim.lr": 1e-05, "loss.gamma": None},
            start=start,
            end=start + 61,
        ),
        record(0, 0.25, state="pruned", params={"loss": 'a, "b"', "flag": True}, epochs=3),
        record(2, state="running", params={}),
    ]
    write(tmp_path, trials)
    first, second, third = rows_of(tmp_path)
    assert ",".join(first) == (
        "number,state,value,start,end,epochs,directory,params.loss,params.flag,params.optim.lr,params.loss.gamma"
    )
    assert [first["number"], first["state"], first["value"], first["epochs"]] == [
        "0",
        "pruned",
        "0.25",
        "3",
    ]
    assert [first["params.loss"], first["params.flag"], first["params.optim.lr"]] == [
        'a, "b"',
        "true",
        "",
    ]
    assert float(second["value"]) == 1 / 3
    assert second["start"].startswith("2026-11-25T01:02:03")
    assert datetime.fromisoformat(second["end"]).timestamp() == start + 61
    assert [second["params.optim.lr"], second["params.loss.gamma"], second["params.flag"]] == [
        "1e-05",
        "null",
        "",
    ]
    assert (third["state"], third["value"], third["end"]) == ("running", "", "")


def test_the_table_has_further_columns_where_they_are_used(tmp_path: Path) -> None:
    trials = [
        record(0, 0.5, 7, seed_values=(0.4, 0.6)),
        record(1, state="failed", error="ValueError: no", retries=2),
        record(2, 0.5, 7, duplicate_of=0, directory="0"),
    ]
    write(tmp_path, trials, ["maximize", "minimize"])
    rows = rows_of(tmp_path)
    assert list(rows[0])[2:4] == ["value_0", "value_1"]
    assert list(rows[0])[-4:] == ["duplicate_of", "seed_std", "retries", "error"]
    assert float(rows[0]["seed_std"]) == pytest.approx(0.02**0.5)
    assert (rows[0]["retries"], rows[1]["retries"], rows[1]["error"]) == ("", "2", "ValueError: no")
    assert (rows[1]["value_0"], rows[2]["duplicate_of"], rows[2]["directory"]) == ("", "0", "0")


def test_the_results_file_is_upstreams(tmp_path: Path) -> None:
    params = {"optim.lr": 1e-05, "loss": "focal", "text": "1e-3", "flag": False, "none": None}
    write(tmp_path, [record(0, 0.5, params=params), record(1, 0.25)])
    assert list(OmegaConf.load(tmp_path / "optimization_results.yaml").items()) == [
        ("name", "optuna"),
        ("best_params", params),
        ("best_value", 0.5),
    ]
    write(
        tmp_path,
        [record(0, 0.5, 2.0, params={"x": 1}), record(1, 0.25, 1.0)],
        ["maximize", "minimize"],
    )
    assert OmegaConf.load(tmp_path / "optimization_results.yaml") == {
        "name": "optuna",
        "solutions": [
            {"params": {"x": 1}, "values": [0.5, 2.0]},
            {"params": {}, "values": [0.25, 1.0]},
        ],
    }


def test_nothing_names_a_best_trial_before_there_is_one(tmp_path: Path) -> None:
    write(tmp_path, [record(0, 0.5, state="pruned"), record(1, state="running")])
    assert [path.name for path in tmp_path.iterdir()] == ["trials.csv"]


def test_files_that_say_the_same_are_not_written_again(tmp_path: Path) -> None:
    write(tmp_path, [record(0, 0.5)])
    before = (tmp_path / "experiment/best.yaml").stat().st_ino
    write(tmp_path, [record(0, 0.5), record(1, 0.4)])
    assert (tmp_path / "experiment/best.yaml").stat().st_ino == before
    assert len(rows_of(tmp_path)) == 2
    write(tmp_path, [record(0, 0.5), record(1, 0.6)])
    assert OmegaConf.load(tmp_path / "experiment/best.yaml").x == 1


def test_the_link_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("0", "1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trial").write_text(name)
    write(tmp_path, [record(0, 0.5)])
    assert os.readlink(tmp_path / "best") == "0"
    seen = []
    replace = os.replace

    def watched(source: Path, target: Path) -> None:
        seen.append(os.readlink(tmp_path / "best"))
        replace(source, target)

    (tmp_path / ".best.new").symlink_to("left-by-a-killed-process")
    monkeypatch.setattr(os, "replace", watched)
    replace_link(tmp_path / "best", "1")
    assert seen == ["0"]  # still there until the moment of its replacement
    assert (tmp_path / "best" / "trial").read_text() == "1"
    assert not (tmp_path / ".best.new").is_symlink()


def test_a_folder_in_the_way_of_the_link_is_kept_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "best").mkdir()
    write(tmp_path, [record(0, 0.5)])
    assert (tmp_path / "best").is_dir()
    assert not (tmp_path / ".best.new").is_symlink()
    assert "cannot become the link to the best trial" in caplog.text


def test_a_command_survives_the_shell() -> None:
    overrides = ["a='it''s'", "b=[1, 2]", "c=${x}", "plain=1e-3"]
    command = command_of(overrides, "printf '%s\\n'")
    shown = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == overrides
    assert command.endswith(" plain=1e-3")


# -- the preset


CONF = {
    "config.yaml": """
defaults: [{db: mysql}, {db@backup: mysql}, {optim: adam}, _self_, {experiment: null}]
trainer: {epochs: 1, layers: [1, 2, 3], name: x, nested: {a: 1, b: 2}}
seed: 0
""",
    "db/mysql.yaml": "kind: mysql\nport: 3306\n",
    "db/pg.yaml": "kind: pg\nport: 5432\noptions: {a: 1}\n",
    "optim/adam.yaml": "lr: 0.1\nbetas: [0.9, 0.999]\n",
    "optim/sgd.yaml": "lr: 0.2\nmomentum: 0.9\n",
    "extra/one.yaml": "one: 1\n",
    "extra/two.yaml": "two: 2\n",
    "deep/er/a.yaml": "in: a\n",
    "experiment/base.yaml": "# @package _global_\ndefaults: [{override /optim: sgd}]\ntrainer: {epochs: 7}\nseed: 5\n",
}


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    for name, text in CONF.items():
        path = tmp_path / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "conf"


def is_group(key: str) -> bool:
    return key in {"db", "optim", "extra", "deep/er", "experiment"}


def compose(conf: Path, overrides: Sequence[str]) -> DictConfig:
    with hydra.initialize_config_dir(str(conf)):
        return hydra.compose("config", list(overrides))


def given_by_the_preset(sweep_dir: Path) -> list[str]:
    """Return the overrides of the command that stands in the preset's head."""
    head = (sweep_dir / "experiment/best.yaml").read_text(encoding="utf-8").splitlines()
    assert head[0] == "# @package _global_"
    words = shlex.split(head[1].removeprefix("# "))
    assert words[:4] == ["python", "train.py", "--config-dir", str(sweep_dir)]
    return words[4:]


EXPRESSED = [
    ["db=pg", "optim.lr=0.01"],
    ["db=pg", "db.port=1", "db.options.a=2", "optim=sgd", "optim.momentum=0"],
    ["db@backup=pg", "backup.port=7"],
    ["+db@third=pg", "+third.more=1"],
    ["+extra=one", "extra.one=3"],
    ["+extra=[one,two]"],
    ["+deep/er=a", "deep.er.in=b"],
    ["db=mysql", "db=pg"],
    ["seed=1", "seed=2"],
    ["experiment=base", "optim.lr=0.01"],
    ["experiment=base", "optim=adam", "trainer.epochs=3"],
    ["trainer.name='1e-3'", "optim.lr=1e-05", "seed=-3"],
    ["trainer.name=null", "db.kind='null'", "optim.lr=inf"],
    ["trainer.name=true", "db.kind='true'", "backup.kind='on'"],
    ["trainer.name=''", "db.kind='it\\'s, \"a\" = {b}: #c'", "backup.kind='gr\u00fcn'"],
    ["trainer.name=", "db.kind=a b", "backup.kind=/a/b.c"],
    ["trainer.layers=[4,[5,'6'],{a:1}]", "trainer.layers=[]"],
    ["++trainer.nested={b:5,c:{d:null}}", "trainer.nested.a=2"],
    ["+trainer.new.deep=1", "++trainer.epochs=2", "++trainer.other=[x]"],
    ["trainer.name=${seed}", "db.port='${optim.lr}'", "trainer.epochs=${.nested.a}"],
    ["db={kind:mine}", "optim={lr:1}"],
    ["+trainer.a\\.b=1", "+trainer.other[key]=2"],
    ["trainer.name=int(3)", "db.kind=str(3)"],
    [],
]


@pytest.mark.parametrize("overrides", EXPRESSED, ids=" ".join)
def test_the_preset_composes_what_the_overrides_compose(
    conf: Path, tmp_path: Path, overrides: list[str]
) -> None:
    sweep_dir = tmp_path / "sweep"
    write(sweep_dir, [record(0, 0.5)], overrides_of=lambda trial: overrides, is_group=is_group)
    given = given_by_the_preset(sweep_dir)
    assert given == ["experiment=best"]
    composed = compose(conf, [f"hydra.searchpath=[file://{sweep_dir}]", *given])
    expected = compose(conf, overrides)
    for resolve in (False, True):  # as text, in which 1, 1.0, true and '1' differ
        texts = [
            OmegaConf.to_yaml(c, resolve=resolve, sort_keys=True) for c in (composed, expected)
        ]
        assert texts[0] == texts[1]


LEFT_OUT = [
    (["~trainer.layers", "seed=1"], ["~trainer.layers"]),
    (["~db@backup", "db=pg"], ["~db@backup"]),
    (["optim.betas.0=0.5", "optim.lr=1"], ["optim.betas.0=0.5"]),
    (["optim.betas[1]=0.5"], ["optim.betas[1]=0.5"]),
    (["trainer.layers=extend_list(4)", "seed=1"], ["trainer.layers=extend_list(4)"]),
    (
        ["~trainer.nested", "+trainer.nested.c=1", "trainer.epochs=4"],
        ["~trainer.nested", "+trainer.nested.c=1"],
    ),
]


@pytest.mark.filterwarnings(
    "ignore:extend_list:UserWarning"
)  # deprecated by Hydra, and still to be got right
@pytest.mark.parametrize(
    ("overrides", "left_out"), LEFT_OUT, ids=[" ".join(case[0]) for case in LEFT_OUT]
)
def test_what_a_preset_cannot_express_is_named_and_stands_in_its_command(
    conf: Path, tmp_path: Path, overrides: list[str], left_out: list[str]
) -> None:
    sweep_dir = tmp_path / "sweep"
    write(sweep_dir, [record(0, 0.5)], overrides_of=lambda trial: overrides, is_group=is_group)
    given = given_by_the_preset(sweep_dir)
    assert given == ["experiment=best", *left_out]
    assert f"# No preset can express this, so it is not in this file: {shlex.join(left_out)}" in (
        (sweep_dir / "experiment/best.yaml").read_text().splitlines()
    )
    composed = compose(conf, [f"hydra.searchpath=[file://{sweep_dir}]", *given])
    assert OmegaConf.to_container(composed) == OmegaConf.to_container(compose(conf, overrides))


def test_a_preset_does_not_include_itself() -> None:
    preset = make_preset(["experiment=best", "seed=1"], is_group)
    assert (preset.included, preset.left_out) == ([], ["experiment=best"])


def test_the_printed_command_runs(conf: Path, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import hydra\n"
        "@hydra.main(config_path='conf', config_name='config')\n"
        "def main(cfg):\n    print(cfg.db.kind, cfg.db.port, cfg.trainer.get('layers'))\n"
        "main()\n"
    )
    sweep_dir = tmp_path / "multirun" / "a b"
    overrides = ["db=pg", "db.port=1", "~trainer.layers"]
    program = command_of(["train.py"], shlex.quote(sys.executable))
    trials = [record(0, 0.125), record(1, 0.0625)]
    write(
        sweep_dir,
        trials,
        overrides_of=lambda t: overrides,
        is_group=is_group,
        program=program,
        extra={"commit": "c"},
    )
    head = (sweep_dir / "experiment/best.yaml").read_text().splitlines()
    assert head[2:4] == ["# Trial 0 of a b reached 0.125.", "# commit: c"]
    command = head[1].removeprefix("# ")
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "pg 1 None\n", done.stderr


# -- checkpoints


def weights(sweep_dir: Path, *folders: str) -> None:
    for folder in folders:
        (sweep_dir / folder).mkdir(parents=True, exist_ok=True)
        (sweep_dir / folder / "best.pt").write_bytes(b"12345")
        (sweep_dir / folder / "config.yaml").write_text("")


def left(sweep_dir: Path) -> list[str]:
    return sorted(str(path.parent.relative_to(sweep_dir)) for path in sweep_dir.rglob("best.pt"))


def test_only_the_best_trials_keep_their_weights(tmp_path: Path) -> None:
    folders = [
        "0/checkpoints",
        "1/checkpoints",
        "2/seed_0/checkpoints",
        "2/seed_1/checkpoints",
        "3/checkpoints/a/b",
    ]
    weights(
        tmp_path,
        *folders,
        "4/checkpoints",
        "5/checkpoints",
        "6/checkpoints",
        "0/other",
        "9/checkpoints",
    )
    trials = [
        record(0, 0.2),
        record(1, 0.5),
        record(2, 0.4),
        record(3, 0.9, state="pruned"),
        record(4, state="failed"),
        record(5, state="running"),
        record(6, 0.6),
    ]
    assert remove_checkpoints(tmp_path, trials, ONE, None) == []
    assert len(left(tmp_path)) == 10
    assert remove_checkpoints(tmp_path, trials, ONE, 2) == [0, 2, 3, 4]
    # 9 is nobody's that is known.
    assert left(tmp_path) == [
        "0/other",
        "1/checkpoints",
        "5/checkpoints",
        "6/checkpoints",
        "9/checkpoints",
    ]
    assert (tmp_path / "0/other/config.yaml").exists()
    assert not (tmp_path / "0/checkpoints/config.yaml").exists()
    assert remove_checkpoints(tmp_path, trials, ONE, 2) == []
    assert remove_checkpoints(tmp_path, trials, ["minimize"], 0) == [1, 6]
    assert left(tmp_path) == ["0/other", "5/checkpoints", "9/checkpoints"]


def test_an_original_is_kept_for_its_duplicate(tmp_path: Path) -> None:
    weights(tmp_path, "0/checkpoints", "1/checkpoints", "2/checkpoints")
    original, other, worst = record(0, 0.9), record(1, 0.8), record(2, 0.1)
    copies = [
        record(n, 0.9, duplicate_of=0, directory=directory) for n, directory in ((3, "0"), (4, "4"))
    ]
    assert remove_checkpoints(tmp_path, [worst, other, original, *copies], ONE, 2) == [2]
    assert left(tmp_path) == [
        "0/checkpoints",
        "1/checkpoints",
    ]  # copies take no place of another trial
    moved = [record(0, 0.1), record(3, 0.9, duplicate_of=0, directory="3"), record(1, 0.5)]
    assert remove_checkpoints(tmp_path, moved, ONE, 1) == [1]
    assert left(tmp_path) == ["0/checkpoints"]


def test_the_pareto_set_keeps_its_weights(tmp_path: Path) -> None:
    weights(tmp_path, *(f"{n}/checkpoints" for n in range(5)))
    trials = [
        record(0, 0.9, 9),
        record(1, 0.8, 5),
        record(2, 0.85, 9),
        record(3, 0.1, 1),
        record(4, 0.05, 7),
    ]
    directions = ["maximize", "minimize"]
    assert remove_checkpoints(tmp_path, trials, directions, 4) == [4]
    assert remove_checkpoints(tmp_path, trials, directions, 1) == [2]
    assert left(tmp_path) == ["0/checkpoints", "1/checkpoints", "3/checkpoints"]


def test_nothing_outside_the_sweep_is_touched(tmp_path: Path) -> None:
    sweep, outside = tmp_path / "sweep", tmp_path / "outside"
    weights(outside, "checkpoints", "7/checkpoints")
    weights(sweep, "checkpoints", "8/checkpoints", "9/kept")
    (sweep / "0").symlink_to(outside)
    (sweep / "1").mkdir()
    (sweep / "1" / "checkpoints").symlink_to(outside / "checkpoints")
    (sweep / "2").mkdir()
    (sweep / "2" / "seed_0").symlink_to(outside)
    (sweep / "3" / "checkpoints").mkdir(parents=True)
    (sweep / "3" / "checkpoints" / "last.pt").symlink_to(outside / "checkpoints" / "best.pt")
    (sweep / "3" / "checkpoints" / "all").symlink_to(outside / "7")
    (sweep / "4").symlink_to("8")
    places = ["../outside", str(outside), ".", "", "7/..", "8/../../outside", "missing", "4"]
    trials = [record(n, state="failed") for n in range(4)]
    trials += [record(10 + i, state="failed", directory=place) for i, place in enumerate(places)]
    assert remove_checkpoints(sweep, trials, ONE, 0) == [3]
    assert left(outside) == ["7/checkpoints", "checkpoints"]
    assert left(sweep) == ["8/checkpoints", "9/kept", "checkpoints"]
    assert not (sweep / "3" / "checkpoints" / "last.pt").is_symlink()


def test_directories_that_are_done_are_not_looked_at_again(tmp_path: Path) -> None:
    weights(tmp_path, "0/checkpoints", "1/checkpoints")
    cleaned: set[str] = set()
    assert remove_checkpoints(
        tmp_path, [record(0, 0.1), record(1, 0.2)], ONE, 1, cleaned=cleaned
    ) == [0]
    assert cleaned == {"0"}
    weights(tmp_path, "0/checkpoints")
    assert remove_checkpoints(
        tmp_path, [record(0, 0.1), record(1, 0.2)], ONE, 0, cleaned=cleaned
    ) == [1]


def test_disk_space_is_that_of_the_largest_folder(tmp_path: Path) -> None:
    assert disk_space(tmp_path) is None
    (tmp_path / "0" / "checkpoints").mkdir(parents=True)
    assert disk_space(tmp_path) is None
    (tmp_path / "0" / "checkpoints" / "last.pt").write_bytes(b"x" * 30)
    (tmp_path / "0" / "checkpoints" / "best.pt").write_bytes(b"x" * 12)
    (tmp_path / "1" / "seed_0" / "checkpoints").mkdir(parents=True)
    (tmp_path / "1" / "seed_0" / "checkpoints" / "best.pt").write_bytes(b"x" * 41)
    (tmp_path / "1" / "big.log").write_bytes(b"x" * 99)
    assert disk_space(tmp_path) == 42
