"""Which weights a sweep keeps."""

from pathlib import Path

from tests.sweep.records import record
from visionsweep.sweep.retention import disk_space, remove_checkpoints

ONE = ["maximize"]


def weights(sweep_dir: Path, *folders: str) -> None:
    for folder in folders:
        (sweep_dir / folder).mkdir(parents=True, exist_ok=True)
        (sweep_dir / folder / "best.pt").write_bytes(b"12345")
        (sweep_dir / folder / "config.yaml").write_text("")


def left(sweep_dir: Path) -> list[str]:
    return sorted(str(path.parent.relative_to(sweep_dir)) for path in sweep_dir.rglob("best.pt"))


def test_only_the_best_trials_keep_their_weights(tmp_path: Path) -> None:
    plain = [f"{n}/checkpoints" for n in (0, 1, 4, 5, 6, 9)]
    seeds = ["2/seed_0/checkpoints", "2/seed_1/checkpoints"]
    weights(tmp_path, *plain, *seeds, "3/checkpoints/a/b", "0/other")
    trials = [
        record(0, 0.2),
        record(1, 0.5),
        record(2, 0.4),
        record(3, 0.9, state="pruned"),
        record(4, state="failed"),
        record(5, state="running"),
        record(6, 0.6),
    ]
    assert remove_checkpoints(tmp_path, trials, ONE, None) == []
    assert len(left(tmp_path)) == 10
    assert remove_checkpoints(tmp_path, trials, ONE, 2) == [0, 2, 3, 4]
    # The study does not know 9.
    assert left(tmp_path) == ["0/other", *(f"{n}/checkpoints" for n in (1, 5, 6, 9))]
    assert (tmp_path / "0/other/config.yaml").exists()
    assert not (tmp_path / "0/checkpoints/config.yaml").exists()
    assert remove_checkpoints(tmp_path, trials, ONE, 2) == []
    assert remove_checkpoints(tmp_path, trials, ["minimize"], 0) == [1, 6]
    assert left(tmp_path) == ["0/other", "5/checkpoints", "9/checkpoints"]


def test_an_original_is_kept_for_its_duplicate(tmp_path: Path) -> None:
    weights(tmp_path, "0/checkpoints", "1/checkpoints", "2/checkpoints")
    original, other, worst = record(0, 0.9), record(1, 0.8), record(2, 0.1)
    copies = [record(n, 0.9, duplicate_of=0, directory=str(n)) for n in (3, 4)]
    assert remove_checkpoints(tmp_path, [worst, other, original, *copies], ONE, 2) == [2]
    # Duplicates do not count towards `keep`.
    assert left(tmp_path) == ["0/checkpoints", "1/checkpoints"]
    moved = [record(0, 0.1), record(3, 0.9, duplicate_of=0, directory="3"), record(1, 0.5)]
    assert remove_checkpoints(tmp_path, moved, ONE, 1) == [1]
    assert left(tmp_path) == ["0/checkpoints"]


def test_the_pareto_set_keeps_its_weights(tmp_path: Path) -> None:
    weights(tmp_path, *(f"{n}/checkpoints" for n in range(5)))
    values = [(0.9, 9), (0.8, 5), (0.85, 9), (0.1, 1), (0.05, 7)]
    trials = [record(n, *pair) for n, pair in enumerate(values)]
    directions = ["maximize", "minimize"]
    assert remove_checkpoints(tmp_path, trials, directions, 4) == [4]
    assert remove_checkpoints(tmp_path, trials, directions, 1) == [2]
    assert left(tmp_path) == ["0/checkpoints", "1/checkpoints", "3/checkpoints"]


def test_nothing_outside_the_sweep_is_touched(tmp_path: Path) -> None:
    sweep, outside = tmp_path / "sweep", tmp_path / "outside"
    weights(outside, "checkpoints", "7/checkpoints")
    weights(sweep, "checkpoints", "8/checkpoints", "9/kept")
    (sweep / "0").symlink_to(outside)
    (sweep / "1").mkdir()
    (sweep / "1" / "checkpoints").symlink_to(outside / "checkpoints")
    (sweep / "2").mkdir()
    (sweep / "2" / "seed_0").symlink_to(outside)
    (sweep / "3" / "checkpoints").mkdir(parents=True)
    (sweep / "3" / "checkpoints" / "last.pt").symlink_to(outside / "checkpoints" / "best.pt")
    (sweep / "3" / "checkpoints" / "all").symlink_to(outside / "7")
    (sweep / "4").symlink_to("8")
    places = ["../outside", str(outside), ".", "", "7/..", "8/../../outside", "missing", "4"]
    trials = [record(n, state="failed") for n in range(4)]
    trials += [record(10 + i, state="failed", directory=place) for i, place in enumerate(places)]
    assert remove_checkpoints(sweep, trials, ONE, 0) == [3]
    assert left(outside) == ["7/checkpoints", "checkpoints"]
    assert left(sweep) == ["8/checkpoints", "9/kept", "checkpoints"]
    assert not (sweep / "3" / "checkpoints" / "last.pt").is_symlink()


def test_cleaned_directories_are_skipped(tmp_path: Path) -> None:
    weights(tmp_path, "0/checkpoints", "1/checkpoints")
    trials, cleaned = [record(0, 0.1), record(1, 0.2)], set[str]()
    assert remove_checkpoints(tmp_path, trials, ONE, 1, cleaned=cleaned) == [0]
    assert cleaned == {"0"}
    weights(tmp_path, "0/checkpoints")
    assert remove_checkpoints(tmp_path, trials, ONE, 0, cleaned=cleaned) == [1]


def test_disk_space_is_the_size_of_the_largest_folder(tmp_path: Path) -> None:
    assert disk_space(tmp_path) is None
    (tmp_path / "0" / "checkpoints").mkdir(parents=True)
    assert disk_space(tmp_path) is None
    (tmp_path / "0" / "checkpoints" / "last.pt").write_bytes(b"x" * 30)
    (tmp_path / "0" / "checkpoints" / "best.pt").write_bytes(b"x" * 12)
    (tmp_path / "1" / "seed_0" / "checkpoints").mkdir(parents=True)
    (tmp_path / "1" / "seed_0" / "checkpoints" / "best.pt").write_bytes(b"x" * 41)
    (tmp_path / "1" / "big.log").write_bytes(b"x" * 99)
    assert disk_space(tmp_path) == 42
