"""Hydra's examples, and the tests of hydra-optuna-sweeper, with our sweeper."""

from pathlib import Path

import pytest

from tests.sweep.upstream_counts import DIFFERENCES, EXAMPLES, example, upstream_tests

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_unchanged(name: str, tmp_path: Path) -> None:
    assert example(name, "optuna_async", tmp_path) is None


def test_upstreams_tests_pass_but_for_known_differences(tmp_path: Path) -> None:
    errors = upstream_tests("optuna_async", tmp_path)
    assert len(errors) == 29
    assert {name for name, error in errors.items() if error is not None} == set(DIFFERENCES)
