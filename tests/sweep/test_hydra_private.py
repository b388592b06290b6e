"""The private parts of Hydra and its Optuna plugin still do what `sweep._hydra` says.

Each test names the upstream symbol, so that an upgrade that changes one says which.
"""

import pickle
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra._internal.callbacks import Callbacks
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution

from tests.conftest import ROOT
from visionsweep.sweep import _hydra
from visionsweep.sweep.engines.pickling import dumps

Plugins.instance()  # one test replaces the singletons: plugins must be among them

SRC = ROOT / "src"
PRIVATE = re.compile(r"hydra\._internal|hydra_optuna_sweeper\._|Singleton\.|[Oo]verride\._[a-z]")


def parse(text: str) -> Override:
    return OverridesParser.create().parse_override(text)


def test_only_these_modules_use_private_parts() -> None:
    files = [*SRC.glob("visionsweep/**/*.py"), *SRC.glob("hydra_plugins/**/*.py")]
    using = {path for path in files if PRIVATE.search(path.read_text(encoding="utf-8"))}
    assert using == {Path(str(_hydra.__file__)), SRC / "visionsweep/cli/_hydra.py"}


def test_config_loader_apply_overrides_to_config() -> None:
    config = OmegaConf.create({"a": 1, "b": {"c": 2}, "gone": 0})
    OmegaConf.set_struct(config, True)
    _hydra.apply_overrides(config, [parse(text) for text in ("b.c=3", "+b.d=x", "~gone", "a=4")])
    assert config == {"a": 4, "b": {"c": 3, "d": "x"}}
    with pytest.raises(HydraException, match="Could not override 'nope'"):
        _hydra.apply_overrides(config, [parse("nope=1")])


def test_context_callbacks_end_in_reverse_order() -> None:
    called: list[str] = []

    class Named(Callback):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
            called.append(self.name)

    callbacks = Callbacks()
    callbacks.callbacks = [Named("first"), Named("second")]
    _hydra.end_with(SimpleNamespace(callbacks=callbacks), Named("last"))  # type: ignore[arg-type]
    callbacks.on_multirun_end(config=OmegaConf.create({}), config_name=None)
    assert called == ["second", "first", "last"]


def test_override_value() -> None:
    """Quotes remain in the raw value."""
    assert _hydra.raw_value(parse("x=a b")) == "a b"
    assert _hydra.raw_value(parse("x='a b'")) != parse("x='a b'").value() == "a b"
    assert _hydra.raw_value(parse("x=1")) == 1


@pytest.mark.parametrize("text", [r"a\,b", "'a,b'", "[1,x]", "{k:1}", "1.5", "true", "null"])
def test_override_get_value_element_as_str(text: str) -> None:
    found = _hydra.escaped(_hydra.raw_value(parse(f"x={text}")))
    assert parse(f"x={found}").value() == parse(f"x={text}").value()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=a,b", CategoricalDistribution(["a", "b"])),
        ("x=tag(log,interval(1,10))", FloatDistribution(1, 10, log=True)),
        ("x=5", "5"),
    ],
)
def test_plugin_create_optuna_distribution_from_override(text: str, expected: Any) -> None:
    assert _hydra.create_distribution(parse(text)) == expected


def test_singleton_get_state_and_set_state() -> None:
    before = Singleton.get_state()
    ConfigStore.instance().store(name="travels", node={"a": 1})
    try:
        state = pickle.loads(dumps(_hydra.get_singletons()))
        del ConfigStore.instance().repo["travels.yaml"]
        _hydra.set_singletons(state)
        assert "travels.yaml" in ConfigStore.instance().repo
    finally:
        Singleton.set_state(before)
        ConfigStore.instance().repo.pop("travels.yaml", None)
