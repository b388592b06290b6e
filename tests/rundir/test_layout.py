from pathlib import Path

import pytest

from visionsweep.rundir.layout import (
    holds_sweep,
    parse_place,
    run_directories,
    run_place,
    runs_of_trial,
    sweep_directory,
)


def make_runs(directory: Path, *names: str) -> list[Path]:
    for name in reversed(names):
        (directory / name).mkdir(parents=True)
        (directory / name / "events.jsonl").touch()
    return [directory / name for name in names]


def test_runs_are_found_once_and_in_order(tmp_path: Path) -> None:
    names = ["0/seed_0", "0/seed_2", "0/seed_10", "2", "10", "first"]
    runs = make_runs(tmp_path, *names)
    (tmp_path / "best").symlink_to("10")
    (tmp_path / "plots/deep").mkdir(parents=True)
    (tmp_path / "sweep.log").touch()
    assert run_directories(tmp_path) == runs
    assert run_directories(tmp_path / "0") == runs[:3]
    assert run_directories(tmp_path / "2") == [tmp_path / "2"]
    assert run_directories(tmp_path / "nowhere") == []
    assert {sweep_directory(run) for run in runs} == {tmp_path}
    assert runs_of_trial(tmp_path / "0") == runs[:3]
    assert runs_of_trial(tmp_path / "2") == [tmp_path / "2"]


def test_folds_are_runs_of_a_trial_or_of_a_single_run(tmp_path: Path) -> None:
    names = ["0/fold_0", "0/fold_2", "0/fold_10", "1/seed_0/fold_0", "1/seed_0/fold_1"]
    names += ["1/seed_1/fold_0"]
    sweep = tmp_path / "multirun/faces"
    runs = make_runs(sweep, *names)
    assert run_directories(sweep) == runs
    assert runs_of_trial(sweep / "0") == runs[:3]
    assert runs_of_trial(sweep / "1") == runs[3:]
    assert runs_of_trial(sweep / "1/seed_0") == runs[3:5]
    assert {sweep_directory(run) for run in runs} == {sweep}
    single = make_runs(tmp_path / "outputs/first", "fold_0", "fold_1")
    assert run_directories(tmp_path / "outputs") == single
    assert runs_of_trial(tmp_path / "outputs/first") == single
    assert sweep_directory(single[0]) == tmp_path / "outputs/first"
    assert not holds_sweep(tmp_path / "outputs/first")


@pytest.mark.parametrize(
    ("names", "is_sweep"),
    [(["0", "1/seed_0"], True), (["seed_0"], False), (["7", "first"], False), ([], False)],
)
def test_numbered_runs_are_a_sweep(names: list[str], is_sweep: bool, tmp_path: Path) -> None:
    runs = make_runs(tmp_path, *names)
    assert holds_sweep(tmp_path) == is_sweep
    assert not any(holds_sweep(run) for run in runs)


@pytest.mark.parametrize(
    ("place", "directory"),
    [
        ((7, None, None), "7"),
        ((7, 0, None), "7/seed_0"),
        ((12, None, 10), "12/fold_10"),
        ((12, 10, 3), "12/seed_10/fold_3"),
    ],
)
def test_a_place_is_read_back(place: tuple[int, int | None, int | None], directory: str) -> None:
    assert run_place(*place) == directory
    assert parse_place(directory) == place
