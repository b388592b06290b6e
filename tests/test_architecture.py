"""The layout's promises: who imports whom, and what starts without torch."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "visionsweep"
PLUGINS = SOURCE.parent / "hydra_plugins"
COMPONENTS = ("losses", "optim", "schedulers", "models", "data")


def imports_of(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Return the modules that a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def files(folder: str) -> list[Path]:
    return sorted((SOURCE / folder).rglob("*.py"))


@pytest.mark.parametrize("component", COMPONENTS)
def test_components_do_not_import_each_other(component: str) -> None:
    others = tuple(f"visionsweep.{name}" for name in COMPONENTS if name != component)
    for path in files(component):
        assert not [name for name in imports_of(path) if name.startswith(others)], path


def test_only_the_composition_layer_and_the_sweep_know_hydra() -> None:
    allowed = {
        SOURCE / f"{name}.py"
        for name in ("config", "description", "entry", "run", "cli", "callback", "hydra_errors")
    }
    for path in files("."):
        if path not in allowed and not path.is_relative_to(SOURCE / "sweep"):
            assert not [n for n in imports_of(path) if n.split(".")[0] in ("hydra", "omegaconf")], (
                path
            )


def test_only_the_uploader_knows_mlflow() -> None:
    for path in files("."):
        if path.parent.name != "tracking":
            assert not [n for n in imports_of(path) if n.split(".")[0] == "mlflow"], path
    for name in ("journal.py", "process.py"):
        assert "mlflow" not in {n.split(".")[0] for n in imports_of(SOURCE / "tracking" / name)}


def test_the_sweep_knows_nothing_of_images() -> None:
    allowed = (
        "visionsweep.rundir.atomic",
        "visionsweep.errors",
        "visionsweep.config.hydra_errors",
        "visionsweep.sweep",
    )
    for path in (*files("sweep"), *PLUGINS.rglob("*.py")):
        for name in imports_of(path):
            if name.split(".")[0] == "visionsweep":
                assert name.startswith(allowed), (path, name)
            assert name.split(".")[0] not in ("torch", "torchvision", "timm", "mlflow"), (
                path,
                name,
            )


def test_plugin_modules_import_nothing_heavy_of_their_own() -> None:
    """Hydra imports them at every start."""
    light = ("hydra", "omegaconf", "hydra_plugins", *sys.stdlib_module_names)
    for path in PLUGINS.rglob("*.py"):
        assert not [
            n for n in imports_of(path, top_level_only=True) if n.split(".")[0] not in light
        ], path


def test_the_callback_of_a_sweep_imports_neither_torch_nor_mlflow(tmp_path: Path) -> None:
    """The controller runs it: from the first check of the directory to the export of the best model."""
    run_dir = tmp_path / "multirun/s/0"
    (run_dir / "checkpoints").mkdir(parents=True)
    (run_dir / "checkpoints/best.pt").touch()
    objective = {"metric": "val/f1_macro", "direction": "maximize", "value": 0.5}
    (run_dir / "result.json").write_text(
        json.dumps({"state": "finished", "objective": objective, "best_epoch": 1})
    )
    script = (
        "import sys, hydra\n"
        "from pathlib import Path\n"
        "from visionsweep.callback import RunCallback\n"
        "from visionsweep.sweep.stored import Stored\n"
        "Stored(id='x', study_name='s', task_overrides=[], hydra_overrides=[], search={}, config={}, seed=0,\n"
        "       git_commit=None).write(Path('multirun/s'))\n"
        f"with hydra.initialize_config_dir({str(SOURCE.parent.parent / 'conf')!r}):\n"
        "    config = hydra.compose('config', ['study=s', 'tracking=none'], return_hydra_config=True)\n"
        "    callback = RunCallback()\n"
        "    callback.on_multirun_start(config=config)\n"
        "    callback.on_multirun_end(config=config)\n"
        "heavy = {'torch', 'mlflow', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert '"type":"model"' in (run_dir / "events.jsonl").read_text()


def test_the_training_loop_knows_no_files_and_no_tracking() -> None:
    for name in ("training.py", "accumulation.py", "metrics.py"):
        assert not [
            n
            for n in imports_of(SOURCE / name)
            if n.startswith(
                (
                    "visionsweep.tracking",
                    "visionsweep.training.checkpoint",
                    "visionsweep.run",
                    "json",
                    "pathlib",
                )
            )
        ]


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["--info", "config"]])
def test_looking_at_the_config_imports_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys, runpy\n"
        f"sys.argv = ['train.py', *{arguments!r}]\n"
        "try:\n    runpy.run_path('train.py', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'mlflow', 'sklearn', 'timm', 'torchvision', 'matplotlib', 'optuna'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=SOURCE.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_run_imports_only_what_it_uses() -> None:
    script = (
        "import sys\nimport visionsweep.run\n"
        "heavy = {'mlflow', 'sklearn', 'timm', 'torchvision', 'matplotlib', 'optuna', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
