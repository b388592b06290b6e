"""Upstream's tests of its sweeper and Hydra's examples, run with upstream's sweeper and with ours.

`python -m tests.sweep.upstream_counts` prints how many pass, and why the others do not.
The sources in `hydra_examples` are Hydra's (MIT, its LICENSE is there; commit 2c03d1b). The
examples return nothing, which no search can use: here they return 0.
"""

import ast
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

SOURCES = Path(__file__).parent / "hydra_examples"
SWEEPERS = ("optuna", "optuna_async")

# Each example with the arguments of its sweep.
EXAMPLES = {
    "2_config_file/my_app.py": ["db.user=omry,jane"],
    "3_working_directory/my_app.py": ["+x=1,2"],
    "4_logging/my_app.py": ["+x=1,2"],
    "4_config_groups/my_app.py": ["+db=mysql,postgresql"],
    "5_basic_sweep/my_app.py": [],
    "6_composition/my_app.py": ["db=mysql,postgresql", "ui=full,view"],
    "structured_4_defaults/my_app.py": ["db=mysql,postgresql"],
    "specializing_config/example.py": ["dataset=imagenet,cifar10"],
    "configuring_experiments/my_app.py": ["+experiment=aplite,nglite"],
    "multi-select/my_app.py": ["server.port=1,2"],
    "job_override_dirname/my_app.py": ["learning_rate=0.1,0.01"],
    "workdir/my_app.py": ["a=a1,a2"],
}

_NEWER = "the test is newer than hydra-optuna-sweeper 1.4.0rc3; fails with both sweepers"
# Upstream's tests that fail with ours, and why.
DIFFERENCES = {
    "test_create_optuna_distribution_from_override[key=range(1,3)-expected4]": _NEWER,
    "test_create_optuna_distribution_from_override[key=range(0.5, 5.5, step=1)-expected9]": _NEWER,
    "test_create_params_from_overrides[input3-expected3]": _NEWER,
    "test_motpe_sampler_removed": _NEWER,
    "test_optuna_custom_search_space_example": (
        "runs with -Werror, and Hydra warns that the app has no allow-list for targets; fails with "
        "both sweepers"
    ),
    "test_failure_rate[1.0]": (
        "expects that a sweep whose trials all failed says nothing on stderr; ours says why"
    ),
}


def upstream_tests(sweeper: str, folder: Path) -> dict[str, str | None]:
    """Run upstream's tests with a sweeper; return the error of each, None if it passed."""
    plugin = folder / f"plugin_{sweeper}"
    shutil.copytree(SOURCES / "optuna_sweeper", plugin)
    (plugin / "setup.py").touch()  # by which the tests find the plugin
    for path in plugin.rglob("*"):
        if path.suffix in (".py", ".yaml"):
            text = path.read_text()
            for chooses in ("hydra/sweeper=", "hydra/sweeper: "):
                text = text.replace(f"{chooses}optuna", f"{chooses}{sweeper}")
            path.write_text(text)
    (plugin / "pytest.ini").write_text("[pytest]\n")
    report = plugin / "report.xml"
    options = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/sweeper_plugin.py"],
        cwd=plugin,
        capture_output=True,
        check=False,
    )
    found: dict[str, str | None] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        problem = next((one for one in case if one.tag in ("failure", "error")), None)
        found[str(case.get("name"))] = None if problem is None else str(problem.get("message"))
    return found


def example(name: str, sweeper: str, folder: Path) -> str | None:
    """Sweep an example; return its error, None if its jobs are those of Hydra's basic sweeper."""
    jobs = {}
    for one in ("basic", sweeper):
        app = folder / one / name
        shutil.copytree((SOURCES / name).parent, app.parent, dirs_exist_ok=True)
        app.write_text(_returning_a_number(app.read_text()))
        options = [f"hydra/sweeper={one}", "hydra.sweep.dir=sweep"]
        options += [] if one == "basic" else ["hydra/sweeper/sampler=grid"]
        done = subprocess.run(
            [sys.executable, app.name, "--multirun", *options, *EXAMPLES[name]],
            cwd=app.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return f"{one}: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}"
        sweep = app.parent / "sweep"
        # A directory's other names are links to it.
        jobs[one] = sorted(path.read_text() for path in sweep.rglob(".hydra/config.yaml"))
    same = jobs["basic"] == jobs[sweeper]
    return None if same else f"{len(jobs[sweeper])} jobs, not {len(jobs['basic'])}, or others"


def _returning_a_number(source: str) -> str:
    tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and "hydra.main" in map(_name, node.decorator_list):
            node.body.append(ast.Return(ast.Constant(0.0)))
    return ast.unparse(ast.fix_missing_locations(tree))


def _name(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for sweeper in SWEEPERS:
            _show(sweeper, "Hydra's examples", {n: example(n, sweeper, folder) for n in EXAMPLES})
        for sweeper in SWEEPERS:
            _show(sweeper, "upstream's tests", upstream_tests(sweeper, folder))


def _show(sweeper: str, part: str, errors: dict[str, str | None]) -> None:
    passed = sum(error is None for error in errors.values())
    print(f"{sweeper:<13}{part:<18}{passed} of {len(errors)} passed", flush=True)
    for name, error in errors.items():
        if error is not None:
            reason = DIFFERENCES.get(name, error.strip().splitlines()[0][:200])
            print(f"    {name}: {reason}", flush=True)


if __name__ == "__main__":
    main()
