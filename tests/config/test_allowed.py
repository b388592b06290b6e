"""What a config may name: single classes, and what the environment allowed before any config."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from visionsweep.config import allowed
from visionsweep.config.build import build
from visionsweep.errors import ConfigError

MODULE = """
from subprocess import run

class Net:
    pass

def _private():
    pass
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_package.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_package", raising=False)
    return "own_package"


@pytest.mark.slow  # imports timm and optuna
def test_every_name_of_the_lists_exists() -> None:
    names = {*allowed.SAMPLERS, *allowed.PRUNERS}.union(*allowed._COMPONENTS.values())
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert callable(getattr(importlib.import_module(module), attribute)), name


@pytest.mark.parametrize(
    ("group", "target"),
    [
        ("model", "logging.FileHandler"),
        ("model", "visionsweep.data.fashion_mnist.load_fashion_mnist"),  # of another group
        ("model", "torch.nn.modules.module.warnings"),
        ("model", "torch.nn.utils.clip_grad_norm_"),
        ("loss", "visionsweep.losses.focal.Tensor"),  # imported there
        ("loss", "visionsweep.losses.focal.complement"),
        ("loss", "visionsweep.losses._private.Loss"),
        ("optim", "torch.optim.lr_scheduler.LRScheduler"),
        ("optim", "torch.optim.swa_utils.update_bn"),
        ("data", "visionsweep.data.split_manifest.write_split"),
        ("data", "visionsweep.data.csv_file.os.system"),
        ("augment", "visionsweep.data.augment.geometry.torch.load"),
        ("augment", "visionsweep.callback.RunCallback"),
        ("scheduler", "optuna.samplers.RandomSampler"),
    ],
)
def test_a_group_takes_its_own_classes_only(group: str, target: str) -> None:
    with pytest.raises(ConfigError, match=rf"{group}\._target_: '{target}' is not allowed"):
        build({"_target_": target}, group)


def test_a_package_of_ones_own_is_allowed_but_not_what_it_imports(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowed, "_GIVEN", f"{package}.*")
    assert type(build({"_target_": f"{package}.Net"}, "model")).__name__ == "Net"
    with pytest.raises(ConfigError, match=r"'own_package\.run' is not allowed"):
        build({"_target_": f"{package}.run", "args": "true"}, "model")


def test_the_environment_is_read_once(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(allowed.VARIABLE, f"{package}.*")
    with pytest.raises(ConfigError, match="is not allowed"):
        build({"_target_": f"{package}.Net"}, "model")
    assert f"{package}.*" not in allowed.hydra_targets()


@pytest.mark.parametrize("entry", ["*", ".*", "os.*.x", "os*", "os system"])
def test_an_entry_that_allows_everything_is_refused(
    entry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowed, "_GIVEN", f"mypkg.Net,{entry}")
    with pytest.raises(ConfigError, match=r"VISIONSWEEP_ALLOW: expected names such as"):
        allowed.hydra_targets()


def test_a_name_without_a_module_is_not_allowed_by_a_pattern(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(allowed, "_GIVEN", "mypkg.*,mypkg.alias")
    assert allowed.is_the_named(SimpleNamespace(), "mypkg.alias")  # named by the user
    assert not allowed.is_the_named(SimpleNamespace(), "mypkg.other")
