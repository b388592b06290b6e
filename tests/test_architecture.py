"""What a command imports, in a process of its own. The rules for modules are import-linter's."""

import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = """
import io, sys
from contextlib import redirect_stdout
import hydra
from visionsweep.callback import RunCallback
from visionsweep.cli.main import main
from visionsweep.sweep.stored import Stored

HEAVY = {"mlflow", "sklearn", "timm", "torchvision", "matplotlib", "optuna", "PIL"}

def look(*arguments):
    sys.argv = ["visionsweep", *arguments]
    with redirect_stdout(io.StringIO()) as output:
        try:
            code = main()
        except SystemExit as end:
            code = end.code
    assert not code, arguments
    assert "usage: visionsweep" in output.getvalue() or "_target_: " in output.getvalue()
    heavy = (HEAVY | {"torch", "numpy"}) & set(sys.modules)
    assert not heavy, (arguments, heavy)

look("--help")
look("train", "--help")
look("train", "--cfg", "job")
look("predict", "--help")

# The controller runs the callback from the first check of the directory to the export of the best.
from pathlib import Path
Stored(id="x", study_name="s", task_overrides=[], hydra_overrides=[], search={}, config={}, seed=0,
       git_commit=None).write(Path("multirun/s"))
with hydra.initialize_config_module("visionsweep.conf"):
    overrides = ["study=s", "tracking=none"]
    config = hydra.compose("config", overrides, return_hydra_config=True)
    callback = RunCallback()
    callback.on_multirun_start(config=config)
    callback.on_multirun_end(config=config)
heavy = (HEAVY - {"optuna"} | {"torch", "numpy"}) & set(sys.modules)
assert not heavy, ("callback", heavy)

import visionsweep.run
heavy = HEAVY & set(sys.modules)
assert not heavy, ("run", heavy)
"""


CONTROLLER = """
import sys
import visionsweep.sweep.session
heavy = {"torch", "scipy", "mlflow", "sklearn", "matplotlib", "PIL"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize("script", [COMMANDS, CONTROLLER], ids=["commands", "controller"])
def test_only_what_is_used_is_imported(script: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
