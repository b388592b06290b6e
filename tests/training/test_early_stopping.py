"""The best epoch and early stopping on given objectives."""

from typing import Literal

import pytest

from visionsweep.training.early_stopping import EarlyStopping


@pytest.mark.parametrize(
    ("values", "direction", "patience", "min_delta", "expected"),
    [
        # a tie keeps the earlier epoch
        ([0.1, 0.9, 0.9, 0.5], "maximize", 9, 0.0, (2, 0.9, 4)),
        ([0.5, 0.2, 0.3], "minimize", 9, 0.0, (2, 0.2, 3)),
        # 0.501 and 0.502 are the best so far, but improve by less than min_delta
        ([0.5, 0.501, 0.502, 0.9], "maximize", 2, 0.01, (3, 0.502, 3)),
        # 0 is a value like any other
        ([0.0, -1.0, 0.0], "maximize", 9, 0.0, (1, 0.0, 3)),
        ([0.9, 0.8, 0.7, 0.6], "maximize", None, 0.0, (1, 0.9, 4)),
    ],
)
def test_best_epoch_and_end(
    values: list[float],
    direction: Literal["maximize", "minimize"],
    patience: int | None,
    min_delta: float,
    expected: tuple[int, float, int],
) -> None:
    stopping = EarlyStopping(direction, patience, min_delta)
    for epoch, value in enumerate(values, start=1):
        stopping.update(epoch, value)
        restored = EarlyStopping(direction, patience, min_delta)
        restored.load_state_dict(stopping.state_dict())
        stopping = restored
        if stopping.should_stop(epoch):
            break
    assert (stopping.best_epoch, stopping.best, epoch) == expected


def test_patience_counts_from_the_first_epoch_that_may_stop() -> None:
    stopping = EarlyStopping("maximize", 2, 0.0, first_epoch=3)
    ends = []
    for epoch, value in enumerate([0.9, 0.8, 0.7, 0.6, 0.5], 1):
        stopping.update(epoch, value)
        ends.append(stopping.should_stop(epoch))
    assert ends == [False, False, False, False, True]
    assert stopping.best_epoch == 1


def test_the_last_epoch_can_count_as_the_best() -> None:
    stopping = EarlyStopping("maximize", 2, 0.0, keeps_last=True)
    for epoch, value in enumerate([0.1, 0.9, 0.8], 1):
        assert stopping.update(epoch, value)
        assert (stopping.best_epoch, stopping.best) == (epoch, value)
    assert not stopping.should_stop(3)
    assert stopping.should_stop(4)  # the patience counts from the real best, epoch 2
