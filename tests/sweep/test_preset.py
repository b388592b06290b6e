"""A trial's preset, compared with Hydra's own composition."""

import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf

from tests.sweep.records import record
from visionsweep.rundir.layout import PRESET
from visionsweep.sweep.command_line import command_of
from visionsweep.sweep.preset import make_preset, preset_file

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
    "experiment/base.yaml": """# @package _global_
defaults: [{override /optim: sgd}]
trainer: {epochs: 7}
seed: 5
""",
}


@pytest.fixture(scope="module", autouse=True)
def _hydra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compose from the configs above. One setup for all cases takes a third of the time."""
    folder = tmp_path_factory.mktemp("conf")
    for name, text in CONF.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with hydra.initialize_config_dir(str(folder)):
        yield


def is_group(key: str) -> bool:
    return key in {"db", "optim", "extra", "deep/er", "experiment"}


def compose(overrides: Sequence[str]) -> DictConfig:
    return hydra.compose("config", list(overrides))


def preset_of(sweep_dir: Path, overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Write the preset; return its comment lines and the overrides of the command in them."""
    text = preset_file(sweep_dir, record(0, 0.5), overrides, is_group, "python train.py")
    path = sweep_dir / PRESET
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert head[0] == "# @package _global_"
    words = shlex.split(head[1].removeprefix("# "))
    assert words[:4] == ["python", "train.py", "--config-dir", str(sweep_dir)]
    return head, words[4:]


EXPRESSED = [
    ["db=pg", "db.port=1", "db.options.a=2", "optim=sgd", "optim.momentum=0"],
    ["db@backup=pg", "backup.port=7", "+db@third=pg", "+third.more=1"],
    ["+extra=one", "extra.one=3", "+deep/er=a", "deep.er.in=b"],
    ["+extra=[one,two]", "db=mysql", "db=pg", "seed=1", "seed=2"],
    ["experiment=base", "optim.lr=0.01"],
    ["experiment=base", "optim=adam", "trainer.epochs=3"],
    ["trainer.name='1e-3'", "optim.lr=1e-05", "seed=-3", "db.kind='null'"],
    ["trainer.name=null", "optim.lr=inf", "db.kind='true'", "backup.kind='on'"],
    ["trainer.name=true", "db.kind='it\\'s, \"a\" = {b}: #c'", "backup.kind='gr\u00fcn'"],
    ["trainer.name=''", "trainer.layers=[4,[5,'6'],{a:1}]", "backup.kind=/a/b.c"],
    ["trainer.name=", "db.kind=a b", "trainer.layers=[]"],
    ["++trainer.nested={b:5,c:{d:null}}", "trainer.nested.a=2", "+trainer.new.deep=1"],
    ["++trainer.epochs=2", "++trainer.other=[x]", "+trainer.a\\.b=1", "+trainer.more[key]=2"],
    ["trainer.name=${seed}", "db.port='${optim.lr}'", "trainer.epochs=${.nested.a}"],
    ["db={kind:mine}", "optim={lr:1}"],
    ["trainer.name=int(3)", "db.kind=str(3)"],
    [],
]


@pytest.mark.parametrize("overrides", EXPRESSED, ids=" ".join)
def test_the_preset_composes_what_the_overrides_compose(
    tmp_path: Path, overrides: list[str]
) -> None:
    sweep_dir = tmp_path / "sweep"
    _, given = preset_of(sweep_dir, overrides)
    assert given == ["experiment=best"]
    composed = compose([f"hydra.searchpath=[file://{sweep_dir}]", *given])
    expected = compose(overrides)
    # Compared as text, in which 1, 1.0, true and '1' differ.
    for resolve in (False, True):
        ours, hydras = (
            OmegaConf.to_yaml(c, resolve=resolve, sort_keys=True) for c in (composed, expected)
        )
        assert ours == hydras


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


# Hydra deprecates extend_list, but it must still work.
@pytest.mark.filterwarnings("ignore:extend_list:UserWarning")
@pytest.mark.parametrize(
    ("overrides", "left_out"), LEFT_OUT, ids=[" ".join(case[0]) for case in LEFT_OUT]
)
def test_overrides_that_no_preset_can_express_are_in_its_command(
    tmp_path: Path, overrides: list[str], left_out: list[str]
) -> None:
    sweep_dir = tmp_path / "sweep"
    head, given = preset_of(sweep_dir, overrides)
    assert given == ["experiment=best", *left_out]
    assert head[2] == "# Trial 0 of sweep reached 0.5."
    assert head[3].endswith(f": {shlex.join(left_out)}")
    composed = compose([f"hydra.searchpath=[file://{sweep_dir}]", *given])
    assert OmegaConf.to_container(composed) == OmegaConf.to_container(compose(overrides))


def test_a_preset_does_not_include_itself() -> None:
    preset = make_preset(["experiment=best", "seed=1"], is_group)
    assert (preset.included, preset.left_out) == ([], ["experiment=best"])


def test_a_command_survives_the_shell() -> None:
    overrides = ["a='it''s'", "b=[1, 2]", "c=${x}", "plain=1e-3"]
    command = command_of("printf '%s\\n'", overrides)
    shown = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == overrides
    assert command.endswith(" plain=1e-3")
