"""Group-sequential boundaries, against published ones and by simulation."""

import numpy as np
import pytest
from scipy.stats import t as student

from visionsweep.answer.sequential import boundaries, nominal_levels, spent

# Two-sided 5 %, equally spaced looks, spending function of the O'Brien-Fleming type: as the
# packages ldbounds and WinLD print them (Reboussin, DeMets, Kim and Lan 2000).
PUBLISHED = {
    2: [2.9626, 1.9686],
    3: [3.7103, 2.5114, 1.9930],
    4: [4.3326, 2.9631, 2.3590, 2.0141],
    5: [4.8769, 3.3569, 2.6803, 2.2898, 2.0310],
}


@pytest.mark.parametrize("looks", PUBLISHED)
def test_boundaries_are_the_published_ones(looks: int) -> None:
    fractions = [(look + 1) / looks for look in range(looks)]
    assert boundaries(fractions, 0.05) == pytest.approx(PUBLISHED[looks], abs=2e-4)


def test_one_look_is_a_plain_test() -> None:
    assert nominal_levels([1.0], 0.05) == [pytest.approx(0.05)]
    assert spent(1.0, 0.01) == pytest.approx(0.01)


def test_looking_again_and_again_is_wrong_in_five_percent_and_not_in_twenty() -> None:
    """Paired differences of seeds without a true one; a t-test after each of rounds 2 to 10."""
    rounds = range(2, 11)
    levels = nominal_levels([r / 10 for r in rounds], 0.05)
    draws = np.random.default_rng(0).normal(size=(20_000, 10))
    is_wrong, is_wrong_plain = np.zeros(len(draws), bool), np.zeros(len(draws), bool)
    for r, level in zip(rounds, levels, strict=True):
        seen = draws[:, :r]
        ratio = np.abs(seen.mean(axis=1)) / (seen.std(axis=1, ddof=1) / np.sqrt(r))
        is_wrong |= ratio > student.isf(level / 2, r - 1)
        is_wrong_plain |= ratio > student.isf(0.025, r - 1)
    assert is_wrong.mean() <= 0.055
    assert is_wrong.mean() > 0.03  # the error is spent, not hoarded
    assert is_wrong_plain.mean() > 0.15
