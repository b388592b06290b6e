"""Most benchmarks are too long for a test; at least their imports must hold."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
