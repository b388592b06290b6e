"""What decisions are fitted to."""

from pathlib import Path

import numpy as np

from tests.answer.made import make_finished_run, split_of
from visionsweep.predict.arguments import parse_arguments
from visionsweep.predict.deciding import held_out


def test_the_link_to_a_best_fold_stands_for_all_folds_of_its_trial(tmp_path: Path) -> None:
    """As for the networks: the mean of all folds predicts."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 40)
    for fold in range(2):
        rows = np.arange(fold, 40, 2)
        logits = rng.normal(size=(20, 3)).astype(np.float32)
        val = split_of(logits, targets[rows], ids=[f"{row:02}" for row in rows])
        config = {"split": {"val_fraction": 0.2, "fold": fold, "num_folds": 2}}
        make_finished_run(tmp_path / f"s/3/fold_{fold}", val, config=config)
    (tmp_path / "s/best").symlink_to("3/fold_0")
    arguments = parse_arguments(
        [f"run={tmp_path / 's/best'}", "data.predict=images", "out=out.csv", "decisions=auto"]
    )
    np.testing.assert_array_equal(held_out(arguments).targets, targets)
