"""Most benchmarks are too long for a test; at least their imports must hold."""

import json
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.mark.slow
def test_every_benchmark_imports() -> None:
    names = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
    done = subprocess.run(
        [sys.executable, "-c", f"import {', '.join(names)}"],
        cwd=BENCHMARKS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_check_of_a_gpu_runs_on_a_cpu() -> None:
    command = [sys.executable, "gpu.py", "--device", "cpu", "--quick", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--workers", "1"], cwd=BENCHMARKS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    results = {}
    for line in done.stdout.splitlines():
        results |= json.loads(line)
    assert results["resumes bit for bit"] == {"fp32": True, "bf16": True}
    assert results["relative error of the gradient"]["fp32"] < 1e-4
    assert results["memory"]["relative difference of the gradients"] < 1e-4


@pytest.mark.slow
def test_the_cost_of_a_search_is_counted_over_its_trials_in_the_order_of_their_epochs() -> None:
    program = """
from collections import Counter
from sweep_epochs import Epoch, Sweep
from sweep_time_to_f1 import result_of
# Trial 0 ends at 11, 13 and 16 seconds, trial 1 at 12 and 14.
epochs = [(11, 0, 1, 0.2), (12, 1, 1, 0.5), (13, 0, 2, 0.3), (14, 1, 2, 0.7), (16, 0, 3, 0.9)]
sweep = Sweep([Epoch(*values) for values in epochs], 10.0, Counter())
for target, cap in ((0.7, 5), (0.7, 4), (0.7, 3), (0.9, 4)):
    found = result_of("thaw", 0, target, cap, sweep)
    print(found.epochs, found.seconds, found.is_reached, found.best, found.trials)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=BENCHMARKS, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        "4 4.0 True 0.7 2",
        "4 4.0 True 0.7 2",
        "3 3.0 False 0.5 2",
        "4 4.0 False 0.7 2",
    ], done.stderr


@pytest.mark.slow
def test_two_processes_of_optuna_share_one_study(tmp_path: Path) -> None:
    script = BENCHMARKS / "search_rivals/optuna_two_processes.py"
    space = ["optim=sgd,adamw", "optim.lr=tag(log,interval(1e-3,1e-1))"]
    fixed = ["data=digits", "trainer.epochs=2", "trainer.threads=1", "tracking=none"]
    done = subprocess.run(
        [sys.executable, str(script), "--trials", "2", *fixed, *space],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="rival", storage=f"sqlite:///{tmp_path}/optuna.db")
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]
    assert len({trial.params["optim.lr"] for trial in study.trials}) == 4  # two seeds
    for trial in study.trials:
        config = yaml.safe_load((tmp_path / f"outputs/{trial.number}/config.yaml").read_text())
        assert config["optim"]["lr"] == trial.params["optim.lr"]
        lines = (tmp_path / f"outputs/{trial.number}/events.jsonl").read_text().splitlines()
        values = [json.loads(line).get("values", {}).get("val/f1_macro") for line in lines]
        f1 = [value for value in values if value is not None]
        assert list(trial.intermediate_values.values()) == pytest.approx(
            [max(f1[: epoch + 1]) for epoch in range(len(f1))]
        )
        assert len(f1) == (1 if trial.state.name == "PRUNED" else 2)
