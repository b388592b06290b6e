"""Configs of a stranger that try to run something: none is built, nothing happens."""

import importlib
import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import InstantiationException
from hydra.utils import execution_whitelist, instantiate
from omegaconf import OmegaConf

from visionsweep.config.allowed import VARIABLE, hydra_targets
from visionsweep.config.build import build
from visionsweep.errors import ConfigError
from visionsweep.sweep.samplers import build_pruner, sampler_factory

NUMBER = 100  # per seed; 500 in all


def _words(text: str) -> list[str]:
    return text.split()


MODULES = _words("""
builtins codecs ctypes functools importlib inspect io logging logging.config logging.handlers
multiprocessing operator os os.path pathlib pickle pty runpy shelve shutil socket sqlite3 subprocess
sys tempfile threading timeit types webbrowser zipfile
torch torch.hub torch.serialization torch.nn.utils torch.optim.swa_utils numpy PIL.Image yaml psutil
hydra.utils omegaconf optuna cloudpickle visionsweep.rundir.atomic visionsweep.tracking.process
visionsweep.cli.train visionsweep.data.splits visionsweep.losses.class_weights
""")
OTHERS = _words("""
trap.run trap.sub.run os.path.os.system __main__.x . os os. torchvision.io.write_png
timm.create_model mlflow.projects.run optuna.samplers._tpe.sampler.np.save
visionsweep.data.cache.tempfile.mkdtemp
hydra_plugins.hydra_optuna_sweeper._impl.instantiate
""")
COMPONENTS = {
    "model": {"_target_": "visionsweep.models.cnn.CNN"},
    "loss": {"_target_": "visionsweep.losses.focal.FocalLoss"},
    "optim": {"_target_": "torch.optim.SGD"},
    "scheduler": {"_target_": "visionsweep.schedulers.constant.ConstantScheduler"},
    "data": {"_target_": "visionsweep.data.digits.load_digits"},
    "augment": {"_target_": "visionsweep.data.augment.pipeline.Pipeline", "steps": {}},
}
TRAP = "open(__file__ + '.ran', 'w')\ndef run(**arguments): open(__file__ + '.ran', 'w')\n"
_watched: list[str] | None = None
_watching = threading.get_ident()


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None or threading.get_ident() != _watching:
        return
    is_write = event == "open" and set("wax+") & set(str(arguments[1] or ""))
    if is_write or event in (
        *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn"),
        *("os.remove", "os.rename", "os.truncate", "os.mkdir", "os.rmdir", "os.putenv"),
        *("shutil.rmtree", "socket.connect", "ctypes.dlopen"),
    ):
        _watched.append(f"{event} {arguments}"[:200])


sys.addaudithook(_audit)  # cannot be removed


@pytest.fixture
def events() -> Iterator[list[str]]:
    """Yield the list of what this thread does to files and processes."""
    global _watched
    _watched = found = []
    yield found
    _watched = None


def names() -> list[str]:
    found = ["", *OTHERS * 20]
    for module in MODULES:
        members = vars(importlib.import_module(module))
        found += [f"{module}.{name}" for name, member in members.items() if callable(member)]
    return found


def hostile_node(draw: random.Random, target: str, victim: str) -> dict[str, Any]:
    """Return a node that names `target` in one of the ways that a config has."""
    module, _, name = target.rpartition(".")
    spelling = draw.choice(["{t}", "${{evil}}", "${{oc.env:EVIL}}", "${{m}}.${{n}}", "${{deep.x}}"])
    arguments = {
        **{"command": f"touch {victim}", "args": ["touch", victim], "shell": True},
        **{"filename": victim, "path": victim, "file": victim, "mode": "w", "f": victim},
        **{"_args_": [f"touch {victim}"], "_partial_": False, "_execution_whitelist_": ["os.*"]},
    }
    chosen = draw.sample(sorted(arguments), draw.randrange(len(arguments)))
    node = {"_target_": spelling.format(t=target), **{key: arguments[key] for key in chosen}}
    roots = {"evil": target, "m": module, "n": name, "deep": {"x": target}}
    return {"roots": roots, "node": node}


def placed(draw: random.Random, base: dict[str, Any], hostile: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the hostile node in it, or in its place."""
    key = draw.choice(["steps", "widths", "gamma", "name", "x"])
    return draw.choice(
        [
            hostile,
            {**base, "_target_": hostile["_target_"]},
            {**base, key: hostile},
            {**base, key: [1, [hostile]]},
            {**base, key: {"a": {"b": hostile}}},
            {**base, key: {**base, key: [hostile]}},
        ]
    )


def attempt(kind: str, node: dict[str, Any]) -> None:
    """Do with a node what the program does. Raises what is shown as one line."""
    if kind in COMPONENTS:
        build(node, kind, num_classes=2, params=[], optimizer=None, in_channels=1)
    elif kind == "sampler":
        sampler_factory(node, 0)(0)
    elif kind == "pruner":
        build_pruner(node)
    else:
        instantiate(node)


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_config_runs_anything(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[str]
) -> None:
    for file in ("trap.py", "victim"):
        (tmp_path / file).write_text(TRAP)
    monkeypatch.syspath_prepend(tmp_path)
    for base in COMPONENTS.values():
        importlib.import_module(base["_target_"].rpartition(".")[0])
    known, draw = names(), random.Random(seed)
    monkeypatch.setenv(VARIABLE, ",".join(sorted({f"{module}.*" for module in MODULES})))
    for number in range(NUMBER):
        kind = draw.choice([*COMPONENTS, "sampler", "pruner", "callback"])
        base = COMPONENTS.get(kind, {"_target_": "optuna.samplers.RandomSampler"})
        target = draw.choice(known)
        monkeypatch.setenv("EVIL", target)
        hostile = hostile_node(draw, target, str(tmp_path / "victim"))
        config = {**hostile["roots"], "node": placed(draw, base, hostile["node"])}
        node = OmegaConf.to_container(OmegaConf.create(config), resolve=True)["node"]
        events.clear()
        with (
            execution_whitelist(hydra_targets(), reset=True),
            pytest.raises((ConfigError, InstantiationException)),
        ):
            attempt(kind, node)
        assert events == [], (number, kind, node)
        assert "trap" not in sys.modules, node
    assert {path.name for path in tmp_path.iterdir()} == {"trap.py", "victim"}
    assert (tmp_path / "victim").read_text() == TRAP
