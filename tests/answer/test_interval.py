"""The uncertainty of a mean over seeds, compared with SciPy's tests and with simulations."""

import numpy as np
import pytest
from scipy import stats

from visionsweep.answer.interval import Estimate, estimate_difference, estimate_mean

VALUES = np.array([0.012, 0.003, 0.021, -0.004, 0.015])


def noise(std: float, num_seeds: int, *, shared: bool, seed: int = 0, rows: int = 20000):
    rng = np.random.default_rng(seed)
    columns = 1 if shared else num_seeds
    return np.broadcast_to(rng.normal(0, std, (rows, columns)), (rows, num_seeds))


def test_without_noise_of_images_it_is_the_t_test_over_seeds() -> None:
    estimate = estimate_mean(VALUES, np.empty((0, len(VALUES))))
    expected = stats.ttest_1samp(VALUES, 0)
    assert estimate.interval() == pytest.approx(tuple(expected.confidence_interval()), abs=1e-12)
    assert estimate.p_value() == pytest.approx(expected.pvalue, rel=1e-6)
    assert estimate.probability_positive() == pytest.approx(1 - expected.pvalue / 2, rel=1e-6)


def test_noise_of_images_that_no_two_seeds_share_is_in_the_seeds_already() -> None:
    noisy = VALUES + noise(0.01, len(VALUES), shared=False)
    estimate = estimate_mean(VALUES, noisy)
    expected = stats.t.interval(0.95, 4, VALUES.mean(), stats.sem(VALUES))
    assert estimate.interval() == pytest.approx(expected, abs=5e-4)


def test_noise_that_all_seeds_share_is_added_by_cochrans_rule() -> None:
    estimate = estimate_mean(VALUES, VALUES + noise(0.01, len(VALUES), shared=True))
    images, seeds = 0.01**2, VALUES.var(ddof=1) / 5
    half = (1.959964 * images + 2.776445 * seeds) / np.sqrt(images + seeds)
    assert estimate.half_width() == pytest.approx(half, rel=0.02)


def test_with_one_seed_it_is_the_noise_of_the_images() -> None:
    estimate = estimate_mean(VALUES[:1], VALUES[:1] + noise(0.02, 1, shared=True))
    assert estimate.half_width() == pytest.approx(1.96 * 0.02, rel=0.02)
    assert estimate.num_seeds == 1


def test_runs_that_are_not_paired_give_welchs_interval() -> None:
    other = np.array([0.02, -0.01, 0.0])
    found = estimate_difference(VALUES, np.empty((0, 5)), other, np.empty((0, 3)))
    expected = stats.ttest_ind(VALUES, other, equal_var=False)
    assert found.interval() == pytest.approx(tuple(expected.confidence_interval()), abs=1e-12)


def test_a_side_with_one_run_takes_the_spread_of_the_other() -> None:
    found = estimate_difference(VALUES, np.empty((0, 5)), VALUES[:1], np.empty((0, 1)))
    half = stats.t.isf(0.025, 4) * np.sqrt(VALUES.var(ddof=1) * (1 / 5 + 1))
    assert found.half_width() == pytest.approx(half)


def test_the_interval_at_the_level_of_the_p_value_ends_at_zero() -> None:
    estimate = Estimate(0.013, 2e-5, 3e-5, 4, 3)
    low, _ = estimate.interval(1 - estimate.p_value())
    assert low == pytest.approx(0, abs=1e-9)
    assert Estimate(0.0, 1e-5, 0, 1, 0).p_value() == 1


@pytest.mark.parametrize("num_seeds", [2, 3, 10])
@pytest.mark.parametrize(("shared", "seed_std"), [(0.0, 1.0), (1.0, 0.5), (0.5, 2.0)])
def test_it_holds_the_truth_in_about_95_of_100(
    num_seeds: int, shared: float, seed_std: float
) -> None:
    """Normal noise: `shared` by all seeds, 1 per seed and image, and `seed_std` between seeds."""
    rng = np.random.default_rng(7)
    resampled = noise(1.0, num_seeds, shared=False, rows=500)
    resampled = resampled + noise(shared, num_seeds, shared=True, seed=1, rows=500)
    hits = 0
    for _ in range(400):
        values = rng.normal(0, shared) + rng.normal(0, np.hypot(1, seed_std), num_seeds)
        low, high = estimate_mean(values, values + resampled).interval()
        hits += low <= 0 <= high
    assert 0.92 <= hits / 400 <= 0.985


def test_more_seeds_narrow_the_interval_down_to_what_the_images_leave() -> None:
    estimate = Estimate(0.01, 1e-4, 4e-4, 3, 2)
    assert estimate.half_width_with(3) == pytest.approx(estimate.half_width())
    assert estimate.half_width_with(10_000) == pytest.approx(1.96 * 0.01, rel=0.01)


def test_seeds_that_agree_by_chance_do_not_make_the_images_certain() -> None:
    values = np.array([0.0051, 0.0049, 0.0050])
    estimate = estimate_mean(values, values + noise(0.02, 3, shared=False))
    low, _ = estimate.interval()
    assert low > 0
    images = 0.02 / np.sqrt(3)
    assert estimate.half_width_of_images() == pytest.approx(1.96 * images, rel=0.02)
    assert estimate.p_value() == pytest.approx(2 * stats.norm.sf(0.005 / images), rel=0.02)


def test_seeds_that_agree_in_every_digit_leave_the_noise_of_the_images() -> None:
    values = np.array([0.005, 0.005])
    estimate = estimate_mean(values, values + noise(0.02, 2, shared=False))
    assert estimate.half_width() == pytest.approx(1.96 * 0.02 / np.sqrt(2), rel=0.02)
